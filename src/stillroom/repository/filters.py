"""Filter objects: conditions whose values may be absent, as they come from a form or a query string."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from sqlalchemy import ColumnElement, and_, false, not_, or_, true

from ..models import matching
from .plan import attribute_of
from .query import Filter

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy.orm import InstrumentedAttribute

    from .query import Condition

    Column: TypeAlias = "InstrumentedAttribute[Any] | ColumnElement[Any] | str"

__all__ = ["After", "AnyOf", "Before", "Between", "In", "Not", "NotIn", "Search"]


@dataclass(frozen=True, slots=True)
class In:
    """
    The column has one of the values.

    Attributes:
        column: An attribute, or its name.
        values: The values, of which None is NULL; None instead of them for no restriction, none at all for no rows.

    Raises:
        TypeError: The values are one text.
    """

    column: Column
    values: Iterable[Any] | None

    def __post_init__(self) -> None:
        _keep(self)

    def condition(self, model: type[Any]) -> ColumnElement[bool] | None:
        """
        Return the condition, or None for no restriction.
        """
        return None if self.values is None else among(_column(model, self.column), self.values)


@dataclass(frozen=True, slots=True)
class NotIn:
    """
    The column has none of the values; NULL is none of them, unless None is.

    Attributes:
        column: An attribute, or its name.
        values: The values; None instead of them for no restriction, none at all for all rows.

    Raises:
        TypeError: The values are one text.
    """

    column: Column
    values: Iterable[Any] | None

    def __post_init__(self) -> None:
        _keep(self)

    def condition(self, model: type[Any]) -> ColumnElement[bool] | None:
        """
        Return the condition, or None for no restriction.
        """
        if self.values is None:
            return None
        column = _column(model, self.column)
        if not self.values:
            return true()
        values, has_null = _apart(self.values)
        others = column.not_in(values)
        return and_(others, column.is_not(None)) if has_null else or_(others, column.is_(None))


@dataclass(frozen=True, slots=True)
class Between:
    """
    The column is at least `low` and at most `high`.

    Attributes:
        column: An attribute, or its name.
        low: The least value; None for no limit.
        high: The greatest value; None for no limit.
    """

    column: Column
    low: Any = None
    high: Any = None

    def condition(self, model: type[Any]) -> ColumnElement[bool] | None:
        """
        Return the condition, or None for no restriction.
        """
        column = _column(model, self.column)
        if self.low is None:
            return None if self.high is None else column <= self.high
        return column >= self.low if self.high is None else column.between(self.low, self.high)


@dataclass(frozen=True, slots=True)
class Before:
    """
    The column is less than the value: earlier, for a time.

    Attributes:
        column: An attribute, or its name.
        value: The value; None for no restriction.
    """

    column: Column
    value: Any

    def condition(self, model: type[Any]) -> ColumnElement[bool] | None:
        """
        Return the condition, or None for no restriction.
        """
        return None if self.value is None else _column(model, self.column) < self.value


@dataclass(frozen=True, slots=True)
class After:
    """
    The column is greater than the value: later, for a time.

    Attributes:
        column: An attribute, or its name.
        value: The value; None for no restriction.
    """

    column: Column
    value: Any

    def condition(self, model: type[Any]) -> ColumnElement[bool] | None:
        """
        Return the condition, or None for no restriction.
        """
        return None if self.value is None else _column(model, self.column) > self.value


@dataclass(frozen=True, slots=True)
class Search:
    """
    One of the columns contains the text, every character of which stands for itself, `%` and `_` too.

    Attributes:
        columns: An attribute or its name, or several.
        text: What is looked for; None or nothing for no restriction.
        ignoring_case: Whether "ada" finds "Ada".
    """

    columns: Column | Sequence[Column]
    text: str | None
    ignoring_case: bool = True

    def condition(self, model: type[Any]) -> ColumnElement[bool] | None:
        """
        Return the condition, or None for no restriction.

        Raises:
            TypeError: A column is not text.
        """
        if not self.text:
            return None
        found = []
        for each in self.columns if isinstance(self.columns, list | tuple) else (self.columns,):
            column = _column(model, each)
            if not matching.is_text(column.type):
                raise TypeError(f"Search looks into text, and {column} is {column.type!r}; use In or Between for it")
            found.append(
                matching.contains(
                    cast("InstrumentedAttribute[Any]", column), self.text, ignoring_case=self.ignoring_case
                )
            )
        return or_(false(), *found)


@dataclass(frozen=True, slots=True, init=False)
class AnyOf:
    """
    One of the conditions holds; those without a restriction do not count.

    Attributes:
        conditions: SQLAlchemy expressions and filters.
    """

    conditions: tuple[Condition, ...]

    def __init__(self, *conditions: Condition) -> None:
        object.__setattr__(self, "conditions", conditions)

    def condition(self, model: type[Any]) -> ColumnElement[bool] | None:
        """
        Return the condition, or None for no restriction.
        """
        found = [each for each in (condition_of(model, given) for given in self.conditions) if each is not None]
        return or_(*found) if found else None


@dataclass(frozen=True, slots=True)
class Not:
    """
    The condition does not hold, as SQL understands it: where a value is NULL, neither it nor its opposite does.

    Attributes:
        inner: An SQLAlchemy expression or a filter.
    """

    inner: Condition

    def condition(self, model: type[Any]) -> ColumnElement[bool] | None:
        """
        Return the condition, or None for no restriction.
        """
        condition = condition_of(model, self.inner)
        return None if condition is None else not_(condition)


def condition_of(model: type[Any], given: Any) -> ColumnElement[bool] | None:
    """
    Return the condition that an SQLAlchemy expression or a filter stands for; None for no restriction.

    Raises:
        TypeError: It is neither.
    """
    if isinstance(given, ColumnElement) or hasattr(given, "__clause_element__"):
        return cast("ColumnElement[bool]", given)
    if isinstance(given, Filter):
        return given.condition(model)
    raise TypeError(
        f"{given!r} is no condition: give an SQLAlchemy expression (User.age > 3), a filter or a keyword (age=3)"
    )


def among(column: Any, values: Iterable[Any]) -> ColumnElement[bool]:
    """
    Return `column IN values`, where None among the values finds NULL, which IN alone never does.
    """
    rest, has_null = _apart(values)
    found: ColumnElement[bool] = column.in_(rest)
    return or_(found, column.is_(None)) if has_null else found


def _apart(values: Iterable[Any]) -> tuple[list[Any], bool]:
    every = list(values)
    rest = [each for each in every if each is not None]
    return rest, len(rest) < len(every)


def _keep(given: In | NotIn) -> None:
    """
    Keep the values of a generator: they are asked for again, for the total of a page or by a retry.
    """
    if isinstance(given.values, str | bytes):
        raise TypeError(f"the values are {given.values!r}, one text: give a list of them, [{given.values!r}]")
    if given.values is not None:
        object.__setattr__(given, "values", tuple(given.values))


def _column(model: type[Any], column: Column) -> ColumnElement[Any]:
    return cast("ColumnElement[Any]", attribute_of(model, column) if isinstance(column, str) else column)
