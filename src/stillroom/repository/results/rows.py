"""Rows, records and JSON: what is read without mapped objects."""

from __future__ import annotations

from functools import lru_cache
from itertools import repeat
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import msgspec
from sqlalchemy import Select, TextClause, inspect, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Mapper, QueryableAttribute
from sqlalchemy.orm.util import AliasedInsp
from sqlalchemy.sql.expression import SelectBase

from ...sessions import may_narrow
from .. import statements
from .json_sql import columns_of, json_statement
from .record_making import column_names, maker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sqlalchemy.engine import Dialect, Result
    from sqlalchemy.orm import Session
    from sqlalchemy.sql import Executable

    from ..plan import Plan
    from ..query import Query
    from .json_sql import Columns, JSONStatement


def rows(session: Session, plan: Plan, query: Query) -> list[dict[str, Any]]:
    """
    Return rows as dictionaries.

    Raises:
        ValueError: Two columns have one name.
    """
    base = _base(plan, query)
    result = _execute(session, plan, _complete(plan, query, base))
    names = _names(result)
    found = _fetched(session, plan, None, result) if base.is_of_model else result.all()
    return _dictionaries(names, found)


def records(session: Session, plan: Plan, type_: Any, query: Query) -> list[Any]:
    """
    Return rows as objects of a class.

    Raises:
        TypeError: The class is no dataclass, attrs class, Struct or pydantic model.
        UnknownColumn: A field that needs a value has no column.
        BadRow: A value does not fit its field.
    """
    base = _base(plan, query, type_)
    result = _execute(session, plan, _complete(plan, query, base))
    types = _types_of_fields(plan, type_) if base.is_of_model else _python_types(base.statement)
    make = maker(type_, tuple(result.keys()), types)
    return make(_fetched(session, plan, type_, result) if base.is_of_model else result.all())


def json(session: Session, plan: Plan, query: Query) -> bytes:
    """
    Return rows as a JSON array, built by the database where that gives the same values.
    """
    base = _base(plan, query)
    statement = _complete(plan, query, base)
    # A listener would not see the statement that the database builds JSON of, and may have to narrow it.
    if isinstance(base.statement, Select) and not may_narrow(session):
        dialect = session.get_bind(plan.mapper).dialect
        if base.is_of_model and statement is base.statement:
            built = _json_of_model(plan, dialect)
        else:
            columns = _columns_of_model(plan) if base.is_of_model else columns_of(base.statement, is_of_model=False)
            built = json_statement(cast("Select[Any]", statement), columns, dialect)
        found = None if built is None else _built(session, plan, built)
        if found is not None:
            return found
    result = _execute(session, plan, statement)
    return msgspec.json.encode(_dictionaries(_names(result), result.all()))


def _built(session: Session, plan: Plan, statement: JSONStatement) -> bytes | None:
    """
    Return the JSON that the database builds, or None where it finds a value that it would write differently.
    """
    try:
        result: Any = _execute(session, plan, statement.select)
    except DBAPIError as error:
        # SQLite has no JSON of bytes in a column of text; its transaction goes on, unlike PostgreSQL's.
        if getattr(error.orig, "sqlite_errorname", None) not in _NOT_IN_JSON:
            raise
        return None
    found = result.cursor.fetchall()  # the driver's rows: SQLAlchemy's take as long to make as these
    result.close()
    return statement.finish([value for (value,) in found])


_NOT_IN_JSON = ("SQLITE_ERROR", "SQLITE_TOOBIG")


# --- what is sent


class _Base(NamedTuple):
    """
    What a statement starts from, and the conditions to add.
    """

    statement: Any
    where: tuple[Any, ...]
    is_of_model: bool = False


def selection(plan: Plan, query: Query) -> Executable:
    """
    Return the statement of rows, each of whose columns has the name that the user knows.

    Raises:
        TypeError: A whole statement comes with what only a `select()` can take.
        UnknownColumn: A name is no attribute of the model.
    """
    return _complete(plan, query, _base(plan, query))


def _base(plan: Plan, query: Query, type_: Any = None) -> _Base:
    base, where = statements.base_of(query.where)
    columns: Sequence[Any] = query.columns
    if columns and isinstance(columns[0], SelectBase | TextClause):
        base, where, columns = columns[0], tuple(query.where), columns[1:]
    if not columns:
        if base is None:
            return _Base(_of_model(plan) if type_ is None else _of_fields(plan, type_), where, is_of_model=True)
        return _Base(_named(base) if isinstance(base, Select) else base, where)
    elements = [plan.column(each) if isinstance(each, str) else each for each in columns]
    if base is None:
        return _Base(_named(select(*elements)), where)
    if not isinstance(base, Select):
        raise TypeError(f"{str(base)!r} is a whole statement: the columns {columns!r} belong into it")
    return _Base(_named(base.with_only_columns(*elements, maintain_column_froms=True)), where)


def _complete(plan: Plan, query: Query, base: _Base) -> Executable:
    if isinstance(base.statement, Select):
        plan = plan if base.is_of_model else statements.seen_by(plan, base.statement)
        return statements.narrowed(plan, base.statement, query, base.where)
    return statements.whole_text(base.statement, base.where, query)


@lru_cache(maxsize=1024)
def _of_model(plan: Plan) -> Select[Any]:
    return _named(select(*plan.columns.values()))


@lru_cache(maxsize=1024)
def _columns_of_model(plan: Plan) -> Columns:
    return columns_of(_of_model(plan), is_of_model=True)


@lru_cache(maxsize=1024)
def _json_of_model(plan: Plan, dialect: Dialect) -> JSONStatement | None:
    # Kept as a whole: SQLAlchemy remembers the key, in its cache of what is compiled, of a statement that comes again.
    return json_statement(_of_model(plan), _columns_of_model(plan), dialect)


@lru_cache(maxsize=1024)
def _of_fields(plan: Plan, type_: Any) -> Select[Any]:
    return _named(select(*map(plan.column, column_names(type_, plan))))


@lru_cache(maxsize=1024)
def _types_of_fields(plan: Plan, type_: Any) -> tuple[Any, ...]:
    return _python_types(_of_fields(plan, type_))


def _named(statement: Select[Any]) -> Select[Any]:
    """
    Give the columns the names of their attributes, and replace mapped classes by their columns.
    """
    descriptions = statement.column_descriptions
    elements = [element for each in descriptions for element in _elements(each["name"], each["expr"])]
    if all(mine is each["expr"] for mine, each in zip(elements, descriptions, strict=False)):
        return statement
    return statement.with_only_columns(*elements, maintain_column_froms=True)


def _elements(name: str, element: Any) -> Iterator[Any]:
    inspected = inspect(element, raiseerr=False)
    if isinstance(inspected, Mapper | AliasedInsp):
        for each in inspected.mapper.column_attrs:
            yield from _elements(each.key, getattr(element, each.key))
    elif isinstance(element, QueryableAttribute) and getattr(element.expression, "name", None) != name:
        yield element.label(name)
    else:
        yield element


def _python_types(statement: Executable) -> tuple[Any, ...]:
    """
    Return the Python type of each column, None where it is not known.
    """
    if not isinstance(statement, SelectBase):
        return ()
    return tuple(_python_type(each) for each in statement.selected_columns)


def _python_type(column: Any) -> Any:
    try:
        return column.type.python_type
    except NotImplementedError:
        return None


# --- what comes back


def _execute(session: Session, plan: Plan, statement: Executable) -> Result[Any]:
    """
    Execute a statement on the session's connection: its rows then skip what the ORM does for mapped objects.
    """
    if session.autoflush:
        session.flush()
    where = {"mapper": plan.mapper}
    if may_narrow(session):
        return session.execute(statement, bind_arguments=where)
    return session.connection(bind_arguments=where).execute(statement)


def _fetched(session: Session, plan: Plan, type_: Any, result: Any) -> Sequence[Sequence[Any]]:
    """
    Return all rows of the model's columns, or of those that a class has fields for.

    They are the driver's where SQLAlchemy would change no value: making its own of them takes half as long again.
    """
    by_sqlalchemy: Callable[[], Sequence[Sequence[Any]]] = result.all
    dialect = session.get_bind(plan.mapper).dialect
    if may_narrow(session) or dialect.driver not in _FETCH_AGAIN:
        return by_sqlalchemy()
    cursor = result.cursor
    if not _are_final(plan, type_, dialect, tuple(each[1] for each in cursor.description)):
        return by_sqlalchemy()
    try:
        found: Sequence[Sequence[Any]] = cursor.fetchall()
    except dialect.loaded_dbapi.Error:
        return by_sqlalchemy()  # meets it again, and makes SQLAlchemy's error of it
    result.close()
    return found


_FETCH_AGAIN = ("psycopg", "asyncpg")
"""Drivers that have all rows when a statement has been executed, so that a fetch that fails may be repeated."""


@lru_cache(maxsize=1024)
def _are_final(plan: Plan, type_: Any, dialect: Dialect, codes: tuple[Any, ...]) -> bool:
    """
    Say whether the values of the driver are what SQLAlchemy returns; the codes are the driver's, of the columns' types.
    """
    columns = (_of_model(plan) if type_ is None else _of_fields(plan, type_)).selected_columns
    kinds = (each.type.dialect_impl(dialect) for each in columns)
    return all(each.result_processor(dialect, code) is None for each, code in zip(kinds, codes, strict=True))


def _names(result: Result[Any]) -> tuple[str, ...]:
    names = tuple(result.keys())
    if len(set(names)) != len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"several columns are named {', '.join(map(repr, twice))}; give them names of their own (AS)")
    return names


def _dictionaries(names: tuple[str, ...], found: Sequence[Sequence[Any]]) -> list[dict[str, Any]]:
    return list(map(dict, map(zip, repeat(names), found)))
