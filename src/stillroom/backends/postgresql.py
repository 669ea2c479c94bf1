"""PostgreSQL: BEGIN with the first statement, readers that the server keeps from writing, outcomes by xid."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError

from ..classification import details
from ..errors import MultipleWritesRefused
from .base import (
    LIMITED,
    Backend,
    Begin,
    Driver,
    Marker,
    Outcome,
    Role,
    Server,
    autocommit_connection,
    descriptor_of,
    readable,
)

if TYPE_CHECKING:
    from sqlalchemy.engine import URL, Connection, Engine

    from ..settings import DatabaseSettings

_PREPARED_TRANSACTIONS_DISABLED = "55000"
_IDLE, _IN_ERROR = 0, 3
"""libpq's PQTRANS_IDLE and PQTRANS_INERROR; psycopg and psycopg2 use the same numbers."""

_TIMELINE = (
    "(select system_identifier from pg_control_system())::text || "
    "case when pg_is_in_recovery() then '' else '/' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) end"
)
"""Which cluster this is, and on which timeline of its log: a number of a transaction means something only there."""

_GAPS_OF_A_CONNECTION = (
    "SET TRANSACTION READ WRITE or SET default_transaction_read_only = off, sent by the application itself",
    "lo_create() and other large-object functions (before PostgreSQL 16)",
    "COPY ... TO PROGRAM (superusers and members of pg_execute_server_program)",
)
_GAPS_OF_A_STANDBY = (
    "once the standby is promoted: SET default_transaction_read_only = off, sent by the application itself",
    "COPY ... TO PROGRAM (superusers and members of pg_execute_server_program)",
)
_GAPS_OF_A_ROLE = (
    "temporary tables and large objects, which need no right",
    "functions with the rights of their owner (SECURITY DEFINER)",
)


class PostgreSQL(Backend):
    """
    PostgreSQL through psycopg (both worlds), asyncpg and psycopg2.
    """

    name = "postgresql"
    can_prepare = True
    names_applications = True
    drivers = (
        Driver("psycopg", "psycopg", "postgresql"),
        Driver("psycopg2", "psycopg2", "postgresql"),
        Driver("psycopg", "psycopg", "postgresql", is_async=True),
        Driver("asyncpg", "asyncpg", "postgresql", is_async=True),
    )

    def engine_arguments(self, settings: DatabaseSettings, url: URL, role: Role, *, is_async: bool) -> dict[str, Any]:
        driver = url.drivername.partition("+")[2]
        parameters = _session_parameters(settings, role)
        connect: dict[str, Any] = {}
        if driver == "asyncpg":
            connect["server_settings"] = parameters
            if settings.connect_timeout:
                connect["timeout"] = settings.connect_timeout
            if settings.pooler:
                connect["statement_cache_size"] = 0
        else:
            connect["application_name"] = parameters.pop("application_name")
            if parameters:
                connect["options"] = " ".join(f"-c {key}={_escaped(value)}" for key, value in parameters.items())
            if settings.connect_timeout:
                connect["connect_timeout"] = max(1, round(settings.connect_timeout))  # libpq counts whole seconds
            if driver == "psycopg" and settings.pooler:
                connect["prepare_threshold"] = None  # a prepared statement lives in one server session
        arguments: dict[str, Any] = {"connect_args": connect}
        if role == "control" or (role == "reader" and not settings.pooler):
            arguments["isolation_level"] = "AUTOCOMMIT"
        elif driver == "psycopg":
            connect["autocommit"] = True  # the BEGIN is ours: see backends/psycopg.py
        elif settings.isolation:
            arguments["isolation_level"] = settings.isolation
        if role == "reader" and settings.pooler and driver != "psycopg":
            arguments["execution_options"] = {"postgresql_readonly": True}
        return arguments

    def install(self, engine: Engine, settings: DatabaseSettings, role: Role) -> None:
        if engine.dialect.driver not in ("psycopg", "psycopg_async"):
            if settings.pooler and role != "control" and (timeouts := _timeouts(settings)):
                listed = ", ".join(f"set_config('{name}', '{value}', true)" for name, value in timeouts)
                event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(f"select {listed}"))
            return
        begin = _begin_statement(settings, role)
        after_begin = _local_parameters(settings) if settings.pooler else ()

        def connect(dialect: Any, record: Any, arguments: list[Any], keywords: dict[str, Any]) -> Any:
            from . import psycopg as ours

            if dialect.is_async:
                keywords["cursor_factory"] = ours.AsyncCursor
                keywords["async_creator_fn"] = ours.AsyncConnection.connect
                return None
            return ours.Connection.connect(*arguments, cursor_factory=ours.Cursor, **keywords)

        def connected(dbapi_connection: Any, record: Any) -> None:
            from . import psycopg as ours

            driver = _driver(dbapi_connection)
            driver.server_cursor_factory = ours.AsyncServerCursor if engine.dialect.is_async else ours.ServerCursor
            driver.begin = begin

        def begins(connection: Connection) -> None:
            _psycopg(connection).after_begin = after_begin

        dialect = engine.dialect
        set_isolation_level = dialect.set_isolation_level

        def switch(dbapi_connection: Any, level: Any) -> None:
            if level == "AUTOCOMMIT":
                _driver(dbapi_connection).begin = b""
            set_isolation_level(dbapi_connection, level)

        def reset(dbapi_connection: Any) -> None:
            dbapi_connection.autocommit = True
            _driver(dbapi_connection).begin = begin

        # What `isolation_level` in execution options calls, and undoes when the connection goes back to the pool.
        setattr(dialect, "set_isolation_level", switch)  # noqa: B010  # mypy refuses a plain assignment
        setattr(dialect, "reset_isolation_level", reset)  # noqa: B010  # the same
        event.listen(engine, "do_connect", connect)
        event.listen(engine, "connect", connected)
        if after_begin:
            event.listen(engine, "begin", begins)

    def variant(self, engine: Engine, begin: Begin) -> Engine:
        how = "REPEATABLE READ, READ ONLY" if begin.snapshot else begin.isolation
        if how is None:
            return engine
        if engine.dialect.driver not in ("psycopg", "psycopg_async"):
            if begin.snapshot:
                return engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            return super().variant(engine, begin)
        statement = f"BEGIN ISOLATION LEVEL {how}".encode()

        def begins(connection: Connection) -> None:
            _psycopg(connection).begin_once = statement

        ours = engine.execution_options(stillroom_begin=begin)
        event.listen(ours, "begin", begins)
        return ours

    def limit(self, connection: Connection, seconds: float) -> None:
        statement = f"SET LOCAL statement_timeout = {max(1, int(seconds * 1000))}"
        driver = _psycopg(connection)
        raw = connection.connection.dbapi_connection if driver is None else driver
        if getattr(raw, "autocommit", False) and not (driver is not None and (driver.begin or driver.begin_once)):
            # A reader's statements commit one by one: the session's limit is set, and put back on its return.
            connection.exec_driver_sql(statement.replace("LOCAL ", ""))
            connection.info[LIMITED] = True
        elif driver is not None:
            driver.after_begin = (*driver.after_begin, statement.encode())
        else:
            connection.exec_driver_sql(statement)

    def lift_limit(self, connection: Connection) -> None:
        driver = _psycopg(connection)
        if driver is not None and driver.needs_begin():
            driver.after_begin = driver.after_begin[:-1]  # it was not sent yet
        else:
            connection.exec_driver_sql("SET LOCAL statement_timeout TO DEFAULT")

    def restore_limit(self, dbapi_connection: Any) -> None:
        cursor = dbapi_connection.cursor()
        cursor.execute("RESET statement_timeout")
        cursor.close()

    # --- one connection

    def in_transaction(self, dbapi_connection: Any) -> bool:
        pgconn = getattr(dbapi_connection, "pgconn", None)  # psycopg, the shortest way
        return bool((_status(dbapi_connection) if pgconn is None else pgconn.transaction_status) != _IDLE)

    def seems_dead(self, dbapi_connection: Any) -> bool:
        pgconn = getattr(dbapi_connection, "pgconn", None)
        if pgconn is not None:
            return pgconn.status != 0 or readable(pgconn.socket)
        driver = _driver(dbapi_connection)
        closed = getattr(driver, "is_closed", None)
        if closed is not None and closed():
            return True
        return readable(self.socket(dbapi_connection))

    def socket(self, dbapi_connection: Any) -> int | None:
        if (pgconn := _pgconn(dbapi_connection)) is not None:
            return int(pgconn.socket) if pgconn.status == 0 else None
        driver = _driver(dbapi_connection)
        if (transport := getattr(driver, "_transport", None)) is not None:  # asyncpg has no public name for it
            return descriptor_of(transport)
        fileno = getattr(dbapi_connection, "fileno", None)  # psycopg2
        return int(fileno()) if fileno is not None and not dbapi_connection.closed else None

    def hang_up(self, dbapi_connection: Any) -> None:
        driver = _driver(dbapi_connection)
        if (terminate := getattr(driver, "terminate", None)) is not None:  # asyncpg
            terminate()
        else:
            super().hang_up(dbapi_connection)

    def ping(self, engine: Engine, dbapi_connection: Any) -> bool:
        driver = _driver(dbapi_connection)
        if (run := getattr(dbapi_connection, "run_async", None)) is not None and hasattr(driver, "fetchval"):
            # asyncpg; SQLAlchemy's own ping would begin a transaction and roll it back around the question.
            try:
                run(lambda connection: connection.execute("SELECT 1"))
            except Exception:  # noqa: BLE001  # whatever it is, the connection is not used
                return False
            return True
        begin = getattr(driver, "begin", b"")
        if not begin:
            return super().ping(engine, dbapi_connection)
        driver.begin = b""
        try:
            return super().ping(engine, dbapi_connection)
        finally:
            driver.begin = begin

    def restore(self, dbapi_connection: Any) -> None:
        driver = _driver(dbapi_connection)
        if getattr(driver, "after_begin", None) is not None:  # a reader's too: its snapshot may not have begun
            driver.begin_once = None
            driver.after_begin = ()

    def aborts_transaction(self, error: BaseException, dbapi_connection: Any) -> bool:
        status = _status(dbapi_connection)
        if status is None:  # asyncpg says only that there is a transaction; any error of the server aborts it
            return bool(getattr(error, "sqlstate", None) or getattr(error, "pgcode", None))
        return status == _IN_ERROR

    def savepoint_heals(self, dbapi_connection: Any) -> bool:
        return True

    # --- the outcome of a COMMIT

    def mark(self, connection: Connection) -> Marker | None:
        row = connection.exec_driver_sql(
            f"select pg_current_xact_id_if_assigned()::text, pg_backend_pid(), {_TIMELINE}"
        ).one()
        return Marker(key=row[0], process=row[1], timeline=row[2]) if row[0] is not None else None

    def outcome(self, connection: Connection, marker: Marker) -> Outcome:
        if connection.exec_driver_sql(f"select {_TIMELINE}").scalar() != marker.timeline:
            return "unknown"  # another server took over; it may have lost the transaction and used its number again
        # The numbers are the server's own. They are not bound: drivers disagree on what a parameter of type xid8 is.
        key, process = int(marker.key), int(marker.process)
        status = connection.exec_driver_sql(f"select pg_xact_status('{key}'::xid8)").scalar()
        if status == "in progress":
            # The server waits for a COMMIT that never came: end that session, and only that.
            connection.exec_driver_sql(
                "select pg_terminate_backend(pid) from pg_stat_activity "
                f"where pid = {process} and backend_xid = '{key}'::xid8::xid"
            )
            return "running"
        if status == "committed":
            return "committed"
        return "rolled back" if status == "aborted" else "unknown"

    # --- two-phase commit

    def prepare(self, connection: Connection, gid: str) -> None:
        # A deferred constraint that fails now is an ordinary integrity error; inside PREPARE it would be reported
        # as the failure of PREPARE.
        connection.exec_driver_sql("SET CONSTRAINTS ALL IMMEDIATE")
        try:
            connection.exec_driver_sql(f"PREPARE TRANSACTION '{gid}'")
        except DBAPIError as error:
            if details(error).code != _PREPARED_TRANSACTIONS_DISABLED:
                raise
            raise MultipleWritesRefused(
                f"{connection.engine.url.database!r} is on a server that keeps no prepared transactions, so two-phase "
                "commit was refused and nothing was committed. Set max_prepared_transactions on the server to the "
                "number of connections and restart it, or use on_multiple_writes='ordered'"
            ) from error

    def commit_prepared(self, connection: Connection, gid: str) -> None:
        connection.exec_driver_sql(f"COMMIT PREPARED '{gid}'")

    def rollback_prepared(self, connection: Connection, gid: str) -> None:
        connection.exec_driver_sql(f"ROLLBACK PREPARED '{gid}'")

    def prepared(self, connection: Connection) -> list[str]:
        rows = connection.exec_driver_sql("select gid from pg_prepared_xacts where database = current_database()")
        return [row[0] for row in rows]

    # --- databases on a server

    def exists(self, url: URL, admin_url: URL | None) -> bool:
        with self._admin(url, admin_url) as connection:
            found = connection.execute(text("select 1 from pg_database where datname = :name"), {"name": url.database})
            return found.scalar() is not None

    def create(self, url: URL, admin_url: URL | None) -> None:
        with self._admin(url, admin_url) as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {_quoted(connection, url.database)}")

    def drop(self, url: URL, admin_url: URL | None) -> None:
        with self._admin(url, admin_url) as connection:
            connection.exec_driver_sql(f"DROP DATABASE IF EXISTS {_quoted(connection, url.database)} WITH (FORCE)")

    def _admin(self, url: URL, admin_url: URL | None) -> Any:
        return autocommit_connection(self.driver_url(admin_url or url.set(database="postgres"), is_async=False))

    def server(self, connection: Connection) -> Server:
        version, recovering, read_only, superuser = connection.exec_driver_sql(
            "select current_setting('server_version'), pg_is_in_recovery(), "
            "current_setting('transaction_read_only')::bool, usesuper from pg_user where usename = current_user"
        ).one()
        writes = connection.exec_driver_sql(
            "select exists (select from pg_class c join pg_namespace n on n.oid = c.relnamespace "
            "where n.nspname not in ('pg_catalog', 'information_schema') and n.nspname not like 'pg_t%%' and case "
            "when c.relkind in ('r', 'p', 'v', 'f') then has_table_privilege(c.oid, 'DELETE, TRUNCATE') "
            "or has_any_column_privilege(c.oid, 'INSERT, UPDATE') "
            "when c.relkind = 'S' then has_sequence_privilege(c.oid, 'USAGE, UPDATE') end) "
            "or exists (select from pg_namespace n where n.nspname not like 'pg_%%' "
            "and has_schema_privilege(n.oid, 'CREATE')) or has_database_privilege(current_database(), 'CREATE')"
        ).scalar()
        if not superuser and not writes:
            return Server(f"PostgreSQL {version}", recovering, "role", _GAPS_OF_A_ROLE)
        if recovering:
            return Server(f"PostgreSQL {version}", recovering, "connection", _GAPS_OF_A_STANDBY)
        if read_only:
            return Server(f"PostgreSQL {version}", recovering, "connection", _GAPS_OF_A_CONNECTION)
        return Server(f"PostgreSQL {version}", recovering)


def _session_parameters(settings: DatabaseSettings, role: Role) -> dict[str, str]:
    parameters = {"application_name": settings.server_settings.get("application_name", "stillroom")}
    if not settings.pooler:  # a pooler refuses start-up parameters; the transactions carry them instead
        parameters |= dict(_timeouts(settings))
        if role == "reader":
            parameters["default_transaction_read_only"] = "on"
    return parameters | dict(settings.server_settings)


def _timeouts(settings: DatabaseSettings) -> list[tuple[str, str]]:
    seconds = {
        "statement_timeout": settings.statement_timeout,
        "lock_timeout": settings.lock_timeout or 0,
        "idle_in_transaction_session_timeout": settings.idle_transaction_timeout,
    }
    return [(name, str(int(value * 1000))) for name, value in seconds.items() if value]


def _local_parameters(settings: DatabaseSettings) -> tuple[bytes, ...]:
    return tuple(f"SET LOCAL {name} = {value}".encode() for name, value in _timeouts(settings))


def _begin_statement(settings: DatabaseSettings, role: Role) -> bytes:
    if role == "control":
        return b""
    if role == "reader":
        return b"BEGIN READ ONLY" if settings.pooler else b""
    return f"BEGIN ISOLATION LEVEL {settings.isolation}".encode() if settings.isolation else b"BEGIN"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace(" ", "\\ ")


def _quoted(connection: Connection, name: str | None) -> str:
    return connection.dialect.identifier_preparer.quote_identifier(name or "")


def _pgconn(dbapi_connection: Any) -> Any:
    pgconn = getattr(dbapi_connection, "pgconn", None)
    if pgconn is None:
        pgconn = getattr(getattr(dbapi_connection, "driver_connection", None), "pgconn", None)
    return pgconn


def _driver(dbapi_connection: Any) -> Any:
    return getattr(dbapi_connection, "driver_connection", dbapi_connection)


def _psycopg(connection: Connection) -> Any:
    driver = connection.connection.driver_connection
    return driver if hasattr(driver, "after_begin") else None


def _status(dbapi_connection: Any) -> int | None:
    """
    Return libpq's transaction status, or for asyncpg 0 outside a transaction and None inside.
    """
    if (pgconn := _pgconn(dbapi_connection)) is not None:
        return int(pgconn.transaction_status)
    driver = getattr(dbapi_connection, "driver_connection", dbapi_connection)
    if (inside := getattr(driver, "is_in_transaction", None)) is not None:
        return None if not driver.is_closed() and inside() else _IDLE
    return int(driver.info.transaction_status)
