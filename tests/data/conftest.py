"""
Databases with the tables of the shop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.data import shop
from tests.support.standing import Content

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stillroom import Databases
    from tests.support.standing import Standing


@pytest.fixture
def dbs(any_database: str) -> Iterator[Databases]:
    """
    The empty shop on each backend in turn.
    """
    with shop.databases(any_database) as made:
        shop.Base.metadata.create_all(made.main.engine)
        yield made


@pytest.fixture
def sqlite(sqlite_database: str) -> Iterator[Databases]:
    """
    The empty shop on SQLite.
    """
    with shop.databases(sqlite_database) as made:
        shop.Base.metadata.create_all(made.main.engine)
        yield made


LIBRARY = Content("library", "tests.data.library:Base", beside=(("audit", "tests.data.library:Log"),))


@pytest.fixture(params=[("sqlite", "pysqlite"), ("postgresql", "psycopg"), ("mariadb", "pymysql")], ids="-".join)
def books(request: pytest.FixtureRequest, standing: Standing) -> Iterator[Databases]:
    """
    The empty library on each backend in turn.
    """
    backend, driver = request.param
    server = "" if backend == "sqlite" else request.getfixturevalue(f"{backend}_url")
    run = standing.run(LIBRARY, backend, driver, server)
    with run.isolated():
        yield run.databases


@pytest.fixture
def shelf(standing: Standing) -> Iterator[Databases]:
    """
    The empty library on SQLite.
    """
    run = standing.run(LIBRARY, "sqlite", "pysqlite", "")
    with run.isolated():
        yield run.databases
