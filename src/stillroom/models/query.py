"""
Finder methods of models: by key, by value, ignoring case, by prefix or substring, and in ranges.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, Self, TypeAlias, TypeVar, cast, overload

from sqlalchemy import ColumnElement, Select, func, select
from sqlalchemy.orm import InstrumentedAttribute

from stillroom.models.base import database_of
from stillroom.models.describe import column_names, known_column, mapper_of
from stillroom.models.matching import contains, equals, equals_ignoring_case, is_text, starts_with
from stillroom.models.problems import InvalidModel, UnknownColumn

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session
    from sqlalchemy.orm import Session, scoped_session

    AnySession: TypeAlias = Session | scoped_session[Any]
    AnyAsyncSession: TypeAlias = AsyncSession | async_scoped_session[Any]
    SyncSource: TypeAlias = "AnySession | SupportsSession[AnySession]"
    AsyncSource: TypeAlias = "AnyAsyncSession | SupportsSession[AnyAsyncSession]"

__all__ = ["AsyncQueryMixin", "QueryMixin", "SelectMixin", "SupportsSession", "session_of"]

_S = TypeVar("_S")
_S_co = TypeVar("_S_co", covariant=True)
ColumnOf: TypeAlias = str | InstrumentedAttribute[Any]


class SupportsSession(Protocol[_S_co]):
    """
    What gives a session by the name of a database, such as a unit of work.
    """

    def session(self, name: str, /) -> _S_co:
        """
        Return the session on a database.
        """
        ...


@overload
def session_of(target: SupportsSession[_S], model: type[Any]) -> _S: ...
@overload
def session_of(target: _S, model: type[Any]) -> _S: ...
def session_of(target: Any, model: type[Any]) -> Any:
    """
    Find the session for a model.

    Args:
        target: a ``Session``, an ``AsyncSession``, a scoped session; or what has a method ``session(name)``, such as a
            unit of work.
        model: a mapped class; its base says which database it is in.

    Returns:
        The target itself if it is a session, else the target's session on the model's database.

    Raises:
        InvalidModel: the target is no session, and the model's base does not say its database.
    """
    # Looked up on the class: an instance may take any attribute for the name of a database.
    if not callable(getattr(type(target), "session", None)):
        return target
    database = database_of(model)
    if database is None:
        msg = (
            f"The base of {model.__name__} does not say which database it is in. Make it with ModelBase and database=…,"
            " or pass a session"
        )
        raise InvalidModel(msg)
    return target.session(database)


def _column(model: type[Any], column: ColumnOf) -> InstrumentedAttribute[Any]:
    """
    Find a model's column by its attribute or the attribute's name.
    """
    if isinstance(column, InstrumentedAttribute):
        # An attribute of another model would join every row of one with every row of the other.
        owner = column.class_
        if not (isinstance(owner, type) and issubclass(model, owner)) or column.key not in column_names(model):
            msg = f"{column} is no column of {model.__name__}; it has {', '.join(map(repr, column_names(model)))}"
            raise UnknownColumn(msg)
        column = column.key
    return cast("InstrumentedAttribute[Any]", getattr(model, known_column(model, column)))


def _key_order(model: type[Any]) -> tuple[ColumnElement[Any], ...]:
    return tuple(mapper_of(model).primary_key)


class SelectMixin:
    """
    The finders as ``select()`` statements, for any session and to be completed (``.limit()``, ``.options()``).

    Text is compared character for character: ``%``, ``_`` and the backslash stand for themselves, and a collation that
    ignores case or accents does not decide. Rows come in the order of the primary key.
    """

    @classmethod
    def select_by(cls, column: ColumnOf, value: object) -> Select[Self]:
        """
        Select the rows with exactly this value; None finds NULL.
        """
        return select(cls).where(equals(_column(cls, column), value)).order_by(*_key_order(cls))

    @classmethod
    def select_by_lower(cls, column: ColumnOf, value: object) -> Select[Self]:
        """
        Select the rows with this text, ignoring case.
        """
        return select(cls).where(equals_ignoring_case(_column(cls, column), value)).order_by(*_key_order(cls))

    @classmethod
    def select_starting_with(cls, column: ColumnOf, prefix: str, *, ignoring_case: bool = False) -> Select[Self]:
        """
        Select the rows whose text starts with a prefix.
        """
        condition = starts_with(_column(cls, column), prefix, ignoring_case=ignoring_case)
        return select(cls).where(condition).order_by(*_key_order(cls))

    @classmethod
    def select_containing(cls, column: ColumnOf, text: str, *, ignoring_case: bool = False) -> Select[Self]:
        """
        Select the rows whose text contains a text.
        """
        condition = contains(_column(cls, column), text, ignoring_case=ignoring_case)
        return select(cls).where(condition).order_by(*_key_order(cls))

    @classmethod
    def select_range(
        cls,
        *,
        offset: int = 0,
        limit: int = 50,
        order_by: ColumnOf | None = None,
        descending: bool = False,
        ignoring_case: bool = False,
        where: Iterable[ColumnElement[bool]] = (),
    ) -> Select[Self]:
        """
        Select a part of the ordered rows; equal ones follow each other by primary key, so no row is on two pages.

        Args:
            offset: how many rows to skip.
            limit: how many rows at most.
            order_by: the column to order by; None: the primary key.
            descending: greatest first.
            ignoring_case: order text as if it were lower case.
            where: conditions, all of which must hold.

        Raises:
            ValueError: ``offset`` or ``limit`` is negative (SQLite would take that for "no limit").
        """
        for name, number in (("offset", offset), ("limit", limit)):
            if number < 0:
                msg = f"{name}={number!r} is negative. Give 0 or more rows"
                raise ValueError(msg)
        order: list[ColumnElement[Any]] = list(_key_order(cls))
        if order_by is not None:
            column = _column(cls, order_by)
            first = func.lower(column) if ignoring_case and is_text(column.type) else column.expression
            order.insert(0, first)
        if descending:
            order = [part.desc() for part in order]
        return select(cls).where(*where).order_by(*order).offset(offset).limit(limit)


class QueryMixin(SelectMixin):
    """
    Finder methods that take a session, or a unit of work whose session on the model's database is used.

    ``column`` is an attribute (``User.name``) or its name. ``AsyncSession.run_sync`` takes these methods too:
    ``await session.run_sync(User.first_by_lower, "name", "ada")``.

    Raises:
        UnknownColumn: the model has no such column; every method with a ``column`` raises it.
    """

    @classmethod
    def by_id(cls, session: SyncSource, key: Any) -> Self | None:
        """
        Get the row with a primary key (a tuple if it has several columns), from the session if it is there.
        """
        return _session(session, cls).get(cls, key)

    @classmethod
    def first_by(cls, session: SyncSource, column: ColumnOf, value: object) -> Self | None:
        """
        Find the first row with exactly this value.
        """
        return _first(session, cls, cls.select_by(column, value))

    @classmethod
    def all_by(cls, session: SyncSource, column: ColumnOf, value: object) -> Sequence[Self]:
        """
        Find the rows with exactly this value.
        """
        return _all(session, cls, cls.select_by(column, value))

    @classmethod
    def first_by_lower(cls, session: SyncSource, column: ColumnOf, value: object) -> Self | None:
        """
        Find the first row with this text, ignoring case.
        """
        return _first(session, cls, cls.select_by_lower(column, value))

    @classmethod
    def all_by_lower(cls, session: SyncSource, column: ColumnOf, value: object) -> Sequence[Self]:
        """
        Find the rows with this text, ignoring case.
        """
        return _all(session, cls, cls.select_by_lower(column, value))

    @classmethod
    def exact_or_ignoring_case(cls, session: SyncSource, column: ColumnOf, value: object) -> Sequence[Self]:
        """
        Find the rows with exactly this text; if there is none, those with it ignoring case.
        """
        return _all(session, cls, cls.select_by(column, value), cls.select_by_lower(column, value))

    @classmethod
    def starting_with(
        cls, session: SyncSource, column: ColumnOf, prefix: str, *, ignoring_case: bool = False
    ) -> Sequence[Self]:
        """
        Find the rows whose text starts with a prefix.
        """
        return _all(session, cls, cls.select_starting_with(column, prefix, ignoring_case=ignoring_case))

    @classmethod
    def containing(
        cls, session: SyncSource, column: ColumnOf, text: str, *, ignoring_case: bool = False
    ) -> Sequence[Self]:
        """
        Find the rows whose text contains a text.
        """
        return _all(session, cls, cls.select_containing(column, text, ignoring_case=ignoring_case))

    @classmethod
    def range(
        cls,
        session: SyncSource,
        *,
        offset: int = 0,
        limit: int = 50,
        order_by: ColumnOf | None = None,
        descending: bool = False,
        ignoring_case: bool = False,
        where: Iterable[ColumnElement[bool]] = (),
    ) -> Sequence[Self]:
        """
        Find a part of the ordered rows; ``SelectMixin.select_range`` says what the arguments do.
        """
        statement = cls.select_range(
            offset=offset,
            limit=limit,
            order_by=order_by,
            descending=descending,
            ignoring_case=ignoring_case,
            where=where,
        )
        return _all(session, cls, statement)


class AsyncQueryMixin(SelectMixin):
    """
    Same as ``QueryMixin`` but for an ``AsyncSession``, or a unit of work that has one: each method is awaited.
    """

    @classmethod
    async def by_id(cls, session: AsyncSource, key: Any) -> Self | None:
        """
        Same as ``QueryMixin.by_id`` but awaited.
        """
        return await _async_session(session, cls).get(cls, key)

    @classmethod
    async def first_by(cls, session: AsyncSource, column: ColumnOf, value: object) -> Self | None:
        """
        Same as ``QueryMixin.first_by`` but awaited.
        """
        return await _first_async(session, cls, cls.select_by(column, value))

    @classmethod
    async def all_by(cls, session: AsyncSource, column: ColumnOf, value: object) -> Sequence[Self]:
        """
        Same as ``QueryMixin.all_by`` but awaited.
        """
        return await _all_async(session, cls, cls.select_by(column, value))

    @classmethod
    async def first_by_lower(cls, session: AsyncSource, column: ColumnOf, value: object) -> Self | None:
        """
        Same as ``QueryMixin.first_by_lower`` but awaited.
        """
        return await _first_async(session, cls, cls.select_by_lower(column, value))

    @classmethod
    async def all_by_lower(cls, session: AsyncSource, column: ColumnOf, value: object) -> Sequence[Self]:
        """
        Same as ``QueryMixin.all_by_lower`` but awaited.
        """
        return await _all_async(session, cls, cls.select_by_lower(column, value))

    @classmethod
    async def exact_or_ignoring_case(cls, session: AsyncSource, column: ColumnOf, value: object) -> Sequence[Self]:
        """
        Same as ``QueryMixin.exact_or_ignoring_case`` but awaited.
        """
        return await _all_async(session, cls, cls.select_by(column, value), cls.select_by_lower(column, value))

    @classmethod
    async def starting_with(
        cls, session: AsyncSource, column: ColumnOf, prefix: str, *, ignoring_case: bool = False
    ) -> Sequence[Self]:
        """
        Same as ``QueryMixin.starting_with`` but awaited.
        """
        return await _all_async(session, cls, cls.select_starting_with(column, prefix, ignoring_case=ignoring_case))

    @classmethod
    async def containing(
        cls, session: AsyncSource, column: ColumnOf, text: str, *, ignoring_case: bool = False
    ) -> Sequence[Self]:
        """
        Same as ``QueryMixin.containing`` but awaited.
        """
        return await _all_async(session, cls, cls.select_containing(column, text, ignoring_case=ignoring_case))

    @classmethod
    async def range(
        cls,
        session: AsyncSource,
        *,
        offset: int = 0,
        limit: int = 50,
        order_by: ColumnOf | None = None,
        descending: bool = False,
        ignoring_case: bool = False,
        where: Iterable[ColumnElement[bool]] = (),
    ) -> Sequence[Self]:
        """
        Same as ``QueryMixin.range`` but awaited.
        """
        statement = cls.select_range(
            offset=offset,
            limit=limit,
            order_by=order_by,
            descending=descending,
            ignoring_case=ignoring_case,
            where=where,
        )
        return await _all_async(session, cls, statement)


def _session(source: SyncSource, model: type[Any]) -> AnySession:
    # Not every checker tells the two overloads apart on a union.
    session: AnySession = session_of(cast("Any", source), model)
    return session


def _async_session(source: AsyncSource, model: type[Any]) -> AnyAsyncSession:
    session: AnyAsyncSession = session_of(cast("Any", source), model)
    return session


# The four that run statements. `unique()` because a model may load a collection by a join. A later statement of
# `_all` is sent only if the ones before it found nothing.


def _first(source: SyncSource, model: type[_S], statement: Select[_S]) -> _S | None:
    return _session(source, model).scalars(statement.limit(1)).unique().first()


def _all(source: SyncSource, model: type[_S], *statements: Select[_S]) -> Sequence[_S]:
    session = _session(source, model)
    rows: Sequence[_S] = ()
    for statement in statements:
        rows = session.scalars(statement).unique().all()
        if rows:
            break
    return rows


async def _first_async(source: AsyncSource, model: type[_S], statement: Select[_S]) -> _S | None:
    return (await _async_session(source, model).scalars(statement.limit(1))).unique().first()


async def _all_async(source: AsyncSource, model: type[_S], *statements: Select[_S]) -> Sequence[_S]:
    session = _async_session(source, model)
    rows: Sequence[_S] = ()
    for statement in statements:
        rows = (await session.scalars(statement)).unique().all()
        if rows:
            break
    return rows
