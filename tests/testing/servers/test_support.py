"""
The servers and databases that Stillroom's own tests find.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pymysql
import pytest
from sqlalchemy.engine import make_url

from stillroom.testing.servers import ServerUnavailable, free_port
from tests.support import servers

if TYPE_CHECKING:
    from collections.abc import Callable


PLAIN = [f"-pno:{plugin}" for plugin in ("cacheprovider", "xdist", "asyncio", "randomly")]


def value(url: str, query: str) -> object:
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute(query.encode()).fetchone()
    assert row is not None
    return row[0]


def test_each_test_gets_an_empty_database(any_database: str) -> None:
    assert "+" not in make_url(any_database).drivername
    if not any_database.startswith("sqlite"):
        assert servers.open_connections(any_database) == 0


def test_a_postgresql_database_is_dropped_although_it_is_in_use(postgresql_url: str) -> None:
    with servers.postgresql_database(postgresql_url) as url:
        connection = psycopg.connect(url)
        connection.execute("CREATE TABLE t (n int)")
        assert servers.open_connections(url) == 1
    connection.close()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(url)


def test_a_mariadb_database_is_dropped_although_it_is_locked(mariadb_url: str) -> None:
    with servers.mariadb_database(mariadb_url) as url:
        parsed = make_url(url)
        connection = pymysql.connect(
            host=parsed.host or "", port=parsed.port or 3306, user="root", database=parsed.database
        )
        with connection.cursor() as cursor:
            cursor.execute("CREATE TABLE t (n int)")
            cursor.execute("SELECT * FROM t")
        assert servers.open_connections(url) == 1
    with pytest.raises(pymysql.err.Error):
        connection.ping(reconnect=False)
    with pytest.raises(pymysql.err.OperationalError):
        servers.mariadb_execute(url, "SELECT 1")


def test_where_no_postgresql_answers_a_throwaway_one_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    at_exit: list[Callable[[], object]] = []
    monkeypatch.delenv("STILLROOM_TEST_POSTGRESQL_URL", raising=False)
    monkeypatch.setattr(servers, "reachable", lambda *_: False)
    monkeypatch.setattr("atexit.register", at_exit.append)
    url = servers.postgresql_url.__wrapped__()
    try:
        assert value(url, "SELECT 1") == 1
    finally:
        for callback in at_exit:
            callback()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(url)


def test_a_url_where_nothing_answers_is_unavailable_and_keeps_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STILLROOM_TEST_MARIADB_URL", f"mysql://ada:secret@127.0.0.1:{free_port()}/")
    with pytest.raises(ServerUnavailable, match="nothing answers") as caught:
        servers.mariadb_url()
    assert "secret" not in str(caught.value)


LEAKING = """
import psycopg
import pytest

connections = []

def test_leaks(postgresql_database):
    connections.append(psycopg.connect(postgresql_database))

@pytest.mark.leaves_connections("to see that it is allowed")
def test_says_so(postgresql_database):
    connections.append(psycopg.connect(postgresql_database))

def test_closes(postgresql_database):
    psycopg.connect(postgresql_database).close()

def teardown_module():
    for connection in connections:
        connection.close()
"""


def test_a_test_that_leaves_a_connection_open_fails(postgresql_url: str, pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nmarkers = leaves_connections")
    pytester.makeconftest("from tests.conftest import *")
    pytester.makepyfile(LEAKING)
    result = pytester.runpytest_inprocess(*PLAIN)
    result.assert_outcomes(passed=3, errors=1)
    result.stdout.fnmatch_lines(["*left 1 connection(s) open*"])
