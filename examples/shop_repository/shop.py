# ruff: noqa: INP001  # a script, not a package
"""A shop whose orders are plain frozen dataclasses: stored, found, changed by two at once, and summed up in SQL."""

from decimal import Decimal
from typing import ClassVar

from domain import Address, Customer, Order, State
from rows import Base, CustomerRow, InvoiceRow
from sqlalchemy import func, select
from sqlalchemy.orm.exc import StaleDataError

from stillroom import Databases, Repository, UnitOfWork


class Customers(Repository[CustomerRow, Customer]):
    """Who orders."""


class Orders(Repository[InvoiceRow, Order]):
    """Orders with their lines; only what has another name in the table has to be said."""

    renamed: ClassVar = {"to": "billing", "to.street": "billing_address", "lines.price": "unit_price"}

    def unpaid(self) -> list[Order]:
        """Return what is still to be paid, the oldest first."""
        return self.list(state=State.OPEN.value, order_by="id")

    def turnover(self) -> list[dict[str, object]]:
        """Return what was paid from each country, without making objects."""
        country = InvoiceRow.billing_country.label("country")
        paid = select(country, func.sum(InvoiceRow.total).label("paid")).where(InvoiceRow.state == State.PAID.value)
        return self.rows(paid.group_by(country).order_by(country))


dbs = Databases()


@dbs.transactional
def open_shop(uow: UnitOfWork) -> None:
    """Make the tables, and let two customers in."""
    Base.metadata.create_all(uow.main.connection())
    customers = Customers(uow)
    for name in ("Ada", "Bea"):
        customers.add(Customer(name=name, email=f"{name.lower()}@example.org"))


@dbs.transactional
def order(uow: UnitOfWork, email: str, country: str, *tracks: str) -> Order:
    """Take an order."""
    new = Order(customer=Customers(uow).one(email=email), to=Address("1 Ferry Road", "Harbour", country))
    for track in tracks:
        new = new.with_line(track, Decimal("0.99"))
    return Orders(uow).add(new)


@dbs.transactional
def store(uow: UnitOfWork, changed: Order) -> Order:
    """Store an order as it is now, unless somebody else has stored another one meanwhile."""
    return Orders(uow).save(changed)


def main() -> None:
    """Sell, change one order from two sides, and count the money."""
    dbs.configure({"databases": {"main": {"url": "sqlite://"}}})
    open_shop()
    first = order("ada@example.org", "Norway", "Counting the Ferry", "Low Tide")
    order("bea@example.org", "Chile", "Low Tide")
    store(first.with_line("Harbour Lights", Decimal("1.49"), quantity=2))
    try:
        store(first.paid())  # without the line that was added meanwhile
    except StaleDataError as error:
        print(error)
    with dbs.unit_of_work() as uow:
        orders = Orders(uow)
        for unpaid in orders.unpaid():
            orders.save(unpaid.paid())
        print([(each["country"], f"{each['paid']:.2f}") for each in orders.turnover()])
        print(orders.one(id=first.id).lines[-1])
    dbs.close()


if __name__ == "__main__":
    main()
