"""
Declared databases for the tests of units of work.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.unit_of_work.shop import made

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from stillroom import Databases


@pytest.fixture
def dbs(sqlite_database: str) -> Iterator[Databases]:
    """
    One database "main", on SQLite.
    """
    with made({"main": sqlite_database}) as databases:
        yield databases


@pytest.fixture
def any_dbs(any_database: str) -> Iterator[Databases]:
    """
    One database "main", on each backend in turn.
    """
    with made({"main": any_database}) as databases:
        yield databases


@pytest.fixture
def postgresql_dbs(postgresql_database: str) -> Iterator[Databases]:
    """
    One database "main", on PostgreSQL.
    """
    with made({"main": postgresql_database}) as databases:
        yield databases


@pytest.fixture
def mariadb_dbs(mariadb_database: str) -> Iterator[Databases]:
    """
    One database "main", on MariaDB.
    """
    with made({"main": mariadb_database}) as databases:
        yield databases


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Databases]:
    """
    "main" (the default, declared first), "audit", "stock" and the logger "log", on SQLite.
    """
    urls = {name: f"sqlite:///{tmp_path / name}.db" for name in ("main", "audit", "stock", "log")}
    with made({name: {"url": url} | ({"role": "logger"} if name == "log" else {}) for name, url in urls.items()}) as d:
        yield d
