"""
Databases over each asynchronous driver.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import make_url

from stillroom.testing.servers import Proxy
from tests.aio.support import DRIVERS, MARIADB_DRIVERS, POSTGRESQL_DRIVERS, databases, with_driver

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stillroom import Databases
    from tests.support.spares import Spares


def url_over(driver: str, request: pytest.FixtureRequest) -> str:
    """
    Return the URL of an empty database over a driver; skip where the driver is not installed.
    """
    if importlib.util.find_spec(driver) is None:
        pytest.skip(f"{driver} is not installed")
    backend = "mariadb" if driver in MARIADB_DRIVERS else "sqlite" if driver == "aiosqlite" else "postgresql"
    return with_driver(request.getfixturevalue(f"{backend}_database"), driver)


@pytest.fixture(params=DRIVERS)
def any_url(request: pytest.FixtureRequest) -> str:
    """
    The URL of an empty database, over each driver in turn.
    """
    return url_over(request.param, request)


@pytest.fixture
def any_dbs(any_url: str) -> Iterator[Databases]:
    """
    One database, `main`, with the table `items`, over each driver in turn.
    """
    with databases({"main": any_url}) as dbs:
        yield dbs


@pytest.fixture(params=POSTGRESQL_DRIVERS)
def postgresql_driver(request: pytest.FixtureRequest) -> str:
    """
    The name of each driver for PostgreSQL in turn.
    """
    return str(request.param)


@pytest.fixture
def pg_url(postgresql_driver: str, postgresql_database: str) -> str:
    """
    The URL of an empty PostgreSQL database, over each of its drivers in turn.
    """
    return with_driver(postgresql_database, postgresql_driver)


@pytest.fixture
def proxy(postgresql_url: str) -> Iterator[Proxy]:
    """
    A proxy in front of the PostgreSQL server.
    """
    server = make_url(postgresql_url)
    with Proxy(server.host or "127.0.0.1", server.port or 5432) as proxy:
        yield proxy


@pytest.fixture
def pg_dbs(pg_url: str) -> Iterator[Databases]:
    """
    One PostgreSQL database, `main`, with the table `items`, over each driver in turn.
    """
    with databases({"main": pg_url}) as dbs:
        yield dbs


@pytest.fixture
def pair_urls(pg_url: str, postgresql_driver: str, spares: Spares) -> Iterator[dict[str, str]]:
    """
    The URLs of two empty PostgreSQL databases, `main` and `audit`, over each driver in turn.
    """
    with spares.database() as other:
        yield {"main": pg_url, "audit": with_driver(other, postgresql_driver)}


@pytest.fixture
def pair(pair_urls: dict[str, str]) -> Iterator[Databases]:
    """
    Two PostgreSQL databases, `main` (the default) and `audit`, over each driver in turn.
    """
    with databases(pair_urls) as dbs:
        yield dbs
