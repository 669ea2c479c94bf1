"""
Waiting for a connection in asyncio is fair and can be cancelled; dead connections are replaced unnoticed.
"""

# the end of a unit of work is what raises, so its body stands inside the block
from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import threading
import time
import warnings
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text

from stillroom import Databases
from stillroom.aio.pool import TaskWaiter
from stillroom.errors import PoolTimeout
from stillroom.pool import Gate
from tests.aio.conftest import url_over
from tests.aio.support import Item, databases, held, ids, run, until
from tests.support import servers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stillroom.testing.servers import Proxy


@pytest.fixture
def single(any_url: str) -> Iterator[Databases]:
    """
    One database with a single connection, over each driver in turn.
    """
    with databases({"main": any_url}, pool_size=1, max_overflow=0, pool_timeout=5) as dbs:
        yield dbs


def gate_of(dbs: Databases) -> Gate:
    gate = dbs.main.async_engine.pool.gate  # type: ignore[attr-defined]
    assert isinstance(gate, Gate)
    return gate


async def wait_in_turn(dbs: Databases, number: int, order: list[int]) -> None:
    async with dbs.async_unit_of_work() as uow:
        await uow.main.execute(text("select 1"))
        order.append(number)


async def queue(dbs: Databases, count: int, order: list[int]) -> list[asyncio.Task[None]]:
    """
    Start tasks that wait for a connection, in a known order.
    """
    tasks = []
    for number in range(count):
        tasks.append(asyncio.create_task(wait_in_turn(dbs, number, order), name=f"waiting {number}"))
        await until(lambda number=number: gate_of(dbs).waiting == number + 1, "it waits")  # type: ignore[misc]
    return tasks


def test_tasks_get_connections_in_the_order_in_which_they_came(single: Databases) -> None:
    order: list[int] = []

    async def work() -> None:
        async with single.async_unit_of_work() as uow:
            await uow.main.execute(text("select 1"))
            tasks = await queue(single, 10, order)
        await asyncio.gather(*tasks)

    run(single, work)
    assert order == list(range(10))


def test_a_waiting_task_that_is_cancelled_leaves_the_queue(single: Databases) -> None:
    order: list[int] = []

    async def work() -> None:
        async with single.async_unit_of_work() as uow:
            await uow.main.execute(text("select 1"))
            tasks = await queue(single, 4, order)
            tasks[1].cancel()
            await asyncio.wait([tasks[1]])
            assert gate_of(single).waiting == 3
        await asyncio.gather(*tasks, return_exceptions=True)
        assert tasks[1].cancelled()

    run(single, work)
    assert order == [0, 2, 3]


def test_a_place_that_is_granted_to_a_task_at_the_moment_of_its_cancellation_is_handed_on(single: Databases) -> None:
    order: list[int] = []

    async def work() -> None:
        uow = single.async_unit_of_work()
        async with uow:
            await uow.main.execute(text("select 1"))
            tasks = await queue(single, 3, order)
            waiter = gate_of(single)._queue[0]

            def cancel_when_granted() -> None:
                # Runs in each turn of the loop: between the grant and the moment when the task goes on.
                if waiter.granted:
                    tasks[0].cancel()
                else:
                    asyncio.get_running_loop().call_soon(cancel_when_granted)

            cancel_when_granted()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert tasks[0].cancelled() or order[0] == 0

    run(single, work)
    assert order[-2:] == [1, 2]


def test_no_place_is_lost_however_waiters_are_cancelled() -> None:
    gate = Gate(2)
    chance = random.Random(3)

    async def one() -> None:
        from sqlalchemy.util import greenlet_spawn

        ticket = await greenlet_spawn(gate.enter, 5.0, TaskWaiter)
        try:
            await asyncio.sleep(0)
        finally:
            gate.leave(ticket)

    async def work() -> None:
        tasks = []
        for _ in range(3000):
            task = asyncio.create_task(one())
            tasks.append(task)
            if chance.random() < 0.5:
                for _ in range(chance.randrange(6)):
                    await asyncio.sleep(0)
                chance.choice(tasks[-20:]).cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert any(task.cancelled() for task in tasks)

    asyncio.run(work())
    assert (gate.free, gate.waiting, gate.holders) == (2, 0, set())


def test_a_place_given_back_by_a_thread_wakes_a_task() -> None:
    gate = Gate(1)

    async def work() -> None:
        from sqlalchemy.util import greenlet_spawn

        ticket = await greenlet_spawn(gate.enter, 5.0, TaskWaiter)
        waiting = asyncio.create_task(greenlet_spawn(gate.enter, 5.0, TaskWaiter))
        await until(lambda: gate.waiting == 1, "it waits")
        thread = threading.Thread(target=gate.leave, args=(ticket,))
        thread.start()
        gate.leave(await asyncio.wait_for(waiting, 2))
        thread.join()

    asyncio.run(work())
    assert not gate.holders


def test_who_waits_too_long_is_told_who_holds_the_connections(any_url: str) -> None:
    with databases({"main": any_url}, pool_size=1, max_overflow=0, pool_timeout=0.1) as dbs:
        begun = asyncio.Event()

        async def hold() -> None:
            async with dbs.async_unit_of_work() as uow:
                await uow.main.execute(text("select 1"))
                begun.set()
                await asyncio.Event().wait()  # this line is named

        async def work() -> PoolTimeout:
            holder = asyncio.create_task(hold(), name="the holder")
            await begun.wait()
            with pytest.raises(PoolTimeout) as caught:
                async with dbs.async_unit_of_work() as uow:
                    await uow.main.execute(text("select 1"))
            holder.cancel()
            await asyncio.wait([holder])
            return caught.value

        error = run(dbs, work)
        (holder,) = error.holders
        with open(__file__, encoding="utf-8") as source:  # noqa: PTH123  # plain reading of this file
            line = next(number for number, each in enumerate(source, 1) if "this line is named" in each)
        assert holder.startswith("task 'the holder' for ")
        assert holder.endswith(f"now at {__file__}:{line} in hold")
        assert "no connection came free within 0.1 s: all 1 are in use" in str(error)


def test_the_line_of_a_holder_is_the_innermost_of_the_application(any_url: str) -> None:
    with databases({"main": any_url}, pool_size=1, max_overflow=0, pool_timeout=0.1) as dbs:
        begun = asyncio.Event()

        async def innermost() -> None:
            begun.set()
            await asyncio.Event().wait()

        async def outermost() -> None:
            async with dbs.async_unit_of_work() as uow:
                await uow.main.execute(text("select 1"))
                await innermost()

        async def work() -> str:
            holder = asyncio.create_task(outermost())
            await begun.wait()
            with pytest.raises(PoolTimeout) as caught:
                async with dbs.async_unit_of_work() as uow:
                    await uow.main.execute(text("select 1"))
            holder.cancel()
            await asyncio.wait([holder])
            return caught.value.holders[0]

        assert run(dbs, work).endswith("in innermost")


def test_many_tasks_share_few_connections(any_url: str) -> None:
    with databases({"main": any_url}, pool_size=2, max_overflow=1) as dbs:

        async def one(key: int) -> None:
            async with dbs.async_unit_of_work() as uow:
                uow.main.add(Item(id=key))

        async def work() -> None:
            await asyncio.gather(*(one(key) for key in range(60)))

        run(dbs, work)
        assert ids(dbs) == list(range(60))


# --- dead connections


def kill(dbs: Databases) -> None:
    """
    End all connections to the database but the one that does it, as an administrator would.
    """
    url = dbs.main.settings.url
    plain = url.set(drivername=url.get_backend_name()).render_as_string(hide_password=False)
    if dbs.main.backend.name == "postgresql":
        servers.postgresql_execute(
            plain,
            "select pg_terminate_backend(pid) from pg_stat_activity "
            "where datname = current_database() and pid <> pg_backend_pid()",
        )
    else:
        admin = url.set(drivername="mysql", database="").render_as_string(hide_password=False)
        for connection in servers._mariadb_connections(admin, str(url.database)):
            servers.mariadb_execute(plain, f"KILL {connection}", missing_thread_is_fine=True)


# Not asyncmy, which does not tell that the server has hung up: there `ping_after` finds it.
@pytest.mark.parametrize("driver", ["psycopg", "asyncpg", "aiomysql"])
def test_a_pooled_connection_that_was_killed_is_replaced_unnoticed(driver: str, request: pytest.FixtureRequest) -> None:
    with databases({"main": url_over(driver, request)}, pool_size=3) as dbs:

        async def one(key: int) -> None:
            async with dbs.async_unit_of_work() as uow:
                uow.main.add(Item(id=key))
                await uow.main.flush()
                await asyncio.sleep(0.02)

        async def work() -> None:
            await asyncio.gather(*(one(key) for key in range(3)))
            assert dbs.main.async_engine.pool.checkedin() >= 3  # type: ignore[attr-defined]
            await asyncio.to_thread(kill, dbs)
            await asyncio.sleep(0.1)  # the farewell is under way; nothing else tells that it has come
            await asyncio.gather(*(one(key) for key in range(3, 6)))

        run(dbs, work)
        assert ids(dbs) == list(range(6))


# --- nothing is left behind


def test_connecting_that_is_cancelled_leaves_no_connection_on_the_server(pg_url: str) -> None:
    with databases({"main": pg_url}, pool_size=2) as dbs:
        chance = random.Random(1)

        async def one(delay: float) -> None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay) as limit:
                    async with dbs.async_unit_of_work() as uow:
                        connection = await uow.main.connection()
                        if not limit.expired():
                            # SQLAlchemy 2.0 forgets to check in a connection of asyncpg whose end is cancelled.
                            limit.reschedule(None)
                            await connection.invalidate()
                        raise TimeoutError

        async def work() -> None:
            start = time.monotonic()
            for _ in range(5):
                await one(10)
            longest = (time.monotonic() - start) / 5
            for _ in range(150):
                await one(chance.uniform(0, longest))
            dbs.close()
            await dbs.aclose()
            await until(lambda: servers.open_connections(pg_url) == 0, "the server has no connection of ours")

        gc.disable()  # a connection must not hang on the next collection
        try:
            run(dbs, work)
        finally:
            gc.enable()
    gc.collect()  # what it complains of is told here, not by the next test


@pytest.fixture
def unanswered(pg_url: str, proxy: Proxy) -> Iterator[Databases]:
    """
    One database with a single connection, whose server answers nothing until `proxy.resume()`.
    """
    settings = {"url": proxy.url(pg_url), "pool_size": 1, "max_overflow": 0, "pool_timeout": 0.1}
    proxy.pause()
    with Databases({"databases": {"main": settings}}) as dbs:
        yield dbs


async def give_up_connecting(dbs: Databases) -> None:
    connecting = asyncio.create_task(wait_in_turn(dbs, 1, []))
    await until(lambda: held(dbs).get("main writer, asyncio"), "it connects")
    connecting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await connecting


def test_closing_waits_for_a_connection_that_nobody_waits_for_any_more(unanswered: Databases, proxy: Proxy) -> None:
    async def work() -> None:
        await give_up_connecting(unanswered)
        pool: Any = unanswered.main.async_engine.pool
        closing = asyncio.create_task(unanswered.aclose())
        await asyncio.wait([closing], timeout=0.1)
        assert not closing.done()
        await asyncio.to_thread(proxy.resume)
        await closing
        assert (pool.checkedout(), pool.checkedin(), pool.gate.holders) == (0, 0, set())

    run(unanswered, work)


def test_a_place_is_taken_until_the_connection_that_was_given_up_is_there(unanswered: Databases, proxy: Proxy) -> None:
    order: list[int] = []

    async def work() -> None:
        await give_up_connecting(unanswered)
        with pytest.raises(PoolTimeout, match="Held by a task that has ended"):
            await wait_in_turn(unanswered, 2, order)
        await asyncio.to_thread(proxy.resume)
        await until(lambda: not held(unanswered), "the place is free")
        await wait_in_turn(unanswered, 3, order)
        assert proxy.accepted == 1  # what one task gave up serves the next

    run(unanswered, work)
    assert order == [3]


def test_no_place_is_lost_when_the_event_loop_ends_during_a_checkout(single: Databases) -> None:
    async def work() -> None:
        gate = gate_of(single)
        loop = asyncio.get_running_loop()
        me = asyncio.current_task()

        def end_when_held() -> None:
            # As asyncio.run does at its end; in the very turn of the loop after the place was taken.
            if gate.holders:
                for task in asyncio.all_tasks() - {me}:
                    task.cancel()
            else:
                loop.call_soon(end_when_held)

        loop.call_soon(end_when_held)
        task = asyncio.create_task(wait_in_turn(single, 1, []))
        await asyncio.wait([task])
        assert task.cancelled()
        assert not held(single)

    run(single, work)


def test_a_unit_that_was_cancelled_warns_of_nothing(any_dbs: Databases) -> None:
    async def one(moment: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(moment):
                async with any_dbs.async_unit_of_work() as uow:
                    await uow.main.execute(text("select 1"))
                    await asyncio.sleep(0.01)

    async def work() -> None:
        await asyncio.gather(*(one(number / 2000) for number in range(40)))

    caught: list[Any] = []
    gc.collect()  # what other tests have left
    with warnings.catch_warnings(record=True) as recorded:
        warnings.simplefilter("always")
        run(any_dbs, work)
        gc.collect()
        caught.extend(recorded)
    assert [str(each.message) for each in caught] == []
    assert not held(any_dbs)
