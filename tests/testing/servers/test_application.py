"""
What an application sees: a reader behind its writer, a failover, a network that is cut off.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from stillroom import Databases, Retry, UnitOfWork
from stillroom.testing.servers import proxy as proxy_before

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stillroom.testing.servers import PostgresPair, Proxy


class Base(DeclarativeBase):
    """
    The tables of the application.
    """


class Order(Base):
    """
    What somebody bought.
    """

    __tablename__ = "orders"

    id: Mapped[int] = mapped_column(primary_key=True)
    article: Mapped[str]


class Shop:
    """
    An application that writes through an address that can move, and reads on a replica.
    """

    def __init__(self, dbs: Databases, address: Proxy) -> None:
        self.dbs = dbs
        self.address = address

    def buy(self, article: str) -> None:
        """
        Write an order.
        """
        with self.dbs.unit_of_work() as uow:
            uow.main.add(Order(article=article))

    def orders(self) -> list[str]:
        """
        Return what was bought, as the reader shows it.
        """
        with self.dbs.unit_of_work() as uow:
            return list(uow.reader.scalars(select(Order.article).order_by(Order.id)))


@pytest.fixture
def shop(pg_pair: PostgresPair) -> Iterator[Shop]:
    with contextlib.ExitStack() as stack:
        primary, standby = stack.enter_context(pg_pair.database())
        address = stack.enter_context(proxy_before(primary))
        settings = {"url": address.url(primary), "replicas": [standby], "connect_timeout": 2}
        dbs = stack.enter_context(Databases({"databases": {"main": settings}}))
        Base.metadata.create_all(dbs.main.engine)
        pg_pair.wait_for_standby()
        yield Shop(dbs, address)


def test_a_reader_on_a_lagging_standby_misses_what_was_just_written(shop: Shop, pg_pair: PostgresPair) -> None:
    shop.buy("milk")
    pg_pair.wait_for_standby()
    pg_pair.lag(3600)
    shop.buy("bread")
    assert shop.orders() == ["milk"]
    pg_pair.lag(0)
    pg_pair.wait_for_standby()
    assert shop.orders() == ["milk", "bread"]


def test_after_a_failover_the_application_goes_on_where_the_address_leads(shop: Shop, pg_pair: PostgresPair) -> None:
    shop.buy("milk")
    pg_pair.wait_for_standby()
    pg_pair.kill()
    with pytest.raises(OperationalError):
        shop.buy("lost")
    assert shop.orders() == ["milk"]
    pg_pair.promote()
    shop.address.redirect(pg_pair.standby_url)
    shop.buy("bread")
    assert shop.orders() == ["milk", "bread"]


def test_a_unit_that_loses_its_server_is_run_again_on_the_new_one(shop: Shop, pg_pair: PostgresPair) -> None:
    attempts: list[int] = []

    def fail_over() -> None:
        pg_pair.wait_for_standby()
        pg_pair.kill()
        pg_pair.promote()
        shop.address.redirect(pg_pair.standby_url)

    @shop.dbs.transactional(retry=Retry(attempts=3))
    def buy(uow: UnitOfWork) -> None:
        attempts.append(len(attempts) + 1)
        uow.main.add(Order(article="milk"))
        uow.main.flush()
        if len(attempts) == 1:
            fail_over()
        uow.main.execute(text("SELECT 1"))

    buy()
    assert (attempts, shop.orders()) == ([1, 2], ["milk"])


def test_a_network_that_is_cut_off_is_an_error_in_time(shop: Shop) -> None:
    shop.buy("milk")
    shop.address.black_hole()
    shop.dbs.main.engine.dispose()
    with pytest.raises(OperationalError, match="connection timeout expired"):
        shop.buy("lost")
    shop.address.restore()
    shop.buy("bread")
