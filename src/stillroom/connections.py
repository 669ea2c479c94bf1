"""What is known of each connection, and the guards around its checkout, its statements, its commit and its return."""

from __future__ import annotations

import re
import threading
from functools import partial
from threading import get_ident
from time import monotonic
from typing import TYPE_CHECKING, Any

from sqlalchemy import event
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.exc import DBAPIError, DisconnectionError

from . import watchdog
from .backends import LIMITED, Backend
from .classification import Kind, classify, translate
from .errors import ConcurrentUseError, ForkedConnection, ReadOnlyError, TransactionAborted, UnitOfWorkTimeout
from .forking import process, watch_connection

if TYPE_CHECKING:
    from collections.abc import Callable
    from weakref import ref

    from sqlalchemy.engine import Connection, Engine, ExceptionContext
    from sqlalchemy.pool import PoolProxiedConnection

    from .sessions import UnitSession
    from .settings import DatabaseSettings

STATE = "stillroom"
"""The key of the `ConnectionState` in `Connection.info`."""

_EARLY = 0.01
"""Seconds that a server may end a statement before our own clock says that the limit has passed."""
_SETTING = re.compile(r"\b(set|set_config|reset|discard|pragma|do|execute|call)\b", re.IGNORECASE)
"""Plain SQL that changes the session, and so perhaps whether it may write."""

_FOREIGN = (
    "this connection to {name!r} was opened by the parent process, before the fork; using it here would disturb the "
    "parent. Open a new unit of work in this process: it gets connections of its own"
)


class ConnectionState:
    """
    What is known of one driver connection; cleared at each checkout.

    Attributes:
        read_only: It is a reader's: writes are refused before they are sent.
        wrote: A statement that writes for certain was sent in this checkout.
        may_have_written: Plain SQL was sent, which may have written.
        failure: The database error that made the server give up the transaction, if there was one.
        committing: COMMIT is about to be sent or was sent; what an error then means is no longer certain.
        deadline: The moment (`time.monotonic`, seconds) after which no statement is sent; None for no limit.
        hang_up_at: The moment after which nobody waits for the answer to a COMMIT any more; None while there is none.
        is_quiet: There is nothing to look at before a statement, nor to clear after a checkout: it is no reader's, and
            there was no error, no deadline and no fork.
        busy: Who sent the statement that is running now, where overlapping use is watched.
        unlocked: A reader may have switched off on the connection what keeps it from writing.
        session: The session of a unit of work whose transaction runs on it; its COMMITs are counted there. Weak, since
            the connection returns to the pool when its session is dropped.
        uncertain: There was an error, after which the driver may not know whether a transaction is open.
        xa: The gid of the XA transaction that is open, on MariaDB with two-phase commit.
    """

    __slots__ = (
        "__weakref__",
        "backend",
        "busy",
        "committing",
        "database",
        "dbapi_connection",
        "deadline",
        "failure",
        "generation",
        "hang_up_at",
        "is_quiet",
        "may_have_written",
        "read_only",
        "session",
        "uncertain",
        "unlocked",
        "used_at",
        "wrote",
        "xa",
    )

    def __init__(self, database: str, backend: Backend, dbapi_connection: Any, *, read_only: bool = False) -> None:
        self.database = database
        self.read_only = read_only
        self.backend = backend
        self.dbapi_connection = dbapi_connection
        self.generation = process.generation
        self.used_at = monotonic()
        self.hang_up_at: float | None = None
        self.is_quiet = False
        self.clear()

    def clear(self) -> None:
        """
        Forget the last checkout.
        """
        self.wrote = False
        self.may_have_written = False
        self.busy: Any = None
        self.session: ref[UnitSession] | None = None
        if self.is_quiet:
            return  # nothing went wrong, and nothing was limited
        self.is_quiet = not self.read_only
        self.failure: BaseException | None = None
        self.committing = False
        self.deadline: float | None = None
        self.uncertain = False
        self.unlocked = False
        self.xa: str | None = None

    def count_commit(self) -> None:
        """
        Note that what was written so far is durable.
        """
        self.committing = False
        if self.session is not None and (session := self.session()) is not None:
            session.commits += 1

    def socket(self) -> int | None:
        """
        Return the socket that the connection has now; None where it has none any more.
        """
        return self.backend.socket(self.dbapi_connection)

    def require_own_process(self) -> None:
        if self.generation != process.generation:
            raise ForkedConnection(_FOREIGN.format(name=self.database))


def state_of(connection: Connection) -> ConnectionState:
    """
    Return the state of the driver connection behind `connection`.
    """
    state: ConnectionState = connection.info[STATE]
    return state


def install(
    engine: Engine,
    name: str,
    settings: DatabaseSettings,
    backend: Backend,
    *,
    read_only: bool = False,
    who: Callable[[], Any] = get_ident,
) -> None:
    """
    Put the guards on an engine.

    Args:
        engine: The engine (for asyncio: its `sync_engine`).
        name: The name of its database, for messages.
        settings: The settings of the database.
        backend: What differs between SQLite, PostgreSQL and MariaDB.
        read_only: The engine serves readers: writes are refused before they are sent.
        who: Returns the thread, or the asyncio task, that is running: overlapping use of a connection is refused.
    """
    # The driver is hung up on where COMMIT takes too long; in asyncio the unit of work does it.
    bounds_commit = backend.over_network and not engine.dialect.is_async
    longest_commit = (settings.commit_timeout or None) if bounds_commit else None
    new_state = partial(ConnectionState, name, backend, read_only=read_only)
    _guard_pool(engine, settings, backend, new_state, longest_commit)
    _guard_statements(engine, backend, who)
    _watch_errors(engine, name, backend, read_only=read_only)
    _guard_transactions(engine, backend, longest_commit)


def _guard_pool(
    engine: Engine,
    settings: DatabaseSettings,
    backend: Backend,
    new_state: Callable[[Any], ConnectionState],
    longest_commit: float | None,
) -> None:
    ping_after = settings.ping_after

    def connected(dbapi_connection: Any, record: Any) -> None:
        state = record.info[STATE] = new_state(dbapi_connection)
        watch_connection(state)
        if longest_commit is not None:
            watchdog.watchdog.keep(state, longest_commit)

    # What a backend does not do need not be called.
    seems_dead = backend.seems_dead if type(backend).seems_dead is not Backend.seems_dead else None
    restore = backend.restore if type(backend).restore is not Backend.restore else None

    def checked_out(dbapi_connection: Any, record: Any, proxy: Any) -> None:
        state = record.info[STATE]
        if state.generation != process.generation:
            raise DisconnectionError("the connection belongs to the parent process")
        if backend.in_transaction(dbapi_connection):
            raise DisconnectionError("the connection was left inside a transaction")
        if state.unlocked:
            raise DisconnectionError("the connection may not be read only any more")
        doubtful = ping_after and monotonic() - state.used_at > ping_after
        if not doubtful and seems_dead is not None:
            doubtful = seems_dead(dbapi_connection)
        if doubtful and not backend.ping(engine, dbapi_connection):
            raise DisconnectionError("the server has closed the connection")
        state.clear()

    def reset(dbapi_connection: Any, record: Any, reset_state: Any) -> None:
        state = record.info.get(STATE)
        if state is not None:
            if state.generation != process.generation:
                return
            state.used_at = monotonic()
        if (
            not reset_state.terminate_only
            and reset_state.asyncio_safe
            and (backend.in_transaction(dbapi_connection) or (state is not None and state.uncertain))
        ):
            dbapi_connection.rollback()
        if record.info.pop(LIMITED, False) and not reset_state.terminate_only:
            backend.restore_limit(dbapi_connection)
        if restore is not None:
            restore(dbapi_connection)

    event.listen(engine, "connect", connected)
    event.listen(engine, "checkout", checked_out)
    event.listen(engine, "reset", reset)


def before_statement(statement: str, context: Any) -> ConnectionState | None:
    """
    Refuse a statement that must not be sent, and note what it does to the connection.

    Called for each statement in place of the dialect's method that sends it; to be called by whoever sends one himself,
    in a listener to `do_execute`.

    Args:
        statement: Its text.
        context: SQLAlchemy's execution context.

    Returns:
        The state of the connection; None where that is nobody's yet.

    Raises:
        ForkedConnection: The connection belongs to the parent process.
        UnitOfWorkTimeout: The time limit of the unit of work has passed.
        ReadOnlyError: It writes, and the connection is a reader's.
    """
    try:
        state: ConnectionState = context.root_connection.connection.info[STATE]
    except NotImplementedError:  # SQLAlchemy gets to know a new server, on a connection that is nobody's yet
        return None
    if not state.is_quiet:
        _look(state)
    if context.is_text:
        state.may_have_written = True
    elif context.isinsert or context.isupdate or context.isdelete or context.isddl:
        state.wrote = True
    elif context.compiled is None:
        state.may_have_written = True
    elif context.compiled.ctes and any(cte.element.is_dml for cte in context.compiled.ctes):
        state.wrote = True
    if state.read_only:
        _guard_reader(state, statement)
    return state


def _look(state: ConnectionState) -> None:
    """
    Refuse a statement on a connection that must not have one now.
    """
    if state.generation != process.generation:
        state.require_own_process()
    if state.failure is not None and not state.read_only and not state.backend.over_network:
        require_intact(state)  # SQLite has no transaction any more: what comes now would commit by itself
    if state.deadline is not None and monotonic() > state.deadline:
        raise UnitOfWorkTimeout(
            f"the time limit of the unit of work has passed; a statement for {state.database!r} was not sent. "
            "Give unit_of_work(timeout=...) more time, or do less in one unit"
        )


def _guard_statements(engine: Engine, backend: Backend, who: Callable[[], Any]) -> None:
    """
    Put `before_statement` before each statement.

    In place of listeners to the engine's events: as soon as anybody listens to one of them, SQLAlchemy looks for
    listeners to all of them around each statement, which costs a tenth of a small unit of work. Listeners to the
    dialect's events cost a third of that.
    """
    dialect = engine.dialect
    for name in ("do_execute", "do_executemany"):
        is_plain = name == "do_execute" and type(dialect).do_execute is DefaultDialect.do_execute
        setattr(dialect, name, _guarded(getattr(dialect, name), backend, who, is_plain=is_plain))
    no_parameters = dialect.do_execute_no_params

    def execute(cursor: Any, statement: str, parameters: Any, context: Any) -> None:
        no_parameters(cursor, statement, context)

    guarded = _guarded(execute, backend, who, is_plain=False)
    setattr(  # noqa: B010  # mypy refuses a plain assignment
        dialect, "do_execute_no_params", lambda cursor, statement, context: guarded(cursor, statement, (), context)
    )


def _guarded(
    execute: Callable[..., None], backend: Backend, who: Callable[[], Any], *, is_plain: bool
) -> Callable[[Any, str, Any, Any], None]:
    """
    Return the method of a dialect that sends a statement, noting who waits for the answer and what it ended.

    Args:
        execute: What sends it.
        backend: The backend.
        who: Returns the thread or the asyncio task that is running.
        is_plain: That is `cursor.execute` and no more, which is called straight away.
    """
    in_transaction = backend.in_transaction

    def guarded(cursor: Any, statement: str, parameters: Any, context: Any) -> None:
        state = before_statement(statement, context)
        if state is None:
            execute(cursor, statement, parameters, context)
            return
        me = who()
        if state.busy is not None:
            refuse_overlap(state, me)
        # Plain SQL may end the transaction (COMMIT), and so does DDL on MariaDB: what was written is durable then.
        may_end = in_transaction(state.dbapi_connection) if context.is_text else context.isddl
        state.busy = me
        try:
            if is_plain:
                cursor.execute(statement, parameters)
            else:
                execute(cursor, statement, parameters, context)
        finally:
            state.busy = None
        if may_end and not in_transaction(state.dbapi_connection):
            state.count_commit()

    return guarded


def _guard_reader(state: ConnectionState, statement: str) -> None:
    name = state.database
    if state.wrote:
        state.wrote = False  # it was not sent
        raise ReadOnlyError(
            f"a reader of {name!r} cannot write; the statement was not sent: {statement[:200]!r}. "
            f"Write through the writer: uow.{name}, or uow.session({name!r})"
        )
    if state.may_have_written and _SETTING.search(statement):
        state.unlocked = True


def overlap_error(name: str, first: Any, second: Any) -> ConcurrentUseError:
    """
    Make the error for two threads or tasks that use the session on the database `name` at once.
    """
    who, block = "asyncio tasks", "async with dbs.async_unit_of_work()"
    if isinstance(first, int):
        who, block = "threads", "with dbs.unit_of_work()"
    return ConcurrentUseError(
        f"two {who} use one unit of work at the same time: {_called(first)} is running a statement on {name!r}, and "
        f"{_called(second)} wants to. Give each its own: `{block} as uow`"
    )


def _called(who: Any) -> str:
    if isinstance(who, int):
        return repr(next((each.name for each in threading.enumerate() if each.ident == who), "a thread that has ended"))
    return repr(who.get_name()) if hasattr(who, "get_name") else "code outside of a task"


def refuse_overlap(state: ConnectionState, me: Any) -> None:
    """
    Refuse to go on while another thread's or task's statement runs on the connection.

    Raises:
        ConcurrentUseError: Another one than `me` is running a statement.
    """
    if state.busy is not None and state.busy != me:
        raise overlap_error(state.database, state.busy, me)


def require_intact(state: ConnectionState) -> None:
    """
    Refuse to commit what the server has already given up.

    Raises:
        TransactionAborted: An earlier database error was swallowed, and the server rolled back (PostgreSQL: all;
            MariaDB after a deadlock: what came before it).
    """
    if state.failure is not None:
        raise TransactionAborted(
            f"the transaction on {state.database!r} cannot be committed: an earlier database error made the server "
            f"give it up ({type(state.failure).__name__}), and the error was swallowed. Let such an error leave the "
            "unit of work, or wrap what may fail in uow.savepoint()"
        ) from state.failure


def before_commit(state: ConnectionState) -> None:
    """
    Refuse a COMMIT that must not be sent, and note that one is.

    Raises:
        ForkedConnection: The connection belongs to the parent process.
        TransactionAborted: The server has given up the transaction.
    """
    if state.generation != process.generation:
        state.require_own_process()
    if state.failure is not None:
        require_intact(state)
    state.is_quiet = False
    state.committing = True


def _watch_errors(engine: Engine, name: str, backend: Backend, *, read_only: bool) -> None:
    def failed(context: ExceptionContext) -> BaseException | None:
        if isinstance(context.original_exception, ForkedConnection):
            return ForkedConnection(*context.original_exception.args)  # SQLAlchemy took it for an error of the driver
        connection = context.connection
        if connection is None or connection.closed or connection.invalidated:
            return None
        state = connection.info.get(STATE)
        if state is None:
            return None
        state.is_quiet = False
        state.uncertain = True
        if state.failure is None and (
            context.is_disconnect or backend.aborts_transaction(context.original_exception, state.dbapi_connection)
        ):
            state.failure = context.sqlalchemy_exception or context.original_exception
        wrapped = context.sqlalchemy_exception
        late = state.deadline is not None and monotonic() > state.deadline - _EARLY
        if late and isinstance(wrapped, DBAPIError) and classify(wrapped) is Kind.STATEMENT_TIMEOUT:
            return UnitOfWorkTimeout(
                f"the time limit of the unit of work has passed, and a statement on {name!r} was ended with it. "
                "Give unit_of_work(timeout=...) more time, or do less in one unit"
            )
        if read_only and isinstance(wrapped, DBAPIError) and classify(wrapped) is Kind.READ_ONLY:
            return translate(wrapped, database=name)
        return None

    event.listen(engine, "handle_error", failed)


def _guard_transactions(engine: Engine, backend: Backend, longest_commit: float | None) -> None:
    dialect = engine.dialect
    do_commit, do_rollback = dialect.do_commit, dialect.do_rollback
    do_rollback_to_savepoint = dialect.do_rollback_to_savepoint

    def commit(dbapi_connection: PoolProxiedConnection) -> None:
        state = dbapi_connection.info[STATE]
        if not state.is_quiet:
            before_commit(state)
        state.committing = True
        if longest_commit is not None:
            state.hang_up_at = monotonic() + longest_commit
            if watchdog.watchdog.is_idle:
                watchdog.watchdog.attend()
        try:
            do_commit(dbapi_connection)
            state.hang_up_at = None
        except BaseException as error:
            state.hang_up_at = None
            state.is_quiet = False
            # An interrupt that came while SQLite wrote is raised when it has: the file says what became of it.
            if isinstance(error, Exception) or backend.over_network or backend.in_transaction(state.dbapi_connection):
                raise
            state.count_commit()
            raise
        state.count_commit()

    def rollback(dbapi_connection: PoolProxiedConnection) -> None:
        try:
            state = dbapi_connection.info[STATE]
        except NotImplementedError:  # SQLAlchemy gets to know a new server, on a connection that is nobody's yet
            do_rollback(dbapi_connection)
            return
        if state.generation != process.generation:
            dbapi_connection.invalidate()  # a ROLLBACK from here would end the parent's transaction
            return
        state.failure = None
        state.uncertain = False
        state.committing = False
        do_rollback(dbapi_connection)

    def rollback_to_savepoint(connection: Connection, name: str) -> None:
        state = connection.info[STATE]
        if state.failure is not None and not backend.savepoint_heals(state.dbapi_connection):
            return  # the savepoint went with the transaction: asking for it would put another error before the first
        state.failure = None
        do_rollback_to_savepoint(connection, name)

    # In place of listeners to the engine's events, whose price `_guard_statements` tells.
    for method in (commit, rollback, rollback_to_savepoint):
        setattr(dialect, f"do_{method.__name__}", method)
