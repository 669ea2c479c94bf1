"""Orders by columns in which each row has its own place, NULLs included; and the condition for what lies beyond one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    Column,
    Date,
    DateTime,
    Double,
    Enum,
    Float,
    Numeric,
    String,
    Time,
    and_,
    false,
    literal,
    or_,
    true,
    tuple_,
    type_coerce,
)
from sqlalchemy.sql.elements import UnaryExpression
from sqlalchemy.sql.operators import nulls_first_op, nulls_last_op
from sqlalchemy.types import TypeDecorator

from .. import statements

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import ColumnElement, Dialect
    from sqlalchemy.types import TypeEngine

    from ..plan import Plan


@dataclass(frozen=True, slots=True)
class SortKey:
    """
    One column of an order.

    Attributes:
        column: The column.
        stored: The type of what the database compares, without a type decorator's own values.
        nullable: There may be NULLs.
        descending: The greatest value comes first.
        nulls_first: NULLs come before the values; as the backend has it, or as was asked for.
    """

    column: ColumnElement[Any]
    stored: TypeEngine[Any]
    nullable: bool
    descending: bool
    nulls_first: bool

    def backwards(self) -> SortKey:
        """
        Return the same column in the opposite order.
        """
        return replace(self, descending=not self.descending, nulls_first=not self.nulls_first)

    def clauses(self, dialect: Dialect) -> list[ColumnElement[Any]]:
        """
        Return it as ORDER BY has it.
        """
        plain = self.column.desc() if self.descending else self.column.asc()
        if not self.nullable or self.nulls_first == _nulls_first(dialect, descending=self.descending):
            return [plain]
        if dialect.name in {"mysql", "mariadb"}:  # they have no NULLS FIRST; IS NULL is 0 or 1
            absent = self.column.is_(None)
            return [absent.desc() if self.nulls_first else absent.asc(), plain]
        return [plain.nulls_first() if self.nulls_first else plain.nulls_last()]

    def value(self) -> ColumnElement[Any]:
        """
        Return what is selected to know where a row stands.
        """
        if isinstance(self.stored, Float):
            # A REAL is compared as a double, but shown with fewer digits; a sum with a double has all of them.
            return self.compared + literal(0.0, self.stored)
        return self.compared

    def after(self, value: Any) -> ColumnElement[bool]:
        """
        Return the condition for rows that come later than those with a value.
        """
        if value is None:
            return self.column.is_not(None) if self.nulls_first else false()
        bound = literal(value, self.stored)
        beyond = self.compared < bound if self.descending else self.compared > bound
        return self._with_late_nulls(beyond)

    def from_(self, value: Any) -> ColumnElement[bool]:
        """
        Return the condition for rows with a value, and those that come later.
        """
        if value is None:
            return true() if self.nulls_first else self.column.is_(None)
        bound = literal(value, self.stored)
        beyond = self.compared <= bound if self.descending else self.compared >= bound
        return self._with_late_nulls(beyond)

    @property
    def compared(self) -> ColumnElement[Any]:
        """
        The column, as values of the stored type are compared with it.
        """
        return type_coerce(self.column, self.stored)

    def _with_late_nulls(self, condition: ColumnElement[bool]) -> ColumnElement[bool]:
        return or_(condition, self.column.is_(None)) if self.nullable and not self.nulls_first else condition


def sort_keys(plan: Plan, order_by: Any, dialect: Dialect) -> tuple[SortKey, ...]:
    """
    Return the columns of an order, the primary key added, so that no two rows stand at the same place.

    Raises:
        TypeError: It is ordered by something else than columns, or by a column whose order cannot be compared.
        UnknownColumn: A name is no attribute of the model.
    """
    order = with_key(plan, statements.ordering(plan, order_by))
    return tuple(_sort_key(plan, each, dialect) for each in order)


def with_key(plan: Plan, order: Sequence[Any]) -> list[Any]:
    """
    Return ORDER BY clauses with the primary key added where it is missing.

    It goes in the direction of the last clause, so that one index serves all of them.
    """
    there = [_expression(_bare(each)) for each in order]
    missing = [each for each in plan.key_columns if not any(_expression(each).compare(other) for other in there)]
    descending = bool(order) and statements.is_descending(order[-1])
    return [*order, *(each.desc() if descending else each for each in missing)]


def beyond(keys: Sequence[SortKey], values: Sequence[Any], dialect: Dialect, *, inclusive: bool) -> ColumnElement[bool]:
    """
    Return the condition for the rows after a place in an order, which an index of these columns finds at once.

    Args:
        keys: The order.
        values: Those of the row at that place.
        dialect: MariaDB and MySQL find no index for row values.
        inclusive: The row itself fits too.
    """
    alike = len({key.descending for key in keys}) == 1 and not any(key.nullable for key in keys)
    if alike and len(keys) > 1 and dialect.name in {"postgresql", "sqlite"}:
        left = tuple_(*(key.compared for key in keys))
        right = tuple_(*(literal(value, key.stored) for key, value in zip(keys, values, strict=True)))
        if keys[0].descending:
            return left <= right if inclusive else left < right
        return left >= right if inclusive else left > right
    *others, (last, value) = zip(keys, values, strict=True)
    condition = last.from_(value) if inclusive else last.after(value)
    for key, each in reversed(others):
        # `a >= :a AND (a > :a OR ...)`: the plain OR form says the same, but gives the index no place to begin at.
        condition = and_(key.from_(each), or_(key.after(each), condition))
    return condition


def _sort_key(plan: Plan, clause: Any, dialect: Dialect) -> SortKey:
    column = _expression(_bare(clause))
    if not isinstance(column, Column):
        raise TypeError(
            f"after() cannot order by {str(column)!r}: it goes on from the values of columns; order by columns, or use "
            "page()"
        )
    stored = _stored(column.type, dialect)
    if isinstance(stored, Enum):
        raise TypeError(
            f"after() cannot order by {str(column)!r}: backends sort an Enum in one way and compare it in another; "
            "order by another column, or use page()"
        )
    descending = statements.is_descending(clause)
    placed = _placement(clause)
    return SortKey(
        column,
        stored,
        # A column of another table may come from an outer join, whatever its own table says.
        nullable=bool(column.nullable) or column.table not in plan.mapper.tables,
        descending=descending,
        nulls_first=_nulls_first(dialect, descending=descending) if placed is None else placed is nulls_first_op,
    )


def _stored(type_: TypeEngine[Any], dialect: Dialect) -> TypeEngine[Any]:
    while isinstance(type_, TypeDecorator):
        type_ = type_.load_dialect_impl(dialect)
    if dialect.name == "sqlite" and isinstance(type_, Date | DateTime | Time):
        # Text, which is compared as it stands: CURRENT_TIMESTAMP writes a time with fewer digits than SQLAlchemy does.
        return String()
    # SQLite keeps decimal numbers as floats and shows them rounded.
    inexact = isinstance(type_, Float) or (isinstance(type_, Numeric) and dialect.name == "sqlite")
    return Double() if inexact else type_


def _nulls_first(dialect: Dialect, *, descending: bool) -> bool:
    return descending if dialect.name == "postgresql" else not descending


def _bare(clause: Any) -> Any:
    while isinstance(clause, UnaryExpression):
        clause = clause.element
    return clause


def _placement(clause: Any) -> Any:
    while isinstance(clause, UnaryExpression):
        if clause.modifier in {nulls_first_op, nulls_last_op}:
            return clause.modifier
        clause = clause.element
    return None


def _expression(column: Any) -> Any:
    return column.__clause_element__() if hasattr(column, "__clause_element__") else column
