"""
Databases in a sandbox, one for each driver and module: what a test does to them is undone, which is the point.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from stillroom.testing.servers.fixtures import needed
from tests.support import servers
from tests.testing.sandbox.support import ASYNCHRONOUS, BACKENDS, SYNCHRONOUS, Setting, sandboxed

if TYPE_CHECKING:
    from collections.abc import Iterator


def database(stack: contextlib.ExitStack, driver: str, factory: pytest.TempPathFactory) -> str:
    """
    Make an empty database for a driver, and return its URL.
    """
    backend = BACKENDS[driver]
    if backend == "sqlite":
        return f"sqlite:///{factory.mktemp('sandbox') / 'test.db'}"
    if backend == "postgresql":
        return stack.enter_context(servers.postgresql_database(needed(backend, servers.postgresql_url)))
    return stack.enter_context(servers.mariadb_database(needed(backend, servers.mariadb_url)))


def settings(driver: str, factory: pytest.TempPathFactory) -> Iterator[Setting]:
    with contextlib.ExitStack() as stack:
        url = database(stack, driver, factory)
        yield stack.enter_context(sandboxed(url, driver))


@pytest.fixture(scope="module", params=SYNCHRONOUS)
def setting_of_module(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    """
    A database in a sandbox, over each synchronous driver in turn.
    """
    yield from settings(request.param, tmp_path_factory)


@pytest.fixture(scope="module", params=ASYNCHRONOUS)
def async_of_module(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    """
    A database in a sandbox, over each asynchronous driver in turn.
    """
    yield from settings(request.param, tmp_path_factory)


@pytest.fixture(scope="module")
def postgresql_of_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    """
    A PostgreSQL database in a sandbox.
    """
    yield from settings("psycopg", tmp_path_factory)


@pytest.fixture(scope="module")
def mariadb_of_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    """
    A MariaDB database in a sandbox.
    """
    yield from settings("pymysql", tmp_path_factory)


@pytest.fixture(scope="module")
def sqlite_of_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    """
    An SQLite file in a sandbox.
    """
    yield from settings("sqlite3", tmp_path_factory)


@pytest.fixture
def setting(setting_of_module: Setting) -> Iterator[Setting]:
    """
    A test in a sandbox, over each synchronous driver in turn; nothing is left of it.
    """
    with setting_of_module.test():
        yield setting_of_module


@pytest.fixture
def async_setting(async_of_module: Setting) -> Iterator[Setting]:
    """
    A test in a sandbox, over each asynchronous driver in turn; nothing is left of it.
    """
    with async_of_module.test():
        yield async_of_module


@pytest.fixture
def postgresql(postgresql_of_module: Setting) -> Iterator[Setting]:
    """
    A test in a sandbox over PostgreSQL; nothing is left of it.
    """
    with postgresql_of_module.test():
        yield postgresql_of_module


@pytest.fixture
def mariadb(mariadb_of_module: Setting) -> Iterator[Setting]:
    """
    A test in a sandbox over MariaDB; nothing is left of it.
    """
    with mariadb_of_module.test():
        yield mariadb_of_module


@pytest.fixture
def sqlite(sqlite_of_module: Setting) -> Iterator[Setting]:
    """
    A test in a sandbox over SQLite; nothing is left of it.
    """
    with sqlite_of_module.test():
        yield sqlite_of_module
