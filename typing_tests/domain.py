"""
The types that checkers infer for repositories whose domain objects are plain classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import assert_type

from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from stillroom import AsyncRepository, AsyncUnitOfWork, ReadRepository, Repository, UnitOfWork


class Base(DeclarativeBase):
    """
    A base.
    """


class OrderRow(Base):
    """
    A table.
    """

    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    state: Mapped[str]


@dataclass(frozen=True)
class Order:
    """
    What goes in and out.
    """

    state: str
    id: int | None = None


class Orders(Repository[OrderRow, Order]):
    """
    Reads and writes.
    """

    renamed = {"code": "id", "cache": None}  # noqa: RUF012  # as users write it

    def unpaid(self) -> list[Order]:
        """
        A method of the user's own.
        """
        return self.list(OrderRow.state == "open")


class OrderReports(ReadRepository[OrderRow, Order]):
    """
    Only reads, by hand.
    """

    @staticmethod
    def from_row(row: OrderRow) -> Order:
        """
        A hook.
        """
        return Order(row.state, row.id)


class AsyncOrders(AsyncRepository[OrderRow, Order]):
    """
    The same for asyncio.
    """


def reading(uow: UnitOfWork) -> None:
    orders = Orders(uow)
    assert_type(orders.get(1), Order | None)
    assert_type(orders.one(state="open"), Order)
    assert_type(orders.list(), list[Order])
    assert_type(orders.unpaid(), list[Order])
    assert_type(orders.stream(), Iterator[Order])
    assert_type(orders.page(2).items, list[Order])
    assert_type(OrderReports(uow).first(), Order | None)


def writing(uow: UnitOfWork) -> None:
    orders = Orders(uow)
    assert_type(orders.add(Order("open")), Order)
    assert_type(orders.save(Order("paid", 1)), Order)
    assert_type(orders.update(1, state="paid"), Order)
    orders.add(OrderRow(state="open"))  # type: ignore[arg-type]


async def asynchronous(uow: AsyncUnitOfWork) -> None:
    orders = AsyncOrders(uow)
    assert_type(await orders.get(1), Order | None)
    assert_type(await orders.save(Order("paid", 1)), Order)
