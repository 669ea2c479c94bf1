"""
One test body for threads and asyncio: the facade of asyncio behind calls that wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import stillroom
from stillroom import Databases
from tests.aio.support import with_driver

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

    from stillroom.testing import Isolation, TestRun


@dataclass(frozen=True)
class World:
    """
    A driver, and whether it is used from asyncio.
    """

    backend: str
    driver: str
    is_async: bool

    @property
    def both(self) -> str:
        """
        The driver whose URL serves this world and that of threads, so that both may use the same databases.
        """
        return {"aiosqlite": "pysqlite", "pymysql": "aiomysql"}.get(self.driver, self.driver)

    def __str__(self) -> str:
        return f"{self.driver}-{'async' if self.is_async else 'sync'}"


SQLITE = World("sqlite", "pysqlite", is_async=False)
PSYCOPG = World("postgresql", "psycopg", is_async=False)
PYMYSQL = World("mariadb", "pymysql", is_async=False)
AIOSQLITE = World("sqlite", "aiosqlite", is_async=True)
PSYCOPG_ASYNC = World("postgresql", "psycopg", is_async=True)
ASYNCPG = World("postgresql", "asyncpg", is_async=True)
AIOMYSQL = World("mariadb", "aiomysql", is_async=True)
THREADS = (SQLITE, PSYCOPG, PYMYSQL)
"""One driver for each backend, for rules that asyncio does not touch."""
WORLDS = (*THREADS, AIOSQLITE, PSYCOPG_ASYNC, ASYNCPG, AIOMYSQL)


class Place:
    """
    Configured databases and the world that uses them: one event loop for all that a test does in asyncio.

    Args:
        urls: The URL of each database, by name.
        world: The driver for all of them.
        **settings: Further settings of each database.
    """

    def __init__(self, urls: dict[str, str], world: World, **settings: Any) -> None:
        self.world = world
        self.dbs = Databases(
            {"databases": {name: {"url": with_driver(url, world.driver), **settings} for name, url in urls.items()}}
        )
        self.plain = Databases({"databases": {name: {"url": url} for name, url in urls.items()}})
        """The same databases, always from threads: to make tables, and to look from outside."""
        self.runner = asyncio.Runner() if world.is_async else None

    @classmethod
    @contextlib.contextmanager
    def isolated(cls, run: TestRun, world: World, isolation: Isolation) -> Iterator[Self]:
        """
        Yield a place on the test databases of a run, of which nothing is left for the next one.
        """
        with run.isolated(isolation=isolation):
            place = cls.__new__(cls)
            place.world = world
            place.dbs = place.plain = run.databases
            place.runner = asyncio.Runner() if world.is_async else None
            yield place
            if place.runner is not None:
                place.runner.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.plain.close()
        if self.runner is None:
            self.dbs.close()
        else:
            self.runner.run(self.dbs.aclose())
            self.runner.close()

    def __repr__(self) -> str:
        return f"<Place {self.world}>"

    @contextlib.contextmanager
    def unit(self, **options: Any) -> Iterator[Any]:
        """
        Open a unit of work of this world.
        """
        if self.runner is None:
            with self.dbs.unit_of_work(**options) as unit:
                yield unit
            return
        uow = self.dbs.async_unit_of_work(**options)
        self.runner.run(uow.__aenter__())
        try:
            yield uow
        except BaseException as error:
            self.runner.run(uow.__aexit__(type(error), error, error.__traceback__))
            raise
        self.runner.run(uow.__aexit__(None, None, None))

    def kind(self, name: str) -> Any:
        """
        Return a repository class of this world by its synchronous name.
        """
        return getattr(stillroom, name if self.runner is None else f"Async{name}")

    def waiting(self, something: Any) -> Any:
        """
        Return a repository or a session of this world as one whose calls return when they are done.
        """
        return something if self.runner is None else Waiting(something, self.runner)

    def repository(self, model: type[Any], source: Any, kind: str = "Repository", **options: Any) -> Any:
        """
        Return a repository of a model, each call of which returns when it is done.
        """
        return self.waiting(self.kind(kind)[model](source, **options))


class Waiting:
    """
    What stands for an object of asyncio, and waits for what its methods return.
    """

    def __init__(self, inner: Any, runner: asyncio.Runner) -> None:
        self._inner = inner
        self._runner = runner

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if not inspect.isroutine(found):
            return found

        def call(*args: Any, **options: Any) -> Any:
            result = found(*args, **options)
            if inspect.iscoroutine(result):
                return self._runner.run(result)
            if isinstance(result, AsyncIterator):
                return self._iterate(result)
            return Waiting(result, self._runner) if type(result) is type(self._inner) else result

        return call

    def _iterate(self, items: Any) -> Iterator[Any]:
        async def following() -> Any:
            return await anext(items, self)

        async def close() -> None:
            await items.aclose()

        try:
            while (item := self._runner.run(following())) is not self:
                yield item
        finally:
            self._runner.run(close())
