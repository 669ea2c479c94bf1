"""
Fixtures for the tests of repositories: a place in each world, empty or with a small shop in it.

A place stands on test databases that are made once a process, and is undone after the test: nothing is made for a test
that asks for `place` or `shop`. Where that is not the real thing, the test asks for `committed` or `own_database`.
"""

from __future__ import annotations

from pkgutil import resolve_name
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import MetaData

from tests.repository.models import create_tables, seed
from tests.repository.worlds import ASYNCPG, PSYCOPG, PSYCOPG_ASYNC, SQLITE, THREADS, WORLDS, Place, World
from tests.support.standing import Content

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stillroom.testing import Isolation

EMPTY = Content("empty")
SHOP = Content("shop", "tests.repository.models:Base", (seed,))


@pytest.fixture
def committed() -> None:
    """
    Asked for by a test that needs connections of their own: its commits are real, and cleaned afterwards.
    """


@pytest.fixture
def own_database() -> None:
    """
    Asked for by a test that changes tables, or looks at generated keys: its database is made for it alone.
    """


@pytest.fixture
def place_content() -> Content:
    """
    What `place` and its like have in them; modules with tables of their own override it.
    """
    return EMPTY


def _place(request: pytest.FixtureRequest, world: World, content: Content | None = None) -> Iterator[Place]:
    content = content or request.getfixturevalue("place_content")
    # Where a CREATE TABLE is committed, a test that makes tables of its own needs a database of its own.
    commits_ddl = world.backend == "mariadb" or world == ASYNCPG
    if "own_database" in request.fixturenames or (content is EMPTY and commits_ddl):
        with Place({"main": request.getfixturevalue(f"{world.backend}_database")}, world) as place:
            if content.metadata is not None:
                create_tables(place, _metadata(content.metadata))
            for put in content.seeds:
                with place.plain["main"].session() as session:
                    put(session)
            yield place
        return
    # To asyncpg's connection in the sandbox, that of threads is another, which does not see what it does.
    isolation: Isolation = "committed" if "committed" in request.fixturenames or world == ASYNCPG else "sandbox"
    server = "" if world.backend == "sqlite" else request.getfixturevalue(f"{world.backend}_url")
    run = request.getfixturevalue("standing").run(content, world.backend, world.both, server)
    with Place.isolated(run, world, isolation) as place:
        yield place


@pytest.fixture(params=WORLDS, ids=str)
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    """
    A database "main" with what `place_content` says, with each driver, from threads and from asyncio.
    """
    yield from _place(request, request.param)


@pytest.fixture(params=THREADS, ids=str)
def threads(request: pytest.FixtureRequest) -> Iterator[Place]:
    """
    Same as `place`, but from threads only: for rules that asyncio does not touch.
    """
    yield from _place(request, request.param)


@pytest.fixture(params=WORLDS, ids=str)
def shop(request: pytest.FixtureRequest) -> Iterator[Place]:
    """
    A place with the users and their orders.
    """
    yield from _place(request, request.param, SHOP)


@pytest.fixture(params=THREADS, ids=str)
def thread_shop(request: pytest.FixtureRequest) -> Iterator[Place]:
    """
    Same as `shop`, but from threads only.
    """
    yield from _place(request, request.param, SHOP)


@pytest.fixture(params=(PSYCOPG, PSYCOPG_ASYNC), ids=str)
def postgresql_shop(request: pytest.FixtureRequest) -> Iterator[Place]:
    """
    Same as `shop`, but on PostgreSQL only, where the server's own behaviour is what counts.
    """
    yield from _place(request, request.param, SHOP)


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
    yield from _place(request, SQLITE, SHOP)


def _metadata(where: str) -> MetaData:
    found = resolve_name(where)
    return found if isinstance(found, MetaData) else found.metadata
