"""Test databases on MariaDB, which copies no databases: its CREATE statements and INSERT … SELECT do."""

from __future__ import annotations

import re
from contextlib import suppress
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from .base import Record, Server
from .connection import Line, execute
from .copying import Script, read_script
from .marker import read_mark

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import URL, Connection

__all__ = ["MariaDB"]

FINISHED = "stillroom_template"
"""The table that is made last in a template, with the note on it; no copy has it."""
_LOCK_WAIT = 5
"""Seconds that a statement of ours waits for somebody who has a table open."""
_ATTEMPTS = 3
_HALF = re.compile(r"tpl_.+_[0-9a-f]{12}")


class MariaDB(Server):
    """
    A server of MariaDB 10.5 or newer, over one connection without a database.
    """

    limit = 64

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.require_direct()
        self._direct = self.settings.migration_url or self.settings.url
        self._line = self._to(self.settings.admin_url or self._direct.set(database=""))
        self._scripts: dict[str, Script] = {}

    def _to(self, url: URL) -> Line:
        return Line.to(self.settings, url, self.name, f"{self.application} tests")

    def _execute(self, *statements: str) -> None:
        def work(connection: Connection) -> None:
            for statement in statements:
                execute(connection, statement)

        self._line.run(work)

    def _row(self, statement: str, **values: Any) -> Any:
        return self._line.run(lambda connection: connection.execute(text(statement), values).first())

    def close(self) -> None:
        self._line.close()

    # --- the server

    def facts(self) -> list[str]:
        return [str(each) for each in self._row("select version(), @@collation_server, @@sql_mode")]

    def environment(self) -> str | None:
        # An idle connection would otherwise be ended some day, and the locks with it.
        self._execute("SET SESSION wait_timeout = 2147483")
        database = self.settings.url.database
        if self._row("select 1 from information_schema.schemata where schema_name = :name", name=database) is None:
            return None
        with self._to(self._direct) as line:
            return line.run(read_mark)

    def url(self, name: str) -> URL:
        return self.settings.url.set(database=name)

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
        found = self._row(
            "select 1 from information_schema.tables where table_schema = :name and table_name = :table",
            name=name,
            table=FINISHED,
        )
        if found is None:
            return None
        row = self._row(f"select note from {_quoted(name)}.{FINISHED}")
        return Record.read(row[0]) if row is not None else None

    def make_template(self, name: str, record: Record, build: Callable[[URL], None]) -> None:
        self.drop_template(name)
        self._execute(f"CREATE DATABASE {_quoted(name)} CHARACTER SET utf8mb4")
        try:
            build(self._direct.set(database=name))
            note = _literal(record.text())
            self._execute(
                f"CREATE TABLE {_quoted(name)}.{FINISHED} (note text) ENGINE=InnoDB",
                f"INSERT INTO {_quoted(name)}.{FINISHED} VALUES ({note})",
            )
        except BaseException:
            with suppress(Exception):
                self.drop_template(name)
            raise

    def drop_template(self, name: str) -> None:
        self._scripts.pop(name, None)
        self._drop(name)

    # --- databases

    def _note(self, name: str) -> tuple[bool, Record | None]:
        row = self._row("select schema_comment from information_schema.schemata where schema_name = :name", name=name)
        return row is not None, Record.read(row[0]) if row is not None else None

    def record(self, name: str) -> Record | None:
        return self._note(name)[1]

    def is_foreign(self, name: str) -> bool:
        exists, record = self._note(name)
        return exists and record is None

    def note(self, name: str, record: Record) -> None:
        self._execute(f"ALTER DATABASE {_quoted(name)} COMMENT {_literal(record.text())}")

    def copy(self, template: str, name: str, record: Record) -> None:
        script = self._scripts.get(template)
        if script is None:
            script = self._scripts[template] = self._line.run(
                lambda connection: read_script(connection, template, leave_out={FINISHED})
            )
        self.drop(name)
        self._execute(f"CREATE DATABASE {_quoted(name)} CHARACTER SET utf8mb4 COMMENT {_literal(record.text())}")
        # A connection of its own: what the script sets for its session ends with it.
        with self._to(self._direct.set(database=name)) as line:
            line.run(lambda connection: script.run(connection, name))

    def drop(self, name: str) -> None:
        if self.record(name) is not None:
            self._drop(name)

    def _drop(self, name: str) -> None:
        def work(connection: Connection) -> None:
            query = text("select id from information_schema.processlist where db = :name and id <> connection_id()")
            for number in connection.execute(query, {"name": name}).scalars().all():
                with suppress(Exception):  # it may have ended by itself
                    execute(connection, f"KILL CONNECTION {number}")
            # A day is the server's own limit, for a table that a transaction has read which nobody ended.
            execute(connection, f"SET SESSION lock_wait_timeout = {_LOCK_WAIT}")
            execute(connection, f"DROP DATABASE IF EXISTS {_quoted(name)}")

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
        templates = {name: self.template(name) for name in found if _HALF.fullmatch(name)}
        return {name: record for name, record in found.items() if record is not None} | templates


def _lock_name(name: str) -> str:
    """
    Return the name of a lock, of which the server allows 64 characters.
    """
    return f"stillroom.testing.{sha256(name.encode()).hexdigest()[:40]}"


def _literal(value: str) -> str:
    return "'{}'".format(value.replace("\\", "\\\\").replace("'", "''"))


def _quoted(name: str) -> str:
    return "`{}`".format(name.replace("`", "``"))
