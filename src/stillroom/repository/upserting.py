"""Rows that are made or found, made or updated: without a race, whoever else does the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, case, select, true
from sqlalchemy.dialects import mysql, postgresql, sqlite

from ..errors import SerializationFailure, UniqueViolation
from . import conflicts, writing
from .keys import violated_key
from .plan import Plan
from .savepoints import expire_with_savepoint

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy.orm import Session

    from .keys import UniqueKey

MARIADB = ("mariadb", "mysql")
INSERT: dict[str, Any] = {
    "postgresql": postgresql.insert,
    "sqlite": sqlite.insert,
    "mariadb": mysql.insert,
    "mysql": mysql.insert,
}
_ATTEMPTS = 3
"""How often a row is looked for and made, where others make and delete it at the same time."""


# --- get or create


def get_or_create(
    session: Session, plan: Plan, equal: Mapping[str, Any], defaults: Mapping[str, Any]
) -> tuple[Any, bool]:
    """
    Return the row with these values, made now if there was none, and whether it was made.

    Raises:
        ValueError: No unique key covers the values.
        SerializationFailure: The row was made after the snapshot that this transaction reads from.
    """
    given = writing.flat(plan, equal)
    if not any(all(given.get(name) is not None for name in key.names) for key in plan.unique_keys):
        raise ValueError(
            f"get_or_create({', '.join(f'{name}=...' for name in equal)}): no unique key of {plan.model.__name__} is "
            f"among these, so two callers could each make a row; {conflicts.known(plan)}"
        )
    entity, made = _obtained(session, plan, equal, defaults)
    return plan.out(entity), made


def _obtained(session: Session, plan: Plan, equal: Mapping[str, Any], defaults: Mapping[str, Any]) -> tuple[Any, bool]:
    entity = _found(session, plan, equal)
    if entity is not None:
        return entity, False
    failure: UniqueViolation | None = None
    for _ in range(_ATTEMPTS):
        try:
            with session.begin_nested():
                return writing.insert(session, plan, {**defaults, **equal}), True
        except UniqueViolation as error:
            failure = error
        entity = _found(session, plan, equal, newest=True)
        if entity is not None:
            return entity, False
        _require_own_conflict(session, plan, equal, failure)
    raise SerializationFailure(
        f"a {plan.model.__name__} with {dict(equal)!r} was made after this transaction began, which cannot see it: run "
        "the unit of work again (Retry does)",
        database=plan.database,
    ) from failure


def _found(session: Session, plan: Plan, equal: Mapping[str, Any], *, newest: bool = False) -> Any:
    """
    Return the mapped object with these values, or None.

    Args:
        session: The session.
        plan: The model.
        equal: Values by attribute.
        newest: Also what was committed after this transaction's snapshot, which MariaDB's REPEATABLE READ shows to
            locking reads alone. A shared lock is what the refused INSERT has already; an exclusive one may deadlock.
    """
    statement = select(plan.model).where(*(plan.column(name) == value for name, value in equal.items()))
    if plan.visible is not None:
        statement = statement.where(plan.visible)
    if plan.loading:
        statement = statement.options(*plan.loading)
    if newest and session.get_bind(plan.mapper).dialect.name in MARIADB:
        statement = statement.with_for_update(read=True)
    return session.scalars(statement, execution_options={"populate_existing": newest}).unique().first()


def _require_own_conflict(session: Session, plan: Plan, equal: Mapping[str, Any], error: UniqueViolation) -> None:
    """
    Raise the error if another row is in the way than the one that is looked for.
    """
    given = writing.flat(plan, equal)
    key = violated_key(error, plan.mapper)
    if key is None or not set(key.names) <= given.keys():
        raise error
    taken = {name: given[name] for name in key.names}
    lineage = reversed(list(plan.mapper.iterate_to_root()))  # a row of another class of the hierarchy may have them
    mapper = next(mapper for mapper in lineage if taken.keys() <= set(mapper.attrs.keys()))
    blocking = _found(session, Plan(mapper.class_, show_deleted=True), taken, newest=True)
    if blocking is None:
        return  # it was there a moment ago
    if not isinstance(blocking, plan.model) or plan.sees(blocking):
        raise error
    raise _refused(
        plan,
        f"the {plan.model.__name__} with {dict(equal)!r} is softly deleted: restore it, or use with_deleted()",
        blocking,
        key,
    ) from error


# --- upsert


def upsert(
    session: Session,
    plan: Plan,
    values: Mapping[str, Any],
    match: Sequence[str] | None,
    update: Sequence[str] | None,
) -> Any:
    """
    Insert a row, or update the one that is there; return it.

    Raises:
        ValueError: No unique key has just the attributes `match`, one of their values is missing, or a value is an
            expression over the row itself.
        UniqueViolation: Another unique key is taken by another row.
    """
    given = writing.flat(plan, values)
    aim = conflicts.target(plan, given, match, update)
    conflicts.require_values(plan, aim, given)
    conflicts.require_insertable(plan, given)
    session.flush()
    dialect = session.get_bind(plan.mapper).dialect
    if not fits_one_statement(plan, dialect.name):
        return plan.out(_upserted_in_steps(session, plan, given, aim))
    statement = _statement(plan, aim, conflicts.initial(plan, given), dialect.name)
    matched = {name: given[name] for name in aim.key.names}
    if not dialect.insert_returning:  # MySQL
        session.execute(statement)
        entity = _found(session, plan.with_deleted(), matched, newest=True)
        is_meant = entity is not None
    else:
        meant = and_(*(plan.columns[name].is_not_distinct_from(value) for name, value in matched.items()))
        returned = statement.returning(plan.model, meant if dialect.name in MARIADB else true()).options(*plan.loading)
        entity, is_meant = session.execute(returned, execution_options={"populate_existing": True}).one()
    if entity is not None:
        expire_with_savepoint(session, [entity])
    if not is_meant:
        keys = () if entity is None else plan.unique_keys
        key = next((key for key in keys if all(getattr(entity, name) == given.get(name) for name in key.names)), None)
        raise _refused(plan, f"match={list(aim.key.names)!r}: another unique key has met another row", entity, key)
    return plan.out(entity)


def fits_one_statement(plan: Plan, dialect: str) -> bool:
    """
    Say whether ON CONFLICT can do it.

    It cannot for rows of several tables, nor for a class that shares the table of its base: the row in the way may be
    one of another class.
    """
    return dialect in INSERT and len(plan.mapper.tables) == 1 and not plan.mapper.single


def _statement(plan: Plan, aim: conflicts.Target, values: Mapping[str, Any], dialect: str) -> Any:
    statement = INSERT[dialect](plan.model).values({plan.columns[name]: value for name, value in values.items()})
    return resolved(plan, aim, statement, values, dialect)


def resolved(plan: Plan, aim: conflicts.Target, statement: Any, values: Mapping[str, Any], dialect: str) -> Any:
    """
    Return an INSERT that updates the row which is there.

    Args:
        plan: The model.
        aim: What the upsert is about.
        statement: The INSERT, of the dialect.
        values: What is known of the values by attribute, for `onupdate` functions that look at them.
        dialect: The name of the dialect.
    """
    if dialect not in MARIADB:
        proposed = statement.excluded
        found = conflicts.changes(plan, aim, proposed, values) or _unchanged(aim)
        where = aim.key.where(dialect)
        return statement.on_conflict_do_update(index_elements=list(aim.key.columns), index_where=where, set_=found)
    proposed = statement.inserted
    found = conflicts.changes(plan, aim, proposed, values) or _unchanged(aim)
    if len(plan.unique_keys) > 1:  # any of them would do for ON DUPLICATE KEY: a row that is not meant stays as it is
        table = aim.key.table
        meant = and_(*(column.is_not_distinct_from(proposed[column.key]) for column in aim.key.columns))
        found = {key: case((meant, value), else_=table.c[key]) for key, value in found.items()}
    return statement.on_duplicate_key_update(found)


def _unchanged(aim: conflicts.Target) -> dict[str, Any]:
    return {aim.key.columns[0].key: aim.key.columns[0]}  # DO NOTHING would return no row


def _upserted_in_steps(session: Session, plan: Plan, given: Mapping[str, Any], aim: conflicts.Target) -> Any:
    """
    Upsert where no single statement can: find or make the row, and lock it.
    """
    match = {name: given[name] for name in aim.key.names}
    entity, made = _obtained(session, plan.with_deleted(), match, given)
    if not made:
        session.refresh(entity, with_for_update=True)
        update = {name: given[name] for name in aim.update}
        if update and not plan.sees(entity):
            update.setdefault("deleted_at", None)
        writing.change(session, plan, entity, update)
    return entity


def _refused(plan: Plan, message: str, blocking: Any, key: UniqueKey | None = None) -> UniqueViolation:
    error = UniqueViolation(
        message,
        constraint=None if key is None else key.constraint,
        table=None if key is None else key.table.name,
        columns=() if key is None else [column.name for column in key.columns],
        database=plan.database,
    )
    error.model = plan.model
    error.key = None if blocking is None else plan.key_of(blocking)
    return error
