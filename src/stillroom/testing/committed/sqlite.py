"""Cleaning on SQLite: the whole file as it was, page by page."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from typing import TYPE_CHECKING, Any

from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from ..errors import TestingError
from ..leaks import Leak
from .base import GRACE, Cleaner, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from .tracking import Held

__all__ = ["SQLiteCleaner"]

_PATIENCE = 5.0
"""Seconds to wait for another connection's lock."""


class SQLiteCleaner(Cleaner):
    """
    Cleans an SQLite database with a copy in memory.

    SQLite says whether another connection has changed the file; only then the copy goes back over it.
    """

    _kept: tuple[sqlite3.Connection, sqlite3.Connection] | None = None
    """The cleaning connection, and the copy."""
    _version = 0

    def note(self) -> None:
        url = self.database.engine.url
        engine = create_engine(url, poolclass=NullPool)
        arguments, keywords = engine.dialect.create_connect_args(url)
        keywords.update(check_same_thread=False, isolation_level=None, timeout=_PATIENCE)
        connection: sqlite3.Connection = engine.dialect.loaded_dbapi.connect(*arguments, **keywords)
        self._kept = connection, sqlite3.connect(":memory:", check_same_thread=False)
        self._backup(*self._kept)
        self._version = _changes(connection)

    def clean(self) -> list[Leak]:
        leaks = self._end_transactions()
        if self._kept is not None:
            connection, copy = self._kept
            self._wait_for_writers(connection)
            if _changes(connection) != self._version:
                self._backup(copy, connection)
                self._version = _changes(connection)
        return leaks

    def close(self) -> None:
        if self._kept is not None:
            for connection in self._kept:
                connection.close()
            self._kept = None

    def _wait_for_writers(self, connection: sqlite3.Connection) -> None:
        """
        Let those that are committing at this moment finish: their connections say before it that they have.
        """
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            raise self._locked() from error
        connection.execute("ROLLBACK")

    def _backup(self, source: sqlite3.Connection, target: sqlite3.Connection) -> None:
        end = time.monotonic() + _PATIENCE

        def stop_in_the_end(status: int, remaining: int, total: int) -> None:
            if status != sqlite3.SQLITE_DONE and time.monotonic() > end:  # Python would try for ever
                raise self._locked()

        source.backup(target, progress=stop_in_the_end, sleep=0.005)

    def _locked(self) -> TestingError:
        return TestingError(
            f"the test database {self.database.name!r} could not be cleaned: another process has had a transaction "
            f"open on it for {_PATIENCE:g} s. End what the test has started before the test ends"
        )

    def _end_transactions(self) -> list[Leak]:
        if not self.tracker.in_transaction():
            return []
        wait_for(lambda: not self.tracker.in_transaction(), GRACE)
        left = self.tracker.in_transaction()
        for held in left:
            _roll_back(held)
        return [Leak(self.database.name, held.who, held.where) for held in left]


def _changes(connection: sqlite3.Connection) -> int:
    """
    Return a number that is another one after each commit of another connection.
    """
    return int(connection.execute("PRAGMA data_version").fetchone()[0])


def _roll_back(held: Held) -> None:
    """
    End a transaction from outside of the thread or the task that has it.
    """
    driver: Any = getattr(held.connection, "driver_connection", held.connection)
    work: Callable[[], None] = driver.rollback
    if not isinstance(driver, sqlite3.Connection):  # aiosqlite, which works in a thread of its own for any event loop

        def work() -> None:
            asyncio.run(_rolled_back(driver))

    thread = threading.Thread(target=work, name="stillroom cleaning")  # this one may be running an event loop
    thread.start()
    thread.join()


async def _rolled_back(driver: Any) -> None:
    await driver.rollback()
