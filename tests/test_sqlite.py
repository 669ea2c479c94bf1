"""
SQLite is right by default: durable, with real transactions, and one database for all threads.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError, OperationalError

from stillroom import Databases
from stillroom.classification import Kind, classify
from stillroom.errors import ReadOnlyError, SettingsError
from stillroom.settings import Settings
from stillroom.testing.servers import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator


def configured(url: str, **settings: Any) -> Databases:
    return Databases({"databases": {"main": {"url": url, **settings}}})


@pytest.fixture
def dbs(sqlite_database: str) -> Iterator[Databases]:
    with configured(sqlite_database) as made, made.unit_of_work() as uow:
        uow.main.execute(text("create table notes (id integer primary key, body text)"))
    with made:
        yield made


def bodies(dbs: Databases) -> list[str]:
    with dbs.unit_of_work(read_only=True) as uow:
        return list(uow.main.scalars(text("select body from notes order by id")))


def add(uow: Any, body: str) -> None:
    uow.main.execute(text("insert into notes (body) values (:body)"), {"body": body})


# --- what a connection is set to

PRAGMAS = {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}


@pytest.mark.parametrize("name", PRAGMAS)
@pytest.mark.parametrize("role", ["writer", "reader"])
def test_a_connection_is_set_up_for_safety(dbs: Databases, role: Any, name: str) -> None:
    with dbs.unit_of_work() as uow:
        assert uow.session(role=role).scalar(text(f"pragma {name}")) == PRAGMAS[name]


@pytest.mark.parametrize("name", PRAGMAS)
def test_a_connection_for_asyncio_is_set_up_for_safety(sqlite_database: str, name: str) -> None:
    async def ask() -> Any:
        async with configured(sqlite_database) as dbs, dbs.async_unit_of_work() as uow:
            return await uow.main.scalar(text(f"pragma {name}"))

    assert asyncio.run(ask()) == PRAGMAS[name]


@pytest.mark.parametrize(("lock_timeout", "milliseconds"), [(None, 5000), (1.5, 1500), (0, 0)])
def test_lock_timeout_is_how_long_a_reader_waits(
    sqlite_database: str, lock_timeout: float | None, milliseconds: int
) -> None:
    settings = {} if lock_timeout is None else {"lock_timeout": lock_timeout}
    with configured(sqlite_database, **settings) as dbs, dbs.unit_of_work() as uow:
        assert uow.reader.scalar(text("pragma busy_timeout")) == milliseconds


@pytest.mark.parametrize("lock_timeout", [0, 0.3])
def test_lock_timeout_is_how_long_a_writer_waits(sqlite_database: str, lock_timeout: float) -> None:
    with configured(sqlite_database, lock_timeout=lock_timeout) as dbs, dbs.unit_of_work() as first:
        add_table(first)
        begin = monotonic()
        with pytest.raises(OperationalError) as caught, dbs.unit_of_work() as second:
            add_table(second)
        assert lock_timeout <= monotonic() - begin < lock_timeout + 5
    assert classify(caught.value) is Kind.LOCK_TIMEOUT


def test_an_asynchronous_writer_waits_as_long(sqlite_database: str) -> None:
    async def run() -> float:
        async with configured(sqlite_database, lock_timeout=0.3) as dbs:
            with dbs.unit_of_work() as first:
                add_table(first)
                begin = monotonic()
                with pytest.raises(OperationalError):
                    async with dbs.async_unit_of_work() as second:
                        await second.main.execute(text("select 1"))
                return monotonic() - begin

    assert 0.3 <= asyncio.run(run()) < 5


def add_table(uow: Any) -> None:
    uow.main.execute(text("create table passing (id integer)"))


def test_a_foreign_key_is_enforced(dbs: Databases) -> None:
    with dbs.unit_of_work() as uow:
        uow.main.execute(text("create table marks (note integer references notes (id))"))
    with pytest.raises(IntegrityError), dbs.unit_of_work() as uow:
        uow.main.execute(text("insert into marks values (99)"))


# --- transactions


def test_ddl_is_rolled_back(dbs: Databases) -> None:
    with pytest.raises(ZeroDivisionError), dbs.unit_of_work() as uow:
        uow.main.execute(text("create table passing (id integer)"))
        raise ZeroDivisionError
    with dbs.unit_of_work() as uow:
        assert uow.main.scalar(text("select count(*) from sqlite_master where name = 'passing'")) == 0


def test_a_released_savepoint_is_rolled_back_with_the_unit(dbs: Databases) -> None:
    with pytest.raises(ZeroDivisionError), dbs.unit_of_work() as uow:
        with uow.savepoint():
            add(uow, "inside")
        raise ZeroDivisionError
    assert bodies(dbs) == []


def test_a_savepoint_is_rolled_back_alone(dbs: Databases) -> None:
    with dbs.unit_of_work() as uow:
        add(uow, "before")
        with pytest.raises(ZeroDivisionError), uow.savepoint():
            add(uow, "inside")
            raise ZeroDivisionError
        add(uow, "after")
    assert bodies(dbs) == ["before", "after"]


def test_a_writer_takes_the_lock_at_once_so_that_what_it_read_stays_true(sqlite_database: str, dbs: Databases) -> None:
    with configured(sqlite_database, lock_timeout=0.05) as impatient, dbs.unit_of_work() as uow:
        uow.main.scalar(text("select count(*) from notes"))
        with pytest.raises(OperationalError, match="locked") as caught, impatient.unit_of_work() as other:
            add(other, "too early")
    assert classify(caught.value) is Kind.LOCK_TIMEOUT


def test_a_writer_waits_for_the_lock_of_another(dbs: Databases) -> None:
    waits = threading.Event()

    def second() -> None:
        with dbs.unit_of_work() as uow:
            waits.set()
            add(uow, "second")

    thread = threading.Thread(target=second)
    with dbs.unit_of_work() as uow:
        add(uow, "first")
        thread.start()
        assert waits.wait(10)
    thread.join(10)
    assert bodies(dbs) == ["first", "second"]


def test_a_reader_beside_an_open_writer_is_not_blocked(dbs: Databases) -> None:
    with dbs.unit_of_work() as uow:
        add(uow, "not yet")
        uow.main.flush()
        begin = monotonic()
        assert bodies(dbs) == []
        assert monotonic() - begin < 2.5, "the reader waited for the writer's lock, which takes 5 s"


def test_a_transaction_sees_one_state(dbs: Databases) -> None:
    with dbs.unit_of_work() as reading:
        snapshot = reading.session(role="reader", snapshot=True)
        assert snapshot.scalar(text("select count(*) from notes")) == 0
        with dbs.unit_of_work() as uow:
            add(uow, "meanwhile")
        assert snapshot.scalar(text("select count(*) from notes")) == 0
        assert reading.reader.scalar(text("select count(*) from notes")) == 1


def test_what_sqlite_calls_serializable_may_be_asked_for(dbs: Databases) -> None:
    with dbs.unit_of_work(isolation="SERIALIZABLE") as uow:
        add(uow, "one")
    assert bodies(dbs) == ["one"]


@pytest.mark.parametrize("isolation", ["READ COMMITTED", "REPEATABLE READ"])
def test_settings_refuse_an_isolation_that_sqlite_has_not(isolation: str) -> None:
    with pytest.raises(SettingsError, match=r"databases\.main\.isolation"):
        Settings.from_mapping({"databases": {"main": {"url": "sqlite://", "isolation": isolation}}}, environ={})


# --- time limits

ENDLESS = "with recursive n(i) as (select 1 union all select i + 1 from n where i < 1e12) select {} from n"


@pytest.mark.parametrize("what", ["count(*)", "i"])
def test_statement_timeout_interrupts_a_statement_and_the_fetching_of_its_rows(sqlite_database: str, what: str) -> None:
    with configured(sqlite_database, statement_timeout=0.2) as dbs, dbs.unit_of_work() as uow:
        begin = monotonic()
        with pytest.raises((OperationalError, sqlite3.OperationalError), match="interrupted") as caught:
            for _ in uow.main.execute(text(ENDLESS.format(what))).yield_per(1000):
                pass
        assert 0.1 < monotonic() - begin < 10
    assert classify(caught.value) is Kind.STATEMENT_TIMEOUT


def test_statement_timeout_interrupts_a_statement_of_asyncio(sqlite_database: str) -> None:
    async def run() -> BaseException:
        async with configured(sqlite_database, statement_timeout=0.2) as dbs, dbs.async_unit_of_work() as uow:
            with pytest.raises(OperationalError, match="interrupted") as caught:
                await uow.main.execute(text(ENDLESS.format("count(*)")))
        return caught.value

    assert classify(asyncio.run(run())) is Kind.STATEMENT_TIMEOUT


def test_the_time_limit_of_one_statement_is_not_that_of_the_next(sqlite_database: str) -> None:
    with configured(sqlite_database, statement_timeout=0.2) as dbs, dbs.unit_of_work() as uow:
        with pytest.raises(OperationalError), uow.savepoint():
            uow.main.execute(text(ENDLESS.format("count(*)")))
        driver: Any = uow.main.connection().connection.dbapi_connection
        shorter = ENDLESS.format("count(*)").replace("1e12", "2e4")
        assert driver.execute(shorter).fetchone() == (20_000,)
        assert uow.main.scalar(text(shorter)) == 20_000


# --- in memory


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:"])
def test_eight_threads_share_one_database_in_memory(url: str) -> None:
    failures: list[BaseException] = []
    with configured(url) as dbs:
        with dbs.unit_of_work() as uow:
            uow.main.execute(text("create table notes (id integer primary key, body text)"))

        def work() -> None:
            try:
                for number in range(100):
                    with dbs.unit_of_work() as uow:
                        add(uow, str(number))
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert failures == []
        assert len(bodies(dbs)) == 800


def test_the_two_worlds_share_one_database_in_memory() -> None:
    async def asynchronously(dbs: Databases) -> list[str]:
        async with dbs.async_unit_of_work() as uow:
            await uow.main.execute(text("insert into notes (body) values ('async')"))
        async with dbs.async_unit_of_work(read_only=True) as uow:
            found = list(await uow.main.scalars(text("select body from notes order by id")))
        await dbs.aclose()
        return found

    dbs = configured("sqlite://")
    with dbs.unit_of_work() as uow:
        uow.main.execute(text("create table notes (id integer primary key, body text)"))
        add(uow, "sync")
    try:
        assert asyncio.run(asynchronously(dbs)) == ["sync", "async"]
    finally:
        dbs.close()


def test_two_declared_databases_in_memory_are_two() -> None:
    with Databases({"databases": {"main": {"url": "sqlite://"}, "audit": {"url": "sqlite://"}}}) as dbs:
        with dbs.unit_of_work() as uow:
            uow.main.execute(text("create table notes (id integer)"))
        with dbs.unit_of_work() as uow:
            assert uow.audit.scalar(text("select count(*) from sqlite_master")) == 0


def test_a_reader_of_a_database_in_memory_cannot_write() -> None:
    with configured("sqlite://") as dbs:
        with dbs.unit_of_work() as uow:
            uow.main.execute(text("create table notes (id integer primary key, body text)"))
        with pytest.raises(ReadOnlyError), dbs.unit_of_work() as uow:
            uow.reader.execute(text("insert into notes (body) values ('no')"))


# --- files


def test_a_path_may_have_spaces_and_letters_beyond_ascii(tmp_path: Path) -> None:
    path = tmp_path / "my döcs & more" / "still room.db"
    path.parent.mkdir()
    with configured(f"sqlite:///{path}") as dbs, dbs.unit_of_work() as uow:
        uow.main.execute(text("create table notes (id integer)"))
        assert Path(uow.main.scalar(text("select file from pragma_database_list"))) == path


def test_a_file_uri_names_the_file_that_exists_creates_and_drops(tmp_path: Path) -> None:
    path = tmp_path / "my file.db"
    settings = {"url": f"sqlite:///file:{tmp_path}/my%20file.db?uri=true", "disposable": True}
    with Databases({"databases": {"main": settings}}) as dbs:
        assert not dbs.main.exists()
        dbs.main.create()
        assert path.exists()
        assert dbs.main.exists()
        with dbs.unit_of_work() as uow:
            uow.main.execute(text("create table notes (id integer)"))
        dbs.main.drop()
    assert list(tmp_path.iterdir()) == []


def test_a_missing_directory_is_named_with_the_remedy(tmp_path: Path) -> None:
    missing = tmp_path / "nowhere"
    with configured(f"sqlite:///{missing}/x.db") as dbs:
        with pytest.raises(OperationalError) as caught, dbs.unit_of_work() as uow:
            uow.main.scalar(text("select 1"))
        assert f"the directory {str(missing)!r} does not exist" in str(caught.value)
        assert caught.value.orig is not None
        assert getattr(caught.value.orig, "sqlite_errorname", None) == "SQLITE_CANTOPEN"
        dbs.main.create()
        with dbs.unit_of_work() as uow:
            assert uow.main.scalar(text("select 1")) == 1


def test_a_missing_directory_is_named_in_asyncio_too(tmp_path: Path) -> None:
    async def connect() -> None:
        threads = threading.active_count()
        async with configured(f"sqlite:///{tmp_path}/nowhere/x.db") as dbs:
            with pytest.raises(OperationalError, match="nowhere' does not exist"):
                async with dbs.async_unit_of_work() as uow:
                    await uow.main.scalar(text("select 1"))
        # The driver's thread has a last word for the event loop; the one that waits for it here is counted too.
        await asyncio.to_thread(wait_until, lambda: threading.active_count() <= threads + 1, "the thread has ended")

    asyncio.run(connect())


@pytest.fixture
def plain_file(tmp_path: Path) -> Path:
    """
    A database as other programs make them, without WAL.
    """
    path = tmp_path / "plain.db"
    connection = sqlite3.connect(path)
    connection.execute("create table notes (id integer primary key, body text)")
    connection.close()
    return path


def test_a_file_that_cannot_be_written_is_named_with_the_remedy(plain_file: Path) -> None:
    url = f"sqlite:///file:{plain_file}?mode=ro&uri=true"
    with configured(url) as dbs, pytest.raises(OperationalError) as caught, dbs.unit_of_work() as uow:
        uow.main.scalar(text("select 1"))
    assert f"{str(plain_file)!r}; SQLite must be able to write to the file and to its directory" in str(caught.value)


def test_a_file_that_cannot_be_written_can_be_read(plain_file: Path) -> None:
    with configured(f"sqlite:///file:{plain_file}?mode=ro&uri=true") as dbs:
        assert bodies(dbs) == []


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_that_cannot_be_written_is_named(plain_file: Path) -> None:
    plain_file.parent.chmod(0o500)
    try:
        dbs = configured(f"sqlite:///{plain_file}")
        with dbs, pytest.raises(OperationalError) as caught, dbs.unit_of_work() as uow:
            uow.main.scalar(text("select 1"))
    finally:
        plain_file.parent.chmod(0o700)
    assert str(plain_file) in str(caught.value)


def test_an_existing_file_is_switched_to_wal_by_its_first_writer(plain_file: Path) -> None:
    with configured(f"sqlite:///{plain_file}") as dbs, dbs.unit_of_work() as uow:
        add(uow, "kept")
    connection = sqlite3.connect(plain_file)
    assert connection.execute("pragma journal_mode").fetchone() == ("wal",)
    connection.close()


def test_a_connection_goes_back_to_the_pool_without_a_transaction(dbs: Databases) -> None:
    with pytest.raises(ZeroDivisionError), dbs.unit_of_work() as uow:
        add(uow, "never")
        driver: Any = uow.main.connection().connection.dbapi_connection
        assert driver.in_transaction
        raise ZeroDivisionError
    assert not driver.in_transaction


def test_a_commit_of_the_driver_behind_our_back_is_no_lost_transaction(dbs: Databases) -> None:
    with dbs.unit_of_work() as uow:
        add(uow, "one")
        driver: Any = uow.main.connection().connection.dbapi_connection
        driver.commit()
        add(uow, "two")
    assert bodies(dbs) == ["one", "two"]


def test_closing_makes_the_wal_files_go_away(sqlite_database: str, tmp_path: Path) -> None:
    with configured(sqlite_database) as dbs, dbs.unit_of_work() as uow:
        uow.main.execute(text("create table notes (id integer)"))
    assert [path.name for path in tmp_path.iterdir()] == ["test.db"]
