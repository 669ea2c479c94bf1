"""The shared connection to PostgreSQL, through psycopg, asyncpg or another driver."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any

from .servers import Server

if TYPE_CHECKING:
    from .statements import Statement

_IN_ERROR, _IN_TRANSACTION, _IDLE = 3, 2, 0
"""libpq's PQTRANS_INERROR, PQTRANS_INTRANS and PQTRANS_IDLE."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_HARMLESS = _words("""
    random clock_timestamp timeofday gen_random_uuid uuid_generate_v4 uuid_generate_v1 pg_sleep pg_sleep_for
    pg_sleep_until statement_timestamp currval lastval pg_backend_pid txid_current_if_assigned pg_is_in_recovery
    pg_current_xact_id_if_assigned pg_blocking_pids pg_relation_size pg_total_relation_size pg_table_size
    pg_indexes_size pg_database_size pg_size_pretty pg_get_serial_sequence pg_xact_status pg_control_system
    pg_walfile_name pg_current_wal_lsn
""")
"""Functions that the catalogue calls volatile, and that write nothing."""
_SYNTAX = _words("""
    in exists any all some values as cast coalesce nullif greatest least over filter group extract on using and or not
    when then else between like ilike similar union intersect except select from where by with recursive materialized
    join lateral distinct rows range row array substring position overlay trim grouping sets rollup cube interval
    varchar char character varying numeric decimal bit float timestamp time within returning is limit offset having
    order partition precision xmlelement xmlforest json_object json_array json_arrayagg json_objectagg normalize
""")
"""Words of SQL that may stand before a parenthesis and are no functions, or none that the catalogue lists."""


class PostgreSQLServer(Server):
    """
    A connection to PostgreSQL, through any synchronous driver.

    Args:
        connection: The driver's connection.
        errors: The driver's error classes, by the names of their codes.
    """

    aborts = True

    def __init__(self, connection: Any, errors: Any = None) -> None:
        super().__init__(connection)
        self.errors = errors
        self._safe: frozenset[str] | None = None
        self._deferrable: bool | None = None

    def prepare(self, timeout: float) -> None:
        self.connection.autocommit = True
        # Another connection of the same test may have written a row, and would never commit it.
        if self.rows("select current_setting('lock_timeout')")[0][0] == "0":
            self.send(f"SET lock_timeout = {int(timeout * 1000)}")
        self.lift_idle_limits()

    def lift_idle_limits(self) -> None:
        self.rows(
            "select set_config(name, '0', false) from pg_settings "
            "where name in ('idle_in_transaction_session_timeout', 'transaction_timeout') and setting <> '0'"
        )

    def is_closed(self) -> bool:
        return bool(self.connection.closed)

    def begin(self) -> str:
        return "BEGIN READ WRITE"

    def send(self, *commands: str) -> None:
        cursor = self.connection.cursor()
        cursor.execute("; ".join(commands))
        cursor.close()

    def is_aborted(self, error: BaseException) -> bool:
        return bool(self.connection.info.transaction_status == _IN_ERROR)

    def is_lost(self, error: BaseException | None) -> bool:
        return bool(self.connection.closed) or self.connection.info.transaction_status not in (
            _IN_TRANSACTION,
            _IN_ERROR,
        )

    def has_ended(self) -> bool:
        return bool(self.connection.info.transaction_status == _IDLE)

    def check_constraints(self, savepoint: str) -> None:
        if self._deferrable is None:
            (found,) = self.rows(
                "select exists (select from pg_constraint where condeferrable) "
                "or exists (select from pg_trigger where tgdeferrable)"
            )
            self._deferrable = bool(found[0])
        if self._deferrable:
            self.send(f"SAVEPOINT {savepoint}_c")
            # Rolled back again, since that also restores which of them are deferred.
            self.ask_constraints()
            self.send(f"ROLLBACK TO SAVEPOINT {savepoint}_c")

    def ask_constraints(self) -> None:
        """
        Let the server check the constraints that are deferred.
        """
        self.send("SET CONSTRAINTS ALL IMMEDIATE")

    def schema_changed(self) -> None:
        self._safe = None
        self._deferrable = None

    def may_write(self, statement: Statement) -> bool:
        if not statement.calls:
            return False
        if self._safe is None:
            query = "select proname from pg_proc group by proname having bool_and(provolatile <> 'v')"
            names = [row[0] for row in self.rows(query)]
            self._safe = frozenset(names).union(_HARMLESS, _SYNTAX)
        return not statement.calls <= self._safe

    def knows(self, statement: Statement) -> bool:
        return self._safe is not None and statement.calls <= self._safe

    def came_from_server(self, error: BaseException) -> bool:
        return bool(getattr(error, "sqlstate", None) or getattr(error, "pgcode", None))

    def failed(self) -> BaseException:
        error: BaseException = self.errors.InFailedSqlTransaction(_FAILED)
        return error

    def no_savepoint(self, name: str) -> BaseException:
        error: BaseException = self.errors.InvalidSavepointSpecification(f'savepoint "{name}" does not exist')
        return error


_FAILED = "current transaction is aborted, commands ignored until end of transaction block"


class PsycopgServer(PostgreSQLServer):
    """
    A connection to PostgreSQL through psycopg.
    """

    def __init__(self, connection: Any, errors: Any = None) -> None:
        super().__init__(connection, errors)
        self._numbers = count()

    def send(self, *commands: str) -> None:
        from psycopg import errors
        from psycopg.pq import ExecStatus

        # Past the driver's cursor, which takes longer, and which forgets its prepared statements at each ROLLBACK TO.
        result = self.connection.pgconn.exec_("; ".join(commands).encode())
        if result.status == ExecStatus.FATAL_ERROR:
            raise errors.error_from_result(result)

    def is_aborted(self, error: BaseException) -> bool:
        return bool(self.connection.pgconn.transaction_status == _IN_ERROR)

    def is_lost(self, error: BaseException | None) -> bool:
        pgconn = self.connection.pgconn
        return pgconn.status != 0 or pgconn.transaction_status not in (_IN_TRANSACTION, _IN_ERROR)

    def has_ended(self) -> bool:
        return bool(self.connection.pgconn.transaction_status == _IDLE)

    def roll_back_to(self, savepoint: str, *, schema: bool) -> None:
        if schema:
            self._forgetting(f"ROLLBACK TO SAVEPOINT {savepoint}")
        else:
            super().roll_back_to(savepoint, schema=schema)

    def roll_back(self, *, schema: bool) -> None:
        if schema:
            self._forgetting("ROLLBACK")
        else:
            super().roll_back(schema=schema)

    def _forgetting(self, command: str) -> None:
        """
        Send a command through the driver, which then forgets what it prepared for a schema that is no more.
        """
        cursor = self.connection.cursor()
        # A text that it knows already would not make it forget.
        cursor.execute(f"{command} /* {next(self._numbers)} */")
        cursor.close()

    def interrupt(self) -> None:
        self.connection.cancel_safe(timeout=2)

    def hang_up(self) -> None:
        self.connection.cancel_safe(timeout=2)


class AsyncpgServer(PostgreSQLServer):
    """
    A connection to PostgreSQL through asyncpg, as SQLAlchemy adapts it.

    Args:
        connection: SQLAlchemy's connection.
        dialect: SQLAlchemy's dialect.
    """

    def __init__(self, connection: Any, dialect: Any) -> None:
        super().__init__(connection)
        self.dialect = dialect
        self.stale = False

    def is_closed(self) -> bool:
        return bool(self.connection.driver_connection.is_closed())

    def send(self, *commands: str) -> None:
        self.connection.run_async(lambda driver: driver.execute("; ".join(commands)))

    def ask_constraints(self) -> None:
        cursor = self.connection.cursor()  # whose errors are SQLAlchemy's
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.close()

    def is_aborted(self, error: BaseException) -> bool:
        # The driver does not tell; and an error of its own, before anything is sent, aborts nothing.
        if self.is_lost(error):
            return False
        try:
            self.send("SELECT 1")
        except Exception:  # noqa: BLE001  # whatever it is, the transaction cannot go on
            return True
        return False

    def is_lost(self, error: BaseException | None) -> bool:
        driver = self.connection.driver_connection
        return bool(driver.is_closed() or not driver.is_in_transaction())

    def has_ended(self) -> bool:
        driver = self.connection.driver_connection
        return not driver.is_closed() and not driver.is_in_transaction()

    def roll_back(self, *, schema: bool) -> None:
        super().roll_back(schema=schema)
        self.stale = self.stale or schema

    def interrupt(self) -> None:
        """
        Do nothing: the driver could only end the connection.
        """

    def hang_up(self) -> None:
        self.connection.driver_connection.terminate()

    def failed(self) -> BaseException:
        return self._error("25P02", _FAILED)

    def no_savepoint(self, name: str) -> BaseException:
        return self._error("3B001", f'savepoint "{name}" does not exist')

    def _error(self, code: str, text: str) -> BaseException:
        error: Any = self.dialect.loaded_dbapi.Error(text)
        error.pgcode = error.sqlstate = code
        made: BaseException = error
        return made
