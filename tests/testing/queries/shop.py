"""
A small application over two databases, whose lines the failures name.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import ForeignKey, String, func, insert, select
from sqlalchemy.ext.asyncio import AsyncAttrs
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm import Session

    from stillroom import Databases


class Base(AsyncAttrs, DeclarativeBase):
    """
    The base of the models of "main".
    """


class Customer(Base):
    """
    Who orders.
    """

    __tablename__ = "customer"
    id: Mapped[int] = mapped_column(primary_key=True)
    note: Mapped[str | None] = mapped_column(String(50), deferred=True)


class Order(Base):
    """
    What was ordered.
    """

    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    customer_id: Mapped[int | None] = mapped_column(ForeignKey("customer.id"))
    customer: Mapped[Customer | None] = relationship()
    lines: Mapped[list[Line]] = relationship()


class Line(Base):
    """
    One line of an order.
    """

    __tablename__ = "line"
    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[int | None] = mapped_column(ForeignKey("orders.id"))


class EventBase(DeclarativeBase):
    """
    The base of the models of "audit".
    """


class Happening(EventBase):
    """
    What has happened.
    """

    __tablename__ = "happening"
    id: Mapped[int] = mapped_column(primary_key=True)


def fill(dbs: Databases) -> None:
    """
    Make the tables, and three orders with two lines each, of three customers.
    """
    Base.metadata.create_all(dbs.main.engine)
    EventBase.metadata.create_all(dbs.audit.engine)
    with dbs.unit_of_work() as uow:
        for number in (1, 2, 3):
            lines = [Line(id=number * 10), Line(id=number * 10 + 1)]
            uow.main.add(Order(id=number, customer=Customer(id=number), lines=lines))


def count_lines_one_by_one(session: Session) -> int:
    return sum(len(order.lines) for order in session.scalars(select(Order)))


def name_customers_one_by_one(session: Session) -> list[int | None]:
    return [order.customer.id if order.customer else None for order in session.scalars(select(Order))]


def read_notes_one_by_one(session: Session) -> list[str | None]:
    return [customer.note for customer in session.scalars(select(Customer))]


def count_orders_of_each(session: Session, customers: Iterable[int]) -> list[int | None]:
    return [session.scalar(select(func.count()).where(Order.customer_id == customer)) for customer in customers]


def insert_one_by_one(session: Session, numbers: Iterable[int]) -> None:
    for number in numbers:
        session.execute(insert(Customer).values(id=number))


def add_and_flush_one_by_one(session: Session, numbers: Iterable[int]) -> None:
    for number in numbers:
        session.add(Customer(id=number))
        session.flush()


async def count_lines_awaiting_each(session: AsyncSession) -> int:
    return sum([len(await order.awaitable_attrs.lines) for order in await session.scalars(select(Order))])


async def get_order(dbs: Databases, number: int) -> Order | None:
    async with dbs.async_unit_of_work() as uow:
        return await uow.main.get(Order, number)


def line_of(text: str) -> str:
    """
    Return "file:number" of the line of this file that holds `text` for the first time.
    """
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    number = next(number for number, line in enumerate(lines, start=1) if text in line)
    return f"tests/testing/queries/shop.py:{number}"
