"""Stands in for connections of sqlite3 and aiosqlite."""

from __future__ import annotations

import sqlite3
from functools import partial
from typing import TYPE_CHECKING, Any

from .stand_in import AsyncDriver, AsyncStandIn, Cursor, StandIn

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self


class SQLiteCursor(Cursor):
    """
    A cursor on the shared SQLite connection.
    """

    def executescript(self, script: str) -> SQLiteCursor:
        """
        Run several statements, one after the other.
        """
        self.connection.commit()  # as the driver does
        statement = ""
        for part in script.split(";"):
            statement += part + ";"
            if sqlite3.complete_statement(statement):
                if statement.strip(" \t\r\n;"):
                    self.execute(statement)
                statement = ""
        if statement.strip(" \t\r\n;"):
            self.execute(statement)
        return self


class SQLiteStandIn(StandIn):
    """
    Stands in for a `sqlite3.Connection`.

    Attributes:
        isolation_level: None: BEGIN is the application's. Else the driver begins before a statement that writes.
        row_factory: What makes rows.
        statement_end: When the running statement is interrupted; Stillroom's backend sets it.
        began_by: Stillroom's backend sets it.
    """

    cursor_class = SQLiteCursor

    isolation_level: str | None = ""
    row_factory: Any = None
    statement_end: float | None = None
    began_by: int | None = None
    _handler: tuple[Any, int] = (None, 0)

    def opens_transaction(self, text: str) -> bool:
        return self.isolation_level is not None and self.logical.shared.parse(text).writes

    def cursor(self, *arguments: Any, **options: Any) -> Any:
        self.statement_end = None
        return super().cursor()

    def real_cursor(self, options: dict[str, Any]) -> Any:
        real = self.real
        real.set_progress_handler(*self._handler)
        cursor = real.cursor()
        cursor.row_factory = self.row_factory
        return cursor

    @property
    def in_transaction(self) -> bool:
        """
        Whether a transaction is open, as the application sees it.
        """
        return self.logical.in_transaction

    def executemany(self, operation: Any, seq_of_parameters: Any) -> Any:
        """
        Run a statement for each of several sets of parameters, with a new cursor, which is returned.
        """
        return self.cursor().executemany(operation, seq_of_parameters)

    def executescript(self, script: str) -> Any:
        """
        Run several statements, with a new cursor, which is returned.
        """
        return self.cursor().executescript(script)

    def set_progress_handler(self, handler: Callable[[], Any] | None, n: int) -> None:
        """
        Set what is called during the statements of this stand-in.
        """
        self._handler = (handler, n)

    def create_function(self, name: str, narg: int, func: Any, *, deterministic: bool = False) -> None:
        """
        Make a function known to SQL, for all stand-ins.
        """
        self._register("create_function", name, narg, func, deterministic=deterministic)

    def create_aggregate(self, name: str, n_arg: int, aggregate_class: Any) -> None:
        """
        Make an aggregate function known to SQL, for all stand-ins.
        """
        self._register("create_aggregate", name, n_arg, aggregate_class)

    def create_collation(self, name: str, callback: Any) -> None:
        """
        Make a collation known to SQL, for all stand-ins.
        """
        self._register("create_collation", name, callback)

    def _register(self, method: str, *arguments: Any, **options: Any) -> None:
        def operation() -> None:
            getattr(self.logical.shared.real().connection, method)(*arguments, **options)

        self.logical.run(operation)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.commit()
        else:
            self.rollback()


class AiosqliteDriver(AsyncDriver):
    """
    Stands in for an `aiosqlite.Connection`.
    """

    awaited = AsyncDriver.awaited | {"executescript", "set_progress_handler", "create_function"}

    def __getattr__(self, name: str) -> Any:
        if name == "set_progress_handler":
            return partial(_awaited, self.stand_in.set_progress_handler)
        return super().__getattr__(name)


async def _awaited(function: Callable[..., Any], *arguments: Any) -> Any:
    return function(*arguments)


class AiosqliteStandIn(AsyncStandIn, SQLiteStandIn):
    """
    Stands in for the connection of aiosqlite, as SQLAlchemy adapts it.
    """

    driver_class = AiosqliteDriver
