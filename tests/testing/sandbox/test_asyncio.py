"""
Asynchronous engines stand on the same transaction as the synchronous ones, in any event loop.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import create_engine, func, insert, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.pool import NullPool

from stillroom.testing.servers import wait_until
from tests.testing.sandbox.support import Item, run

if TYPE_CHECKING:
    from tests.testing.sandbox.support import Setting


HELD_UP = {
    "postgresql": (
        "lock table parts",
        "select count(*) from parts",
        "select count(*) from pg_locks where relation = 'parts'::regclass and not granted",
    ),
    "mysql": (
        "select get_lock('stillroom test', 0)",
        "select get_lock('stillroom test', 10)",
        "select count(*) from information_schema.processlist where state = 'User lock' and db = database()",
    ),
}
"""What holds up a statement that reads, that statement, and how many are held up."""


async def counted(setting: Setting) -> int:
    async with setting.dbs["main"].async_engine.connect() as connection:
        return await connection.scalar(select(func.count()).select_from(Item)) or 0


def test_an_async_session_commits_and_rolls_back(async_setting: Setting) -> None:
    async def work() -> None:
        async with AsyncSession(async_setting.dbs["main"].async_engine) as session:
            session.add(Item(name="a"))
            await session.commit()
            session.add(Item(name="b"))
            await session.flush()
            await session.rollback()
            assert (await session.scalars(select(Item.name))).all() == ["a"]
        assert await counted(async_setting) == 1

    run(async_setting, work)


def test_an_async_connection_commits_by_hand_by_block_and_in_autocommit(async_setting: Setting) -> None:
    async def work() -> None:
        engine = async_setting.dbs["main"].async_engine
        async with engine.begin() as connection:
            await connection.execute(insert(Item), [{"name": "a"}, {"name": "b"}])
        async with engine.connect() as connection:
            await connection.execute(insert(Item), {"name": "c"})
            await connection.commit()
            await connection.execute(insert(Item), {"name": "lost"})
        if engine.dialect.name != "sqlite":
            auto = await engine.connect()
            await auto.execution_options(isolation_level="AUTOCOMMIT")
            await auto.execute(insert(Item), {"name": "d"})
            await auto.close()
        assert await counted(async_setting) == 3 + (engine.dialect.name != "sqlite")

    run(async_setting, work)


def test_tasks_that_commit_and_fail_get_exact_counts(async_setting: Setting) -> None:
    async def one(number: int) -> None:
        for turn in range(10):
            try:
                async with AsyncSession(async_setting.dbs["main"].async_engine) as session:
                    session.add(Item(name=f"{number} {turn}"))
                    await session.flush()
                    if turn % 5 == 1:
                        raise ValueError
                    if turn % 5 == 2:
                        session.add(Item(name=f"{number} {turn}"))
                    if turn % 5 == 3:
                        await session.rollback()
                    await session.commit()
            except (ValueError, IntegrityError):
                continue

    async def work() -> None:
        await asyncio.gather(*(one(number) for number in range(8)))
        assert await counted(async_setting) == 8 * 10 * 2 // 5

    run(async_setting, work)


def test_rows_are_streamed(async_setting: Setting) -> None:
    async def work() -> None:
        async with AsyncSession(async_setting.dbs["main"].async_engine) as session:
            session.add_all(Item(name=f"{n:02}") for n in range(30))
            await session.commit()
            rows = await session.stream_scalars(select(Item.name).order_by(Item.name).execution_options(yield_per=7))
            assert [row async for row in rows] == [f"{n:02}" for n in range(30)]

    run(async_setting, work)


def test_a_savepoint_is_rolled_back_alone(async_setting: Setting) -> None:
    async def work() -> None:
        async with AsyncSession(async_setting.dbs["main"].async_engine) as session:
            session.add(Item(name="a"))
            with pytest.raises(IntegrityError):
                async with session.begin_nested():
                    session.add(Item(name="a"))
                    await session.flush()
            async with session.begin_nested():
                session.add(Item(name="b"))
            await session.commit()
        assert await counted(async_setting) == 2

    run(async_setting, work)


def test_event_loops_one_after_the_other_share_the_data(async_setting: Setting) -> None:
    async def write() -> None:
        async with async_setting.dbs["main"].async_engine.begin() as connection:
            await connection.execute(insert(Item), {"name": "a"})

    async def read() -> None:
        assert await counted(async_setting) == 1

    run(async_setting, write)
    run(async_setting, read)


def test_synchronous_writes_are_seen_by_the_asynchronous_engine_and_the_other_way(async_setting: Setting) -> None:
    if async_setting.dbs["main"].async_engine.dialect.driver == "asyncpg":
        pytest.skip("asyncpg has a connection of its own")

    async def work() -> None:
        assert await counted(async_setting) == 1
        async with async_setting.dbs["main"].async_engine.begin() as connection:
            await connection.execute(insert(Item), {"name": "b"})

    with async_setting.engine.begin() as connection:
        connection.execute(insert(Item), {"name": "a"})
    run(async_setting, work)
    assert async_setting.count() == 2


def test_a_task_that_is_cancelled_in_a_statement_leaves_the_transaction_usable(async_setting: Setting) -> None:
    sleeps = {"postgresql": "select pg_sleep(0.4)", "mysql": "select sleep(0.4)"}
    async_engine = async_setting.dbs["main"].async_engine
    slow = sleeps.get(async_engine.dialect.name)
    if slow is None:
        pytest.skip("SQLite has no statement that waits")

    async def work() -> None:
        async def one() -> None:
            async with async_engine.begin() as connection:
                await connection.execute(insert(Item), {"name": "lost"})
                started.set()
                await connection.execute(text(slow))

        async with async_engine.begin() as connection:
            await connection.execute(insert(Item), {"name": "a"})
        started = asyncio.Event()
        task = asyncio.create_task(one())
        await started.wait()
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with async_engine.begin() as connection:
            await connection.execute(insert(Item), {"name": "b"})
        assert await counted(async_setting) == 2

    run(async_setting, work)


def test_a_task_that_is_cancelled_while_it_waits_to_write_leaves_the_queue(async_setting: Setting) -> None:
    engine = async_setting.dbs["main"].async_engine

    async def work() -> None:
        async def one(name: str) -> None:
            async with engine.begin() as connection:
                await connection.execute(insert(Item), {"name": name})

        async with engine.begin() as connection:
            await connection.execute(insert(Item), {"name": "a"})
            waiting = asyncio.create_task(one("lost"))
            behind = asyncio.create_task(one("b"))
            await asyncio.sleep(0.05)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        await behind
        assert await counted(async_setting) == 2

    run(async_setting, work)


def test_a_task_that_is_cancelled_before_its_commit_begins_keeps_nobody(async_setting: Setting) -> None:
    engine = async_setting.dbs["main"].async_engine
    if engine.dialect.name == "sqlite":
        pytest.skip("SQLite has no statement that waits")
    lock, read, waiting = HELD_UP[engine.dialect.name]

    async def hold() -> None:
        async with engine.connect() as connection:
            await connection.execute(text(read))

    async def write(name: str) -> None:
        async with engine.begin() as connection:
            await connection.execute(insert(Item), {"name": name})

    async def work() -> None:
        connection = await engine.connect()
        await connection.execute(insert(Item), {"name": "a"})
        with create_engine(async_setting.url, poolclass=NullPool).connect() as outside:
            outside.execute(text(lock))
            holding = asyncio.create_task(hold())
            await asyncio.to_thread(wait_until, lambda: bool(outside.scalar(text(waiting))), "a statement is held up")
            committing = asyncio.create_task(connection.commit())
            await asyncio.sleep(0.05)
            committing.cancel()
            await asyncio.sleep(0.05)
        with pytest.raises(asyncio.CancelledError):
            await committing
        await connection.close()
        await holding
        await asyncio.create_task(write("b"))
        assert await counted(async_setting) == 2

    with async_setting.impatient():
        run(async_setting, work)


def test_the_event_loop_goes_on_while_a_statement_runs(async_setting: Setting) -> None:
    engine = async_setting.dbs["main"].async_engine
    if engine.dialect.name != "postgresql":
        pytest.skip("one server is enough")

    async def work() -> None:
        async def sleep() -> None:
            async with engine.connect() as connection:
                await connection.execute(text("select pg_sleep(0.3)"))

        task = asyncio.create_task(sleep())
        turns = 0
        while not task.done():
            await asyncio.sleep(0.01)
            turns += 1
        await task
        assert turns > 5

    run(async_setting, work)
