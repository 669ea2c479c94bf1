"""Answers where databases stand: what ran, what is pending, what differs; changes nothing."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from .applied import edited
from .chain import Chain, chains, require, several_heads
from .connecting import ask
from .environment import comparing
from .errors import MigrationError, SqlNotWritten
from .risks import Step, assess
from .schema import offline
from .writing import changes

if TYPE_CHECKING:
    from datetime import datetime

    from alembic.script import Script
    from sqlalchemy import Connection

    from stillroom import Databases

__all__ = [
    "EXIT_CODES",
    "Finding",
    "Known",
    "Planned",
    "Standing",
    "check",
    "history",
    "plan",
    "plan_downgrade",
    "sql",
    "status",
]

Kind = Literal["pending", "drift", "heads", "edited", "unknown", "unfinished"]

EXIT_CODES: dict[Kind, int] = {"pending": 3, "drift": 4, "heads": 5, "edited": 6, "unknown": 7, "unfinished": 8}
"""What a program exits with after `check`; the highest of what was found."""


@dataclass(frozen=True)
class Finding:
    """
    Something that is off.

    Attributes:
        database: The database.
        kind: "pending", "drift" (the tables are not what the models say), "heads" (several), "edited" (a revision's
            file was changed after it ran), "unknown" (the database has a revision that this code has not) or
            "unfinished" (a process was killed in the midst of a revision, part of which stays).
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
        head: The newest revision of its directory; None where there is none, or several.
        heads: The newest revisions; several, until they are merged.
        pending: What an upgrade would run, in order.
        drift: What differs between the tables and the models; looked for where nothing is pending.
        at: When the newest revision ran, in UTC; None where that was not written down.
        by: Who ran it.
        findings: What is off.
    """

    database: str
    current: tuple[str, ...]
    head: str | None
    heads: tuple[str, ...]
    pending: tuple[str, ...] = ()
    drift: tuple[str, ...] = ()
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
        steps: Its statements, with the lock that each may take and what to think of; those of Alembic's own table
            are left out. Empty where that is not known.
        transactional: It leaves nothing where it fails.
        reversible: It has a downgrade that does something.
    """

    database: str
    revision: str
    message: str
    sql: str | None
    steps: tuple[Step, ...] = ()
    transactional: bool = True
    reversible: bool = True


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
        current = ask(chain.database, chain.current)
        found += [_planned(part, script) for part, script in chain.way(current)]
    return found


def plan_downgrade(databases: Databases, revision: str, database: str | None = None) -> dict[str, tuple[str, ...]]:
    """
    List the revisions that a downgrade would undo, by database, in the order in which it goes.

    Args:
        databases: The application's.
        revision: The revision to go back to: an id, "base", or "-1" for one step.
        database: One of them; None for all that have migrations.

    Raises:
        UnknownRevision: A database's directory does not have the revision; no database was asked.
    """
    found = chains(databases, database, newest_first=True)
    require(found, revision, replaced=True)
    return {
        chain.name: tuple(each.revision for each in chain.undone(ask(chain.database, chain.current), revision))
        for chain in found
    }


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
        SqlNotWritten: A revision asks the database before it knows what to do; has the SQL of the other databases.
        UnknownRevision: A database's directory does not have one of the revisions.
    """
    found = chains(databases, database)
    for target in (revision, start):
        require(found, target)
    texts: dict[str, str] = {}
    errors: list[MigrationError] = []
    for chain in found:
        try:
            texts[chain.name] = "\n\n".join(offline(chain, start, revision)) + "\n"
        except MigrationError as error:
            errors.append(error)
    if errors:
        raise SqlNotWritten(". ".join(map(str, errors)), texts=texts) from errors[0]
    return texts


def _standing(chain: Chain) -> Standing:
    current, ran, unfinished = ask(
        chain.database,
        lambda connection: (chain.current(connection), chain.log.read(connection), chain.log.unfinished(connection)),
    )
    script = chain.script()
    heads = tuple(sorted(script.get_heads()))
    here = {each.revision: each for each in script.walk_revisions()}
    unknown = [each for each in current if not chain.parts(current)[0].holds([each])]
    pending = () if unknown else tuple(each.revision for each in chain.pending(current, "heads"))
    changed = edited(ran, here.values(), chain.replaced())
    findings: list[tuple[Kind, str]] = []
    if unfinished:
        text = f"{unfinished} ({unfinished.shown}); the same again goes on there"
        findings.append(("unfinished", text))
    if unknown:
        findings.append(("unknown", f"it has {', '.join(unknown)}, which is not in {str(chain.versions)!r}"))
    if changed:
        findings.append(("edited", f"changed after it ran: {', '.join(changed)}"))
    if len(heads) > 1:
        findings.append(("heads", several_heads(chain.name, heads)))
    if pending:
        findings.append(("pending", f"{len(pending)} revision(s) to run: {', '.join(pending)}"))
    drift = [] if pending or unknown else _drift(chain)
    findings += [("drift", f"to bring the tables to the models: {each}") for each in drift]
    newest = max((ran[each] for each in current if each in ran), key=lambda each: each.at, default=None)
    return Standing(
        database=chain.name,
        current=current,
        head=heads[0] if len(heads) == 1 else None,
        heads=heads,
        pending=pending,
        drift=tuple(drift),
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


def _planned(chain: Chain, script: Script) -> Planned:
    down, backend = _down(script), chain.database.backend.name
    statements: list[str] | None = []
    if len(down) < 2:  # else it joins heads, and does nothing else
        try:
            statements = offline(chain, down[0] if down else "base", script.revision)
        except MigrationError:
            statements = None
    table = re.escape(chain.tables.get("version_table", "alembic_version"))
    of_alembic = re.compile(rf"(create\s+table|insert\s+into|update|delete\s+from)\s+(\S+\.)?{table}\b", re.IGNORECASE)
    steps = [assess(each, backend) for each in statements or () if not of_alembic.match(each)]
    parts = sum(step.sql == "COMMIT;" for step in steps)
    ends = len(steps) > 1 if backend == "mysql" else parts > 1
    return Planned(
        database=chain.name,
        revision=script.revision,
        message=script.doc,
        sql=None if statements is None else "\n\n".join(statements) + "\n",
        steps=tuple(step for step in steps if step.sql not in ("BEGIN;", "COMMIT;")),
        transactional=not ends,
        reversible=_is_reversible(script),
    )


def _is_reversible(script: Script) -> bool:
    """
    Say whether a revision has a way back: one that does something, or nothing where there is nothing to undo.
    """
    tree = ast.parse(Path(script.path).read_text(encoding="utf-8"))
    does = {
        node.name: any(not isinstance(each, ast.Pass | ast.Raise | ast.Expr) or _calls(each) for each in node.body)
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
    }
    return does.get("downgrade", False) or not does.get("upgrade", True)


def _calls(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and not isinstance(statement.value, ast.Constant)
