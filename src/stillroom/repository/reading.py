"""The read side: mapped or domain objects by key and by condition."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import event, inspect
from sqlalchemy.engine.cursor import FullyBufferedCursorFetchStrategy

from ..sessions import ReaderSession
from . import statements
from .problems import multiple_found, not_found
from .query import Query

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from sqlalchemy.orm import Session
    from sqlalchemy.orm.interfaces import ORMOption

    from .plan import Plan
    from .query import Lock

Missing = Literal["raise", "skip"]
_PARTS = (tuple, list, dict)


def get(
    session: Session, plan: Plan, key: Any, options: Sequence[ORMOption] = (), for_update: Lock | None = None
) -> Any:
    """
    Return the object with a primary key, or None; one that the session has already costs no statement.
    """
    if options or for_update not in (False, None):
        # Session.get would give a loaded object back as it is, neither loaded further nor fresh.
        query = Query(
            (statements.key_condition(plan, key),),
            options=options,
            for_update=False if for_update is None else for_update,
        )
        return one_or_none(session, plan, query)
    if plan.is_plain:
        is_value = len(plan.keys) == 1 and not isinstance(key, _PARTS)
        return session.get(plan.model, key if is_value else plan.identity(key))
    entity = session.get(plan.model, plan.identity(key), options=plan.loading or None)
    return plan.out(entity) if entity is not None and plan.sees(entity) else None


def get_many(
    session: Session,
    plan: Plan,
    keys: Iterable[Any],
    options: Sequence[ORMOption] = (),
    missing: Missing = "raise",
) -> list[Any]:
    """
    Return the objects with these primary keys, in the order of the keys.

    Raises:
        NotFound: Some are not there, and they are not to be skipped.
    """
    wanted = [plan.identity(key) for key in keys]
    found = {} if options else _loaded(session, plan, wanted)
    rest = [each for each in dict.fromkeys(wanted) if each not in found]
    found.update(_selected(session, plan, rest, options))
    absent = [each for each in dict.fromkeys(wanted) if each not in found]
    if absent and missing == "raise":
        named = tuple(each[0] if len(each) == 1 else each for each in absent)
        raise not_found(plan, f"with the key{'s' * (len(named) > 1)} {', '.join(map(repr, named))}", *named)
    return plan.out_all([found[each] for each in wanted if each in found])


def _loaded(session: Session, plan: Plan, wanted: list[tuple[Any, ...]]) -> dict[tuple[Any, ...], Any]:
    found = {}
    for identity in wanted:
        entity = session.identity_map.get(plan.mapper.identity_key_from_primary_key(identity))
        if isinstance(entity, plan.model) and not inspect(entity).expired and plan.sees(entity):
            found[identity] = entity
    return found


def _selected(
    session: Session, plan: Plan, wanted: list[tuple[Any, ...]], options: Sequence[ORMOption]
) -> dict[tuple[Any, ...], Any]:
    if not wanted:
        return {}
    found = {}
    dialect = session.get_bind(plan.mapper).dialect.name
    for condition in statements.keys_conditions(plan, wanted, dialect):
        for entity in _entities(session, plan, Query((condition,), options=options)):
            found[inspect(entity).identity] = entity
    strays = found.keys() - set(wanted)
    if strays:  # the server compares keys in its own way: "ADA" finds "Ada", and "7" finds 7
        for identity in [each for each in wanted if each not in found]:
            entity = session.get(plan.model, identity)
            if entity is not None and inspect(entity).identity in strays:
                found[identity] = entity
    return found


def _entities(session: Session, plan: Plan, query: Query) -> Sequence[Any]:
    # One object for each that fits, although a join may give its row several times.
    return session.scalars(statements.entities(plan, query)).unique().all()


def find(session: Session, plan: Plan, query: Query) -> list[Any]:
    """
    Return the objects that fit.
    """
    return plan.out_all(_entities(session, plan, query))


def one_or_none(session: Session, plan: Plan, query: Query) -> Any:
    """
    Return the only object that fits, or None.

    Raises:
        MultipleFound: More than one does.
    """
    base, _ = statements.base_of(query.where)
    found = _entities(session, plan, replace(query, limit=2) if base is None else query)
    if len(found) > 1:
        raise multiple_found(plan)
    return plan.out(found[0]) if found else None


def one(session: Session, plan: Plan, query: Query) -> Any:
    """
    Return the only object that fits.

    Raises:
        NotFound: None fits.
        MultipleFound: More than one does.
    """
    found = one_or_none(session, plan, query)
    if found is None:
        raise not_found(plan, "that fits")
    return found


def first(session: Session, plan: Plan, query: Query) -> Any:
    """
    Return the first object that fits, or None.
    """
    found = session.scalars(statements.first(plan, query)).unique().first()
    return plan.out(found)


def count(session: Session, plan: Plan, query: Query) -> int:
    """
    Return how many rows fit.
    """
    return session.scalar(statements.count(plan, query)) or 0


def exists(session: Session, plan: Plan, query: Query) -> bool:
    """
    Return whether a row fits.
    """
    return bool(session.scalar(statements.exists(plan, query)))


def stream(session: Session, plan: Plan, query: Query, batch: int) -> Iterator[Any]:
    """
    Iterate over the objects that fit, `batch` rows at a time.

    Raises:
        ValueError: A batch would have no rows.
    """
    if batch < 1:
        raise ValueError(f"batch={batch!r}: it is how many rows are held at a time, at least 1")
    return _stream(session, plan, query, batch)


def _stream(session: Session, plan: Plan, query: Query, batch: int) -> Iterator[Any]:
    if isinstance(session, ReaderSession):
        session = session(snapshot=True)  # a cursor lives in a transaction, and the statements of a reader have none
    statement = statements.entities(plan, query).execution_options(yield_per=batch)
    with session.execute(statement) as result, _rest_saved(session, plan, result):
        for entity in result.scalars():
            yield plan.out(entity)


@contextmanager
def _rest_saved(session: Session, plan: Plan, result: Any) -> Iterator[None]:
    """
    Take over the rest of a result when somebody else uses the connection inside the block.

    MariaDB sends one result at a time, and its drivers throw the rest of it away for the next statement, with no more
    than a warning.
    """
    connection = session.connection({"mapper": plan.mapper})
    if connection.dialect.name not in ("mysql", "mariadb"):
        yield
        return
    turn: Any = _Turn() if connection.dialect.is_async else nullcontext()
    is_read = True

    def take(*_: Any) -> None:
        with turn:
            if is_read:
                rest = result.raw.cursor_strategy.fetchall(result.raw, result.raw.cursor)
                result.raw.cursor_strategy = FullyBufferedCursorFetchStrategy(None, initial_buffer=rest)

    # Never removed: another task may be waiting inside of one, and they go with the connection of the transaction.
    for name in ("before_cursor_execute", "commit", "rollback"):
        event.listen(connection, name, take)
    try:
        yield
    finally:
        with turn:
            is_read = False
            result.close()


class _Turn:
    """
    A lock between tasks, for code inside of `AsyncSession.run_sync`.

    A loop that is left early is closed by the event loop, in a task of its own, while the task that left it goes on
    with the connection: two who read from one socket would wait for ever.
    """

    def __init__(self) -> None:
        from asyncio import Lock

        self._lock = Lock()

    def __enter__(self) -> None:
        from sqlalchemy.util import await_only

        await_only(self._lock.acquire())

    def __exit__(self, *_: object) -> None:
        self._lock.release()
