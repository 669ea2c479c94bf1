"""The unit of work: at most one session for each database and role, opened on first use, ended once and together."""

from __future__ import annotations

import contextlib
import warnings
from typing import TYPE_CHECKING, Any

from sqlalchemy.orm import Session

from . import context
from .core import UnitCore
from .status import NO_OPTIONS, Status, UnitOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType
    from typing import Self

    from .declared import Declared
    from .status import SessionRole


def missing_attribute(core: UnitCore | None, name: str) -> AttributeError:
    """
    Make the error for an attribute that a unit of work does not have.
    """
    declared = list(core.declared) if core is not None else []
    known = ", ".join(map(repr, declared)) or "none"
    remedy = f"; a session has it: uow.{declared[0]}.{name}" if declared and hasattr(Session, name) else ""
    return AttributeError(f"a unit of work has no attribute {name!r}; its databases are {known}{remedy}")


def dropped(unit: Any) -> None:
    """
    Warn that a unit of work, of either kind, was never ended; its `__del__`.
    """
    core = unit.__dict__.get("core")
    if core is None or core.status is not Status.ACTIVE:
        return
    core.forget()
    if core.sessions and not core.is_foreign:
        warnings.warn(f"{unit!r} was never ended; what it wrote is lost", ResourceWarning, stacklevel=2)


class UnitOfWork:
    """
    One request, task, script run or test, over all databases of the application.

    Made by `Databases.unit_of_work()` and used once, as a context manager::

        with dbs.unit_of_work() as uow:
            uow.main.add(user)
            uow.audit.add(event)

    Each declared database is an attribute: a plain `sqlalchemy.orm.Session`, opened on first use. At the end of the
    block everything that was written is committed; after an exception, or where `doom` was called, all of it is
    rolled back.

    Attributes:
        core: The rules, and what they know.
    """

    outer: context.Unit | None = None
    in_threads: Callable[[], context.Unit] | None = None

    def __init__(self, declared: Declared, options: UnitOptions = NO_OPTIONS) -> None:
        self.core = UnitCore(declared, options, self)

    @property
    def status(self) -> Status:
        """
        How it stands; after the end, how it ended.
        """
        return self.core.status

    @property
    def options(self) -> UnitOptions:
        """
        How it behaves.
        """
        return self.core.options

    @property
    def info(self) -> dict[str, Any]:
        """
        What `session.info` of each of its sessions holds.
        """
        return self.core.info

    @property
    def databases(self) -> Any:
        """
        The `Databases` that it belongs to.
        """
        return self.core.declared.owner

    @property
    def is_active(self) -> bool:
        """
        Whether it is entered and has not ended.
        """
        return self.core.status is Status.ACTIVE

    def __enter__(self) -> Self:
        self.core.start()
        context.enter(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        core = self.core
        failure = error
        for name, _ in core.sessions:
            self.__dict__.pop(name, None)
        try:
            core.end(error)
        except BaseException as raised:
            failure = raised
            raise
        finally:
            context.leave(self)
            if core.hooks.registered:
                self._call(core.due_callbacks(), failure)

    def _forget_sessions(self) -> None:
        for name, _ in self.core.sessions:
            self.__dict__.pop(name, None)

    def _call(self, callbacks: list[Callable[[], Any]], error: BaseException | None = None) -> None:
        failures = []
        for callback in callbacks:
            try:
                callback()
            except Exception as failure:  # noqa: BLE001  # reported together, after all have run
                failures.append(failure)
        self.core.report(failures, error)

    __del__ = dropped

    def __repr__(self) -> str:
        return repr(self.core)

    # --- sessions

    def __getattr__(self, name: str) -> Session:
        core = self.__dict__.get("core")
        if core is not None and name in core.declared.databases:
            session: Session = core.session(name, None)
            self.__dict__[name] = session  # later uses cost nothing
            return session
        raise missing_attribute(core, name)

    def session(self, name: str | None = None, *, role: SessionRole | None = None, snapshot: bool = False) -> Session:
        """
        Return the session on a database, opened now if it was not.

        Args:
            name: The database; None for the default one.
            role: "writer", "reader", "logger", or "any": the writer if it is open, else the reader. None for the
                role that the settings give the database, and in a read-only unit "reader".
            snapshot: For a reader: all of its statements see one state.

        Raises:
            UnknownDatabase: There is no such database.
            UnitOfWorkEnded: The unit of work has ended, or was not entered.
            PropagationError: A writer is asked for in a unit of work that is read only.
        """
        return self.core.session(name, role, snapshot=snapshot)

    @property
    def writer(self) -> Session:
        """
        The session that writes to the default database.
        """
        return self.core.session(None, "writer")

    @property
    def reader(self) -> Session:
        """
        A session that reads the default database: on a replica if there is one, and never able to write.
        """
        return self.core.session(None, "reader")

    @property
    def any(self) -> Session:
        """
        The writer of the default database if it is open, else the reader.
        """
        return self.core.session(None, "any")

    @property
    def logger(self) -> Session:
        """
        The session whose writes are committed even when the unit is rolled back.

        Raises:
            UnknownDatabase: No database is declared with `role = "logger"`.
        """
        return self.core.logger_session()

    # --- ending by hand

    def commit(self) -> None:
        """
        Commit everything written so far (`commit="manual"`), and go on in new transactions.

        The callbacks of `on_commit` run now. What is written after the last `commit()` is rolled back at the end.

        Raises:
            RuntimeError: The unit of work commits by itself.
        """
        self.core.require_manual()
        try:
            self.core.commit_open()
        except BaseException:
            self._forget_sessions()
            raise
        self._call(self.core.hooks.take(committed=True))

    def rollback(self) -> None:
        """
        Roll back everything written since the start, or since the last `commit()`, and go on in new transactions.

        The callbacks of `on_commit` are dropped, those of `on_rollback` run now.
        """
        self.core.require_active()
        self.core.roll_back_open()
        self._call(self.core.hooks.take(committed=False))

    def doom(self, reason: str = "the application asked for it") -> None:
        """
        Make the end a rollback, although no exception leaves the block.

        Args:
            reason: Kept for messages.
        """
        self.core.doom(reason)

    # --- savepoints and callbacks

    @contextlib.contextmanager
    def _savepoint(self, names: tuple[str, ...]) -> Iterator[None]:
        savepoint = self.core.savepoint(names)
        savepoint.begin()
        try:
            yield
        except BaseException as error:
            savepoint.end(error)
            raise
        savepoint.end(None)

    def savepoint(self, *names: str) -> contextlib.AbstractContextManager[None]:
        """
        Nest: what is written inside the block can be rolled back alone.

        An exception that leaves the block rolls it back and goes on upwards; catch it outside the block.

        Args:
            *names: The databases; none for all that the unit of work uses, those opened inside the block included.
        """
        self.core.require_active()
        return self._savepoint(names)

    def on_commit(self, callback: Callable[[], Any]) -> None:
        """
        Call `callback()` when everything is durable, in the order of registration.

        Dropped if the unit of work, or the savepoint open now, is rolled back. It runs after the end: it may open a
        unit of work of its own. Its errors are raised together, after all callbacks ran.
        """
        self.core.on_commit(callback)

    def on_rollback(self, callback: Callable[[], Any]) -> None:
        """
        Call `callback()` after the end, if the unit of work, or the savepoint open now, was rolled back.
        """
        self.core.on_rollback(callback)
