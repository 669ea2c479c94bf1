"""
What a unit of work must not miss.

A server that gave up in silence, savepoints that do not nest, writes that no statement shows, a second connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import create_engine, event, func, select, text
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.pool import NullPool

from stillroom.errors import ConcurrentUseError, TransactionAborted
from stillroom.status import Status
from stillroom.testing.servers import mariadb_server
from tests.commits.worlds import (
    AIOMYSQL,
    ASYNCPG,
    PSYCOPG,
    PSYCOPG_ASYNC,
    PYMYSQL,
    Place,
    World,
    column,
    databases,
    execute,
    sync_url,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from stillroom import Databases

SQLITE = World("sqlite_database", "pysqlite", is_async=False)
AIOSQLITE = World("sqlite_database", "aiosqlite", is_async=True)
PATIENCE = 10.0
"""How long a test waits for what must come, in seconds."""

ITEMS = "CREATE TABLE item (id INTEGER PRIMARY KEY)"
ALL_ITEMS = "SELECT id FROM item ORDER BY id"


def put(number: int) -> Any:
    return text(f"INSERT INTO item VALUES ({number})")


def open_world(world: World, request: pytest.FixtureRequest, **settings: Any) -> tuple[str, Place]:
    """
    Return the URL of an empty table `item`, and the database `main` declared.
    """
    url = world.url(request.getfixturevalue(world.fixture))
    execute(url, ITEMS)
    return url, Place(databases({"main": {"url": url, **settings}}), is_async=world.is_async)


# --- the server gave up the transaction, and the error was swallowed


@pytest.mark.parametrize("world", [PYMYSQL, AIOMYSQL], ids=str)
def test_a_swallowed_write_conflict_of_mariadb_commits_no_half(world: World, request: pytest.FixtureRequest) -> None:
    url, place = open_world(world, request, server_settings={"innodb_snapshot_isolation": "1"})
    execute(url, "CREATE TABLE stock (id INTEGER PRIMARY KEY, amount INTEGER)", "INSERT INTO stock VALUES (1, 0)")

    def body(session: Any) -> int:
        session().scalar(text("SELECT amount FROM stock"))  # begins the snapshot
        execute(url, "UPDATE stock SET amount = 1")
        session().execute(put(1))
        with pytest.raises(OperationalError) as caught:
            session().execute(text("UPDATE stock SET amount = 10"))
        with contextlib.suppress(TransactionAborted):
            session().execute(put(2))
        return int(caught.value.orig.args[0])  # type: ignore[union-attr]  # the driver's error is there

    with place:
        ended = place.unit(body)
    assert isinstance(ended.error, TransactionAborted)
    assert (ended.seen or 1020, ended.status, ended.hooks) == (1020, Status.ROLLED_BACK, ["rollback"])
    assert column(url, ALL_ITEMS) == []


def swallow_a_lock_timeout(url: str, world: World) -> Any:
    """
    Write, run into a lock that another connection holds, swallow that, and write again.
    """
    execute(url, ITEMS, "CREATE TABLE stock (id INTEGER PRIMARY KEY)", "INSERT INTO stock VALUES (1)")
    locking = create_engine(sync_url(url), poolclass=NullPool)
    held = text("SELECT id FROM stock FOR UPDATE")

    def body(session: Any) -> None:
        session().execute(put(1))
        with pytest.raises(OperationalError, match="1205"):
            session().execute(text("SELECT id FROM stock FOR UPDATE NOWAIT"))
        session().execute(put(2))

    place = Place(databases({"main": {"url": url}}), is_async=world.is_async)
    with place, locking.begin() as connection:
        connection.execute(held)
        return place.unit(body)


@pytest.mark.parametrize("world", [PYMYSQL, AIOMYSQL], ids=str)
def test_after_a_lock_timeout_the_transaction_goes_on(world: World, request: pytest.FixtureRequest) -> None:
    url = world.url(request.getfixturevalue(world.fixture))
    ended = swallow_a_lock_timeout(url, world)
    assert (ended.error, ended.status, ended.hooks) == (None, Status.COMMITTED, ["commit"])
    assert column(url, ALL_ITEMS) == [1, 2]


@pytest.mark.usefixtures("mariadb_url")
def test_a_server_that_rolls_back_at_a_lock_timeout_commits_no_half() -> None:
    with mariadb_server({"innodb_rollback_on_timeout": "ON"}) as server:
        for world in (PYMYSQL, AIOMYSQL):
            with server.database() as plain:
                url = world.url(plain)
                ended = swallow_a_lock_timeout(url, world)
                assert isinstance(ended.error, TransactionAborted), world
                assert (ended.status, ended.hooks) == (Status.ROLLED_BACK, ["rollback"])
                assert column(url, ALL_ITEMS) == []


# --- savepoints of two tasks in one unit of work


ASYNC_WORLDS = (PSYCOPG_ASYNC, ASYNCPG, AIOMYSQL, AIOSQLITE)


class Overlap:
    """
    Two tasks with a savepoint each in one unit of work; the second opens its own inside of the first one's.

    Args:
        dbs: The database `main`.
    """

    def __init__(self, dbs: Databases) -> None:
        self.unit = dbs.async_unit_of_work()
        self.first_is_open, self.second_is_open, self.first_has_ended = (asyncio.Event() for _ in range(3))
        self.outcomes: list[Any] = []

    async def run(self, *, then: Callable[[], Any], cancel: bool = False) -> None:
        """
        Run both, and end the unit of work as if neither had failed.

        Args:
            then: Called in the first one's savepoint when the second one's is open; awaited.
            cancel: Cancel the first task at that moment.
        """
        with pytest.raises(TransactionAborted, match="savepoints were open"):
            async with asyncio.timeout(PATIENCE), self.unit:
                await self.unit.main.execute(put(1))
                first = asyncio.create_task(self._first(then))
                second = asyncio.create_task(self._second())
                await self.second_is_open.wait()
                if cancel:
                    first.cancel()
                self.outcomes = list(await asyncio.gather(first, second, return_exceptions=True))

    async def _first(self, then: Callable[[], Any]) -> None:
        try:
            async with self.unit.savepoint():
                await self.unit.main.execute(put(2))
                self.first_is_open.set()
                await self.second_is_open.wait()
                await then()
        finally:
            self.first_has_ended.set()

    async def _second(self) -> None:
        await self.first_is_open.wait()
        async with self.unit.savepoint():
            await self.unit.main.execute(put(3))
            self.second_is_open.set()
            await self.first_has_ended.wait()
            raise ValueError("the second rolls back")


@pytest.mark.parametrize("how", ["ends", "fails", "goes on", "is cancelled"])
@pytest.mark.parametrize("world", ASYNC_WORLDS, ids=str)
def test_savepoints_of_two_tasks_are_refused(world: World, how: str, request: pytest.FixtureRequest) -> None:
    url, place = open_world(world, request)

    async def run() -> Overlap:
        overlap = Overlap(place.dbs)

        async def then() -> None:
            if how == "fails":
                raise LookupError
            if how == "goes on":
                await overlap.unit.main.execute(put(4))
            if how == "is cancelled":
                await asyncio.sleep(PATIENCE)

        await overlap.run(then=then, cancel=how == "is cancelled")
        return overlap

    with place:
        assert place.runner is not None
        overlap = place.runner.run(run())
    # A cancelled task says so: asyncio's own error is not replaced.
    assert type(overlap.outcomes[0]) is (asyncio.CancelledError if how == "is cancelled" else ConcurrentUseError)
    assert overlap.unit.status is Status.ROLLED_BACK
    assert column(url, ALL_ITEMS) == []


# --- two phases


TRIPLES = [("psycopg",) * 3, ("asyncpg",) * 3, ("psycopg-async",) * 3]
LATE = "CREATE TABLE late (id INTEGER REFERENCES item DEFERRABLE INITIALLY DEFERRED)"
WRITES = "CREATE FUNCTION writes() RETURNS integer LANGUAGE sql AS 'INSERT INTO item VALUES (2) RETURNING id'"


def through_a_function(session: Any) -> None:
    assert session.scalar(select(func.writes())) == 2


def through_a_cursor(session: Any) -> None:
    session.connection().connection.cursor().execute("INSERT INTO item VALUES (2)")


@pytest.mark.parametrize("fails", [True, False], ids=["fails", "succeeds"])
@pytest.mark.parametrize("write", [through_a_function, through_a_cursor])
@pytest.mark.parametrize("drivers", TRIPLES, ids=lambda names: names[0])
def test_who_wrote_without_a_word_is_prepared_too(
    drivers: tuple[str, ...], write: Callable[[Any], None], fails: bool, make_layout: Callable[..., Any]
) -> None:
    place = make_layout(**dict(zip(("audit", "shop", "main"), drivers, strict=True)))
    execute(place.urls["audit"], WRITES)
    execute(place.urls["main"], LATE)

    def body(session: Any) -> None:
        write(session("audit"))
        for name in ("shop", "main"):
            session(name).execute(put(2))
        if fails:
            session("main").execute(text("INSERT INTO late VALUES (99)"))

    with place.open() as opened:
        ended = opened.unit(body)
    rows = [1] if fails else [1, 2]
    assert type(ended.error) is (IntegrityError if fails else type(None))
    assert ended.status is (Status.ROLLED_BACK if fails else Status.COMMITTED)
    assert place.in_doubt() == []
    assert place.rows() == {"audit": rows, "shop": rows, "main": rows}


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg", "pymysql", "aiomysql"])
def test_a_savepoint_left_open_by_hand_is_committed_in_two_phases(driver: str, make_layout: Any) -> None:
    place = make_layout(shop=driver, main=driver)

    def body(session: Any) -> None:
        for name in ("shop", "main"):
            session(name).execute(put(2))
            for number in (3, 4):
                session(name).begin_nested()
                session(name).execute(put(number))

    with place.open() as opened:
        ended = opened.unit(body)
        assert (ended.error, ended.status, ended.hooks) == (None, Status.COMMITTED, ["commit"])
        assert opened.dbs.recover(min_age=0) == []
    assert place.rows() == {"shop": [1, 2, 3, 4], "main": [1, 2, 3, 4]}


# --- a savepoint over two databases


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Databases, dict[str, str]]]:
    """
    Two SQLite files, `a` and `b`, that both have a table `item`.
    """
    urls = {name: f"sqlite:///{tmp_path / name}.db" for name in ("a", "b")}
    for url in urls.values():
        execute(url, ITEMS)
    with databases({name: {"url": url} for name, url in urls.items()}, default="a") as dbs:
        yield dbs, urls


@pytest.mark.parametrize("failing", ["a", "b"])
def test_a_savepoint_whose_rollback_fails_on_one_database_is_rolled_back_on_the_other(
    failing: str, pair: tuple[Databases, dict[str, str]]
) -> None:
    dbs, urls = pair
    other = "b" if failing == "a" else "a"
    unit = dbs.unit_of_work()
    seen: list[Any] = []

    def fail(*_: Any) -> None:
        raise RuntimeError("a listener fails")

    with pytest.raises(TransactionAborted, match="a savepoint could not be rolled back"), unit:
        for name in ("a", "b"):
            unit.session(name).execute(put(1))
        with pytest.raises(ValueError, match="no") as caught, unit.savepoint():
            for name in ("a", "b"):
                unit.session(name).execute(put(2))
            event.listen(unit.session(failing), "after_soft_rollback", fail)
            raise ValueError("no")
        event.remove(unit.session(failing), "after_soft_rollback", fail)
        assert "a listener fails" in caught.value.__notes__[0]
        seen += unit.session(other).scalars(text(ALL_ITEMS))
    assert (seen, unit.status) == ([1], Status.ROLLED_BACK)
    assert [column(url, ALL_ITEMS) for url in urls.values()] == [[], []]


# --- a bind of the statement's own


BOTH = pytest.mark.parametrize("world", [SQLITE, PSYCOPG, AIOSQLITE, ASYNCPG], ids=str)


@pytest.mark.parametrize("first", [True, False], ids=["first", "second"])
@pytest.mark.parametrize("kind", ["declared", "foreign"])
@BOTH
def test_another_engine_for_a_statement_is_refused(
    world: World, kind: str, first: bool, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    url, place = open_world(world, request)
    place.dbs.close()
    other_url = f"sqlite+{'aiosqlite' if world.is_async else 'pysqlite'}:///{tmp_path / 'other'}.db"
    execute(other_url, ITEMS)
    dbs = databases({"main": {"url": url}, "other": {"url": other_url}}, default="main")
    place = Place(dbs, is_async=world.is_async)
    foreign = create_engine(sync_url(other_url), poolclass=NullPool)

    def body(session: Any) -> None:
        declared = dbs.other.async_engine.sync_engine if world.is_async else dbs.other.engine
        if not first:
            session("main").execute(put(1))
        session("main").execute(put(2), bind_arguments={"bind": foreign if kind == "foreign" else declared})

    with place:
        ended = place.unit(body)
    assert isinstance(ended.error, ValueError)
    assert "another bind" in str(ended.error)
    assert "uow.session(name)" in str(ended.error)
    assert (ended.status, ended.hooks) == (Status.ROLLED_BACK, ["rollback"])
    assert (column(url, ALL_ITEMS), column(other_url, ALL_ITEMS)) == ([], [])


# --- a cancelled task on SQLite


SLOW = text(
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 600000) SELECT count(*) FROM n WHERE i < 0"
)


def test_a_cancelled_writer_of_sqlite_leaves_no_lock_to_the_garbage_collector(sqlite_database: str) -> None:
    url, path = sqlite_database, sqlite_database.removeprefix("sqlite:///")
    execute(url, ITEMS)

    async def run() -> None:
        async with databases({"main": {"url": url}}) as dbs:
            written = asyncio.Event()

            async def write() -> None:
                async with dbs.async_unit_of_work() as uow:
                    await uow.main.execute(put(1))
                    written.set()
                    await uow.main.execute(SLOW)

            task = asyncio.create_task(write())
            await asyncio.wait_for(written.wait(), PATIENCE)
            await asyncio.sleep(0.05)  # the statement is under way; what follows holds without it too
            task.cancel()
            # The error is kept, as a log or a task group may: its traceback refers to the cursor.
            (error,) = await asyncio.gather(task, return_exceptions=True)
            assert isinstance(error, asyncio.CancelledError)
            with contextlib.closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as connection:
                connection.execute("BEGIN IMMEDIATE")
                connection.rollback()

    gc.disable()
    try:
        asyncio.run(run())
    finally:
        gc.enable()
    assert column(url, ALL_ITEMS) == []
