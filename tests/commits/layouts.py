"""
Databases on several servers that one unit of work writes to.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any
from zlib import crc32

from sqlalchemy import create_engine
from sqlalchemy.engine import make_url
from sqlalchemy.pool import NullPool

from stillroom import Databases
from tests.commits.worlds import Place, column, execute, sync_url
from tests.support import servers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.spares import Spares

DRIVERS = {
    "psycopg": ("postgresql+psycopg", False),
    "psycopg-async": ("postgresql+psycopg", True),
    "asyncpg": ("postgresql+asyncpg", True),
    "pymysql": ("mysql+pymysql", False),
    "aiomysql": ("mysql+aiomysql", True),
    "sqlite": ("sqlite", False),
    "aiosqlite": ("sqlite", True),
}


class Layout:
    """
    Databases by name, each with a table `item` that holds the row 1.

    Args:
        urls: By name, with drivers.
        is_async: Whether units of work run in asyncio.
    """

    def __init__(self, urls: dict[str, str], *, is_async: bool) -> None:
        self.urls = dict(urls)
        self.is_async = is_async
        for url in urls.values():
            execute(url, "CREATE TABLE item (id INTEGER PRIMARY KEY)", "INSERT INTO item VALUES (1)")

    def settings(self, **each: Any) -> dict[str, Any]:
        """
        Return the settings, with `two_phase`; `each` goes to every database.
        """
        databases = {name: {"url": url, **each} for name, url in self.urls.items()}
        return {"databases": databases, "default": "main", "on_multiple_writes": "two_phase"}

    def open(self, **each: Any) -> Place:
        """
        Declare the databases.
        """
        dbs = Databases()
        dbs.configure(self.settings(**each))
        return Place(dbs, is_async=self.is_async)

    def rows(self) -> dict[str, list[int]]:
        """
        Return what is durable in each database.
        """
        return {name: column(url, "SELECT id FROM item ORDER BY id") for name, url in self.urls.items()}

    def in_doubt(self) -> list[str]:
        """
        Return the gids of what is prepared, of whomever, and waits for no one's connection.
        """
        return [gid for url in self.urls.values() for gid in prepared(url)]


def prepared(url: str) -> list[str]:
    """
    Return the gids of what is prepared on a database; on MariaDB on the whole server.
    """
    backend = make_url(url).get_backend_name()
    if backend == "postgresql":
        return column(url, "SELECT gid FROM pg_prepared_xacts WHERE database = current_database()")
    if backend != "mysql":
        return []
    engine = create_engine(make_url(url).set(drivername="mysql+pymysql"), poolclass=NullPool)
    with engine.connect() as connection:
        gids = [bytes(row[3]).decode() for row in connection.exec_driver_sql("XA RECOVER")]
    ours = f"-{crc32((make_url(url).database or '').encode()):08x}"  # the list is the whole server's
    return [gid for gid in gids if gid.endswith(ours)]


def roll_back_prepared(url: str) -> None:
    """
    Let go of what a failed test left prepared: a database that holds such a transaction cannot be dropped.
    """
    for gid in prepared(url):
        is_postgresql = make_url(url).get_backend_name() == "postgresql"
        statement = f"ROLLBACK PREPARED '{gid}'" if is_postgresql else f"XA ROLLBACK '{gid}'"
        engine = create_engine(sync_url(url), poolclass=NullPool, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.exec_driver_sql(statement)


@contextlib.contextmanager
def layout(names: dict[str, str], spares: Spares, mariadb_url: str, directory: Path) -> Iterator[Layout]:
    """
    Make databases.

    Args:
        names: The driver of each, by name; see `DRIVERS`.
        spares: Databases of a PostgreSQL server that keeps prepared transactions.
        mariadb_url: The administrator's URL of a MariaDB server.
        directory: For SQLite files.
    """
    urls = {}
    with contextlib.ExitStack() as stack:
        for name, driver in names.items():
            if driver in ("sqlite", "aiosqlite"):
                url = f"sqlite:///{directory / name}.db"
            elif driver in ("pymysql", "aiomysql"):
                url = stack.enter_context(servers.mariadb_database(mariadb_url))
            else:
                url = stack.enter_context(spares.database())
            drivername, _ = DRIVERS[driver]
            urls[name] = make_url(url).set(drivername=drivername).render_as_string(hide_password=False)
        try:
            yield Layout(urls, is_async=any(DRIVERS[driver][1] for driver in names.values()))
        finally:
            for url in urls.values():
                roll_back_prepared(url)
