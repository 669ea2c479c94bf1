"""Test databases on PostgreSQL: copies that the server makes of a template database."""

from __future__ import annotations

import re
from contextlib import suppress
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from .base import Record, Server
from .connection import Line, execute
from .marker import read_mark

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import URL, Connection

__all__ = ["PostgreSQL"]

_ROW = "select datistemplate and not datallowconn, shobj_description(oid, 'pg_database') from pg_database "
_HALF = re.compile(r"tpl_.+_[0-9a-f]{12}")


class PostgreSQL(Server):
    """
    A server of PostgreSQL 13 or newer, over one connection to its database for administration.
    """

    limit = 63

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.require_direct()
        self._direct = self.settings.migration_url or self.settings.url
        admin = self.settings.admin_url or self._direct.set(database="postgres")
        self._line = self._to(admin)

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
        row = self._row(
            "select current_setting('server_version'), pg_encoding_to_char(encoding), datcollate, datctype "
            "from pg_database where datname = 'template1'"
        )
        return [str(each) for each in row]

    def environment(self) -> str | None:
        # An idle connection would otherwise be ended by a server that is set so, and the locks with it.
        self._row("select set_config(name, '0', false) from pg_settings where name = 'idle_session_timeout'")
        database = self.settings.url.database
        if self._row("select 1 from pg_database where datname = :name and datallowconn", name=database) is None:
            return None
        with self._to(self._direct.set(database=database)) as line:
            return line.run(read_mark)

    def url(self, name: str) -> URL:
        return self.settings.url.set(database=name)

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

    def make_template(self, name: str, record: Record, build: Callable[[URL], None]) -> None:
        self.drop_template(name)
        self._execute(f"CREATE DATABASE {_quoted(name)}{self._owner()}")
        try:
            build(self._direct.set(database=name))
            with self._to(self._direct.set(database=name)) as line:
                line.run(lambda connection: execute(connection, "ANALYZE"))
            self._comment(name, record)
            # From here on nobody can connect, so that nobody is in the way of a copy, or changes what is copied.
            self._execute(f"ALTER DATABASE {_quoted(name)} WITH IS_TEMPLATE true ALLOW_CONNECTIONS false")
        except BaseException:
            with suppress(Exception):
                self.drop_template(name)
            raise

    def _owner(self) -> str:
        """
        Give what an administrator makes to the user of the tests.
        """
        user = self._direct.username
        if self.settings.admin_url is None or user in (None, self.settings.admin_url.username):
            return ""
        return f" OWNER {_quoted(str(user))}"

    def drop_template(self, name: str) -> None:
        if self._row("select 1 from pg_database where datname = :name and datistemplate", name=name) is not None:
            self._execute(f"ALTER DATABASE {_quoted(name)} WITH IS_TEMPLATE false")
        self._drop(name)

    # --- databases

    def record(self, name: str) -> Record | None:
        row = self._row(f"{_ROW} where datname = :name", name=name)
        return Record.read(row[1]) if row is not None else None

    def is_foreign(self, name: str) -> bool:
        row = self._row(f"{_ROW} where datname = :name", name=name)
        return row is not None and Record.read(row[1]) is None

    def note(self, name: str, record: Record) -> None:
        self._comment(name, record)

    def _comment(self, name: str, record: Record) -> None:
        text = record.text().replace("'", "''")
        self._execute(f"COMMENT ON DATABASE {_quoted(name)} IS '{text}'")

    def copy(self, template: str, name: str, record: Record) -> None:
        # Under another name until the note is on it: a database without one is never dropped, whatever it is called.
        making = f"stillroom_making_{sha256(name.encode()).hexdigest()[:20]}"
        self._drop(making)
        self.drop(name)
        self._execute(f"CREATE DATABASE {_quoted(making)} TEMPLATE {_quoted(template)}{self._owner()}")
        self._comment(making, record)
        self._execute(f"ALTER DATABASE {_quoted(making)} RENAME TO {_quoted(name)}")

    def drop(self, name: str) -> None:
        if self.record(name) is not None:
            self._rollback_prepared(name)
            self._drop(name)

    def _drop(self, name: str) -> None:
        self._execute(f"DROP DATABASE IF EXISTS {_quoted(name)} WITH (FORCE)")

    def _rollback_prepared(self, name: str) -> None:
        """
        Undo the prepared transactions of a database, which not even FORCE ends; only from inside it can one do so.
        """

        def ids(connection: Connection) -> list[str]:
            found = connection.execute(text("select gid from pg_prepared_xacts where database = :name"), {"name": name})
            return list(found.scalars())

        if gids := self._line.run(ids):
            with self._to(self._direct.set(database=name)) as line:
                for gid in gids:
                    statement = "ROLLBACK PREPARED '{}'".format(gid.replace("'", "''"))
                    line.run(lambda connection, statement=statement: execute(connection, statement))  # type: ignore[misc]

    def ours(self) -> dict[str, Record | None]:
        def work(connection: Connection) -> dict[str, Record | None]:
            rows = connection.execute(text(_ROW.replace("select ", "select datname, "))).all()
            found = {name: (bool(done), Record.read(note)) for name, done, note in rows}
            return {
                name: None if _HALF.fullmatch(name) and not done else record
                for name, (done, record) in found.items()
                if record is not None or (_HALF.fullmatch(name) and not done)
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


def _quoted(name: str) -> str:
    return '"{}"'.format(name.replace('"', '""'))
