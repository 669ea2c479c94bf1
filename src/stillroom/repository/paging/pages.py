"""Pages: by number, with a total of the user's choice, and by key set, with signed cursors."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, get_args

from sqlalchemy import Select, TextClause, and_, select
from sqlalchemy.exc import InvalidRequestError
from typing_extensions import TypeVar

from .. import statements
from . import cursors, keyset, totals
from .cursors import Position
from .totals import Counted, Total

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Dialect
    from sqlalchemy.orm import Session

    from ..plan import Plan
    from ..query import Query

__all__ = ["CursorPage", "Page", "Total", "after", "page"]

T = TypeVar("T")

_DEEP = 1_000
"""Rows to leave out from which on it pays to look for the keys alone first."""


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """
    One page of a list, by its number.

    Attributes:
        items: What is on it; nothing where it lies past the last page.
        total: How many there are on all pages; None if that was not asked for.
        number: The page, counted from 1.
        size: How many items a page has.
        pages: How many pages there are; None without a total.
        kind: What the total is: "exact"; "capped" for more than that many; "estimate"; "cached" for up to a minute old;
            "none".
        has_next: Items follow.
    """

    items: list[T]
    total: int | None
    number: int
    size: int
    pages: int | None
    kind: Total
    has_next: bool

    @property
    def has_previous(self) -> bool:
        """
        Whether there is a page before.
        """
        return self.number > 1

    def __iter__(self) -> Iterator[T]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)


@dataclass(frozen=True, slots=True)
class CursorPage(Generic[T]):
    """
    One page of a list, by the place of its rows in the order.

    Attributes:
        items: What is on it.
        next_cursor: Where the next page begins; None on the last one.
        previous_cursor: Where the page before ends; None on the first one.
    """

    items: list[T]
    next_cursor: str | None
    previous_cursor: str | None

    def __iter__(self) -> Iterator[T]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)


def page(session: Session, plan: Plan, query: Query, number: int, size: int, total: Total) -> Page[Any]:
    """
    Return a page by its number; one row more is read, so that the last page knows the total without counting.

    Raises:
        ValueError: The number or the size is less than 1, or there is no such kind of total.
        TypeError: It starts from a `text()`, or a `select()` with a limit of its own.
    """
    _check(number=number, size=size)
    if total not in get_args(Total):
        raise ValueError(f"total={total!r} is no kind of total; there are {', '.join(map(repr, get_args(Total)))}")
    plan = statements.plan_for(plan, query)
    offset = (number - 1) * size
    rows = _fetch(session, query, _numbered(plan, query, offset, size + 1))
    items, has_next = [row[0] for row in rows[:size]], len(rows) > size
    seen = offset + len(items) + has_next if items else 0
    if total == "none":
        return Page(plan.out_all(items), None, number, size, None, "none", has_next)
    if not has_next and (items or number == 1):
        counted = Counted(seen, "exact")
    else:
        counted = totals.total(session, plan, query, total)
    most = max(counted.total, seen)  # rows that came meanwhile; an estimate; a cap that this page is beyond
    return Page(plan.out_all(items), most, number, size, -(-most // size), counted.kind, has_next)


def after(session: Session, plan: Plan, query: Query, cursor: str | None, size: int) -> CursorPage[Any]:
    """
    Return the page that follows a cursor, or precedes it where it is a `previous_cursor`.

    Raises:
        InvalidCursor: The cursor was changed, or belongs to another order, model or database.
        ValueError: The size is less than 1.
        TypeError: It is ordered by something else than columns.
    """
    _check(size=size)
    plan = statements.plan_for(plan, query)
    dialect = session.get_bind(plan.mapper).dialect
    keys = keyset.sort_keys(plan, query.order_by, dialect)
    signing, question = cursors.key_of(session, plan), _question(session, plan, keys)
    position = None if cursor is None else cursors.read(cursor, signing, question)
    found = _fetch(session, query, _beyond(plan, query, keys, position, dialect).limit(size + 1))
    places = [tuple(row[-len(keys) :]) for row in found[:size]]
    before, behind = _neighbours(position, places, more=len(found) > size)
    items = list(dict.fromkeys(row[0] for row in found[:size]))  # a join in the user's select() may repeat an object
    if position is not None and position.is_backward:
        items.reverse()

    def cursor_at(place: Position | None) -> str | None:
        return None if place is None else cursors.write(place, signing, question)

    return CursorPage(plan.out_all(items), next_cursor=cursor_at(behind), previous_cursor=cursor_at(before))


def _neighbours(
    position: Position | None, places: Sequence[tuple[Any, ...]], *, more: bool
) -> tuple[Position | None, Position | None]:
    """
    Return where the pages before and after begin.

    Args:
        position: Where this page began.
        places: Those of its rows, in the order in which they were read.
        more: Rows follow in that order.
    """
    if position is None:
        return None, Position(">", places[-1]) if more else None
    if not places:  # all rows are gone: the way back begins with the very row that the cursor was made of
        back = position.turned()
        return (None, back) if position.is_backward else (back, None)
    if position.is_backward:
        return Position("<", places[-1]) if more else None, Position(">", places[0])
    return Position("<", places[0]), Position(">", places[-1]) if more else None


def _check(**numbers: int) -> None:
    for name, number in numbers.items():
        if number < 1:
            raise ValueError(f"{name}={number!r}: pages and their sizes are counted from 1")


def _fetch(session: Session, query: Query, statement: Select[Any]) -> Sequence[Any]:
    result = session.execute(statement)
    if statements.base_of(query.where)[0] is None:
        return result.unique().all()  # a loader option that joins a collection repeats objects
    try:
        return result.all()
    except InvalidRequestError:
        # The same, but the user's own select() may repeat objects too: told at once that each object comes once,
        # SQLAlchemy would hide how many rows there were.
        return session.execute(statement).unique().all()


def _base(plan: Plan, query: Query) -> tuple[Select[Any], tuple[Any, ...]]:
    """
    Return the SELECT to start from, and the conditions.
    """
    base, where = statements.base_of(query.where)
    if isinstance(base, TextClause):
        raise TypeError("a text() cannot be paged; give a select(), or use list() with LIMIT and OFFSET in the text")
    if base is None:
        return select(plan.model), where
    if not base.compare(base.limit(None).offset(None)):
        raise TypeError("the select() has a LIMIT or OFFSET of its own, which a page would replace; leave it out")
    return base, where


def _numbered(plan: Plan, query: Query, offset: int, limit: int) -> Select[Any]:
    base, where = _base(plan, query)
    order = keyset.with_key(plan, statements.ordering(plan, query.order_by))
    ordered = replace(query, order_by=order)
    options = (*plan.loading, *query.options)
    if offset < _DEEP or len(where) < len(query.where):
        return statements.narrowed(plan, base, replace(ordered, limit=limit, offset=offset), where, options)
    # The rows that are left out are read from an index, or at least without their columns.
    labelled = [column.label(f"key_{number}") for number, column in enumerate(plan.key_columns)]
    inner = statements.narrowed(plan, select(*labelled), replace(ordered, limit=limit, offset=offset), where).subquery()
    same = and_(*(column == inner.c[each.name] for column, each in zip(plan.key_columns, labelled, strict=True)))
    return base.join(inner, same).order_by(*order).options(*options)


def _beyond(
    plan: Plan, query: Query, keys: Sequence[keyset.SortKey], position: Position | None, dialect: Dialect
) -> Select[Any]:
    base, where = _base(plan, query)
    if not base.compare(base.order_by(None)):
        raise TypeError("the select() has an ORDER BY of its own, which cursors do not see; give it as order_by=")
    statement = statements.narrowed(plan, base, replace(query, order_by=None), where, (*plan.loading, *query.options))
    if position is not None:
        if position.is_backward:
            keys = [key.backwards() for key in keys]
        inclusive = position.way.endswith("=")
        statement = statement.where(keyset.beyond(keys, position.values, dialect, inclusive=inclusive))
    # The values come with the rows: those of a loaded object may be older, or not there.
    values = [key.value().label(f"cursor_{number}") for number, key in enumerate(keys)]
    return statement.add_columns(*values).order_by(*(clause for key in keys for clause in key.clauses(dialect)))


def _question(session: Session, plan: Plan, keys: Sequence[keyset.SortKey]) -> bytes:
    """
    Return what a cursor belongs to: the database, the model and the order.
    """
    order = [f"{key.column} {key.descending} {key.nulls_first}" for key in keys]
    return "\n".join([cursors.database_of(session, plan), plan.mapper.class_.__qualname__, *order]).encode()
