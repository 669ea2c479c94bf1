"""
Connections that died in the pool, or were left in a bad state, never reach the next user; timeouts are in seconds.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from time import monotonic
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.engine import make_url

from stillroom.classification import Kind, classify
from stillroom.errors import PoolTimeout
from stillroom.status import Status
from stillroom.testing.servers import wait_until
from tests.commits.worlds import (
    ASYNCPG,
    PSYCOPG,
    PSYCOPG_ASYNC,
    PYMYSQL,
    WORLDS,
    Place,
    World,
    column,
    databases,
    execute,
)
from tests.support import servers

if TYPE_CHECKING:
    from collections.abc import Iterator

SQLITE = World("sqlite_database", "pysqlite", is_async=False)
AIOSQLITE = World("sqlite_database", "aiosqlite", is_async=True)


class Server:
    """
    A database with a table `item` that holds the row 1.
    """

    def __init__(self, world: World, url: str) -> None:
        self.world = world
        self.url = url
        execute(url, "CREATE TABLE item (id INTEGER PRIMARY KEY)", "INSERT INTO item VALUES (1)")

    def open(self, **settings: Any) -> Place:
        """
        Declare the database; `settings` are added.
        """
        settings = {"url": self.world.url(self.url), **settings}
        return Place(databases({"main": settings}), is_async=self.world.is_async)

    @property
    def is_postgresql(self) -> bool:
        return self.world.fixture.startswith("postgresql")

    def kill_connections(self) -> None:
        """
        Have the server end every connection to the database but the one that says so.
        """
        if self.is_postgresql:
            everyone = "datname = current_database() AND pid <> pg_backend_pid()"
            execute(self.url, f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE {everyone}")
            return
        everyone = "WHERE db = DATABASE() AND id <> CONNECTION_ID()"
        for pid in column(self.url, f"SELECT id FROM information_schema.processlist {everyone}"):
            execute(self.url, f"KILL {pid}")
        query = f"SELECT count(*) FROM information_schema.processlist {everyone}"
        wait_until(lambda: column(self.url, query) == [0], "the killed connections are gone")


@pytest.fixture(params=WORLDS, ids=str)
def server(request: pytest.FixtureRequest) -> Server:
    return Server(request.param, request.getfixturevalue(request.param.fixture))


@pytest.fixture(params=[*WORLDS, SQLITE, AIOSQLITE], ids=str)
def any_server(request: pytest.FixtureRequest) -> Server:
    return Server(request.param, request.getfixturevalue(request.param.fixture))


def insert(number: int) -> Any:
    return lambda session: session().execute(text("INSERT INTO item VALUES (:id)"), {"id": number})


def read(session: Any) -> Any:
    return session(role="reader").execute(text("SELECT id FROM item ORDER BY id")).scalars().all()


def test_connections_that_the_server_killed_are_replaced_before_anyone_notices(server: Server) -> None:
    with server.open() as place:
        assert (place.unit(insert(2)).error, place.unit(read).error) == (None, None)
        server.kill_connections()
        assert place.unit(insert(3)).error is None
        assert place.unit(read).seen == [1, 2, 3]


@pytest.mark.parametrize("world", [PSYCOPG, PSYCOPG_ASYNC, ASYNCPG], ids=str)
def test_a_restart_of_the_server_is_not_noticed(world: World, pg_server: Any) -> None:
    with servers.postgresql_database(pg_server.url) as url:
        server = Server(world, url)
        with server.open() as place:
            assert (place.unit(insert(2)).error, place.unit(read).error) == (None, None)
            pg_server.restart()
            assert place.unit(insert(3)).error is None
            assert place.unit(read).seen == [1, 2, 3]


def test_a_transaction_left_open_by_a_raw_user_never_reaches_the_next(any_server: Server) -> None:
    if any_server.world.is_async:
        pytest.skip("the raw connection of asyncio is the same pool with the same guard")
    with any_server.open() as place:
        connection = place.dbs["main"].engine.raw_connection()
        cursor = connection.cursor()
        cursor.execute("BEGIN")
        cursor.execute("INSERT INTO item VALUES (50)")
        cursor.close()
        connection.close()
        assert place.unit(insert(2)).error is None
    assert column(any_server.url, "SELECT id FROM item ORDER BY id") == [1, 2]


def test_a_listener_that_raises_at_commit_poisons_nobody(any_server: Server) -> None:
    with any_server.open() as place:
        main = place.dbs["main"]
        engine = main.async_engine.sync_engine if any_server.world.is_async else main.engine

        def refuse(connection: Any) -> None:
            raise ValueError("a listener of the user")

        event.listen(engine, "commit", refuse)
        ended = place.unit(insert(50))
        event.remove(engine, "commit", refuse)
        assert isinstance(ended.error, ValueError)
        assert ended.status is Status.ROLLED_BACK
        assert place.unit(insert(2)).error is None
    assert column(any_server.url, "SELECT id FROM item ORDER BY id") == [1, 2]


SLOW = {
    "postgresql": "SELECT pg_sleep(20)",
    "mysql": "SELECT sleep(20) FROM item",
    "sqlite": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1e9) SELECT max(i) FROM n",
}


def slow(server: Server) -> str:
    return SLOW[make_url(server.url).get_backend_name()]


@pytest.mark.parametrize("role", ["writer", "reader"])
def test_statement_timeout_ends_a_long_statement(any_server: Server, role: str) -> None:
    with any_server.open(statement_timeout=0.3) as place:
        start = monotonic()
        ended = place.unit(lambda session: session(role=role).execute(text(slow(any_server))).all())
        took = monotonic() - start
        assert ended.error is not None
        assert classify(ended.error) is Kind.STATEMENT_TIMEOUT
        assert 0.25 < took < 5
        assert place.unit(read).seen == [1]


def test_lock_timeout_ends_the_wait_for_a_row(any_server: Server) -> None:
    with contextlib.ExitStack() as stack:
        other = stack.enter_context(any_server.open(lock_timeout=5))
        place = stack.enter_context(any_server.open(lock_timeout=1))
        waited: list[float] = []

        def meanwhile(session: Any) -> None:
            session().execute(text("UPDATE item SET id = 1"))
            thread = threading.Thread(target=wait)
            thread.start()
            thread.join(20)

        def wait() -> None:
            start = monotonic()
            ended = place.unit(lambda session: session().execute(text("UPDATE item SET id = 1")))
            waited.append(monotonic() - start)
            assert ended.error is not None
            kinds.append(classify(ended.error))

        kinds: list[Any] = []
        assert other.unit(meanwhile).error is None
    assert kinds == [Kind.LOCK_TIMEOUT]
    assert 0.8 < waited[0] < 4


def test_idle_transaction_timeout_lets_the_server_end_a_forgotten_transaction(server: Server) -> None:
    seconds = 0.3 if server.is_postgresql else 1.0  # MariaDB counts whole seconds

    def body(session: Any) -> None:
        insert(2)(session)
        wait_until(lambda: holders(server) == 0, "the server has ended the transaction")
        session().execute(text("SELECT 1"))

    with server.open(idle_transaction_timeout=seconds) as place:
        ended = place.unit(body)
        assert ended.error is not None
        assert classify(ended.error) is Kind.DISCONNECTED
        assert ended.status is Status.ROLLED_BACK
        assert place.unit(insert(3)).error is None
    assert column(server.url, "SELECT id FROM item ORDER BY id") == [1, 3]


def holders(server: Server) -> int:
    if server.is_postgresql:
        query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    else:
        query = "SELECT count(*) FROM information_schema.processlist WHERE db = DATABASE() AND id <> CONNECTION_ID()"
    return int(column(server.url, query)[0])


@pytest.fixture
def silent_port() -> Iterator[int]:
    """
    A port where connections are accepted by the kernel and nobody ever says a word.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.mark.parametrize("world", WORLDS, ids=str)
def test_connect_timeout_ends_the_wait_for_a_server_that_is_silent(world: World, silent_port: int) -> None:
    backend = "postgresql" if world.fixture.startswith("postgresql") else "mysql"
    url = world.url(f"{backend}://nobody@127.0.0.1:{silent_port}/nothing")
    with Place(databases({"main": {"url": url, "connect_timeout": 2}}), is_async=world.is_async) as place:
        start = monotonic()
        ended = place.unit(read)
        took = monotonic() - start
    assert ended.error is not None
    assert 1 < took < 8


def test_pool_timeout_is_in_seconds_and_says_who_holds_the_connections(any_server: Server) -> None:
    if any_server.world.is_async:
        pytest.skip("the queue of asyncio has tests of its own")
    with any_server.open(pool_size=1, max_overflow=0, pool_timeout=0.3) as place:
        with place.dbs["main"].engine.connect():
            start = monotonic()
            ended = place.unit(insert(2))
            took = monotonic() - start
        assert isinstance(ended.error, PoolTimeout)
        assert 0.25 < took < 3
        assert ended.error.holders


def select(role: str, what: str) -> Any:
    return lambda session: session(role=role).execute(text(f"SELECT {what}")).one()


SHOWN = {
    "statement_timeout": ("current_setting('statement_timeout')", "1500ms"),
    "lock_timeout": ("current_setting('lock_timeout')", "2500ms"),
    "idle_transaction_timeout": ("current_setting('idle_in_transaction_session_timeout')", "3500ms"),
}


@pytest.mark.parametrize("world", [PSYCOPG, PSYCOPG_ASYNC, ASYNCPG], ids=str)
@pytest.mark.parametrize("pooler", [False, True])
def test_postgresql_itself_shows_the_timeouts(world: World, pooler: bool, postgresql_database: str) -> None:
    server = Server(world, postgresql_database)
    settings = {"statement_timeout": 1.5, "lock_timeout": 2.5, "idle_transaction_timeout": 3.5, "pooler": pooler}
    shown = ", ".join(expression for expression, _ in SHOWN.values())
    with server.open(**settings) as place:
        for role in ("writer", "reader"):
            ended = place.unit(select(role, shown))
            assert ended.error is None
            assert list(ended.seen) == [value for _, value in SHOWN.values()]


def test_mariadb_itself_shows_the_timeouts(mariadb_database: str) -> None:
    server = Server(PYMYSQL, mariadb_database)
    shown = "@@max_statement_time, @@innodb_lock_wait_timeout, @@idle_transaction_timeout"
    with server.open(statement_timeout=1.5, lock_timeout=2, idle_transaction_timeout=3) as place:
        for role in ("writer", "reader"):
            ended = place.unit(select(role, shown))
            assert [float(value) for value in ended.seen] == [1.5, 2, 3]
