"""
Fixtures for the tests of repositories: a place in each world, empty or with a small shop in it.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from tests.repository.models import create_tables, fill
from tests.repository.worlds import PSYCOPG, PSYCOPG_ASYNC, SQLITE, THREADS, WORLDS, Place, World
from tests.support import servers

if TYPE_CHECKING:
    from collections.abc import Iterator


def _place(request: pytest.FixtureRequest, world: World) -> Iterator[Place]:
    url: str = request.getfixturevalue(f"{world.backend}_database")
    with Place({"main": url}, world) as place:
        yield place


@pytest.fixture(params=WORLDS, ids=str)
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    """
    An empty database "main", with each driver, from threads and from asyncio.
    """
    yield from _place(request, request.param)


@pytest.fixture(params=THREADS, ids=str)
def threads(request: pytest.FixtureRequest) -> Iterator[Place]:
    """
    Same as `place`, but from threads only: for rules that asyncio does not touch.
    """
    yield from _place(request, request.param)


@pytest.fixture
def shop(place: Place) -> Place:
    """
    A place with the users and their orders.
    """
    return _filled(place)


@pytest.fixture
def thread_shop(threads: Place) -> Place:
    """
    Same as `shop`, but from threads only.
    """
    return _filled(threads)


@pytest.fixture(scope="module", params=WORLDS, ids=str)
def standing_shop(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """
    Same as `shop`, but one for all tests of a module: a test takes back what it writes.
    """
    world: World = request.param
    with contextlib.ExitStack() as stack:
        url = f"sqlite:///{tmp_path_factory.mktemp('shop')}/shop.db"
        if world.backend != "sqlite":
            database = getattr(servers, f"{world.backend}_database")
            url = stack.enter_context(database(request.getfixturevalue(f"{world.backend}_url")))
        yield _filled(stack.enter_context(Place({"main": url}, world)))


@pytest.fixture(params=(PSYCOPG, PSYCOPG_ASYNC), ids=str)
def postgresql_shop(request: pytest.FixtureRequest) -> Iterator[Place]:
    """
    Same as `shop`, but on PostgreSQL only, where the server's own behaviour is what counts.
    """
    for place in _place(request, request.param):
        yield _filled(place)


@pytest.fixture
def sqlite_place(request: pytest.FixtureRequest) -> Iterator[Place]:
    """
    Same as `place`, but on SQLite from threads only: for rules that no server touches.
    """
    yield from _place(request, SQLITE)


@pytest.fixture
def sqlite_shop(request: pytest.FixtureRequest) -> Iterator[Place]:
    """
    Same as `shop`, but on SQLite from threads only: for rules that no server touches.
    """
    for place in _place(request, SQLITE):
        yield _filled(place)


def _filled(place: Place) -> Place:
    create_tables(place)
    with place.plain["main"].engine.begin() as connection:
        fill(connection)
    return place
