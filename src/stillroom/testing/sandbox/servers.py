"""What differs between the servers under a sandbox: how the shared transaction is begun, kept whole, and undone."""

from __future__ import annotations

import contextlib
import sqlite3
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .statements import Statement

_STATUS_IN_TRANSACTION = 1
"""SERVER_STATUS_IN_TRANS of MariaDB's protocol."""
_ROLLED_BACK = {1213, 1613, 1614}
"""MariaDB's errors after which the whole transaction is gone."""


class Server:
    """
    The shared connection, as a synchronous driver has it.

    Attributes:
        connection: The driver's connection.
        aborts: An error makes the rest of the transaction impossible, until it is rolled back.
        refuses_writes: The server cannot refuse the writes of a reader here, so we do.
    """

    aborts = False
    refuses_writes = False

    def __init__(self, connection: Any) -> None:
        self.connection = connection

    def prepare(self, timeout: float) -> None:
        """
        Make the connection fit to be shared, outside of a transaction.

        Args:
            timeout: How long a statement waits for a lock of others, in seconds, where nothing else is set.
        """

    def lift_idle_limits(self) -> None:
        """
        Let the transaction be idle: that of a test is, for as long as nobody asks anything.
        """

    def begin(self) -> str:
        """
        Return what begins the transaction that is never committed.
        """
        return "BEGIN"

    def send(self, *commands: str) -> None:
        """
        Send commands, together where the driver can.
        """
        cursor = self.connection.cursor()
        for command in commands:
            cursor.execute(command)
        cursor.close()

    def renew(self, name: str) -> tuple[str, ...]:
        """
        Return what moves a savepoint to where the transaction stands now.
        """
        return (f"RELEASE SAVEPOINT {name}", f"SAVEPOINT {name}")

    def rows(self, query: str) -> list[Any]:
        """
        Ask something.
        """
        cursor = self.connection.cursor()
        try:
            cursor.execute(query)
            return list(cursor.fetchall())
        finally:
            cursor.close()

    def is_aborted(self, error: BaseException) -> bool:
        """
        Say whether `error` has aborted the transaction, so that it must be rolled back to a savepoint.
        """
        return False

    def is_lost(self, error: BaseException | None) -> bool:
        """
        Say whether the shared transaction is gone, after an error.
        """
        return False

    def has_ended(self) -> bool:
        """
        Say whether the shared transaction was ended by a statement, and perhaps committed.
        """
        return False

    def is_closed(self) -> bool:
        """
        Say whether the connection is known to be of no use any more.
        """
        return False

    def check_constraints(self, savepoint: str) -> None:
        """
        Check what is deferred to a COMMIT, and raise the driver's error if it does not hold.
        """

    def schema_changed(self) -> None:
        """
        Forget what was known of the schema.
        """

    def may_write(self, statement: Statement) -> bool:
        """
        Say whether a statement that reads calls functions that may write.
        """
        return False

    def knows(self, statement: Statement) -> bool:
        """
        Say whether it is known without asking the server that `may_write` is false.
        """
        return False

    def came_from_server(self, error: BaseException) -> bool:
        """
        Say whether the server raised an error, and not the driver before anything was sent.
        """
        return True

    def read_only_error(self) -> BaseException:
        """
        Make the server's own error for a write in a transaction that is read only.
        """
        raise NotImplementedError

    @contextlib.contextmanager
    def read_only(self) -> Iterator[None]:
        """
        Refuse writes in the block.
        """
        yield

    def interrupt(self) -> None:
        """
        End the running statement, if there is a way that leaves the transaction whole.
        """

    def hang_up(self) -> None:
        """
        End the running statement, whatever becomes of the transaction.
        """
        self.connection.close()

    def failed(self) -> BaseException:
        """
        Make the error of a statement in a transaction that an earlier error has aborted.
        """
        raise NotImplementedError

    def no_savepoint(self, name: str) -> BaseException:
        """
        Make the error of naming a savepoint that is not there.
        """
        raise NotImplementedError

    def roll_back_to(self, savepoint: str, *, schema: bool) -> None:
        """
        Undo everything since a savepoint, the schema's changes among it or not.
        """
        self.send(f"ROLLBACK TO SAVEPOINT {savepoint}")

    def roll_back(self, *, schema: bool) -> None:
        """
        Undo everything.
        """
        self.send("ROLLBACK")

    def close(self) -> None:
        """
        End the connection.
        """
        self.connection.close()


def busy_snapshot(why: str) -> sqlite3.OperationalError:
    """
    Make the error of SQLite's for a transaction that writes after another one has changed what it read.
    """
    error = sqlite3.OperationalError(f"database is locked: {why}")
    error.sqlite_errorcode = sqlite3.SQLITE_BUSY_SNAPSHOT
    error.sqlite_errorname = "SQLITE_BUSY_SNAPSHOT"
    return error


class SQLiteServer(Server):
    """
    An SQLite connection.
    """

    def __init__(self, connection: Any) -> None:
        super().__init__(connection)
        self._deferrable: bool | None = None

    def prepare(self, timeout: float) -> None:
        self.connection.isolation_level = None
        # Nothing is ever committed, so nothing need be safe against a power failure.
        for pragma in ("busy_timeout=5000", "foreign_keys=ON", "synchronous=OFF"):
            self.connection.execute(f"PRAGMA {pragma}")

    def begin(self) -> str:
        return "BEGIN IMMEDIATE"

    def send(self, *commands: str) -> None:
        for command in commands:
            self.connection.execute(command)

    def is_lost(self, error: BaseException | None) -> bool:
        try:
            return not self.connection.in_transaction
        except sqlite3.ProgrammingError:  # closed
            return True

    def has_ended(self) -> bool:
        return not self.connection.in_transaction

    def check_constraints(self, savepoint: str) -> None:
        if self._deferrable is None:
            tables = self.rows("SELECT upper(sql) FROM sqlite_master WHERE type = 'table'")
            self._deferrable = any("DEFERRABLE" in (row[0] or "") for row in tables)
        if not self._deferrable and not self.connection.execute("PRAGMA defer_foreign_keys").fetchone()[0]:
            return
        if self.connection.execute("PRAGMA foreign_key_check").fetchone() is not None:
            error = sqlite3.IntegrityError("FOREIGN KEY constraint failed")
            error.sqlite_errorcode = sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY
            error.sqlite_errorname = "SQLITE_CONSTRAINT_FOREIGNKEY"
            raise error

    def schema_changed(self) -> None:
        self._deferrable = None

    @contextlib.contextmanager
    def read_only(self) -> Iterator[None]:
        self.connection.execute("PRAGMA query_only=ON")
        try:
            yield
        finally:
            self.connection.execute("PRAGMA query_only=OFF")

    def hang_up(self) -> None:
        self.connection.interrupt()

    def no_savepoint(self, name: str) -> BaseException:
        error = sqlite3.OperationalError(f"no such savepoint: {name}")
        error.sqlite_errorcode = 1
        error.sqlite_errorname = "SQLITE_ERROR"
        return error


class MySQLServer(Server):
    """
    A connection to MariaDB or MySQL.

    Args:
        connection: The driver's connection.
        errors: Where the driver's error classes are.
    """

    refuses_writes = True

    def __init__(self, connection: Any, errors: Any) -> None:
        super().__init__(connection)
        self.errors = errors
        self._writing: frozenset[str] | None = None

    def prepare(self, timeout: float) -> None:
        self.connection.autocommit(True)  # noqa: FBT003  # the driver's signature
        self.lift_idle_limits()

    def lift_idle_limits(self) -> None:
        found = self.rows("SHOW SESSION VARIABLES LIKE 'idle%transaction_timeout'")
        if found:  # MySQL has none
            self.send("SET SESSION " + ", ".join(f"{name} = 0" for name, _ in found))

    def is_closed(self) -> bool:
        return not getattr(self.connection, "open", True)

    def begin(self) -> str:
        return "START TRANSACTION READ WRITE"

    def send(self, *commands: str) -> None:
        query = getattr(self.connection, "query", None)
        if query is None:
            super().send(*commands)
            return
        for command in commands:
            query(command)

    def renew(self, name: str) -> tuple[str, ...]:
        return (f"SAVEPOINT {name}",)  # which moves one that is there

    def is_lost(self, error: BaseException | None) -> bool:
        if not getattr(self.connection, "open", True):
            return True
        code = error.args[0] if error is not None and error.args else None
        if code in _ROLLED_BACK:
            return True
        status = getattr(self.connection, "server_status", _STATUS_IN_TRANSACTION)
        return not status & _STATUS_IN_TRANSACTION

    def has_ended(self) -> bool:
        return not getattr(self.connection, "server_status", _STATUS_IN_TRANSACTION) & _STATUS_IN_TRANSACTION

    def may_write(self, statement: Statement) -> bool:
        if not statement.calls:
            return False
        if self._writing is None:
            stored = self.rows(
                "SELECT lower(routine_name) FROM information_schema.routines WHERE routine_type = 'FUNCTION' "
                "AND routine_schema = database() AND sql_data_access NOT IN ('NO SQL', 'READS SQL DATA')"
            )
            self._writing = frozenset(row[0] for row in stored) | {"nextval", "setval"}
        return not self._writing.isdisjoint(statement.calls)

    def knows(self, statement: Statement) -> bool:
        return self._writing is not None and self._writing.isdisjoint(statement.calls)

    def no_savepoint(self, name: str) -> BaseException:
        error: BaseException = self.errors.OperationalError(1305, f"SAVEPOINT {name} does not exist")
        return error

    def read_only_error(self) -> BaseException:
        text = "Cannot execute statement in a READ ONLY transaction"
        error: BaseException = self.errors.InternalError(1792, text)
        return error


def server_for(dialect: Any, connection: Any) -> Server:
    """
    Return what serves a connection that a dialect has opened.
    """
    if dialect.name == "sqlite":
        return SQLiteServer(connection)
    if dialect.name in ("mysql", "mariadb"):
        return MySQLServer(connection, dialect.loaded_dbapi)
    from .postgresql import AsyncpgServer, PostgreSQLServer, PsycopgServer

    if dialect.driver == "asyncpg":
        return AsyncpgServer(connection, dialect)
    made = PsycopgServer if dialect.driver in ("psycopg", "psycopg_async") else PostgreSQLServer
    return made(connection, dialect.loaded_dbapi.errors)
