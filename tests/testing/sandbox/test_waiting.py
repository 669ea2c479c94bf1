"""
Who wants to write while another has not committed waits in turn, and is told who and where; who reads never waits.
"""

from __future__ import annotations

import asyncio
import re
import threading
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from stillroom.testing.errors import SandboxError, SandboxTimeout
from tests.testing.sandbox.support import PATIENCE, Item, in_threads, run

if TYPE_CHECKING:
    from tests.testing.sandbox.support import Setting


def add(setting: Setting, name: str) -> None:
    with Session(setting.engine) as session:
        session.add(Item(name=name))
        session.commit()


def in_thread(setting: Setting, name: str) -> None:
    in_threads(1, lambda _: add(setting, name))


def test_a_thread_that_would_wait_for_ever_is_told_who_writes_and_where(setting: Setting) -> None:
    with Session(setting.engine) as session:
        session.add(Item(name="a"))
        session.flush()
        with setting.impatient(), pytest.raises(SandboxTimeout) as caught:
            in_thread(setting, "b")
        session.rollback()
    told = str(caught.value)
    assert "the thread 'MainThread' has uncommitted writes" in told
    assert re.search(re.escape(__file__) + r":\d+ in test_a_thread_that_would", told)
    assert 'isolation="committed"' in told


def test_a_read_that_is_open_makes_nobody_wait(setting: Setting) -> None:
    with Session(setting.engine) as session:
        assert session.scalars(select(Item)).all() == []
        with setting.impatient():
            in_thread(setting, "a")
        assert session.scalars(select(Item.name)).all() == ["a"]


def test_another_threads_read_goes_through_while_one_writes(setting: Setting) -> None:
    seen: list[str] = []

    def read(number: int) -> None:
        with setting.engine.connect() as connection:
            seen.extend(connection.scalars(select(Item.name)))

    with Session(setting.engine) as session:
        session.add(Item(name="a"))
        session.flush()
        in_threads(1, read)
        session.commit()
    assert seen == ["a"]


def test_who_waits_goes_on_when_the_writer_commits(setting: Setting) -> None:
    with Session(setting.engine) as session:
        session.add(Item(name="a"))
        session.flush()
        waiting = threading.Thread(target=add, args=(setting, "b"))
        waiting.start()
        waiting.join(0.1)
        assert waiting.is_alive()
        session.commit()
        waiting.join(PATIENCE)
    assert setting.count() == 2


def test_a_thread_that_ended_inside_a_transaction_is_told_at_once(setting: Setting) -> None:
    kept: list[Session] = []

    def leave_open(number: int) -> None:
        session = Session(setting.engine)
        kept.append(session)
        session.add(Item(name="a"))
        session.flush()

    in_threads(1, leave_open)
    with pytest.raises(SandboxTimeout, match="'worker 0' has ended and left a transaction open"):
        add(setting, "b")
    kept[0].close()
    add(setting, "b")


def test_a_session_that_nobody_has_any_more_makes_nobody_wait(setting: Setting) -> None:
    def forget(number: int) -> None:
        session = Session(setting.engine)
        session.add(Item(name="a"))
        session.flush()

    in_threads(1, forget)
    add(setting, "b")
    assert setting.count() == 1


# --- one thread, several transactions


def test_transactions_of_one_thread_nest(setting: Setting) -> None:
    with Session(setting.engine) as outer, Session(setting.engine) as inner:
        outer.add(Item(name="outer"))
        outer.flush()
        inner.add(Item(name="inner"))
        inner.flush()
        inner.rollback()
        inner.add(Item(name="inner again"))
        inner.commit()
        outer.commit()
    assert setting.count() == 2


def test_an_outer_transaction_may_be_committed_first(setting: Setting) -> None:
    with Session(setting.engine) as outer, Session(setting.engine) as inner:
        outer.add(Item(name="outer"))
        outer.flush()
        inner.add(Item(name="inner"))
        inner.flush()
        outer.commit()
        inner.rollback()
    assert setting.count() == 1
    in_thread(setting, "nobody holds it")


def test_the_rollback_of_an_outer_transaction_tells_the_inner_one(setting: Setting) -> None:
    with Session(setting.engine) as outer, Session(setting.engine) as inner:
        outer.add(Item(name="outer"))
        outer.flush()
        inner.add(Item(name="inner"))
        inner.flush()
        outer.rollback()
        with pytest.raises(SandboxError, match=r"inside of another one .* rolled back first"):
            inner.commit()
    assert setting.count() == 0
    in_thread(setting, "nobody holds it")


def test_what_an_outer_transaction_wrote_inside_an_inner_one_is_not_lost_in_silence(setting: Setting) -> None:
    with Session(setting.engine) as outer, Session(setting.engine) as inner:
        outer.add(Item(name="outer"))
        outer.flush()
        inner.add(Item(name="inner"))
        inner.flush()
        outer.add(Item(name="outer, later"))
        outer.flush()
        inner.rollback()
        with pytest.raises(SandboxError, match="End the inner one first"):
            outer.commit()
    in_thread(setting, "nobody holds it")


# --- tasks


def test_a_task_that_would_wait_for_ever_is_told_who_writes_and_where(async_setting: Setting) -> None:
    engine = async_setting.dbs["main"].async_engine

    async def write() -> None:
        async with engine.begin() as connection:
            await connection.execute(insert(Item), {"name": "b"})

    async def work() -> None:
        async with engine.connect() as connection:
            await connection.execute(insert(Item), {"name": "a"})
            with async_setting.impatient(), pytest.raises(SandboxTimeout) as caught:
                await asyncio.create_task(write(), name="the other")
        told = str(caught.value)
        assert "the task 'the other' waited" in told
        assert re.search(re.escape(__file__) + r":\d+ in work", told)

    run(async_setting, work)


def test_synchronous_code_in_an_event_loop_is_told_at_once_that_it_would_wait_for_ever(setting: Setting) -> None:
    engine = setting.dbs["main"].async_engine

    async def work() -> None:
        ready = asyncio.Event()
        go_on = asyncio.Event()

        async def write() -> None:
            async with engine.connect() as connection:
                await connection.execute(insert(Item), {"name": "a"})
                ready.set()
                await go_on.wait()

        task = asyncio.create_task(write())
        await ready.wait()
        with pytest.raises(SandboxTimeout, match="cannot go on meanwhile"):
            add(setting, "b")
        go_on.set()
        await task

    run(setting, work)


def test_a_task_nests_in_what_the_thread_began_before_its_loop(setting: Setting) -> None:
    async def work() -> None:
        async with setting.dbs["main"].async_engine.begin() as connection:
            await connection.execute(insert(Item), {"name": "b"})

    with Session(setting.engine) as session:
        session.add(Item(name="a"))
        session.flush()
        run(setting, work)
        session.commit()
    assert setting.count() == 2


def test_threads_and_tasks_together_get_exact_counts(setting: Setting) -> None:
    async def one(number: int) -> None:
        for turn in range(8):
            async with setting.dbs.async_unit_of_work() as uow:
                uow.main.add(Item(name=f"task {number} {turn}"))
                await uow.main.flush()
                if turn % 2:
                    await uow.main.rollback()

    async def work() -> None:
        await asyncio.gather(*(one(number) for number in range(4)))

    def thread(number: int) -> None:
        if number == 0:
            run(setting, work)
            return
        for turn in range(8):
            with setting.dbs.unit_of_work() as uow:
                uow.main.add(Item(name=f"thread {number} {turn}"))
                uow.main.flush()
                if turn % 2:
                    uow.main.rollback()

    in_threads(4, thread)
    assert setting.count() == (4 + 3) * 4
