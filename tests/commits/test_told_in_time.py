"""
What a unit of work refuses, and says at once, before anything is lost: swallowed errors, shared units, dropped ones.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.pool import NullPool

from stillroom import Retry
from stillroom.classification import Kind
from stillroom.errors import ConcurrentUseError, TransactionAborted
from stillroom.status import Status
from stillroom.testing.servers import wait_until
from tests.commits.worlds import (
    ASYNCPG,
    PSYCOPG,
    PSYCOPG_ASYNC,
    WORLDS,
    Place,
    World,
    column,
    databases,
    execute,
    sync_url,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Executable

    from stillroom import UnitOfWork

PATIENCE = 5
"""How long a statement waits at the gate, in seconds, should nobody open it."""


class Base(DeclarativeBase):
    """
    The models of this module.
    """


class Item(Base):
    """
    A row.
    """

    __tablename__ = "item"
    id: Mapped[int] = mapped_column(primary_key=True)


@pytest.fixture(params=WORLDS, ids=str)
def world(request: pytest.FixtureRequest) -> World:
    made: World = request.param
    return made


@pytest.fixture
def url(world: World, request: pytest.FixtureRequest) -> str:
    """
    The URL, without a driver, of a database with an empty table `item`.
    """
    plain: str = request.getfixturevalue(world.fixture)
    return with_table(plain)


def with_table(url: str) -> str:
    execute(url, "CREATE TABLE item (id INTEGER PRIMARY KEY)")
    return url


def opened(world: World, url: str, **settings: Any) -> Place:
    return Place(databases({"main": {"url": world.url(url), **settings}}), is_async=world.is_async)


def rows(url: str) -> list[int]:
    return column(url, "SELECT id FROM item ORDER BY id")


def insert(number: int) -> Executable:
    return text(f"INSERT INTO item VALUES ({number})")


# --- swallowed errors

only_postgresql = pytest.mark.parametrize("world", [PSYCOPG, PSYCOPG_ASYNC, ASYNCPG], ids=str)


def swallow(session: Any) -> None:
    session().execute(insert(1))
    with contextlib.suppress(IntegrityError):
        session().execute(insert(1))


def swallow_with_more_to_flush(session: Any) -> None:
    swallow(session)
    session().add(Item(id=2))


@pytest.mark.parametrize(
    ("body", "verify_commit"), [(swallow_with_more_to_flush, False), (swallow, True)], ids=["flush", "verify_commit"]
)
@only_postgresql
def test_a_swallowed_error_is_told_as_such_by_whatever_the_end_does_first(
    world: World, url: str, body: Callable[[Any], None], verify_commit: bool
) -> None:
    with opened(world, url, verify_commit=verify_commit) as place:
        ended = place.unit(body)
    assert isinstance(ended.error, TransactionAborted)
    assert isinstance(ended.error.__cause__, IntegrityError)
    assert (ended.status, ended.hooks) == (Status.ROLLED_BACK, ["rollback"])
    assert rows(url) == []


def lose_connection(session: Any, world: World, url: str) -> None:
    if world.fixture == "postgresql_database":
        ask, end, still = "pg_backend_pid()", "SELECT pg_terminate_backend({})", "pg_stat_activity WHERE pid = {}"
    else:
        ask, end, still = "CONNECTION_ID()", "KILL {}", "information_schema.processlist WHERE id = {}"
    number = session().scalar(text(f"SELECT {ask}"))
    execute(url, end.format(number))
    wait_until(lambda: column(url, "SELECT count(*) FROM " + still.format(number)) == [0], "the connection is gone")


def test_a_swallowed_disconnect_is_told_and_the_work_can_be_run_again(world: World, url: str) -> None:
    runs: list[int] = []

    def body(session: Any) -> None:
        runs.append(1)
        session().execute(insert(len(runs)))
        if len(runs) < 3:
            lose_connection(session, world, url)
            with contextlib.suppress(DBAPIError):
                session().execute(insert(9))

    with opened(world, url) as place:
        ended = place.unit(body)
        error = place.call(body, retry=Retry(attempts=3, base=0))
    assert isinstance(ended.error, TransactionAborted)
    assert (ended.status, ended.hooks) == (Status.ROLLED_BACK, ["rollback"])
    assert (error, len(runs), rows(url)) == (None, 3, [3])


# --- one unit in two threads


@contextlib.contextmanager
def gate(url: str, driver: Any) -> Iterator[tuple[str, Callable[[], object]]]:
    """
    Keep a statement from ending while the block runs.

    Args:
        url: The database.
        driver: The connection that will run the statement; SQLite needs a function on it.

    Yields:
        The statement, and what waits until it is running.
    """
    if url.startswith("sqlite"):
        running, end = threading.Event(), threading.Event()

        def pass_gate() -> int:
            running.set()
            return end.wait(PATIENCE)

        driver.create_function("pass_gate", 0, pass_gate)
        try:
            yield "SELECT pass_gate()", lambda: running.wait(PATIENCE)
        finally:
            end.set()
        return
    if url.startswith("postgresql"):
        close = "SELECT pg_advisory_lock(1)"
        wait = f"SELECT set_config('lock_timeout', '{PATIENCE}s', true), pg_advisory_xact_lock(1)"
        waiting = (
            "SELECT count(*) FROM pg_locks JOIN pg_database ON pg_database.oid = database "
            "WHERE datname = current_database() AND locktype = 'advisory' AND NOT granted"
        )
    else:
        close = wait = f"SELECT GET_LOCK(DATABASE(), {PATIENCE})"
        waiting = "SELECT count(*) FROM information_schema.processlist WHERE db = DATABASE() AND state = 'User lock'"
    with create_engine(sync_url(url), poolclass=NullPool).connect() as connection:
        connection.execute(text(close))
        yield wait, lambda: wait_until(lambda: column(url, waiting) == [1], "the statement waits")


def test_a_second_thread_is_refused_while_a_statement_runs_and_welcome_after_it(any_database: str) -> None:
    with_table(any_database)
    with databases({"main": {"url": any_database}}) as dbs:
        with dbs.unit_of_work() as unit:
            session = unit.main
            session.execute(insert(1))
            with ThreadPoolExecutor(1, thread_name_prefix="worker") as pool:
                with gate(any_database, session.connection().connection.driver_connection) as (statement, wait):
                    running = pool.submit(lambda: session.execute(text(statement)).all())
                    wait()
                    told = "two threads .*'worker_0' is running a statement on 'main', and 'MainThread' wants to"
                    with pytest.raises(ConcurrentUseError, match=told):
                        session.execute(insert(2))
                assert len(running.result()) == 1
                pool.submit(session.execute, insert(3)).result()
            session.execute(insert(4))
        assert unit.status is Status.COMMITTED
    assert rows(any_database) == [1, 3, 4]


# --- no transaction at all, on SQLite


def test_sqlite_runs_vacuum_in_autocommit_and_then_has_transactions_again(sqlite_database: str) -> None:
    with_table(sqlite_database)
    with databases({"main": {"url": sqlite_database, "pool_size": 1, "max_overflow": 0}}) as dbs:
        with dbs.main.engine.connect() as connection:
            driver = connection.connection.driver_connection
        with dbs.main.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            assert connection.connection.driver_connection is driver
            connection.execute(text("VACUUM"))
            connection.execute(insert(1))
        assert rows(sqlite_database) == [1]
        with pytest.raises(LookupError), dbs.unit_of_work() as unit:
            assert unit.main.connection().connection.driver_connection is driver
            unit.main.execute(insert(2))
            raise LookupError
    assert rows(sqlite_database) == [1]


def test_so_does_aiosqlite(sqlite_database: str) -> None:
    with_table(sqlite_database)
    dbs = databases({"main": {"url": sqlite_database, "pool_size": 1, "max_overflow": 0}})

    async def main() -> None:
        async with dbs.main.async_engine.connect() as connection:
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            await connection.execute(text("VACUUM"))
            await connection.execute(insert(1))
        assert rows(sqlite_database) == [1]
        with pytest.raises(LookupError):
            async with dbs.async_unit_of_work() as unit:
                await unit.main.execute(insert(2))
                raise LookupError
        await dbs.aclose()

    asyncio.run(main())
    assert rows(sqlite_database) == [1]


@pytest.mark.parametrize(
    "world", [World("sqlite_database", driver, driver == "aiosqlite") for driver in ("pysqlite", "aiosqlite")], ids=str
)
def test_a_session_gets_the_level_that_it_asks_for_and_the_next_one_a_transaction(world: World, url: str) -> None:
    def at(level: str, number: int) -> Callable[[Any], tuple[list[int], Any]]:
        def body(session: Any) -> tuple[list[int], Any]:
            connection = session().connection(execution_options={"isolation_level": level})
            connection.execute(insert(number))
            return rows(url), connection.connection.driver_connection.isolation_level

        return body

    def fail(session: Any) -> None:
        session().execute(insert(9))
        raise LookupError

    # None: the driver begins nothing by itself, as that is the library's to do.
    with opened(world, url, pool_size=1, max_overflow=0) as place:
        assert place.unit(at("AUTOCOMMIT", 1)).seen == ([1], None)
        assert place.unit(fail).status is Status.ROLLED_BACK
        assert place.unit(at("SERIALIZABLE", 2)).seen == ([1], None)
        assert place.unit(fail).status is Status.ROLLED_BACK
    assert rows(url) == [1, 2]


# --- what the programmer did wrong


def test_an_asyncio_unit_that_is_dropped_warns_and_is_no_longer_open(sqlite_database: str) -> None:
    dbs = databases({"main": {"url": sqlite_database}})

    async def enter() -> None:
        unit = dbs.async_unit_of_work()
        await unit.__aenter__()
        assert unit.main.sync_session.get_transaction() is None

    def drop() -> None:
        asyncio.run(enter())
        gc.collect()

    told = r"<AsyncUnitOfWork active \(main:writer\)> was never ended; what it wrote is lost"
    with pytest.warns(ResourceWarning, match=told):
        drop()
    dbs.configure({"databases": {"main": {"url": sqlite_database}}})
    with dbs, dbs.unit_of_work() as unit:
        assert unit.main.scalar(text("SELECT 1")) == 1


@pytest.mark.parametrize("kind", [Kind.UNIQUE_VIOLATION, Kind.STATEMENT_TIMEOUT])
def test_a_kind_that_comes_again_however_often_it_is_tried_is_refused(kind: Kind) -> None:
    with pytest.raises(ValueError, match=f"kinds has .*{kind}.*it takes .*{Kind.DEADLOCK}"):
        Retry(kinds=[Kind.DEADLOCK, kind])


def test_the_kinds_that_may_pass_are_taken() -> None:
    kinds = [Kind.DEADLOCK, Kind.DISCONNECTED, Kind.LOCK_TIMEOUT, Kind.SERIALIZATION_FAILURE]
    assert list(Retry(kinds=kinds).kinds or ()) == kinds


def test_a_plain_function_that_returns_a_coroutine_is_refused_and_rolled_back(sqlite_database: str) -> None:
    with_table(sqlite_database)
    units: list[UnitOfWork] = []

    async def later() -> None:
        """
        Run after the end, were it ever awaited.
        """

    with databases({"main": {"url": sqlite_database}}) as dbs:

        @dbs.transactional
        def work(uow: UnitOfWork) -> Any:
            units.append(uow)
            uow.main.execute(insert(1))
            return later()

        with pytest.raises(TypeError, match="would run after the end of its unit of work"):
            work()
        gc.collect()  # a coroutine that nobody awaited nor closed would warn
    assert units[0].status is Status.ROLLED_BACK
    assert rows(sqlite_database) == []
