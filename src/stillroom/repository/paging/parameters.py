"""Fields that a query string may filter by: their operators, and the values that their columns take."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, time
from decimal import Decimal
from functools import cached_property
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import BigInteger, Enum, Numeric, SmallInteger, literal
from sqlalchemy.types import TypeDecorator

from ...errors import InvalidListQuery
from ...models import DecimalNumber, UTCDateTime
from ...models.matching import contains, is_text, starts_with

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import ColumnElement
    from sqlalchemy.orm import InstrumentedAttribute

    Converter = Callable[[str], Any]

RESERVED = ("page", "size", "cursor", "sort", "q")
"""The parameters that are no fields."""

_FURTHEST_EXPONENT = 100
"""A decimal number with more digits than that before or after its point is no request, but an attack."""
_SHOWN = 60
"""Characters of a value that an error shows."""

_COMPARISONS: dict[str, Callable[[Any, Any], ColumnElement[bool]]] = {
    "ne": lambda column, value: column.is_distinct_from(value),  # a row without a value has another one
    "lt": lambda column, value: column < value,
    "le": lambda column, value: column <= value,
    "gt": lambda column, value: column > value,
    "ge": lambda column, value: column >= value,
    "contains": lambda column, value: contains(column, value, ignoring_case=False),
    "icontains": lambda column, value: contains(column, value, ignoring_case=True),
    "startswith": lambda column, value: starts_with(column, value, ignoring_case=False),
    "istartswith": lambda column, value: starts_with(column, value, ignoring_case=True),
}
_ALL = ("eq", "ne", "in", "isnull")
_ORDERED = ("lt", "le", "gt", "ge")
_TEXT = ("contains", "icontains", "startswith", "istartswith")


class Field:
    """
    A column that may be filtered by.

    Args:
        column: The attribute of the model, or its name.
        *operators: What may be asked of it: "eq", "ne", "in", "isnull"; "lt", "le", "gt", "ge"; for text "contains",
            "startswith", and ignoring case "icontains", "istartswith". None: everything that suits its type.
        name: Its name in the query string; by default that of the attribute.

    """

    def __init__(self, column: Any, *operators: str, name: str | None = None) -> None:
        self.column: InstrumentedAttribute[Any] = column
        self.name: str = name or (column if isinstance(column, str) else column.key)
        self._asked = operators

    def of(self, attribute: Callable[[Any], InstrumentedAttribute[Any]]) -> Field:
        """
        Return the same field with its attribute, where only the name was given.

        Args:
            attribute: Finds the attribute of a name, and returns an attribute as it is.
        """
        return Field(attribute(self.column), *self._asked, name=self.name)

    @cached_property
    def operators(self) -> tuple[str, ...]:
        """
        What may be asked of it.
        """
        ordered = not isinstance(self.column.type, Enum) and self._conversion[0] is not boolean
        possible = (*_ALL, *_ORDERED * ordered, *_TEXT * is_text(self.column.type))
        if wrong := [each for each in self._asked if each not in possible]:
            raise ValueError(f"{self.column} has no operator {wrong[0]!r}; it has {', '.join(map(repr, possible))}")
        return self._asked or possible

    @cached_property
    def _conversion(self) -> tuple[Converter, str]:
        return _converter(self.column)

    def parameters(self) -> list[str]:
        """
        Return the names of its parameters.

        Raises:
            ValueError: There is no such operator for the column, or the name is taken.
            TypeError: Its values cannot be written in a query string.
        """
        if self.name in RESERVED:
            raise ValueError(f"{self.name!r} is a parameter of every list; name the field otherwise: Field(…, name=…)")
        return [self.name if each == "eq" else f"{self.name}__{each}" for each in self.operators]

    def condition(self, operator: str, parameter: str, texts: list[str]) -> ColumnElement[bool]:
        """
        Return the condition for the values of one of its parameters.

        Raises:
            InvalidListQuery: A value does not fit, or there are several where one is meant.
        """
        if operator == "in":
            texts = [each for text in texts for each in text.split(",") if each]
        if operator in {"eq", "in"}:
            values = [self._value(parameter, each) for each in texts]
            return self.column.in_(values)
        text = single(parameter, texts)
        if operator == "isnull":
            absent = converted(boolean, "true or false", parameter, text)
            return self.column.is_(None) if absent else self.column.is_not(None)
        return _COMPARISONS[operator](self.column, self._value(parameter, text))

    def _value(self, parameter: str, text: str) -> Any:
        convert, expected = self._conversion
        value = converted(convert, expected, parameter, text)
        # Compared as it is: to the column's own digits it may be too long, which some drivers refuse or round off.
        return literal(value, Numeric(asdecimal=False)) if convert is _decimal and self._is_number else value

    @cached_property
    def _is_number(self) -> bool:
        return isinstance(self.column.type, Numeric | DecimalNumber)


def converted(convert: Converter, expected: str, parameter: str, text: str) -> Any:
    """
    Return the value that a text stands for.

    Args:
        convert: What makes it.
        expected: What is expected, in words.
        parameter: The name in the query string.
        text: What it had.

    Raises:
        InvalidListQuery: It is none.
    """
    try:
        text.encode()  # half a character cannot be sent
        if "\x00" in text:  # nor can this be, to PostgreSQL
            raise ValueError
        return convert(text)
    except (ValueError, KeyError, ArithmeticError):
        raise wrong(parameter, text, f"expected {expected}") from None


def single(parameter: str, texts: list[str]) -> str:
    """
    Return the only value of a parameter.

    Raises:
        InvalidListQuery: There are several.
    """
    if len(texts) > 1:
        raise wrong(parameter, texts[1], "it is given more than once")
    return texts[0]


def whole(parameter: str, text: str, most: int) -> int:
    """
    Return a number from 1 to `most`.

    Raises:
        InvalidListQuery: It is none.
    """

    def convert(text: str) -> int:
        number = int(text)
        if not 1 <= number <= most:
            raise ValueError
        return number

    return int(converted(convert, f"a whole number from 1 to {most}", parameter, text))


def wrong(parameter: str, value: str | None, reason: str) -> InvalidListQuery:
    """
    Make the error for a parameter.
    """
    shown = "" if value is None else f" = {value[:_SHOWN]!r}{'…' * (len(value) > _SHOWN)}"
    return InvalidListQuery(f"{parameter[:_SHOWN]!r}{shown}: {reason}", parameter=parameter, value=value)


def boolean(text: str) -> bool:
    """
    Read a truth value as people and forms write it.
    """
    words = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
    return words[text.lower()]


def _converter(column: Any) -> tuple[Converter, str]:
    """
    Return what makes a value of text, by the Python type of a column, and what it takes in words.
    """
    type_ = column.type
    in_utc = isinstance(type_, UTCDateTime)
    while isinstance(type_, TypeDecorator):
        type_ = type_.impl_instance
    if isinstance(type_, Enum):
        return _enum(type_)
    python = type_.python_type
    if python is int:
        return _integer(16 if isinstance(type_, SmallInteger) else 64 if isinstance(type_, BigInteger) else 32)
    if python is datetime:
        return _POINT_IN_TIME if in_utc or type_.timezone else _TIME_ON_A_CLOCK
    if python not in _CONVERTERS:
        raise TypeError(f"{column} cannot be a field of a list: a query string has no values of {type_!r}")
    return _CONVERTERS[python]


def _integer(bits: int) -> tuple[Converter, str]:
    least, most = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1

    def convert(text: str) -> int:
        value = int(text)
        if not least <= value <= most:
            raise ValueError
        return value

    return convert, f"a whole number from {least} to {most}"


def _enum(type_: Enum) -> tuple[Converter, str]:
    if type_.enum_class is None:
        known: dict[str, Any] = {name: name for name in type_.enums}
    else:
        known = {str(each.value): each for each in type_.enum_class} | {each.name: each for each in type_.enum_class}
    return known.__getitem__, f"one of {', '.join(map(repr, type_.enums))}"


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError
    return value


def _decimal(text: str) -> Decimal:
    value = Decimal(text)
    if not value.is_finite() or abs(value.adjusted()) > _FURTHEST_EXPONENT:
        raise ValueError
    return value


def _point_in_time(text: str) -> datetime:
    value = datetime.fromisoformat(text)
    value = value if value.utcoffset() is not None else value.replace(tzinfo=UTC)
    return value.astimezone(UTC)  # fails here, and not in the driver, where the first or last year leaves the calendar


def _time_on_a_clock(text: str) -> datetime:
    value = datetime.fromisoformat(text)
    if value.utcoffset() is not None:
        raise ValueError
    return value


def _time(text: str) -> time:
    value = time.fromisoformat(text)
    if value.tzinfo is not None:
        raise ValueError
    return value


_POINT_IN_TIME = (_point_in_time, "a point in time, such as 2026-01-31T12:30:00Z")
_TIME_ON_A_CLOCK = (_time_on_a_clock, "a date and time without a zone, such as 2026-01-31T12:30:00")
_CONVERTERS: dict[type[Any], tuple[Converter, str]] = {
    float: (_float, "a number"),
    Decimal: (_decimal, "a decimal number"),
    bool: (boolean, "true or false"),
    date: (date.fromisoformat, "a date, such as 2026-01-31"),
    time: (_time, "a time without a zone, such as 12:30"),
    UUID: (UUID, "a UUID"),
    str: (str, "text"),
}
