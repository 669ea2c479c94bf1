"""
Throwaway MariaDB servers: they start, stop, crash and recover, and leave nothing behind.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import psutil
import pymysql
import pytest
from sqlalchemy.engine import make_url

from stillroom.testing.errors import ServerUnavailable, TestingError
from stillroom.testing.servers import mariadb as module
from stillroom.testing.servers import mariadb_server as run_server
from stillroom.testing.servers import processes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pymysql.connections import Connection
    from pymysql.cursors import Cursor

    from stillroom.testing.servers import MariaDBServer


def connect(url: str) -> Connection[Cursor]:
    parsed = make_url(url)
    return pymysql.connect(
        host=parsed.host or "", port=parsed.port or 0, user=parsed.username or "", database=parsed.database or None
    )


@pytest.fixture
def database(mariadb_server: MariaDBServer) -> Iterator[str]:
    with mariadb_server.database() as url:
        yield url.rpartition("/")[2]


def test_the_administrator_comes_in_by_url_without_a_password(mariadb_server: MariaDBServer) -> None:
    connection = connect(mariadb_server.url)
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT current_user(), @@port, @@character_set_server")
        assert cursor.fetchone() == ("root@127.0.0.1", mariadb_server.port, "utf8mb4")


def test_a_server_executes_sql_without_a_driver(mariadb_server: MariaDBServer) -> None:
    assert mariadb_server.sql("SELECT 1, 'a b'", "SELECT 2 UNION SELECT 3") == "1\ta b\n2\n3"


def test_a_remark_ends_with_its_statement(mariadb_server: MariaDBServer) -> None:
    assert mariadb_server.sql("SELECT 1 -- one", "SELECT 2;", "SELECT 3") == "1\n2\n3"


def test_sql_that_the_server_refuses_is_an_error_with_its_answer(mariadb_server: MariaDBServer) -> None:
    with pytest.raises(TestingError, match="Unknown database 'nowhere'"):
        mariadb_server.sql("SELECT 1", database="nowhere")


def test_a_database_goes_although_it_is_locked(mariadb_server: MariaDBServer) -> None:
    for _ in range(2):
        with mariadb_server.database("shop`s 'test'") as url:
            mariadb_server.sql("CREATE TABLE t (n int)", database="shop`s 'test'")
            connection = connect(mariadb_server.url)
            connection.select_db("shop`s 'test'")
            connection.cursor().execute("SELECT * FROM t")
            assert url == mariadb_server.database_url("shop`s 'test'")
        with pytest.raises(pymysql.err.Error):
            connection.ping(reconnect=False)
    assert "shop" not in mariadb_server.sql("SHOW DATABASES")


def test_a_killed_server_comes_back_with_what_was_committed(mariadb_server: MariaDBServer, database: str) -> None:
    mariadb_server.sql("CREATE TABLE kept (n int)", "INSERT INTO kept VALUES (1)", database=database)
    connection = connect(mariadb_server.database_url(database))
    connection.cursor().execute("INSERT INTO kept VALUES (2)")
    mariadb_server.kill()
    assert mariadb_server.pid is None
    with pytest.raises(pymysql.err.OperationalError):
        connection.commit()
    with pytest.raises(pymysql.err.OperationalError):
        connect(mariadb_server.url)
    mariadb_server.start()
    assert mariadb_server.sql("SELECT n FROM kept", database=database) == "1"


def test_a_server_restarts_on_its_port(mariadb_server: MariaDBServer) -> None:
    url, pid = mariadb_server.url, mariadb_server.pid
    mariadb_server.restart()
    assert mariadb_server.url == url
    assert mariadb_server.pid not in (None, pid)
    assert mariadb_server.sql("SELECT 1") == "1"


def test_a_server_stops_as_soon_as_it_runs(mariadb_server: MariaDBServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "PATIENCE", 15.0)
    for _ in range(5):
        mariadb_server.restart()
    mariadb_server.stop()
    assert mariadb_server.pid is None


def test_a_server_that_cannot_start_says_what_its_log_says(mariadb_server: MariaDBServer) -> None:
    mariadb_server.stop()
    mariadb_server.settings["no-such-setting"] = "1"
    try:
        with pytest.raises(TestingError, match=r"(?s)ended with status .*unknown variable 'no-such-"):
            mariadb_server.start()
    finally:
        del mariadb_server.settings["no-such-setting"]


def test_a_server_whose_port_another_program_has_is_not_taken_for_that(mariadb_server: MariaDBServer) -> None:
    mariadb_server.stop()
    with (
        socket.create_server(("127.0.0.1", mariadb_server.port)),
        pytest.raises(TestingError, match="ended with status 1 instead of accepting connections"),
    ):
        mariadb_server.start()


def test_a_server_takes_settings_and_leaves_neither_process_nor_directory() -> None:
    try:
        with run_server({"max-connections": "17"}) as server:
            assert server.sql("SELECT @@max_connections") == "17"
            assert repr(server).endswith(": runs>")
            pid = server.pid
    except ServerUnavailable as error:
        pytest.skip(str(error))
    assert pid is not None
    assert not psutil.pid_exists(pid)
    assert not server.directory.parent.exists()


def test_where_there_is_no_mariadb_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "INSTALLED", ())
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ServerUnavailable, match="found no program mariadbd; install one"), run_server():
        pytest.fail("there is no server")


def test_without_a_client_a_server_is_asked_with_a_driver(
    mariadb_server: MariaDBServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = mariadb_server.programs
    monkeypatch.setattr(mariadb_server, "programs", module.Programs(programs.server, programs.installer, None))
    with pytest.raises(ServerUnavailable, match="install mariadb-client, or use a driver"):
        mariadb_server.sql("SELECT 1")
