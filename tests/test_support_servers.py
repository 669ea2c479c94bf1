"""
The servers and databases that other tests rely on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pymysql
import pytest
from sqlalchemy.engine import make_url

from tests import conftest
from tests.support import servers
from tests.support.servers import PostgresPair, PostgresServer

if TYPE_CHECKING:
    from collections.abc import Callable


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


def test_the_two_phase_server_keeps_a_prepared_transaction_when_it_is_killed(
    postgresql_two_phase: PostgresServer,
) -> None:
    server = postgresql_two_phase
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute("CREATE TABLE kept (n int)")
        connection.execute("BEGIN")
        connection.execute("INSERT INTO kept VALUES (1)")
        connection.execute("PREPARE TRANSACTION 'half-way'")
    server.kill()
    assert server.pid is None
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(server.url)
    server.start()
    assert value(server.url, "SELECT count(*) FROM kept") == 0
    servers.postgresql_execute(server.url, "COMMIT PREPARED 'half-way'")
    assert value(server.url, "SELECT count(*) FROM kept") == 1
    servers.postgresql_execute(server.url, "DROP TABLE kept")


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_throwaway_server_restarts_on_its_port(postgresql_two_phase: PostgresServer, mode: servers.Mode) -> None:
    url, pid = postgresql_two_phase.url, postgresql_two_phase.pid
    postgresql_two_phase.restart(mode)
    assert (postgresql_two_phase.url, postgresql_two_phase.pid is not None) == (url, True)
    assert postgresql_two_phase.pid != pid
    assert value(url, "SELECT 1") == 1


def test_a_server_that_cannot_start_says_what_its_log_says(postgresql_two_phase: PostgresServer) -> None:
    other = PostgresServer(
        postgresql_two_phase.binaries,
        postgresql_two_phase.directory,
        postgresql_two_phase.user,
        {"no_such_setting": "1"},
    )
    postgresql_two_phase.stop()
    try:
        with pytest.raises(RuntimeError, match="no_such_setting"):
            other.start()
    finally:
        postgresql_two_phase.start()


def test_the_standby_shows_what_the_primary_committed_and_refuses_writes(postgresql_pair: PostgresPair) -> None:
    servers.postgresql_execute(postgresql_pair.primary_url, "CREATE TABLE seen (n int)", "INSERT INTO seen VALUES (7)")
    postgresql_pair.wait_for_replay()
    assert value(postgresql_pair.standby_url, "SELECT n FROM seen") == 7
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        servers.postgresql_execute(postgresql_pair.standby_url, "INSERT INTO seen VALUES (8)")
    servers.postgresql_execute(postgresql_pair.primary_url, "DROP TABLE seen")


def test_a_throwaway_server_leaves_neither_process_nor_directory() -> None:
    with servers.postgresql_server() as server:
        pid = server.pid
    assert pid is not None
    assert not servers.alive(pid)
    assert not server.directory.parent.exists()


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


def nothing() -> str:
    raise servers.Unavailable("nobody is at home")


def test_a_server_that_is_missing_is_a_skip_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STILLROOM_TEST_REQUIRE", "redis")
    with pytest.raises(pytest.skip.Exception, match="nobody is at home"):
        conftest.needed("mariadb", nothing)


def test_a_server_that_is_required_and_missing_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STILLROOM_TEST_REQUIRE", "redis, mariadb")
    with pytest.raises(pytest.fail.Exception, match="demands mariadb: nobody is at home"):
        conftest.needed("mariadb", nothing)


def test_a_url_where_nothing_answers_is_unavailable_and_keeps_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STILLROOM_TEST_MARIADB_URL", f"mysql://ada:secret@127.0.0.1:{servers.free_port()}/")
    with pytest.raises(servers.Unavailable, match="nothing answers") as caught:
        servers.mariadb_url()
    assert "secret" not in str(caught.value)


def test_waiting_in_vain_ends() -> None:
    with pytest.raises(TimeoutError, match="until the cows come home"):
        servers.wait_until(lambda: False, "the cows come home", timeout=0.05)


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
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:asyncio")
    result.assert_outcomes(passed=3, errors=1)
    result.stdout.fnmatch_lines(["*left 1 connection(s) open*"])
