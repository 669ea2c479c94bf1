"""
One unit of work written once and run in each world: threads or asyncio, with each driver.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.pool import NullPool

from stillroom import Databases

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Self

    from stillroom import Retry
    from stillroom.status import Status

COMMIT = re.compile(rb"\bCOMMIT\b")
"""The statement alone, not the name of a table that has the word in it."""


@dataclass(frozen=True)
class World:
    """
    A driver, and whether it is used from asyncio.
    """

    fixture: str
    driver: str
    is_async: bool

    def __str__(self) -> str:
        return f"{self.driver}-{'async' if self.is_async else 'sync'}"

    def url(self, plain: str) -> str:
        """
        Name the driver in a URL.
        """
        backend = {"p": "postgresql", "m": "mysql", "s": "sqlite"}[self.fixture[0]]
        return make_url(plain).set(drivername=f"{backend}+{self.driver}").render_as_string(hide_password=False)


PSYCOPG = World("postgresql_database", "psycopg", is_async=False)
PSYCOPG_ASYNC = World("postgresql_database", "psycopg", is_async=True)
ASYNCPG = World("postgresql_database", "asyncpg", is_async=True)
PYMYSQL = World("mariadb_database", "pymysql", is_async=False)
AIOMYSQL = World("mariadb_database", "aiomysql", is_async=True)
WORLDS = (PSYCOPG, PSYCOPG_ASYNC, ASYNCPG, PYMYSQL, AIOMYSQL)


@dataclass
class Ended:
    """
    How a unit of work ended.

    Attributes:
        unit: The unit of work.
        error: What left its block.
        hooks: Which callbacks ran.
        seen: What the body returned.
    """

    unit: Any
    error: BaseException | None = None
    hooks: list[str] = field(default_factory=list)
    seen: Any = None

    @property
    def status(self) -> Status:
        """
        What the unit says of itself.
        """
        status: Status = self.unit.status
        return status


class Place:
    """
    Configured databases and the world that uses them: one event loop for all units of work of asyncio.

    Args:
        dbs: The databases; closed at the end.
        is_async: Whether units of work run in asyncio.
    """

    def __init__(self, dbs: Databases, *, is_async: bool = False) -> None:
        self.dbs = dbs
        self.runner = asyncio.Runner() if is_async else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.runner is None:
            self.dbs.close()
        else:
            self.runner.run(self.dbs.aclose())
            self.runner.close()

    def unit(self, body: Callable[[Any], Any], **options: Any) -> Ended:
        """
        Run `body` in a unit of work; in asyncio inside `AsyncSession.run_sync`, so that one body fits both worlds.

        Args:
            body: Takes a function that returns the plain Session on a database by name.
            **options: For the unit of work.
        """
        if self.runner is not None:
            return self.runner.run(unit_async(self.dbs, body, **options))
        return unit_sync(self.dbs, body, **options)

    def unit_by_hand(self, *bodies: Callable[[Any], Any]) -> Ended:
        """
        Run each of `bodies` in one unit of work that is committed by hand after each; keep what the first returned.
        """
        unit = self.dbs.unit_of_work(commit="manual") if self.runner is None else None
        if unit is None:
            assert self.runner is not None
            return self.runner.run(self._by_hand(*bodies))
        ended = Ended(unit)
        try:
            with unit:
                unit.on_commit(lambda: ended.hooks.append("commit"))
                for body in bodies:
                    seen = body(unit.session)
                    ended.seen = ended.seen or seen
                    unit.commit()
        except BaseException as raised:
            ended.error = raised
        return ended

    async def _by_hand(self, *bodies: Callable[[Any], Any]) -> Ended:
        unit = self.dbs.async_unit_of_work(commit="manual")
        ended = Ended(unit)
        try:
            async with unit:
                unit.on_commit(lambda: ended.hooks.append("commit"))
                for body in bodies:
                    seen = await _in_unit(unit, body)
                    ended.seen = ended.seen or seen
                    await unit.commit()
        except BaseException as raised:
            ended.error = raised
        return ended

    def call(self, body: Callable[[Any], Any], *, retry: Retry) -> BaseException | None:
        """
        Run `body` as a transactional function that is tried again; return what it raised in the end.
        """

        def function(unit: Any) -> None:
            body(unit.session)

        async def coroutine(unit: Any) -> None:
            await _in_unit(unit, body)

        try:
            if self.runner is None:
                self.dbs.transactional(retry=retry)(function)()
            else:
                repeated: Any = self.dbs.transactional(retry=retry)(coroutine)
                self.runner.run(repeated())
        except BaseException as error:
            return error
        return None


async def _in_unit(unit: Any, body: Callable[[Any], Any]) -> Any:
    def session(name: str | None = None, **how: Any) -> Any:
        return unit.session(name, **how).sync_session

    return await unit.session().run_sync(lambda _: body(session))


def unit_sync(dbs: Databases, body: Callable[[Any], Any], **options: Any) -> Ended:
    """
    Run `body` in a unit of work; see `Place.unit`.
    """
    unit = dbs.unit_of_work(**options)
    ended = Ended(unit)
    try:
        with unit:
            unit.on_commit(lambda: ended.hooks.append("commit"))
            unit.on_rollback(lambda: ended.hooks.append("rollback"))
            ended.seen = body(unit.session)
    except BaseException as raised:
        ended.error = raised
    return ended


async def unit_async(dbs: Databases, body: Callable[[Any], Any], **options: Any) -> Ended:
    """
    Same as `unit_sync`, but for asyncio.
    """
    unit = dbs.async_unit_of_work(**options)
    ended = Ended(unit)

    try:
        async with unit:
            unit.on_commit(lambda: ended.hooks.append("commit"))
            unit.on_rollback(lambda: ended.hooks.append("rollback"))
            ended.seen = await _in_unit(unit, body)
    except BaseException as raised:
        ended.error = raised
    return ended


def execute(url: str, *statements: str) -> None:
    """
    Execute statements on a connection of their own, around the library.
    """
    engine = create_engine(sync_url(url), poolclass=NullPool)
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))


def column(url: str, query: str) -> list[Any]:
    """
    Return the first column of a query, on a connection of its own, around the library.
    """
    engine = create_engine(sync_url(url), poolclass=NullPool)
    with engine.connect() as connection:
        return list(connection.execute(text(query)).scalars())


def sync_url(url: str) -> Any:
    """
    Return the URL with a driver for threads.
    """
    parsed = make_url(url)
    driver = {"postgresql": "postgresql+psycopg", "mysql": "mysql+pymysql", "sqlite": "sqlite"}
    return parsed.set(drivername=driver[parsed.get_backend_name()])


def databases(settings: Mapping[str, Any], **top: Any) -> Databases:
    """
    Make configured `Databases` from the settings of each database, by name.
    """
    dbs = Databases()
    dbs.configure({"databases": dict(settings), **top})
    return dbs
