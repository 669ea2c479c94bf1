"""
A unit of work that is cancelled says what is true, leaks nothing and does not hold up the event loop.
"""

# the end of a unit of work is what raises, so its body stands inside the block
from __future__ import annotations

import asyncio
import contextlib
import random
import statistics
import time
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from sqlalchemy import text

from stillroom.errors import PartialCommitError
from stillroom.status import Status
from tests.aio.support import Item, databases, failing_commit, ids, run, slow_commit, until

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from stillroom import Databases
    from stillroom.aio import AsyncUnitOfWork

LOOPS = ("asyncio", "anyio")
SLOW = 0.4
"""How long a slow COMMIT takes, in seconds."""
STORM_UNITS = 1250
STORM_TASKS = 12


def statement_that_takes(seconds: float, dbs: Databases) -> str:
    return f"select sleep({seconds})" if dbs.main.backend.name == "mysql" else f"select pg_sleep({seconds})"


# --- in the body


def test_a_cancelled_body_is_rolled_back(any_dbs: Databases) -> None:
    async def work() -> AsyncUnitOfWork:
        uow = any_dbs.async_unit_of_work()
        flushed = asyncio.Event()

        async def body() -> None:
            async with uow:
                uow.main.add(Item(id=1))
                await uow.main.flush()
                flushed.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(body())
        await flushed.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return uow

    assert run(any_dbs, work).status is Status.ROLLED_BACK
    assert ids(any_dbs) == []


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg", "aiomysql", "asyncmy"])
def test_a_statement_that_is_cancelled_is_rolled_back_at_once(driver: str, request: pytest.FixtureRequest) -> None:
    from tests.aio.conftest import url_over

    with databases({"main": url_over(driver, request)}) as dbs:

        async def work() -> AsyncUnitOfWork:
            uow = dbs.async_unit_of_work()
            start = time.monotonic()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.15), uow:
                    uow.main.add(Item(id=1))
                    await uow.main.flush()
                    await uow.main.execute(text(statement_that_takes(2, dbs)))
            assert time.monotonic() - start < 1.5
            async with dbs.async_unit_of_work() as other:
                await other.main.execute(text("select 1"))
            return uow

        assert run(dbs, work).status is Status.ROLLED_BACK
        assert ids(dbs) == []


def test_a_cancellation_that_is_swallowed_inside_the_body_does_not_commit_half(pg_dbs: Databases) -> None:
    async def work() -> AsyncUnitOfWork:
        uow = pg_dbs.async_unit_of_work()
        with contextlib.suppress(Exception):
            async with uow:
                uow.main.add(Item(id=1))
                await uow.main.flush()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.1):
                        await uow.main.execute(text("select pg_sleep(2)"))
                uow.main.add(Item(id=2))
        return uow

    assert run(pg_dbs, work).status is Status.ROLLED_BACK
    assert ids(pg_dbs) == []


# --- during the end


@pytest.mark.parametrize("loop", LOOPS)
def test_a_cancellation_during_commit_is_delivered_after_it(pg_dbs: Databases, loop: str) -> None:
    slow_commit(pg_dbs, SLOW)

    async def work() -> tuple[AsyncUnitOfWork, list[str]]:
        uow = pg_dbs.async_unit_of_work()
        events: list[str] = []

        async def body() -> None:
            async with uow:
                uow.main.add(Item(id=1))
                uow.on_commit(lambda: events.append("hook"))
            await asyncio.sleep(0)  # anyio cancels where the task next waits
            events.append("after the block")

        await cancelled(body, when=lambda: uow.status is Status.COMMITTING, loop=loop)
        assert uow.status is Status.COMMITTED
        return uow, events

    _, events = run(pg_dbs, work, loop=loop)
    assert events == ["hook"]
    assert ids(pg_dbs) == [1]


async def cancelled(body: Callable[[], Coroutine[Any, Any, None]], *, when: Callable[[], object], loop: str) -> None:
    """
    Run `body` and cancel it once `when` is true, by a task's cancel() or by a scope of anyio.
    """
    if loop == "anyio":
        async with anyio.create_task_group() as group:
            group.start_soon(body)
            await until(when, "the moment for the cancellation has come")
            group.cancel_scope.cancel()
        return
    task = asyncio.ensure_future(body())
    await until(when, "the moment for the cancellation has come")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.alone
@pytest.mark.parametrize("loop", LOOPS)
def test_waiting_for_a_slow_commit_in_a_cancelled_task_costs_no_cpu(pg_dbs: Databases, loop: str) -> None:
    slow_commit(pg_dbs, SLOW)

    async def work() -> float:
        async with pg_dbs.async_unit_of_work() as uow:
            await uow.main.execute(text("select 1"))
        uow = pg_dbs.async_unit_of_work()
        used = 0.0

        async def body() -> None:
            async with uow:
                uow.main.add(Item(id=1))

        def committing() -> bool:
            nonlocal used
            used = time.process_time()
            return uow.status is Status.COMMITTING

        await cancelled(body, when=committing, loop=loop)
        return time.process_time() - used

    assert run(pg_dbs, work, loop=loop) < SLOW / 4


def test_a_timeout_around_the_unit_that_strikes_in_commit_leaves_it_committed(pg_dbs: Databases) -> None:
    slow_commit(pg_dbs, SLOW)

    async def work() -> AsyncUnitOfWork:
        uow = pg_dbs.async_unit_of_work()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(SLOW / 2), uow:
                uow.main.add(Item(id=1))
        return uow

    assert run(pg_dbs, work).status is Status.COMMITTED
    assert ids(pg_dbs) == [1]


def test_a_second_and_a_third_cancellation_change_nothing(pg_dbs: Databases) -> None:
    slow_commit(pg_dbs, SLOW)

    async def work() -> AsyncUnitOfWork:
        uow = pg_dbs.async_unit_of_work()

        async def body() -> None:
            async with uow:
                uow.main.add(Item(id=1))

        task = asyncio.create_task(body())
        await until(lambda: uow.status is Status.COMMITTING, "the COMMIT is under way")
        for _ in range(3):
            task.cancel()
            await asyncio.sleep(0.01)
        with pytest.raises(asyncio.CancelledError):
            await task
        return uow

    assert run(pg_dbs, work).status is Status.COMMITTED
    assert ids(pg_dbs) == [1]


def test_a_commit_that_fails_under_a_cancellation_goes_with_it(pair: Databases) -> None:
    slow_commit(pair, SLOW, "audit")
    failing_commit(pair, "main")

    async def work() -> tuple[AsyncUnitOfWork, BaseException | None]:
        uow = pair.async_unit_of_work()

        async def body() -> None:
            async with uow:
                uow.main.add(Item(id=1))
                uow.audit.add(Item(id=1))

        task = asyncio.create_task(body())
        await until(lambda: uow.status is Status.COMMITTING, "the COMMIT is under way")
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
        return uow, caught.value.__cause__

    uow, cause = run(pair, work)
    assert uow.status is Status.PARTLY_COMMITTED
    assert isinstance(cause, PartialCommitError)
    assert cause.committed == ("audit",)
    assert (ids(pair), ids(pair, "audit")) == ([], [1])


def test_commit_by_hand_is_not_cut_short(pg_dbs: Databases) -> None:
    slow_commit(pg_dbs, SLOW)

    async def work() -> AsyncUnitOfWork:
        uow = pg_dbs.async_unit_of_work(commit="manual")

        async def body() -> None:
            async with uow:
                uow.main.add(Item(id=1))
                await uow.commit()
                raise AssertionError

        await cancelled(body, when=lambda: uow.status is Status.COMMITTING, loop="asyncio")
        return uow

    assert run(pg_dbs, work).status is Status.PARTLY_COMMITTED
    assert ids(pg_dbs) == [1]


def test_an_end_that_the_event_loop_s_own_end_cancels_before_its_first_step_is_carried_out(
    any_dbs: Databases,
) -> None:
    async def work() -> AsyncUnitOfWork:
        uow = any_dbs.async_unit_of_work()
        me = asyncio.current_task()

        def cancel_all() -> None:  # as asyncio.run does at its end
            for each in asyncio.all_tasks() - {me}:
                each.cancel()

        async def body() -> None:
            async with uow:
                uow.main.add(Item(id=1))
                await uow.main.flush()
                asyncio.get_running_loop().call_soon(cancel_all)  # runs after the body, before the task of the end

        task = asyncio.create_task(body())
        await asyncio.wait([task])
        assert task.cancelled()
        return uow

    assert run(any_dbs, work).status is Status.COMMITTED
    assert ids(any_dbs) == [1]


# --- the storm


class Gaps:
    """
    Measures how long the event loop is held up at most, in seconds.
    """

    def __init__(self) -> None:
        self.longest = 0.0

    async def tick(self) -> None:
        last = time.monotonic()
        while True:
            await asyncio.sleep(0.005)
            now = time.monotonic()
            self.longest = max(self.longest, now - last)
            last = now


@pytest.mark.alone
@pytest.mark.parametrize("loop", LOOPS)
def test_the_status_is_true_however_many_units_are_cancelled(  # noqa: PLR0915  # one storm, and what it leaves
    pair_urls: dict[str, str], loop: str
) -> None:
    """
    1,250 units over two databases with each driver and each way to cancel: 5,000 in all.
    """
    with databases(pair_urls, pool_size=4, max_overflow=2) as dbs:
        # Each unit is known by its number, which is also the key of its row in both databases.
        units: dict[int, AsyncUnitOfWork] = {}
        cancel: dict[int, Callable[[], object]] = {}
        hooked: list[int] = []
        gaps = Gaps()
        chance = random.Random(20)

        async def unit(number: int, moment: int = 0, within: float = 0.0) -> None:
            """
            Cancel the unit within so many seconds from a moment: 1 before its start, 2 in its body, 3 at its end.
            """

            def strike(now: int) -> None:
                if now == moment:
                    asyncio.get_running_loop().call_later(chance.uniform(0, within), cancel[number])

            uow = units[number] = dbs.async_unit_of_work()
            strike(1)
            async with uow:
                uow.on_commit(lambda: hooked.append(number))
                uow.main.add(Item(id=number))
                await uow.main.flush()
                strike(2)
                await uow.audit.execute(text(f"insert into items (id, name) values ({number}, '')"))
                strike(3)

        async def one(number: int, within: float) -> None:
            moment = chance.choice((1, 2, 3))
            if loop == "anyio":
                with anyio.CancelScope() as scope:
                    cancel[number] = scope.cancel
                    await unit(number, moment, within)
                return
            task = asyncio.create_task(unit(number, moment, within))
            cancel[number] = task.cancel
            with contextlib.suppress(asyncio.CancelledError):
                await task

        async def work() -> None:
            taken = []
            for number in range(-10, 0):  # a measure of how long a unit takes here
                start = time.monotonic()
                await unit(number)
                taken.append(time.monotonic() - start)
            within = statistics.median(taken) * STORM_TASKS / 2
            ticking = asyncio.create_task(gaps.tick())
            numbers = iter(range(STORM_UNITS))

            async def worker() -> None:
                for number in numbers:
                    await one(number, within)

            await asyncio.gather(*(worker() for _ in range(STORM_TASKS)))
            ticking.cancel()

        run(dbs, work, loop=loop)
        main, audit = set(ids(dbs)), set(ids(dbs, "audit"))
        statuses = {number: uow.status for number, uow in units.items() if uow.status is not Status.NEW}
        committed = {number for number, status in statuses.items() if status is Status.COMMITTED}
        rolled_back = {number for number, status in statuses.items() if status is Status.ROLLED_BACK}
        assert main == audit == committed == set(hooked)
        assert len(hooked) == len(committed)
        assert committed | rolled_back == set(statuses)
        assert len(units) == STORM_UNITS + 10
        # Otherwise the storm would prove little.
        assert min(len(committed), len(rolled_back)) > STORM_UNITS / 10
        assert gaps.longest < 0.5
