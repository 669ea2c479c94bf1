"""Things that are done once in the life of a database, however many processes start."""

from __future__ import annotations

import getpass
import os
import socket
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import Column, MetaData, String, Table, inspect, select
from sqlalchemy.dialects.mysql import VARCHAR
from sqlalchemy.exc import DBAPIError

from stillroom import Database, Kind, PropagationError, Status, classify
from stillroom.data.locking import alone

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection
    from sqlalchemy.orm import Session

    from stillroom import Databases, UnitOfWork

__all__ = ["TABLE", "once"]

TABLE = "stillroom_once"
LONGEST = 255
_ROLLED_BACK = (
    "the function rolled its unit of work back, and with it the note that it ran, so nothing was done. Let it raise an "
    "error where it cannot do its work, and use `uow.savepoint()` for what may fail"
)

# Letter for letter, as elsewhere: MariaDB's own order takes 'Seed' for 'seed'.
_name = String(LONGEST).with_variant(VARCHAR(LONGEST, charset="utf8mb4", collation="utf8mb4_bin"), "mysql", "mariadb")
_table = Table(
    TABLE,
    MetaData(),
    Column("key", _name, primary_key=True),
    Column("at", String(32), nullable=False),
    Column("by", String(LONGEST), nullable=False),
)


def once(
    databases: Databases | Database,
    key: str,
    function: Callable[[UnitOfWork], Any],
    *,
    database: str | None = None,
    wait: float = 300.0,
) -> bool:
    """
    Call a function in a unit of work, once in the life of a database; again only if it failed.

    What it writes and the note that it ran (in the table `stillroom_once`) are committed together. Other processes that
    come meanwhile wait for it.

    Args:
        databases: The databases, or one that stands alone.
        key: What it is called; another key is another thing to do.
        function: Gets the unit of work.
        database: Where it is noted; None for the default database.
        wait: How long another process is waited for, in seconds.

    Returns:
        Whether it ran now.

    Raises:
        ValueError: The key is empty or too long.
        PropagationError: A unit of work is open, whose end would decide; or the function rolled its own back, or doomed
            it, so that nothing was done.
        DataLocked: Another process did not end in time.
    """
    if not 0 < len(key) <= LONGEST:
        raise ValueError(f"key={key!r}: it has {len(key)} characters, and 1 to {LONGEST} are possible")
    if isinstance(databases, Database):
        place, open_unit = databases, databases.unit_of_work
    else:
        place = databases.default if database is None else databases[database]
        open_unit = databases.unit_of_work
        if databases.has_current:
            raise PropagationError(
                f"once({key!r}): a unit of work is open ({databases.current!r}), and its end would decide whether this "
                "was done; call it outside"
            )
    if _is_done(place, key):
        return False

    units: list[UnitOfWork] = []

    def work(uow: UnitOfWork) -> bool:
        if not _noted(uow, place, key):
            return False
        function(uow)
        if uow.is_active and not _is_noted(uow.session(place.name, role="writer"), key):
            raise PropagationError(f"once({key!r}): {_ROLLED_BACK}")  # before anything is committed without the note
        units.append(uow)
        return True

    has_run = alone([place], open_unit, f"stillroom once {key}", work, wait=wait, attempts=1)
    if has_run and units[-1].status is Status.ROLLED_BACK:
        raise PropagationError(f"once({key!r}): {_ROLLED_BACK}")
    return has_run


def _is_done(database: Database, key: str) -> bool:
    """
    Say whether a key is noted; make the table where it is missing.
    """
    with database.control() as connection:
        if not inspect(connection).has_table(TABLE):
            try:
                _table.create(connection)
            except DBAPIError:
                connection.rollback()
                if not inspect(connection).has_table(TABLE):  # else another process has made it meanwhile
                    raise
        return _is_noted(connection, key)


def _is_noted(connection: Connection | Session, key: str) -> bool:
    return connection.execute(select(_table.c.key).where(_table.c.key == key)).first() is not None


def _noted(uow: UnitOfWork, database: Database, key: str) -> bool:
    """
    Note a key in the unit's transaction; say False where it is there.
    """
    session = uow.session(database.name, role="writer")
    row = {"key": key, "at": datetime.now(UTC).isoformat(timespec="seconds"), "by": _who()}
    try:
        with session.begin_nested():
            session.execute(_table.insert(), row)
    except DBAPIError as error:
        if classify(error) is not Kind.UNIQUE_VIOLATION:
            raise
        return False
    return True


def _who() -> str:
    user = str(os.getuid()) if hasattr(os, "getuid") else "unknown"
    with suppress(Exception):  # a container's user may have no name
        user = getpass.getuser()
    return f"{user}@{socket.gethostname()}"[:LONGEST]
