"""The write side: add, change and delete mapped or domain objects, through the session's own unit of work."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import CursorResult, Integer, TextClause, inspect, select, tuple_
from sqlalchemy import delete as sql_delete
from sqlalchemy import update as sql_update
from sqlalchemy.orm import MANYTOONE
from sqlalchemy.orm.exc import StaleDataError
from sqlalchemy.sql.elements import AsBoolean, BooleanClauseList, Grouping, True_
from sqlalchemy.sql.operators import or_ as or_op

from ..models import InvalidModel
from . import statements
from .problems import about, not_found
from .query import Query
from .savepoints import expire_with_savepoint

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from sqlalchemy import ColumnElement, Select
    from sqlalchemy.orm import Session

    from .domain.converter import Converter
    from .plan import Plan


# --- add


def add(session: Session, plan: Plan, item: Any) -> Any:
    """
    Add an object, and send it.
    """
    return add_all(session, plan, [item])[0]


def add_all(session: Session, plan: Plan, items: Iterable[Any]) -> list[Any]:
    """
    Add objects, and send them together.
    """
    converter = plan.converter
    entities = list(items) if converter is None else [converter.into(item, session) for item in items]
    session.add_all(entities)
    with about(plan, _key_known(entities)):
        settle(session, plan, entities)
    return plan.out_all(entities)


def create(session: Session, plan: Plan, values: Mapping[str, Any]) -> Any:
    """
    Make an object of values, and add it.
    """
    return plan.out(insert(session, plan, values))


def insert(session: Session, plan: Plan, values: Mapping[str, Any]) -> Any:
    """
    Same as `create`, but return the mapped object.
    """
    entity = _made(plan, values)
    session.add(entity)
    with about(plan, _key_known([entity])):
        settle(session, plan, [entity])
    return entity


def save(session: Session, plan: Plan, item: Any) -> Any:
    """
    Store an object as it is.
    """
    entity = session.merge(item) if plan.converter is None else _stored(session, plan, plan.converter, item)
    if not plan.sees(entity):
        entity.deleted_at = None  # what is stored is there
    with about(plan, _key_known([entity])):
        settle(session, plan, [entity])
    return plan.out(entity)


def _stored(session: Session, plan: Plan, converter: Converter, item: Any) -> Any:
    key = converter.key(item)
    entity = None if key is None else session.get(plan.model, plan.identity(key), options=plan.loading or None)
    if entity is not None:
        return converter.update(entity, item, session)
    entity = converter.into(item, session)
    session.add(entity)
    return entity


def _made(plan: Plan, values: Mapping[str, Any]) -> Any:
    require_known(plan, values)
    # What the constructor may not take is set afterwards: a hybrid, or a dataclass field with init=False.
    model = plan.model
    taken = [field.name for field in fields(model) if field.init] if is_dataclass(model) else plan.mapper.attrs.keys()
    entity = model(**{name: value for name, value in values.items() if name in taken})
    for name, value in values.items():
        if name not in taken:
            setattr(entity, name, value)
    return entity


def _key_known(entities: list[Any]) -> Any:
    """
    Return the key that an error is about: of a single object, if it has one before it is sent.
    """
    key = inspect(entities[0]).mapper.primary_key_from_instance(entities[0]) if len(entities) == 1 else [None]
    return None if None in key else key[0] if len(key) == 1 else tuple(key)


# --- change


def update(session: Session, plan: Plan, key: Any, values: Mapping[str, Any]) -> Any:
    """
    Change what is given of a row.
    """
    entity = required(session, plan, key)
    change(session, plan, entity, values)
    return plan.out(entity)


def change(session: Session, plan: Plan, entity: Any, values: Mapping[str, Any]) -> None:
    """
    Set attributes of an object, and send them.

    Raises:
        StaleDataError: The version that is given is not that of the row.
    """
    require_known(plan, values)
    if plan.version is not None and plan.version in values:
        _require_version(session, plan, entity, values[plan.version])
    for name, value in values.items():
        if name != plan.version:
            setattr(entity, name, value)
    with about(plan, plan.key_of(entity)):
        settle(session, plan, [entity])


def _require_version(session: Session, plan: Plan, entity: Any, version: Any) -> None:
    name = cast("str", plan.version)
    if getattr(entity, name) != version:  # what the session has may be older than what the change was made on
        session.refresh(entity)
    found = getattr(entity, name)
    if found != version:
        raise StaleDataError(
            f"the {plan.model.__name__} with the key {plan.key_of(entity)!r} has the version {found!r}, and the change "
            f"was made on {version!r}: read it again, and decide again"
        )


def required(session: Session, plan: Plan, key: Any) -> Any:
    """
    Return the mapped object with a primary key.

    Raises:
        NotFound: There is none.
    """
    entity = session.get(plan.model, plan.identity(key), options=plan.loading or None)
    if entity is None or not plan.sees(entity):
        raise not_found(plan, f"with the key {key!r}", key)
    return entity


def update_where(
    session: Session,
    plan: Plan,
    query: Query,
    values: Mapping[str, Any],
    all_rows: bool,  # noqa: FBT001  # passed on
) -> int:
    """
    Change all rows that fit.

    Raises:
        ValueError: There is no condition, or nothing to set.
    """
    where = _conditions(plan, query, "update_where", all_rows=all_rows)
    changes = flat(plan, values)
    if not changes:
        raise ValueError("values={}: there is nothing to set")
    if plan.version in changes:
        raise ValueError(f"{plan.version!r} is counted up by itself; as a condition it is {plan.version}=...")
    session.flush()
    if len(plan.mapper.tables) > 1:
        return _update_each(session, plan, where, changes)
    changes |= counted(plan)
    statement = sql_update(plan.model).where(*where).values({plan.column(name): changes[name] for name in changes})
    result = session.execute(statement, execution_options={"synchronize_session": False})
    refresh(session, plan, changes)
    return cast("CursorResult[Any]", result).rowcount


def refresh(session: Session, plan: Plan, changed: Iterable[str]) -> None:
    """
    Load the columns of the objects that the session has anew, after a statement that the unit of work did not see.

    What is behind relationships stays, since asyncio could not load it when it is read; unless its key has changed.

    Args:
        session: The session, with nothing pending.
        plan: The model.
        changed: The attributes that the statement may have changed.
    """
    before = []
    if session.in_nested_transaction():
        before = [(entity, _loaded(entity)) for entity in _in_session(session, plan)]
    outdated = _expired(session, plan, changed)
    if outdated:
        settle(session, plan, list(selected(session, plan, [identity for identity, _ in outdated])))
    if before:
        expire_with_savepoint(session, [entity for entity, values in before if _differs(plan, values, entity)])


_EXPIRED = object()


def _loaded(entity: Any) -> dict[str, Any]:
    """
    Return the columns of an object that it has, with a mark in place of those that are to be loaded again.
    """
    state = inspect(entity)
    return {**dict.fromkeys(state.expired_attributes, _EXPIRED), **state.dict}


def _differs(plan: Plan, before: Mapping[str, Any], entity: Any) -> bool:
    now = inspect(entity).dict
    return any(
        before[name] is _EXPIRED or not attribute.type.compare_values(before[name], now[name])
        for name, attribute in plan.columns.items()
        if name in before and name in now
    )


def _expired(session: Session, plan: Plan, changed: Iterable[str]) -> list[tuple[tuple[Any, ...], Any]]:
    """
    Expire the columns of the objects that the session has, and return the primary keys and the objects.
    """
    entities = _in_session(session, plan)
    if not entities:
        return []
    columns = {each for name in changed if name in plan.columns for each in plan.columns[name].property.columns}
    moved = (each.key for each in plan.mapper.relationships if not columns.isdisjoint(each.local_columns))
    names = {*plan.mapper.column_attrs.keys(), *moved}
    outdated = []
    for entity in entities:
        state = inspect(entity)
        if loaded := names.intersection(state.dict):
            session.expire(entity, loaded)
        outdated.append((state.identity, entity))
    return outdated


def _update_each(session: Session, plan: Plan, where: list[ColumnElement[bool]], values: Mapping[str, Any]) -> int:
    """
    Change the rows of a class that is stored in several tables, which one UPDATE cannot.
    """
    outdated = _expired(session, plan, values)
    found = session.scalars(select(plan.model).where(*where).with_for_update(of=plan.model)).unique().all()
    for entity in found:
        for name, value in values.items():
            setattr(entity, name, value)
    settle(session, plan, found)
    rest = [identity for identity, entity in outdated if _made_by_database(entity)]
    settle(session, plan, list(selected(session, plan, rest)))
    return len(found)


def flat(plan: Plan, values: Mapping[str, Any]) -> dict[str, Any]:
    """
    Return values by the attributes of columns: synonyms and many-to-one relationships become what they stand for.

    Raises:
        UnknownColumn: A name is no attribute of the model.
        ValueError: An object that is referred to has no row.
    """
    require_known(plan, values)
    mapper, found = plan.mapper, {}
    for name, value in values.items():
        relationship = mapper.relationships.get(name)
        if relationship is not None and relationship.direction is MANYTOONE:
            if value is not None:
                _require_stored(name, value)
            for local, remote in relationship.local_remote_pairs or ():
                attribute = relationship.mapper.get_property_by_column(remote).key
                found[mapper.get_property_by_column(local).key] = None if value is None else getattr(value, attribute)
        else:
            found[mapper.synonyms[name].name if name in mapper.synonyms else name] = value
    return found


def _require_stored(name: str, value: Any) -> None:
    """
    Send an object that is only added yet: without its key, NULL would be written in place of it.

    Raises:
        ValueError: It is in no session.
    """
    state = inspect(value)
    if state.pending:
        state.session.flush()
    if not state.has_identity:
        raise ValueError(f"{name}={value!r}: this object has no row to refer to; add it first")


def counted(plan: Plan) -> dict[str, Any]:
    """
    Return what counts the version of rows up, in a statement that the unit of work does not see.
    """
    next_version = plan.mapper.version_id_generator
    if plan.version is None or not next_version:  # False: the database counts
        return {}
    column = plan.columns[plan.version]
    return {plan.version: column + 1 if isinstance(column.type, Integer) else next_version(None)}


# --- delete


def delete(session: Session, plan: Plan, key: Any) -> None:
    """
    Delete a row, or mark it.
    """
    entity = required(session, plan, key)
    with about(plan, key):
        _remove(session, plan, [entity])


def delete_many(session: Session, plan: Plan, keys: Iterable[Any]) -> int:
    """
    Delete rows by their keys, or mark them.
    """
    wanted = dict.fromkeys(plan.identity(key) for key in keys)
    found = [entity for entity in selected(session, plan, wanted) if plan.sees(entity)]
    _remove(session, plan, found)
    return len(found)


def delete_where(session: Session, plan: Plan, query: Query, all_rows: bool) -> int:  # noqa: FBT001  # passed on
    """
    Delete all rows that fit, or mark them.

    Raises:
        ValueError: There is no condition.
    """
    where = _conditions(plan, query, "delete_where", all_rows=all_rows)
    if plan.deletes_softly:
        hidden = Query((*where, plan.model.deleted_at.is_(None)))
        return update_where(session, plan, hidden, {"deleted_at": datetime.now(UTC)}, all_rows)
    session.flush()
    if len({table for mapper in _with_subclasses(plan) for table in mapper.tables}) > 1:
        found = session.scalars(select(plan.model).where(*where)).unique().all()
        _remove(session, plan, found)
        return len(found)
    synchronise = "fetch" if _in_session(session, plan) else False
    statement = sql_delete(plan.model).where(*where)
    result = session.execute(statement, execution_options={"synchronize_session": synchronise})
    return cast("CursorResult[Any]", result).rowcount


def restore(session: Session, plan: Plan, key: Any) -> Any:
    """
    Take back a soft deletion.

    Raises:
        InvalidModel: The model has no `SoftDelete`.
    """
    if not plan.deletes_softly:
        raise InvalidModel(f"{plan.model.__name__} is deleted for good: only a model with SoftDelete can be restored")
    entity = required(session, plan.with_deleted(), key)
    change(session, plan, entity, {"deleted_at": None})
    return plan.out(entity)


def _remove(session: Session, plan: Plan, entities: Sequence[Any]) -> None:
    if plan.deletes_softly:
        now = datetime.now(UTC)
        for entity in entities:
            entity.deleted_at = entity.deleted_at or now
        settle(session, plan, entities)
        return
    for entity in entities:
        session.delete(entity)
    session.flush()


# --- what they share


def require_known(plan: Plan, names: Iterable[str]) -> None:
    """
    Refuse names that are no attributes of the model, before anything is changed.

    Raises:
        UnknownColumn: One is none.
    """
    for name in names:
        if name not in plan.mapper.all_orm_descriptors:
            plan.column(name)


def settle(session: Session, plan: Plan, entities: Sequence[Any]) -> None:
    """
    Send what is pending, and load what the database made of it, so that the objects stay readable, also with asyncio.
    """
    session.flush()
    stale = [entity for entity in entities if _made_by_database(entity)]
    if len(stale) > 1:
        for _ in selected(session, plan, [inspect(entity).identity for entity in stale]):
            pass
    for entity in stale:
        if made := _made_by_database(entity):
            session.refresh(entity, attribute_names=made)


def _made_by_database(entity: Any) -> list[str]:
    state = inspect(entity)
    expired = state.expired_attributes
    return sorted(expired.intersection(state.mapper.column_attrs.keys())) if expired else []


def selected(session: Session, plan: Plan, identities: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
    """
    Iterate over the mapped objects with these primary keys, a batch of them for each statement.
    """
    dialect = session.get_bind(plan.mapper).dialect.name
    for condition in statements.keys_conditions(plan, list(identities), dialect):
        yield from session.scalars(select(plan.model).where(condition)).unique()


def _in_session(session: Session, plan: Plan) -> list[Any]:
    return [entity for entity in session.identity_map.values() if isinstance(entity, plan.model)]


def _with_subclasses(plan: Plan) -> list[Any]:
    return [mapper for mapper in plan.mapper.self_and_descendants if mapper is plan.mapper or not mapper.concrete]


def _conditions(plan: Plan, query: Query, method: str, *, all_rows: bool) -> list[ColumnElement[bool]]:
    """
    Return the conditions of a statement that changes many rows, with what the plan hides.

    Raises:
        ValueError: There is none that restricts anything.
        TypeError: It starts from a `text()`, or a `select()` of something else.
    """
    base, where = statements.base_of(query.where)
    if isinstance(base, TextClause):
        raise TypeError(f"{method} cannot read a text(); execute it as it is: session.execute(text(...))")
    seen = statements.plan_for(plan, query)
    found = statements.conditions(seen, where, query.equal)
    if not any(map(_restricts, found)) and (base is None or base.whereclause is None) and not all_rows:
        raise ValueError(
            f"{method} without a condition is about every {plan.model.__name__}: if you mean that, say all_rows=True"
        )
    if base is not None:  # what it joins is not there for the statement that changes the rows
        found = [_among(plan, base.where(*found))]
    if plan.visible is not None:
        found.append(plan.visible)
    return found


def _restricts(condition: Any) -> bool:
    """
    Say whether a condition is one at all: `and_(*conditions)` of none is not, and finds every row.
    """
    while isinstance(condition, AsBoolean | Grouping):
        condition = condition.element
    if isinstance(condition, BooleanClauseList):
        parts = [_restricts(each) for each in condition.clauses]
        return all(parts) and bool(parts) if condition.operator is or_op else any(parts)
    return not isinstance(condition, True_)


def _among(plan: Plan, base: Select[Any]) -> ColumnElement[bool]:
    entity = base.column_descriptions[0]["entity"]  # an alias or a subclass has its own columns
    keys = base.with_only_columns(*(getattr(entity, name) for name in plan.keys)).subquery()
    return (
        tuple_(*plan.key_columns).in_(select(*keys.c)) if len(keys.c) > 1 else plan.key_columns[0].in_(select(*keys.c))
    )
