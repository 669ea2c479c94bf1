"""How many rows there are in all: counted, counted up to a limit, estimated by the planner, or remembered."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from dataclasses import replace
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast
from uuid import UUID
from weakref import WeakKeyDictionary

import msgspec
from sqlalchemy import bindparam, column, event, func, literal_column, select, table
from sqlalchemy.engine import IteratorResult
from sqlalchemy.engine.result import SimpleResultMetaData
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import scoped_session
from sqlalchemy.sql.expression import ClauseElement, Executable

from ...connections import STATE
from .. import statements

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from sqlalchemy import Select, Table
    from sqlalchemy.engine import Connection, Engine
    from sqlalchemy.orm import ORMExecuteState, Session

    from ..plan import Plan
    from ..query import Query

Total = Literal["exact", "capped", "estimate", "cached", "none"]

CAP = 10_000
"""How far a capped total counts."""


class Counted(NamedTuple):
    """
    A total, and what it is: "capped" is "more than that many".
    """

    total: int
    kind: Total


def total(session: Session, plan: Plan, query: Query, kind: Total) -> Counted:
    """
    Return how many rows fit.

    Args:
        session: The session.
        plan: The model.
        query: What is asked for; order, limits and loader options do not matter.
        kind: The kind that is wanted, not "none".
    """
    way = {"exact": _exact, "capped": _capped, "estimate": _estimate, "cached": _cached}[kind]
    return way(session, plan, replace(query, order_by=None, limit=None, offset=None, options=()))


def _exact(session: Session, plan: Plan, query: Query) -> Counted:
    return Counted(session.scalar(statements.count(plan, query)) or 0, "exact")


def _capped(session: Session, plan: Plan, query: Query) -> Counted:
    some = _bare(plan, query).limit(CAP + 1).subquery()
    counted = session.scalar(select(func.count()).select_from(some)) or 0
    return Counted(CAP, "capped") if counted > CAP else Counted(counted, "exact")


def _bare(plan: Plan, query: Query) -> Select[Any]:
    """
    Return the SELECT of the rows, without their columns where that makes no difference.
    """
    base, where = statements.base_of(query.where)
    statement = select(literal_column("1")).select_from(plan.model) if base is None else base.order_by(None)
    return statements.narrowed(plan, statement, query, where)


# --- estimates


class _Explain(Executable, ClauseElement):
    """
    The planner's view of a statement, which is not run.
    """

    inherit_cache = False

    def __init__(self, statement: Executable) -> None:
        self.statement = statement


@compiles(_Explain, "postgresql")
def _explain_postgresql(element: _Explain, compiler: Any, **options: Any) -> str:
    return f"EXPLAIN (FORMAT JSON) {compiler.process(element.statement, **options)}"


@compiles(_Explain, "mysql", "mariadb")
def _explain_mysql(element: _Explain, compiler: Any, **options: Any) -> str:
    # Without EXTENDED, MariaDB does not tell which share of the rows passes the conditions; MySQL always does.
    extended = "EXTENDED " if compiler.dialect.is_mariadb else ""
    return f"EXPLAIN {extended}{compiler.process(element.statement, **options)}"


def _estimate(session: Session, plan: Plan, query: Query) -> Counted:
    connection = session.connection(bind_arguments={"mapper": plan.mapper})
    if connection.dialect.name == "sqlite":
        noted = None if _has_conditions(plan, query) else _noted_by_analyze(connection, plan)
        return _capped(session, plan, query) if noted is None else Counted(noted, "estimate")
    result = connection.execute(_Explain(_as_sent(session, _bare(plan, query)).statement))
    if connection.dialect.name == "postgresql":
        found = result.scalar_one()
        tree = found if isinstance(found, list) else msgspec.json.decode(found)
        return Counted(tree[0]["Plan"]["Plan Rows"], "estimate")
    steps = [each for each in result.mappings() if each["select_type"] in {"SIMPLE", "PRIMARY"}]
    shares = (int(each["rows"] or 0) * float(each["filtered"] or 100) / 100 for each in steps)
    return Counted(round(math.prod(shares)), "estimate")


def _has_conditions(plan: Plan, query: Query) -> bool:
    return bool(query.where or query.equal) or plan.visible is not None or plan.mapper.inherits is not None


_TABLES = table("sqlite_master", column("name"))
_NOTES = table("sqlite_stat1", column("tbl"), column("stat"))
_IS_ANALYZED = select(func.count()).select_from(_TABLES).where(_TABLES.c.name == "sqlite_stat1")
_NOTED = select(_NOTES.c.stat).where(_NOTES.c.tbl == bindparam("name"), _NOTES.c.stat.is_not(None))


def _noted_by_analyze(connection: Connection, plan: Plan) -> int | None:
    """
    Return how many rows a table had when ANALYZE was run, if it was. SQLite tells no more than that to anybody.
    """
    if not connection.scalar(_IS_ANALYZED):
        return None
    found = connection.scalars(_NOTED, {"name": cast("Table", plan.mapper.local_table).name}).all()
    return max((int(each.split()[0]) for each in found), default=None)  # the index of a part has fewer rows


# --- remembered totals


class Remembered:
    """
    Totals that were counted a short while ago, for each engine by statement and parameters.

    Args:
        seconds: How old one may be.
        most: How many are kept for an engine; the one that was used longest ago goes first.
        clock: Tells the time in seconds.
    """

    def __init__(self, seconds: float = 60.0, most: int = 1000, clock: Callable[[], float] = monotonic) -> None:
        self._seconds = seconds
        self._most = most
        self._clock = clock
        self._lock = threading.Lock()
        # Engines, not URLs: the URL of a database in memory is that of all of them.
        self._engines: WeakKeyDictionary[Engine, OrderedDict[Hashable, tuple[float, int]]] = WeakKeyDictionary()

    def get(self, engine: Engine, key: Hashable) -> int | None:
        """
        Return a total that is not too old, or None.
        """
        with self._lock:
            totals = self._engines.get(engine, OrderedDict())
            counted, value = totals.get(key, (-math.inf, 0))
            if self._clock() - counted > self._seconds:
                totals.pop(key, None)
                return None
            totals.move_to_end(key)
            return value

    def put(self, engine: Engine, key: Hashable, value: int) -> None:
        """
        Keep a total that was counted now.
        """
        with self._lock:
            totals = self._engines.setdefault(engine, OrderedDict())
            totals[key] = (self._clock(), value)
            totals.move_to_end(key)
            if len(totals) > self._most:
                totals.popitem(last=False)

    def forget(self) -> None:
        """
        Forget all of them, such as after a test, whose rows are gone without a trace.
        """
        with self._lock:
            self._engines.clear()


remembered = Remembered()


class _Sent(NamedTuple):
    """
    A statement as it will be sent, with the options of its execution.
    """

    statement: Executable
    options: Any


def _cached(session: Session, plan: Plan, query: Query) -> Counted:
    connection = session.connection(bind_arguments={"mapper": plan.mapper})
    state = connection.info.get(STATE)
    if state is not None and (state.wrote or state.may_have_written):
        # What this transaction wrote is in its counts, and in nobody else's.
        return _exact(session, plan, query)
    statement = statements.count(plan, query)
    sent = _as_sent(session, statement)
    options = {**connection.get_execution_options(), **sent.options}
    compiled = cast("Select[Any]", sent.statement).compile(dialect=connection.dialect)
    try:
        key = (str(compiled), _frozen(compiled.params), _frozen(options.get("schema_translate_map") or {}))
    except TypeError:
        return _exact(session, plan, query)
    known = remembered.get(connection.engine, key)
    if known is not None:
        return Counted(known, "cached")
    counted = session.scalar(statement) or 0
    remembered.put(connection.engine, key, counted)
    return Counted(counted, "exact")


_UNCHANGING = (type(None), bool, int, float, str, bytes, Decimal, date, time, timedelta, UUID, Enum)


def _frozen(value: Any) -> Any:
    # With its type: 1, 1.0 and True are equal in Python, and not always in SQL.
    if isinstance(value, dict):
        return tuple(sorted((str(name), _frozen(each)) for name, each in value.items()))
    if isinstance(value, list | tuple):
        return tuple(map(_frozen, value))
    if not isinstance(value, _UNCHANGING):
        raise TypeError(f"{value!r} may change, and so be no part of a key")
    return type(value), value


def _as_sent(session: Session | scoped_session[Session], statement: Executable) -> _Sent:
    """
    Return a statement as the listeners of the session make it: one of them may add the condition for the tenant.
    """
    actual = session() if isinstance(session, scoped_session) else session
    seen: list[_Sent] = []

    def look(state: ORMExecuteState) -> Any:
        seen.append(_Sent(state.statement, state.execution_options))
        return IteratorResult(SimpleResultMetaData(("total",)), iter(()))  # nothing is sent

    event.listen(actual, "do_orm_execute", look)
    try:
        actual.execute(statement)
    finally:
        event.remove(actual, "do_orm_execute", look)
    return seen[-1] if seen else _Sent(statement, {})
