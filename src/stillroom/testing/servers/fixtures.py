"""The servers as pytest's fixtures; the plugin hands them out under the names of the context managers."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, TypeVar

import pytest

from ..errors import ServerUnavailable
from . import mariadb, pair, pooler, postgresql, proxying
from .pair import PostgresPair
from .processes import ServerProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy.engine import URL

    from .mariadb import MariaDBServer
    from .pooler import PgBouncer
    from .postgresql import PostgresServer
    from .proxying import Proxy

__all__ = [
    "REQUIRE",
    "RESTORED",
    "RESTORER",
    "mariadb_server_fixture",
    "needed",
    "pg_pair_fixture",
    "pg_server_fixture",
    "pgbouncer_fixture",
    "proxy_fixture",
    "required",
    "restored_servers_fixture",
]

T = TypeVar("T")

REQUIRE = "STILLROOM_TEST_REQUIRE"
"""The environment variable that names the servers that have to be there, separated by commas: postgresql, mariadb, …"""

# The fixtures whose servers live for the session, and which a test may change or kill.
RESTORED = frozenset({"pg_server", "pg_pair", "mariadb_server", "pgbouncer"})
RESTORER = "_restored_servers"


def required(server: str) -> bool:
    """
    Say whether the environment demands the server, so that tests without it fail instead of being skipped.
    """
    return server in os.environ.get(REQUIRE, "").replace(" ", "").split(",")


def needed(server: str, find: Callable[[], T]) -> T:
    """
    Return what `find` finds; where that is nothing, skip with its reason, or fail if the server is required.

    Args:
        server: Its name in `STILLROOM_TEST_REQUIRE`.
        find: Raises `ServerUnavailable` where there is no such server.
    """
    try:
        return find()
    except ServerUnavailable as error:
        if required(server):
            pytest.fail(f"{REQUIRE} demands {server}: {error}", pytrace=False)
        pytest.skip(str(error))


@pytest.fixture(scope="session", name="pg_server")
def pg_server_fixture() -> Iterator[PostgresServer]:
    """
    A throwaway PostgreSQL server; it keeps prepared transactions, and runs again after a test that stopped it.
    """
    with contextlib.ExitStack() as stack:
        settings = {"max_prepared_transactions": "20"}
        yield needed("postgresql", lambda: stack.enter_context(postgresql.pg_server(settings)))


@pytest.fixture(scope="session", name="pg_pair")
def pg_pair_fixture() -> Iterator[PostgresPair]:
    """
    A throwaway PostgreSQL primary and its streaming standby; restored after a test that changed them.
    """
    with contextlib.ExitStack() as stack:
        yield needed("postgresql", lambda: stack.enter_context(pair.pg_pair()))


@pytest.fixture(scope="session", name="mariadb_server")
def mariadb_server_fixture() -> Iterator[MariaDBServer]:
    """
    A throwaway MariaDB server; it runs again after a test that stopped it.
    """
    with contextlib.ExitStack() as stack:
        yield needed("mariadb", lambda: stack.enter_context(mariadb.mariadb_server()))


@pytest.fixture(scope="session", name="pgbouncer")
def pgbouncer_fixture(pg_server: PostgresServer) -> Iterator[PgBouncer]:
    """
    A throwaway PgBouncer before `pg_server`, in transaction mode; it runs again after a test that stopped it.
    """
    with contextlib.ExitStack() as stack:
        yield needed("pgbouncer", lambda: stack.enter_context(pooler.pgbouncer(pg_server.url)))


@pytest.fixture(name="proxy")
def proxy_fixture() -> Iterator[Callable[[str | URL], Proxy]]:
    """
    Make proxies before the servers of URLs; they end with the test.
    """
    with contextlib.ExitStack() as stack:
        yield lambda url: stack.enter_context(proxying.proxy(url))


@pytest.fixture(name=RESTORER)
def restored_servers_fixture(request: pytest.FixtureRequest) -> Iterator[None]:
    """
    Restore, after a test, the servers of the session that it asked for; the plugin adds it to such tests.
    """
    used = sorted(RESTORED.intersection(request.fixturenames))
    servers = [request.getfixturevalue(name) for name in used]
    yield
    for server in servers:
        if isinstance(server, ServerProcess | PostgresPair):  # else it is somebody's own fixture of that name
            server.restore()
