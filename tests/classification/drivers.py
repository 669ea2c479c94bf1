"""
Runs one scenario through any driver, synchronous or not, and returns the error that it ends with.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import NullPool, create_engine, make_url, text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Connection

# How long another thread may take to do its part of a scenario, in seconds.
PATIENCE = 20.0


@dataclass(frozen=True)
class Driver:
    """
    A driver as SQLAlchemy knows it.

    Attributes:
        dialect: such as ``postgresql+psycopg``.
        module: the module that must be installed.
        is_async: whether an AsyncEngine drives it.
    """

    dialect: str
    module: str
    is_async: bool = False

    def param(self) -> Any:
        """
        Give it as a parameter that is skipped where the module is missing.
        """
        name = f"{self.module}-async" if self.is_async and self.module == "psycopg" else self.module
        missing = importlib.util.find_spec(self.module) is None
        marks = [pytest.mark.skip(reason=f"{self.module} is not installed")] if missing else []
        return pytest.param(self, id=name, marks=marks)


POSTGRESQL = (
    Driver("postgresql+psycopg", "psycopg"),
    Driver("postgresql+psycopg", "psycopg", is_async=True),
    Driver("postgresql+asyncpg", "asyncpg", is_async=True),
)
MARIADB = (
    Driver("mariadb+pymysql", "pymysql"),
    Driver("mariadb+aiomysql", "aiomysql", is_async=True),
    Driver("mariadb+asyncmy", "asyncmy", is_async=True),
)
SQLITE = (Driver("sqlite+pysqlite", "sqlite3"), Driver("sqlite+aiosqlite", "aiosqlite", is_async=True))


@dataclass(frozen=True)
class Client:
    """
    A driver and the database that it connects to.

    Attributes:
        driver: the driver.
        url: the URL of the database; the driver in it is replaced.
        connect_args: passed to the driver.
    """

    driver: Driver
    url: str
    connect_args: dict[str, Any] = field(default_factory=dict)

    def provoke(self, scenario: Callable[..., object], connections: int = 1) -> Exception:
        """
        Run a scenario on fresh connections until it fails.

        Args:
            scenario: takes the connections, as synchronous ones for each driver.
            connections: how many.

        Returns:
            The error.
        """
        try:
            if self.driver.is_async:
                asyncio.run(self._run_async(scenario, connections))
            else:
                self._run(scenario, connections)
        except Exception as error:
            return error
        pytest.fail("the scenario ended without an error")

    def fail(self, *statements: str) -> Exception:
        """
        Run statements in one transaction until one fails, and return the error.
        """

        def scenario(connection: Connection) -> None:
            run(connection, *statements)

        return self.provoke(scenario)

    def other(self, **parts: Any) -> Client:
        """
        Return the same driver on another URL, such as with another user.
        """
        url = make_url(self.url).set(**parts)
        return Client(self.driver, url.render_as_string(hide_password=False), self.connect_args)

    def _run(self, scenario: Callable[..., object], connections: int) -> None:
        url = make_url(self.url).set(drivername=self.driver.dialect)
        engine = create_engine(url, poolclass=NullPool, connect_args=self.connect_args)
        with contextlib.ExitStack() as stack:
            scenario(*[stack.enter_context(engine.connect()) for _ in range(connections)])

    async def _run_async(self, scenario: Callable[..., object], connections: int) -> None:
        from sqlalchemy.ext.asyncio import create_async_engine

        url = make_url(self.url).set(drivername=self.driver.dialect)
        engine = create_async_engine(url, poolclass=NullPool, connect_args=self.connect_args)
        async with contextlib.AsyncExitStack() as stack:
            opened = [await stack.enter_async_context(engine.connect()) for _ in range(connections)]
            await opened[0].run_sync(lambda first: scenario(first, *[other.sync_connection for other in opened[1:]]))


def run(connection: Connection, *statements: str) -> None:
    """
    Run statements one after the other.
    """
    for statement in statements:
        connection.execute(text(statement))


def commit(connection: Connection, *statements: str) -> None:
    """
    Run statements and commit them.
    """
    run(connection, *statements)
    connection.commit()


@contextlib.contextmanager
def meanwhile(url: str, work: Callable[[Connection], object]) -> Iterator[None]:
    """
    Do something on another connection in another thread; the block ends when it has ended.

    Args:
        url: where, with a synchronous driver.
        work: what to do; an error there fails the test.
    """

    def thread() -> None:
        with create_engine(url, poolclass=NullPool).connect() as connection:
            work(connection)

    worker = threading.Thread(target=thread, daemon=True)
    worker.start()
    try:
        yield
    finally:
        worker.join(PATIENCE)
        assert not worker.is_alive(), "the other side of the conflict did not end"
