"""JSON that the database builds, with the values that msgspec would write; only where they are the same."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache, partial
from math import inf
from typing import TYPE_CHECKING, Any, NamedTuple

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
from ..quoting import literal, quoted

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import Dialect, Select

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
        odd: The condition, None where there is none; SQLite's alone.
        quote: What belongs on both sides of the text; PostgreSQL's alone.
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


class JSONStatement(NamedTuple):
    """
    A SELECT of one column, which has JSON.

    Attributes:
        select: The SELECT.
        finish: Makes the array of what it found; None where that is not what Python would write.
    """

    select: Select[Any]
    finish: Callable[[Sequence[Any]], bytes | None]


def json_statement(statement: Select[Any], columns: Columns, dialect: Dialect) -> JSONStatement | None:
    """
    Return what finds the rows of a SELECT as JSON; None where the database cannot write all columns as Python does.
    """
    writer = _WRITERS.get(dialect.name)
    array = None if writer is None else _array(writer, columns, dialect)
    if array is None:
        return None
    return JSONStatement(select(array.element).select_from(statement.subquery(_INNER)), array.finish)


_INNER = "t"


class _Array(NamedTuple):
    """
    What a JSON statement selects, and `JSONStatement`'s `finish`.
    """

    element: Any
    finish: Callable[[Sequence[Any]], bytes | None]


class _Writer(NamedTuple):
    """
    How a database writes JSON.

    Attributes:
        value: Writes a value of a type; None for a type of which the database cannot.
        array: Writes an array of the values of the columns.
        most_columns: How many columns a row may have.
    """

    value: Callable[[str, Any, Dialect], _Value | str | None]
    array: Callable[[Columns, Sequence[_Value]], _Array]
    most_columns: float


@lru_cache(maxsize=1024)
def _array(writer: _Writer, columns: Columns, dialect: Dialect) -> _Array | None:
    """
    Return what a JSON statement selects, None where there is a column that the database cannot write.
    """
    if len(columns) > writer.most_columns or len({column.name for column in columns}) != len(columns):
        return None
    values = []
    for column in columns:
        type_ = None if column.type is None else _result_type(column.type, dialect)
        value = None if type_ is None else writer.value(quoted(_INNER, column.name), type_, dialect)
        if value is None:
            return None
        values.append(value if isinstance(value, _Value) else _Value(value))
    return writer.array(columns, values)


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
    cases = " ".join(f"WHEN {literal(name)} THEN {literal(value)}" for name, value in values.items())
    return f"CASE {text} {cases} END"


# --- PostgreSQL

_AS_THEY_ARE = (Integer, JSON)
_BY_TO_JSON = (String, Date)
_ITEMS = (Integer, Boolean, String, Uuid)


def _postgresql_array(columns: Columns, values: Sequence[_Value]) -> _Array:
    """
    Put each object together as text, in less time than row_to_json(), which looks up each type again for each row.

    What all objects start and end with is added where they are joined. An object is NULL as a whole where a column has
    NULL that is declared without.
    """
    fixed: list[str] = []
    varying: list[str] = []
    before = "{"
    for column, (text, _, quote) in zip(columns, values, strict=True):
        before += f"{msgspec.json.encode(column.name).decode()}:"
        if column.nullable:
            text = f"{literal(quote)} || {text} || {literal(quote)}" if quote else f"({text})::text"  # noqa: PLW2901
            fixed.append(before)
            varying.append(f"coalesce({text}, 'null')")
            before = ","
        else:
            fixed.append(before + quote)
            varying.append(f"({text})::text")
            before = quote + ","
    start, end = fixed[0], before[:-1] + "}"
    pieces = varying[:1]
    for known, text in zip(fixed[1:], varying[1:], strict=True):
        pieces += [literal(known), text]
    return _Array(literal_column(_concatenated(pieces)), partial(_joined, start, end))


def _joined(start: str, end: str, objects: Sequence[Any]) -> bytes | None:
    # Joined here: while they come the server goes on. A single text of them all is copied more often, and has a limit.
    if not objects:
        return b"[]"
    return None if None in objects else f"[{start}{f'{end},{start}'.join(objects)}{end}]".encode()


def _concatenated(pieces: Sequence[str]) -> str:
    """
    Concatenate by halves: one after the other, a long text would be copied once for each piece behind it.
    """
    if len(pieces) == 1:
        return pieces[0]
    half = len(pieces) // 2
    return f"({_concatenated(pieces[:half])} || {_concatenated(pieces[half:])})"


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
    if isinstance(type_, Uuid):
        return _Value(f"{column}::text", quote='"')
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
_IS_ISO = "(SELECT current_setting('DateStyle') LIKE 'ISO%')"
"""The server asks once for all rows: a subquery without a column of theirs is executed once."""
_IS_UTC = "(SELECT current_setting('TimeZone') IN ('UTC', 'Etc/UTC'))"


def _postgresql_time(column: str, type_: Any, dialect: Dialect) -> _Value:
    """
    Write a time as Python does: microseconds where there are some, and Z for UTC.

    The usual text takes a third of the time of to_char(), and that of to_json() two thirds, but both leave out the last
    zeros of a fraction.
    """
    seconds = 'YYYY-MM-DD"T"HH24:MI:SS.US'
    is_zoned = isinstance(type_, UTCDateTime) or type_.timezone
    kind = "timestamptz" if is_zoned else "timestamp"
    same = f"({column} <> {column}::{kind}(5) OR ({column} = {column}::{kind}(0) AND isfinite({column})))"
    time, zone = (f"timezone(INTERVAL '0', {column})", " || 'Z'") if is_zoned else (column, "")
    cases = f"{same} AND {_IS_ISO} THEN replace({time}::text, ' ', 'T'){zone}"
    exact = f"replace(to_char({time}, '{seconds}'), '.000000', ''){zone}"
    if is_zoned and not isinstance(type_, UTCDateTime) and dialect.driver != "asyncpg":  # in the zone of the session
        short = f"replace(to_json({column})::text, '\"', '')"
        exact = f"replace(to_char({column}, '{seconds}TZH:TZM'), '.000000', '')"
        short, exact = (f"replace({each}, '+00:00', 'Z')" for each in (short, exact))
        cases = f"{_IS_UTC} AND {cases} WHEN {same} AND {column} >= '{_WHOLE_MINUTES}' THEN {short}"
    # to_char() has no text for infinity.
    return _Value(f"CASE WHEN {cases} ELSE coalesce({exact}, {column}::text) END", quote='"')


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


_MOST_COLUMNS = 60
"""SQLite's functions take 127 arguments, two for each column (SQLITE_MAX_FUNCTION_ARG of older versions)."""


def _sqlite_array(columns: Columns, values: Sequence[_Value]) -> _Array:
    """
    Write the array, as bytes: a text would be decoded on its way into Python; NULL where a value is odd.
    """
    parts = ", ".join(f"{literal(column.name)}, {value.text}" for column, value in zip(columns, values, strict=True))
    text = f"CAST(json_group_array(json_object({parts})) AS BLOB)"
    conditions = " OR ".join(f"({value.odd})" for value in values if value.odd is not None)
    text = f"CASE count(*) FILTER (WHERE {conditions}) WHEN 0 THEN {text} END" if conditions else text
    return _Array(literal_column(text), _if_utf8)


def _if_utf8(found: Sequence[Any]) -> bytes | None:
    array: bytes | None = found[0]
    if array is not None and not array.isascii():
        try:
            array.decode()
        except UnicodeDecodeError:
            return None  # other programs store texts of other encodings; to read one as text is an error
    return array


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


_WRITERS = {
    "postgresql": _Writer(_postgresql, _postgresql_array, inf),
    "sqlite": _Writer(_sqlite, _sqlite_array, _MOST_COLUMNS),
}
