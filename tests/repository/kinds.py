"""
A table with a column of every type that people use, and rows that are hard to read.
"""

from __future__ import annotations

import enum
import uuid
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    ARRAY,
    JSON,
    BigInteger,
    Boolean,
    Column,
    Date,
    DateTime,
    Enum,
    Float,
    Integer,
    Interval,
    LargeBinary,
    MetaData,
    Numeric,
    String,
    Table,
    Text,
    Time,
    TypeDecorator,
    Uuid,
)
from sqlalchemy.dialects import mysql, postgresql
from sqlalchemy.orm import registry

from stillroom.models import DecimalNumber, UTCDateTime

if TYPE_CHECKING:
    from tests.repository.worlds import Place


class Colour(enum.Enum):
    """
    Names and values differ.
    """

    RED = "the red one"
    BLUE = "RED"


class Level(enum.IntEnum):
    """
    Values that are numbers.
    """

    LOW = 1
    HIGH = 10


class Lower(TypeDecorator[str]):
    """
    Converts on the way in only.
    """

    impl = String(40)
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Any) -> str | None:
        return None if value is None else value.lower()


class Reversed(TypeDecorator[str]):
    """
    Converts on the way out too.
    """

    impl = String(40)
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Any) -> str | None:
        return None if value is None else value[::-1]

    def process_result_value(self, value: str | None, dialect: Any) -> str | None:
        return None if value is None else value[::-1]


MOMENT = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
LATER = datetime(1999, 12, 31, 23, 59, 59, 120, tzinfo=UTC)


def _fine(kind: type[Any]) -> Any:
    return kind().with_variant(getattr(mysql, kind.__name__.upper())(fsp=6), "mysql", "mariadb")


TYPES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "small": (Integer(), (0, -7)),
    "big": (BigInteger(), (2**62, -(2**53) - 1)),
    "line": (String(80), ("", 'é "quoted" \\ \n \t \x7f \u2028 😀 </script>')),
    "prose": (Text(), ("x" * 5000, "null")),
    "truth": (Boolean(), (True, False)),
    "price": (Numeric(10, 2), (Decimal("19.90"), Decimal("-0.01"))),
    "fine_price": (Numeric(12, 8), (Decimal("0.00000001"), Decimal("1.50000000"))),
    "zero_price": (Numeric(12, 8), (Decimal(0), Decimal("-0.00000123"))),
    "round_price": (Numeric(14, 0), (Decimal(10**12), Decimal(-3))),
    "exact": (DecimalNumber(), (Decimal("0.30"), Decimal("123456789.5"))),
    "ratio": (Float(53), (0.1 + 0.2, -1e-7)),
    "day": (Date(), (date(2026, 1, 2), date(1, 1, 1))),
    "clock": (DateTime(), (datetime(2026, 1, 2, 3, 4, 5), datetime(1999, 9, 9, 9, 9, 9))),  # noqa: DTZ001  # naive
    "fine_clock": (_fine(DateTime), (datetime(2026, 1, 2), datetime(1, 1, 1, 0, 0, 0, 900))),  # noqa: DTZ001  # naive
    "zoned": (DateTime(timezone=True), (MOMENT, MOMENT + timedelta(days=200))),
    "moment": (UTCDateTime(), (MOMENT, LATER)),
    "hour": (Time(), (time(1, 2, 3), time(23, 59, 59))),
    "fine_hour": (_fine(Time), (time(1, 2, 3, 40), time(0))),
    "length": (Interval(second_precision=6), (timedelta(days=1, seconds=2, microseconds=3), timedelta(0))),
    "mark": (Uuid(), (uuid.UUID(int=5), uuid.UUID("ffffffff-0000-4000-8000-00000000abcd"))),
    "text_mark": (Uuid(as_uuid=False), (str(uuid.UUID(int=6)), str(uuid.UUID(int=7)))),
    "raw": (LargeBinary(), (b"", bytes(range(256)))),
    "document": (JSON(), ({"a": [1, 2.5, None, True], "é": {}}, [])),
    "text_document": (JSON(), ("only text", 7)),
    "colour": (Enum(Colour), (Colour.RED, Colour.BLUE)),
    "level": (Enum(Level), (Level.LOW, Level.HIGH)),
    "by_value": (
        Enum(Colour, values_callable=lambda c: [e.value for e in c], name="valued"),
        (Colour.RED, Colour.BLUE),
    ),
    "choice": (Enum("on", "off", name="choice"), ("on", "off")),
    "lower": (Lower(), ("ABC", "def")),
    "mirrored": (Reversed(), ("abc", "xy")),
}
"""Each type, and two values of it."""

ONLY_POSTGRESQL: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "numbers": (ARRAY(Integer), ([1, 2, 3], [])),
    "words": (ARRAY(Text), (["a,b", 'c"', "NULL"], ["{}"])),
    "prices": (ARRAY(Numeric(10, 2)), ([Decimal("1.50")], [])),
    "facts": (postgresql.JSONB(), ({"b": 1, "a": {"c": [1e3]}}, {})),
    "any_number": (Numeric(), (Decimal("1E+20"), Decimal("-0.00000012300"))),
    "tiny": (Numeric(), (Decimal("0E-9"), Decimal("NaN"))),
    "real": (postgresql.REAL(), (0.1, 1.5)),
    "no_number": (Float(53), (float("inf"), float("-inf"))),
    "any_case": (postgresql.CITEXT(), ("AbC", "")),
}


def known(place: Place) -> dict[str, tuple[Any, tuple[Any, ...]]]:
    """
    Return what the database of the place has.
    """
    return TYPES | ONLY_POSTGRESQL if place.world.backend == "postgresql" else TYPES


def table(place: Place, *names: str) -> Any:
    """
    Make a table with these columns, or with all that the database has, and return a class that is mapped to it.

    It has three rows: two with values, and one of NULLs.
    """
    types = known(place)
    chosen = {name: types[name] for name in names or types}
    columns = [Column(name, type_) for name, (type_, _) in chosen.items()]
    made = Table("kinds", MetaData(), Column("id", Integer, primary_key=True, autoincrement=False), *columns)
    model = type("Kind", (), {})
    registry().map_imperatively(model, made)
    engine = place.plain["main"].engine
    with engine.begin() as connection:
        if place.world.backend == "postgresql":
            connection.exec_driver_sql("create extension if not exists citext")
        made.create(connection)
        for number in range(2):
            values = {name: each[number] for name, (_, each) in chosen.items()}
            connection.execute(made.insert(), {"id": number + 1, **values})
        connection.exec_driver_sql("insert into kinds (id) values (3)")
    return model
