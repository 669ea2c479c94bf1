"""What the shop does: each public function is one unit of work over its databases."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, cast

from sqlalchemy import CursorResult, Result, delete, select, update

from stillroom import Databases, Retry, UnitOfWork, classify
from stillroom.demo.models import Customer, LogLine, Order, OrderLine, Reservation, Till, Track

dbs = Databases()
"""The shop's databases. Nothing happens here: whoever starts the shop calls `dbs.configure(...)`."""

# Two customers who want the same tracks meet in the database. The one that has to give way tries again.
PATIENT = Retry(attempts=50, base=0.005, cap=0.1)


class Refused(Exception):
    """
    The shop says no, for a reason that the customer understands.
    """


class OutOfStock(Refused):
    """
    There are not enough copies left.
    """


class NotEnoughMoney(Refused):
    """
    The customer cannot pay.
    """


@dataclass(frozen=True)
class Request:
    """
    What a customer sends.

    Attributes:
        id: Of the request; an order that is sent twice comes in two requests.
        order_number: Chosen by the customer's browser, so that the shop can tell an order that is sent twice.
        customer_id: Who pays.
        items: Track and number of copies, in the order of the cart.
        mishap: What is to go wrong on purpose; see `stillroom.demo.customers`.
    """

    id: int
    order_number: str
    customer_id: int
    items: tuple[tuple[int, int], ...]
    mishap: str = ""


@dataclass(frozen=True)
class Receipt:
    """
    What the customer gets when the order is durable.

    Attributes:
        request: Which request it answers.
        order_number: The order.
        total: The price, in cents.
    """

    request: int
    order_number: str
    total: int


Step = Callable[[UnitOfWork, Request], None]


def nothing_happens(uow: UnitOfWork, request: Request) -> None:
    """
    Do nothing when an order is written and not committed; the demo puts its accidents here.
    """


@dbs.transactional(retry=PATIENT)
def place_order(
    uow: UnitOfWork, request: Request, acknowledge: Callable[[Receipt], None], when_written: Step = nothing_happens
) -> None:
    """
    Sell what the request asks for: all of it, in both databases, or nothing.

    Args:
        uow: The unit of work.
        request: What the customer sent.
        acknowledge: Gets the receipt, when the order is durable and not a moment before.
        when_written: Called when everything is written and nothing is committed.

    Raises:
        OutOfStock: There are not enough copies left.
        NotEnoughMoney: The customer cannot pay.
        sqlalchemy.exc.IntegrityError: There is an order with this number already.
    """
    uow.logger.add(LogLine(request=request.id, event="attempt"))
    try:
        receipt = _sell(uow, request)
        when_written(uow, request)
    except Exception as error:
        # The logger commits on its own: this line stays, although all the rest is rolled back.
        uow.logger.add(LogLine(request=request.id, event="rolled back", detail=reason(error)))
        raise
    uow.on_commit(partial(acknowledge, receipt))


def _sell(uow: UnitOfWork, request: Request) -> Receipt:
    lines = [_take_from_stock(uow, request.order_number, *item) for item in request.items]
    total = sum(line.price * line.quantity for line in lines)
    uow.sales.add(Order(number=request.order_number, customer_id=request.customer_id, total=total, lines=lines))
    uow.sales.flush()
    _charge(uow, request.customer_id, total)
    return Receipt(request.id, request.order_number, total)


def _take_from_stock(uow: UnitOfWork, order_number: str, track_id: int, quantity: int) -> OrderLine:
    # One statement compares and counts down, so no copy is sold twice, whatever the isolation.
    enough = Track.stock >= quantity
    statement = update(Track).where(Track.id == track_id, enough).values(stock=Track.stock - quantity)
    if not _changed(uow.catalog.execute(statement)):
        raise OutOfStock(f"fewer than {quantity} of track {track_id} left")
    uow.catalog.add(Reservation(order_number=order_number, track_id=track_id, quantity=quantity))
    uow.catalog.flush()
    price = uow.catalog.scalars(select(Track.price).where(Track.id == track_id)).one()
    return OrderLine(track_id=track_id, price=price, quantity=quantity)


def _charge(uow: UnitOfWork, customer_id: int, total: int) -> None:
    enough = Customer.balance >= total
    statement = update(Customer).where(Customer.id == customer_id, enough).values(balance=Customer.balance - total)
    if not _changed(uow.sales.execute(statement)):
        raise NotEnoughMoney(f"customer {customer_id} has less than {total} cents")
    uow.sales.execute(update(Till).values(cents=Till.cents + total))


def _changed(result: Result[Any]) -> bool:
    return cast("CursorResult[Any]", result).rowcount == 1


@dbs.transactional(retry=PATIENT)
def release_orphans(uow: UnitOfWork, *, min_age: float = 60.0) -> int:
    """
    Give back the stock of orders that never came to be, because a process died between two COMMITs.

    Args:
        uow: The unit of work.
        min_age: Younger reservations are left alone, in seconds: their order may be about to be committed.

    Returns:
        How many reservations were released.
    """
    before = datetime.now(UTC) - timedelta(seconds=min_age)
    reserved = uow.catalog.scalars(select(Reservation).where(Reservation.created_at <= before)).all()
    ordered = set(uow.session("sales", role="reader").scalars(select(Order.number)))
    orphans = [reservation for reservation in reserved if reservation.order_number not in ordered]
    for orphan in orphans:
        given_back = update(Track).where(Track.id == orphan.track_id).values(stock=Track.stock + orphan.quantity)
        uow.catalog.execute(given_back)
        uow.catalog.execute(delete(Reservation).where(Reservation.id == orphan.id))
    return len(orphans)


@dbs.transactional
def report_death(uow: UnitOfWork, request: Request) -> None:
    """
    Log that the process which worked on the request died; it could not do so itself.
    """
    uow.logger.add(LogLine(request=request.id, event="died", detail="its process ended without a word"))


def reason(error: BaseException) -> str:
    """
    Say in a few words why an order failed: the kind of the database's error, or the name of our own.
    """
    kind = classify(error)
    return kind.value if kind is not None else type(error).__name__
