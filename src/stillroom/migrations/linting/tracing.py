"""Runs revisions in a throwaway database, and measures what each statement does to tables that were there before."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any

from alembic import command
from sqlalchemy import event

from stillroom.secrets import mask_text

from ..chain import Chain, chains
from ..connecting import exclusive, with_engine
from ..environment import Task
from ..errors import MigrationError
from ..options import Options
from ..running import in_words
from . import catalog
from .catalog import Snapshot, TakenLock
from .clone import throwaway
from .holding import Holder
from .linter import Which, chosen, shown_path
from .recording import line_in

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType
    from typing import Self

    from alembic.script import Script
    from sqlalchemy import Connection, Engine

    from stillroom import Database, Databases

__all__ = ["TakenLock", "TracedStatement", "trace"]

LOCK_TIMEOUT = 60.0
"""Seconds: in the throwaway database nobody else waits, but a statement may have to for its `Holder`."""

_CONCURRENTLY = re.compile(
    r"\s*(create|drop|reindex|alter)\b.*\b(index|reindex|detach)\b.*\bconcurrently\b", re.IGNORECASE | re.DOTALL
)
_ALONE = re.compile(
    r"\s*(begin|start|commit|end|vacuum|call|"
    r"(create|drop|alter) (database|system|tablespace)|"
    r"(create|drop|alter) subscription|reindex (\([^)]*\) )?(database|system|schema))\b",
    re.IGNORECASE,
)
"""What PostgreSQL refuses inside a transaction, or what is about transactions."""

_SAVEPOINT = re.compile(r"\s*(savepoint|release|rollback)\b", re.IGNORECASE)


@dataclass(frozen=True)
class TracedStatement:
    """
    What a statement of a revision did to the tables that were there before the revision.

    Attributes:
        database: The database it is for.
        revision: The revision's id.
        path: The revision's file, relative to the working directory where it is below it.
        line: Where.
        sql: The statement.
        seconds: How long it took; on empty tables.
        autocommit: Whether it ran outside of transactions.
        locks: The locks that it took, the strongest first, without those that the transaction held before; None where
            they could not be looked at.
        rewritten: Tables that were written anew.
        scanned: Tables that were read from their beginning to their end; None where that is not known.
        indexes: Indexes of such tables that were built.
    """

    database: str
    revision: str
    path: str
    line: int
    sql: str
    seconds: float
    autocommit: bool
    locks: tuple[TakenLock, ...] | None
    rewritten: tuple[str, ...]
    scanned: tuple[str, ...] | None
    indexes: tuple[str, ...]


def trace(
    databases: Databases, database: str | None = None, *, revisions: Which = "pending", since: str | None = None
) -> list[TracedStatement]:
    """
    Run revisions in a throwaway database beside each PostgreSQL database, and tell what each statement really did.

    The throwaway database is made empty, gets the revisions before, and is dropped in the end. The named one is only
    asked which revisions it has.

    Args:
        databases: The application's.
        database: One of them; None for all on PostgreSQL that have migrations.
        revisions: As for `lint`.
        since: As for `lint`.

    Raises:
        MigrationError: There is no PostgreSQL database, its user may not create others, or a revision failed.
    """
    found = [chain for chain in chains(databases, database) if chain.database.backend.name == "postgresql"]
    if not found:
        which = f"the database {database!r} is not on PostgreSQL" if database else "no database is on PostgreSQL"
        raise MigrationError(f"{which}, whose catalog alone tells what a statement locked, wrote and read; use `lint`")
    return [each for chain in found for each in _traced(chain, chosen(chain, revisions, since))]


def _traced(chain: Chain, scripts: Sequence[Script]) -> list[TracedStatement]:
    statements: list[TracedStatement] = []
    wanted = {script.revision for script in scripts}
    if not wanted:
        return statements

    with throwaway(chain.database) as copy:

        def work(engine: Engine) -> None:
            with exclusive(engine, Chain(copy), Options()) as connection:
                _run(Chain(copy), engine, connection, wanted, statements)

        with_engine(copy, LOCK_TIMEOUT, work)
    return statements


def _run(
    chain: Chain, engine: Engine, connection: Connection, wanted: set[str], statements: list[TracedStatement]
) -> None:
    chain.log.prepare(connection)
    chain.command(command.ensure_version, Task(chain, connection))
    scripts = chain.pending((), "heads")
    before = [script for script in scripts if script.revision not in wanted]
    below = {down for script in before for down in _downs(script)}
    for script in before:
        if script.revision not in below:  # the heads of what comes before, each of which runs all below it
            _upgrade(chain, connection, script)
    for script in scripts:
        if script.revision in wanted:
            with _Tracer(chain, engine, connection, script, statements):
                _upgrade(chain, connection, script)


def _downs(script: Script) -> tuple[str, ...]:
    down = script.down_revision or ()
    return (down,) if isinstance(down, str) else tuple(down)


def _upgrade(chain: Chain, connection: Connection, script: Script) -> None:
    try:
        chain.command(command.upgrade, Task(chain, connection), script.revision)
    except MigrationError:
        raise
    except Exception as error:
        connection.rollback()
        raise MigrationError(
            f"the revision {script.revision!r} of {chain.name!r} failed in the throwaway database: {in_words(error)}. "
            "It began empty: what the revisions do not make, such as an extension or a role, is not in it"
        ) from error


class _Tracer:
    """
    Looks at the catalog before and after each statement of a revision, while it is entered.
    """

    def __init__(
        self, chain: Chain, engine: Engine, connection: Connection, script: Script, found: list[TracedStatement]
    ) -> None:
        self.database: Database = chain.database
        self.engine = engine
        self.connection = connection
        self.script = script
        self.found = found
        self.path = str(script.module.__file__)
        self.known = Snapshot()
        self._under_way: _Statement | None = None

    def __enter__(self) -> Self:
        self.known = catalog.take(self.connection.connection)
        self.connection.rollback()
        for name, listener in self._listeners().items():
            event.listen(self.connection, name, listener)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for name, listener in self._listeners().items():
            event.remove(self.connection, name, listener)
        self._abandon()

    def _abandon(self) -> None:
        under_way, self._under_way = self._under_way, None
        if under_way is not None:
            under_way.abandon()

    def _listeners(self) -> dict[str, Any]:
        return {"before_cursor_execute": self._before, "after_cursor_execute": self._after}

    def _before(self, connection: Connection, cursor: Any, statement: str, *_: Any) -> None:
        self._abandon()  # what failed, and the revision went on
        line = line_in(self.path, inspect.currentframe())
        if not line or _SAVEPOINT.match(statement):
            return  # Alembic's own, or ours
        outside = connection.get_execution_options().get("isolation_level") == "AUTOCOMMIT"
        self._under_way = _Statement(self.engine, connection.connection, statement, line, outside=outside)

    def _after(self, connection: Connection, cursor: Any, statement: str, *_: Any) -> None:
        under_way, self._under_way = self._under_way, None
        if under_way is None:
            return
        seconds = perf_counter() - under_way.begin
        before, after = under_way.before, under_way.end()
        held = under_way.held
        self.found.append(
            TracedStatement(
                database=self.database.name,
                revision=self.script.revision,
                path=shown_path(self.script.path),
                line=under_way.line,
                sql=mask_text(" ".join(statement.split())),
                seconds=seconds,
                autocommit=under_way.outside,
                locks=None if held is None else catalog.named(held - before.locks, self.known),
                rewritten=after.rewritten_since(before, self.known),
                scanned=after.scanned_since(before, self.known) if under_way.counts_scans else None,
                indexes=after.built_since(before, self.known),
            )
        )


class _Statement:
    """
    One statement under way.

    Outside of transactions nothing is held any more when a statement is done. So what may run inside one gets one for
    itself; CONCURRENTLY may not, and is made to wait.
    """

    def __init__(self, engine: Engine, driver: Any, sql: str, line: int, *, outside: bool) -> None:
        self.driver = driver
        self.line = line
        self.outside = outside
        self.holder: Holder | None = None
        concurrently = outside and _CONCURRENTLY.match(sql) is not None
        self.wrapped = outside and not concurrently and not _ALONE.match(sql)
        # Counts of the transactions before are shared at once since PostgreSQL 15.
        self.counts_scans = not outside or self.wrapped or _version(driver) >= 150000
        self.held: frozenset[tuple[int, str]] | None = None
        if self.wrapped:
            self._execute("BEGIN")
        self.before = catalog.take(driver)
        if concurrently:
            pid = int(catalog.rows(driver, "select pg_backend_pid()")[0][0])
            self.holder = Holder(engine, pid)
        self.begin = perf_counter()

    def end(self) -> Snapshot:
        """
        Look at what it did.
        """
        if self.holder is not None:
            self.held = self.holder.end()
        after = catalog.take(self.driver)
        if self.wrapped:
            self._execute("COMMIT")
        if self.wrapped or not self.outside:
            self.held = after.locks
        return after

    def abandon(self) -> None:
        """
        Let go after a failure.
        """
        if self.holder is not None:
            self.holder.end()
        if self.wrapped:
            self._execute("ROLLBACK")

    def _execute(self, sql: str) -> None:
        cursor = self.driver.cursor()
        try:
            cursor.execute(sql)
        finally:
            cursor.close()


def _version(driver: Any) -> int:
    return int(catalog.rows(driver, "select current_setting('server_version_num')")[0][0])
