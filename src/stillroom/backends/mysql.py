"""MariaDB and MySQL: no needless ROLLBACK, readers in READ ONLY, outcomes by a marker row, XA for two phases."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
from typing import TYPE_CHECKING, Any
from uuid import uuid4
from zlib import crc32

from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError, IntegrityError

from ..forking import process
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
    new_gid,
    readable,
)

if TYPE_CHECKING:
    from sqlalchemy.engine import URL, Connection, Engine

    from ..settings import DatabaseSettings

_STATUS_IN_TRANSACTION = 1
"""SERVER_STATUS_IN_TRANS of the protocol, which the server sends with each answer but errors."""
_ROLLED_BACK = {1020, 1206, 1213, 1613, 1614}
"""Errors after which InnoDB has rolled back the whole transaction: a write conflict (innodb_snapshot_isolation, on by
default since MariaDB 11.6), a full table of locks, deadlock, XA timeout, XA deadlock."""
_LOCK_WAIT_TIMEOUT = 1205
_NO_SUCH_THREAD = 1094
_CANNOT_CONNECT = 2003
MARKERS = "stillroom_commits"
_RESTORE_LIMIT = "SET SESSION max_statement_time = @stillroom_limit"


class MySQL(Backend):
    """
    MariaDB and MySQL through PyMySQL, mysqlclient, aiomysql and asyncmy.
    """

    name = "mysql"
    can_prepare = True
    keeps_prepared = True
    drivers = (
        Driver("pymysql", "pymysql", "mariadb"),
        Driver("mysqldb", "MySQLdb", "mariadb"),
        Driver("mariadbconnector", "mariadb", "mariadb"),
        Driver("aiomysql", "aiomysql", "mariadb", is_async=True),
        Driver("asyncmy", "asyncmy", "mariadb", is_async=True),
    )

    def engine_arguments(self, settings: DatabaseSettings, url: URL, role: Role, *, is_async: bool) -> dict[str, Any]:
        arguments: dict[str, Any] = {"connect_args": {}}
        if settings.connect_timeout:
            arguments["connect_args"]["connect_timeout"] = max(1, round(settings.connect_timeout))
        if role != "writer":
            arguments["isolation_level"] = "AUTOCOMMIT"
            arguments["skip_autocommit_rollback"] = True  # SQLAlchemy would send a ROLLBACK that undoes nothing
        elif settings.isolation:
            arguments["isolation_level"] = settings.isolation
        return arguments

    def install(self, engine: Engine, settings: DatabaseSettings, role: Role) -> None:
        def connected(dbapi_connection: Any, record: Any) -> None:
            cursor = dbapi_connection.cursor()
            parameters = _session_parameters(settings, maria=_is_maria(dbapi_connection))
            if parameters:
                cursor.execute("SET SESSION " + ", ".join(parameters))
            if role == "reader":
                cursor.execute("SET SESSION TRANSACTION READ ONLY")
            cursor.close()

        event.listen(engine, "do_connect", _limit_connecting(engine, settings))
        event.listen(engine, "connect", connected)

    def variant(self, engine: Engine, begin: Begin) -> Engine:
        ours = super().variant(engine, begin).execution_options(stillroom_begin=begin)
        if begin.snapshot:
            event.listen(ours, "begin", _begin_snapshot)
        if begin.two_phase:
            event.listen(ours, "begin", _begin_xa)
            event.listen(ours, "commit", _commit_xa)
            event.listen(ours, "rollback", _rollback_xa)
        return ours

    def limit(self, connection: Connection, seconds: float) -> None:
        if _is_maria(connection.connection.dbapi_connection):
            # The server has no such limit for a transaction alone: the session's is kept and put back.
            connection.exec_driver_sql(
                "SET @stillroom_limit = @@SESSION.max_statement_time, "
                f"SESSION max_statement_time = {max(0.001, seconds):.3f}"
            )
            connection.info[LIMITED] = True

    def lift_limit(self, connection: Connection) -> None:
        if connection.info.pop(LIMITED, False):
            connection.exec_driver_sql(_RESTORE_LIMIT)

    def restore_limit(self, dbapi_connection: Any) -> None:
        cursor = dbapi_connection.cursor()
        cursor.execute(_RESTORE_LIMIT)
        cursor.close()

    # --- one connection

    def in_transaction(self, dbapi_connection: Any) -> bool:
        driver = getattr(dbapi_connection, "driver_connection", dbapi_connection)
        status = getattr(driver, "server_status", None)
        if status is None:
            ask = getattr(driver, "get_transaction_status", None)
            return bool(ask()) if ask is not None else True
        return bool(status & _STATUS_IN_TRANSACTION)

    def seems_dead(self, dbapi_connection: Any) -> bool:
        driver = getattr(dbapi_connection, "driver_connection", dbapi_connection)
        if driver is not dbapi_connection and getattr(driver, "closed", False):
            return True
        return readable(self.socket(dbapi_connection))

    def ping(self, engine: Engine, dbapi_connection: Any) -> bool:
        if not engine.dialect.is_async:
            return super().ping(engine, dbapi_connection)
        # SQLAlchemy's ping depends on PyMySQL's version. It fails on 2.0, and may reconnect behind our back on 2.1:
        # the new session would have neither the timeouts nor what makes a reader read only.
        try:
            dbapi_connection.run_async(lambda driver: driver.ping(reconnect=False))
        except Exception:  # noqa: BLE001  # whatever it is, the connection is not used
            return False
        return True

    def socket(self, dbapi_connection: Any) -> int | None:
        # The drivers have no public name for it.
        driver = getattr(dbapi_connection, "driver_connection", dbapi_connection)
        if (writer := getattr(driver, "_writer", None)) is not None:  # aiomysql, asyncmy
            return descriptor_of(writer.transport)
        sock = getattr(driver, "_sock", None)  # PyMySQL
        return int(sock.fileno()) if sock is not None else None

    def hang_up(self, dbapi_connection: Any) -> None:
        driver = getattr(dbapi_connection, "driver_connection", dbapi_connection)
        if driver is not dbapi_connection:
            driver.close()  # aiomysql and asyncmy close without a farewell here
        else:
            super().hang_up(dbapi_connection)

    def aborts_transaction(self, error: BaseException, dbapi_connection: Any) -> bool:
        number = error.args[0] if error.args else None
        if number != _LOCK_WAIT_TIMEOUT:
            return number in _ROLLED_BACK
        try:  # after this one it depends on how the server was started
            cursor = dbapi_connection.cursor()
            cursor.execute("SELECT @@innodb_rollback_on_timeout")
            return bool(cursor.fetchone()[0])
        except Exception:  # noqa: BLE001  # the first error is the one to tell
            return True

    # --- the outcome of a COMMIT

    def prepare_marking(self, connection: Connection) -> None:
        connection.exec_driver_sql(
            f"CREATE TABLE IF NOT EXISTS {MARKERS} "
            "(id CHAR(32) CHARACTER SET ascii PRIMARY KEY, marked_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP) "
            "ENGINE=InnoDB"
        )
        connection.exec_driver_sql(f"DELETE FROM {MARKERS} WHERE marked_at < NOW() - INTERVAL 1 DAY")

    def mark(self, connection: Connection) -> Marker | None:
        key = uuid4().hex
        connection.execute(text(f"INSERT INTO {MARKERS} (id) VALUES (:key)"), {"key": key})
        driver = connection.connection.driver_connection
        thread = getattr(driver, "thread_id", None)
        return Marker(key=key, process=int(thread()) if callable(thread) else int(thread or 0))

    def outcome(self, connection: Connection, marker: Marker) -> Outcome:
        # The same key once more: refused, it was committed; accepted, the first transaction is gone without it.
        # While the first session lives, its lock makes us wait; then that session is ended.
        connection.exec_driver_sql("SET SESSION innodb_lock_wait_timeout = 0")  # MySQL makes 1 of it
        key = {"key": marker.key}
        try:
            connection.execute(text(f"INSERT INTO {MARKERS} (id) VALUES (:key)"), key)
        except IntegrityError:
            return "committed"
        except DBAPIError as error:
            if error.orig is None or error.orig.args[0] != _LOCK_WAIT_TIMEOUT:
                raise
            self._end_session(connection, marker.process)
            return "running"
        connection.execute(text(f"DELETE FROM {MARKERS} WHERE id = :key"), key)
        return "rolled back"

    def _end_session(self, connection: Connection, process: int) -> None:
        if process:
            try:
                connection.exec_driver_sql(f"KILL CONNECTION {process}")
            except DBAPIError as error:
                if error.orig is None or error.orig.args[0] != _NO_SUCH_THREAD:
                    raise

    # --- two-phase commit

    def prepare(self, connection: Connection, gid: str) -> None:
        connection.exec_driver_sql(f"XA END '{gid}'")
        connection.exec_driver_sql(f"XA PREPARE '{gid}'")

    def commit_prepared(self, connection: Connection, gid: str) -> None:
        connection.exec_driver_sql(f"XA COMMIT '{gid}'")

    def rollback_prepared(self, connection: Connection, gid: str) -> None:
        connection.exec_driver_sql(f"XA ROLLBACK '{gid}'")

    def prepared(self, connection: Connection) -> list[str]:
        rows = connection.exec_driver_sql("XA RECOVER").all()
        gids = [row[3].decode(errors="replace") if isinstance(row[3], bytes) else str(row[3]) for row in rows]
        return [gid for gid in gids if gid.endswith(_gid_ending(connection))]

    # --- databases on a server

    def exists(self, url: URL, admin_url: URL | None) -> bool:
        with self._admin(url, admin_url) as connection:
            found = connection.execute(
                text("select 1 from information_schema.schemata where schema_name = :name"), {"name": url.database}
            )
            return found.scalar() is not None

    def create(self, url: URL, admin_url: URL | None) -> None:
        with self._admin(url, admin_url) as connection:
            name = connection.dialect.identifier_preparer.quote_identifier(url.database or "")
            connection.exec_driver_sql(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")

    def drop(self, url: URL, admin_url: URL | None) -> None:
        with self._admin(url, admin_url) as connection:
            name = connection.dialect.identifier_preparer.quote_identifier(url.database or "")
            connection.exec_driver_sql(f"DROP DATABASE IF EXISTS {name}")

    def _admin(self, url: URL, admin_url: URL | None) -> Any:
        return autocommit_connection(self.driver_url(admin_url or url.set(database=""), is_async=False))

    def server(self, connection: Connection) -> Server:
        version, global_read_only, read_only = connection.exec_driver_sql(
            "select version(), @@global.read_only, @@session.tx_read_only"
        ).one()
        grants = " ".join(str(row[0]).upper() for row in connection.exec_driver_sql("SHOW GRANTS"))
        writing = ("ALL PRIVILEGES", "INSERT", "UPDATE", "DELETE", "CREATE", "DROP", "ALTER", "SUPER", "FILE")
        if not any(word in grants for word in writing):
            gaps = ("routines with the rights of their definer (SQL SECURITY DEFINER)",) if "EXECUTE" in grants else ()
            return Server(version, bool(global_read_only), "role", gaps)
        if read_only:
            return Server(
                version,
                bool(global_read_only),
                "connection",
                ("SET SESSION TRANSACTION READ WRITE, sent by the application itself", "temporary tables"),
            )
        return Server(version, bool(global_read_only))


def _limit_connecting(engine: Engine, settings: DatabaseSettings) -> Any:
    """
    Extend `connect_timeout` to the server's greeting: the drivers apply it to the network connection alone.
    """
    seconds = settings.connect_timeout

    def connect(dialect: Any, record: Any, arguments: list[Any], keywords: dict[str, Any]) -> Any:
        if not seconds:
            return None
        if dialect.is_async:
            keywords.setdefault("async_creator_fn", _patient(dialect, seconds))
            return None
        if dialect.driver != "pymysql" or "read_timeout" in keywords:
            return None
        connection = dialect.connect(*arguments, read_timeout=seconds, **keywords)
        connection._read_timeout = None  # noqa: SLF001  # PyMySQL has no public name for it
        return connection

    return connect


def _patient(dialect: Any, seconds: float) -> Any:
    """
    Return the `connect` of an asyncio driver, with a limit in seconds.
    """

    async def connect(*arguments: Any, **keywords: Any) -> Any:
        try:
            async with asyncio.timeout(seconds):
                return await importlib.import_module(dialect.driver).connect(*arguments, **keywords)
        except TimeoutError as error:
            text = f"Can't connect to MySQL server: no greeting within {seconds:g} s"
            raise dialect.loaded_dbapi.OperationalError(_CANNOT_CONNECT, text) from error

    return connect


def _session_parameters(settings: DatabaseSettings, *, maria: bool) -> list[str]:
    parameters = []
    if settings.statement_timeout:
        if maria:
            parameters.append(f"max_statement_time = {settings.statement_timeout:.3f}")
        else:
            parameters.append(f"max_execution_time = {int(settings.statement_timeout * 1000)}")
    if settings.lock_timeout:
        parameters.append(f"innodb_lock_wait_timeout = {max(1, round(settings.lock_timeout))}")
        parameters.append(f"lock_wait_timeout = {max(1, round(settings.lock_timeout))}")
    if settings.idle_transaction_timeout and maria:
        parameters.append(f"idle_transaction_timeout = {max(1, round(settings.idle_transaction_timeout))}")
    parameters += [f"{name} = {value}" for name, value in settings.server_settings.items()]
    return parameters


def _is_maria(dbapi_connection: Any) -> bool:
    driver = getattr(dbapi_connection, "driver_connection", dbapi_connection)
    info = getattr(driver, "get_server_info", None)
    return "mariadb" in str(info() if info is not None else "mariadb").lower()


def _begin_snapshot(connection: Connection) -> None:
    from ..connections import state_of

    connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    connection.exec_driver_sql("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")
    state_of(connection).unlocked = False  # the words are ours


def _gid_ending(connection: Connection) -> str:
    """
    Return how the gids of one database end: XA RECOVER lists those of the whole server, with those of others.
    """
    return f"-{crc32((connection.engine.url.database or '').encode()):08x}"


def _begin_xa(connection: Connection) -> None:
    """
    Begin a transaction that can be prepared: XA must be begun as XA.
    """
    from ..connections import state_of

    gid = new_gid() + _gid_ending(connection)
    connection.exec_driver_sql(f"XA START '{gid}'")
    state = state_of(connection)
    state.xa, state.is_quiet = gid, False


def _commit_xa(connection: Connection) -> None:
    """
    End an XA transaction that was not prepared, in one phase, before SQLAlchemy's COMMIT (which XA refuses).
    """
    from ..connections import before_commit, state_of

    state = state_of(connection)
    if state.xa is not None:
        before_commit(state)
        gid, state.xa = state.xa, None
        connection.exec_driver_sql(f"XA END '{gid}'")
        connection.exec_driver_sql(f"XA COMMIT '{gid}' ONE PHASE")


def _rollback_xa(connection: Connection) -> None:
    from ..connections import STATE

    if connection.closed or connection.invalidated:
        return
    state = connection.info.get(STATE)
    if state is not None and state.xa is not None and state.generation == process.generation:
        gid, state.xa = state.xa, None
        with contextlib.suppress(DBAPIError):  # refused after a deadlock or a failed XA PREPARE; the rest is needed
            connection.exec_driver_sql(f"XA END '{gid}'")
        try:
            connection.exec_driver_sql(f"XA ROLLBACK '{gid}'")
        except DBAPIError:
            if not connection.invalidated:
                connection.invalidate()
