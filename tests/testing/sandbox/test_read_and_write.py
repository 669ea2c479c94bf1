"""
On SQLite nobody changes what a transaction has read before it writes, as in production; who only reads is overtaken.
"""

from __future__ import annotations

import asyncio
import threading
from time import monotonic, sleep
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import OperationalError

from stillroom import Retry
from stillroom.testing.errors import SandboxTimeout
from stillroom.testing.sandbox.floor import Waiter
from tests.testing.sandbox.support import PATIENCE, Item, in_threads, run

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy.orm import Session

    from stillroom import AsyncUnitOfWork
    from stillroom.testing.sandbox.floor import Holder
    from tests.testing.sandbox.support import Setting

SHOPPERS = 8
STOCK = 2
MEANWHILE = 0.01
"""Seconds in which others could read the same, if they were let."""


class SoldOut(Exception):
    """
    What the application raises.
    """


def fill(setting: Setting, stock: int = STOCK) -> None:
    with setting.dbs.unit_of_work() as uow:
        uow.main.add(Item(id=1, name=str(stock)))


def stock_of(setting: Setting) -> int:
    with setting.engine.connect() as connection:
        return int(connection.scalar(select(Item.name)) or 0)


def take(session: Session) -> None:
    item = session.scalars(select(Item)).one()
    sleep(MEANWHILE)
    if int(item.name) < 1:
        raise SoldOut
    item.name = str(int(item.name) - 1)
    session.flush()


def buy(setting: Setting, bought: list[bool]) -> None:
    try:
        with setting.dbs.unit_of_work() as uow:
            take(uow.main)
    except SoldOut:
        bought.append(False)
    else:
        bought.append(True)


async def buy_in_task(setting: Setting, bought: list[bool]) -> None:
    try:
        async with setting.dbs.async_unit_of_work() as uow:
            item = (await uow.main.scalars(select(Item))).one()
            await asyncio.sleep(MEANWHILE)
            if int(item.name) < 1:
                raise SoldOut
            item.name = str(int(item.name) - 1)
    except SoldOut:
        bought.append(False)
    else:
        bought.append(True)


def require_exact(setting: Setting, bought: Iterable[bool]) -> None:
    assert sorted(bought) == [False] * (SHOPPERS - STOCK) + [True] * STOCK
    assert stock_of(setting) == 0


# --- no update is lost


def test_threads_sell_the_stock_and_no_more(sqlite: Setting) -> None:
    fill(sqlite)
    bought: list[bool] = []
    in_threads(SHOPPERS, lambda _: buy(sqlite, bought))
    require_exact(sqlite, bought)


def test_tasks_sell_the_stock_and_no_more(sqlite: Setting) -> None:
    fill(sqlite)
    bought: list[bool] = []

    async def work() -> None:
        await asyncio.gather(*(buy_in_task(sqlite, bought) for _ in range(SHOPPERS)))

    run(sqlite, work)
    require_exact(sqlite, bought)


def test_tasks_in_another_thread_than_the_tests_sell_the_stock_and_no_more(sqlite: Setting) -> None:
    fill(sqlite)
    bought: list[bool] = []

    async def work() -> None:
        await asyncio.gather(*(buy_in_task(sqlite, bought) for _ in range(SHOPPERS)))

    in_threads(1, lambda _: run(sqlite, work))
    require_exact(sqlite, bought)


def test_a_read_that_is_open_in_the_test_lets_threads_sell_the_stock_and_no_more(sqlite: Setting) -> None:
    fill(sqlite)
    bought: list[bool] = []
    with sqlite.dbs.unit_of_work() as uow:
        assert uow.main.scalars(select(Item.name)).all() == ["2"]
        in_threads(SHOPPERS, lambda _: buy(sqlite, bought))
        assert uow.main.scalars(select(Item.name)).all() == ["0"]
    require_exact(sqlite, bought)


def test_a_read_that_is_open_in_the_tests_task_lets_others_sell_the_stock_and_no_more(sqlite: Setting) -> None:
    fill(sqlite)
    bought: list[bool] = []

    async def work() -> None:
        async with sqlite.dbs.async_unit_of_work() as uow:
            assert (await uow.main.scalars(select(Item.name))).all() == ["2"]
            await asyncio.gather(*(buy_in_task(sqlite, bought) for _ in range(SHOPPERS)))

    run(sqlite, work)
    require_exact(sqlite, bought)


def test_a_transaction_that_was_rolled_back_lets_the_next_one_begin(sqlite: Setting) -> None:
    fill(sqlite, stock=1)
    has_read = threading.Event()
    bought: list[bool] = []

    def hesitate() -> None:
        with sqlite.dbs.unit_of_work() as uow:
            uow.main.scalars(select(Item)).all()
            has_read.set()
            buyer.join(0.1)
            assert buyer.is_alive()
            uow.main.rollback()

    def buy_then() -> None:
        assert has_read.wait(PATIENCE)
        buy(sqlite, bought)

    buyer = threading.Thread(target=buy_then)
    buyer.start()
    in_threads(1, lambda _: hesitate())
    buyer.join(PATIENCE)
    assert bought == [True]


# --- who only reads makes nobody wait


def test_a_read_that_is_open_in_the_test_costs_a_thread_no_wait(sqlite: Setting) -> None:
    fill(sqlite)
    begun = monotonic()
    for _ in range(40):
        with sqlite.dbs.unit_of_work() as uow:
            uow.main.scalars(select(Item)).all()
            in_threads(1, lambda _: buy(sqlite, []))
    # To see that a reader does nothing takes 0.2 seconds, for each of them.
    assert monotonic() - begun < 40 * 0.15


def test_a_reader_takes_no_turn(sqlite: Setting) -> None:
    fill(sqlite)
    took: list[float] = []

    def read(number: int) -> None:
        begun = monotonic()
        for _ in range(10):
            with sqlite.dbs.unit_of_work() as uow:
                uow.reader.scalars(select(Item)).all()
                in_threads(1, lambda _: buy(sqlite, []))
        took.append(monotonic() - begun)

    in_threads(1, read)
    assert took[0] < 10 * 0.5  # to see that a thread does nothing takes a second


def test_what_a_task_began_that_has_ended_keeps_its_turn_while_another_uses_it(sqlite: Setting) -> None:
    fill(sqlite)
    bought: list[bool] = []

    async def work() -> None:
        connection = await sqlite.dbs["main"].async_engine.connect()
        await asyncio.create_task(connection.scalars(select(Item)))
        await connection.scalars(select(Item))
        buyer = asyncio.create_task(buy_in_task(sqlite, bought))
        await asyncio.wait((buyer,), timeout=MEANWHILE)
        await connection.execute(text("update items set name = '1'"))
        await connection.commit()
        await buyer
        await connection.close()

    run(sqlite, work)
    assert bought == [True]
    assert stock_of(sqlite) == 0


def test_a_task_that_reads_is_waited_for_once(sqlite: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(sqlite)
    looks = []
    looks_at = Waiter.looks_at

    def counted(waiter: Waiter, held: Holder) -> int:
        looks.append(waiter)
        return looks_at(waiter, held)

    monkeypatch.setattr(Waiter, "looks_at", counted)

    async def work() -> None:
        async with sqlite.dbs.async_unit_of_work() as uow:
            await uow.main.scalars(select(Item))
            for _ in range(20):
                await asyncio.create_task(buy_in_task(sqlite, []))

    run(sqlite, work)
    assert len(set(looks)) == 1


def test_a_thread_that_reads_and_waits_for_another_is_overtaken(sqlite: Setting) -> None:
    fill(sqlite)
    bought: list[bool] = []

    def read(number: int) -> None:
        with sqlite.dbs.unit_of_work() as uow:
            uow.main.scalars(select(Item)).all()
            in_threads(1, lambda _: buy(sqlite, bought))

    in_threads(1, read)
    assert bought == [True]


def test_a_task_that_reads_inside_of_what_the_test_has_written_is_overtaken(sqlite: Setting) -> None:
    fill(sqlite)
    bought: list[bool] = []

    async def work() -> None:
        async with sqlite.dbs.async_unit_of_work() as uow:
            await uow.main.scalars(select(Item))
            await asyncio.create_task(buy_in_task(sqlite, bought))

    with sqlite.dbs.unit_of_work() as uow:
        uow.main.add(Item(name="5"))
        uow.main.flush()
        uow.main.delete(uow.main.scalars(select(Item).where(Item.name == "5")).one())
        uow.main.flush()
        run(sqlite, work)
    assert bought == [True]


def test_a_read_goes_through_beside_a_task_that_has_written(sqlite: Setting) -> None:
    async def read() -> str | None:
        async with sqlite.dbs.async_unit_of_work() as uow:
            found: str | None = await uow.main.scalar(select(Item.name))
            return found

    async def work() -> None:
        async with sqlite.dbs.async_unit_of_work() as uow:
            uow.main.add(Item(name="a"))
            await uow.main.flush()
            assert await asyncio.create_task(read()) == "a"

    run(sqlite, work)


def test_a_thread_that_ended_with_a_read_open_keeps_nobody(sqlite: Setting) -> None:
    fill(sqlite)
    kept = []

    def leave_open(number: int) -> None:
        connection = sqlite.engine.connect()
        kept.append(connection)
        connection.scalars(select(Item)).all()

    bought: list[bool] = []
    in_threads(1, leave_open)
    in_threads(1, lambda _: buy(sqlite, bought))
    kept[0].close()
    assert bought == [True]


# --- what is stale


def test_a_write_upon_what_another_has_changed_is_refused_as_sqlite_does(sqlite: Setting) -> None:
    fill(sqlite)

    async def work() -> None:
        async with sqlite.dbs["main"].async_engine.connect() as connection:
            await connection.scalars(select(Item.name))
            await asyncio.create_task(buy_in_task(sqlite, []))
            with pytest.raises(OperationalError, match=r'database is locked: .*isolation="committed"') as caught:
                await connection.execute(text("update items set name = '1'"))
            assert getattr(caught.value.orig, "sqlite_errorname", "") == "SQLITE_BUSY_SNAPSHOT"

    run(sqlite, work)
    assert stock_of(sqlite) == STOCK - 1


def test_a_stale_transaction_is_retried(sqlite: Setting) -> None:
    fill(sqlite)
    runs: list[str] = []

    async def work() -> None:
        @sqlite.dbs.transactional(retry=Retry(attempts=2))
        async def sell(uow: AsyncUnitOfWork) -> None:
            item = (await uow.main.scalars(select(Item))).one()
            runs.append(item.name)
            if len(runs) == 1:
                await asyncio.create_task(buy_in_task(sqlite, []))
            item.name = str(int(item.name) - 1)

        await sell()

    run(sqlite, work)
    assert runs == ["2", "1"]
    assert stock_of(sqlite) == 0


def test_a_transaction_that_was_overtaken_by_a_reader_alone_may_write(sqlite: Setting) -> None:
    fill(sqlite)

    async def read() -> None:
        async with sqlite.dbs["main"].async_engine.connect() as connection:
            await connection.scalars(select(Item))

    async def work() -> None:
        async with sqlite.dbs["main"].async_engine.begin() as connection:
            await connection.scalars(select(Item))
            await asyncio.create_task(read())
            await connection.execute(text("update items set name = '7'"))

    run(sqlite, work)
    assert stock_of(sqlite) == 7


def test_the_tests_own_thread_may_write_after_others_did(sqlite: Setting) -> None:
    fill(sqlite)
    with sqlite.dbs.unit_of_work() as uow:
        uow.main.scalars(select(Item.name)).all()
        in_threads(1, lambda _: buy(sqlite, []))
        uow.main.add(Item(name="after it"))
    assert sqlite.count() == 2


def test_who_waits_in_vain_for_one_that_goes_on_reading_is_told_where_it_began(sqlite: Setting) -> None:
    fill(sqlite)
    told: list[str] = []
    done = threading.Event()

    def wait(number: int) -> None:
        try:
            buy(sqlite, [])
        except SandboxTimeout as error:
            told.append(str(error))
        finally:
            done.set()

    def go_on_reading(number: int) -> None:
        with sqlite.dbs.unit_of_work() as uow:
            uow.main.scalars(select(Item)).all()
            waiting = threading.Thread(target=wait, args=(0,))
            waiting.start()
            end = monotonic() + PATIENCE
            while not done.is_set() and monotonic() < end:
                uow.main.scalars(select(Item)).all()
            waiting.join(PATIENCE)

    with sqlite.impatient():
        in_threads(1, go_on_reading)
    assert len(told) == 1
    assert "has a transaction open, begun at" in told[0]
    assert "in go_on_reading" in told[0]
