# ruff: noqa: INP001  # part of a script, not of a package
"""What a shop is about: customers, orders and their lines. Nothing here knows of a database."""

from dataclasses import dataclass, field, replace
from decimal import Decimal
from enum import Enum
from typing import Self


class State(Enum):
    """How far an order is."""

    OPEN = "open"
    PAID = "paid"


@dataclass(frozen=True, slots=True)
class Address:
    """Where an order goes."""

    street: str
    city: str
    country: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Customer:
    """Who orders."""

    id: int | None = None
    name: str
    email: str


@dataclass(frozen=True, slots=True)
class Line:
    """So many copies of one track, at a price."""

    number: int
    track: str
    price: Decimal
    quantity: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """An order with its lines: they are read, changed and stored together."""

    id: int | None = None
    customer: Customer
    to: Address | None = None
    state: State = State.OPEN
    lines: tuple[Line, ...] = ()
    total: Decimal = field(init=False)
    version: int | None = None

    def __post_init__(self) -> None:
        """Compute the total, which is never given."""
        object.__setattr__(self, "total", sum((each.price * each.quantity for each in self.lines), Decimal(0)))

    def with_line(self, track: str, price: Decimal, quantity: int = 1) -> Self:
        """Return the order with one line more."""
        if self.state is not State.OPEN:
            raise ValueError(f"order {self.id} is {self.state.value}: nothing can be added to it")
        return replace(self, lines=(*self.lines, Line(len(self.lines) + 1, track, price, quantity)))

    def paid(self) -> Self:
        """Return the order, paid."""
        return replace(self, state=State.PAID)
