"""What is asked for: conditions, order, limits and options, as one value that both facades pass to the rules."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import ColumnElement, ColumnExpressionArgument, Select, TextClause
    from sqlalchemy.orm.interfaces import ORMOption


@runtime_checkable
class Filter(Protocol):
    """
    A condition that is made for the model it is used on; anything with this method is one.
    """

    def condition(self, model: type[Any]) -> ColumnElement[bool] | None:
        """
        Return the condition, or None for no restriction.
        """
        ...


Condition: TypeAlias = "ColumnExpressionArgument[bool] | Filter"
Lock: TypeAlias = "bool | Mapping[str, Any]"
Where: TypeAlias = "Condition | Select[Any] | TextClause"


@dataclass(slots=True)
class Query:
    """
    What is asked for.

    Attributes:
        where: Conditions, all of which hold: SQLAlchemy expressions and filter objects. The first may be a `select()`
            to start from, or a `text()` that is the whole statement.
        equal: Values by attribute, compared by `=`; None is NULL, a list is IN. For a `text()`: its parameters.
        order_by: One or more columns, `desc(...)`, or names of attributes, "-name" for descending.
        limit: The greatest number of rows.
        offset: How many rows to leave out first.
        options: Loader options, such as `selectinload(User.orders)`.
        for_update: Lock the rows; a mapping has the arguments of `Select.with_for_update`.
        columns: What `rows`, `records` and `json` select; empty for all columns of the model.
    """

    where: Sequence[Where] = ()
    equal: Mapping[str, Any] = field(default_factory=dict)
    order_by: Any = None
    limit: int | None = None
    offset: int | None = None
    options: Sequence[ORMOption] = ()
    for_update: Lock = False
    columns: Sequence[Any] = ()


def as_conditions(where: Any) -> tuple[Any, ...]:
    """
    Return one condition, or several, as several.
    """
    return tuple(where) if isinstance(where, list | tuple) else (where,)
