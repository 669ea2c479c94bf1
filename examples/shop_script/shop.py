# ruff: noqa: INP001  # a script, not a package
"""A shop in one script: stock in one database, orders in another, and one unit of work for both."""

from sqlalchemy import select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from stillroom import Databases, UnitOfWork
from stillroom.models import ModelBase


class Stock(ModelBase, DeclarativeBase, database="stock"):
    """The base of the tables in `stock`."""


class Sales(ModelBase, DeclarativeBase, database="sales"):
    """The base of the tables in `sales`."""


class Track(Stock):
    """What there is to buy."""

    __tablename__ = "tracks"
    name: Mapped[str] = mapped_column(primary_key=True)
    copies: Mapped[int]


class Order(Sales):
    """What was bought."""

    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    track: Mapped[str]


dbs = Databases()


@dbs.transactional
def open_shop(uow: UnitOfWork) -> None:
    """Make the tables and fill the shelf."""
    Stock.metadata.create_all(uow.stock.connection())
    Sales.metadata.create_all(uow.sales.connection())
    uow.stock.add(Track(name="Counting the Ferry", copies=2))


@dbs.transactional
def buy(uow: UnitOfWork, name: str) -> None:
    """Sell one copy: both databases change, or neither."""
    uow.sales.add(Order(track=name))
    track = uow.stock.get_one(Track, name)
    track.copies -= 1
    if track.copies < 0:
        raise LookupError(f"{name!r} is sold out")


def main() -> None:
    """Sell two copies of two, and then a third."""
    dbs.configure({"default": "sales", "databases": {"stock": {"url": "sqlite://"}, "sales": {"url": "sqlite://"}}})
    open_shop()
    for _ in range(3):
        try:
            buy("Counting the Ferry")
        except LookupError as error:
            print(error)
    with dbs.unit_of_work(read_only=True) as uow:
        print(len(uow.sales.scalars(select(Order)).all()), "orders,", uow.stock.scalar(select(Track.copies)), "left")
    dbs.close()


if __name__ == "__main__":
    main()
