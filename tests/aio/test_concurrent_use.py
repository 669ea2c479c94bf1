"""
Two tasks that use one unit of work at once are refused, both named, before anything is sent; the next unit is clean.
"""

# the end of a unit of work is what raises, so its body stands inside the block
from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import InvalidRequestError

from stillroom.errors import ConcurrentUseError, UnitOfWorkEnded
from stillroom.status import Status
from tests.aio.support import Item, databases, ids, nothing_held, run, until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from stillroom import Databases
    from stillroom.aio import AsyncUnitOfWork


def busy_for(seconds: float, dbs: Databases) -> str:
    """
    Return a statement that keeps the connection busy, on servers that can wait.
    """
    return {
        "postgresql": f"select pg_sleep({seconds})",
        "mysql": f"select sleep({seconds})",
        # SQLite cannot sleep; it counts.
        "sqlite": "with recursive n(i) as (select 1 union all select i + 1 from n where i < 1000000) "
        "select max(i) from n",
    }[dbs.main.backend.name]


def sent(dbs: Databases) -> list[str]:
    """
    Return a list to which every statement that reaches a driver is added.
    """
    statements: list[str] = []

    def before(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        statements.append(statement)

    event.listen(dbs.main.async_engine.sync_engine, "before_cursor_execute", before)
    return statements


async def refused(
    dbs: Databases, second: Callable[[AsyncUnitOfWork], Awaitable[object]], **options: Any
) -> tuple[AsyncUnitOfWork, ConcurrentUseError]:
    """
    Run `second` in a task while another one, "first", is in a statement; return the error that it must get.
    """
    uow = dbs.async_unit_of_work(**options)
    with pytest.raises(ConcurrentUseError) as caught:
        async with uow:
            await uow.main.execute(text("select 1"))

            async def first() -> None:
                await uow.main.execute(text(busy_for(0.3, dbs)))

            async def other() -> None:
                await second(uow)

            running = asyncio.create_task(first(), name="first")
            session = next(iter(uow.core.sessions.values()))
            await until(lambda: session.state is not None and session.state.busy is running, "the first one is busy")
            try:
                await asyncio.create_task(other(), name="second")
            finally:
                await running
    return uow, caught.value


async def the_next_unit_is_clean(dbs: Databases) -> None:
    for key in (101, 102):
        async with dbs.async_unit_of_work() as uow:
            uow.main.add(Item(id=key))
    await nothing_held(dbs)  # one whose opening was cancelled goes back when it is open


def check(dbs: Databases, second: Callable[[AsyncUnitOfWork], Awaitable[object]], **options: Any) -> AsyncUnitOfWork:
    """
    Check what every kind of overlap has in common.
    """

    async def work() -> AsyncUnitOfWork:
        uow, error = await refused(dbs, second, **options)
        assert "'first' is running a statement on 'main', and 'second' wants to" in str(error)
        assert "async with dbs.async_unit_of_work()" in str(error)
        await the_next_unit_is_clean(dbs)
        return uow

    uow = run(dbs, work)
    assert uow.status is Status.ROLLED_BACK
    assert ids(dbs) == [101, 102]
    return uow


def test_two_statements_at_once(any_dbs: Databases) -> None:
    check(any_dbs, lambda uow: uow.main.execute(text("select 2")))


def test_a_flush_beside_a_statement(any_dbs: Databases) -> None:
    async def flush(uow: AsyncUnitOfWork) -> None:
        uow.main.add(Item(id=1))
        await uow.main.flush()

    check(any_dbs, flush)


def test_a_commit_beside_a_statement(any_dbs: Databases) -> None:
    check(any_dbs, lambda uow: uow.main.commit())


def test_a_commit_of_the_unit_beside_a_statement(any_dbs: Databases) -> None:
    check(any_dbs, lambda uow: uow.commit(), commit="manual")


def test_a_rollback_beside_a_statement(any_dbs: Databases) -> None:
    check(any_dbs, lambda uow: uow.main.rollback())


def test_a_rollback_of_the_unit_beside_a_statement(any_dbs: Databases) -> None:
    check(any_dbs, lambda uow: uow.rollback())


def test_a_savepoint_beside_a_statement(any_dbs: Databases) -> None:
    async def nest(uow: AsyncUnitOfWork) -> None:
        async with uow.savepoint():
            pass

    check(any_dbs, nest)


def test_the_second_statement_is_not_sent(pg_dbs: Databases) -> None:
    async def work() -> None:
        statements = sent(pg_dbs)
        await refused(pg_dbs, lambda uow: uow.main.execute(text("select 'the second'")))
        # SQLAlchemy tells of it before our own check, so look at what the server knows of its statements instead.
        async with pg_dbs.async_unit_of_work() as uow:
            last = await uow.main.scalar(
                text("select count(*) from pg_stat_activity where query like '%''the sec%' and pid <> pg_backend_pid()")
            )
        assert last == 0
        assert statements

    run(pg_dbs, work)


def test_a_connection_is_still_refused_after_it_was_refused_once(pg_dbs: Databases) -> None:
    async def work() -> None:
        async with pg_dbs.async_unit_of_work() as uow:
            connection = await uow.main.connection()
            running = asyncio.create_task(connection.execute(text(busy_for(60, pg_dbs))))
            session = next(iter(uow.core.sessions.values()))
            await until(lambda: session.state is not None and session.state.busy is running, "the first one is busy")
            for _ in range(2):
                with pytest.raises(ConcurrentUseError):
                    await connection.execute(text("select 2"))
            running.cancel()
            await asyncio.wait([running])
            uow.doom()

    run(pg_dbs, work)


def test_gather_on_one_unit_before_its_first_connection(any_dbs: Databases) -> None:
    async def work() -> None:
        uow = any_dbs.async_unit_of_work()
        with pytest.raises(ConcurrentUseError) as caught:
            async with uow:

                async def child() -> None:
                    await uow.main.execute(text("select 1"))

                tasks = [asyncio.create_task(child(), name=name) for name in ("first", "second")]
                await asyncio.gather(*tasks)
        assert "'first' is running" in str(caught.value)
        assert "'second' wants to" in str(caught.value)
        await asyncio.gather(*tasks, return_exceptions=True)
        assert uow.status is Status.ROLLED_BACK
        await the_next_unit_is_clean(any_dbs)

    run(any_dbs, work)


def test_a_task_group_on_one_unit(any_dbs: Databases) -> None:
    async def work() -> None:
        uow = any_dbs.async_unit_of_work()
        with pytest.raises(ExceptionGroup) as caught:
            async with uow, asyncio.TaskGroup() as group:
                for _ in range(5):
                    group.create_task(uow.main.execute(text("select 1")))
        assert all(isinstance(error, ConcurrentUseError) for error in caught.value.exceptions)
        assert uow.status is Status.ROLLED_BACK
        await the_next_unit_is_clean(any_dbs)

    run(any_dbs, work)


def test_the_end_while_a_child_is_at_work(any_dbs: Databases) -> None:
    async def work() -> None:
        uow = any_dbs.async_unit_of_work()

        async def child() -> None:
            await uow.main.execute(text(busy_for(0.3, any_dbs)))

        with pytest.raises(ConcurrentUseError, match="'child' is running a statement"):
            async with uow:
                uow.main.add(Item(id=1))
                await uow.main.flush()
                task = asyncio.create_task(child(), name="child")
                session = next(iter(uow.core.sessions.values()))
                await until(lambda: session.state is not None and session.state.busy is task, "the child is busy")
        await asyncio.wait([task])
        assert uow.status is Status.ROLLED_BACK
        await the_next_unit_is_clean(any_dbs)

    run(any_dbs, work)
    assert ids(any_dbs) == [101, 102]


def test_the_end_while_a_child_waits_for_the_connection(any_url: str) -> None:
    with databases({"main": any_url}, pool_size=1, max_overflow=0) as dbs:

        async def work() -> None:
            uow = dbs.async_unit_of_work()
            gate = dbs.main.async_engine.pool.gate  # type: ignore[attr-defined]

            async def child() -> None:
                await uow.main.execute(text("select 1"))

            async with dbs.async_unit_of_work() as holder:
                await holder.main.execute(text("select 1"))
                with pytest.raises(KeyError):
                    async with uow:
                        task = asyncio.create_task(child(), name="child")
                        await until(lambda: gate.waiting == 1, "the child waits")
                        raise KeyError
            with pytest.raises(UnitOfWorkEnded, match="ended while this task waited for a connection"):
                await task
            assert uow.status is Status.ROLLED_BACK
            await the_next_unit_is_clean(dbs)

        run(dbs, work)


def test_a_statement_beside_a_commit(pg_dbs: Databases) -> None:
    from tests.aio.support import slow_commit

    slow_commit(pg_dbs, 0.3)

    async def work() -> None:
        async with pg_dbs.async_unit_of_work(commit="manual") as uow:
            uow.main.add(Item(id=1))
            await uow.main.flush()
            committing = asyncio.create_task(uow.commit(), name="first")
            await until(lambda: uow.status is Status.COMMITTING, "the COMMIT is under way")
            await asyncio.sleep(0.05)
            with pytest.raises((ConcurrentUseError, UnitOfWorkEnded)):
                await uow.main.execute(text("select 1"))
            await committing
        await the_next_unit_is_clean(pg_dbs)

    run(pg_dbs, work)
    assert ids(pg_dbs) == [1, 101, 102]


def test_a_statement_beside_the_commit_of_the_session(pg_dbs: Databases) -> None:
    from tests.aio.support import slow_commit

    slow_commit(pg_dbs, 0.3)

    async def work() -> None:
        async with pg_dbs.async_unit_of_work() as uow:
            uow.main.add(Item(id=1))
            await uow.main.flush()
            session = next(iter(uow.core.sessions.values()))
            committing = asyncio.create_task(uow.main.commit(), name="first")
            await until(lambda: session.state is not None and session.state.committing, "the COMMIT is under way")
            with pytest.raises(InvalidRequestError):  # SQLAlchemy's own, which ConcurrentUseError is too
                await uow.main.execute(text("select 1"))
            await committing
        await the_next_unit_is_clean(pg_dbs)

    run(pg_dbs, work)
    assert ids(pg_dbs) == [1, 101, 102]


def test_a_unit_may_be_handed_from_task_to_task(any_dbs: Databases) -> None:
    async def work() -> AsyncUnitOfWork:
        uow = any_dbs.async_unit_of_work()

        async def step(key: int) -> None:
            uow.main.add(Item(id=key))
            await uow.main.flush()

        async def leave() -> None:
            await uow.__aexit__(None, None, None)

        await asyncio.create_task(uow.__aenter__())
        for key in (1, 2, 3):
            await asyncio.create_task(step(key))
        await asyncio.create_task(leave())
        return uow

    assert run(any_dbs, work).status is Status.COMMITTED
    assert ids(any_dbs) == [1, 2, 3]


def test_two_databases_of_one_unit_may_be_read_at_once(pair: Databases) -> None:
    async def work() -> None:
        async with pair.async_unit_of_work() as uow:
            await asyncio.gather(
                uow.main.execute(text("select pg_sleep(0.05)")), uow.audit.execute(text("select pg_sleep(0.05)"))
            )

    run(pair, work)


def test_each_child_with_a_unit_of_its_own_is_right(any_dbs: Databases) -> None:
    async def work() -> None:
        async def child(key: int) -> None:
            async with any_dbs.async_unit_of_work() as uow:
                uow.main.add(Item(id=key))

        async with any_dbs.async_unit_of_work() as outer:
            assert any_dbs.current is outer
            await asyncio.gather(*(child(key) for key in range(20)))

    run(any_dbs, work)
    assert ids(any_dbs) == list(range(20))
