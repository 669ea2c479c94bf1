"""The revisions of one database, and Alembic driven over them without a file of configuration."""

from __future__ import annotations

import re
import threading
from argparse import Namespace
from contextlib import contextmanager
from difflib import get_close_matches
from graphlib import TopologicalSorter
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.script.revision import ResolutionError, RevisionError
from alembic.util import CommandError

from .applied import Log, checksum
from .errors import MigrationError, NoMigrations, UnknownRevision

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from alembic.script import Script
    from sqlalchemy import Connection

    from stillroom import Database, Databases

    from .environment import Task

__all__ = ["SQUASHED", "TASK", "Chain", "chains", "explained", "replaced_by", "require", "several_heads"]

SQUASHED = "squashed"
"""Below `versions`: a directory for each squashed revision, with the files that it replaces."""

_STEPS = re.compile(r"[+-]\d+$")
"""The end of a target that counts from another one, such as "-1"."""

TASK = "stillroom"
"""Where Alembic's configuration carries the task to its environment."""

_read: dict[Path, tuple[frozenset[tuple[str, int, int]], ScriptDirectory, list[Script]]] = {}
"""The state of the files that were read, by directory, the revisions, and those that a squash left over."""
_alembic = threading.RLock()
"""Alembic keeps what it works on in its modules `op` and `context`: one command at a time in a process."""


class Chain:
    """
    The revisions of one database.

    Args:
        database: The database; its setting `migrations` is the directory that holds `versions`.
        versions: Where the files are; None for that directory.

    Raises:
        NoMigrations: It has none.
    """

    def __init__(self, database: Database, versions: Path | None = None) -> None:
        if database.settings.migrations is None:
            raise NoMigrations(
                f"the database {database.name!r} has no migrations; name a directory in the settings: "
                f'databases.{database.name}.migrations = "migrations/{database.name}"'
            )
        self.database = database
        self.directory = Path(database.settings.migrations)
        self.versions = versions or self.directory / "versions"
        self.log = Log(database.settings)
        settings = database.settings
        self.tables: dict[str, Any] = {"version_table_schema": settings.version_schema}
        if settings.version_table is not None:
            self.tables["version_table"] = settings.version_table

    def __repr__(self) -> str:
        return f"<Chain of {self.database.name!r} in {str(self.directory)!r}>"

    @property
    def name(self) -> str:
        """
        The name of the database.
        """
        return self.database.name

    def config(self, task: Task | None = None, output: TextIO | None = None) -> Config:
        """
        Make Alembic's configuration.

        Args:
            task: What its environment is to do.
            output: Where SQL is written to that is not run.
        """
        config = Config(output_buffer=output, cmd_opts=Namespace(quiet=True))
        config.set_main_option("path_separator", "newline")
        for option, path in {
            "script_location": files("stillroom.migrations") / "template",
            "version_locations": self.versions.absolute(),
        }.items():
            config.set_main_option(option, str(path).replace("%", "%%"))
        config.attributes[TASK] = task
        return config

    def script(self) -> ScriptDirectory:
        """
        Return the revisions.

        Raises:
            NoMigrations: The directory is not there.
            MigrationError: It is half squashed.
        """
        directory, left = self.read()
        if left:
            raise MigrationError(
                f"the revisions of {self.name!r} were being squashed by a process that died, and of those that became "
                f"one {', '.join(script.revision for script in left)} stand beside it; finish that with "
                f"`stillroom squash {self.name}`"
            )
        return directory

    def read(self) -> tuple[ScriptDirectory, list[Script]]:
        """
        Read the revisions, and which of them stand beside the one that they became, the oldest first.
        """
        self._require_directory()
        # Reading 50 files takes longer than to ask a database that is up to date, and tenants share them.
        files = [(each.name, each.stat()) for each in self.versions.glob("*.py")]
        state = frozenset((name, found.st_mtime_ns, found.st_size) for name, found in files)
        path = self.versions.absolute()
        known = _read.get(path)
        if known is None or known[0] != state:
            directory = ScriptDirectory.from_config(self.config())
            with explained(self.name):
                known = _read[path] = (state, directory, _left_over(directory))
        return known[1:]

    def _require_directory(self) -> None:
        if not self.versions.is_dir():
            raise NoMigrations(
                f"the database {self.name!r} has no directory {str(self.versions)!r}; make it with `stillroom init`, "
                "or run this where the setting's relative path begins"
            )

    def command(
        self, command: Callable[..., Any], task: Task, *arguments: Any, output: TextIO | None = None, **keywords: Any
    ) -> Any:
        """
        Run one of the functions of `alembic.command` on this chain.

        Raises:
            MigrationError: Alembic refuses.
        """
        with _alembic, explained(self.name):
            return command(self.config(task, output), *arguments, **keywords)

    def head(self) -> str | None:
        """
        Return the newest revision; None where there is none.

        Raises:
            MigrationError: There are several.
        """
        heads = self.script().get_heads()
        if len(heads) > 1:
            raise MigrationError(several_heads(self.name, heads))
        return heads[0] if heads else None

    def current(self, connection: Connection) -> tuple[str, ...]:
        """
        Read the revisions that a database has, and end the transaction.
        """
        heads = MigrationContext.configure(connection, opts=self.tables).get_current_heads()
        connection.rollback()
        return heads

    # --- revisions that were squashed

    def archives(self) -> list[Chain]:
        """
        Return the files that squashed revisions replace, each as a chain that ends with the squashed one.
        """
        found = sorted((self.versions / SQUASHED).glob("*/"))
        return [Chain(self.database, path) for path in found if any(path.glob("*.py"))]

    def parts(self, current: Sequence[str]) -> list[Chain]:
        """
        Return the chains on the way of a database, in order: the replaced files that it is in the midst of, and this.
        """
        found: list[Chain] = []
        archives = self.archives()
        known = {script.revision for script in self.script().walk_revisions()} if archives and current else set()
        while archives and current and not known.issuperset(current):
            here = [each for each in archives if each.holds(current) and set(current) != set(each.script().get_heads())]
            if not here:
                break  # what that revision is, nobody here knows
            archives.remove(here[0])
            found.append(here[0])
            current = here[0].script().get_heads()
        return [*found, self]

    def holds(self, revisions: Sequence[str]) -> bool:
        """
        Say whether all of these revisions are here.
        """
        return {script.revision for script in self.script().walk_revisions()}.issuperset(revisions)

    def knows(self, target: str, *, replaced: bool = False) -> bool:
        """
        Say whether a target is here, as far as that can be said without the database.

        Args:
            target: A revision in Alembic's words: an id or its beginning, "head", "base", "-1", "branch@head".
            replaced: It may be among the files that squashed revisions replace.

        Raises:
            NoMigrations: There is no directory.
        """
        self._require_directory()
        revision = _STEPS.sub("", target)
        if revision in ("", "head", "heads"):
            return True  # of several heads those who run them complain
        for each in [self, *(self.archives() if replaced else ())]:
            script = each.script()
            try:
                script.get_revisions(f"{revision}heads" if revision.endswith("@") else revision)
            except CommandError:
                continue
            return True
        return False

    def replaced(self) -> dict[str, set[str]]:
        """
        Return the checksums of the files that were replaced, by revision.
        """
        found: dict[str, set[str]] = {}
        for archive in self.archives():
            for script in archive.script().walk_revisions():
                found.setdefault(script.revision, set()).add(checksum(script.path))
        return found

    # --- what is between two revisions

    def pending(self, current: Sequence[str], target: str = "head") -> list[Script]:
        """
        List the revisions between what a database has and a target, in the order in which they run.

        Args:
            current: The revisions in the database.
            target: A revision, "head" or "heads".

        Raises:
            MigrationError: There is no such revision, or "head" is not one alone.
        """
        return [script for _, script in self.way(current, target)]

    def way(self, current: Sequence[str], target: str = "head") -> list[tuple[Chain, Script]]:
        """
        Same as `pending`, but each revision with the chain that it is in, which may be that of replaced files.
        """
        found: list[tuple[Chain, Script]] = []
        if target == "head":
            self.head()
        for part in self.parts(current):
            script, goal = part.script(), target if part is self else "heads"
            with explained(self.name):
                # Alembic walks from the newest to the oldest.
                steps = list(script.iterate_revisions(goal, tuple(current), implicit_base=True))[::-1]
            found += [(part, step) for step in steps]
            current = script.get_heads()
        return found

    def undone(self, current: Sequence[str], target: str) -> list[Script]:
        """
        Same as `pending`, but for the way back.
        """
        script = self.parts(current)[0].script()
        with explained(self.name):
            return list(script.iterate_revisions(tuple(current), target, select_for_downgrade=True))


def replaced_by(script: Script) -> tuple[str, ...]:
    """
    Return the revisions that became this one; none, unless it was squashed.
    """
    found = getattr(script.module, "replaces", ())
    return found if isinstance(found, tuple) else ()


def _left_over(directory: ScriptDirectory) -> list[Script]:
    scripts = list(directory.walk_revisions())
    gone = {name for script in scripts for name in replaced_by(script)}
    return [script for script in reversed(scripts) if script.revision in gone]


def several_heads(name: str, heads: Sequence[str]) -> str:
    """
    Say that a chain has several heads, and what to do.
    """
    found = ", ".join(sorted(heads))
    return f"the migrations of {name!r} have {len(heads)} heads ({found}); join them with `stillroom merge {name}`"


def chains(databases: Databases, database: str | None = None, *, newest_first: bool = False) -> list[Chain]:
    """
    Return the chains of one database or of all, each after those that it depends on.

    Args:
        databases: The application's.
        database: The name of one; None for all that have migrations.
        newest_first: The other way round.

    Raises:
        NoMigrations: No database has migrations.
        UnknownDatabase: There is none of that name.
    """
    if database is not None:
        return [Chain(databases[database])]
    order = TopologicalSorter({name: databases[name].settings.depends_on for name in databases}).static_order()
    found = [Chain(databases[name]) for name in order if databases[name].settings.migrations is not None]
    if not found:
        raise NoMigrations(
            "no database has migrations; name a directory in the settings, such as "
            f'databases.{databases.default.name}.migrations = "migrations/{databases.default.name}"'
        )
    return found[::-1] if newest_first else found


def require(found: Sequence[Chain], target: str, *, replaced: bool = False) -> None:
    """
    Refuse a target that one of several chains does not have, before a database is touched.

    Args:
        found: The chains.
        target: As for `Chain.knows`.
        replaced: As for `Chain.knows`.

    Raises:
        UnknownRevision: It is not there, or several revisions begin so.
        NoMigrations: A chain has no directory.
    """
    firsts = {chain.versions: chain for chain in reversed(found)}  # tenants share one
    known = {chain.name: chain.knows(target, replaced=replaced) for chain in reversed(firsts.values())}
    if lacking := [chain for chain in found if known.get(chain.name) is False]:
        revision, having = _STEPS.sub("", target), [name for name, has in known.items() if has]
        # Where nobody has it, it was meant for the database that has one like it.
        likely = max(lacking, key=lambda chain: bool(get_close_matches(revision, _ids(chain))))
        raise UnknownRevision(_unknown(likely, revision, having))


def _ids(chain: Chain) -> list[str]:
    return [script.revision for script in chain.script().walk_revisions()]


def _unknown(chain: Chain, revision: str, having: Sequence[str]) -> str:
    ids = _ids(chain)
    begun = [each for each in ids if each.startswith(revision)]
    if len(begun) > 1:
        return f"{len(begun)} revisions of the database {chain.name!r} begin with {revision!r}: {', '.join(begun)}"
    text = f"the database {chain.name!r} has no revision {revision!r} in {str(chain.versions)!r}"
    if having:
        return f"{text}, unlike {', '.join(map(repr, having))}: name the database that is meant"
    if near := get_close_matches(revision, ids):
        return f"{text}; did you mean {' or '.join(map(repr, near))}?"
    return f"{text}; the newest are {', '.join(map(repr, ids[:3]))}" if ids else f"{text}, which is empty"


@contextmanager
def explained(name: str) -> Iterator[None]:
    """
    Turn Alembic's complaints inside the block into an error that names the database.
    """
    try:
        yield
    except (CommandError, RevisionError) as error:
        text = " ".join(str(error).split()).rstrip(".")
        if isinstance(error, ResolutionError) or isinstance(error.__cause__, ResolutionError):
            text += "; this code does not have that revision: it is misspelt, or newer code migrated the database"
        raise MigrationError(f"the migrations of {name!r}: {text}") from error
