"""
Transactions that a test leaves open: the end does not wait for them, ends them, and says whose they are.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, create_engine, insert, text
from sqlalchemy.pool import NullPool

from stillroom import Database, Databases
from stillroom.testing import TestOptions, TestRun
from stillroom.testing.committed import sqlite
from stillroom.testing.connection import Line
from stillroom.testing.errors import TestingError
from tests.testing import shop

from .layout import contents, country, isolated, prepared
from .test_cleaning import async_urls, write_everything

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy.engine import Connection

    from stillroom.testing.servers import PostgresServer

HERE = "tests/testing/committed/test_leaks.py"


@contextlib.contextmanager
def left_open(dbs: Databases) -> Iterator[Any]:
    """
    Give a connection inside a transaction that wrote, and get rid of it after the test.
    """
    connection = dbs.main.engine.connect()
    connection.execute(insert(country), {"id": 5, "name": "open"})
    try:
        yield connection
    finally:
        with contextlib.suppress(Exception):
            connection.invalidate()
        connection.close()


@contextlib.contextmanager
def another_program(dbs: Databases) -> Iterator[Connection]:
    """
    Give a connection that this process's engines know nothing of.
    """
    engine = create_engine(dbs.main.engine.url, poolclass=NullPool)
    connection = engine.connect()
    try:
        yield connection
    finally:
        connection.invalidate()
        connection.close()


def test_an_open_transaction_is_ended_and_named_with_its_thread_and_line(any_database: str) -> None:
    with prepared(any_database) as (dbs, committed):
        before = contents(any_database)
        committed.begin()
        if not any_database.startswith("sqlite"):  # which has one writer
            with dbs.main.begin() as connection:
                write_everything(connection)
        with left_open(dbs):
            start = time.monotonic()
            (leak,) = committed.end()
            assert time.monotonic() - start < 10
            assert contents(any_database) == before
        assert leak.database == "main"
        assert leak.who == "thread 'MainThread'"
        assert leak.where.startswith(f"begun at {HERE}:")
        assert "in left_open" in leak.where
        committed.begin()
        assert committed.end() == []


def test_an_open_transaction_of_asyncio_is_ended_and_named_with_its_task(any_database: str) -> None:
    async def main(dbs: Databases, committed: Any) -> list[Any]:
        asyncio.current_task().set_name("the page")  # type: ignore[union-attr]  # there is one
        async with dbs.async_unit_of_work(commit="manual") as uow:
            await uow.main.execute(insert(country), {"id": 5, "name": "open"})
            leaks: list[Any] = committed.end()
            with contextlib.suppress(Exception):
                await (await uow.main.connection()).invalidate()
        await dbs.aclose()
        return leaks

    with prepared(async_urls(any_database)[0]) as (dbs, committed):
        before = contents(any_database)
        committed.begin()
        try:
            leaks = asyncio.run(main(dbs, committed))
        except Exception as error:  # the unit may find that its connection is gone
            pytest.fail(f"{error!r}")
        assert [leak.who for leak in leaks] == ["task 'the page'"]
        assert f"begun at {HERE}:" in leaks[0].where
        assert contents(any_database) == before


@pytest.mark.parametrize("kind", ["postgresql", "mariadb"])
def test_an_open_transaction_is_named_where_the_test_has_also_dropped_a_table(
    kind: str, request: pytest.FixtureRequest
) -> None:
    extra = Table("extra", MetaData(), Column("id", Integer))
    with prepared(request.getfixturevalue(f"{kind}_database")) as (dbs, committed):
        extra.create(dbs.main.engine)
        committed.begin()
        extra.drop(dbs.main.engine)
        with left_open(dbs):
            assert len(committed.end()) == 1


def test_a_transaction_that_ends_soon_after_the_test_is_no_leak(any_database: str) -> None:
    with prepared(any_database) as (dbs, committed):
        before = contents(any_database)
        committed.begin()
        written, ending = threading.Event(), threading.Event()

        def request() -> None:
            with dbs.main.begin() as connection:
                connection.execute(insert(country), {"id": 5, "name": "late"})
                written.set()
                assert ending.wait(10)
                time.sleep(0.05)  # the test has ended by now, and the transaction is still open

        thread = threading.Thread(target=request)
        thread.start()
        assert written.wait(10)
        ending.set()
        assert committed.end() == []
        thread.join()
        assert contents(any_database) == before


def test_the_session_of_another_program_is_ended_and_named_with_its_statement(postgresql_database: str) -> None:
    with prepared(postgresql_database) as (dbs, committed), another_program(dbs) as other:
        before = contents(postgresql_database)
        committed.begin()
        other.execute(text("insert into keyless values ('from outside')"))
        (leak,) = committed.end()
        assert leak.who.startswith("the session ")
        assert leak.where == "idle in transaction; its last statement: insert into keyless values ('from outside')"
        assert contents(postgresql_database) == before


def test_the_session_of_another_program_that_stands_in_the_way_is_killed(mariadb_database: str) -> None:
    with prepared(mariadb_database) as (dbs, committed), another_program(dbs) as other:
        before = contents(mariadb_database)
        committed.begin()
        with dbs.main.begin() as connection:
            write_everything(connection)
        other.execute(text("update pet set owner_id = 2"))
        (leak,) = committed.end()
        assert leak.who.startswith("the session ")
        assert contents(mariadb_database) == before


def test_another_program_that_holds_an_sqlite_file_is_an_error_and_no_hang(
    sqlite_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "_PATIENCE", 0.2)
    with prepared(sqlite_database) as (dbs, committed):
        committed.begin()
        with dbs.main.begin() as connection:
            write_everything(connection)
        with contextlib.closing(sqlite3.connect(sqlite_database.removeprefix("sqlite:///"))) as other:
            other.execute("begin immediate")
            with pytest.raises(TestingError, match="'main' could not be cleaned: another process"):
                committed.end()


def test_an_sqlite_file_that_is_made_anew_is_the_one_that_the_next_test_opens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "_PATIENCE", 0.2)
    main = f"sqlite:///{tmp_path}/shop_test.db"
    with Databases(shop.settings(main, tmp_path)) as dbs, TestRun(dbs, TestOptions(seeds={"main": [shop.seed]})) as run:
        with contextlib.closing(sqlite3.connect(str(run.made["main"].url.database))) as other:
            with pytest.raises(TestingError, match="another process"), run.isolated(isolation="committed"):
                shop.add(dbs)
                other.execute("begin immediate")
        for _ in range(2):
            with run.isolated(isolation="committed") as test:
                assert shop.titles(dbs) == ["seed"]
                shop.add(dbs)
                with contextlib.closing(sqlite3.connect(str(test.url("main").database))) as other:
                    assert other.execute("select count(*) from album").fetchone() == (2,)


def test_a_server_that_does_not_answer_over_asyncio_is_an_error(
    postgresql_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Database(async_urls(postgresql_database)[1]).settings
    with monkeypatch.context() as patch:
        for name in ("psycopg", "psycopg2"):
            patch.setitem(sys.modules, name, None)
        with Line.to(settings, settings.url, "main", "tests", patience=0.2) as line:
            with pytest.raises(TestingError, match="'main' did not answer"):
                line.execute("select pg_sleep(1)")


def test_a_prepared_transaction_is_rolled_back_and_named(pg_server: PostgresServer) -> None:
    from tests.support import servers

    with servers.postgresql_database(pg_server.url) as url, prepared(url) as (dbs, committed):
        before = contents(url)
        committed.begin()
        with dbs.main.connect() as connection:
            connection.execute(insert(country), {"id": 5, "name": "prepared"})
            connection.exec_driver_sql("prepare transaction 'half'")
        (leak,) = committed.end()
        assert leak.who == "the prepared transaction 'half'"
        assert contents(url) == before


@pytest.mark.parametrize("kind", ["postgresql", "mariadb"])
def test_when_the_test_ends_the_cleaning_connection_too_rows_are_cleaned_and_seeds_go_on(
    kind: str, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue(f"{kind}_database")
    with prepared(url) as (dbs, committed):
        before = contents(url)
        committed.begin()
        with dbs.main.begin() as connection:
            connection.execute(text("insert into pet (id, owner_id) select 1, id from person"))
            connection.execute(text("insert into person (id) values (1)"))
        end_all_others(dbs)
        assert committed.end() == []
        assert contents(url) == before
        committed.begin()
        with dbs.main.begin() as connection:
            write_everything(connection)
        committed.end()
        assert contents(url) == before


@pytest.mark.parametrize("kind", ["postgresql", "mariadb"])
def test_when_the_copies_of_the_seeds_are_lost_a_change_of_seeds_is_an_error(
    kind: str, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue(f"{kind}_database")
    with prepared(url) as (dbs, committed):
        committed.begin()
        with dbs.main.begin() as connection:
            write_everything(connection)
        end_all_others(dbs)
        with pytest.raises(TestingError, match=r"the seeds of the test database 'main' were changed.*made anew"):
            committed.end()


def end_all_others(dbs: Databases) -> None:
    """
    End all other sessions of the database.
    """
    with dbs.main.connect() as connection:
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql(
                "select pg_terminate_backend(pid) from pg_stat_activity "
                "where datname = current_database() and pid <> pg_backend_pid()"
            )
            return
        asked = "select id from information_schema.processlist where db = database() and id <> connection_id()"
        for (number,) in connection.exec_driver_sql(asked).all():
            connection.exec_driver_sql(f"kill {number}")


def test_connections_in_use_without_a_transaction_are_no_leaks(any_database: str) -> None:
    with prepared(any_database) as (dbs, committed):
        committed.begin()
        with dbs.main.reader_engine.connect() as connection:
            connection.execute(text("select 1"))
            assert committed.end() == []


def test_two_of_one_database_do_not_take_each_other_for_leaks(any_database: str) -> None:
    with prepared(any_database) as (dbs, committed), isolated(dbs) as other:
        committed.begin()
        other.begin()
        assert committed.end() == []
        assert other.end() == []
