"""From what is asked for to the statement that is sent; pure, for both worlds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Join,
    Select,
    TextClause,
    and_,
    any_,
    desc,
    func,
    inspect,
    literal,
    literal_column,
    select,
    tuple_,
)
from sqlalchemy.sql.elements import UnaryExpression

from .filters import among, condition_of
from .results.sql import NamedQuery

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from sqlalchemy.sql import Executable

    from .plan import Plan
    from .query import Lock, Query

_MOST_KEYS = 500
"""How many keys one statement names where each is a parameter."""
_NOTHING_BUT_TEXT = "order_by, limit, offset and conditions belong into the text itself"


def key_condition(plan: Plan, key: Any) -> ColumnElement[bool]:
    """
    Return the condition that finds one row by its primary key.
    """
    return and_(*(column == value for column, value in zip(plan.key_columns, plan.identity(key), strict=True)))


def keys_conditions(plan: Plan, keys: Sequence[tuple[Any, ...]], dialect: str) -> Iterator[ColumnElement[bool]]:
    """
    Iterate over the conditions that find rows by their primary keys: one for each statement that it takes.
    """
    columns = plan.key_columns
    if dialect == "postgresql" and len(columns) == 1:  # any number of keys is one parameter
        if keys:
            yield columns[0] == any_(literal([value for (value,) in keys], ARRAY(columns[0].type)))
        return
    for start in range(0, len(keys), _MOST_KEYS):
        batch = keys[start : start + _MOST_KEYS]
        yield columns[0].in_([value for (value,) in batch]) if len(columns) == 1 else tuple_(*columns).in_(batch)


def equality(plan: Plan, name: str, value: Any) -> ColumnElement[bool]:
    """
    Return `attribute = value`; None is NULL, and a list, tuple or set is IN (an empty one finds nothing).
    """
    column = plan.column(name)
    if isinstance(value, list | tuple | set | frozenset):
        return among(column, value)
    return cast("ColumnElement[bool]", column == value)  # SQLAlchemy makes IS NULL of None


def conditions(plan: Plan, where: Iterable[Any], equal: Mapping[str, Any]) -> list[ColumnElement[bool]]:
    """
    Return the conditions that were asked for, without what the plan hides.

    Raises:
        TypeError: One is neither an expression nor a filter.
        UnknownColumn: A keyword names no attribute of the model.
    """
    found = [condition for each in where if (condition := condition_of(plan.model, each)) is not None]
    return [*found, *(equality(plan, name, value) for name, value in equal.items())]


def ordering(plan: Plan, order_by: Any) -> list[Any]:
    """
    Return ORDER BY clauses: expressions as they are, names as attributes, "-name" as descending.
    """
    if order_by is None:
        return []
    several = order_by if isinstance(order_by, list | tuple) else (order_by,)
    return [_order(plan, each) for each in several]


def _order(plan: Plan, each: Any) -> Any:
    if not isinstance(each, str):
        return each
    return desc(plan.column(each[1:])) if each.startswith("-") else plan.column(each)


def base_of(where: Any) -> tuple[Any, tuple[Any, ...]]:
    """
    Split conditions into the statement that they start with, or None, and the rest.
    """
    conditions = tuple(where)
    if conditions and isinstance(conditions[0], Select | TextClause):
        return conditions[0], conditions[1:]
    return None, conditions


def entities(plan: Plan, query: Query) -> Executable:
    """
    Return the SELECT of mapped objects.

    Raises:
        TypeError: A `text()` comes with what only a `select()` can take.
    """
    base, where = base_of(query.where)
    options = (*plan.loading, *query.options)
    if isinstance(base, TextClause):
        statement: Any = select(plan.model).from_statement(whole_text(base, where, query))
        return cast("Executable", statement.options(*options) if options else statement)
    if base is None:
        return _locked(
            narrowed(plan, select(plan.model), query, where, options), query.for_update, of=plan.mapper.tables
        )
    return _locked(narrowed(plan_for(plan, query), base, query, where, options), query.for_update)


def seen_by(plan: Plan, base: Select[Any]) -> Plan:
    """
    Return the plan for a `select()` of the user's own, which may select an alias, or nothing of the model at all.
    """
    entity = base.column_descriptions[0].get("entity")
    if entity is not None and not isinstance(entity, type) and inspect(entity).mapper.isa(plan.mapper):
        plan = plan.of_alias(entity)
    return plan if plan.visible is None or _reads(base, plan) else plan.where_read


def _reads(statement: Select[Any], plan: Plan) -> bool:
    """
    Say whether a SELECT reads the table that says what is deleted.
    """
    pending: list[Any] = list(statement.get_final_froms())
    for each in pending:
        if isinstance(each, Join):
            pending += [each.left, each.right]
    return plan.model.deleted_at.expression.table in pending


def plan_for(plan: Plan, query: Query) -> Plan:
    """
    Same as `seen_by`, but for a query of mapped objects, which may start from a `select()`.

    Raises:
        TypeError: It selects something else.
    """
    base, _ = base_of(query.where)
    if not isinstance(base, Select):
        return plan
    selected = base.column_descriptions[0]
    mapper = getattr(inspect(selected["expr"], raiseerr=False), "mapper", None)
    if selected["expr"] is not selected.get("entity") or mapper is None or not mapper.isa(plan.mapper):
        name = plan.model.__name__
        raise TypeError(
            f"the select() must select {name} itself, as select({name}) does, and not {selected['name']!r}; `rows` and "
            "`records` are for columns"
        )
    return seen_by(plan, base)


def _locked(statement: Select[Any], lock: Lock, **of: Any) -> Select[Any]:
    if lock in (False, None):  # an empty mapping of arguments is a lock too
        return statement
    # What the session has loaded already is read again: a lock on a row whose values are old would protect nothing.
    # Of the model's own tables alone: PostgreSQL cannot lock what an outer join brings in for a joined load.
    arguments = {**of, **(lock if isinstance(lock, Mapping) else {})}
    return statement.with_for_update(**arguments).execution_options(populate_existing=True)


def whole_text(base: TextClause, where: tuple[Any, ...], query: Query) -> TextClause:
    """
    Return a `text()` with its parameters.

    Raises:
        TypeError: It comes with what only a `select()` can take.
    """
    further = (query.order_by, query.limit, query.offset, query.for_update or None)
    if where or any(each is not None for each in further):
        raise TypeError(f"a text() is the whole statement: {_NOTHING_BUT_TEXT}")
    if isinstance(base, NamedQuery):
        return base.given(query.equal)
    return base.bindparams(**query.equal) if query.equal else base


def _visible(plan: Plan, where: tuple[Any, ...], query: Query) -> list[ColumnElement[bool]]:
    found = conditions(plan, where, query.equal)
    return found if plan.visible is None else [*found, plan.visible]


def narrowed(
    plan: Plan, statement: Select[Any], query: Query, where: tuple[Any, ...], options: tuple[Any, ...] = ()
) -> Select[Any]:
    """
    Return a SELECT with the conditions, what the plan hides, the order, the limits and the options.
    """
    found = _visible(plan, where, query)
    if found:
        statement = statement.where(*found)
    if plan.hides is not None and _reads(statement, plan):
        statement = statement.where(plan.hides)
    order = ordering(plan, query.order_by)
    if order:
        statement = statement.order_by(*order)
    if query.limit is not None:
        statement = statement.limit(query.limit)
    if query.offset is not None:
        statement = statement.offset(query.offset)
    if options:
        statement = statement.options(*options)
    return statement


def first(plan: Plan, query: Query) -> Executable:
    """
    Return the SELECT of the first object: in the order asked for, else in that of the primary key.
    """
    base, _ = base_of(query.where)
    if isinstance(base, TextClause):
        return entities(plan, query)
    order = plan.keys if query.order_by is None else query.order_by
    return entities(plan, replace(query, limit=1, order_by=order))


def count(plan: Plan, query: Query) -> Executable:
    """
    Return the SELECT of the number of rows.
    """
    base, where = base_of(query.where)
    if isinstance(base, TextClause):
        text = whole_text(base, where, query)
        return select(func.count()).select_from(text.columns().subquery())
    if base is None:
        statement = select(func.count()).select_from(plan.model)
        return narrowed(plan, statement, query, where)
    inner = narrowed(seen_by(plan, base), base, query, where).order_by(None)
    return select(func.count()).select_from(inner.subquery())


def exists(plan: Plan, query: Query) -> Executable:
    """
    Return the SELECT of whether there is a row.
    """
    base, where = base_of(query.where)
    if isinstance(base, TextClause):
        return select(whole_text(base, where, query).columns(literal_column("1")).exists())
    if base is None:
        return select(plan.existence.where(*_visible(plan, where, query)))
    return select(narrowed(seen_by(plan, base), base, query, where).order_by(None).exists())


def is_descending(clause: Any) -> bool:
    """
    Say whether an ORDER BY clause is descending.
    """
    from sqlalchemy.sql.operators import desc_op

    while isinstance(clause, UnaryExpression):
        if clause.modifier is desc_op:
            return True
        clause = clause.element
    return False
