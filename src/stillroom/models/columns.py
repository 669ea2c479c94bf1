"""
Column types that mean the same on SQLite, PostgreSQL and MariaDB, and the Python types that stand for them.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import JSON, DateTime, Interval, Numeric, Uuid
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator

from stillroom.models.problems import InexactDecimal, NaiveDatetime

if TYPE_CHECKING:
    from sqlalchemy import Dialect
    from sqlalchemy.sql.compiler import SQLCompiler
    from sqlalchemy.sql.operators import OperatorType
    from sqlalchemy.types import TypeEngine

__all__ = ["DecimalNumber", "UTCDateTime", "UTCNow", "annotation_types"]


class UTCDateTime(TypeDecorator[datetime]):
    """
    A point in time: takes datetimes of any time zone, stores UTC to the microsecond, returns datetimes in UTC.

    PostgreSQL stores TIMESTAMP WITH TIME ZONE. SQLite and MariaDB have no such type: SQLAlchemy's
    ``DateTime(timezone=True)`` drops the zone there without converting, so 12:00+02:00 comes back as 12:00. Here it
    is stored as 10:00 and comes back as 10:00+00:00. MariaDB's column is DATETIME(6); its DATETIME keeps whole seconds.

    Raises:
        NaiveDatetime: for a datetime without a zone, because it could mean any of them.
    """

    impl = DateTime(timezone=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """
        Choose the column type of a dialect.
        """
        if dialect.name in {"mysql", "mariadb"}:
            from sqlalchemy.dialects.mysql import DATETIME

            return dialect.type_descriptor(DATETIME(fsp=6))
        return dialect.type_descriptor(DateTime(timezone=True))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """
        Convert to UTC; without the zone for the databases that cannot store it.
        """
        if value is None:
            return None
        if value.utcoffset() is None:
            msg = (
                f"{value!r} has no time zone, so it is no point in time. Give one, as in datetime.now(UTC), or declare"
                " the column as DateTime() if it means the time on a clock"
            )
            raise NaiveDatetime(msg)
        utc = value.astimezone(UTC)
        return utc if dialect.name == "postgresql" else utc.replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """
        Give the stored time its zone.
        """
        if value is None:
            return None
        # PostgreSQL's drivers return the zone of the session, which may be any.
        return value.astimezone(UTC) if dialect.name == "postgresql" else value.replace(tzinfo=UTC)

    def coerce_compared_value(self, op: OperatorType | None, value: Any) -> Any:
        """
        Treat the other side of an expression as a point in time too, unless it is a duration.
        """
        return Interval() if isinstance(value, timedelta) else super().coerce_compared_value(op, value)


# What a float of 64 bits keeps of every decimal number: DBL_DIG of C's <float.h>.
_FLOAT_DIGITS = 15


class DecimalNumber(TypeDecorator[Decimal]):
    """
    A decimal number that comes back as it was: what ``Mapped[Decimal]`` is, where no digits are given.

    PostgreSQL stores NUMERIC, of any size. MariaDB stores NUMERIC(38, 10), as its NUMERIC alone rounds cents away.
    SQLite knows floats only: 15 digits are kept there, and a number with more is refused.

    Raises:
        InexactDecimal: on SQLite, for a number of more than 15 digits, and for NaN and the infinities.
    """

    impl = Numeric
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """
        Choose the column type of a dialect.
        """
        if dialect.name in {"mysql", "mariadb"}:
            return dialect.type_descriptor(Numeric(38, 10))
        if dialect.name == "sqlite":
            return dialect.type_descriptor(Numeric(asdecimal=False))
        return dialect.type_descriptor(Numeric())

    def process_bind_param(self, value: Decimal | float | None, dialect: Dialect) -> Decimal | None:
        """
        Refuse what a float would change.
        """
        if value is None:
            return None
        number = value if isinstance(value, Decimal) else Decimal(str(value))
        if dialect.name != "sqlite":
            return number
        digits = number.as_tuple().digits
        # Those before the zeros at the end; not by `normalize`, which rounds to what Python's decimal context keeps.
        exact = len(digits) <= _FLOAT_DIGITS or len("".join(map(str, digits)).rstrip("0")) <= _FLOAT_DIGITS
        if not number.is_finite() or not exact:
            msg = (
                f"{value!r} is no number of at most {_FLOAT_DIGITS} digits, and SQLite keeps no more."
                " Round it, or store it as text"
            )
            raise InexactDecimal(msg)
        return number

    def process_result_value(self, value: Any, dialect: Dialect) -> Decimal | None:
        """
        Make the shortest decimal number of what SQLite returns, so that a sum of 0.1 and 0.2 is 0.3.
        """
        if dialect.name == "sqlite" and isinstance(value, float):
            return Decimal(f"{value:.{_FLOAT_DIGITS}g}")
        return None if value is None else Decimal(value)


class UTCNow(FunctionElement[datetime]):
    """
    The server's time in UTC, whatever the time zone of its session: for ``server_default`` and for statements.

    SQLite's has milliseconds, the others microseconds. PostgreSQL's is the start of the transaction.
    """

    name = "utc_now"
    inherit_cache = True
    type = UTCDateTime()


@compiles(UTCNow)
def _now(_element: UTCNow, _compiler: SQLCompiler, **_: Any) -> str:
    return "CURRENT_TIMESTAMP"


@compiles(UTCNow, "sqlite")
def _now_sqlite(_element: UTCNow, _compiler: SQLCompiler, **_: Any) -> str:
    # As many digits as SQLAlchemy writes: SQLite compares times as text.
    return "strftime('%Y-%m-%d %H:%M:%f000', 'now')"


@compiles(UTCNow, "mysql", "mariadb")
def _now_mysql(_element: UTCNow, _compiler: SQLCompiler, **_: Any) -> str:
    return "utc_timestamp(6)"


def annotation_types() -> dict[Any, Any]:
    """
    Make the ``type_annotation_map`` of a base: what ``Mapped[datetime]`` and others become.

    Returns:
        A new mapping. What is not in it keeps SQLAlchemy's own type (``str``, ``int``, ``bytes``, enums, …).
    """
    from sqlalchemy.dialects.postgresql import JSONB

    # PostgreSQL's JSON has no equality, so DISTINCT, GROUP BY and UNION fail on it; JSONB has.
    json = JSON().with_variant(JSONB(), "postgresql")
    return {
        datetime: UTCDateTime(),
        Decimal: DecimalNumber(),
        UUID: Uuid(),
        dict: json,
        dict[str, Any]: json,
        dict[str, object]: json,
        dict[str, str]: json,
        dict[str, int]: json,
        list: json,
        list[Any]: json,
        list[str]: json,
        list[int]: json,
        list[dict[str, Any]]: json,
    }
