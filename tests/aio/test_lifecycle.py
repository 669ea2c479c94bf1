"""
A unit of work in asyncio begins, does its work and ends as the synchronous one does.
"""

# the end of a unit of work is what raises, so its body stands inside the block
from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError, IntegrityError

from stillroom import Databases, Retry
from stillroom.errors import (
    NoUnitOfWork,
    PartialCommitError,
    PropagationError,
    ReadOnlyError,
    TransactionAborted,
    UnitOfWorkEnded,
)
from stillroom.status import Status
from tests.aio.support import Item, databases, failing_commit, held, ids, run

if TYPE_CHECKING:
    from pathlib import Path

    from stillroom.aio import AsyncUnitOfWork


# --- one database


def test_what_was_written_is_committed_at_the_end(any_dbs: Databases) -> None:
    async def work() -> AsyncUnitOfWork:
        async with any_dbs.async_unit_of_work() as uow:
            uow.main.add(Item(id=1))
            await uow.main.execute(text("insert into items (id, name) values (2, 'two')"))
        return uow

    assert run(any_dbs, work).status is Status.COMMITTED
    assert ids(any_dbs) == [1, 2]


def test_an_exception_rolls_everything_back(any_dbs: Databases) -> None:
    async def work() -> AsyncUnitOfWork:
        with pytest.raises(KeyError, match="oh"):
            async with any_dbs.async_unit_of_work() as uow:
                uow.main.add(Item(id=1))
                await uow.main.flush()
                raise KeyError("oh")
        return uow

    assert run(any_dbs, work).status is Status.ROLLED_BACK
    assert ids(any_dbs) == []


def test_doom_rolls_back_without_an_exception(any_dbs: Databases) -> None:
    async def work() -> AsyncUnitOfWork:
        async with any_dbs.async_unit_of_work() as uow:
            uow.main.add(Item(id=1))
            await uow.main.flush()
            uow.doom("second thoughts")
        return uow

    assert run(any_dbs, work).status is Status.ROLLED_BACK
    assert ids(any_dbs) == []


def test_a_savepoint_rolls_back_alone(any_dbs: Databases) -> None:
    async def work() -> None:
        async with any_dbs.async_unit_of_work() as uow:
            uow.main.add(Item(id=1))
            with pytest.raises(KeyError):
                async with uow.savepoint():
                    uow.main.add(Item(id=2))
                    await uow.main.flush()
                    raise KeyError
            async with uow.savepoint():
                uow.main.add(Item(id=3))

    run(any_dbs, work)
    assert ids(any_dbs) == [1, 3]


def test_an_integrity_error_inside_a_savepoint_leaves_the_unit_usable(any_dbs: Databases) -> None:
    async def work() -> None:
        async with any_dbs.async_unit_of_work() as uow:
            uow.main.add(Item(id=1))
            await uow.main.flush()
            with pytest.raises(IntegrityError):
                async with uow.savepoint():
                    await uow.main.execute(text("insert into items (id, name) values (1, '')"))
            uow.main.add(Item(id=2))

    run(any_dbs, work)
    assert ids(any_dbs) == [1, 2]


def test_objects_stay_readable_after_the_end(any_dbs: Databases) -> None:
    async def work() -> Item:
        async with any_dbs.async_unit_of_work() as uow:
            item = Item(id=1, name="one")
            uow.main.add(item)
        return item

    assert run(any_dbs, work).name == "one"


def test_a_reader_is_refused_a_write(any_dbs: Databases) -> None:
    async def work() -> None:
        async with any_dbs.async_unit_of_work() as uow:
            assert (await uow.reader.scalars(select(Item.id))).all() == []
        with pytest.raises(ReadOnlyError, match="a reader of 'main' cannot write"):
            async with any_dbs.async_unit_of_work() as uow:
                uow.reader.add(Item(id=1))
                await uow.reader.flush()
        with pytest.raises(ReadOnlyError):
            async with any_dbs.async_unit_of_work() as uow:
                await uow.reader.execute(text("insert into items (id, name) values (1, '')"))

    run(any_dbs, work)
    assert ids(any_dbs) == []


def test_a_snapshot_does_not_see_what_is_committed_meanwhile(any_dbs: Databases) -> None:
    async def work() -> None:
        async with any_dbs.async_unit_of_work() as uow:
            snapshot = uow.session(role="reader", snapshot=True)
            assert uow.reader(snapshot=True) is snapshot  # type: ignore[operator]
            assert (await snapshot.scalars(select(Item.id))).all() == []
            async with any_dbs.async_transaction(propagation="new") as other:
                other.main.add(Item(id=1))
            assert (await snapshot.scalars(select(Item.id))).all() == []
            assert (await uow.reader.scalars(select(Item.id))).all() == [1]

    run(any_dbs, work)


def test_commit_by_hand_keeps_what_came_before_it_only(any_dbs: Databases) -> None:
    async def work() -> AsyncUnitOfWork:
        async with any_dbs.async_unit_of_work(commit="manual") as uow:
            uow.main.add(Item(id=1))
            await uow.commit()
            uow.main.add(Item(id=2))
            await uow.rollback()
            uow.main.add(Item(id=3))
            await uow.commit()
            uow.main.add(Item(id=4))
            await uow.main.flush()
        return uow

    assert run(any_dbs, work).status is Status.PARTLY_COMMITTED
    assert ids(any_dbs) == [1, 3]


def test_it_is_used_once(any_dbs: Databases) -> None:
    async def work() -> None:
        uow = any_dbs.async_unit_of_work()
        with pytest.raises(UnitOfWorkEnded, match="was not entered"):
            _ = uow.main
        async with uow:
            session = uow.main
            await session.execute(text("select 1"))
        with pytest.raises(UnitOfWorkEnded, match=r"it ended at .*: committed"):
            _ = uow.main
        with pytest.raises(UnitOfWorkEnded):
            await uow.__aenter__()

    run(any_dbs, work)


def test_the_dialect_may_be_asked_for_before_the_first_statement(any_dbs: Databases) -> None:
    async def work() -> None:
        async with any_dbs.async_unit_of_work() as uow:
            assert uow.main.get_bind().dialect.name
            uow.main.add(Item(id=1))
            await uow.main.flush()
            assert uow.main.get_bind().dialect.name

    run(any_dbs, work)
    assert ids(any_dbs) == [1]


def test_an_error_that_was_swallowed_makes_the_commit_fail(pg_dbs: Databases) -> None:
    async def work() -> AsyncUnitOfWork:
        uow = pg_dbs.async_unit_of_work()
        with pytest.raises(TransactionAborted):
            async with uow:
                uow.main.add(Item(id=1))
                await uow.main.flush()
                with pytest.raises(DBAPIError):
                    await uow.main.execute(text("select 1/0"))
        return uow

    assert run(pg_dbs, work).status is Status.ROLLED_BACK
    assert ids(pg_dbs) == []


def test_isolation_is_the_one_asked_for(pg_dbs: Databases) -> None:
    async def work() -> str:
        async with pg_dbs.async_unit_of_work(isolation="SERIALIZABLE") as uow:
            return str(await uow.main.scalar(text("show transaction_isolation")))

    assert run(pg_dbs, work) == "serializable"


def test_a_single_database_gives_a_session(any_dbs: Databases) -> None:
    async def work() -> None:
        async with any_dbs.main.async_session() as session:
            session.add(Item(id=1))

    run(any_dbs, work)
    assert ids(any_dbs) == [1]


def test_it_works_on_uvloop(any_dbs: Databases) -> None:
    pytest.importorskip("uvloop")

    async def work() -> AsyncUnitOfWork:
        async with any_dbs.async_unit_of_work() as uow:
            uow.main.add(Item(id=1))
        return uow

    assert run(any_dbs, work, loop="uvloop").status is Status.COMMITTED
    assert ids(any_dbs) == [1]


# --- several databases


def test_all_databases_are_committed_together(pair: Databases) -> None:
    async def work() -> AsyncUnitOfWork:
        async with pair.async_unit_of_work() as uow:
            uow.main.add(Item(id=1))
            uow.audit.add(Item(id=1))
        return uow

    assert run(pair, work).status is Status.COMMITTED
    assert ids(pair) == ids(pair, "audit") == [1]


def test_a_commit_that_fails_half_way_says_what_is_durable(pair: Databases) -> None:
    failing_commit(pair, "main")

    async def work() -> AsyncUnitOfWork:
        uow = pair.async_unit_of_work()
        with pytest.raises(PartialCommitError) as caught:
            async with uow:
                uow.main.add(Item(id=1))
                uow.audit.add(Item(id=1))
        assert caught.value.committed == ("audit",)
        assert caught.value.failed == ("main",)
        return uow

    assert run(pair, work).status is Status.PARTLY_COMMITTED
    assert ids(pair) == []
    assert ids(pair, "audit") == [1]


def test_a_flush_that_fails_leaves_nothing_in_any_database(pair: Databases) -> None:
    async def work() -> AsyncUnitOfWork:
        async with pair.async_unit_of_work() as uow:
            uow.main.add(Item(id=1))
        uow = pair.async_unit_of_work()
        with pytest.raises(IntegrityError):
            async with uow:
                uow.audit.add(Item(id=2))
                uow.main.add(Item(id=1))
        return uow

    assert run(pair, work).status is Status.ROLLED_BACK
    assert ids(pair, "audit") == []


def test_what_was_logged_survives_the_rollback(any_url: str, tmp_path: Path) -> None:
    log = f"sqlite+aiosqlite:///{tmp_path / 'log.db'}"
    with (
        databases({"main": any_url, "log": log}) as declared,
        Databases(
            {"default": "main", "databases": {"main": {"url": any_url}, "log": {"url": log, "role": "logger"}}}
        ) as dbs,
    ):

        async def work() -> None:
            with pytest.raises(KeyError):
                async with dbs.async_unit_of_work() as uow:
                    uow.main.add(Item(id=1))
                    await uow.main.flush()
                    uow.logger.add(Item(id=7))
                    raise KeyError

        run(dbs, work)
        assert ids(declared, "log") == [7]
        assert ids(declared) == []


# --- current and propagation


def test_the_innermost_unit_is_current(any_dbs: Databases) -> None:
    async def work() -> None:
        async with any_dbs.async_unit_of_work() as outer:
            assert any_dbs.current is outer
            async with any_dbs.async_unit_of_work() as inner:
                assert any_dbs.current is inner
            assert any_dbs.current is outer
            assert any_dbs.session() is outer.main
        with pytest.raises(NoUnitOfWork, match="no unit of work is open"):
            _ = any_dbs.current

    run(any_dbs, work)


def test_a_task_that_inherits_an_ended_unit_is_told_so(any_dbs: Databases) -> None:
    async def work() -> None:
        ended = asyncio.Event()

        async def child() -> None:
            await ended.wait()
            with pytest.raises(NoUnitOfWork, match="this task inherited is not usable any more"):
                any_dbs.session()

        async with any_dbs.async_unit_of_work() as uow:
            await uow.main.execute(text("select 1"))
            task = asyncio.create_task(child())
            await asyncio.sleep(0)
        ended.set()
        await task

    run(any_dbs, work)


def test_transactions_join_nest_or_stand_alone(any_dbs: Databases) -> None:
    async def work() -> None:
        async with any_dbs.async_transaction() as uow:
            async with any_dbs.async_transaction() as joined:
                assert joined is uow
            async with any_dbs.async_transaction(propagation="mandatory") as joined:
                assert joined is uow
            async with any_dbs.async_transaction(propagation="nested") as joined:
                assert joined is uow
                joined.main.add(Item(id=1))
            async with any_dbs.async_transaction(propagation="new", read_only=True) as other:
                assert other is not uow
            with pytest.raises(PropagationError, match="never"):
                async with any_dbs.async_transaction(propagation="never"):
                    raise AssertionError
            with pytest.raises(PropagationError, match="the two worlds cannot share one"), any_dbs.transaction():
                raise AssertionError
        with pytest.raises(NoUnitOfWork):
            async with any_dbs.async_transaction(propagation="mandatory"):
                raise AssertionError

    run(any_dbs, work)
    assert ids(any_dbs) == [1]


def test_a_coroutine_function_is_tried_again_with_a_fresh_unit(pg_dbs: Databases) -> None:
    units = []

    @pg_dbs.transactional(retry=Retry(attempts=3, base=0.001))
    async def write(uow: AsyncUnitOfWork, key: int) -> int:
        units.append(uow)
        uow.main.add(Item(id=key))
        await uow.main.flush()
        if len(units) < 3:
            await uow.main.execute(text("do $$ begin raise exception 'again' using errcode = '40001'; end $$"))
        return key

    async def work() -> int:
        return await write(5)

    assert run(pg_dbs, work) == 5
    assert [unit.status for unit in units] == [Status.ROLLED_BACK, Status.ROLLED_BACK, Status.COMMITTED]
    assert ids(pg_dbs) == [5]


def test_inside_another_unit_nothing_is_tried_again(pg_dbs: Databases) -> None:
    calls = []

    @pg_dbs.transactional(retry=Retry(attempts=3, base=0.001))
    async def write(uow: AsyncUnitOfWork) -> None:
        calls.append(uow)
        await uow.main.execute(text("do $$ begin raise exception 'again' using errcode = '40001'; end $$"))

    async def work() -> None:
        with pytest.raises(DBAPIError) as caught:
            async with pg_dbs.async_unit_of_work():
                await write()
        assert "may be tried again" in "".join(caught.value.__notes__)

    run(pg_dbs, work)
    assert len(calls) == 1


def test_a_cancellation_is_never_tried_again(any_dbs: Databases) -> None:
    calls = []

    @any_dbs.transactional(retry=Retry(attempts=5, base=0.001))
    async def wait_forever(uow: AsyncUnitOfWork) -> None:
        calls.append(uow)
        await uow.main.execute(text("select 1"))
        await asyncio.Event().wait()

    async def work() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await wait_forever()

    run(any_dbs, work)
    assert [unit.status for unit in calls] == [Status.ROLLED_BACK]


# --- closing


def test_aclose_closes_all_connections_and_the_next_use_opens_new_ones(pair: Databases) -> None:
    async def work() -> None:
        for key in (1, 2):
            async with pair.async_unit_of_work() as uow:
                uow.main.add(Item(id=key))
                await uow.reader.execute(text("select 1"))
                uow.audit.add(Item(id=key))
            pools = [pool for name in pair for kind, pool in pair[name].pools().items() if "asyncio" in kind]
            assert sum(pool.checkedin() for pool in pools) == 3
            await pair.aclose()
            assert sum(pool.checkedin() for pool in pools) == 0
            assert not held(pair)

    run(pair, work)
    assert ids(pair) == ids(pair, "audit") == [1, 2]


@pytest.mark.parametrize("loop", ["asyncio", "anyio"])
def test_after_aclose_a_second_event_loop_works(any_dbs: Databases, loop: str) -> None:
    for key in (1, 2, 3):

        async def work(key: int = key) -> None:
            async with any_dbs.async_unit_of_work() as uow:
                uow.main.add(Item(id=key))

        run(any_dbs, work, loop=loop)
    assert ids(any_dbs) == [1, 2, 3]
