"""Tests of the shop: run `pytest` here. Each begins with two customers, and what it does is undone."""

from decimal import Decimal

import factory
import pytest
from domain import State
from rows import CustomerRow, InvoiceLineRow, InvoiceRow
from shop import Orders, dbs, order, store
from sqlalchemy.orm.exc import StaleDataError

from stillroom.testing import factory_boy_base


@pytest.fixture(scope="session")
def application_databases():
    dbs.configure({"databases": {"main": {"url": "sqlite://", "metadata": "rows:Base"}}})
    return dbs


def two_customers(session):
    session.add(CustomerRow(name="Ada", email="ada@example.org"))
    session.add(CustomerRow(name="Bea", email="bea@example.org"))


@pytest.fixture(scope="session")
def database_seeds():
    return {"main": [two_customers]}


def test_an_order_is_stored_with_its_lines(uow):
    new = order("ada@example.org", "Norway", "Counting the Ferry", "Low Tide")

    assert Orders(uow).get(new.id).lines == new.lines
    assert new.total == Decimal("1.98")


def test_who_comes_second_changes_nothing(databases):
    first = order("bea@example.org", "Chile", "Low Tide")
    store(first.with_line("Harbour Lights", Decimal("1.49")))

    with pytest.raises(StaleDataError):
        store(first.paid())

    with databases.unit_of_work() as uow:
        assert Orders(uow).get(first.id).state is State.OPEN


# Factories fill the tables directly, for tests that need many rows. They add to the unit of work that is open.


def one_line():
    return [InvoiceLineRow(number=1, track="Low Tide", unit_price=Decimal("0.99"), quantity=2)]


class Customers(factory_boy_base(dbs)):
    class Meta:
        model = CustomerRow

    name = factory.Sequence("Customer {}".format)
    email = factory.Sequence("customer{}@example.org".format)


class Invoices(factory_boy_base(dbs)):
    class Meta:
        model = InvoiceRow

    customer = factory.SubFactory(Customers)
    state = "open"
    total = Decimal("1.98")
    billing_country = "Norway"
    lines = factory.LazyFunction(one_line)


def test_the_list_asks_for_no_order_by_itself(uow, assert_no_repeats):
    Invoices.create_batch(20)
    uow.main.expunge_all()

    with assert_no_repeats():
        unpaid = Orders(uow).unpaid()

    assert [len(each.lines) for each in unpaid] == [1] * 20


def test_the_turnover_is_what_was_paid_from_each_country(uow):
    Invoices()
    Invoices.create_batch(2, state="paid")

    assert Orders(uow).turnover() == [{"country": "Norway", "paid": Decimal("3.96")}]
