"""The sandbox of one database: all its connections stand in for one, whose transaction is never committed."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any

from stillroom.errors import ForkedConnection, MissingDriver

from ..errors import SandboxError
from .logical import LogicalConnection
from .running import LoopRunner, ThreadRunner, require_greenlet, run_for_task
from .servers import server_for
from .shared import Shared

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.engine import Engine

    from ..leaks import Leak
    from .servers import Server
    from .stand_in import StandIn

_ADAPTED = frozenset({"psycopg", "psycopg_async", "aiosqlite", "aiomysql", "asyncmy"})
"""The asynchronous drivers whose statements the synchronous driver of the same database understands."""


class Sandbox:
    """
    One real connection for all engines of a database, in one transaction that is never committed.

    Args:
        name: The name of the database, for messages.
        timeout: How long a statement waits for another thread's or task's writes, in seconds.
        engine: Returns the synchronous engine of the same database; asked when an asynchronous one connects first.
    """

    def __init__(self, name: str, *, timeout: float, engine: Callable[[], Engine] | None = None) -> None:
        self.name = name
        self._timeout = timeout
        self.engine = engine
        self._worlds: dict[str, Shared] = {}
        self._depth = 0
        self._thread: threading.Thread | None = None
        self._lock = threading.RLock()
        self._process = os.getpid()

    def __repr__(self) -> str:
        return f"<Sandbox of {self.name!r}: {self._depth} deep>"

    @property
    def timeout(self) -> float:
        """
        How long a statement waits for another thread's or task's writes, in seconds.
        """
        return self._timeout

    @timeout.setter
    def timeout(self, seconds: float) -> None:
        self._timeout = seconds
        for each in self._worlds.values():
            each.floor.timeout = seconds

    def connect(self, dialect: Any, role: str, connect: Callable[[], Any]) -> Any:
        """
        Return a stand-in for a connection.

        Args:
            dialect: SQLAlchemy's dialect.
            role: "writer", "reader" or "control".
            connect: Opens a real connection as the engine would.

        Raises:
            SandboxError: No test is running.
            stillroom.errors.ForkedConnection: This is a forked child.
            sqlalchemy.exc.MissingGreenlet: The driver is one of asyncio, and this is outside of SQLAlchemy's greenlets.
        """
        if dialect.is_async:
            require_greenlet()
        if self._process != os.getpid():
            raise ForkedConnection(
                f"the sandbox of {self.name!r} is in the parent process, and a connection cannot be used by two. Use "
                'isolation="committed" for tests that fork'
            )
        shared = self._world(dialect, connect)
        logical = LogicalConnection(shared, read_only=role == "reader", is_async=dialect.is_async)
        logical.run(shared.real)  # what is wrong with the server is told now
        return _stand_in(dialect)(logical, dialect)

    def _world(self, dialect: Any, connect: Callable[[], Any]) -> Shared:
        if dialect.is_async and dialect.driver in _ADAPTED and "thread" not in self._worlds:
            self._connect_synchronously()
        kind = "thread" if not dialect.is_async or (dialect.driver in _ADAPTED and "thread" in self._worlds) else "loop"

        def open_server() -> Server:
            return server_for(dialect, connect())

        with self._lock:
            shared = self._worlds.get(kind)
            if shared is None:
                runner = ThreadRunner() if kind == "thread" else LoopRunner()
                name = "mysql" if dialect.name == "mariadb" else dialect.name
                shared = self._worlds[kind] = Shared(self.name, self.timeout, runner, name, open_server)
                shared.floor.thread = self._thread
                for _ in range(self._depth):
                    shared.begin_test()
                for each in self._worlds.values():
                    each.is_alone = len(self._worlds) == 1
        return shared

    def _connect_synchronously(self) -> None:
        """
        Make the world of the synchronous driver, which asynchronous engines share.
        """
        if self.engine is None:
            return
        try:
            engine = self.engine()
        except MissingDriver:
            return

        def connect() -> None:
            engine.connect().close()

        runner = ThreadRunner()
        try:
            run_for_task(runner, connect, lambda: None)
        finally:
            runner.close()

    def begin(self) -> None:
        """
        Begin a test, or inside of another one a test upon its data.

        Raises:
            SandboxError: There is a transaction that is not committed.
        """
        with self._lock:
            for each in self._worlds.values():
                each.require_quiet()
            self._thread = threading.current_thread()
            for each in self._worlds.values():
                each.floor.thread = self._thread
                each.begin_test()
            self._depth += 1

    def end(self) -> list[Leak]:
        """
        Undo everything since the `begin` that belongs to it, and force out what is still open.

        Returns:
            The transactions that had written and not ended.

        Raises:
            SandboxError: There was no `begin`.
        """
        with self._lock:
            if not self._depth:
                raise SandboxError(f"the sandbox of {self.name!r} was ended more often than begun")
            self._depth -= 1
            return [leak for each in self._worlds.values() for leak in each.end_test(self.timeout)]

    def take_spoiled(self) -> bool:
        """
        Say, once, whether a statement may have committed what tests did, so that the database must be made anew.
        """
        with self._lock:
            found = not self._depth and any(each.spoiled for each in self._worlds.values())
            if found:
                for each in self._worlds.values():
                    each.spoiled = False
            return found

    def close(self) -> None:
        """
        End the real connections.
        """
        if self._process != os.getpid():
            return  # they are the parent's
        with self._lock:
            while self._depth:
                self.end()
            for each in self._worlds.values():
                each.close()
            self._worlds.clear()


def _stand_in(dialect: Any) -> type[StandIn]:
    """
    Return the class that stands in for a dialect's connections.
    """
    if dialect.name == "sqlite":
        from .sqlite import AiosqliteStandIn, SQLiteStandIn

        return AiosqliteStandIn if dialect.is_async else SQLiteStandIn
    if dialect.name in ("mysql", "mariadb"):
        from .mysql import AiomysqlStandIn, MySQLStandIn

        return AiomysqlStandIn if dialect.is_async else MySQLStandIn
    if dialect.driver == "asyncpg":
        from .asyncpg import AsyncpgStandIn

        return AsyncpgStandIn
    from .psycopg import PsycopgAsyncStandIn, PsycopgStandIn

    return PsycopgAsyncStandIn if dialect.is_async else PsycopgStandIn
