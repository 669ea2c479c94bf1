"""Answers where databases stand: what ran, what is pending, what differs; changes nothing."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from . import applied
from .chain import Chain, chains, heads_of, several_heads
from .connecting import ask
from .environment import Task, comparing
from .errors import MigrationError
from .writing import changes

if TYPE_CHECKING:
    from datetime import datetime

    from alembic.script import Script
    from sqlalchemy import Connection

    from stillroom import Databases

__all__ = ["EXIT_CODES", "Finding", "Known", "Planned", "Standing", "check", "history", "plan", "sql", "status"]

Kind = Literal["pending", "drift", "heads", "edited", "unknown"]

EXIT_CODES: dict[Kind, int] = {"pending": 3, "drift": 4, "heads": 5, "edited": 6, "unknown": 7}
"""What a program exits with after `check`; the highest of what was found."""


@dataclass(frozen=True)
class Finding:
    """
    Something that is off.

    Attributes:
        database: The database.
        kind: "pending", "drift" (the tables are not what the models say), "heads" (several), "edited" (a revision's
            file was changed after it ran) or "unknown" (the database has a revision that this code has not).
        text: What, in a sentence.
    """

    database: str
    kind: Kind
    text: str


@dataclass(frozen=True)
class Standing:
    """
    Where a database stands.

    Attributes:
        database: Its name.
        current: The revisions that it has; one, unless there are several heads.
        heads: The newest revisions of its directory.
        pending: What an upgrade would run, in order.
        at: When the newest revision ran, in UTC; None where that was not written down.
        by: Who ran it.
        findings: What is off.
    """

    database: str
    current: tuple[str, ...]
    heads: tuple[str, ...]
    pending: tuple[str, ...] = ()
    at: datetime | None = None
    by: str = ""
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class Known:
    """
    A revision of a directory.

    Attributes:
        database: The database it is for.
        revision: Its id.
        down: Those that it stands on.
        message: What it does.
        path: Its file.
    """

    database: str
    revision: str
    down: tuple[str, ...]
    message: str
    path: str


@dataclass(frozen=True)
class Planned:
    """
    A revision that an upgrade would run.

    Attributes:
        database: The database.
        revision: Its id.
        message: What it does.
        sql: What it would send; None where it asks the database before it knows.
    """

    database: str
    revision: str
    message: str
    sql: str | None


def status(databases: Databases, database: str | None = None) -> list[Standing]:
    """
    Say where databases stand.

    Args:
        databases: The application's.
        database: One of them; None for all that have migrations.
    """
    return [_standing(chain) for chain in chains(databases, database)]


def check(databases: Databases, database: str | None = None) -> list[Finding]:
    """
    Return what is off in databases; nothing where each has the newest revision and the tables of its models.

    Args:
        databases: The application's.
        database: One of them; None for all that have migrations.
    """
    return [finding for each in status(databases, database) for finding in each.findings]


def history(databases: Databases, database: str | None = None) -> list[Known]:
    """
    List the revisions, the newest first; connects to nothing.

    Args:
        databases: The application's.
        database: One of them; None for all that have migrations.
    """
    return [
        Known(chain.name, script.revision, _down(script), script.doc, script.path)
        for chain in chains(databases, database)
        for script in chain.script().walk_revisions()
    ]


def plan(databases: Databases, database: str | None = None) -> list[Planned]:
    """
    List what an upgrade would run, with its SQL.

    Args:
        databases: The application's.
        database: One of them; None for all that have migrations.
    """
    found = []
    for chain in chains(databases, database):
        current = ask(chain.database, heads_of)
        found += [
            Planned(chain.name, script.revision, script.doc, _offline(chain, script))
            for script in chain.pending(current)
        ]
    return found


def sql(
    databases: Databases, database: str | None = None, revision: str = "head", *, start: str = "base"
) -> dict[str, str]:
    """
    Write the SQL of an upgrade for each database, to be run by somebody else; connects to nothing.

    Args:
        databases: The application's.
        database: One of them; None for all that have migrations.
        revision: Up to which one.
        start: What the database has.

    Raises:
        MigrationError: A revision asks the database before it knows what to do.
    """
    return {chain.name: _sql(chain, start, revision) for chain in chains(databases, database)}


def _standing(chain: Chain) -> Standing:
    current, ran = ask(chain.database, lambda connection: (heads_of(connection), applied.read(connection)))
    script = chain.script()
    heads = tuple(sorted(script.get_heads()))
    here = {each.revision: each for each in script.walk_revisions()}
    unknown = [each for each in current if each not in here]
    pending = () if unknown else tuple(each.revision for each in chain.pending(current, "heads"))
    edited = applied.edited(ran, here.values())
    findings: list[tuple[Kind, str]] = []
    if unknown:
        findings.append(("unknown", f"it has {', '.join(unknown)}, which is not in {str(chain.versions)!r}"))
    if edited:
        findings.append(("edited", f"changed after it ran: {', '.join(edited)}"))
    if len(heads) > 1:
        findings.append(("heads", several_heads(chain.name, heads)))
    if pending:
        findings.append(("pending", f"{len(pending)} revision(s) to run: {', '.join(pending)}"))
    elif not unknown:
        findings += [("drift", f"to bring the tables to the models: {each}") for each in _drift(chain)]
    newest = max((ran[each] for each in current if each in ran), key=lambda each: each.at, default=None)
    return Standing(
        database=chain.name,
        current=current,
        heads=heads,
        pending=pending,
        at=newest.at if newest else None,
        by=newest.by if newest else "",
        findings=tuple(Finding(chain.name, kind, text) for kind, text in findings),
    )


def _drift(chain: Chain) -> list[str]:
    metadata = chain.database.metadata
    if not metadata.tables:
        return []

    def compare(connection: Connection) -> list[tuple[str, str]]:
        return changes(compare_metadata(MigrationContext.configure(connection, opts=comparing(chain)), metadata))

    return [f"{kind} {name}" for kind, name in ask(chain.database, compare)]


def _down(script: Script) -> tuple[str, ...]:
    down = script.down_revision
    return () if down is None else (down,) if isinstance(down, str) else tuple(down)


def _offline(chain: Chain, script: Script) -> str | None:
    down = _down(script)
    if len(down) > 1:
        return ""  # joins heads, and does nothing else
    try:
        return _sql(chain, down[0] if down else "base", script.revision)
    except MigrationError:
        return None


def _sql(chain: Chain, start: str, end: str) -> str:
    chain.script()
    output = io.StringIO()
    try:
        chain.command(command.upgrade, Task(chain), f"{start}:{end}", sql=True, output=output)
    except MigrationError:
        raise
    except Exception as error:
        raise MigrationError(
            f"the SQL of {chain.name!r} from {start!r} to {end!r} cannot be written without the database: "
            f"{type(error).__name__}: {error}. A revision asks for something that only op.get_bind() can tell"
        ) from error
    return output.getvalue().strip() + "\n"
