"""
Databases with the tables of the shop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.data import library, shop

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stillroom import Databases


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


@pytest.fixture
def books(any_database: str) -> Iterator[Databases]:
    """
    The empty library on each backend in turn.
    """
    with library.databases(any_database) as made:
        yield made


@pytest.fixture
def shelf(sqlite_database: str) -> Iterator[Databases]:
    """
    The empty library on SQLite.
    """
    with library.databases(sqlite_database) as made:
        yield made
