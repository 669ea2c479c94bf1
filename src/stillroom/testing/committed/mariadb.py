"""Cleaning on MariaDB and MySQL: foreign keys are not checked meanwhile, so that no order is needed."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy.exc import DBAPIError

from stillroom.classification import Kind, classify

from ..connection import execute
from ..errors import TestingError
from ..leaks import Leak
from ..quoting import backquoted
from .base import GRACE, KEPT, wait_for
from .server import ATTEMPTS, ENDING, ServerCleaner, rows

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

    from stillroom import Database

    from .tracking import Tracker

__all__ = ["MariaDBCleaner"]

_PASSES = 5
_CACHED = 0.15
"""Seconds after which the server's list of transactions is no older than the question."""
_NO_SUCH_THREAD = 1094

_TABLES = (
    "select t.table_name, group_concat(concat('`', replace(c.column_name, '`', '``'), '`') "
    "order by c.ordinal_position separator ', ') "
    "from information_schema.tables t join information_schema.columns c "
    "on c.table_schema = t.table_schema and c.table_name = t.table_name "
    "where t.table_schema = database() and t.table_type in ('BASE TABLE', 'SYSTEM VERSIONED') "
    "and coalesce(c.generation_expression, '') = '' group by t.table_name"
)
_TRIGGERS = (
    "select event_object_table from information_schema.triggers "
    "where trigger_schema = database() and event_manipulation = 'DELETE'"
)
_WHICH = (
    "(select group_concat(table_name order by table_name separator '/') "
    "from information_schema.tables where table_schema = database())"
)
_TRANSACTIONS = (
    "select p.id, p.user, p.command, coalesce(x.trx_query, '') from information_schema.innodb_trx x "
    "join information_schema.processlist p on p.id = x.trx_mysql_thread_id "
    "where p.db = database() and p.id <> connection_id()"
)


@dataclass(frozen=True)
class _Table:
    """
    A table: its name, quoted, and its columns; whether DELETE would call a trigger.
    """

    name: str
    columns: str
    has_trigger: bool
    number: int

    @property
    def copy(self) -> str:
        return f"`stillroom_seed_{self.number}`"


class MariaDBCleaner(ServerCleaner):
    """
    Cleans a MariaDB or MySQL database.

    Seeds are kept in temporary tables of the cleaning connection. That one changed shows in the server's checksum.
    """

    settings = (
        "set session foreign_key_checks = 0, unique_checks = 1, sql_mode = 'NO_AUTO_VALUE_ON_ZERO'",
        "set session innodb_lock_wait_timeout = 2, lock_wait_timeout = 2, group_concat_max_len = 10000000",
    )

    def __init__(self, database: Database, tracker: Tracker) -> None:
        super().__init__(database, tracker)
        self._tables: list[_Table] = []
        self._which = ""
        self._seeds: dict[str, int | None] = {}

    # --- the start

    def _note(self, connection: Connection) -> None:
        self._read_tables(connection)
        self._seeds = {}
        _, found = self._ask(connection)
        for table in self._tables:
            if table.name in found:
                execute(connection, f"drop temporary table if exists {table.copy}")
                execute(connection, f"create temporary table {table.copy} as select {table.columns} from {table.name}")
        self._seeds = dict.fromkeys(table.name for table in self._tables if table.name in found)
        self._has_copies = True
        self._seeds = self._checksums(connection)

    def _read_tables(self, connection: Connection) -> None:
        with_triggers = {row[0] for row in rows(connection, _TRIGGERS)}
        self._tables = [
            _Table(backquoted(name), columns, name in with_triggers, number)
            for number, (name, columns) in enumerate(sorted(tuple(row) for row in rows(connection, _TABLES)))
            if name not in KEPT
        ]
        self._which = rows(connection, f"select {_WHICH}")[0][0]

    # --- what changed

    def _ask(self, connection: Connection) -> tuple[str, set[str]]:
        """
        Return which tables there are, and those that have rows and should be empty.
        """
        empty = [table.name for table in self._tables if table.name not in self._seeds]
        found = "".join(f", exists (select 1 from {name})" for name in empty)
        which, *flags = rows(connection, f"select {_WHICH}{found}")[0]
        return which, {name for name, flag in zip(empty, flags, strict=True) if flag}

    def _checksums(self, connection: Connection) -> dict[str, int | None]:
        if not self._seeds:
            return {}
        answer = rows(connection, f"checksum table {', '.join(self._seeds)}")
        return {name: row[1] for name, row in zip(self._seeds, answer, strict=True)}

    # --- the end

    def clean(self) -> list[Leak]:
        leaks: list[Leak] = self._end_known()
        for attempt in range(ATTEMPTS):
            try:
                self._run(self._clean)
            except DBAPIError as error:
                if attempt == ATTEMPTS - 1:
                    raise
                if classify(error) is Kind.LOCK_TIMEOUT:
                    leaks += self._run(self._end_blocking)
                elif not error.connection_invalidated:
                    self._run(self._read_again)  # a table is gone
            else:
                break
        return leaks

    def _clean(self, connection: Connection) -> None:
        for _ in range(_PASSES):
            which, dirty = self._ask(connection)
            if which != self._which:
                self._read_again(connection)
                continue
            now = self._checksums(connection)
            changed = {name for name, checksum in self._seeds.items() if now[name] != checksum}
            if changed:
                self._require_copies()
            if not dirty and not changed:
                if not self._has_copies:
                    self._note(connection)
                return
            self._restore(connection, dirty, changed)  # and look again: the seeds may have called triggers
        raise TestingError(
            f"the test database {self.database.name!r} does not become what it was: triggers write while it is "
            "cleaned. It must be made anew for each test: use clone isolation"
        )

    def _restore(self, connection: Connection, dirty: set[str], changed: set[str]) -> None:
        """
        Clean in one round trip; tables whose triggers DELETE would call are truncated, each with its own.
        """
        touched = [table for table in self._tables if table.name in dirty or table.name in changed]
        for table in touched:
            if table.has_trigger:
                execute(connection, f"truncate table {table.name}")
        steps = [f"delete from {table.name}" for table in touched if not table.has_trigger]
        steps += [
            f"insert into {table.name} ({table.columns}) select {table.columns} from {table.copy}"
            for table in touched
            if table.name in changed
        ]
        if not steps:
            return
        try:
            if getattr(connection.dialect, "is_mariadb", False):
                execute(connection, f"begin not atomic start transaction; {'; '.join(steps)}; commit; end")
            else:
                for step in ("start transaction", *steps, "commit"):
                    execute(connection, step)
        except DBAPIError as error:
            if not error.connection_invalidated:
                execute(connection, "rollback")
            raise

    def _read_again(self, connection: Connection) -> None:
        """
        Read the tables anew after a test that made or dropped some.
        """
        copies = {table.name: table.number for table in self._tables}
        self._read_tables(connection)
        self._require_tables(self._seeds, [table.name for table in self._tables])
        free = max(copies.values(), default=0) + 1
        self._tables = [
            _Table(table.name, table.columns, table.has_trigger, copies.get(table.name, free + table.number))
            for table in self._tables
        ]

    # --- transactions

    def _end_known(self) -> list[Leak]:
        """
        End the transactions of this process.
        """
        if not self.tracker.in_transaction():
            return []
        wait_for(lambda: not self.tracker.in_transaction(), GRACE)
        left = {held.identity: held for held in self.tracker.in_transaction()}
        self._run(lambda connection: self._kill(connection, [each for each in left if each is not None]))
        return [Leak(self.database.name, held.who, held.where) for held in left.values()]

    def _end_blocking(self, connection: Connection) -> list[Leak]:
        """
        End the transactions of other processes, which stand in the way.
        """
        time.sleep(_CACHED)
        left = rows(connection, _TRANSACTIONS)
        self._kill(connection, [row[0] for row in left])
        return [
            Leak(self.database.name, f"the session {number} of {user!r}", f"{command}: {query}".rstrip(": "))
            for number, user, command, query in left
        ]

    def _kill(self, connection: Connection, numbers: list[int]) -> None:
        for number in numbers:
            try:
                execute(connection, f"kill {number}")
            except DBAPIError as error:
                if getattr(error.orig, "args", (None,))[0] != _NO_SUCH_THREAD:
                    raise
        listed = f"select 1 from information_schema.processlist where id in ({', '.join(map(str, numbers))})"
        if numbers and not wait_for(lambda: not rows(connection, listed), ENDING):
            raise TestingError(f"sessions on the test database {self.database.name!r} do not end: {numbers}")
