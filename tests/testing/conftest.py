"""
Places for test databases, each under a name of its own; what a test left there is removed after it.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import make_url

from stillroom.testing.quoting import backquoted, quoted
from tests.support import servers
from tests.testing.databases.support import mariadb_sessions, names_on

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from stillroom.testing.servers import PostgresServer


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Keep templates of SQLite apart from those of whoever runs the tests.
    """
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@contextlib.contextmanager
def _place(admin_url: str) -> Iterator[str]:
    name = servers.unique_name()
    url = make_url(admin_url).set(database=name).render_as_string(hide_password=False)
    try:
        yield url
    finally:
        for left in names_on(url):
            if url.startswith("postgresql"):
                with contextlib.suppress(Exception):
                    servers.postgresql_execute(admin_url, f"ALTER DATABASE {quoted(left)} IS_TEMPLATE false")
                servers.postgresql_execute(admin_url, f"DROP DATABASE {quoted(left)} WITH (FORCE)")
            else:
                for number in mariadb_sessions(url, left):  # what a test that failed left open would be waited for
                    servers.mariadb_execute(admin_url, f"KILL {number}", missing_thread_is_fine=True)
                servers.mariadb_execute(admin_url, f"DROP DATABASE {backquoted(left)}")


@pytest.fixture
def postgresql_place(pg_server: PostgresServer) -> Iterator[str]:
    """
    The URL of a PostgreSQL database that does not exist, and whose name no other test has.

    On a throwaway server, which waits for no disk: where databases are made and dropped, that is most of the time.
    """
    with _place(pg_server.url) as url:
        yield url


@pytest.fixture
def mariadb_place(mariadb_url: str) -> Iterator[str]:
    """
    The URL of a MariaDB database that does not exist, and whose name no other test has.
    """
    with _place(mariadb_url) as url:
        yield url


@pytest.fixture
def sqlite_place(tmp_path: Path) -> str:
    """
    The URL of an SQLite file that does not exist.
    """
    return f"sqlite:///{tmp_path / 'files' / 'shop_test.db'}"


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def place(request: pytest.FixtureRequest) -> str:
    """
    The URL of a database that does not exist, on each backend in turn.
    """
    return str(request.getfixturevalue(f"{request.param}_place"))
