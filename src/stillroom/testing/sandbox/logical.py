"""What one connection of the application does, in terms of the shared transaction."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy.util.concurrency import in_greenlet

from ..errors import SandboxError
from .actors import current_actor
from .floor import TaskWaiter, ThreadWaiter
from .running import run_for_task
from .servers import busy_snapshot
from .statements import configured
from .transactions import Transaction

if TYPE_CHECKING:
    from collections.abc import Callable

    from .shared import Shared
    from .statements import Statement

R = TypeVar("R")
_STALE = (
    "in the sandbox {actor} wants to write to {name!r} upon what it has read, and {other} has written since. Others "
    "went ahead, for this transaction had sent no statement for a while, as a test that waits for its application. "
    'Read again in a new transaction, or use isolation="committed" for this test: there BEGIN IMMEDIATE makes others '
    "wait"
)


class LogicalConnection:
    """
    The transactions of one stand-in.

    Args:
        shared: The real connection.
        read_only: Writes are refused, as on a reader's connection.
        is_async: It is used from asyncio tasks, inside SQLAlchemy's greenlets.

    Attributes:
        transaction: The one that is open; None outside of one.
    """

    def __init__(self, shared: Shared, *, read_only: bool, is_async: bool) -> None:
        self.shared = shared
        self.read_only = read_only
        self.is_async = is_async
        self.transaction: Transaction | None = None

    # --- running in the caller's world

    def run(self, operation: Callable[[], R], *, is_end: bool = False) -> R:
        """
        Run an operation on the real connection; a task's event loop goes on meanwhile.

        Args:
            operation: What to run.
            is_end: It ends a transaction, and is done also where its task is cancelled before its turn has come.
        """
        if self.is_async and in_greenlet():
            return run_for_task(self.shared.runner, operation, None if is_end else self._interrupt)
        return self.shared.runner.run(operation)

    def _interrupt(self) -> None:
        if self.shared.server is not None:
            self.shared.server.interrupt()

    def _enter(self, transaction: Transaction) -> None:
        """
        Wait for the turn to write.
        """
        self._require_fresh(transaction)
        self.shared.note_place(transaction)
        transaction.test = self.shared.test
        self.shared.floor.enter(transaction, self._new_waiter)
        try:
            self._require_fresh(transaction)
        except BaseException:
            transaction.admitted = False
            self.shared.floor.leave(transaction)
            raise

    @property
    def _new_waiter(self) -> type[TaskWaiter | ThreadWaiter]:
        return TaskWaiter if self.is_async and in_greenlet() else ThreadWaiter

    def _require_fresh(self, transaction: Transaction) -> None:
        """
        Refuse to write upon what is stale.

        Raises:
            sqlite3.OperationalError: Another one has written since this one read.
        """
        if transaction.stale:
            raise busy_snapshot(_STALE.format(actor=transaction.actor, name=self.shared.name, other=transaction.stale))

    def _take_turn(self, transaction: Transaction) -> None:
        """
        Wait for the turn at BEGIN IMMEDIATE, so that what is read does not change before it is written.
        """
        floor = self.shared.floor
        if floor.is_own(transaction.actor):
            return  # while the test itself waits for others, it would keep them waiting
        transaction.immediate = True
        self.shared.note_place(transaction)
        try:
            floor.enter(transaction, self._new_waiter, writes=False)
        except BaseException:
            self.transaction = None
            raise

    # --- state

    @property
    def in_transaction(self) -> bool:
        """
        Whether a transaction is open, as the application sees it.
        """
        return self.transaction is not None

    @property
    def status(self) -> int:
        """
        The state as libpq numbers it: 0 idle, 2 in a transaction, 3 in one that an error has aborted.
        """
        if self.transaction is None:
            return 0
        return 3 if self.transaction.failed else 2

    def open(self, *, read_only: bool = False) -> Transaction:
        """
        Begin a transaction.
        """
        if self.transaction is None:
            self.transaction = Transaction(current_actor(), self.shared.test, read_only=read_only)
        elif read_only:
            self.transaction.read_only = True
        return self.transaction

    def _require_current(self, transaction: Transaction) -> None:
        if transaction.lost:
            raise SandboxError(f"this transaction on {self.shared.name!r} is gone: {transaction.lost}")
        if transaction.test != self.shared.test and transaction.admitted:
            raise SandboxError(f"the test in which this transaction on {self.shared.name!r} was begun has ended")

    # --- statements

    def execute(self, text: str, call: Callable[[], Any], *, opens: bool, parameters: Any = ()) -> Any:
        """
        Run a statement, or do what it stands for.

        Args:
            text: The statement.
            call: Runs it on the real connection.
            opens: Outside of a transaction it begins one; else it commits by itself.
            parameters: Its parameters.

        Returns:
            What `call` returned; for a statement that is not sent, None, or a tuple with the value it answers with.
        """
        transaction = self.transaction
        if transaction is None or not transaction.immediate:
            return self._execute(text, call, parameters, opens=opens)
        transaction.actor = current_actor()  # the one that began it, such as a fixture's task, may have ended
        transaction.statements += 1
        try:
            return self._execute(text, call, parameters, opens=opens)
        finally:
            transaction.statements += 1

    def _execute(self, text: str, call: Callable[[], Any], parameters: Any, *, opens: bool) -> Any:
        shared = self.shared
        shared.require_usable()
        statement = shared.parse(text)
        if statement.action:
            return self._interpret(statement, opens=opens)
        if statement.refused:
            raise SandboxError(statement.refused)
        if statement.sets and "idle_" in text.lower():
            call = partial(shared.without_idle_limits, call)
        if "set_config" in statement.calls:
            statement = replace(statement, configures=configured(text, parameters))
        transaction = self.transaction
        if transaction is None and opens:
            transaction = self.open()
        if transaction is not None:
            self._require_current(transaction)
            if transaction.failed:
                shared.require_usable()
                raise self.run(lambda: shared.ready().failed())
        read_only = self.read_only or (transaction is not None and transaction.read_only)
        if read_only:
            return self._execute_read_only(statement, transaction, call)
        if transaction is not None and transaction.admitted:
            return self._write(transaction, statement, call)
        if not statement.writes and (not statement.calls or not self._may_write(statement)):
            return self._read(transaction, call)
        if transaction is None:
            return self._write_alone(statement, call)
        self._enter(transaction)
        return self._write(transaction, statement, call)

    def _may_write(self, statement: Statement) -> bool:
        server = self.shared.server
        known = self.shared.dialect == "sqlite" or (server is not None and server.knows(statement))
        if known:
            return False
        return self.run(lambda: self.shared.may_write(statement))

    def _execute_read_only(self, statement: Statement, transaction: Transaction | None, call: Callable[[], Any]) -> Any:
        shared = self.shared
        if statement.writes and shared.dialect == "mysql":
            raise self.run(lambda: shared.ready().read_only_error())
        guarded = statement.writes or statement.asks_read_only or (bool(statement.calls) and self._may_write(statement))
        settings = list(transaction.settings.values()) if transaction is not None else []
        if transaction is not None and statement.configures:
            call = partial(shared.configure, transaction, statement.configures, call)
        try:
            return self.run(partial(shared.read, call, settings, read_only=guarded))
        except Exception as error:
            self._note(transaction, error)
            raise

    def _read(self, transaction: Transaction | None, call: Callable[[], Any]) -> Any:
        if transaction is not None:
            transaction.has_read = True
        settings = list(transaction.settings.values()) if transaction is not None else []
        try:
            return self.run(partial(self.shared.read, call, settings))
        except Exception as error:
            self._note(transaction, error)
            raise

    def _write(self, transaction: Transaction, statement: Statement, call: Callable[[], Any]) -> Any:
        transaction.actor = current_actor()
        try:
            return self.run(partial(self.shared.write, transaction, statement, call))
        except Exception as error:
            self._note(transaction, error)
            raise

    def _note(self, transaction: Transaction | None, error: Exception) -> None:
        """
        Note that an error has aborted a transaction, where the server would say so.
        """
        server = self.shared.server
        if transaction is not None and server is not None and server.aborts and not isinstance(error, SandboxError):
            transaction.failed = transaction.failed or server.came_from_server(error)

    def _write_alone(self, statement: Statement, call: Callable[[], Any]) -> Any:
        """
        Run a statement that commits by itself.
        """
        shared = self.shared
        alone = Transaction(current_actor(), shared.test)
        self._enter(alone)

        def operation() -> Any:
            try:
                result = shared.write(alone, statement, call)
            except BaseException:
                shared.roll_back(alone)
                raise
            shared.commit(alone)
            return result

        try:
            return self.run(operation)
        finally:
            if not alone.layered:  # it was cancelled before its first step
                shared.floor.leave(alone)

    # --- what is not sent

    def _interpret(self, statement: Statement, *, opens: bool) -> Any:
        action, name = statement.action, statement.name
        if action == "begin":
            is_new = self.transaction is None
            transaction = self.open(read_only=name == "read only")
            if is_new and name == "immediate" and not self.read_only:
                self._take_turn(transaction)
        elif action == "commit":
            self.commit()
        elif action == "rollback":
            self.rollback()
        elif action == "read only":
            self.read_only = name == "on"
        elif action == "set local":
            self._set_local(statement, opens=opens)
        elif action == "ignore":
            return (int(self.read_only),) if statement.answers else None
        else:
            transaction = self.open()
            self._require_current(transaction)
            if transaction.failed and action == "savepoint":
                raise self.run(lambda: self.shared.ready().failed())
            work = {
                "savepoint": self.shared.savepoint,
                "release": self.shared.release,
                "rollback to": self.shared.roll_back_to,
            }[action]
            if transaction.layered or action != "savepoint":
                self.run(partial(work, transaction, name))
            else:
                transaction.names.append((name, None))
        return None

    def _set_local(self, statement: Statement, *, opens: bool) -> None:
        transaction = self.transaction
        if transaction is None and opens:
            transaction = self.open()
        if transaction is None:
            return  # outside of a transaction the server warns and does nothing
        if transaction.failed:
            raise self.run(lambda: self.shared.ready().failed())
        transaction.settings[statement.name] = statement.text
        if transaction.layered:
            self.run(partial(self.shared.set_local, transaction, statement.name, statement.text))

    # --- ends

    def commit(self) -> None:
        """
        Commit the transaction that is open, if one is.

        Raises:
            SandboxError: What it wrote is gone.
            Exception: The driver's error where a deferred constraint does not hold.
        """
        transaction, self.transaction = self.transaction, None
        if transaction is None:
            return
        if transaction.failed:
            self._end(self.shared.roll_back, transaction)
            return
        if transaction.admitted:
            self.shared.require_usable()
            try:
                self._require_current(transaction)
            except BaseException:
                self._end(self.shared.roll_back, transaction)
                raise
            self._end(self.shared.commit, transaction)
        elif transaction.immediate:
            self._leave(transaction)

    def rollback(self) -> None:
        """
        Roll back the transaction that is open, if one is.
        """
        transaction, self.transaction = self.transaction, None
        if transaction is None:
            return
        if transaction.admitted:
            self._end(self.shared.roll_back, transaction)
        elif transaction.immediate:
            self._leave(transaction)

    def _leave(self, transaction: Transaction) -> None:
        """
        End a transaction that has only read.
        """
        if not self.shared.is_foreign:
            self.shared.floor.leave(transaction)

    def _end(self, how: Callable[[Transaction], None], transaction: Transaction) -> None:
        shared = self.shared
        if shared.is_foreign:
            return  # a forked child: the transaction is the parent's, to end as it likes
        if not transaction.layered:
            shared.floor.leave(transaction)
            return
        if shared.runner.is_inside:
            # The garbage collector has broken into an operation: this is done at its end.
            shared.runner.adopt(partial(_end_quietly, how, transaction))
            return
        self.run(partial(how, transaction), is_end=True)


def _end_quietly(how: Callable[[Transaction], None], transaction: Transaction) -> None:
    if transaction.layered:
        how(transaction)
