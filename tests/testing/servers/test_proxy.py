"""
The proxy that other tests rely on: it counts exactly, and gets in the way exactly where it was told to.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from typing import TYPE_CHECKING, Self

import psycopg
import pymysql
import pytest
from sqlalchemy.engine import make_url

from stillroom.testing.servers import Proxy, free_port, wait_until
from stillroom.testing.servers import proxy as proxy_before

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pymysql.connections import Connection
    from pymysql.cursors import Cursor


@pytest.fixture
def proxy(postgresql_database: str) -> Iterator[Proxy]:
    url = make_url(postgresql_database)
    with Proxy(url.host or "", url.port or 5432) as proxy:
        yield proxy


@pytest.fixture
def through(proxy: Proxy, postgresql_database: str) -> str:
    return proxy.url(postgresql_database)


def numbers(url: str) -> list[int]:
    with psycopg.connect(url) as connection:
        return [row[0] for row in connection.execute("SELECT n FROM t ORDER BY n")]


@pytest.fixture
def table(postgresql_database: str) -> str:
    with psycopg.connect(postgresql_database) as connection:
        connection.execute("CREATE TABLE t (n int)")
    return postgresql_database


@contextlib.contextmanager
def mysql(url: str) -> Iterator[Connection[Cursor]]:
    parsed = make_url(url)
    connection = pymysql.connect(
        host=parsed.host or "", port=parsed.port or 0, user="root", database=parsed.database, connect_timeout=10
    )
    try:
        yield connection
    finally:
        with contextlib.suppress(pymysql.Error):
            connection.close()


class EchoServer:
    """
    Answers every byte with itself, but a full stop only: so a test says exactly what is a question.
    """

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.received = b""
        self.thread = threading.Thread(target=self.run)

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.thread.join(10)
        self.listener.close()
        assert not self.thread.is_alive()

    @property
    def port(self) -> int:
        return int(self.listener.getsockname()[1])

    def run(self) -> None:
        connection, _ = self.listener.accept()
        with connection:
            while data := connection.recv(1000):
                self.received += data
                for _ in range(data.count(b".")):
                    connection.sendall(b"!")


def test_each_statement_in_autocommit_is_one_trip(proxy: Proxy, through: str) -> None:
    with psycopg.connect(through, autocommit=True) as connection:
        for expected in range(1, 6):
            if expected == 1:
                proxy.reset()
            connection.execute("SELECT 1")
            assert proxy.trips == expected


def test_psycopg_begins_with_a_trip_of_its_own(proxy: Proxy, through: str) -> None:
    with psycopg.connect(through) as connection:
        proxy.reset()
        connection.execute("SELECT 1")
        connection.commit()
        assert proxy.trips == 3


def test_a_pipeline_is_one_trip(proxy: Proxy, through: str) -> None:
    with psycopg.connect(through, autocommit=True) as connection:
        proxy.reset()
        with connection.pipeline() as pipeline:
            cursors = [connection.execute("SELECT %s::int", (number,)) for number in range(20)]
            pipeline.sync()
        assert [cursor.fetchone() for cursor in cursors] == [(number,) for number in range(20)]
        assert proxy.trips <= 2  # the pipeline's own end synchronises once more


def test_a_large_answer_is_one_trip(proxy: Proxy, through: str) -> None:
    with psycopg.connect(through, autocommit=True) as connection:
        proxy.reset()
        row = connection.execute("SELECT repeat('x', 3000000)").fetchone()
        assert row is not None
        assert len(row[0]) == 3_000_000
        assert proxy.trips == 1


def test_a_large_question_is_one_trip(proxy: Proxy, through: str) -> None:
    with psycopg.connect(through, autocommit=True) as connection:
        proxy.reset()
        row = connection.execute("SELECT length(%s::text)", ("x" * 3_000_000,)).fetchone()
        assert row == (3_000_000,)
        assert proxy.trips == 1


def test_mariadb_statements_are_one_trip_each(mariadb_database: str) -> None:
    with Proxy(port=3306) as proxy, mysql(proxy.url(mariadb_database)) as connection, connection.cursor() as cursor:
        proxy.reset()
        for expected in range(1, 6):
            cursor.execute("SELECT repeat('x', 200000)")
            assert proxy.trips == expected
        connection.commit()
        assert proxy.trips == 6


def test_segments_that_arrive_before_the_answer_are_one_trip() -> None:
    with Proxy(port=0) as proxy, EchoServer() as server:
        proxy.target = ("127.0.0.1", server.port)
        with socket.create_connection(("127.0.0.1", proxy.port), timeout=10) as client:
            for part in (b"one ", b"question ", b"in pieces."):
                already = len(server.received)
                client.sendall(part)
                wait_until(lambda have=already: len(server.received) > have, "the segment has arrived")  # type: ignore[misc]
            assert client.recv(10) == b"!"
            assert proxy.trips == 1
            client.sendall(b"another.")
            assert client.recv(10) == b"!"
            assert proxy.trips == 2


def test_a_farewell_without_an_answer_is_no_trip(proxy: Proxy, through: str) -> None:
    with psycopg.connect(through, autocommit=True) as connection:
        connection.execute("SELECT 1")
        trips = proxy.trips
    wait_until(lambda: proxy.connections == 0, "the proxy sees the end")
    assert proxy.trips == trips


def test_trips_are_counted_for_each_connection(proxy: Proxy, through: str) -> None:
    with psycopg.connect(through, autocommit=True) as one, psycopg.connect(through, autocommit=True) as other:
        proxy.reset()
        one.execute("SELECT 1")
        other.execute("SELECT 1")
        other.execute("SELECT 1")
        assert sorted(proxy.trips_by_connection) == [1, 2]
        assert proxy.trips == 3
        assert proxy.connections == 2
        assert proxy.accepted == 0


def test_cut_before_commit_leaves_nothing(proxy: Proxy, through: str, table: str) -> None:
    trigger = proxy.on_client(b"commit", "cut_before")
    with psycopg.connect(through) as connection:
        connection.execute("INSERT INTO t VALUES (1)")
        with pytest.raises(psycopg.OperationalError):
            connection.commit()
    assert trigger.fired == 1
    assert numbers(table) == []


def test_cut_after_commit_leaves_the_row(proxy: Proxy, through: str, table: str) -> None:
    proxy.on_client(b"COMMIT", "cut_after")
    with psycopg.connect(through) as connection:
        connection.execute("INSERT INTO t VALUES (1)")
        with pytest.raises(psycopg.OperationalError):
            connection.commit()
    assert numbers(table) == [1]


@pytest.mark.parametrize(("action", "rows"), [("cut_before", 0), ("cut_after", 1)])
def test_commits_are_cut_on_mariadb(mariadb_database: str, action: str, rows: int) -> None:
    with mysql(mariadb_database) as direct, Proxy(port=3306) as proxy:
        direct.cursor().execute("CREATE TABLE t (n int)")
        with mysql(proxy.url(mariadb_database)) as connection:
            connection.cursor().execute("INSERT INTO t VALUES (1)")
            proxy.on_client(b"COMMIT", action)  # type: ignore[arg-type]
            with pytest.raises(pymysql.err.OperationalError):
                connection.commit()
        with direct.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM t")
            assert cursor.fetchone() == (rows,)


def test_a_trigger_fires_as_often_as_it_was_told(proxy: Proxy, through: str, table: str) -> None:
    trigger = proxy.on_client(b"COMMIT", "cut_before", times=2)
    for attempt in range(3):
        with psycopg.connect(through) as connection:
            connection.execute("INSERT INTO t VALUES (%s)", (attempt,))
            with contextlib.suppress(psycopg.OperationalError):
                connection.commit()
    assert (trigger.fired, trigger.left) == (2, 0)
    assert numbers(table) == [2]


def test_a_trigger_that_is_cleared_does_nothing(proxy: Proxy, through: str, table: str) -> None:
    proxy.on_client(b"COMMIT", "cut_before")
    proxy.clear()
    with psycopg.connect(through) as connection:
        connection.execute("INSERT INTO t VALUES (1)")
    assert numbers(table) == [1]


def test_a_pattern_that_arrives_in_pieces_is_found() -> None:
    with EchoServer() as server, Proxy(port=server.port) as proxy:
        trigger = proxy.on_client(b"COMMIT", "cut_before")
        with socket.create_connection(("127.0.0.1", proxy.port), timeout=10) as client:
            client.sendall(b"insert; com")
            wait_until(lambda: server.received.endswith(b"com"), "the first piece has arrived")
            client.sendall(b"mit.")
            assert client.recv(10) == b""
        assert trigger.fired == 1
    assert server.received == b"insert; com"


def test_a_text_of_the_question_before_fires_nothing_later() -> None:
    with EchoServer() as server, Proxy(port=server.port) as proxy:
        with socket.create_connection(("127.0.0.1", proxy.port), timeout=10) as client:
            client.sendall(b"commit.")
            assert client.recv(10) == b"!"
            trigger = proxy.on_client(b"commit", "cut_before")
            client.sendall(b"select.")
            assert client.recv(10) == b"!"
            client.shutdown(socket.SHUT_WR)
            assert client.recv(10) == b""
        assert trigger.fired == 0


def test_a_black_hole_swallows_the_commit_and_stays_silent(proxy: Proxy, through: str, table: str) -> None:
    trigger = proxy.on_client(b"COMMIT", "black_hole")
    outcome: list[BaseException] = []

    def work() -> None:
        with psycopg.connect(through) as connection:
            connection.execute("INSERT INTO t VALUES (1)")
            try:
                connection.commit()
            except psycopg.Error as error:
                outcome.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    trigger.wait()
    thread.join(0.2)
    assert thread.is_alive()
    assert proxy.connections == 1
    proxy.cut()
    thread.join(10)
    assert isinstance(outcome[0], psycopg.OperationalError)
    assert numbers(table) == []


def test_a_black_hole_after_the_commit_keeps_the_row_and_stays_silent(proxy: Proxy, through: str, table: str) -> None:
    proxy.on_client(b"COMMIT", "black_hole_after")
    connection = psycopg.connect(through)
    connection.execute("INSERT INTO t VALUES (1)")
    thread = threading.Thread(target=try_commit, args=(connection,))
    thread.start()
    wait_until(lambda: numbers(table) == [1], "the row is committed")
    thread.join(0.2)
    assert thread.is_alive()
    proxy.cut()
    thread.join(10)
    connection.close()


def try_commit(connection: psycopg.Connection[tuple[object, ...]]) -> None:
    with contextlib.suppress(psycopg.OperationalError):
        connection.commit()


def test_a_commit_is_held_until_released(proxy: Proxy, through: str, table: str) -> None:
    trigger = proxy.on_client(b"COMMIT", "hold")
    with psycopg.connect(through) as connection:
        connection.execute("INSERT INTO t VALUES (1)")
        thread = threading.Thread(target=connection.commit)
        thread.start()
        trigger.wait()
        assert numbers(table) == []
        proxy.release()
        thread.join(10)
        assert numbers(table) == [1]


def test_cut_ends_every_connection_and_new_ones_work(proxy: Proxy, through: str) -> None:
    with psycopg.connect(through) as one, psycopg.connect(through) as other:
        proxy.cut()
        assert proxy.connections == 0
        for connection in (one, other):
            with pytest.raises(psycopg.OperationalError):
                connection.execute("SELECT 1")
    with psycopg.connect(through) as connection:
        connection.execute("SELECT 1")


def test_a_refusing_proxy_lets_nobody_in(proxy: Proxy, through: str) -> None:
    proxy.refusing = True
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(through)
    proxy.refusing = False
    psycopg.connect(through).close()


def test_a_server_that_is_not_there_closes_the_connection() -> None:
    with Proxy(port=1) as proxy, socket.create_connection(("127.0.0.1", proxy.port), timeout=10) as client:
        assert client.recv(10) == b""


def test_a_black_hole_answers_nobody_and_lets_everybody_wait(proxy: Proxy, through: str) -> None:
    with psycopg.connect(through, autocommit=True) as connection:
        proxy.black_hole()
        ended: list[BaseException] = []
        thread = threading.Thread(target=fails, args=(lambda: connection.execute("SELECT 1"), ended))
        thread.start()
        with pytest.raises(psycopg.errors.ConnectionTimeout):
            psycopg.connect(through, connect_timeout=2)  # seconds; less is not allowed
        assert thread.is_alive()
        proxy.restore()
        thread.join(10)
        assert isinstance(ended[0], psycopg.OperationalError)
    with psycopg.connect(through) as connection:
        connection.execute("SELECT 1")


def fails(work: Callable[[], object], ended: list[BaseException]) -> None:
    try:
        work()
    except psycopg.Error as error:
        ended.append(error)


def test_a_black_hole_hides_that_there_is_no_server() -> None:
    with Proxy(port=free_port()) as proxy:
        proxy.black_hole()
        with socket.create_connection(("127.0.0.1", proxy.port), timeout=0.2) as client:
            client.sendall(b"hello")
            with pytest.raises(TimeoutError):
                client.recv(10)


def test_restore_takes_back_everything_and_keeps_whole_connections(proxy: Proxy, through: str) -> None:
    with psycopg.connect(through, autocommit=True) as connection:
        proxy.delay = 60.0
        proxy.refusing = True
        trigger = proxy.on_client(b"SELECT", "cut_before")
        proxy.pause()
        proxy.restore()
        connection.execute("SELECT 1")
        psycopg.connect(through).close()
        assert trigger.fired == 0
        assert proxy.delay == 0


def test_a_redirected_proxy_leads_new_connections_elsewhere() -> None:
    with EchoServer() as one, EchoServer() as other:
        with Proxy(port=one.port) as proxy, socket.create_connection(("127.0.0.1", proxy.port), timeout=10) as first:
            first.sendall(b"one.")
            assert first.recv(10) == b"!"
            proxy.redirect(f"postgresql://127.0.0.1:{other.port}/x")
            with socket.create_connection(("127.0.0.1", proxy.port), timeout=10) as second:
                second.sendall(b"other.")
                assert second.recv(10) == b"!"
                first.sendall(b"more.")
                assert first.recv(10) == b"!"
    assert (one.received, other.received) == (b"one.more.", b"other.")


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("postgresql+asyncpg://ada@db.example/shop", ("db.example", 5432)),
        ("mysql+pymysql://ada@db.example/shop", ("db.example", 3306)),
        ("mariadb://db.example:3307/shop", ("db.example", 3307)),
        ("postgresql:///shop", ("127.0.0.1", 5432)),
    ],
)
def test_a_proxy_before_a_url_finds_its_server(url: str, target: tuple[str, int]) -> None:
    with proxy_before(url, delay=1.5) as proxy:
        assert (proxy.target, proxy.delay) == (target, 1.5)


def test_a_url_whose_port_is_unknown_is_refused() -> None:
    with pytest.raises(ValueError, match="has no port"), proxy_before("oracle://db.example/shop"):
        pytest.fail("there is no proxy")


def test_a_pause_holds_everything_until_resume(proxy: Proxy, through: str) -> None:
    with psycopg.connect(through, autocommit=True) as connection:
        proxy.pause()
        thread = threading.Thread(target=lambda: connection.execute("SELECT 1"))
        thread.start()
        thread.join(0.2)
        assert thread.is_alive()
        proxy.resume()
        thread.join(10)
        assert not thread.is_alive()


def test_a_delay_is_spent_in_both_directions(proxy: Proxy, through: str) -> None:
    with psycopg.connect(through, autocommit=True) as connection:
        proxy.delay = 0.1
        began = time.monotonic()
        connection.execute("SELECT 1")
        assert 0.2 <= time.monotonic() - began < 2.0


def test_a_delay_does_not_add_up_over_the_segments_of_an_answer(proxy: Proxy, through: str) -> None:
    with psycopg.connect(through, autocommit=True) as connection:
        proxy.delay = 0.2
        proxy.reset()
        began = time.monotonic()
        connection.execute("SELECT repeat('x', 2000000)")  # at least 30 segments
        assert time.monotonic() - began < 3.0
        assert proxy.trips == 1


def test_a_url_keeps_its_type_and_everything_but_the_address(proxy: Proxy) -> None:
    url = "postgresql+psycopg://ada:secret@db.example:6543/shop?application_name=x"
    expected = f"postgresql+psycopg://ada:secret@127.0.0.1:{proxy.port}/shop?application_name=x"
    assert proxy.url(url) == expected
    assert proxy.url(make_url(url)) == make_url(expected)


def test_no_thread_is_left(postgresql_database: str) -> None:
    before = threading.active_count()
    for _ in range(5):
        with Proxy() as proxy:
            connection = psycopg.connect(proxy.url(postgresql_database))
        connection.close()
    assert threading.active_count() == before


def test_a_proxy_that_has_ended_says_so() -> None:
    with Proxy() as proxy:
        pass
    with pytest.raises(RuntimeError, match="not running"):
        proxy.cut()
