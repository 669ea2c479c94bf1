"""JSON that the database builds, with the values that msgspec would write; only where they are the same."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import msgspec
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
    from collections.abc import Sequence

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

    Attributes:
        text: The value; on PostgreSQL its text in JSON, NULL for NULL.
        odd: The condition, None where there is none.
        quote: What belongs on both sides of the text.
    """

    text: str
    odd: str | None = None
    quote: str = ""


class ResultColumn(NamedTuple):
    """
    A column of a SELECT.

    Attributes:
        name: Its name in the result.
        type: Its type, None for one that is only guessed.
        nullable: It may be NULL, as far as the model says.
    """

    name: str
    type: Any
    nullable: bool


Columns = tuple[ResultColumn, ...]


def columns_of(statement: Select[Any], *, is_of_model: bool) -> Columns:
    """
    Return the columns of a SELECT.

    What is no column of a table has a type that SQLAlchemy guesses: a sum of BIGINT is BIGINT for it, and on PostgreSQL
    NUMERIC.

    Args:
        statement: The SELECT.
        is_of_model: It selects from the model alone, so no outer join makes NULL of a column that has none.
    """
    plain = ((each, each.element if isinstance(each, Label) else each) for each in statement.selected_columns)
    return tuple(
        ResultColumn(str(each.name), inner.type, not is_of_model or bool(inner.nullable))
        if isinstance(inner, Column)
        else ResultColumn(str(each.name), None, nullable=True)
        for each, inner in plain
    )


def json_statement(statement: Select[Any], columns: Columns, dialect: Dialect) -> Select[Any] | None:
    """
    Return the SELECT of one row: all objects as JSON, and whether they are not what Python would write.

    There are commas between the objects, no brackets around them, and NULL where there are none. Return None where the
    database cannot write all of these columns as Python does.
    """
    built = _built(columns, dialect)
    return None if built is None else cast("Select[Any]", select(*built).select_from(statement.subquery(_INNER)))


_INNER = "t"


@lru_cache(maxsize=1024)
def _built(columns: Columns, dialect: Dialect) -> tuple[Any, Any] | None:
    """
    Return what a JSON statement selects, None where there is a column that the database cannot write.
    """
    writes = {"postgresql": (_postgresql, _postgresql_objects), "sqlite": (_sqlite, _sqlite_objects)}
    if dialect.name not in writes or len(columns) > _MOST_COLUMNS:
        return None
    write, objects = writes[dialect.name]
    values = []
    for column in columns:
        type_ = None if column.type is None else _result_type(column.type, dialect)
        value = None if type_ is None else write(f"{_INNER}.{_quote(column.name)}", type_, dialect)
        if value is None:
            return None
        values.append(value if isinstance(value, _Value) else _Value(value))
    if len({column.name for column in columns}) != len(columns):
        return None
    text, odd = objects(columns, values)
    return literal_column(text), literal_column(odd)


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

_MOST_ARGUMENTS = 90
"""PostgreSQL's functions take 100 (FUNC_MAX_ARGS)."""
_AS_THEY_ARE = (Integer, JSON)
_BY_TO_JSON = (String, Uuid, Date)
_ITEMS = (Integer, Boolean, String, Uuid)


def _postgresql_objects(columns: Columns, values: Sequence[_Value]) -> tuple[str, str]:
    """
    Put objects together as text, in much less time than row_to_json(), which looks up each type again for each row.

    concat() passes over NULL, so one in a column that is declared without makes the result odd.
    """
    pieces, before, never_null = [], "{", []
    for column, (text, _, quote) in zip(columns, values, strict=True):
        before += f"{msgspec.json.encode(column.name).decode()}:"
        if column.nullable:
            quoted = f"{_literal(quote)} || {text} || {_literal(quote)}" if quote else f"({text})::text"
            pieces += [_literal(before), f"coalesce({quoted}, 'null')"]
            before = ","
        else:
            never_null.append(f"{_INNER}.{_quote(column.name)} IS NULL")
            pieces += [_literal(before + quote), text]
            before = quote + ","
    pieces.append(_literal(before[:-1] + "}"))
    chunks = (pieces[start : start + _MOST_ARGUMENTS] for start in range(0, len(pieces), _MOST_ARGUMENTS))
    text = " || ".join(f"concat({', '.join(chunk)})" for chunk in chunks)
    odd = f"count(*) FILTER (WHERE {' OR '.join(never_null)})" if never_null else "0"
    return f"string_agg({text}, ',')", odd


def _postgresql(column: str, type_: Any, dialect: Dialect) -> _Value | str | None:
    if isinstance(type_, Enum):
        member = _enum(column, type_)
        return None if member is None else f"coalesce(to_json({member})::text, 'null')"
    if isinstance(type_, _AS_THEY_ARE):
        return column
    if isinstance(type_, _BY_TO_JSON):
        return f"to_json({column})"
    if isinstance(type_, Boolean):
        return f"{column}::text"
    if isinstance(type_, ARRAY):
        item = _result_type(type_.item_type, dialect)
        return f"to_json({column})" if isinstance(item, _ITEMS) and not isinstance(item, Enum) else None
    if isinstance(type_, UTCDateTime | DateTime):
        return _postgresql_time(column, type_, dialect)
    if isinstance(type_, Time) and not type_.timezone:
        return _Value(f"replace(to_char({column}, 'HH24:MI:SS.US'), '.000000', '')", quote='"')
    if isinstance(type_, LargeBinary):
        return _Value(f"replace(encode({column}, 'base64'), chr(10), '')", quote='"')
    return _postgresql_number(column, type_, dialect)


def _postgresql_number(column: str, type_: Any, dialect: Dialect) -> _Value | str | None:
    scale = getattr(type_, "scale", None)
    is_decimal = isinstance(type_, DecimalNumber) or (isinstance(type_, Numeric) and type_.asdecimal)
    if dialect.driver == "asyncpg" and (isinstance(type_, REAL) or (is_decimal and not scale)):
        return None  # it reads 0.1 as 0.10000000149011612 and 10000 as 1E+4
    if is_decimal:
        return _Value(_postgresql_decimal(column, scale), quote='"')
    if isinstance(type_, Float | Numeric):
        # JSON has no number for these, and msgspec writes null.
        return f"coalesce(nullif(nullif(nullif({column}, 'NaN'), 'Infinity'), '-Infinity')::text, 'null')"
    return None


_WHOLE_MINUTES = "1973-01-01 00:00:00+00"
"""Since then the distance of every zone to UTC is one of whole minutes, as Python writes it."""


def _postgresql_time(column: str, type_: Any, dialect: Dialect) -> str:
    """
    Write a time as Python does: microseconds where there are some, and Z for UTC.

    to_json() is twice as fast as to_char(), but leaves out the last zeros of a fraction.
    """
    seconds = 'YYYY-MM-DD"T"HH24:MI:SS.US'
    time, zone, known = column, "", "true"
    if isinstance(type_, UTCDateTime) or (type_.timezone and dialect.driver == "asyncpg"):
        time, kind, zone = f"timezone('UTC', {column})", "timestamp", "Z"
    elif type_.timezone:  # psycopg returns the zone of the session
        kind, seconds, known = "timestamptz", f"{seconds}TZH:TZM", f"{column} >= '{_WHOLE_MINUTES}'"
    else:
        kind = "timestamp"
    same = f"{time} <> {time}::{kind}(5) OR ({time} = {time}::{kind}(0) AND isfinite({column}))"
    short = f"to_json({time})::text"
    short = f"left({short}, -1) || '{zone}\"'" if zone else short
    exact = f"replace(to_char({time}, '{seconds}'), '.000000', '')" + (f" || '{zone}'" if zone else "")
    exact = f"'\"' || coalesce({exact}, {column}::text) || '\"'"  # to_char has no text for infinity
    text = f"CASE WHEN ({same}) AND {known} THEN {short} ELSE {exact} END"
    return f"replace({text}, '+00:00', 'Z')" if kind == "timestamptz" else text


def _postgresql_decimal(column: str, scale: int | None) -> str:
    """
    Write a number as Python does, which puts an exponent behind small ones with many digits.
    """
    if scale is not None and scale <= _MOST_PLAIN_DIGITS:
        return column
    text = f"{column}::text"
    digits = f"coalesce(nullif(ltrim(replace(ltrim({text}, '-'), '.', ''), '0'), ''), '0')"
    sign = f"CASE WHEN {column} < 0 THEN '-' ELSE '' END"
    point = f"CASE WHEN length({digits}) > 1 THEN '.' ELSE '' END"
    exponent = f"length({digits}) - 1 - scale({column})"
    small = f"concat({sign}, left({digits}, 1), {point}, substr({digits}, 2), 'E', {exponent})"
    return f"CASE WHEN scale({column}) > {_MOST_PLAIN_DIGITS} AND abs({column}) < 0.000001 THEN {small} ELSE {text} END"


# --- SQLite


def _sqlite_objects(columns: Columns, values: Sequence[_Value]) -> tuple[str, str]:
    parts = ", ".join(f"{_literal(column.name)}, {value.text}" for column, value in zip(columns, values, strict=True))
    conditions = " OR ".join(f"({value.odd})" for value in values if value.odd is not None)
    odd = f"count(CASE WHEN {conditions} THEN 1 END)" if conditions else "0"
    return f"group_concat(json_object({parts}))", odd


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
    # Faster than a replace() of the zeros, which looks through every time for them.
    end = _TO_THE_SECOND - skipped
    text = f"CASE substr({column}, {end + 1}) WHEN '.000000' THEN substr({column}, 1, {end}) ELSE {column} END"
    text = text if skipped else f"replace({text}, ' ', 'T')"
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
