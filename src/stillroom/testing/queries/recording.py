"""What a block of code sends to its databases, written down while it runs."""

from __future__ import annotations

import contextlib
import re
import threading
from collections import Counter
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from time import perf_counter
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from sqlalchemy import event
from sqlalchemy.orm import Session

from .lines import origin

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from sqlalchemy.engine import Engine, ExceptionContext
    from sqlalchemy.orm import ORMExecuteState

    from stillroom import Databases

    from .lines import Line

__all__ = ["Counted", "Load", "Query", "count_queries"]

_LOAD = "stillroom_load"
_COUNTED = "stillroom_counted"
"""Set on SQLAlchemy's context of an INSERT with many sets of parameters, which it may send in several statements."""
_NOT_COUNTED = re.compile(
    r"\s*(begin|start\s+transaction|commit|end|rollback|savepoint|release|prepare\s+transaction|xa|pragma|"
    r"set\s+(session\s+|local\s+)?transaction)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Load:
    """
    Why the ORM itself sent a query.

    Attributes:
        attribute: "Order.lines"; for a column that was deferred or expired only the class.
        kind: "lazy" for one object's relationship when it is first read, "eager" for one that was asked for with the
            query, "column".
        is_list: The relationship leads to several objects.
    """

    attribute: str
    kind: str
    is_list: bool = False


@dataclass(frozen=True)
class Query:
    """
    One statement that was sent.

    Attributes:
        text: The statement.
        database: The name of the database.
        role: "writer", "reader" or "control".
        seconds: How long the answer took.
        line: The nearest line of the application; None where none is behind it.
        sets: How many sets of parameters were sent with it (executemany); else 1.
        load: Why the ORM sent it by itself; None if it did not.
        flush: The number of the flush that sent it; None outside of one.
        failed: The database refused it.
    """

    text: str
    database: str
    role: str
    seconds: float
    line: Line | None
    sets: int = 1
    load: Load | None = None
    flush: int | None = None
    failed: bool = False


@dataclass(eq=False)
class Counted:
    """
    What a block has sent so far.

    Attributes:
        statements: The statements, in the order of their answers.
    """

    statements: list[Query] = field(default_factory=list)

    @property
    def total(self) -> int:
        """
        How many statements were sent, to all databases together.
        """
        return len(self.statements)

    @property
    def by_database(self) -> Counter[str]:
        """
        How many statements were sent to each database; 0 for one that was sent none.
        """
        return Counter(query.database for query in self.statements)


@contextlib.contextmanager
def count_queries(databases: Databases) -> Iterator[Counted]:
    """
    Count the statements that are sent inside the block, by this thread and by all others, and by asyncio tasks.

    ::

        with count_queries(dbs) as counted:
            show_orders()
        assert counted.by_database["main"] == 2

    Not counted are BEGIN, COMMIT, SAVEPOINT and their like, PRAGMAs, look-ups of SQLAlchemy's dialects in the catalogue
    and Stillroom's own questions. A statement with many sets of parameters counts once.

    Args:
        databases: The databases; those first used inside the block are counted too.
    """
    counted = Counted()
    taps: list[_Tap] = []

    def tap(name: str, engine: Engine, role: str) -> None:
        taps.append(_tap(engine, name, role))
        taps[-1].add(counted)

    with contextlib.ExitStack() as stack:
        _open.append(counted)
        stack.callback(_remove, counted, taps)
        _watch_sessions()
        for name in databases:
            stack.callback(databases[name].watch_engines(partial(tap, name)))
        yield counted


def _remove(counted: Counted, taps: Iterable[_Tap]) -> None:
    _open.remove(counted)
    for each in taps:
        each.remove(counted)


class _Tap:
    """
    Listens to one engine, for as many blocks as are open.

    It stays on the engine when they end: SQLAlchemy goes through its listeners without a lock, so that taking one away
    while another thread sends a statement would break that statement.
    """

    def __init__(self, database: str, role: str) -> None:
        self.database = database
        self.role = role
        self.open: tuple[Counted, ...] = ()
        self._begun: dict[Any, tuple[float, Query]] = {}

    def add(self, counted: Counted) -> None:
        with _lock:
            self.open = (*self.open, counted)

    def remove(self, counted: Counted) -> None:
        with _lock:
            self.open = tuple(each for each in self.open if each is not counted)
            if not self.open:
                self._begun.clear()

    def before(self, connection: Any, cursor: Any, text: str, parameters: Any, context: Any, many: Any) -> None:
        if not self.open or context is None or _NOT_COUNTED.match(text):
            return
        if many and context.isinsert:
            if self in vars(context).setdefault(_COUNTED, set()):
                return
            vars(context)[_COUNTED].add(self)
        where = origin()
        if where.is_plumbing:
            return
        self._begun[context] = (
            perf_counter(),
            Query(
                text,
                self.database,
                self.role,
                0.0,
                where.line,
                sets=_sets(context, parameters) if many else 1,
                load=context.execution_options.get(_LOAD),
                flush=_flush.get() if where.is_flush else None,
            ),
        )

    def after(self, connection: Any, cursor: Any, text: str, parameters: Any, context: Any, many: Any) -> None:
        self._answered(context, failed=False)

    def failed(self, error: ExceptionContext) -> None:
        dialect = error.dialect
        if isinstance(error.original_exception, dialect.loaded_dbapi.Error):
            self._answered(error.execution_context, failed=True)
        else:  # it was not sent
            self._begun.pop(error.execution_context, None)

    def _answered(self, context: Any, *, failed: bool) -> None:
        begun = self._begun.pop(context, None)
        if begun is None:
            return
        start, query = begun
        query = _replace(query, perf_counter() - start, failed=failed)
        for counted in self.open:
            counted.statements.append(query)


def _replace(query: Query, seconds: float, *, failed: bool) -> Query:
    return Query(**{**vars(query), "seconds": seconds, "failed": failed})


def _sets(context: Any, parameters: Sequence[Any]) -> int:
    # Of an INSERT that SQLAlchemy sends in several statements, the context has all sets.
    compiled = getattr(context, "compiled_parameters", None)
    return len(compiled) if compiled and context.isinsert else len(parameters)


_lock = threading.Lock()
_open: list[Counted] = []
"""The blocks that are open. The taps are not asked: another thread may be adding one for its engine."""
_taps: WeakKeyDictionary[Engine, _Tap] = WeakKeyDictionary()
_flush: ContextVar[int | None] = ContextVar("stillroom_flush", default=None)
_flushes = count()


def _tap(engine: Engine, database: str, role: str) -> _Tap:
    with _lock:
        tap = _taps.get(engine)
        if tap is None:
            tap = _taps[engine] = _Tap(database, role)
            event.listen(engine, "before_cursor_execute", tap.before)
            event.listen(engine, "after_cursor_execute", tap.after)
            event.listen(engine, "handle_error", tap.failed)
    return tap


def _watch_sessions() -> None:
    """
    Listen to all sessions, once for good, for the same reason as `_Tap`.
    """
    with _lock:
        if not event.contains(Session, "do_orm_execute", _executing):
            event.listen(Session, "do_orm_execute", _executing)
            event.listen(Session, "before_flush", _flushing)


def _executing(state: ORMExecuteState) -> None:
    if not _open or not (state.is_relationship_load or state.is_column_load):
        return
    state.update_execution_options(**{_LOAD: _load(state)})


# Else the repositories would not have JSON built by the database, for it could narrow the statement.
_executing.stillroom_only_looks = True  # type: ignore[attr-defined]  # a mark that they know


def _flushing(session: Session, context: Any, instances: Any) -> None:
    _flush.set(next(_flushes))


def _load(state: ORMExecuteState) -> Load:
    mapper = state.bind_mapper
    owner = mapper.class_.__name__ if mapper is not None else ""
    if state.is_column_load:
        return Load(owner, "column")
    kind = "eager" if state.lazy_loaded_from is None else "lazy"
    path: Any = state.loader_strategy_path
    prop: Any = path[-1] if path is not None and len(path) else None
    if not hasattr(prop, "uselist"):
        return Load(owner, kind)
    return Load(f"{prop.parent.class_.__name__}.{prop.key}", kind, is_list=bool(prop.uselist))
