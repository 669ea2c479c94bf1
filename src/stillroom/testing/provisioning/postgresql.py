"""Test databases on PostgreSQL: copies that the server makes of a template database."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

import msgspec
from sqlalchemy import text

from ..quoting import literal, quoted
from .base import TEMPLATE, Record
from .remote import RemoteServer

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["PostgreSQL"]

_ROW = "select datistemplate and not datallowconn, shobj_description(oid, 'pg_database') from pg_database "


class PostgreSQL(RemoteServer):
    """
    A server of PostgreSQL 13 or newer.
    """

    limit = 63
    administration = "postgres"
    staying = "select set_config(name, '0', false) from pg_settings where name = 'idle_session_timeout'"
    existing = "select 1 from pg_database where datname = :name and datallowconn"
    noted = "select shobj_description(oid, 'pg_database') from pg_database where datname = :name"

    # --- the server

    def facts(self) -> list[str]:
        row = self._row(
            "select current_setting('server_version'), pg_encoding_to_char(encoding), datcollate, datctype "
            "from pg_database where datname = 'template1'"
        )
        return [str(each) for each in row]

    # --- locks

    def try_lock(self, name: str) -> bool:
        self._line.revive()
        if self._holds(name):
            return True
        return bool(self._row("select pg_try_advisory_lock(:key)", key=_lock_key(name))[0])

    def _holds(self, name: str) -> bool:
        found = self._row(f"select 1 from pg_locks where {_THIS_LOCK} and pid = pg_backend_pid()", key=_lock_key(name))
        return found is not None

    def unlock(self, name: str) -> None:
        self._row("select pg_advisory_unlock(:key)", key=_lock_key(name))

    def holder(self, name: str) -> str:
        row = self._row(
            "select a.pid, a.usename, a.application_name, a.client_addr from pg_locks "
            f"join pg_stat_activity a using (pid) where {_THIS_LOCK}",
            key=_lock_key(name),
        )
        return f"server process {row[0]}, {row[2]!r} of {row[1]} at {row[3] or 'a local socket'}" if row else ""

    # --- templates

    def template(self, name: str) -> Record | None:
        row = self._row(f"{_ROW} where datname = :name", name=name)
        return Record.read(row[1]) if row is not None and row[0] else None

    def _create(self, name: str) -> None:
        self._line.execute(f"CREATE DATABASE {quoted(name)}{self._owner()}")

    def _finish(self, name: str, record: Record) -> None:
        with self._inside(name) as line:
            line.execute("ANALYZE")
        self.note(name, record)
        # From here on nobody can connect, so that nobody is in the way of a copy, or changes what is copied.
        self._line.execute(f"ALTER DATABASE {quoted(name)} WITH IS_TEMPLATE true ALLOW_CONNECTIONS false")

    def _owner(self) -> str:
        """
        Give what an administrator makes to the user of the tests.
        """
        user = self._direct.username
        if self.settings.admin_url is None or user in (None, self.settings.admin_url.username):
            return ""
        return f" OWNER {quoted(str(user))}"

    def drop_template(self, name: str) -> None:
        if self._row("select 1 from pg_database where datname = :name and datistemplate", name=name) is not None:
            self._line.execute(f"ALTER DATABASE {quoted(name)} WITH IS_TEMPLATE false")
        self._drop(name)

    # --- databases

    def note(self, name: str, record: Record) -> None:
        self._line.execute(f"COMMENT ON DATABASE {quoted(name)} IS {literal(record.text())}")

    def copy(self, template: str, name: str, record: Record) -> None:
        # Under another name until the note is on it: a database without one is never dropped, whatever it is called.
        making = f"stillroom_making_{sha256(name.encode()).hexdigest()[:20]}"
        self._drop(making)
        self.drop(name)
        self._line.execute(f"CREATE DATABASE {quoted(making)} TEMPLATE {quoted(template)}{self._owner()}")
        # With its name to be, under whose lock it is made: who cleans up asks for that.
        self.note(making, msgspec.structs.replace(record, slot=record.slot or name))
        self._line.execute(f"ALTER DATABASE {quoted(making)} RENAME TO {quoted(name)}")

    def drop(self, name: str) -> None:
        if self.record(name) is not None:
            self._rollback_prepared(name)
            self._drop(name)

    def _drop(self, name: str) -> None:
        self._line.execute(f"DROP DATABASE IF EXISTS {quoted(name)} WITH (FORCE)")

    def _rollback_prepared(self, name: str) -> None:
        """
        Undo the prepared transactions of a database, which not even FORCE ends; only from inside it can one do so.
        """

        def ids(connection: Connection) -> list[str]:
            found = connection.execute(text("select gid from pg_prepared_xacts where database = :name"), {"name": name})
            return list(found.scalars())

        if gids := self._line.run(ids):
            with self._inside(name) as line:
                line.execute(*(f"ROLLBACK PREPARED {literal(gid)}" for gid in gids))

    def ours(self) -> dict[str, Record | None]:
        def work(connection: Connection) -> dict[str, Record | None]:
            rows = connection.execute(text(_ROW.replace("select ", "select datname, "))).all()
            found = {name: (bool(done), Record.read(note)) for name, done, note in rows}
            return {
                name: None if TEMPLATE.fullmatch(name) and not done else record
                for name, (done, record) in found.items()
                if record is not None or (TEMPLATE.fullmatch(name) and not done)
            }

        return self._line.run(work)


_THIS_LOCK = (
    "locktype = 'advisory' and granted and objsubid = 1 and (classid::bigint << 32) | objid::bigint = :key "
    "and database = (select oid from pg_database where datname = current_database())"
)


def _lock_key(name: str) -> int:
    """
    Return the number of a name's advisory lock.
    """
    return int.from_bytes(sha256(f"stillroom.testing.{name}".encode()).digest()[:8], "big", signed=True)
