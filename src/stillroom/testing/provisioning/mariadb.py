"""Test databases on MariaDB, which copies no databases: its CREATE statements and INSERT … SELECT do."""

from __future__ import annotations

from contextlib import suppress
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from stillroom.classification import Kind, classify

from ..connection import execute
from ..quoting import backquoted, escaped
from .base import TEMPLATE, Record
from .copying import Script, read_script
from .remote import RemoteServer

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["MariaDB"]

FINISHED = "stillroom_template"
"""The table that is made last in a template, with the note on it; no copy has it."""
_LOCK_WAIT = 5
"""Seconds that a statement of ours waits for somebody who has a table open."""
_ATTEMPTS = 3
_SESSIONS = (
    "select id from information_schema.processlist where id <> connection_id() "
    "and db = :name and (binary db = :name or @@lower_case_table_names > 0)"
)
"""The list does not tell names apart that differ by case alone."""


class MariaDB(RemoteServer):
    """
    A server of MariaDB 10.5 or newer.
    """

    limit = 64
    administration = ""
    staying = "SET SESSION wait_timeout = 2147483"
    existing = "select 1 from information_schema.schemata where schema_name = :name"
    noted = "select schema_comment from information_schema.schemata where schema_name = :name"

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._scripts: dict[str, Script] = {}

    # --- the server

    def facts(self) -> list[str]:
        return [str(each) for each in self._row("select version(), @@collation_server, @@sql_mode")]

    # --- locks

    def try_lock(self, name: str) -> bool:
        self._line.revive()
        key = _lock_name(name)
        if self._row("select is_used_lock(:key) = connection_id()", key=key)[0]:
            return True
        return bool(self._row("select get_lock(:key, 0)", key=key)[0])

    def unlock(self, name: str) -> None:
        self._row("select release_lock(:key)", key=_lock_name(name))

    def holder(self, name: str) -> str:
        row = self._row(
            "select id, user, host from information_schema.processlist where id = is_used_lock(:key)",
            key=_lock_name(name),
        )
        return f"connection {row[0]} of {row[1]} at {row[2]}" if row else ""

    # --- templates

    def template(self, name: str) -> Record | None:
        def work(connection: Connection) -> Record | None:
            return Record.read(execute(connection, f"SELECT note FROM {backquoted(name)}.{FINISHED}").scalar())

        try:
            return self._line.run(work)
        except DBAPIError as error:
            if classify(error) is Kind.UNDEFINED_TABLE:
                return None
            raise

    def _create(self, name: str) -> None:
        self._line.execute(f"CREATE DATABASE {backquoted(name)} CHARACTER SET utf8mb4")

    def _finish(self, name: str, record: Record) -> None:
        table = f"{backquoted(name)}.{FINISHED}"
        self._line.execute(
            f"CREATE TABLE {table} (note text) ENGINE=InnoDB",
            f"INSERT INTO {table} VALUES ({escaped(record.text())})",
        )

    def drop_template(self, name: str) -> None:
        self._scripts.pop(name, None)
        self._drop(name)

    # --- databases

    def note(self, name: str, record: Record) -> None:
        self._line.execute(f"ALTER DATABASE {backquoted(name)} COMMENT {escaped(record.text())}")

    def copy(self, template: str, name: str, record: Record) -> None:
        script = self._scripts.get(template)
        if script is None:
            script = self._scripts[template] = self._line.run(
                lambda connection: read_script(connection, template, leave_out={FINISHED})
            )
        self.drop(name)
        self._line.execute(f"CREATE DATABASE {backquoted(name)} CHARACTER SET utf8mb4 COMMENT {escaped(record.text())}")
        # A connection of its own: what the script sets for its session ends with it.
        with self._inside(name) as line:
            line.run(lambda connection: script.run(connection, name))

    def drop(self, name: str) -> None:
        if self.record(name) is not None:
            self._drop(name)

    def _drop(self, name: str) -> None:
        def work(connection: Connection) -> None:
            for number in connection.execute(text(_SESSIONS), {"name": name}).scalars().all():
                with suppress(Exception):  # it may have ended by itself
                    execute(connection, f"KILL CONNECTION {number}")
            # A day is the server's own limit, for a table that a transaction has read which nobody ended.
            execute(connection, f"SET SESSION lock_wait_timeout = {_LOCK_WAIT}")
            execute(connection, f"DROP DATABASE IF EXISTS {backquoted(name)}")

        for attempt in range(_ATTEMPTS):
            try:
                self._line.run(work)
            except Exception:  # a session that is killed keeps its locks for a moment longer
                if attempt == _ATTEMPTS - 1:
                    raise
            else:
                return

    def ours(self) -> dict[str, Record | None]:
        query = text("select schema_name, schema_comment from information_schema.schemata")
        rows = self._line.run(lambda connection: connection.execute(query).all())
        found = {name: Record.read(comment) for name, comment in rows}
        templates = {name: self.template(name) for name in found if TEMPLATE.fullmatch(name)}
        return {name: record for name, record in found.items() if record is not None} | templates


def _lock_name(name: str) -> str:
    """
    Return the name of a lock, of which the server allows 64 characters.
    """
    return f"stillroom.testing.{sha256(name.encode()).hexdigest()[:40]}"
