"""Filter objects: conditions whose values may be absent, as they come from a form or a query string."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from sqlalchemy import ColumnElement, and_, not_, or_

from ..models import matching
from .plan import attribute_of

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
        values: The values; None for no restriction, none at all for no rows.
    """

    column: Column
    values: Iterable[Any] | None

    def condition(self, model: type[Any]) -> ColumnElement[bool] | None:
        """
        Return the condition, or None for no restriction.
        """
        return None if self.values is None else _column(model, self.column).in_(list(self.values))


@dataclass(frozen=True, slots=True)
class NotIn:
    """
    The column has none of the values, or is NULL.

    Attributes:
        column: An attribute, or its name.
        values: The values; None for no restriction, none at all for all rows.
    """

    column: Column
    values: Iterable[Any] | None

    def condition(self, model: type[Any]) -> ColumnElement[bool] | None:
        """
        Return the condition, or None for no restriction.
        """
        if self.values is None:
            return None
        column = _column(model, self.column)
        return or_(column.not_in(list(self.values)), column.is_(None))


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
        return or_(*found)


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
        found = [each for each in (_condition(model, given) for given in self.conditions) if each is not None]
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
        condition = _condition(model, self.inner)
        return None if condition is None else not_(condition)


def _column(model: type[Any], column: Column) -> ColumnElement[Any]:
    return cast("ColumnElement[Any]", attribute_of(model, column) if isinstance(column, str) else column)


def _condition(model: type[Any], given: Any) -> ColumnElement[bool] | None:
    return and_(given) if isinstance(given, ColumnElement) else given.condition(model)
