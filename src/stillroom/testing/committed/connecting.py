"""The connection over which a database is cleaned: one of its own, apart from the application's."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import msgspec
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from stillroom import Database
from stillroom.errors import MissingDriver

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from sqlalchemy.engine import Connection
    from sqlalchemy.ext.asyncio import AsyncConnection

__all__ = ["Channel", "connect", "is_lost", "rows", "send"]

T = TypeVar("T")

_PATIENCE = 60.0
"""Seconds that cleaning may take."""


class Channel(Protocol):
    """
    A connection to the server; each statement commits by itself.
    """

    def run(self, work: Callable[[Connection], T]) -> T:
        """
        Call `work` with the connection.
        """

    def close(self) -> None:
        """
        Close the connection.
        """


def connect(database: Database) -> Channel:
    """
    Connect with the settings of a database: with a synchronous driver, or the asynchronous one where there is no other.
    """
    settings = msgspec.structs.replace(
        database.settings, replicas=(), statement_timeout=0.0, lock_timeout=None, idle_transaction_timeout=0.0
    )
    own = Database(settings, name=database.name, application=f"{database.application} (cleaning)")
    try:
        database.backend.driver_url(settings.url, is_async=False)
    except MissingDriver:
        return _AsyncChannel(own)
    return _SyncChannel(own)


class _SyncChannel:
    """
    A connection of this thread.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._connection = database.engine_for("control").connect()

    def run(self, work: Callable[[Connection], T]) -> T:
        return _run(self._connection, work)

    def close(self) -> None:
        self._connection.close()
        self._database.close()


class _AsyncChannel:
    """
    A connection of asyncio, in an event loop and a thread of its own, since the test may be running in another loop.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="stillroom cleaning", daemon=True)
        self._thread.start()
        self._connection: AsyncConnection = self._wait(self._connect())

    async def _connect(self) -> AsyncConnection:
        return await self._database.async_engine_for("control").connect()

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_PATIENCE)

    def run(self, work: Callable[[Connection], T]) -> T:
        return self._wait(self._connection.run_sync(lambda connection: _run(connection, work)))

    def close(self) -> None:
        async def close() -> None:
            await self._connection.close()
            await self._database.aclose()

        self._wait(close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_PATIENCE)
        self._loop.close()


def _run(connection: Connection, work: Callable[[Connection], T]) -> T:
    try:
        return work(connection)
    finally:
        connection.rollback()  # SQLAlchemy's own transaction only; nothing is sent


def rows(connection: Connection, statement: str) -> list[Any]:
    """
    Send a question without parameters, and return the rows.
    """
    return list(connection.exec_driver_sql(statement, execution_options={"no_parameters": True}))


def send(connection: Connection, statement: str) -> None:
    """
    Send a statement that has no rows.
    """
    connection.exec_driver_sql(statement, execution_options={"no_parameters": True})


def is_lost(error: SQLAlchemyError) -> bool:
    """
    Say whether the server has hung up.
    """
    return isinstance(error, DBAPIError) and error.connection_invalidated
