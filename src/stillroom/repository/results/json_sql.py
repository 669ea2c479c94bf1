"""JSON that the database builds, with the values that msgspec would write; only where they are the same."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from sqlalchemy import (
    ARRAY,
    JSON,
    REAL,
    Boolean,
    Column,
    Date,
    DateTime,
    Enum,
    Float,
    Integer,
    Label,
    LargeBinary,
    Numeric,
    String,
    Time,
    TypeDecorator,
    Uuid,
    literal_column,
    select,
)

from ...models import DecimalNumber, UTCDateTime

if TYPE_CHECKING:
    from sqlalchemy import Dialect, Select

_MOST_COLUMNS = 60
"""SQLite's functions take 127 arguments, two for each column (SQLITE_MAX_FUNCTION_ARG of older versions)."""
_MOST_PLAIN_DIGITS = 6
"""Python writes a Decimal with more zeros than this behind the point as 1E-7."""
_EXACT_DIGITS = 15
"""What a float of 64 bits keeps of every decimal number; with more, SQLite and Python may round differently."""
_UNKNOWN_SCALE = 10
"""The digits that SQLAlchemy gives a Numeric that says none, where the database has floats only."""


class _Value(NamedTuple):
    """
    SQL of one value in JSON, and when that is not what Python would write.
    """

    text: str
    odd: str | None = None


Columns = tuple[tuple[str, Any], ...]
"""The name and the type of each column of a SELECT; None for a type that is only guessed."""


def columns_of(statement: Select[Any]) -> Columns:
    """
    Return the columns of a SELECT.

    What is no column of a table has a type that SQLAlchemy guesses: a sum of BIGINT is BIGINT for it, and on PostgreSQL
    NUMERIC.
    """
    plain = ((each, each.element if isinstance(each, Label) else each) for each in statement.selected_columns)
    return tuple((each.name, inner.type if isinstance(inner, Column) else None) for each, inner in plain)


def json_statement(statement: Select[Any], columns: Columns, dialect: Dialect) -> Select[Any] | None:
    """
    Return the SELECT of one row: the JSON text of all rows, and whether it is not what Python would write.

    None where the database cannot write all of these columns as Python does.
    """
    values = _values(columns, dialect)
    if values is None:
        return None
    rows: Any = statement.subquery(_INNER)
    if dialect.name == "postgresql":
        parts = ", ".join(f"{value.text} AS {_quote(name)}" for name, value in values.items())
        rows = select(literal_column(parts)).select_from(rows).subquery("r")
        text, odd = "'[' || coalesce(string_agg(row_to_json(r)::text, ','), '') || ']'", "false"
    else:
        parts = ", ".join(f"{_literal(name)}, {value.text}" for name, value in values.items())
        conditions = " OR ".join(f"({value.odd})" for value in values.values() if value.odd is not None)
        text, odd = (
            f"json_group_array(json_object({parts}))",
            f"count(CASE WHEN {conditions} THEN 1 END)" if conditions else "0",
        )
    return cast("Select[Any]", select(literal_column(text), literal_column(odd)).select_from(rows))


_INNER = "t"


@lru_cache(maxsize=1024)
def _values(columns: Columns, dialect: Dialect) -> dict[str, _Value] | None:
    """
    Return SQL for each column, None where there is one without.
    """
    write = {"postgresql": _postgresql, "sqlite": _sqlite}.get(dialect.name)
    if write is None or len(columns) > _MOST_COLUMNS:
        return None
    values = {}
    for name, declared in columns:
        type_ = None if declared is None else _result_type(declared, dialect)
        value = None if type_ is None else write(f"{_INNER}.{_quote(name)}", type_, dialect)
        if value is None:
            return None
        values[name] = value if isinstance(value, _Value) else _Value(value)
    return values if len(values) == len(columns) else None


def _quote(name: str) -> str:
    # Not the dialect's own: that doubles percent signs, and literal_column() does it again.
    return '"' + name.replace('"', '""') + '"'


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _result_type(type_: Any, dialect: Dialect) -> Any:
    """
    Return the type whose results these are, behind decorators that convert on the way in only.

    None for a type that may convert as it likes.
    """
    while isinstance(type_, TypeDecorator) and not isinstance(type_, UTCDateTime | DecimalNumber):
        owner = type(type_)
        if (
            owner.process_result_value is not TypeDecorator.process_result_value
            or owner.result_processor is not TypeDecorator.result_processor
        ):
            return None
        type_ = type_.load_dialect_impl(dialect)
    if isinstance(type_, Float) and type_.asdecimal:
        return None  # rounded by SQLAlchemy; not every dialect's type is a Float any more
    ours = isinstance(type_, TypeDecorator)
    type_ = type_.dialect_impl(dialect)
    return type_ if ours or type(type_).__module__.startswith("sqlalchemy.") else None


def _enum(column: str, type_: Enum) -> str | None:
    """
    Write a member as its value; the database has its name.
    """
    text = f"CAST({column} AS TEXT)"
    if type_.enum_class is None:
        return text
    values = {name: member.value for name, member in type_.enum_class.__members__.items()}
    if type_.values_callable is not None or not all(type(each) is str for each in values.values()):
        return None
    cases = " ".join(f"WHEN {_literal(name)} THEN {_literal(value)}" for name, value in values.items())
    return f"CASE {text} {cases} END"


# --- PostgreSQL

_AS_THEY_ARE = (Integer, Boolean, String, Uuid, Date, JSON)
_ITEMS = (Integer, Boolean, String, Uuid)


def _postgresql(column: str, type_: Any, dialect: Dialect) -> str | None:
    if isinstance(type_, Enum):
        return _enum(column, type_)
    if isinstance(type_, _AS_THEY_ARE):
        return column
    if isinstance(type_, ARRAY):
        item = _result_type(type_.item_type, dialect)
        return column if isinstance(item, _ITEMS) and not isinstance(item, Enum) else None
    if isinstance(type_, UTCDateTime | DateTime):
        return _postgresql_time(column, type_, dialect)
    if isinstance(type_, Time) and not type_.timezone:
        return f"replace(to_char({column}, 'HH24:MI:SS.US'), '.000000', '')"
    scale = getattr(type_, "scale", None)
    is_decimal = isinstance(type_, DecimalNumber) or (isinstance(type_, Numeric) and type_.asdecimal)
    if dialect.driver == "asyncpg" and (isinstance(type_, REAL) or (is_decimal and not scale)):
        return None  # it reads 0.1 as 0.10000000149011612 and 10000 as 1E+4
    if is_decimal:
        return _postgresql_decimal(column, scale)
    if isinstance(type_, Float | Numeric):
        # JSON has no number for these, and msgspec writes null.
        return f"nullif(nullif(nullif({column}, 'NaN'), 'Infinity'), '-Infinity')"
    if isinstance(type_, LargeBinary):
        return f"replace(encode({column}, 'base64'), chr(10), '')"
    return None


def _postgresql_time(column: str, type_: Any, dialect: Dialect) -> str:
    """
    Write a time as Python does: microseconds where there are some, and Z for UTC.
    """
    seconds = 'YYYY-MM-DD"T"HH24:MI:SS.US'
    if isinstance(type_, UTCDateTime) or (type_.timezone and dialect.driver == "asyncpg"):
        text = f"replace(to_char(timezone('UTC', {column}), '{seconds}'), '.000000', '') || 'Z'"
    elif type_.timezone:  # psycopg returns the zone of the session
        text = f"replace(replace(to_char({column}, '{seconds}TZH:TZM'), '.000000', ''), '+00:00', 'Z')"
    else:
        text = f"replace(to_char({column}, '{seconds}'), '.000000', '')"
    return f"coalesce({text}, {column}::text)"  # to_char has no text for infinity


def _postgresql_decimal(column: str, scale: int | None) -> str:
    """
    Write a number as Python does, which puts an exponent behind small ones with many digits.
    """
    text = f"{column}::text"
    if scale is not None and scale <= _MOST_PLAIN_DIGITS:
        return text
    digits = f"coalesce(nullif(ltrim(replace(ltrim({text}, '-'), '.', ''), '0'), ''), '0')"
    sign = f"CASE WHEN {column} < 0 THEN '-' ELSE '' END"
    point = f"CASE WHEN length({digits}) > 1 THEN '.' ELSE '' END"
    exponent = f"length({digits}) - 1 - scale({column})"
    small = f"concat({sign}, left({digits}, 1), {point}, substr({digits}, 2), 'E', {exponent})"
    return f"CASE WHEN scale({column}) > {_MOST_PLAIN_DIGITS} AND abs({column}) < 0.000001 THEN {small} ELSE {text} END"


# --- SQLite

_HEX_DIGITS = 32
_MOMENT = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)
_WRITTEN = "2026-01-02 03:04:05.678901"
_DATE, _TO_THE_SECOND = 10, 19
"""Lengths of what SQLAlchemy writes."""


def _sqlite(column: str, type_: Any, dialect: Dialect) -> _Value | str | None:
    if isinstance(type_, Enum):
        return _enum(column, type_)
    if isinstance(type_, Integer | String):
        return column
    if isinstance(type_, JSON):
        return f"json({column})"
    if isinstance(type_, Boolean):
        return f"CASE WHEN {column} THEN json('true') WHEN NOT {column} THEN json('false') END"
    if isinstance(type_, UTCDateTime | DateTime | Date | Time):
        return _sqlite_time(column, type_, dialect)
    if isinstance(type_, DecimalNumber):
        return _sqlite_decimal_number(column)
    if isinstance(type_, Numeric) and type_.asdecimal:
        return _sqlite_numeric(column, type_)
    if isinstance(type_, Uuid):
        parts = ((1, 8), (9, 4), (13, 4), (17, 4), (21, 12))
        text = " || '-' || ".join(f"substr({column}, {start}, {length})" for start, length in parts)
        return _Value(text, f"length({column}) <> {_HEX_DIGITS}")
    return None


def _sqlite_time(column: str, type_: Any, dialect: Dialect) -> _Value | None:
    """
    Write a time, which SQLite has as text; odd is what SQLAlchemy did not write, for instance without seconds.
    """
    processor = type_.bind_processor(dialect)
    if isinstance(type_, Date):
        is_usual = processor(_MOMENT.date()) == _WRITTEN[:_DATE]
        return _Value(column, f"length({column}) <> {_DATE}") if is_usual else None
    skipped = _DATE + 1 if isinstance(type_, Time) else 0
    if processor(_MOMENT.time() if skipped else _MOMENT) != _WRITTEN[skipped:]:
        return None  # a format of the user's own
    text = f"replace(replace({column}, ' ', 'T'), '.000000', '')"
    usual = f"{_TO_THE_SECOND - skipped}, {len(_WRITTEN) - skipped}"
    text = f"{text} || 'Z'" if isinstance(type_, UTCDateTime) else text
    return _Value(text, f"length({column}) NOT IN ({usual})")


def _sqlite_numeric(column: str, type_: Any) -> _Value:
    """
    Write a number of fixed digits, which SQLite has as a float; odd is one that Python may round differently.
    """
    scale = next((each for each in (type_.decimal_return_scale, type_.scale) if each is not None), _UNKNOWN_SCALE)
    text, most = f"printf('%.{scale}f', {column})", f"1e{_EXACT_DIGITS - scale}"
    odd = f"round({column} * 1e{scale}) / 1e{scale} <> {column} OR {column} NOT BETWEEN -{most} AND {most}"
    if scale <= _MOST_PLAIN_DIGITS:
        return _Value(f"CASE WHEN {column} IS NOT NULL THEN {text} END", odd)
    return _Value(
        f"CASE WHEN {column} = 0 THEN '0E-{scale}' WHEN {column} IS NOT NULL THEN {text} END",
        f"{odd} OR ({column} <> 0 AND {column} BETWEEN -1e-6 AND 1e-6)",
    )


def _sqlite_decimal_number(column: str) -> _Value:
    """
    Write a number of 15 digits, which SQLite has as an integer or a float.
    """
    text = f"printf('%.{_EXACT_DIGITS}g', {column})"
    odd = f"CAST({text} AS REAL) <> {column} OR abs({column}) < 1e-4 OR abs({column}) >= 1e{_EXACT_DIGITS}"
    return _Value(
        f"CASE typeof({column}) WHEN 'real' THEN {text} ELSE CAST({column} AS TEXT) END",
        f"typeof({column}) IN ('text', 'blob') OR (typeof({column}) = 'real' AND ({odd}))",
    )
