"""Which revisions ran, when, by whom, and what their files said: a small table in each database."""

from __future__ import annotations

import getpass
import os
import socket
from contextlib import suppress
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import Column, MetaData, String, Table, inspect

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from alembic.runtime.migration import MigrationInfo
    from alembic.script import Script, ScriptDirectory
    from sqlalchemy import Connection

__all__ = ["TABLE", "Applied", "checksum", "edited", "prepare", "read", "record"]

TABLE = "stillroom_migrations"

_table = Table(
    TABLE,
    MetaData(),
    Column("revision", String(64), primary_key=True),
    Column("at", String(32), nullable=False),
    Column("by", String(255), nullable=False),
    Column("checksum", String(64), nullable=False),
)


class Applied(NamedTuple):
    """
    A revision that a database has.

    Attributes:
        revision: Its id.
        at: When it ran, in UTC.
        by: The user and the machine that ran it.
        checksum: Of its file at that time.
    """

    revision: str
    at: datetime
    by: str
    checksum: str


def checksum(path: str) -> str:
    """
    Return the checksum of a revision's file; kinds of line ends are one.
    """
    return sha256(Path(path).read_text(encoding="utf-8").encode()).hexdigest()


def prepare(connection: Connection) -> None:
    """
    Make the table where it is missing, before the revisions' transactions.
    """
    if not inspect(connection).has_table(TABLE):
        _table.create(connection)
    connection.commit()


def read(connection: Connection) -> dict[str, Applied]:
    """
    Read what ran, by revision; nothing where nothing of it was written down.
    """
    if not inspect(connection).has_table(TABLE):
        return {}
    rows = connection.execute(_table.select())
    return {row[0]: Applied(row[0], datetime.fromisoformat(row[1]), row[2], row[3]) for row in rows}


def edited(ran: Mapping[str, Applied], scripts: Iterable[Script]) -> list[str]:
    """
    Return the revisions whose files were changed after they ran.
    """
    return sorted(
        each.revision for each in scripts if each.revision in ran and checksum(each.path) != ran[each.revision].checksum
    )


def record(connection: Connection, directory: ScriptDirectory, step: MigrationInfo) -> None:
    """
    Write down that a revision ran, or was undone, in its own transaction.
    """
    changed = step.up_revision_ids
    connection.execute(_table.delete().where(_table.c.revision.in_(changed)))
    if not step.is_upgrade:
        return
    now, who = datetime.now(UTC).isoformat(timespec="seconds"), _who()
    for revision in changed:
        script = directory.get_revision(revision)
        row = {"revision": revision, "at": now, "by": who, "checksum": checksum(script.path)}
        connection.execute(_table.insert(), row)


def _who() -> str:
    user = str(os.getuid()) if hasattr(os, "getuid") else "unknown"
    with suppress(Exception):  # a container's user may have no name
        user = getpass.getuser()
    return f"{user}@{socket.gethostname()}"[:255]
