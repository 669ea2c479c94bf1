"""
Fixtures for commits over several databases.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from tests.commits.layouts import Layout, layout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from stillroom.testing.servers import PostgresServer


@pytest.fixture
def make_layout(pg_server: PostgresServer, mariadb_url: str, tmp_path: Path) -> Iterator[Callable[..., Layout]]:
    """
    Make databases for one test: `make_layout(audit="pymysql", main="psycopg")`.
    """
    with contextlib.ExitStack() as stack:
        yield lambda **names: stack.enter_context(layout(names, pg_server, mariadb_url, tmp_path))
