"""
PostgreSQL databases that serve one test after the other: emptying one takes a tenth of the time of making one.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import psycopg

from tests.support import servers

if TYPE_CHECKING:
    from collections.abc import Iterator

OLDEST = 150000
"""The oldest version of PostgreSQL whose schema "public" is made as below."""

IS_USED = """
SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid())
"""
EMPTYING = """
DROP SCHEMA public CASCADE;
CREATE SCHEMA public AUTHORIZATION pg_database_owner;
GRANT USAGE ON SCHEMA public TO PUBLIC
"""

# What CREATE DATABASE finds in template1 has an OID below 16384.
IN_NO_SCHEMA = (
    *("pg_am", "pg_cast", "pg_default_acl", "pg_event_trigger", "pg_extension", "pg_foreign_data_wrapper"),
    *("pg_language", "pg_largeobject_metadata", "pg_publication", "pg_transform"),
)
IS_NEW = f"""
SELECT NOT EXISTS (
    {" UNION ALL ".join(f"SELECT FROM {catalog} WHERE oid >= 16384" for catalog in IN_NO_SCHEMA)}
    UNION ALL SELECT FROM pg_namespace WHERE oid >= 16384 AND nspname <> 'public'
    UNION ALL SELECT FROM pg_prepared_xacts WHERE database = current_database()
    UNION ALL SELECT FROM pg_db_role_setting WHERE setdatabase = d.oid
    UNION ALL SELECT FROM pg_shdescription WHERE objoid = d.oid
) AND d.datacl IS NULL AND d.datconnlimit = -1 AND NOT d.datistemplate
FROM pg_database d WHERE datname = current_database()
"""  # fmt: skip


class Spares:
    """
    Empty databases of a server that wait for their next test.

    Args:
        admin_url: The administrator's URL of the server.
    """

    def __init__(self, admin_url: str) -> None:
        self.admin_url = admin_url
        self._waiting: list[tuple[str, contextlib.ExitStack]] = []

    def __repr__(self) -> str:
        return f"<Spares: {len(self._waiting)} databases>"

    @contextlib.contextmanager
    def database(self) -> Iterator[str]:
        """
        Do as `servers.postgresql_database`, but keep the database for the next one who asks.

        One that is still in use, or was changed in other ways than by what is in the schema "public", is dropped.
        """
        with contextlib.ExitStack() as dropping:
            if self._waiting:
                url, kept = self._waiting.pop()
                dropping.push(kept)
            else:
                url = dropping.enter_context(servers.postgresql_database(self.admin_url))
            yield url
            if emptied(url):
                self._waiting.append((url, dropping.pop_all()))

    def close(self) -> None:
        """
        Drop the databases.
        """
        with contextlib.ExitStack() as stack:
            for _, kept in self._waiting:
                stack.push(kept)


def emptied(url: str) -> bool:
    """
    Empty a database that nobody uses; say whether it is as it was when it was made.
    """
    with contextlib.suppress(psycopg.Error), psycopg.connect(url, autocommit=True) as connection:
        # What a prepared transaction has locked is waited for.
        connection.execute("SET lock_timeout = '1s'")
        if connection.info.server_version < OLDEST or connection.execute(IS_USED).fetchone() == (True,):
            return False
        connection.execute(EMPTYING)
        return connection.execute(IS_NEW.encode()).fetchone() == (True,)
    return False
