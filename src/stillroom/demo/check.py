"""Checks the books: stock and money to the cent, both databases against each other, the log against the answers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, func, select

from stillroom.demo.customers import BETWEEN_COMMITS, BUG, CRASH, POOR
from stillroom.demo.models import (
    Customer,
    Invoice,
    InvoiceLine,
    LogLine,
    Order,
    OrderLine,
    Reservation,
    Till,
    Track,
)
from stillroom.demo.shop import dbs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from sqlalchemy.orm import Session

    from stillroom.demo.workers import Trade

__all__ = ["Finding", "check_books"]

SHOWN = 3


@dataclass(frozen=True)
class Finding:
    """
    What one check found.

    Attributes:
        name: What must be true.
        ok: Whether it is.
        detail: What was counted, or what is wrong.
    """

    name: str
    ok: bool
    detail: str


def check_books(trade: Trade) -> list[Finding]:
    """
    Compare what the databases say with each other and with what the customers were told.

    Args:
        trade: What the customers were told. Nobody trades while the books are checked.
    """
    # Readers: the check cannot change what it checks. Each sees one state of its database throughout.
    with dbs.unit_of_work(read_only=True) as uow:
        catalog = uow.session("catalog", snapshot=True)
        sales = uow.session("sales", snapshot=True)
        log = uow.session("log", role="reader", snapshot=True)
        return [
            _stock(catalog),
            _goods(catalog, sales),
            _balances(sales),
            _till(sales),
            _totals("each order's total is the sum of its lines", sales, Order, OrderLine, OrderLine.order_id),
            _totals(
                "each invoice's total is the sum of its lines", sales, Invoice, InvoiceLine, InvoiceLine.invoice_id
            ),
            _prices(catalog, sales),
            _answered(trade),
            _acknowledged(sales, trade),
            _mishaps(trade),
            _logged(log, trade),
        ]


def _finding(name: str, wrong: Iterable[str], detail: str) -> Finding:
    found = list(wrong)
    if not found:
        return Finding(name, ok=True, detail=detail)
    more = f", and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return Finding(name, ok=False, detail=f"{', '.join(found[:SHOWN])}{more}")


def _sums(session: Session, key: Any, value: ColumnElement[int]) -> dict[Any, int]:
    return {each: int(total) for each, total in session.execute(select(key, func.sum(value)).group_by(key))}


def _stock(catalog: Session) -> Finding:
    taken = _sums(catalog, Reservation.track_id, Reservation.quantity.expression)
    tracks = catalog.execute(select(Track.id, Track.opening_stock, Track.stock)).all()
    wrong = (
        f"track {id_}: {opening} - {taken.get(id_, 0)} ≠ {stock}"
        for id_, opening, stock in tracks
        if opening - taken.get(id_, 0) != stock or stock < 0
    )
    copies = sum(stock for _, _, stock in tracks)
    return _finding(
        "opening stock - reserved = stock", wrong, f"{len(tracks)} tracks, {sum(taken.values())} sold, {copies} left"
    )


def _goods(catalog: Session, sales: Session) -> Finding:
    reserved = Counter(
        map(tuple, catalog.execute(select(Reservation.order_number, Reservation.track_id, Reservation.quantity)))
    )
    sold = Counter(
        map(tuple, sales.execute(select(Order.number, OrderLine.track_id, OrderLine.quantity).join(Order.lines)))
    )
    wrong = [f"reserved, not sold: {each!r}" for each in reserved - sold]
    wrong += [f"sold, not reserved: {each!r}" for each in sold - reserved]
    return _finding("what catalog reserved is what sales sold", wrong, f"{sold.total()} lines in both databases")


def _balances(sales: Session) -> Finding:
    paid = _sums(sales, Order.customer_id, Order.total.expression)
    customers = sales.execute(select(Customer.id, Customer.opening_balance, Customer.balance)).all()
    wrong = (
        f"customer {id_}: {opening} - {paid.get(id_, 0)} ≠ {balance} cents"
        for id_, opening, balance in customers
        if opening - paid.get(id_, 0) != balance or balance < 0
    )
    return _finding("opening balance - paid = balance", wrong, f"{len(customers)} customers, {len(paid)} bought")


def _till(sales: Session) -> Finding:
    till = sales.scalars(select(Till.cents)).all()
    total = int(sales.scalar(select(func.sum(Order.total))) or 0)
    wrong = [] if till == [total] else [f"{till!r} in the till, {total} cents sold"]
    return _finding("the till holds what was paid", wrong, f"{total / 100:.2f}")


def _totals(name: str, sales: Session, bill: Any, line: Any, reference: Any) -> Finding:
    sums = _sums(sales, reference, line.price * line.quantity)
    totals: dict[int, int] = dict(sales.execute(select(bill.id, bill.total)).all())
    wrong = (
        f"{bill.__tablename__} {id_}: {totals.get(id_)} ≠ {sums.get(id_)} cents"
        for id_ in sorted(totals.keys() | sums.keys())
        if totals.get(id_) != sums.get(id_)
    )
    return _finding(name, wrong, f"{len(totals)} of them, {sum(totals.values()) / 100:.2f}")


def _prices(catalog: Session, sales: Session) -> Finding:
    prices = dict(catalog.execute(select(Track.id, Track.price)).all())
    lines = sales.execute(select(OrderLine.id, OrderLine.track_id, OrderLine.price)).all()
    wrong = (
        f"line {id_}: {price} cents for track {track}" for id_, track, price in lines if prices.get(track) != price
    )
    old = sales.scalars(select(InvoiceLine.track_id)).all()
    unknown = (f"an invoice names track {track}, which is not in catalog" for track in old if track not in prices)
    return _finding("sold at the price of the catalog", [*wrong, *unknown], f"{len(lines)} lines")


def _answered(trade: Trade) -> Finding:
    answers = Counter(_settled(trade))
    wrong = [f"request {each.id}: {answers[each.id]} answers" for each in trade.requests if answers[each.id] != 1]
    return _finding("each request came to exactly one end", wrong, f"{len(trade.requests)} requests")


def _settled(trade: Trade) -> Iterator[int]:
    yield from (receipt.request for receipt in trade.receipts)
    yield from (failure.request for failure in trade.failures)
    yield from (request.id for request in trade.died)


def _acknowledged(sales: Session, trade: Trade) -> Finding:
    told = Counter((receipt.order_number, receipt.total) for receipt in trade.receipts)
    there = Counter((number, total) for number, total in sales.execute(select(Order.number, Order.total)))
    wrong = [f"acknowledged and lost: {each!r}" for each in told - there]
    wrong += [f"there and never acknowledged: {each!r}" for each in there - told]
    wrong += [f"acknowledged {times} times: {each!r}" for each, times in told.items() if times > 1]
    return _finding("each acknowledged order is there, exactly once", wrong, f"{told.total()} orders")


def _mishaps(trade: Trade) -> Finding:
    died = {request.id for request in trade.died}
    failed = {failure.request for failure in trade.failures}
    expected: dict[str, Callable[[int], bool]] = {
        POOR: failed.__contains__,
        BUG: failed.__contains__,
        CRASH: died.__contains__,
        BETWEEN_COMMITS: died.__contains__,
    }
    planned = [request for request in trade.requests if request.mishap in expected]
    wrong = [f"request {each.id}: no {each.mishap}" for each in planned if not expected[each.mishap](each.id)]
    wrong += [f"request {each}: died by itself" for each in died - {request.id for request in planned}]
    return _finding("what was to fail has failed, and no other process died", wrong, f"{len(planned)} accidents")


def _logged(log: Session, trade: Trade) -> Finding:
    lines = set(map(tuple, log.execute(select(LogLine.request, LogLine.event, LogLine.detail))))
    wrong = [
        f"request {each.request}: {each.reason}"
        for each in trade.failures
        if (each.request, "rolled back", each.reason) not in lines
    ]
    logged = {(request, event) for request, event, _ in lines}
    wrong += [f"request {each.id}: its process died" for each in trade.died if (each.id, "died") not in logged]
    wrong += [
        f"request {each.request}: no attempt" for each in trade.receipts if (each.request, "attempt") not in logged
    ]
    return _finding("each failed order is in the log", wrong, f"{len(trade.failures)} failed, {len(trade.died)} died")
