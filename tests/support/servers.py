"""
The servers that Stillroom's own tests and benchmarks find, and databases on them that live as long as one test.

Throwaway servers are in `stillroom.testing.servers`. Everything here is a plain function or a context manager, so that
benchmarks use it as well as the fixtures.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import uuid
from typing import TYPE_CHECKING

from sqlalchemy.engine import make_url

from stillroom.testing.servers import PATIENCE, ServerUnavailable, pg_server, reachable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pymysql.connections import Connection
    from pymysql.cursors import Cursor

# MariaDB's error number for KILL of a connection that has just ended.
NO_SUCH_THREAD = 1094


def find_server(variable: str, default: str, port: int) -> str:
    """
    Return the URL of a server that is there.

    Args:
        variable: the environment variable with its URL.
        default: the URL if the variable is not set.
        port: the port of a URL that has none.

    Raises:
        ServerUnavailable: nothing answers there.
    """
    url = os.environ.get(variable, default)
    if not reachable(url, port):
        raise ServerUnavailable(f"nothing answers at {make_url(url)!r}; start a server there or set {variable}")
    return url


@functools.cache
def postgresql_url() -> str:
    """
    Return the administrator's URL of a PostgreSQL server: the one that is there, or a throwaway one for this process.

    Raises:
        ServerUnavailable: there is none, and none can be started.
    """
    variable = "STILLROOM_TEST_POSTGRESQL_URL"
    try:
        return find_server(variable, "postgresql://postgres@127.0.0.1:5432/postgres", 5432)
    except ServerUnavailable:
        if variable in os.environ:
            raise
    stack = contextlib.ExitStack()
    atexit.register(stack.close)
    return stack.enter_context(pg_server()).url


def mariadb_url() -> str:
    """
    Return the administrator's URL of the MariaDB or MySQL server that is there.

    Raises:
        ServerUnavailable: there is none.
    """
    return find_server("STILLROOM_TEST_MARIADB_URL", "mysql://root@127.0.0.1:3306/", 3306)


def redis_url() -> str:
    """
    Return the URL of the Redis server that is there.

    Raises:
        ServerUnavailable: there is none.
    """
    return find_server("STILLROOM_TEST_REDIS_URL", "redis://127.0.0.1:6379/0", 6379)


def rabbitmq_url() -> str:
    """
    Return the URL of the RabbitMQ server that is there.

    Raises:
        ServerUnavailable: there is none.
    """
    return find_server("STILLROOM_TEST_RABBITMQ_URL", "amqp://guest:guest@127.0.0.1:5672//", 5672)


@contextlib.contextmanager
def postgresql_database(admin_url: str) -> Iterator[str]:
    """
    Make a PostgreSQL database with a unique name, yield its URL without a driver, and drop it, connections or not.
    """
    name = unique_name()
    postgresql_execute(admin_url, f"CREATE DATABASE {name}")
    try:
        yield _database_url(admin_url, "postgresql", name)
    finally:
        postgresql_execute(admin_url, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@contextlib.contextmanager
def mariadb_database(admin_url: str) -> Iterator[str]:
    """
    Make a MariaDB database with a unique name, yield its URL without a driver, and drop it, connections or not.
    """
    name = unique_name()
    mariadb_execute(admin_url, f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
    try:
        yield _database_url(admin_url, "mysql", name)
    finally:
        # An open transaction holds a lock that DROP DATABASE would wait for.
        for pid in _mariadb_connections(admin_url, name):
            mariadb_execute(admin_url, f"KILL {pid}", missing_thread_is_fine=True)
        mariadb_execute(admin_url, f"DROP DATABASE IF EXISTS {name}")


def open_connections(url: str) -> int:
    """
    Count the connections to the database of a PostgreSQL or MariaDB URL, the counting one not included.
    """
    parsed = make_url(url)
    if parsed.get_backend_name() == "postgresql":
        admin_url = parsed.set(database="postgres").render_as_string(hide_password=False)
        query = f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{parsed.database}'"
        return int(str(_postgresql_row(admin_url, query)[0]))
    admin_url = parsed.set(database="").render_as_string(hide_password=False)
    return len(_mariadb_connections(admin_url, parsed.database or ""))


def unique_name() -> str:
    """
    Return a database name that says whose it is and that nobody else uses.
    """
    return f"stillroom_test_{uuid.uuid4().hex[:12]}"


def postgresql_execute(url: str, *statements: str) -> None:
    """
    Execute statements outside of a transaction, each on its own.
    """
    import psycopg

    with psycopg.connect(_libpq(url), autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def mariadb_execute(url: str, *statements: str, missing_thread_is_fine: bool = False) -> None:
    """
    Execute statements, each committed on its own.
    """
    import pymysql

    with contextlib.closing(_mariadb_connect(url)) as connection, connection.cursor() as cursor:
        for statement in statements:
            try:
                cursor.execute(statement)
            except pymysql.err.OperationalError as error:
                if not (missing_thread_is_fine and error.args[0] == NO_SUCH_THREAD):
                    raise


def _postgresql_row(url: str, query: str) -> tuple[object, ...]:
    import psycopg

    with psycopg.connect(_libpq(url), autocommit=True) as connection:
        row = connection.execute(query.encode()).fetchone()
    assert row is not None
    return tuple(row)


def _mariadb_connections(admin_url: str, name: str) -> list[int]:
    query = "SELECT id FROM information_schema.processlist WHERE db = %s AND id <> CONNECTION_ID()"
    with contextlib.closing(_mariadb_connect(admin_url)) as connection, connection.cursor() as cursor:
        cursor.execute(query, (name,))
        return [row[0] for row in cursor.fetchall()]


def _mariadb_connect(url: str) -> Connection[Cursor]:
    import pymysql

    parsed = make_url(url)
    return pymysql.connect(
        host=parsed.host or "127.0.0.1",
        port=parsed.port or 3306,
        user=parsed.username or "root",
        password=parsed.password or "",
        database=parsed.database or None,
        autocommit=True,
        connect_timeout=int(PATIENCE),
    )


def _libpq(url: str) -> str:
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


def _database_url(admin_url: str, backend: str, name: str) -> str:
    return make_url(admin_url).set(drivername=backend, database=name).render_as_string(hide_password=False)
