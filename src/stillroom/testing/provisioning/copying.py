"""One MariaDB database made like another: tables, rows, views, routines and triggers, with constraints and counters."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from sqlalchemy import text

from ..connection import execute
from ..quoting import backquoted

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from sqlalchemy import Connection

__all__ = ["Script", "read_script"]

_SESSION = (
    "SET SESSION foreign_key_checks = 0, SESSION unique_checks = 0, SESSION check_constraint_checks = 0, "
    "SESSION sql_mode = 'NO_AUTO_VALUE_ON_ZERO', SESSION lock_wait_timeout = 30, SESSION max_statement_time = 0"
)
"""The rows were checked when they were written; now they go in at once, whatever they refer to."""


class Code(msgspec.Struct, frozen=True):
    """
    A routine or trigger, and the `sql_mode` that it was written in.
    """

    statement: str
    sql_mode: str


class Script(msgspec.Struct, frozen=True):
    """
    What makes a database like `source`; each name of that database in it is put before use in place of the new one's.

    Attributes:
        source: The database.
        tables: What makes sequences and tables.
        rows: What copies the rows.
        views: What makes views, in any order.
        routines: Functions and procedures.
        triggers: Triggers, in the order in which they fire.
    """

    source: str
    tables: tuple[str, ...]
    rows: tuple[str, ...]
    views: tuple[str, ...]
    routines: tuple[Code, ...]
    triggers: tuple[Code, ...]

    def run(self, connection: Connection, name: str) -> None:
        """
        Make all of it in the empty database `name`, which the connection is in.
        """
        execute(connection, _SESSION)
        for statement in self.tables:
            execute(connection, self._for(statement, name))
        if self.rows:
            execute(connection, "START TRANSACTION")  # one wait for the disk in place of one for each table
            for statement in self.rows:
                execute(connection, statement)
            execute(connection, "COMMIT")
        self._run_code(connection, self.routines, name)
        self._make_views(connection, name)
        self._run_code(connection, self.triggers, name)

    def _for(self, statement: str, name: str) -> str:
        return statement.replace(f"{backquoted(self.source)}.", f"{backquoted(name)}.")

    def _run_code(self, connection: Connection, code: tuple[Code, ...], name: str) -> None:
        for each in code:
            execute(connection, f"SET SESSION sql_mode = '{each.sql_mode}'")
            execute(connection, self._for(each.statement, name))

    def _make_views(self, connection: Connection, name: str) -> None:
        """
        Make the views; one that selects from another is tried again after it.
        """
        left = [self._for(view, name) for view in self.views]
        while left:
            failed: list[str] = []
            first: Exception | None = None
            for view in left:
                try:
                    execute(connection, view)
                except Exception as error:  # noqa: BLE001  # raised below unless another view was what it missed
                    first = first or error
                    failed.append(view)
            if first is not None and len(failed) == len(left):
                raise first
            left = failed


def read_script(connection: Connection, source: str, leave_out: Collection[str]) -> Script:
    """
    Read how a database is made.

    Args:
        connection: A connection to its server.
        source: The database.
        leave_out: Tables that are not copied.
    """
    found = {
        str(row[0]): str(row[1])
        for row in execute(connection, f"SHOW FULL TABLES FROM {backquoted(source)}")
        if row[0] not in leave_out
    }
    kinds = {kind: [name for name, each in found.items() if each == kind] for kind in found.values()}
    sequences, views = kinds.get("SEQUENCE", []), kinds.get("VIEW", [])
    tables = [name for name, kind in found.items() if kind not in ("SEQUENCE", "VIEW")]
    return Script(
        source=source,
        tables=(
            *(_shown(connection, "SEQUENCE", source, name) for name in sequences),
            *(_shown(connection, "TABLE", source, name) for name in tables),
        ),
        rows=tuple(_rows(connection, source, sequences, tables)),
        views=tuple(_shown(connection, "VIEW", source, name) for name in views),
        routines=tuple(_routines(connection, source)),
        triggers=tuple(_triggers(connection, source)),
    )


def _shown(connection: Connection, kind: str, source: str, name: str) -> str:
    return str(execute(connection, f"SHOW CREATE {kind} {_at(source, name)}").one()[1])


def _rows(connection: Connection, source: str, sequences: list[str], tables: list[str]) -> Iterator[str]:
    for name in sequences:
        counter = execute(connection, f"SELECT next_not_cached_value FROM {_at(source, name)}").scalar()
        yield f"SELECT SETVAL({backquoted(name)}, {counter}, 0)"
    query = text(
        "select table_name, column_name from information_schema.columns where table_schema = :source "
        "and coalesce(generation_expression, '') = '' order by ordinal_position"
    )
    columns: dict[str, list[str]] = {}
    for table, column in connection.execute(query, {"source": source}):
        columns.setdefault(table, []).append(backquoted(column))
    for name in tables:
        if execute(connection, f"SELECT 1 FROM {_at(source, name)} LIMIT 1").first() is not None:
            names = ", ".join(columns[name])
            yield f"INSERT INTO {backquoted(name)} ({names}) SELECT {names} FROM {_at(source, name)}"


def _routines(connection: Connection, source: str) -> Iterator[Code]:
    query = text(
        "select routine_type, routine_name from information_schema.routines where routine_schema = :source "
        "order by routine_type, routine_name"
    )
    for kind, name in connection.execute(query, {"source": source}).all():
        row = execute(connection, f"SHOW CREATE {kind} {_at(source, name)}").one()
        yield Code(str(row[2]), str(row[1]))


def _triggers(connection: Connection, source: str) -> Iterator[Code]:
    query = text(
        "select trigger_name from information_schema.triggers where trigger_schema = :source "
        "order by event_object_table, event_manipulation, action_timing, action_order"
    )
    for name in connection.execute(query, {"source": source}).scalars().all():
        row = execute(connection, f"SHOW CREATE TRIGGER {_at(source, name)}").one()
        yield Code(str(row[2]), str(row[1]))


def _at(database: str, name: str) -> str:
    return f"{backquoted(database)}.{backquoted(name)}"
