"""Who holds the connections of a database, and since which line."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import event

from ..queries.lines import application_line

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.engine import Engine

    from stillroom import Database

    from ..queries.lines import Line

__all__ = ["Held", "Tracker"]

_IDENTITIES: tuple[Callable[[Any], Any], ...] = (
    lambda driver: driver.info.backend_pid,  # psycopg, psycopg2
    lambda driver: driver.get_server_pid(),  # asyncpg
    lambda driver: driver.thread_id(),  # PyMySQL, aiomysql, asyncmy
)


@dataclass(frozen=True)
class Held:
    """
    A connection that is in use.

    Attributes:
        connection: The driver's connection, as SQLAlchemy's dialect sees it.
        who: The thread or the asyncio task that took it.
        line: The line of the application that did.
    """

    connection: Any
    who: str
    line: Line | None

    @property
    def where(self) -> str:
        """
        The line, for a message.
        """
        return f"begun at {self.line}" if self.line is not None else "begun outside of the application"

    @property
    def identity(self) -> int | None:
        """
        The number by which the server knows the connection; None where it has none.
        """
        driver = getattr(self.connection, "driver_connection", self.connection)
        for identity in _IDENTITIES:
            with contextlib.suppress(Exception):  # another driver's, or the connection is closed
                return int(identity(driver))
        return None


class Tracker:
    """
    Notes who takes connections, while a test runs.

    Args:
        database: Whose connections they are.

    Attributes:
        is_on: A test runs.
    """

    def __init__(self, database: Database) -> None:
        self.is_on = False
        self._backend = database.backend
        self._held: dict[Any, Held] = {}

    def watch(self, engine: Engine) -> None:
        """
        Listen to the pool of an engine.
        """
        event.listen(engine, "checkout", self._taken)
        for name in ("checkin", "detach", "close"):
            event.listen(engine, name, self._given_back)

    def in_transaction(self) -> list[Held]:
        """
        Return the connections that are in use, and inside a transaction.
        """
        return [held for held in list(self._held.values()) if self._backend.in_transaction(held.connection)]

    def clear(self) -> None:
        """
        Forget all of them.
        """
        self._held.clear()

    def _taken(self, connection: Any, record: Any, proxy: Any) -> None:
        if self.is_on:
            self._held[record] = Held(connection, _who(), application_line())

    def _given_back(self, connection: Any, record: Any) -> None:
        self._held.pop(record, None)


def _who() -> str:
    with contextlib.suppress(RuntimeError):
        task = asyncio.current_task()
        if task is not None:
            return f"task {task.get_name()!r}"
    return f"thread {threading.current_thread().name!r}"
