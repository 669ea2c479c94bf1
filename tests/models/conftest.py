"""
Engines for the tests of models, made by SQLAlchemy alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import create_engine, make_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import URL, Engine

DRIVERS = {
    "postgresql": "postgresql+psycopg",
    "mysql": "mysql+pymysql",
    "mariadb": "mariadb+pymysql",
    "sqlite": "sqlite",
}
ASYNC_DRIVERS = {
    "postgresql": "postgresql+psycopg",
    "mysql": "mysql+aiomysql",
    "mariadb": "mariadb+aiomysql",
    "sqlite": "sqlite+aiosqlite",
}


def with_driver(url: str, drivers: dict[str, str]) -> URL:
    parsed = make_url(url)
    return parsed.set(drivername=drivers[parsed.get_backend_name()])


def engines(url: str) -> Iterator[Engine]:
    engine = create_engine(with_driver(url, DRIVERS))
    yield engine
    engine.dispose()


@pytest.fixture
def engine(any_database: str) -> Iterator[Engine]:
    """
    An engine on an empty database, on each backend in turn.
    """
    yield from engines(any_database)


@pytest.fixture
def sqlite_engine(sqlite_database: str) -> Iterator[Engine]:
    """
    An engine on an empty SQLite database.
    """
    yield from engines(sqlite_database)


@pytest.fixture
def mariadb_engine(mariadb_database: str) -> Iterator[Engine]:
    """
    An engine on an empty MariaDB database.
    """
    yield from engines(mariadb_database)


@pytest.fixture
def postgresql_engine(postgresql_database: str) -> Iterator[Engine]:
    """
    An engine on an empty PostgreSQL database.
    """
    yield from engines(postgresql_database)


@pytest.fixture
def async_url(any_database: str) -> Callable[[], URL]:
    """
    The URL of the same kind of database with an asynchronous driver.
    """
    return lambda: with_driver(any_database, ASYNC_DRIVERS)
