"""
Callbacks of a unit of work in asyncio: synchronous and asynchronous ones, after the end, and only after that end.
"""

# the end of a unit of work is what raises, so its body stands inside the block
from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from stillroom.errors import HookError, NoUnitOfWork
from stillroom.status import Status
from tests.aio.support import Item, databases, ids, run

if TYPE_CHECKING:
    from stillroom import Databases
    from stillroom.aio import AsyncUnitOfWork


def test_callbacks_run_in_order_and_are_awaited(any_dbs: Databases) -> None:
    calls: list[str] = []

    async def later(name: str) -> None:
        await asyncio.sleep(0.01)
        calls.append(name)

    async def work() -> None:
        async with any_dbs.async_unit_of_work() as uow:
            uow.main.add(Item(id=1))
            uow.on_commit(lambda: later("first"))
            uow.on_commit(lambda: calls.append("second"))
            uow.on_commit(lambda: later("third"))
            uow.on_rollback(lambda: calls.append("never"))
        assert calls == ["first", "second", "third"]

    run(any_dbs, work)


def test_after_a_rollback_only_its_own_callbacks_run(any_dbs: Databases) -> None:
    calls: list[str] = []

    async def later() -> None:
        await asyncio.sleep(0)
        calls.append("rolled back")

    async def work() -> None:
        with pytest.raises(KeyError):
            async with any_dbs.async_unit_of_work() as uow:
                uow.on_commit(lambda: calls.append("never"))
                uow.on_rollback(later)
                raise KeyError
        assert calls == ["rolled back"]

    run(any_dbs, work)


def test_the_callbacks_of_a_savepoint_go_with_it(any_dbs: Databases) -> None:
    calls: list[int] = []

    async def work() -> None:
        async with any_dbs.async_unit_of_work() as uow:
            uow.on_commit(lambda: calls.append(1))
            with pytest.raises(KeyError):
                async with uow.savepoint():
                    uow.on_commit(lambda: calls.append(2))
                    raise KeyError
            async with uow.savepoint():
                uow.on_commit(lambda: calls.append(3))
            assert calls == []

    run(any_dbs, work)
    assert calls == [1, 3]


def test_a_callback_sees_what_was_committed_in_a_unit_of_its_own(any_dbs: Databases) -> None:
    seen: list[int | None] = []

    async def look() -> None:
        async with any_dbs.async_unit_of_work() as uow:
            seen.append(await uow.main.scalar(text("select count(*) from items")))
            uow.main.add(Item(id=2))

    async def work() -> None:
        async with any_dbs.async_unit_of_work() as uow:
            uow.main.add(Item(id=1))
            uow.on_commit(look)

    run(any_dbs, work)
    assert seen == [1]
    assert ids(any_dbs) == [1, 2]


def test_a_callback_sees_the_outer_unit_or_none(any_dbs: Databases) -> None:
    seen: list[object] = []

    def look() -> None:
        try:
            seen.append(any_dbs.current)
        except NoUnitOfWork:
            seen.append(None)

    async def work() -> AsyncUnitOfWork:
        async with any_dbs.async_unit_of_work() as outer:
            async with any_dbs.async_unit_of_work() as inner:
                inner.on_commit(look)
            outer.on_commit(look)
        return outer

    outer = run(any_dbs, work)
    assert seen == [outer, None]


def test_all_callbacks_run_and_their_errors_are_raised_together(any_dbs: Databases) -> None:
    calls: list[int] = []

    async def fail() -> None:
        raise LookupError("async")

    def fail_too() -> None:
        raise ZeroDivisionError("sync")

    async def work() -> AsyncUnitOfWork:
        uow = any_dbs.async_unit_of_work()
        with pytest.raises(HookError, match="committed, but 2 callback") as caught:
            async with uow:
                uow.main.add(Item(id=1))
                uow.on_commit(fail)
                uow.on_commit(fail_too)
                uow.on_commit(lambda: calls.append(3))
        assert [type(error) for error in caught.value.exceptions] == [LookupError, ZeroDivisionError]
        return uow

    assert run(any_dbs, work).status is Status.COMMITTED
    assert calls == [3]
    assert ids(any_dbs) == [1]


def test_a_callback_of_the_rollback_that_fails_is_noted_on_the_error(any_dbs: Databases) -> None:
    async def fail() -> None:
        raise LookupError("gone")

    async def work() -> None:
        with pytest.raises(KeyError) as caught:
            async with any_dbs.async_unit_of_work() as uow:
                uow.on_rollback(fail)
                raise KeyError
        assert "LookupError('gone')" in "".join(caught.value.__notes__)

    run(any_dbs, work)


def test_commit_by_hand_runs_the_callbacks_so_far(any_dbs: Databases) -> None:
    calls: list[int] = []

    async def work() -> None:
        async with any_dbs.async_unit_of_work(commit="manual") as uow:
            uow.main.add(Item(id=1))
            uow.on_commit(lambda: calls.append(1))
            await uow.commit()
            assert calls == [1]
            uow.on_commit(lambda: calls.append(2))
            await uow.rollback()
        assert calls == [1]

    run(any_dbs, work)


def test_a_cancellation_during_the_callbacks_waits_for_them(any_dbs: Databases) -> None:
    calls: list[str] = []

    async def work() -> AsyncUnitOfWork:
        uow = any_dbs.async_unit_of_work()
        begun = asyncio.Event()

        async def slow() -> None:
            begun.set()
            await asyncio.sleep(0.1)
            calls.append("done")

        async def body() -> None:
            async with uow:
                uow.main.add(Item(id=1))
                uow.on_commit(slow)

        task = asyncio.create_task(body())
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return uow

    assert run(any_dbs, work).status is Status.COMMITTED
    assert calls == ["done"]


def test_a_callback_that_never_returns_does_not_hold_the_caller_for_ever(pg_url: str) -> None:
    calls: list[str] = []

    with databases({"main": pg_url}, commit_timeout=0.2) as dbs:

        async def work() -> AsyncUnitOfWork:
            uow = dbs.async_unit_of_work()
            start = time.monotonic()
            with pytest.raises(HookError, match="committed, but 1 callback") as caught:
                async with uow:
                    uow.main.add(Item(id=1))
                    uow.on_commit(asyncio.Event().wait)
                    uow.on_commit(lambda: calls.append("the next one"))
            assert time.monotonic() - start < 5
            assert isinstance(caught.value.exceptions[0], TimeoutError)
            return uow

        assert run(dbs, work).status is Status.COMMITTED
        assert ids(dbs) == [1]
        assert calls == ["the next one"]
