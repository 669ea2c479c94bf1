"""
What the tests of the sandbox share: tables, databases whose engines connect to a sandbox, and a look from outside.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import ForeignKey, String, create_engine, event, func, make_url, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.pool import NullPool

from stillroom import Databases
from stillroom.testing.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from sqlalchemy.engine import Engine

    from stillroom import Database

R = TypeVar("R")

SYNCHRONOUS = ("psycopg", "sqlite3", "pymysql")
ASYNCHRONOUS = ("psycopg", "asyncpg", "aiosqlite", "aiomysql", "asyncmy")
BACKENDS = {
    "psycopg": "postgresql",
    "asyncpg": "postgresql",
    "sqlite3": "sqlite",
    "aiosqlite": "sqlite",
    "pymysql": "mariadb",
    "aiomysql": "mariadb",
    "asyncmy": "mariadb",
}
PATIENCE = 10.0
"""How long a test waits for a condition, in seconds."""
IMPATIENT = 0.5
"""How long a statement waits for another one's writes where a test expects it to wait in vain, in seconds."""


class Base(DeclarativeBase):
    """
    The tables of the tests.
    """


class Item(Base):
    """
    A row with a unique name.
    """

    __tablename__ = "items"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(60), unique=True)


class Part(Base):
    """
    A row that refers to another one; looked at when the transaction is committed.
    """

    __tablename__ = "parts"

    id: Mapped[int] = mapped_column(primary_key=True)
    item_id: Mapped[int] = mapped_column(ForeignKey("items.id", deferrable=True, initially="DEFERRED"))


class Setting:
    """
    A database in a sandbox.

    Attributes:
        dbs: The application's databases.
        sandbox: The sandbox of the one named "main".
        url: Where it is, with a synchronous driver.
    """

    def __init__(self, dbs: Databases, sandbox: Sandbox, url: str) -> None:
        self.dbs = dbs
        self.sandbox = sandbox
        self.url = url

    @property
    def engine(self) -> Engine:
        """
        The writers' engine.
        """
        return self.dbs["main"].engine

    def count(self) -> int:
        """
        Count the rows that the application sees.
        """
        with self.engine.connect() as connection:
            return connection.scalar(select(func.count()).select_from(Item)) or 0

    def durable(self) -> int:
        """
        Count the rows that others see, over a connection of their own.
        """
        engine = create_engine(self.url, poolclass=NullPool)
        with engine.connect() as connection:
            return connection.scalar(select(func.count()).select_from(Item)) or 0

    @contextlib.contextmanager
    def impatient(self) -> Iterator[None]:
        """
        Let nobody wait for long.
        """
        self.sandbox.timeout = IMPATIENT
        try:
            yield
        finally:
            self.sandbox.timeout = PATIENCE

    @contextlib.contextmanager
    def test(self) -> Iterator[None]:
        """
        Be a test of an application: nothing may be left open, and nothing is left behind.
        """
        self.sandbox.begin()
        try:
            yield
        finally:
            leaks = self.sandbox.end()
        assert leaks == []
        assert self.durable() == 0


def route(database: Database, sandbox: Sandbox) -> None:
    """
    Lead all connections of a database to the sandbox.
    """

    def equip(engine: Engine, role: str) -> None:
        def connect(dialect: Any, record: Any, arguments: list[Any], keywords: dict[str, Any]) -> Any:
            def really() -> Any:
                for listener in others:
                    connection = listener(dialect, record, arguments, keywords)
                    if connection is not None:
                        return connection
                return dialect.connect(*arguments, **keywords)

            return sandbox.connect(dialect, role, really)

        # Before the others, some of which connect by themselves. SQLAlchemy takes no notice of `insert` here.
        others = list(engine.dialect.dispatch.do_connect)
        for listener in others:
            event.remove(engine, "do_connect", listener)
        event.listen(engine, "do_connect", connect)

    database.watch_engines(equip)


@contextlib.contextmanager
def sandboxed(url: str, driver: str, *, timeout: float = PATIENCE, **settings: Any) -> Iterator[Setting]:
    """
    Make the tables in the database at `url`, and yield databases in a sandbox over it.

    Args:
        url: An empty database.
        driver: "asyncpg" is put into the URL, the others are what Stillroom takes by itself ("asyncmy": too).
        timeout: How long the sandbox waits.
        **settings: For the database.
    """
    plain = make_url(url)
    backend = plain.get_backend_name()
    synchronous = {"postgresql": "postgresql+psycopg", "sqlite": "sqlite", "mysql": "mysql+pymysql"}[backend]
    outside = plain.set(drivername=synchronous).render_as_string(hide_password=False)
    engine = create_engine(outside, poolclass=NullPool)
    tables = Base.metadata.sorted_tables
    # MariaDB has no constraints that are deferred.
    Base.metadata.create_all(engine, tables=tables if backend != "mysql" else [Item.__table__])  # type: ignore[list-item]
    named = plain.set(drivername=f"{backend}+{driver}") if driver in ("asyncpg", "asyncmy") else plain
    rendered = named.render_as_string(hide_password=False)
    dbs = Databases({"databases": {"main": {"url": rendered, **settings}}})
    sandbox = Sandbox("main", timeout=timeout, engine=None if driver == "asyncpg" else lambda: dbs["main"].engine)
    route(dbs["main"], sandbox)
    try:
        yield Setting(dbs, sandbox, outside)
    finally:
        sandbox.close()
        dbs.close()


def in_threads(count: int, work: Callable[[int], object]) -> None:
    """
    Run `work` in several threads at once, and raise what one of them raised.
    """
    errors: list[BaseException] = []

    def guarded(number: int) -> None:
        try:
            work(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(n,), name=f"worker {n}") for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE * 4)
    assert not any(thread.is_alive() for thread in threads)
    if errors:
        raise errors[0]


def run(setting: Setting, work: Callable[[], Coroutine[Any, Any, R]]) -> R:
    """
    Run a coroutine function in a new event loop, and give up the pools of asyncio.
    """

    async def whole() -> R:
        try:
            return await work()
        finally:
            await setting.dbs.aclose()

    return asyncio.run(whole())
