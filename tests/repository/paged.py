"""
What the tests of paging page: rows with values of every kind that cursors have, and NULLs among them.
"""

from __future__ import annotations

import enum
import uuid
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    REAL,
    BigInteger,
    Date,
    DateTime,
    Enum,
    Float,
    ForeignKey,
    Index,
    LargeBinary,
    Numeric,
    SmallInteger,
    String,
    Time,
    Uuid,
    insert,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

from stillroom.models import DecimalNumber, ModelBase, SoftDelete, UTCDateTime
from tests.support.standing import Content

if TYPE_CHECKING:
    from tests.repository.worlds import Place


class Base(ModelBase, DeclarativeBase, database="main"):
    """
    The tables of the tests.
    """


class Colour(enum.Enum):
    """
    What samples come in.
    """

    RED = "r"
    GREEN = "g"


class Thing(Base):
    """
    A thing: `kind` and `rank` are never NULL, `name` and `score` may be.
    """

    __tablename__ = "things"
    __table_args__ = (Index("things_by_kind", "kind", "rank", "id"),)

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    kind: Mapped[int]
    rank: Mapped[int]
    name: Mapped[str | None] = mapped_column(String(40))
    score: Mapped[int | None]
    parts: Mapped[list[Part]] = relationship(order_by="Part.id")


class Part(Base):
    """
    One of several that a thing has.
    """

    __tablename__ = "parts"

    id: Mapped[int] = mapped_column(primary_key=True)
    thing_id: Mapped[int] = mapped_column(ForeignKey("things.id", ondelete="cascade"))
    label: Mapped[str] = mapped_column(String(40))


class Sample(SoftDelete, Base):
    """
    A value of every type.
    """

    __tablename__ = "samples"

    id: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    text: Mapped[str | None] = mapped_column(String(40))
    number: Mapped[int | None] = mapped_column(BigInteger)
    real: Mapped[float | None] = mapped_column(REAL)
    single: Mapped[float | None] = mapped_column(Float)
    money: Mapped[Decimal | None] = mapped_column(Numeric(12, 2))
    decimal: Mapped[Decimal | None] = mapped_column(DecimalNumber)
    flag: Mapped[bool | None]
    at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    clock: Mapped[datetime | None] = mapped_column(DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb"))
    day: Mapped[date | None] = mapped_column(Date)
    hour: Mapped[time | None] = mapped_column(Time)
    key: Mapped[uuid.UUID | None] = mapped_column(Uuid[uuid.UUID]())
    data: Mapped[bytes | None] = mapped_column(LargeBinary(20).with_variant(mysql.VARBINARY(20), "mysql", "mariadb"))
    colour: Mapped[Colour | None] = mapped_column(Enum(Colour, name="colour"))


START = datetime(2026, 1, 31, 12, 30, 0, 123456, tzinfo=UTC)


def things() -> list[dict[str, Any]]:
    """
    Return 24 rows in no order, with ties and NULLs in every column that may have them.
    """
    return [
        {
            "id": number,
            "kind": number * 7 % 3,
            "rank": number * 5 % 4,
            "name": None if number % 4 == 0 else "abcde"[number % 5],
            "score": None if number % 3 == 0 else number % 6,
        }
        for number in range(1, 25)
    ]


def samples() -> list[dict[str, Any]]:
    """
    Return 8 rows with two equal values each, and two rows without any.
    """
    rows: list[dict[str, Any]] = []
    for number in range(1, 9):
        step = number // 2
        rows.append(
            {
                "id": number,
                "text": f"é'%_{step}",
                "number": step * 10**14,
                "real": step / 10 + 0.01,
                "single": step / 3,
                "money": Decimal(step) / 4,
                "decimal": Decimal(step) / 8,
                "flag": step > 2,
                "at": START + timedelta(microseconds=step),
                "clock": START.replace(tzinfo=None) + timedelta(microseconds=step),
                "day": date(2026, 1, 1 + step),
                "hour": time(1 + step, 2),
                "key": uuid.UUID(int=step << 120 | step),
                "data": bytes([step, 0, 255]),
                "colour": list(Colour)[number % 2],
            }
        )
    nothing = dict.fromkeys(rows[0].keys() - {"id"})
    return [*rows, {"id": 9, **nothing}, {"id": 10, **nothing}]


def seed(session: Session) -> None:
    """
    Put the rows into the tables.
    """
    connection = session.connection()
    labels = [{"thing_id": each, "label": label} for each in range(1, 25, 2) for label in ("x", "y")]
    connection.execute(insert(Thing), things())
    connection.execute(insert(Sample), samples())
    connection.execute(insert(Part), labels)


PAGED = Content("paged", "tests.repository.paged:Base", (seed,))


def add_many(place: Place, rows: int) -> None:
    """
    Add things with keys from 1000 on.
    """
    more = [{"id": 1000 + number, "kind": number % 3, "rank": 1, "name": None, "score": None} for number in range(rows)]
    with place.plain["main"].engine.begin() as connection:
        connection.execute(insert(Thing), more)
