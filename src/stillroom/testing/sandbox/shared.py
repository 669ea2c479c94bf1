"""One real connection in one transaction that is never committed, and the logical transactions inside of it."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from stillroom.errors import ForkedConnection

from ..errors import SandboxError, SandboxTimeout
from ..leaks import Leak
from .actors import current_place
from .floor import Floor
from .statements import Statement, parse

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from collections.abc import Set as AbstractSet

    from .running import Runner
    from .servers import Server
    from .transactions import Transaction

R = TypeVar("R")
_FORKED = (
    "the transaction of the test on {name!r} was begun by the parent process, before the fork, and a connection cannot "
    'be used by two processes. Use isolation="committed" for tests that fork'
)
_ENDED = (
    "a statement has ended it, and may have committed it, such as a procedure with a COMMIT in it. Use "
    'isolation="clone" or isolation="committed" for this test'
)
_LOCK_NOT_AVAILABLE = "55P03"


def _set_again(name: str, value: str) -> str:
    quoted = value.replace("'", "''")
    return f"SELECT set_config('{name}', '{quoted}', true)"


class Shared:
    """
    The real connection, and the layers of those who have written and not ended.

    All methods that send something run inside an operation of the runner, one at a time.

    Args:
        name: The name of the database.
        timeout: How long a transaction that wants to write waits for another, in seconds.
        runner: Where operations run.
        dialect: "postgresql", "mysql" or "sqlite".
        open_server: Opens the real connection.
    """

    def __init__(
        self, name: str, timeout: float, runner: Runner, dialect: str, open_server: Callable[[], Server]
    ) -> None:
        self.name = name
        self.runner = runner
        self.dialect = dialect
        self.floor = Floor(name, timeout)
        self.open_server = open_server
        self.server: Server | None = None
        self.test = 0
        self.layers: list[Transaction] = []
        self.lost = ""
        self.spoiled = False
        self.process = os.getpid()
        self.is_alone = True
        self._levels: list[int] = []
        self._begun = 0
        self._changed_schema = False

    def __repr__(self) -> str:
        return f"<Shared {self.name!r}: {len(self._levels)} levels, {len(self.layers)} writing>"

    # --- tests

    def begin_test(self) -> None:
        """
        Begin a test, or a layer of data below tests; nothing is sent before something is needed.

        Raises:
            SandboxError: The layer below has a transaction that is not committed.
        """
        self.require_quiet()
        if not self._levels:
            self.lost = ""
        self.test += 1
        self._levels.append(self.test)

    def require_quiet(self) -> None:
        """
        Refuse to begin a test inside a transaction.

        Raises:
            SandboxError: One is open, and has written.
        """
        if self.layers:
            first = self.layers[0]
            raise SandboxError(
                f"a test on {self.name!r} cannot begin inside a transaction that is not committed: {first.actor} began "
                f"it at {first.place}. Commit it there"
            )

    def end_test(self, seconds: float) -> list[Leak]:
        """
        Undo everything since the innermost `begin_test`.

        Args:
            seconds: How long to wait for a statement that is running, twice.

        Returns:
            The transactions that had written and not ended.
        """
        if not self._levels:
            return []
        leaks = [
            Leak(self.name, f"{each.actor} has not ended a transaction that wrote", f"begun at {each.place}")
            for each in self.layers
            if not each.committed
        ]
        try:
            self.runner.try_run(self._undo_level, seconds)
        except TimeoutError:
            self._break_off(seconds)
            leaks.append(Leak(self.name, "a statement was still running", "it was broken off"))
        return leaks

    def _break_off(self, seconds: float) -> None:
        server = self.server
        try:
            if server is not None:
                server.hang_up()
            self.runner.try_run(self._undo_level, seconds)
        except Exception as error:  # noqa: BLE001  # the connection is given up, and the next test opens another
            self.server = None
            self._forget_level()
            self.lost = f"a statement did not end with the test ({error!r})"

    def _undo_level(self) -> None:
        level = len(self._levels)
        server = self.server
        try:
            if server is not None and self._begun >= level:
                if self.lost or server.is_lost(None):
                    self._give_up()
                elif level == 1:
                    server.roll_back(schema=self._changed_schema)
                    if getattr(server, "stale", False):
                        self._give_up()
                else:
                    server.roll_back_to(f"level_{level}", schema=self._changed_schema)
                    server.send(f"RELEASE SAVEPOINT level_{level}")
                if self._changed_schema:
                    server.schema_changed()
        except Exception:  # noqa: BLE001  # whatever it is, nothing of the test can survive the connection
            self._give_up()
            if level > 1:
                self.lost = self.lost or "the connection was lost"
        finally:
            self._forget_level()

    def _forget_level(self) -> None:
        self._levels.pop()
        self._begun = min(self._begun, len(self._levels))
        for each in self.layers:
            each.lost = "the test has ended"
            each.layered = False
        self.layers.clear()
        self.floor.clear()
        if not self._levels:
            self._changed_schema = False

    def _give_up(self) -> None:
        server, self.server = self.server, None
        self._begun = 0
        if server is not None:
            try:
                server.close()
            except Exception:  # noqa: BLE001  # it was broken
                return

    def close(self) -> None:
        """
        End the real connection.
        """
        while self._levels:
            self.end_test(1.0)
        if not self.is_foreign:
            self.runner.run(self._give_up)
            self.runner.close()

    # --- before a statement

    @property
    def is_foreign(self) -> bool:
        """
        Whether the connection is that of the parent process.
        """
        return self.process != os.getpid()

    def require_usable(self) -> None:
        """
        Refuse what cannot work.

        Raises:
            ForkedConnection: This is a forked child.
            SandboxError: No test is running, or its transaction is gone.
        """
        if self.is_foreign:
            raise ForkedConnection(_FORKED.format(name=self.name))
        if not self._levels:
            raise SandboxError(f"the database {self.name!r} was used while no test was running")
        if self.lost:
            raise SandboxError(f"everything that the test did in {self.name!r} is gone: {self.lost}")

    def real(self) -> Server:
        """
        Return the connection, open, for what needs no transaction.
        """
        self.require_usable()
        if self.server is not None and self.server.is_closed():
            if self._begun:
                self._lose("the connection was lost")
                self.require_usable()
            self._give_up()
        if self.server is None:
            server = self.open_server()
            server.prepare(self.floor.timeout)
            self.server = server
        return self.server

    def ready(self) -> Server:
        """
        Return the connection, with the transaction of the test begun.
        """
        server = self.real()
        if self._begun < len(self._levels):
            commands: list[str] = []
            for level in range(self._begun + 1, len(self._levels) + 1):
                commands.append(server.begin() if level == 1 else f"SAVEPOINT level_{level}")
                commands.append(f"SAVEPOINT test_{level}")
            server.send(*commands)
            self._begun = len(self._levels)
        return server

    @property
    def _ground(self) -> str:
        """
        The savepoint at which the innermost level stands while nobody writes.
        """
        return f"test_{len(self._levels)}"

    def parse(self, text: str) -> Statement:
        """
        Tell what a statement means.
        """
        return parse(text, self.dialect)

    # --- statements

    def may_write(self, statement: Statement) -> bool:
        """
        Say whether a statement may write, its functions included.
        """
        return statement.writes or (bool(statement.calls) and self.ready().may_write(statement))

    def write(self, transaction: Transaction, statement: Statement, call: Callable[[], R]) -> R:
        """
        Run a statement of a transaction that has its turn.
        """
        server = self.ready()
        self._require_mine(transaction)
        if not transaction.layered:
            self._add_layer(server, transaction)
        if statement.changes_schema:
            transaction.changes_schema = self._changed_schema = True
        if statement.configures:
            call = partial(self.configure, transaction, statement.configures, call)
        if self.layers[-1] is not transaction:
            return self._write_below(server, transaction, call)
        try:
            result = call()
        except BaseException as error:
            self._recover(server, error, transaction)
            raise
        finally:
            if statement.changes_schema:
                server.schema_changed()
        self._require_open(server)
        return result

    def _require_open(self, server: Server) -> None:
        """
        Refuse to go on where a statement has ended the transaction of the test.

        Raises:
            SandboxError: It has, such as a procedure in which there is a COMMIT.
        """
        if server.has_ended():
            self.spoiled = True
            self._lose(_ENDED)
            raise SandboxError(f"the transaction of the test on {self.name!r} is gone: {_ENDED}")

    def _write_below(self, server: Server, transaction: Transaction, call: Callable[[], R]) -> R:
        """
        Run a statement of an outer transaction while an inner one is open: it ends up in the savepoint of that.
        """
        for each in self.layers[self.layers.index(transaction) + 1 :]:
            each.mixed = True
        result = self.read(call, [], keep=True)
        self._require_open(server)
        return result

    def _add_layer(self, server: Server, transaction: Transaction) -> None:
        commands = []
        if self.layers:
            transaction.savepoint = f"inner_{transaction.number}"
            commands.append(f"SAVEPOINT {transaction.savepoint}")
        else:
            transaction.savepoint = self._ground
        for name in transaction.settings:
            self._note_setting(server, transaction, name)
        commands += transaction.settings.values()
        names = [(name, f"s_{transaction.number}_{index}") for index, (name, _) in enumerate(transaction.names)]
        commands += (f"SAVEPOINT {real}" for _, real in names)
        if commands:
            try:
                server.send(*commands)
            except BaseException as error:  # a setting has no such value
                self._recover(server, error, transaction)
                raise
        transaction.names[:] = names
        transaction.layered = True
        self.layers.append(transaction)

    def set_local(self, transaction: Transaction, name: str, command: str) -> None:
        """
        Send a SET LOCAL of a transaction that has written.
        """
        server = self.ready()
        self._require_mine(transaction)
        self._note_setting(server, transaction, name)
        try:
            server.send(command)
        except BaseException as error:
            self._recover(server, error, transaction)
            raise

    def _note_setting(self, server: Server, transaction: Transaction, name: str) -> None:
        if name not in transaction.before:
            ((value,),) = server.rows(f"select current_setting('{name}', true)")
            transaction.before[name] = value or ""

    def configure(self, transaction: Transaction, names: AbstractSet[str], call: Callable[[], R]) -> R:
        """
        Run a statement that may set something until the end of a transaction, and note what it has set.

        Args:
            transaction: The transaction.
            names: What it may set.
            call: Runs it.
        """
        server = self.ready()
        listed = ", ".join(f"('{name}')" for name in sorted(names))
        query = f"select name, coalesce(current_setting(name, true), '') from (values {listed}) as settings(name)"
        before = dict(server.rows(query))
        result = call()
        for name, value in server.rows(query):
            if value != before[name]:
                transaction.before.setdefault(name, before[name])
                transaction.settings[name] = _set_again(name, value)
        return result

    def _require_mine(self, transaction: Transaction) -> None:
        if transaction.lost:
            raise SandboxError(f"this transaction on {self.name!r} is gone: {transaction.lost}")

    def read(self, call: Callable[[], R], settings: Sequence[str], *, read_only: bool = False, keep: bool = False) -> R:
        """
        Run a statement that only reads, or that must not abort what others write.

        Args:
            call: Runs it.
            settings: SET LOCAL for it alone.
            read_only: Let the server refuse that it writes.
            keep: What it does stays.
        """
        server = self.ready()
        if not server.aborts:
            if not read_only:
                return self._watched(server, call)
            with server.read_only():
                return self._watched(server, call)
        if read_only:
            settings = (*settings, "SET LOCAL transaction_read_only = on")
        if not settings and not self.layers:
            try:
                return call()
            except BaseException as error:
                self._recover(server, error, None)
                raise
        kept = False
        try:
            server.send("SAVEPOINT guard", *settings)
            result = call()
            kept = keep or not settings
            return result
        finally:
            if server.is_lost(None):
                self._lose("the connection was lost")
            elif kept:
                server.send("RELEASE SAVEPOINT guard")
            else:
                server.send("ROLLBACK TO SAVEPOINT guard", "RELEASE SAVEPOINT guard")

    def without_idle_limits(self, call: Callable[[], R]) -> R:
        """
        Run a statement that sets a limit of idle transactions, which is not for that of the test.
        """
        result = call()
        self.ready().lift_idle_limits()
        return result

    def _watched(self, server: Server, call: Callable[[], R]) -> R:
        try:
            return call()
        except BaseException as error:
            self._recover(server, error, None)
            raise

    def _recover(self, server: Server, error: BaseException, transaction: Transaction | None) -> None:
        """
        Make the shared transaction usable again after an error, for whoever comes next.
        """
        if not self.is_alone and getattr(error, "sqlstate", None) == _LOCK_NOT_AVAILABLE:
            server.roll_back_to(self._point_of(transaction), schema=False)
            raise SandboxTimeout(
                f"on {self.name!r} the asynchronous engine goes over asyncpg, which has a connection and a transaction "
                "of its own; a statement waited for a row that the other transaction has written. Use one world in a "
                'test, or psycopg for both ("postgresql+psycopg://"), or isolation="committed"'
            ) from error
        if server.is_lost(error):
            self.spoiled = self.spoiled or server.has_ended()
            self._lose(f"the server gave it up, or the connection was lost ({type(error).__name__}: {error})")
        elif server.aborts and server.is_aborted(error):
            schema = transaction is not None and transaction.changes_schema
            try:
                server.roll_back_to(self._point_of(transaction), schema=schema)
            except Exception as another:  # noqa: BLE001  # the first one is raised, and says why
                self._lose(f"the connection was lost ({type(error).__name__}: {error}; {another})")

    def _point_of(self, transaction: Transaction | None) -> str:
        """
        Return the innermost savepoint of a transaction; for none, where the shared transaction stands.
        """
        if transaction is None:
            return self._ground
        real = [each for _, each in transaction.names if each is not None]
        return real[-1] if real else transaction.savepoint

    def _lose(self, why: str) -> None:
        self.lost = why
        for each in self.layers:
            each.lost = why
            each.layered = False
        self.layers.clear()
        self.floor.clear()

    # --- the end of a transaction

    def commit(self, transaction: Transaction) -> None:
        """
        Keep what a transaction wrote, as far as the test goes.

        Raises:
            Exception: The driver's error where a deferred constraint does not hold; the transaction is rolled back.
        """
        if not transaction.layered:
            self.floor.leave(transaction)
            return
        server = self.ready()
        self._require_mine(transaction)
        if self.layers[-1] is not transaction:
            transaction.committed = True
            return
        if transaction.before:
            # A local setting lasts until the end of the real transaction, so it is put back.
            # The role first, if it was set last: it may lack the right to the others.
            server.send(*(_set_again(name, value) for name, value in reversed(transaction.before.items())))
        if len(self.layers) > 1:
            server.send(f"RELEASE SAVEPOINT {transaction.savepoint}")
            self._remove(transaction)
            self._finish_committed(server)
        else:
            self._commit_outermost(server, transaction)

    def _commit_outermost(self, server: Server, transaction: Transaction) -> None:
        try:
            server.check_constraints(transaction.savepoint)
        except BaseException:
            if not server.is_lost(None):
                self.roll_back(transaction)
            raise
        server.send(*server.renew(transaction.savepoint))
        self._remove(transaction)

    def _finish_committed(self, server: Server) -> None:
        """
        End the outer transactions that were committed while an inner one was open.
        """
        while self.layers and self.layers[-1].committed:
            self.commit(self.layers[-1])

    def roll_back(self, transaction: Transaction) -> None:
        """
        Undo what a transaction wrote, and what others wrote inside of it.
        """
        if not transaction.layered:
            self.floor.leave(transaction)
            return
        server = self.ready()
        index = self.layers.index(transaction)
        server.roll_back_to(transaction.savepoint, schema=transaction.changes_schema)
        for each in reversed(self.layers[index + 1 :]):
            each.lost = (
                f"it took place inside of another one of {transaction.actor}, begun at {transaction.place}, which was "
                "rolled back first. In the sandbox transactions of one thread or task nest: end the inner one first, "
                'or use isolation="committed"'
            )
            self._remove(each)
        if transaction.mixed:
            for each in self.layers[:index]:
                each.lost = each.lost or (
                    f"it wrote while another one of {transaction.actor}, begun at {transaction.place}, was open inside "
                    'of it, and that was rolled back. End the inner one first, or use isolation="committed"'
                )
        if index:
            server.send(f"RELEASE SAVEPOINT {transaction.savepoint}")
        self._remove(transaction)
        self._finish_committed(server)

    def _remove(self, transaction: Transaction) -> None:
        self.layers.remove(transaction)
        transaction.layered = False
        self.floor.leave(transaction)

    # --- the application's savepoints

    def savepoint(self, transaction: Transaction, name: str) -> None:
        """
        Set one of the application's savepoints.
        """
        real = None
        if transaction.layered:
            self._require_mine(transaction)
            real = f"s_{transaction.number}_{len(transaction.names)}"
            self.ready().send(f"SAVEPOINT {real}")
        transaction.names.append((name, real))

    def release(self, transaction: Transaction, name: str) -> None:
        """
        Release one of the application's savepoints.
        """
        index = self._index(transaction, name)
        real = transaction.names[index][1]
        del transaction.names[index:]
        if real is not None:
            self._require_mine(transaction)
            self.ready().send(f"RELEASE SAVEPOINT {real}")

    def roll_back_to(self, transaction: Transaction, name: str) -> None:
        """
        Roll back to one of the application's savepoints, which stays.
        """
        index = self._index(transaction, name)
        real = transaction.names[index][1]
        del transaction.names[index + 1 :]
        if real is not None:
            self._require_mine(transaction)
            for each in reversed(self.layers[self.layers.index(transaction) + 1 :]):
                each.lost = f"{transaction.actor} rolled back to a savepoint outside of it"
                self._remove(each)
            self.ready().roll_back_to(real, schema=transaction.changes_schema)
        transaction.failed = False

    def _index(self, transaction: Transaction, name: str) -> int:
        for index in range(len(transaction.names) - 1, -1, -1):
            if transaction.names[index][0] == name:
                return index
        raise self.ready().no_savepoint(name)

    def note_place(self, transaction: Transaction) -> None:
        """
        Note where a transaction begins to write, or takes its turn.
        """
        transaction.place = current_place()
