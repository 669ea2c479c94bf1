"""SQLite: real transactions, WAL, one in-memory database for all threads."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import weakref
from functools import partial
from pathlib import Path
from threading import get_ident
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit
from uuid import uuid4

from sqlalchemy import event

from ..errors import ForkedConnection
from ..forking import process
from .base import Backend, Begin, Driver, Role, Server

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.engine import URL, Connection, Engine

    from ..settings import DatabaseSettings

BUSY_TIMEOUT = 5.0
"""Seconds that a statement waits for another connection's lock where the settings say nothing."""
_SLICE = 0.025
"""Seconds that one attempt to begin a writer's transaction waits: SQLite asks less and less often, at last every tenth
of a second, and then one process among several that write all the time can wait in vain for many seconds."""
_STEPS_BETWEEN_CLOCK_READINGS = 10_000
_MAY_ROLL_BACK = ("SQLITE_FULL", "SQLITE_IOERR", "SQLITE_NOMEM", "SQLITE_INTERRUPT", "SQLITE_CONSTRAINT")
_MEMORY: tuple[str | None, ...] = (None, "", ":memory:")


def is_memory(url: URL) -> bool:
    """
    Say whether `url` names a database in memory.
    """
    return url.database in _MEMORY or "vfs=memdb" in (url.database or "") or url.query.get("vfs") == "memdb"


def file_of(name: str) -> str | None:
    """
    Return the path of the file that SQLite opens for a database's `name`, which may be a `file:` URI; None for memory.
    """
    if name in _MEMORY or "vfs=memdb" in name:
        return None
    if not name.startswith("file:"):
        return name
    parts = urlsplit(name)  # https://www.sqlite.org/uri.html
    path = unquote(parts.path)
    return None if path in _MEMORY or "mode=memory" in parts.query.split("&") else path


_open: weakref.WeakSet[FileConnection | MemoryConnection] = weakref.WeakSet()
_inherited: set[tuple[int, int]] = set()
"""Device and inode of the files that this process inherited open from its parent."""


class MemoryConnection(sqlite3.Connection):
    """
    A connection to a database in memory, of which a forked child has a copy of its own.
    """

    began_by: int | None = None
    """The thread that began the last transaction, where that is noted."""
    autocommits = False
    """The user has asked for AUTOCOMMIT."""

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        _open.add(self)

    def close(self) -> None:
        super().close()
        _open.discard(self)

    def abandon(self) -> None:
        """
        In a forked child: end the transaction of the copy, whose lock nobody else would give back.
        """
        if self.began_by == get_ident() and self.in_transaction:
            self.rollback()


class FileConnection(sqlite3.Connection):
    """
    A connection that names its file when that cannot be opened, and that a forked child cannot use, nor close.

    SQLite keeps its locks per process and file: a child that inherits an open file believes that it holds the
    parent's locks. https://www.sqlite.org/howtocorrupt.html#_carrying_an_open_database_file_across_a_fork_
    """

    began_by: int | None = None
    """The thread that began the last transaction, where that is noted."""
    autocommits = False
    """The user has asked for AUTOCOMMIT."""
    statement_end: float | None = None
    """The moment (`time.monotonic`, seconds) after which the statement of the newest cursor is interrupted."""

    def __init__(self, database: Any, *args: Any, **keywords: Any) -> None:
        self.generation = process.generation
        self.file = file_of(os.fsdecode(database))
        if self.file is not None and _inherited:
            _require_not_inherited(self.file)
        try:
            super().__init__(database, *args, **keywords)
        except sqlite3.OperationalError as error:
            raise _with_file(error, self.file) from error
        _open.add(self)

    def cursor(self, factory: Any = sqlite3.Cursor) -> Any:
        if self.generation != process.generation:
            raise ForkedConnection(_INHERITED.format(file=self.file))
        self.statement_end = None
        return super().cursor(factory)

    def commit(self) -> None:
        if self.generation != process.generation:
            raise ForkedConnection(_INHERITED.format(file=self.file))
        super().commit()

    def rollback(self) -> None:
        if self.generation == process.generation:  # else the transaction is the parent's, to end as it likes
            super().rollback()

    def close(self) -> None:
        if self.generation == process.generation:
            with contextlib.suppress(sqlite3.Error):
                # A cursor that a traceback still refers to would keep the transaction, and its lock, beyond the close.
                super().rollback()
            super().close()
            _open.discard(self)

    def abandon(self) -> None:
        """
        In a forked child: leave an inherited connection to the parent.
        """
        if self.file is None:
            if self.began_by == get_ident() and self.in_transaction:
                super().rollback()  # the child's own copy of the memory, whose lock nobody else would give back
            return
        # Freeing it would close it, and clear files that the parent uses. The operating system does it at the end.
        import ctypes

        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self))
        with contextlib.suppress(OSError):
            _inherited.add(_identity(self.file))


_INHERITED = (
    "this connection to the SQLite database {file!r} was opened by the parent process, before the fork; SQLite's "
    "locks do not survive a fork. Open a new unit of work in this process, or start processes with 'spawn'"
)


def _identity(file: str) -> tuple[int, int]:
    found = os.stat(file)  # noqa: PTH116  # a path with ".." through a link must be resolved as SQLite does
    return found.st_dev, found.st_ino


def _require_not_inherited(file: str) -> None:
    try:
        inherited = _identity(file) in _inherited
    except OSError:
        return
    if inherited:
        raise ForkedConnection(
            f"the SQLite database {file!r} was in use at the moment when this process was forked, and SQLite's locks "
            "do not survive a fork: here it would read and write without them. Fork outside of units of work and of "
            "asyncio connections (`await dbs.aclose()`), or start processes with 'spawn'"
        )


def _with_file(error: sqlite3.Error, file: str | None) -> sqlite3.Error:
    """
    Return `error` with the path of the file and what may be wrong with it, for SQLite names neither.
    """
    code = getattr(error, "sqlite_errorname", None) or ""
    if file is None or not code.startswith(("SQLITE_CANTOPEN", "SQLITE_READONLY")):
        return error
    directory = Path(file).absolute().parent
    if not directory.is_dir():
        remedy = f"the directory {str(directory)!r} does not exist: create it, or call Database.create()"
    else:
        remedy = (
            "SQLite must be able to write to the file and to its directory, where it keeps the -wal and -shm files, "
            "even to read"
        )
    clear = type(error)(f"{error}: {file!r}; {remedy}")
    clear.sqlite_errorcode = error.sqlite_errorcode
    clear.sqlite_errorname = error.sqlite_errorname
    return clear


def _abandon_inherited() -> None:
    for connection in list(_open):
        connection.abandon()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_abandon_inherited)


class SQLite(Backend):
    """
    SQLite through sqlite3 and aiosqlite.
    """

    name = "sqlite"
    over_network = False
    drivers = (Driver("pysqlite", "sqlite3", "sqlite"), Driver("aiosqlite", "aiosqlite", "async", is_async=True))

    def url_of(self, url: URL) -> URL:
        """
        Return the URL of a new database in memory that every connection of the process shares, in place of one.

        `:memory:` is a database for each connection; SQLite's `memdb` file system (3.36 and up) shares one without
        the table locks of the shared cache. See https://www.sqlite.org/inmemorydb.html. A URL that names such a
        database is kept: whoever made it wants this one.
        """
        if not is_memory(url) or url.query.get("vfs") == "memdb":
            return url
        name = f"file:/stillroom-{uuid4().hex}"
        return url.set(database=name).update_query_dict({"vfs": "memdb", "uri": "true"})

    def keep_alive(self, url: URL) -> Any:
        if url.query.get("vfs") != "memdb":
            return None
        return sqlite3.connect(f"{url.database}?vfs=memdb", uri=True, check_same_thread=False)

    def engine_arguments(self, settings: DatabaseSettings, url: URL, role: Role, *, is_async: bool) -> dict[str, Any]:
        # A connection moves between threads, one at a time: the pool sees to that.
        # The one for files also keeps the clock of `statement_timeout`.
        plain = is_memory(url) and not settings.statement_timeout
        arguments: dict[str, Any] = {"factory": MemoryConnection if plain else FileConnection}
        return {"connect_args": arguments if is_async else arguments | {"check_same_thread": False}}

    def install(self, engine: Engine, settings: DatabaseSettings, role: Role) -> None:
        timeout = BUSY_TIMEOUT if settings.lock_timeout is None else settings.lock_timeout
        wal = not is_memory(settings.url)
        limit = settings.statement_timeout
        read_only = role == "reader"
        is_async = engine.dialect.is_async

        def connected(dbapi_connection: Any, record: Any) -> None:
            # The driver must not begin on its own: it would begin late, and not at all before DDL and SAVEPOINT.
            dbapi_connection.isolation_level = None
            cursor = dbapi_connection.cursor()
            # In WAL a writer waits for its BEGIN alone; in memory it may wait for readers at its COMMIT too.
            wait = min(timeout, _SLICE) if role == "writer" and wal else timeout
            cursor.execute(f"PRAGMA busy_timeout={int(wait * 1000)}")
            if wal:
                try:
                    _switch_to_wal(cursor, timeout, read_only=read_only)
                except sqlite3.OperationalError as error:
                    raise _with_file(error, file_of(engine.url.database or "")) from error
            cursor.execute("PRAGMA synchronous=FULL")
            cursor.execute("PRAGMA foreign_keys=ON")
            if read_only:
                cursor.execute("PRAGMA query_only=ON")
            cursor.close()

        event.listen(engine, "connect", connected)
        if role == "writer":
            # Not a listener for "begin": see connections.py for what those on an engine cost.
            begin = _beginning(timeout if wal else 0, note=not wal and not is_async, is_async=is_async)
            setattr(engine.dialect, "do_begin", begin)  # noqa: B010
        # The dialect's own would hand BEGIN back to the driver, for good.
        vars(engine.dialect).update(set_isolation_level=_set_isolation, reset_isolation_level=_reset_isolation)
        if limit:
            _limit_statements(engine, limit, is_async=is_async)

    def variant(self, engine: Engine, begin: Begin) -> Engine:
        # SQLite knows one isolation, SERIALIZABLE; the settings refuse others.
        ours = engine.execution_options(stillroom_begin=begin)
        if begin.snapshot:
            event.listen(ours, "begin", _begin_deferred)
        return ours

    def in_transaction(self, dbapi_connection: Any) -> bool:
        if isinstance(dbapi_connection, sqlite3.Connection):
            return dbapi_connection.in_transaction
        driver = getattr(dbapi_connection, "driver_connection", dbapi_connection)
        return bool(getattr(driver, "in_transaction", True))

    def ping(self, engine: Engine, dbapi_connection: Any) -> bool:
        return True  # there is no server that could have gone

    def aborts_transaction(self, error: BaseException, dbapi_connection: Any) -> bool:
        # A full disk, an I/O error or an interrupt can roll back by itself; the connection then says so.
        # https://www.sqlite.org/lang_transaction.html#response_to_errors_within_a_transaction
        code = getattr(error, "sqlite_errorname", "") or ""
        if not code.startswith(_MAY_ROLL_BACK):
            return False
        return not self.in_transaction(dbapi_connection)

    # --- forks

    def closes_idle_before_fork(self, engine: Engine) -> bool:
        return not is_memory(engine.url) and not engine.dialect.is_async

    def abandon(self, dbapi_connection: Any) -> None:
        """
        Do nothing: the connections see to it themselves.
        """

    # --- files

    def exists(self, url: URL, admin_url: URL | None) -> bool:
        return is_memory(url) or self._path(url).exists()

    def create(self, url: URL, admin_url: URL | None) -> None:
        if not is_memory(url):
            self._path(url).parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(self._path(url))
            try:
                connection.execute("PRAGMA journal_mode=WAL")
            finally:
                connection.close()

    def drop(self, url: URL, admin_url: URL | None) -> None:
        if not is_memory(url):
            for suffix in ("", "-wal", "-shm", "-journal", "-migrating"):
                Path(f"{self._path(url)}{suffix}").unlink(missing_ok=True)

    def _path(self, url: URL) -> Path:
        return Path(file_of(url.database or "") or "")

    def server(self, connection: Connection) -> Server:
        read_only = bool(connection.exec_driver_sql("PRAGMA query_only").scalar())
        return Server(
            version=f"SQLite {sqlite3.sqlite_version}",
            read_only="connection" if read_only else "none",
            read_only_gaps=("PRAGMA query_only=OFF; only the rights of the file stop that",) if read_only else (),
        )


def _switch_to_wal(cursor: Any, timeout: float, *, read_only: bool) -> None:
    """
    Switch the file to WAL, once in its life.

    The switch needs the file for itself and does not wait for it (busy_timeout does not apply), so starters that
    meet here take turns.
    """
    end = monotonic() + timeout
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
            return
        except Exception as error:
            code = getattr(error, "sqlite_errorname", "") or ""
            if code.startswith("SQLITE_READONLY") and read_only:
                return
            if not code.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")) or monotonic() > end:
                raise
            sleep(0.005)


def _beginning(timeout: float, *, note: bool, is_async: bool) -> Callable[[Any], None]:
    """
    Make what begins a writer's transaction.

    BEGIN IMMEDIATE takes the write lock at once. A transaction that begins as a reader and then writes is refused with
    SQLITE_BUSY_SNAPSHOT when another has written since, and no timeout helps.

    Args:
        timeout: How long it is tried again, in seconds.
        note: The connection notes the thread.
        is_async: The connection is the adapted one of an asyncio driver.
    """

    # Straight to the driver: through SQLAlchemy it would cost a tenth of a small unit of work.
    def begin(pooled: Any) -> None:
        dbapi_connection = pooled.dbapi_connection
        if getattr(dbapi_connection.driver_connection if is_async else dbapi_connection, "autocommits", False):
            return
        try:
            dbapi_connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            _begin_again(dbapi_connection, error, timeout)
        if note:
            dbapi_connection.began_by = get_ident()

    return begin


def _set_isolation(dbapi_connection: Any, level: str) -> None:
    """
    Keep what `isolation_level` in execution options asks for: SQLite knows SERIALIZABLE, and no transaction at all.
    """
    driver = getattr(dbapi_connection, "driver_connection", dbapi_connection)
    driver.autocommits = level == "AUTOCOMMIT"


def _reset_isolation(dbapi_connection: Any) -> None:
    _set_isolation(dbapi_connection, "SERIALIZABLE")


def _begin_again(dbapi_connection: Any, error: sqlite3.Error, timeout: float) -> None:
    end = monotonic() + timeout
    while (getattr(error, "sqlite_errorname", None) or "").startswith("SQLITE_BUSY") and monotonic() < end:
        try:
            dbapi_connection.execute("BEGIN IMMEDIATE")
            return
        except sqlite3.OperationalError as again:
            error = again
    raise error


def _begin_deferred(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")


def _limit_statements(engine: Engine, limit: float, *, is_async: bool) -> None:
    """
    Interrupt a statement that runs longer than `limit` seconds, fetching its rows included.
    """
    from ..connections import STATE

    def connected(dbapi_connection: Any, record: Any) -> None:
        if is_async:
            from sqlalchemy.util import await_only

            # Out of reach in the driver's thread; a stand-in keeps the moment. The driver fetches all rows at once.
            clock: Any = _Clock()
            set_handler = dbapi_connection.driver_connection.set_progress_handler
            await_only(set_handler(partial(_past, clock), _STEPS_BETWEEN_CLOCK_READINGS))
        else:
            # SQLite computes rows as they are fetched, so the clock runs until the next cursor is made.
            clock = weakref.proxy(dbapi_connection)
            dbapi_connection.set_progress_handler(partial(_past, clock), _STEPS_BETWEEN_CLOCK_READINGS)
        record.info["stillroom_clock"] = clock

    def before(connection: Connection, *_: Any) -> None:
        deadline = connection.info[STATE].deadline
        end = monotonic() + limit
        connection.info["stillroom_clock"].statement_end = end if deadline is None else min(end, deadline)

    def after(connection: Connection, *_: Any) -> None:
        connection.info["stillroom_clock"].statement_end = None

    event.listen(engine, "connect", connected)
    event.listen(engine, "before_cursor_execute", before)
    if is_async:
        event.listen(engine, "after_cursor_execute", after)


class _Clock:
    """
    Keeps the moment when a statement must end.
    """

    statement_end: float | None = None


def _past(clock: _Clock | FileConnection) -> bool:
    return clock.statement_end is not None and monotonic() > clock.statement_end
