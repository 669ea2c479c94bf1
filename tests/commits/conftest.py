"""
Fixtures for commits over several databases.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from tests.commits.layouts import Layout, layout
from tests.support.spares import Spares

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from stillroom.testing.servers import PostgresServer


@pytest.fixture(scope="session")
def preparing(pg_server: PostgresServer) -> Iterator[Spares]:
    """
    Empty databases of a server that keeps prepared transactions.
    """
    made = Spares(pg_server.url)
    yield made
    made.close()


@pytest.fixture
def make_layout(preparing: Spares, mariadb_url: str, tmp_path: Path) -> Iterator[Callable[..., Layout]]:
    """
    Make databases for one test: `make_layout(audit="pymysql", main="psycopg")`.
    """
    with contextlib.ExitStack() as stack:
        yield lambda **names: stack.enter_context(layout(names, preparing, mariadb_url, tmp_path))
