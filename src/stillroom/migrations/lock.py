"""One process at a time migrates a database: a lock that ends with its holder, and is asked for, never waited in."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from hashlib import sha256
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING, Protocol

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from .errors import MigrationLocked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Connection

    from .chain import Chain

__all__ = ["locked"]

POLL = 0.1
"""Seconds between two questions."""
_KEYS = {"class": 1_398_033_234, "object": 1_296_648_018}
"""The two halves of PostgreSQL's key; any numbers do that no other program uses."""


class _Lock(Protocol):
    """
    A lock that can be tried.
    """

    def acquire(self) -> bool: ...

    def holder(self) -> str: ...

    def release(self) -> None: ...


class _PostgreSQL:
    """
    An advisory lock of the session, so that it ends with the last statement of a process that was killed.

    Whoever waits inside `pg_advisory_lock` keeps a snapshot, for which CREATE INDEX CONCURRENTLY waits in its turn.
    """

    def __init__(self, connection: Connection, scope: str) -> None:
        self.connection = connection
        self.keys = dict(_KEYS)
        if scope:
            self.keys["object"] = int.from_bytes(sha256(scope.encode()).digest()[:4], "big") >> 1

    def acquire(self) -> bool:
        return bool(self.connection.execute(text("select pg_try_advisory_lock(:class, :object)"), self.keys).scalar())

    def holder(self) -> str:
        row = self.connection.execute(
            text(
                "select a.pid, a.usename, a.application_name, a.client_addr from pg_locks l "
                "join pg_stat_activity a using (pid) join pg_database d on d.oid = l.database "
                "where l.locktype = 'advisory' and l.granted and d.datname = current_database() "
                "and l.classid::bigint = :class and l.objid::bigint = :object"
            ),
            self.keys,
        ).first()
        return f"server process {row[0]}, {row[2]!r} of {row[1]} at {row[3] or 'a local socket'}" if row else ""

    def release(self) -> None:
        self.connection.execute(text("select pg_advisory_unlock(:class, :object)"), self.keys)


class _MariaDB:
    """
    A named lock of the session. The names are the server's, so this one has the database in it.
    """

    def __init__(self, connection: Connection, scope: str) -> None:
        self.connection = connection
        database = sha256(f"{connection.engine.url.database or ''}{scope}".encode()).hexdigest()[:32]
        self.name = {"name": f"stillroom.migrations.{database}"}

    def acquire(self) -> bool:
        return self.connection.execute(text("select get_lock(:name, 0)"), self.name).scalar() == 1

    def holder(self) -> str:
        row = self.connection.execute(
            text("select id, user, host from information_schema.processlist where id = is_used_lock(:name)"), self.name
        ).first()
        return f"connection {row[0]} of {row[1]} at {row[2]}" if row else ""

    def release(self) -> None:
        self.connection.execute(text("select release_lock(:name)"), self.name)


class _File:
    """
    The write lock of a small SQLite file beside the database; the operating system frees it when its holder dies.
    """

    def __init__(self, database: Path) -> None:
        path = database.with_name(f"{database.name}-migrating")
        self.file = sqlite3.connect(path, timeout=0, isolation_level=None)

    def acquire(self) -> bool:
        try:
            # A reader sees only what was committed, so the number is committed before the lock is taken again.
            self.file.execute("BEGIN IMMEDIATE")
            self.file.execute(f"PRAGMA user_version = {os.getpid()}")
            self.file.execute("COMMIT")
            self.file.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            _raise_unless_busy(error)
            if self.file.in_transaction:
                self.file.execute("ROLLBACK")
            return False
        return True

    def holder(self) -> str:
        try:
            return f"process {self.file.execute('PRAGMA user_version').fetchone()[0]}"
        except sqlite3.OperationalError as error:
            _raise_unless_busy(error)  # the holder is writing its number right now
            return ""

    def release(self) -> None:
        self.file.execute("ROLLBACK")


def _raise_unless_busy(error: sqlite3.OperationalError) -> None:
    if not error.sqlite_errorname.startswith("SQLITE_BUSY"):
        raise error


@contextlib.contextmanager
def locked(connection: Connection, chain: Chain, *, wait: float, notice: Callable[[str], None]) -> Iterator[None]:
    """
    Hold the lock of a database's migrations inside the block.

    Args:
        connection: The one that migrates, in autocommit: the lock lives as long as its session.
        chain: The database's revisions.
        wait: How long another holder is waited for, in seconds.
        notice: Is told once who holds the lock.

    Raises:
        MigrationLocked: The other did not end in time.
    """
    name = chain.name
    # What keeps its revisions in tables of its own, such as a tenant's schema, is migrated by itself.
    scope = ".".join(each or "" for each in chain.tables.values()).strip(".")
    with contextlib.ExitStack() as stack:
        lock = _lock_for(connection, scope, stack)
        if lock is None:
            yield
            return
        end = monotonic() + wait
        told = False
        while not lock.acquire():
            holder = lock.holder() or "somebody who ends just now"
            if monotonic() > end:
                raise MigrationLocked(
                    f"the database {name!r} is being migrated by another process ({holder}), and did not become free "
                    f"in {wait:g} s; wait for it, or end it, then try again"
                )
            if not told:
                notice(f"{name}: waiting for another process that migrates it ({holder})")
                told = True
            sleep(POLL)
        connection.commit()
        try:
            yield
        finally:
            # A lost connection took the lock along, and its error must not hide what went wrong.
            with contextlib.suppress(SQLAlchemyError):
                connection.rollback()
                lock.release()
                connection.commit()


def _lock_for(connection: Connection, scope: str, stack: contextlib.ExitStack) -> _Lock | None:
    if connection.dialect.name == "postgresql":
        return _PostgreSQL(connection, scope)
    if connection.dialect.name != "sqlite":
        return _MariaDB(connection, scope)
    # The driver knows which file it opened, however the URL is written; a database in memory has none. It is asked
    # outside of a transaction, which would wait for whoever migrates now.
    cursor = connection.connection.cursor()
    cursor.execute("PRAGMA database_list")
    row = cursor.fetchone()
    cursor.close()
    file = row[2] if row else None
    if not file:
        return None
    lock = _File(Path(file))
    stack.callback(lock.file.close)
    return lock
