"""
A place for the tests of the write side: databases that keep their tables, in each world, emptied before each test.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from tests.commits.worlds import AIOMYSQL, ASYNCPG, PSYCOPG, PYMYSQL, Place, World, databases
from tests.repository.writing.models import Base
from tests.support import servers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SQLITE = World("sqlite_database", "pysqlite", is_async=False)
AIOSQLITE = World("sqlite_database", "aiosqlite", is_async=True)
WORLDS = (SQLITE, PSYCOPG, PYMYSQL, AIOSQLITE, ASYNCPG, AIOMYSQL)


class Shop:
    """
    A database with the tables of the models, in one world.

    Attributes:
        place: The databases, and the world that uses them.
        backend: "sqlite", "postgresql" or "mysql".
    """

    def __init__(self, place: Place) -> None:
        self.place = place
        self.backend = place.dbs["main"].backend.name

    def __call__(self, body: Callable[[Any], Any]) -> Any:
        """
        Run `body` with the session of a unit of work of its own, and return what it returned.
        """
        ended = self.place.unit(lambda session: body(session("main")))
        if ended.error is not None:
            raise ended.error
        return ended.seen


@contextlib.contextmanager
def opened(world: World, url: str) -> Iterator[Shop]:
    """
    Make the tables in a database.
    """
    with Place(databases({"main": {"url": world.url(url)}}), is_async=world.is_async) as place:
        Base.metadata.create_all(place.dbs["main"].engine)
        yield Shop(place)
        place.dbs["main"].engine.dispose()


def empty_database(world: World, request: pytest.FixtureRequest, directory: Any) -> Any:
    """
    Return a context manager that yields the URL of an empty database.
    """
    if world.fixture.startswith("postgresql"):
        return servers.postgresql_database(request.getfixturevalue("postgresql_url"))
    if world.fixture.startswith("mariadb"):
        return servers.mariadb_database(request.getfixturevalue("mariadb_url"))
    return contextlib.nullcontext(f"sqlite:///{directory / 'test.db'}")


@pytest.fixture(scope="package", params=WORLDS, ids=str)
def world_of_shops(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """
    One database in each world in turn.
    """
    directory = tmp_path_factory.mktemp("shops")
    with empty_database(request.param, request, directory) as url, opened(request.param, url) as shop:
        yield shop


@pytest.fixture
def shop(world_of_shops: Shop) -> Shop:
    """
    A database without rows, in each world in turn.
    """
    with world_of_shops.place.dbs["main"].engine.begin() as connection:
        for table in reversed(Base.metadata.sorted_tables):
            connection.execute(table.delete())
    return world_of_shops
