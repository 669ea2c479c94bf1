"""
PgBouncer before a server, and Stillroom behind it: nothing of one session reaches another.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Literal

import psycopg
import pytest
from sqlalchemy import Column, CursorResult, Integer, MetaData, Table, insert, select, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError

from stillroom import Databases, migrations
from stillroom.errors import ReadOnlyError
from stillroom.migrations import MigrationsFailed
from stillroom.testing.errors import ServerUnavailable, TestingError
from stillroom.testing.servers import PgBouncer, pooler
from stillroom.testing.servers import pgbouncer as run_pooler

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy import Executable, Result

    from stillroom.testing.servers import PostgresServer

numbers = Table("numbers", MetaData(), Column("n", Integer, primary_key=True))


@pytest.fixture
def database(pg_server: PostgresServer) -> Iterator[str]:
    with pg_server.database() as url:
        pg_server.sql("CREATE TABLE numbers (n int PRIMARY KEY)", database=url.rpartition("/")[2])
        yield url


@pytest.fixture
def narrow(pgbouncer: PgBouncer, pg_server: PostgresServer) -> Iterator[PgBouncer]:
    """
    A pooler with one server connection, so that everything that leaks is met.
    """
    with run_pooler(pg_server.url, {"default_pool_size": "1"}) as made:
        yield made


def test_clients_share_one_connection_a_transaction_each(narrow: PgBouncer, database: str) -> None:
    url = narrow.url(database)
    with psycopg.connect(url, autocommit=True) as one, psycopg.connect(url, autocommit=True) as other:
        query = "SELECT pg_backend_pid()"
        assert one.execute(query).fetchone() == other.execute(query).fetchone()
        one.execute("SET lock_timeout = 4711")
        assert other.execute("SHOW lock_timeout").fetchone() == ("4711ms",)


def test_a_pooler_stops_dies_and_comes_back_on_its_port(pgbouncer: PgBouncer, database: str) -> None:
    url = pgbouncer.url(database)
    for end in (pgbouncer.stop, pgbouncer.kill):
        end()
        assert pgbouncer.pid is None
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(url)
        pgbouncer.start()
        psycopg.connect(url).close()


def test_a_url_keeps_its_type_and_everything_but_the_address(pgbouncer: PgBouncer) -> None:
    url = "postgresql+psycopg://ada:secret@db.example:6543/shop?application_name=x"
    expected = f"postgresql+psycopg://ada:secret@127.0.0.1:{pgbouncer.port}/shop?application_name=x"
    assert pgbouncer.url(url) == expected
    assert pgbouncer.url(make_url(url)) == make_url(expected)


def test_the_password_reaches_the_server_and_no_repr(pg_server: PostgresServer, pgbouncer: PgBouncer) -> None:
    pg_server.sql("""CREATE ROLE "a""da" LOGIN PASSWORD 'se"cret'""")
    hba = pg_server.directory / "pg_hba.conf"
    trusting = hba.read_text()
    hba.write_text('host all "a""da" 127.0.0.1/32 scram-sha-256\n' + trusting)
    url = make_url(pg_server.url).set(username='a"da', password='se"cret')
    try:
        pg_server.restart()
        with run_pooler(url) as pooler:
            with psycopg.connect(host="127.0.0.1", port=pooler.port, user='a"da', dbname="postgres") as connection:
                assert connection.execute("SELECT current_user").fetchone() == ('a"da',)
            assert "cret" not in repr(pooler)
    finally:
        hba.write_text(trusting)
        pg_server.restart()
        pg_server.sql("""DROP ROLE "a""da" """)


def test_a_pooler_that_cannot_start_says_what_its_log_says(pgbouncer: PgBouncer) -> None:
    with pytest.raises(TestingError, match=r"(?s)ended with status .*no_such_mode"):
        with run_pooler(pgbouncer.server, {"pool_mode": "no_such_mode"}):
            pytest.fail("there is no pooler")


def test_where_there_is_no_pgbouncer_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pooler, "INSTALLED", ())
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ServerUnavailable, match="apt-get install pgbouncer"), run_pooler("postgresql://127.0.0.1/x"):
        pytest.fail("there is no pooler")


# --- Stillroom behind it

Role = Literal["writer", "reader"]


class Application:
    """
    An application behind the pooler, sync or async.
    """

    def __init__(self, dbs: Databases, *, is_async: bool) -> None:
        self.dbs = dbs
        self.is_async = is_async
        self.loop = asyncio.new_event_loop()

    def close(self) -> None:
        """
        Close its connections.
        """
        self.loop.run_until_complete(self.dbs.aclose())
        self.loop.close()

    def unit(self, role: Role, *statements: Executable) -> list[Any]:
        """
        Execute statements in a unit of work, and return the first column of the last one's rows.
        """
        if self.is_async:
            return self.loop.run_until_complete(self.async_unit(role, *statements))
        with self.dbs.unit_of_work() as uow:
            return column([uow.session("main", role=role).execute(statement) for statement in statements])

    async def async_unit(self, role: Role, *statements: Executable) -> list[Any]:
        """
        Same as `unit`, in the event loop.
        """
        async with self.dbs.async_unit_of_work() as uow:
            return column([await uow.session("main", role=role).execute(statement) for statement in statements])


def column(results: list[Result[Any]]) -> list[Any]:
    last = results[-1]
    return list(last.scalars()) if not isinstance(last, CursorResult) or last.returns_rows else []


ALL = select(numbers.c.n).order_by(numbers.c.n)


@pytest.fixture(params=["psycopg-sync", "psycopg-async", "asyncpg-async"])
def application(narrow: PgBouncer, database: str, request: pytest.FixtureRequest) -> Iterator[Application]:
    driver, _, world = request.param.partition("-")
    url = narrow.url(database).replace("postgresql:", f"postgresql+{driver}:")
    settings = {"url": url, "pooler": True, "migration_url": database, "lock_timeout": 2.0}
    application = Application(Databases({"databases": {"main": settings}}), is_async=world == "async")
    yield application
    application.close()


def test_units_write_and_read_through_one_shared_connection(application: Application) -> None:
    application.unit("writer", insert(numbers).values([{"n": 1}, {"n": 2}]))
    # More often than it takes a driver to prepare a statement, which lives in a session that others have next.
    for _ in range(12):
        assert application.unit("reader", ALL) == [1, 2]
        assert application.unit("writer", ALL) == [1, 2]


def test_a_reader_is_refused_writes_and_leaves_the_next_writer_alone(application: Application) -> None:
    for _ in range(2):
        with pytest.raises(DBAPIError, match="read-only transaction") as caught:
            application.unit("reader", text("/* a reader's */ INSERT INTO numbers VALUES (0)"))
        assert isinstance(caught.value, ReadOnlyError)
    application.unit("writer", insert(numbers).values(n=1))
    assert application.unit("reader", ALL) == [1]


def test_a_unit_that_fails_leaves_nothing(application: Application) -> None:
    with pytest.raises(DBAPIError, match="duplicate key"):
        application.unit("writer", insert(numbers).values(n=1), insert(numbers).values(n=1))
    assert application.unit("reader", ALL) == []


def test_the_timeouts_of_one_application_do_not_reach_another(
    application: Application, narrow: PgBouncer, database: str
) -> None:
    assert application.unit("writer", text("SELECT 1")) == [1]
    with psycopg.connect(narrow.url(database), autocommit=True) as other:
        assert other.execute("SHOW lock_timeout").fetchone() == ("0",)


def test_a_lost_pooler_is_not_noticed_by_the_next_unit(application: Application, narrow: PgBouncer) -> None:
    application.unit("writer", insert(numbers).values(n=1))
    narrow.restart()
    application.unit("writer", insert(numbers).values(n=2))
    assert application.unit("reader", ALL) == [1, 2]


def test_many_units_at_once_take_turns(application: Application) -> None:
    if not application.is_async:
        with ThreadPoolExecutor(6) as threads:
            for future in [threads.submit(turn, application, number) for number in range(6)]:
                future.result(30)
    else:

        async def main() -> None:
            await asyncio.gather(*[async_turn(application, number) for number in range(6)])

        application.loop.run_until_complete(main())
    assert application.unit("reader", ALL) == [number * 100 + turn for number in range(6) for turn in range(6)]


def turn(application: Application, number: int) -> None:
    for each in range(6):
        application.unit("writer", ALL, insert(numbers).values(n=number * 100 + each))


async def async_turn(application: Application, number: int) -> None:
    for each in range(6):
        await application.async_unit("writer", ALL, insert(numbers).values(n=number * 100 + each))


REVISION = """
revision = "1"
down_revision = None

from alembic import op

def upgrade():
    op.execute("CREATE TABLE migrated (n int)")
"""


def test_migrations_go_past_the_pooler(narrow: PgBouncer, database: str, tmp_path: Path) -> None:
    (tmp_path / "main" / "versions").mkdir(parents=True)
    (tmp_path / "main" / "versions" / "1.py").write_text(REVISION)
    settings = {"url": narrow.url(database), "pooler": True, "migrations": str(tmp_path / "main")}
    with Databases({"databases": {"main": settings}}) as dbs, pytest.raises(MigrationsFailed, match="behind a pooler"):
        migrations.upgrade(dbs)
    with Databases({"databases": {"main": {**settings, "migration_url": database}}}) as dbs:
        migrations.upgrade(dbs)
        with dbs.unit_of_work() as uow:
            assert uow.reader.scalar(text("SELECT count(*) FROM migrated")) == 0
