"""
What ends a unit of work early, and what never does: the limit of its body, and the limit of its end.
"""

# the end of a unit of work is what raises, so its body stands inside the block
from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from stillroom import Databases
from stillroom.errors import CommitOutcomeUnknown, Disconnected, UnitOfWorkTimeout
from stillroom.status import Status
from stillroom.testing.servers import wait_until
from tests.aio.support import Item, databases, ids, run, slow_commit, until

if TYPE_CHECKING:
    from stillroom.aio import AsyncUnitOfWork
    from stillroom.testing.servers import Proxy, Trigger

LIMIT = 0.3
"""The limit of a body, in seconds."""


# --- the limit of the body


def test_a_body_within_its_limit_is_committed(any_dbs: Databases) -> None:
    async def work() -> AsyncUnitOfWork:
        async with any_dbs.async_unit_of_work(timeout=20) as uow:
            uow.main.add(Item(id=1))
        return uow

    assert run(any_dbs, work).status is Status.COMMITTED
    assert ids(any_dbs) == [1]


def test_a_body_that_waits_too_long_is_rolled_back(any_dbs: Databases) -> None:
    async def work() -> AsyncUnitOfWork:
        uow = any_dbs.async_unit_of_work(timeout=LIMIT)
        with pytest.raises(UnitOfWorkTimeout, match=r"longer than its limit of 0\.3 s; it is rolled back"):
            async with uow:
                uow.main.add(Item(id=1))
                await uow.main.flush()
                await asyncio.Event().wait()
        return uow

    assert run(any_dbs, work).status is Status.ROLLED_BACK
    assert ids(any_dbs) == []


def test_a_statement_that_takes_too_long_is_ended(pg_dbs: Databases) -> None:
    async def work() -> AsyncUnitOfWork:
        uow = pg_dbs.async_unit_of_work(timeout=LIMIT)
        start = time.monotonic()
        with pytest.raises(Exception) as caught:  # noqa: PT011  # the server's error or ours: whichever comes first
            async with uow:
                uow.main.add(Item(id=1))
                await uow.main.flush()
                await uow.main.execute(text("select pg_sleep(5)"))
        assert isinstance(caught.value, UnitOfWorkTimeout)
        assert time.monotonic() - start < 2
        return uow

    assert run(pg_dbs, work).status is Status.ROLLED_BACK


def test_the_limit_does_not_end_the_commit(pg_dbs: Databases) -> None:
    slow_commit(pg_dbs, 2 * LIMIT)

    async def work() -> AsyncUnitOfWork:
        async with pg_dbs.async_unit_of_work(timeout=LIMIT) as uow:
            uow.main.add(Item(id=1))
        return uow

    assert run(pg_dbs, work).status is Status.COMMITTED
    assert ids(pg_dbs) == [1]


def test_a_body_that_blocked_the_loop_past_its_limit_is_rolled_back(any_dbs: Databases) -> None:
    async def work() -> AsyncUnitOfWork:
        uow = any_dbs.async_unit_of_work(timeout=LIMIT)
        with pytest.raises(UnitOfWorkTimeout):
            async with uow:
                uow.main.add(Item(id=1))
                await uow.main.flush()
                time.sleep(LIMIT * 1.2)  # noqa: ASYNC251  # what must not be done, and is
        return uow

    assert run(any_dbs, work).status is Status.ROLLED_BACK
    assert ids(any_dbs) == []


def test_the_limit_leaves_the_task_uncancelled(any_dbs: Databases) -> None:
    async def work() -> None:
        with pytest.raises(UnitOfWorkTimeout):
            async with any_dbs.async_unit_of_work(timeout=0.05) as uow:
                await uow.main.execute(text("select 1"))
                await asyncio.Event().wait()
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        await asyncio.sleep(0.01)

    run(any_dbs, work)


# --- the limit of the end


@pytest.mark.parametrize("verify", [False, True], ids=["unverified", "verified"])
@pytest.mark.parametrize("reached", [False, True], ids=["lost before the server", "lost after the server"])
def test_a_commit_in_a_black_hole_frees_the_caller_and_tells_the_truth(
    pg_url: str, proxy: Proxy, *, verify: bool, reached: bool
) -> None:
    with (
        databases({"main": pg_url}) as direct,
        Databases(
            {"databases": {"main": {"url": proxy.url(pg_url), "commit_timeout": 0.5, "verify_commit": verify}}}
        ) as dbs,
    ):

        async def work() -> AsyncUnitOfWork:
            async with dbs.async_unit_of_work() as uow:
                uow.main.add(Item(id=1))
            uow = dbs.async_unit_of_work()
            start = time.monotonic()
            expected = CommitOutcomeUnknown if not verify else Disconnected if not reached else None
            with pytest.raises(expected) if expected is not None else contextlib.nullcontext():
                async with uow:
                    uow.main.add(Item(id=2))
                    await uow.main.flush()
                    proxy.on_client(b"COMMIT", "black_hole_after" if reached else "black_hole")
            assert time.monotonic() - start < 4
            # The server still holds the transaction of the connection that was given up, until the proxy ends it.
            await asyncio.to_thread(proxy.cut)
            return uow

        status = run(dbs, work).status
        if not verify:
            assert status is Status.UNKNOWN
            wait_until(lambda: len(ids(direct)) == 1 + reached, "the server has decided")
        else:
            assert status is (Status.COMMITTED if reached else Status.ROLLED_BACK)
        assert ids(direct) == ([1, 2] if reached else [1])


def test_a_cancellation_does_not_shorten_the_search_for_the_outcome(pg_url: str, proxy: Proxy) -> None:
    with (
        databases({"main": pg_url}) as direct,
        Databases(
            {"databases": {"main": {"url": proxy.url(pg_url), "commit_timeout": 0.5, "verify_commit": True}}}
        ) as dbs,
    ):

        async def work() -> AsyncUnitOfWork:
            async with dbs.async_unit_of_work() as uow:
                uow.main.add(Item(id=1))
            uow = dbs.async_unit_of_work()

            async def body() -> None:
                async with uow:
                    uow.main.add(Item(id=2))
                    await uow.main.flush()
                    proxy.on_client(b"COMMIT", "black_hole_after")

            task = asyncio.create_task(body())
            await until(lambda: uow.status is Status.COMMITTING, "the COMMIT is under way")
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            return uow

        assert run(dbs, work).status is Status.COMMITTED
        assert ids(direct) == [1, 2]


def test_a_server_that_answers_nothing_any_more_frees_the_caller(pg_url: str, proxy: Proxy) -> None:
    settings = {"url": proxy.url(pg_url), "commit_timeout": 0.5, "verify_commit": True, "connect_timeout": 2}
    with databases({"main": pg_url}), Databases({"databases": {"main": settings}}) as dbs:

        def pause_after(trigger: Trigger) -> None:
            trigger.wait()
            proxy.pause()

        async def work() -> AsyncUnitOfWork:
            async with dbs.async_unit_of_work() as uow:
                uow.main.add(Item(id=1))
            uow = dbs.async_unit_of_work()
            start = time.monotonic()
            with pytest.raises(CommitOutcomeUnknown):
                async with uow:
                    uow.main.add(Item(id=2))
                    await uow.main.flush()
                    trigger = proxy.on_client(b"COMMIT", "hold")
                    asyncio.get_running_loop().run_in_executor(None, pause_after, trigger)
            assert time.monotonic() - start < 15
            await asyncio.to_thread(proxy.resume)
            await asyncio.to_thread(proxy.cut)
            return uow

        assert run(dbs, work).status is Status.UNKNOWN


def test_a_rollback_in_a_black_hole_frees_the_caller_with_the_error_of_the_body(pg_url: str, proxy: Proxy) -> None:
    with (
        databases({"main": pg_url}),
        Databases({"databases": {"main": {"url": proxy.url(pg_url), "commit_timeout": 0.5}}}) as dbs,
    ):

        async def work() -> AsyncUnitOfWork:
            uow = dbs.async_unit_of_work()
            start = time.monotonic()
            with pytest.raises(KeyError):
                async with uow:
                    uow.main.add(Item(id=1))
                    await uow.main.flush()
                    proxy.on_client(b"ROLLBACK", "black_hole")
                    raise KeyError
            assert time.monotonic() - start < 10
            await asyncio.to_thread(proxy.cut)
            return uow

        assert run(dbs, work).status is Status.ROLLED_BACK
