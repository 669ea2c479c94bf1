"""Which revisions ran, when, by whom, and what their files said: a small table in each database."""

from __future__ import annotations

import getpass
import json
import os
import socket
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import Column, MetaData, String, Table, Text, inspect, select
from sqlalchemy.schema import CreateSchema

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from alembic.runtime.migration import MigrationInfo
    from alembic.script import Script, ScriptDirectory
    from sqlalchemy import Connection

    from stillroom import DatabaseSettings

__all__ = ["TABLE", "Applied", "Log", "Unfinished", "checksum", "edited"]

TABLE = "stillroom_migrations"
_UNFINISHED = "(unfinished)"
"""Stands for a revision's id in the row that says how far a killed process got."""


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


class Unfinished(NamedTuple):
    """
    How far a revision got whose process was killed.

    Attributes:
        revision: Its id.
        up: It was to be run; otherwise undone.
        done: The digests of its statements that took effect and stay.
        begun: The digest of the statement after those, which may have taken effect; None where none was begun.
        shown: The last of these statements.
    """

    revision: str
    up: bool
    done: tuple[str, ...]
    begun: str | None
    shown: str

    def __str__(self) -> str:
        how = "run" if self.up else "undone"
        return f"{self.revision} was being {how} by a process that died at its statement {len(self.done) + 1}"


def checksum(path: str) -> str:
    """
    Return the checksum of a revision's file; kinds of line ends are one.
    """
    return sha256(Path(path).read_text(encoding="utf-8").encode()).hexdigest()


class Log:
    """
    What is written down beside Alembic's own table.

    Args:
        settings: Of the database; another table for versions has another log, for it is of other revisions.
    """

    def __init__(self, settings: DatabaseSettings) -> None:
        self.schema = settings.version_schema
        name = TABLE if settings.version_table is None else f"{settings.version_table}_log"
        self.table = Table(
            name,
            MetaData(schema=self.schema),
            Column("revision", String(64), primary_key=True),
            Column("at", String(32), nullable=False),
            Column("by", String(255), nullable=False),
            Column("checksum", String(64), nullable=False),
            Column("unfinished", Text),
        )
        self._may_be_there: set[str] | None = None

    def prepare(self, connection: Connection) -> None:
        """
        Make the table where it is missing, and its schema, before the revisions' transactions.

        Until the lock is given up nobody else writes to it, so what it does not hold now need not be deleted later.
        """
        if not self._is_there(connection):
            if self.schema is not None:
                connection.execute(CreateSchema(self.schema, if_not_exists=True))
            self.table.create(connection)
        self._may_be_there = set(connection.execute(select(self.table.c.revision)).scalars())
        connection.commit()

    def read(self, connection: Connection) -> dict[str, Applied]:
        """
        Read what ran, by revision; nothing where nothing of it was written down.
        """
        if not self._is_there(connection):
            return {}
        rows = connection.execute(self.table.select().where(self.table.c.revision != _UNFINISHED))
        return {row[0]: Applied(row[0], datetime.fromisoformat(row[1]), row[2], row[3]) for row in rows}

    def record(self, connection: Connection, directory: ScriptDirectory, step: MigrationInfo) -> None:
        """
        Write down that a revision ran, or was undone, in its own transaction.
        """
        changed = step.up_revision_ids
        scripts = [directory.get_revision(revision) for revision in changed] if step.is_upgrade else []
        self._write(connection, [*changed, _UNFINISHED], self._ran(scripts))

    def add(self, connection: Connection, scripts: Iterable[Script]) -> None:
        """
        Write down that revisions ran just now.
        """
        rows = self._ran(scripts)
        self._write(connection, [row["revision"] for row in rows], rows)

    # --- what a killed process left

    def unfinished(self, connection: Connection) -> Unfinished | None:
        """
        Read how far a killed process got, if it left something.
        """
        if not self._is_there(connection):
            return None
        row = connection.execute(self.table.select().where(self.table.c.revision == _UNFINISHED)).first()
        if row is None:
            return None
        found = json.loads(row.unfinished)
        return Unfinished(**found | {"done": tuple(found["done"])})

    def note(self, connection: Connection, state: Unfinished) -> None:
        """
        Write down how far a revision got.
        """
        row = self._row(_UNFINISHED, "") | {"unfinished": json.dumps(state._asdict())}
        self._write(connection, [_UNFINISHED], [row])

    def forget(self, connection: Connection) -> None:
        """
        Forget what a killed process left.
        """
        if self._is_there(connection):
            connection.execute(self.table.delete().where(self.table.c.revision == _UNFINISHED))
        connection.commit()

    def _write(self, connection: Connection, old: Sequence[str], new: Sequence[Mapping[str, Any]]) -> None:
        """
        Put rows in the place of others; those that cannot be there are not deleted, which is most of them.
        """
        known = self._may_be_there
        if gone := [each for each in old if known is None or each in known]:
            connection.execute(self.table.delete().where(self.table.c.revision.in_(gone)))
        if new:
            connection.execute(self.table.insert(), new)
        if known is not None:
            known.update(row["revision"] for row in new)  # never less: a rollback brings back what was deleted

    def _is_there(self, connection: Connection) -> bool:
        return inspect(connection).has_table(self.table.name, schema=self.schema)

    def _ran(self, scripts: Iterable[Script]) -> list[dict[str, Any]]:
        return [self._row(script.revision, checksum(script.path)) for script in scripts]

    @staticmethod
    def _row(revision: str, text: str) -> dict[str, Any]:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        return {"revision": revision, "at": now, "by": _who(), "checksum": text}


def edited(ran: Mapping[str, Applied], scripts: Iterable[Script], before: Mapping[str, set[str]]) -> list[str]:
    """
    Return the revisions whose files were changed after they ran.

    Args:
        ran: What ran.
        scripts: The files that there are now.
        before: Other checksums that are right: of the files that stood in a squashed revision's place.
    """
    return sorted(
        each.revision
        for each in scripts
        if each.revision in ran
        and ran[each.revision].checksum not in {checksum(each.path), *before.get(each.revision, ())}
    )


@cache
def _who() -> str:
    user = str(os.getuid()) if hasattr(os, "getuid") else "unknown"
    with suppress(Exception):  # a container's user may have no name
        user = getpass.getuser()
    return f"{user}@{socket.gethostname()}"[:255]
