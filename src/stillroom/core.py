"""The rules of a unit of work, which the synchronous and the asynchronous facade drive alike."""

from __future__ import annotations

import logging
import time
from functools import partial
from threading import get_ident
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal

from . import ending, watchdog
from .errors import (
    ConcurrentUseError,
    ForkedConnection,
    HookError,
    PropagationError,
    TransactionAborted,
    UnitOfWorkEnded,
    UnitOfWorkTimeout,
    UnknownDatabase,
)
from .forking import process
from .hooks import Hooks, open_savepoints
from .status import Status, UnitOptions

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from sqlalchemy.orm import SessionTransaction

    from .backends import Backend
    from .database import Database
    from .declared import Declared
    from .sessions import UnitSession
    from .status import SessionRole

logger = logging.getLogger("stillroom")

_PARENT_S = (
    "this unit of work was begun by the parent process, before the fork, and is the parent's to end. Open a new unit "
    "of work in this process: `with dbs.unit_of_work() as uow:`"
)


class UnitCore:
    """
    What a unit of work knows and decides.

    It sends every statement through a Session, so it runs unchanged inside SQLAlchemy's greenlets for asyncio.

    Args:
        declared: The databases that it may use.
        options: How it behaves.
        facade: What the user holds: a `UnitOfWork` or an `AsyncUnitOfWork`.

    Attributes:
        status: How it stands; after the end, how it ended.
        info: Goes into `session.info` of each session.
        sessions: The open sessions, by database and role ("snapshot" is a reader's), in the order of opening.
        savepoints: The open savepoints of the whole unit, the innermost last.
        doomed: Why the end will be a rollback, if it will.
        spoiled: The error that doomed it, where that was not the application's wish.
        deadline: The moment (`time.monotonic`, seconds) at which the body must have ended; None for no limit.
        has_logger: Some of the sessions are loggers.
        ender: In asyncio, the greenlet that ends the unit; only it may use the sessions from then on.
        commit_timed_out: The end took longer than `commit_timeout` and was cancelled.
    """

    is_async = False

    # How every unit of work begins; an instance gets its own when that changes.
    status = Status.NEW
    has_logger = False
    doomed: str | None = None
    deadline: float | None = None
    spoiled: BaseException | None = None
    ender: Any = None
    commit_timed_out = False
    generation = 0
    _used: tuple[tuple[str, str], ...] = ()
    _ended_at: float | None = None
    _ended_by: type[BaseException] | None = None

    def __init__(self, declared: Declared, options: UnitOptions, facade: object) -> None:
        self.declared = declared
        self.options = options
        self.hooks = Hooks()
        self.info: dict[str, Any] = {"unit_of_work": facade}
        if options.info:
            self.info.update(options.info)
        self.sessions: dict[tuple[str, str], UnitSession] = {}
        self.savepoints: list[Savepoint] = []

    # --- what differs between the two worlds

    def who(self) -> Any:
        """
        Return who runs now, for overlapping use: the thread, or in asyncio the task.
        """
        return get_ident()

    def sleep(self, seconds: float) -> None:
        """
        Wait, without blocking an event loop.
        """
        time.sleep(seconds)

    def bound(self, backend: Backend, dbapi_connection: Any, seconds: float) -> AbstractContextManager[None]:
        """
        Hang up on the server if the block takes longer than `seconds`.
        """
        return watchdog.Limit(partial(backend.socket, dbapi_connection), seconds)

    def open(self, database: Database, role: str, *, snapshot: bool) -> UnitSession:
        """
        Open a session.
        """
        return database.open_session(self, role, snapshot=snapshot)

    # --- from start to end

    def start(self) -> None:
        """
        Become active, once.

        Raises:
            UnitOfWorkEnded: It was used before.
        """
        if self.status is not Status.NEW:
            raise UnitOfWorkEnded(f"{self.story()}; it is used once. Make another: dbs.unit_of_work()")
        self.status = Status.ACTIVE
        self.generation = process.generation
        if self.options.timeout is not None:
            self.deadline = monotonic() + self.options.timeout
        self.declared.open_units.add(id(self))

    @property
    def is_foreign(self) -> bool:
        """
        Whether the parent process began it, before a fork.
        """
        return self.generation != process.generation and self.status is not Status.NEW

    @property
    def has_ended(self) -> bool:
        return self._ended_at is not None

    def end(self, error: BaseException | None) -> None:
        """
        Commit or roll back, and close; the callbacks are left to the caller.

        Args:
            error: The exception that left the body; None if there was none.
        """
        if self.generation != process.generation:
            self._leave_to_parent(error)
            return
        late = self._refusal() if error is None and (self.deadline is not None or self.spoiled is not None) else None
        failure = error
        try:
            if self.status is Status.ACTIVE:
                ending.end(self, late or error)
            else:
                ending.close_all(self)  # a commit by hand has failed
            if late is not None:
                raise late
        except BaseException as raised:
            failure = raised
            raise
        finally:
            self.let_go()
            self.declared.open_units.discard(id(self))
            self._ended_at = time.time()
            if failure is not None:
                self._ended_by = type(failure)
                if self.status is not Status.ROLLED_BACK:
                    failure.__dict__["stillroom_retry"] = False  # something is durable, or may be

    def _refusal(self) -> Exception | None:
        """
        Return why a body that ended well is rolled back all the same, if it is.
        """
        if self.spoiled is None:
            return self.late()
        refusal = TransactionAborted(
            f"the unit of work cannot be committed: {self.doomed}, and the error was swallowed; it is rolled back"
        )
        refusal.__cause__ = self.spoiled
        return refusal

    def spoil(self, reason: str, error: BaseException) -> None:
        """
        Doom the unit of work for what went wrong in it: its end says so, even if `error` is swallowed.
        """
        self.doomed, self.spoiled = reason, error

    def let_go(self) -> None:
        """
        Drop the sessions, so that they are freed at once and not by the garbage collector.
        """
        for session in self.sessions.values():
            session.retire()
        self._used = tuple(self.sessions)
        self.sessions = {}
        self.info.pop("unit_of_work", None)

    def _leave_to_parent(self, error: BaseException | None) -> None:
        """
        In a forked child: drop a unit of work that the parent began, without a word to a server and without callbacks.

        Raises:
            ForkedConnection: The body ended well, which must not look as if it had been committed.
        """
        self.declared.open_units.discard(id(self))
        self.hooks = Hooks()
        self.status = Status.ROLLED_BACK
        self._ended_at = time.time()
        self._ended_by = type(error) if error is not None else None
        for session in self.sessions.values():
            ending.discard(session)
        if error is None:
            raise ForkedConnection(f"{_PARENT_S}; nothing was committed here")

    def late(self) -> UnitOfWorkTimeout | None:
        """
        Return the error that says that the body took too long, if it did.
        """
        if self.deadline is None or monotonic() <= self.deadline:
            return None
        return self.timeout_error()

    def timeout_error(self) -> UnitOfWorkTimeout:
        return UnitOfWorkTimeout(
            f"the unit of work took longer than its limit of {self.options.timeout:g} s; it is rolled back"
        )

    def require_active(self) -> None:
        """
        Refuse to go on unless entered and not ended.

        Raises:
            UnitOfWorkEnded: It has ended; the message says when and how.
            ForkedConnection: The parent process began it, before the fork.
        """
        if self.is_foreign:
            raise ForkedConnection(_PARENT_S)
        if self.status is not Status.ACTIVE:
            block = "async with dbs.async_unit_of_work()" if self.is_async else "with dbs.unit_of_work()"
            remedy = "enter it" if self.status is Status.NEW else "make another"
            raise UnitOfWorkEnded(f"{self.story()}; {remedy}: `{block} as uow:`")

    def require_manual(self) -> None:
        """
        Refuse to be committed by hand unless that was asked for.
        """
        self.require_active()
        if self.options.commit != "manual":
            raise RuntimeError(
                "this unit of work commits by itself at its end; to commit by hand open it with "
                "dbs.unit_of_work(commit='manual')"
            )
        if self.doomed is not None:
            raise RuntimeError(f"this unit of work is doomed ({self.doomed}): it can only be rolled back")

    def forget(self) -> None:
        """
        Be no longer counted as open: the user dropped it without an end.
        """
        self.declared.open_units.discard(id(self))

    def story(self) -> str:
        """
        Tell how it stands, and when and why it ended.
        """
        if self.status is Status.NEW:
            return "this unit of work was not entered"
        if self._ended_at is None:
            return f"this unit of work is {self.status.value}"
        moment = time.strftime("%H:%M:%S", time.localtime(self._ended_at))
        cause = f", because of {self._ended_by.__name__}" if self._ended_by is not None else ""
        if self.doomed is not None and self._ended_by is None:
            cause = f", doomed: {self.doomed}"
        return f"this unit of work cannot be used any more: it ended at {moment}: {self.status.value}{cause}"

    def commit_open(self) -> None:
        """
        Commit the open transactions, and stay active.
        """
        deadline = self.deadline
        try:
            ending.commit(self)
        except BaseException:
            ending.close(self)
            for session in self.sessions.values():
                if session.role != "logger":
                    session.retire()
            raise
        self.deadline = deadline
        self.status = Status.ACTIVE

    def roll_back_open(self) -> None:
        """
        Roll back the open transactions, and stay active.
        """
        ending.roll_back(self)

    def doom(self, reason: str) -> None:
        self.require_active()
        self.doomed = reason

    # --- sessions

    def session(self, name: str | None, role: SessionRole | None, *, snapshot: bool = False) -> UnitSession:
        """
        Return a session, opened now if it was not; see `UnitOfWork.session`.
        """
        if self.status is not Status.ACTIVE or self.generation != process.generation:
            self.require_active()
        if name is None:
            name = self.declared.default
        database = self.declared.databases.get(name) or self.declared.database(name)
        if role is None:
            role = "reader" if snapshot else database.settings.role
        role = self._resolve(name, role) if role is not None or self.options.read_only else "writer"
        if snapshot and role != "reader":
            raise ValueError(f"snapshot=True with the {role} of {name!r}: only a reader has one; leave the role out")
        key = (name, "snapshot" if snapshot else role)
        session = self.sessions.get(key)
        if session is None:
            session = self.sessions[key] = self.open(database, role, snapshot=snapshot)
            if role == "logger":
                self.has_logger = True
            for savepoint in self.savepoints:
                savepoint.include(session)
        return session

    def _resolve(self, name: str, role: SessionRole | None) -> Literal["writer", "reader", "logger"]:
        if role == "any":
            return "writer" if (name, "writer") in self.sessions else "reader"
        if role not in (None, "writer", "reader", "logger"):
            raise ValueError(f"role={role!r}: it is 'writer', 'reader', 'logger' or 'any'")
        if self.options.read_only:
            if role == "writer":
                raise PropagationError(
                    f"this unit of work is read only, and a writer on {name!r} was asked for. Open the unit of work "
                    "without read_only=True, or write in a unit of its own: dbs.transaction(propagation='new')"
                )
            return role or "reader"
        return role or "writer"

    def logger_session(self) -> UnitSession:
        """
        Return the session on the database that is declared as logger.

        Raises:
            UnknownDatabase: There is none.
        """
        name = self.declared.logger
        if name is None:
            raise UnknownDatabase(
                'no database is declared as logger: give one `role = "logger"` in the settings, '
                "or name one: uow.session('main', role='logger')"
            )
        return self.session(name, "logger")

    def __repr__(self) -> str:
        sessions = ", ".join(f"{name}:{role}" for name, role in self.sessions or self._used)
        facade = "AsyncUnitOfWork" if self.is_async else "UnitOfWork"
        return f"<{facade} {self.status.value}{f' ({sessions})' if sessions else ''}>"

    # --- savepoints and callbacks

    def require_own_savepoint(self) -> None:
        """
        Refuse to go on inside of a savepoint that another task has opened after one's own: it may roll both back.

        Raises:
            ConcurrentUseError: Another task has.
        """
        me = self.who()
        if self.savepoints[-1].owner is not me and any(each.owner is me for each in self.savepoints):
            raise _savepoint_overlap()

    def savepoint(self, names: tuple[str, ...]) -> Savepoint:
        self.require_active()
        for name in names:
            self.declared.database(name)
        return Savepoint(self, names)

    def on_commit(self, callback: Callable[[], Any]) -> None:
        self.require_active()
        self.hooks.on_commit(callback, self._open_savepoints())

    def on_rollback(self, callback: Callable[[], Any]) -> None:
        self.require_active()
        self.hooks.on_rollback(callback, self._open_savepoints())

    def _open_savepoints(self) -> tuple[object, ...]:
        return (*self.savepoints, *open_savepoints(self.sessions.values()))

    def due_callbacks(self) -> list[Callable[[], Any]]:
        """
        Return the callbacks that are due after the end.
        """
        # Partly committed, or unknown: neither is true.
        if not self.hooks.registered:
            return []
        decided = self.status in (Status.COMMITTED, Status.ROLLED_BACK)
        return self.hooks.take(committed=self.status is Status.COMMITTED if decided else None)

    def report(self, failures: list[Exception], error: BaseException | None) -> None:
        """
        Raise what the callbacks raised, unless another error is on its way: then note it there.

        Raises:
            HookError: At least one callback failed.
        """
        if not failures:
            return
        if error is None:
            raise HookError(f"{self.status.value}, but {len(failures)} callback(s) failed after that", failures)
        for failure in failures:
            error.add_note(f"stillroom: a callback failed after the end ({self.status.value}): {failure!r}")
            logger.error("a callback failed after the end", exc_info=failure)


def _savepoint_overlap() -> ConcurrentUseError:
    """
    Make the error for savepoints that do not nest.
    """
    return ConcurrentUseError(
        "savepoints of one unit of work were open at the same time in two tasks or threads, and savepoints nest: what "
        "one rolls back is the other's too. Give each a unit of its own: `async with dbs.async_unit_of_work() as uow`, "
        "or `with dbs.unit_of_work() as uow`"
    )


class Savepoint:
    """
    A block inside a unit of work that can be rolled back alone; see `UnitOfWork.savepoint`.

    Args:
        unit: The unit of work.
        names: The databases; empty for all.
    """

    def __init__(self, unit: UnitCore, names: tuple[str, ...]) -> None:
        self.unit = unit
        self.names = names
        self.owner = unit.who()
        self.nested: list[SessionTransaction] = []

    def include(self, session: UnitSession) -> None:
        """
        Open the savepoint on a session too.
        """
        if session.role == "writer" and (not self.names or session.database_name in self.names):
            session.require_quiet()  # SAVEPOINT is sent late; another task's statement would end up inside
            self.nested.append(session.begin_nested())

    def begin(self) -> None:
        """
        Open it on every session.
        """
        for session in list(self.unit.sessions.values()):
            self.include(session)
        self.unit.savepoints.append(self)

    def end(self, error: BaseException | None) -> None:
        """
        Release it, or roll back to it after an error.
        """
        innermost = self.unit.savepoints[-1] is self
        self.unit.savepoints.remove(self)
        if not innermost:
            overlap = _savepoint_overlap()
            self.unit.spoil("savepoints were open at the same time in two tasks or threads", overlap)
            if error is None or isinstance(error, Exception):
                raise overlap from error
            error.add_note(f"stillroom: {overlap}")
            return
        if error is None:
            try:
                for nested in self._open():
                    nested.commit()  # after a swallowed error it raises, rather than pass for a success
            except BaseException:
                self._roll_back()
                raise
            return
        try:
            self._roll_back()
        except Exception as failure:
            error.add_note(f"stillroom: the savepoint could not be rolled back either: {failure!r}")
            logger.warning("a savepoint could not be rolled back", exc_info=failure)

    def _roll_back(self) -> None:
        self.unit.hooks.savepoint_rolled_back(self)
        failure: BaseException | None = None
        for nested in self._open():
            try:
                nested.rollback()
            except BaseException as error:  # noqa: BLE001  # raised when every session was rolled back
                failure = failure or error
        if failure is not None:
            self.unit.spoil("a savepoint could not be rolled back", failure)
            raise failure

    def _open(self) -> list[SessionTransaction]:
        # Not those that the user has ended by hand. A failed flush has not ended its savepoint, though it is not
        # active any more.
        still_open = open_savepoints(self.unit.sessions.values())
        return [nested for nested in reversed(self.nested) if any(nested is each for each in still_open)]
