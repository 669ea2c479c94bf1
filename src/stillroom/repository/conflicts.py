"""What an upsert is about: the unique key that it matches, what it updates, and what every update changes beside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import ClauseElement, Column, literal, null
from sqlalchemy.sql import visitors
from sqlalchemy.sql.expression import SelectBase

from ..models import UnknownColumn
from . import writing

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sqlalchemy import ColumnElement

    from .keys import UniqueKey
    from .plan import Plan


@dataclass(frozen=True)
class Target:
    """
    What an upsert is about.

    Attributes:
        key: The unique key that says whether the row is there.
        update: The attributes that are updated then.
    """

    key: UniqueKey
    update: tuple[str, ...]


def target(
    plan: Plan, given: Iterable[str], match: Sequence[str] | None = None, update: Sequence[str] | None = None
) -> Target:
    """
    Find out what an upsert is about.

    Args:
        plan: The model.
        given: The attributes that have values.
        match: The attributes of a unique key; None for the primary key.
        update: The attributes to update; None for all that are given and neither in `match` nor in the primary key.

    Raises:
        UnknownColumn: A name is no column of the model.
        ValueError: No unique key has just these attributes, or one that is named has no value.
    """
    names = dict.fromkeys(given)
    wanted = set(writing.flat(plan, dict.fromkeys(match or plan.keys)))
    columns = stored(plan)
    for name in (*names, *wanted, *(update or ())):
        if name not in columns:
            plan.column(name)
            raise UnknownColumn(f"{plan.model.__name__}.{name} is no column, so an upsert cannot set it")
    key = next((each for each in plan.unique_keys if set(each.names) == wanted), None)
    if key is None:
        raise ValueError(f"match={list(match or ())!r}: no unique key has just these attributes; {known(plan)}")
    missing = [name for name in (*key.names, *(update or ())) if name not in names]
    if missing:
        raise ValueError(f"an upsert of {plan.model.__name__} needs a value for {', '.join(map(repr, missing))}")
    if update is None:
        update = [name for name in names if name not in (*wanted, *plan.keys, plan.version)]
    return Target(key, tuple(update))


def require_values(plan: Plan, aim: Target, given: Mapping[str, Any]) -> None:
    """
    Refuse NULL in what is matched.

    Raises:
        ValueError: No two NULLs are equal, so the row would be made again and again.
    """
    empty = [name for name in aim.key.names if given[name] is None]
    if empty:
        raise ValueError(
            f"match: {empty[0]!r} is None, and NULL never matches: each upsert would add another {plan.model.__name__}"
        )


def require_insertable(plan: Plan, given: Mapping[str, Any]) -> None:
    """
    Refuse expressions that look at a row, before there is one.

    Raises:
        ValueError: One does; MariaDB would take it, and insert NULL.
    """
    for name, value in given.items():
        expression = value.__clause_element__() if hasattr(value, "__clause_element__") else value
        parts = list(visitors.iterate(expression)) if isinstance(expression, ClauseElement) else []
        if any(isinstance(each, Column) for each in parts) and not any(isinstance(each, SelectBase) for each in parts):
            raise ValueError(
                f"{name}={str(expression)!r}: an upsert inserts this value, so it cannot be made of the row's own "
                f"columns; use get_or_create of the {plan.model.__name__}, and then update"
            )


def initial(plan: Plan, given: Mapping[str, Any]) -> dict[str, Any]:
    """
    Return the values of a new row: those given, its class in a hierarchy, and its first version.
    """
    mapper = plan.mapper
    values = dict(given)
    if isinstance(mapper.polymorphic_on, Column) and mapper.polymorphic_on.table is mapper.local_table:
        values.setdefault(mapper.get_property_by_column(mapper.polymorphic_on).key, mapper.polymorphic_identity)
    if plan.version is not None and mapper.version_id_generator:
        values.setdefault(plan.version, mapper.version_id_generator(None))
    return values


def changes(
    plan: Plan, aim: Target, proposed: Mapping[str, ColumnElement[Any]], given: Mapping[str, Any]
) -> dict[str, Any]:
    """
    Return what ON CONFLICT sets, by the key of the column: what is updated, and what every update of the row changes.

    Args:
        plan: The model.
        aim: What the upsert is about.
        proposed: The values that were to be inserted, by the key of the column (`excluded`).
        given: The values by attribute, for `onupdate` functions that look at them.
    """
    columns = stored(plan)
    found = {columns[name].key: proposed[columns[name].key] for name in aim.update}
    if not found:
        return {}
    if plan.visible is not None:
        found.setdefault(columns["deleted_at"].key, null())  # after an upsert the row is there
    for column in columns.values():
        if column.onupdate is not None and column.key not in found:
            found[column.key] = _on_update(column, {columns[name].key: value for name, value in given.items()})
    for name, value in writing.counted(plan).items():
        found[columns[name].key] = value
    return found


def stored(plan: Plan) -> dict[str, Column[Any]]:
    """
    Return the columns of the table by attribute, without attributes that the database computes from others.
    """
    first = ((name, attribute.property.columns[0]) for name, attribute in plan.columns.items())
    return {name: column for name, column in first if isinstance(column, Column)}


class _Values:
    """
    The part of SQLAlchemy's execution context that functions for defaults may use.
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.current_parameters = values

    def get_current_parameters(self, isolate_multiinsert_groups: bool = True) -> Mapping[str, Any]:  # noqa: FBT001, FBT002  # SQLAlchemy's
        """
        Return the values by the key of the column.
        """
        return self.current_parameters


def _on_update(column: Column[Any], values: Mapping[str, Any]) -> Any:
    default: Any = column.onupdate
    if default.is_clause_element:
        return default.arg
    return literal(default.arg(_Values(values)) if default.is_callable else default.arg, column.type)


def known(plan: Plan) -> str:
    """
    Name the unique keys of a model, for errors.
    """
    return f"it has {', '.join(str(list(key.names)) for key in plan.unique_keys)}"
