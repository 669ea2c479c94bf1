"""
What SQLAlchemy's asyncio drivers refuse outside of its greenlets, the sandbox refuses too.

Else a lazy load that a coroutine forgot passes its tests and fails in production.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import insert, select
from sqlalchemy.exc import MissingGreenlet, StatementError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, foreign, mapped_column, relationship, remote
from sqlalchemy.pool import NullPool

from tests.testing.sandbox.support import Item, Setting, run

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    from sqlalchemy.ext.asyncio import AsyncEngine

REFUSED = "greenlet_spawn has not been called"

# aiosqlite itself, refused, leaves a coroutine behind.
pytestmark = pytest.mark.filterwarnings("ignore:coroutine 'Connection.cursor' was never awaited:RuntimeWarning")


class Base(DeclarativeBase):
    """
    The tables once more, with what can be loaded late.
    """


class Sibling(Base):
    """
    An item that knows the other ones.
    """

    __tablename__ = "items"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    others: Mapped[list[Sibling]] = relationship(
        primaryjoin=lambda: remote(foreign(Sibling.id)) != Sibling.id, viewonly=True, uselist=True
    )


def refused() -> Any:
    """
    Expect what is refused for want of a greenlet. Where a driver awaits its cursors, SQLAlchemy wraps the error.
    """
    return pytest.raises((MissingGreenlet, StatementError), match=REFUSED)


def as_in_production(setting: Setting, work: Callable[[AsyncEngine], Coroutine[Any, Any, None]]) -> None:
    """
    Run the same over the driver itself, and then over what stands in for it.
    """

    async def both() -> None:
        sandboxed = setting.dbs["main"].async_engine
        real = create_async_engine(sandboxed.url, poolclass=NullPool)
        await work(real)
        await real.dispose()
        await work(sandboxed)

    run(setting, both)


def test_a_connection_is_not_made_outside_of_a_greenlet(async_setting: Setting) -> None:
    async def work() -> None:
        with refused():
            async_setting.dbs["main"].async_engine.sync_engine.connect()

    run(async_setting, work)


def test_a_statement_is_refused_outside_of_a_greenlet_after_one_that_was_awaited(async_setting: Setting) -> None:
    async def work(engine: AsyncEngine) -> None:
        async with AsyncSession(engine) as session:
            await session.execute(select(Item.id))
            with refused():
                session.sync_session.execute(select(Item.id))

    as_in_production(async_setting, work)


def test_a_statement_on_a_cursor_is_refused_outside_of_a_greenlet(async_setting: Setting) -> None:
    async def work(engine: AsyncEngine) -> None:
        async with engine.connect() as connection:
            raw = await connection.get_raw_connection()
            cursor = await connection.run_sync(lambda _: raw.cursor())
            with refused():
                cursor.execute("select 1")

    as_in_production(async_setting, work)


def test_a_lazy_load_is_refused_outside_of_a_greenlet(async_setting: Setting) -> None:
    async def work(engine: AsyncEngine) -> None:
        async with AsyncSession(engine) as session:
            session.add_all([first := Sibling(name="a"), Sibling(name="b")])
            await session.flush()
            with refused():
                _ = first.others
            assert [each.name for each in await session.run_sync(lambda _: first.others)] == ["b"]

    as_in_production(async_setting, work)


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_a_transaction_is_not_ended_outside_of_a_greenlet(async_setting: Setting, end: str) -> None:
    async def work(engine: AsyncEngine) -> None:
        async with engine.connect() as connection:
            await connection.execute(insert(Item), {"name": "a"})
            with refused():
                getattr(connection.sync_connection, end)()
        async with engine.connect() as connection:
            assert (await connection.scalars(select(Item.name))).all() == []

    as_in_production(async_setting, work)


def test_rows_that_are_streamed_are_not_fetched_outside_of_a_greenlet(async_setting: Setting) -> None:
    statement = select(Item.name).order_by(Item.name).execution_options(yield_per=1)

    async def work() -> None:
        async with async_setting.dbs["main"].async_engine.connect() as connection:
            await connection.execute(insert(Item), [{"name": name} for name in "abc"])
            rows = await connection.run_sync(lambda sync: sync.execute(statement))
            with refused():
                rows.all()
            again = await connection.stream_scalars(statement)
            assert [name async for name in again] == ["a", "b", "c"]

    run(async_setting, work)
