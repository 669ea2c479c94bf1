"""
A table with a column of each common type, for what writes and exports many rows.
"""

from __future__ import annotations

import enum
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import JSON, CheckConstraint, DateTime, LargeBinary, Numeric, String, func
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from stillroom.models import ModelBase


class Base(ModelBase, DeclarativeBase, database="main"):
    """
    The tables of these tests.
    """


class Colour(enum.Enum):
    """
    A few colours.
    """

    RED = "r"
    BLUE = "b"


class Thing(Base):
    """
    Has a bit of everything.
    """

    __tablename__ = "things"
    __table_args__ = (CheckConstraint("amount >= 0", name="amount"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(40), unique=True)
    amount: Mapped[int]
    kind: Mapped[str] = mapped_column(String(10), default="plain")
    shout: Mapped[str] = mapped_column(
        String(40), default=lambda context: context.get_current_parameters()["name"].upper()
    )
    stock: Mapped[int] = mapped_column(server_default="7")
    made: Mapped[datetime] = mapped_column(DateTime, default=func.now())
    price: Mapped[Decimal | None] = mapped_column(Numeric(12, 2))
    ratio: Mapped[float | None]
    active: Mapped[bool | None]
    colour: Mapped[Colour | None]
    at: Mapped[datetime | None]
    day: Mapped[date | None]
    number: Mapped[UUID | None]
    raw: Mapped[bytes | None] = mapped_column(LargeBinary)
    data: Mapped[dict[str, Any] | None] = mapped_column(JSON)


FULL: dict[str, Any] = {
    "id": 5,
    "name": 'a "quoted", name\r\nof two lines \u00e9',
    "amount": 3,
    "kind": "",
    "shout": "null",
    "stock": 9,
    "made": datetime(2026, 1, 2, 3, 4, 5),  # noqa: DTZ001  # a time without a zone is what the column holds
    "price": Decimal("12.50"),
    "ratio": 0.1,
    "active": True,
    "colour": Colour.BLUE,
    "at": datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC),
    "day": date(2026, 1, 2),
    "number": UUID(int=7),
    "raw": b"\x00\xff\n\\",
    "data": {"a": [1, None, "x"], "b": {"c": 0.5}},
}
"""A row with a value in each column, some of which a careless format would change."""
EMPTY: dict[str, Any] = {
    **dict.fromkeys(FULL),
    "id": 6,
    "name": "",
    "amount": 0,
    "kind": "\\N",
    "shout": " ",
    "stock": 0,
    "made": datetime(2026, 1, 2),  # noqa: DTZ001  # the same
}
"""A row with NULL wherever it may be."""


def few(number: int) -> dict[str, Any]:
    """
    Return a row with the values that a thing must have.
    """
    return {"name": f"thing {number}", "amount": number}
