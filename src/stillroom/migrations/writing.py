"""Writes revisions: empty ones, those that the models ask for, and those that join two heads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from alembic import command
from alembic.operations import ops

from .applied import edited
from .chain import Chain, chains, several_heads
from .comparing import Statement
from .connecting import with_engine
from .environment import Task
from .errors import RevisionRefused
from .options import Options

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from alembic.operations.ops import MigrationScript
    from alembic.script import Script
    from sqlalchemy import Engine

    from stillroom import Databases

__all__ = ["Written", "changes", "init", "merge", "revision"]

FEW_DROPS = 3
"""So many tables and columns may go without a question."""


@dataclass(frozen=True)
class Written:
    """
    A revision that was written.

    Attributes:
        database: The database it is for.
        revision: Its id.
        path: Its file.
        changes: What it changes, as far as the models told.
    """

    database: str
    revision: str
    path: str
    changes: tuple[str, ...] = ()


def init(databases: Databases, database: str | None = None) -> list[Path]:
    """
    Make the directories for revisions.

    Args:
        databases: The application's.
        database: One of them; None for all that have migrations.

    Returns:
        The directories that were not there before.
    """
    found = dict.fromkeys(chain.versions for chain in chains(databases, database))  # tenants share one
    missing = [directory for directory in found if not directory.is_dir()]
    for directory in missing:
        directory.mkdir(parents=True)
    return missing


def revision(
    databases: Databases,
    message: str,
    database: str | None = None,
    *,
    autogenerate: bool = False,
    allow_drops: bool = False,
) -> list[Written]:
    """
    Write a revision on top of the newest one, to be read and completed by hand.

    Args:
        databases: The application's.
        message: What it does, in a few words.
        database: The database; None for all that have migrations, with `autogenerate` those whose models changed; of
            those that share a directory the first one.
        autogenerate: Let it do what brings the tables to the models.
        allow_drops: It may drop more than a few tables and columns.

    Raises:
        RevisionRefused: It would not be what its author wants; nothing was written for that database.
        NoMigrations: There are none.
    """
    found = chains(databases, database)
    if autogenerate and database is None:
        # A database whose revisions are all written by hand names no models; where none does, that is refused below.
        found = [chain for chain in found if chain.database.settings.metadata is not None] or found
    firsts: dict[Path, Chain] = {}
    for chain in found:
        chain.head()
        firsts.setdefault(chain.versions, chain)  # tenants that share a directory share its revisions
    written = []
    for chain in firsts.values():
        if autogenerate:
            written += _generated(chain, message, allow_drops=allow_drops)
        else:
            written += _written(chain, chain.command(command.revision, Task(chain), message=message))
    return written


def merge(databases: Databases, database: str, message: str = "merge") -> list[Written]:
    """
    Join the heads of a chain by a revision that changes nothing; nothing is written where there is one head.

    Args:
        databases: The application's.
        database: The database.
        message: Of the revision.
    """
    chain = Chain(databases[database])
    if len(chain.script().get_heads()) < 2:
        return []
    return _written(chain, chain.command(command.merge, Task(chain), "heads", message=message))


def changes(differences: Iterable[Any]) -> list[tuple[str, str]]:
    """
    Name what Alembic found to be different.

    Args:
        differences: As `alembic.autogenerate.compare_metadata` returns them.

    Returns:
        Kind and object of each, such as `("add_column", "book.title")`.
    """
    found = []
    for each in differences:
        if isinstance(each, list):  # what changes about one column
            found += changes(each)
        elif isinstance(each[1], Statement):
            found.append((each[0], each[1].name))
        elif each[0].endswith("_column"):
            found.append((each[0], f"{each[2]}.{each[3].name}"))
        elif each[0].startswith("modify_"):
            found.append((each[0], f"{each[2]}.{each[3]}"))
        else:
            thing = each[1]
            table = getattr(thing, "table", None)
            found.append((each[0], str(thing.name) if table is None else f"{table.name}.{thing.name}"))
    return found


def _written(chain: Chain, script: Script | None, what: Iterable[str] = ()) -> list[Written]:
    return [Written(chain.name, script.revision, script.path, tuple(what))] if script is not None else []


def _generated(chain: Chain, message: str, *, allow_drops: bool) -> list[Written]:
    if not chain.database.metadata.tables:
        raise RevisionRefused(
            f"the database {chain.name!r} has no models, so a revision would drop every table: name them in the "
            f'settings, such as databases.{chain.name}.metadata = "shop.models:Base" and '
            f'databases.{chain.name}.models = ["shop"]'
        )
    what: list[tuple[str, str]] = []

    def look(context: Any, revision: Any, scripts: list[MigrationScript]) -> None:
        operations = scripts[0].upgrade_ops
        what.extend(changes(operations.as_diffs() if operations is not None else ()))
        if not what:
            scripts.clear()
        elif chain.database.backend.name == "mysql":
            for each in (operations, scripts[0].downgrade_ops):
                _keep_indexes_of_dropped_tables(each)
        if refused := [each.refused for each in _statements(operations) if each.refused]:
            raise RevisionRefused(f"the revision of {chain.name!r} was not written: {'; '.join(refused)}")
        drops = sorted(name for kind, name in what if kind in ("remove_table", "remove_column"))
        if len(drops) > FEW_DROPS and not allow_drops:
            raise RevisionRefused(
                f"the revision of {chain.name!r} would drop {len(drops)} tables and columns ({', '.join(drops)}); if "
                "models are not imported, name their packages in the setting `models`, else allow it with --allow-drops"
            )

    def work(engine: Engine) -> list[Written]:
        with engine.connect() as connection:
            _require_newest(chain, chain.current(connection))
            if changed := edited(chain.log.read(connection), chain.script().walk_revisions(), chain.replaced()):
                raise RevisionRefused(
                    f"the database {chain.name!r} ran another text of {', '.join(changed)} than there is now, so a new "
                    "revision may repeat it; put the old text back, and what is new into a revision of its own"
                )
            connection.rollback()
            task = Task(chain, connection, compares=True)
            scripts = chain.command(
                command.revision, task, message=message, autogenerate=True, process_revision_directives=look
            )
            return _written(chain, scripts, (f"{kind} {name}" for kind, name in what)) if what else []

    return with_engine(chain.database, Options().lock_timeout, work)


def _keep_indexes_of_dropped_tables(operations: Any) -> None:
    """
    Let indexes go with their table: MariaDB refuses to drop one that a foreign key needs.
    """
    gone = {each.table_name for each in operations.ops if isinstance(each, ops.DropTableOp)}
    for each in operations.ops:
        if isinstance(each, ops.ModifyTableOps) and each.table_name in gone:
            each.ops = [one for one in each.ops if not isinstance(one, ops.DropIndexOp)]


def _statements(operations: Any) -> list[Statement]:
    return [each for each in getattr(operations, "ops", ()) if isinstance(each, Statement)]


def _require_newest(chain: Chain, current: Sequence[str]) -> None:
    if len(current) > 1:
        raise RevisionRefused(several_heads(chain.name, current))
    if chain.pending(current):
        raise RevisionRefused(
            f"the database {chain.name!r} is not at the newest revision, so a new one would repeat what the pending "
            f"ones do; run `stillroom upgrade {chain.name}` first"
        )
