"""Throwaway MariaDB servers, from a MariaDB that is installed."""

from __future__ import annotations

import contextlib
import socket
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from ..errors import ServerUnavailable, TestingError
from .directories import server_directory
from .processes import ServerProcess, ask_client, find_program, run_program, server_user

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["MariaDBServer", "mariadb_server"]

# A throwaway server need not survive the machine, only its own crashes: commits go to the system, not to the disk.
SETTINGS = {
    "bind-address": "127.0.0.1",
    "character-set-server": "utf8mb4",
    "innodb-buffer-pool-size": "32M",
    "loose-innodb-doublewrite": "0",
    "innodb-flush-log-at-trx-commit": "2",
    "loose-innodb-flush-method": "nosync",
    "innodb-log-file-size": "16M",
    "performance-schema": "OFF",
    "skip-name-resolve": "1",
    "sync-binlog": "0",
}

# Where packages put the programs that are not on everybody's search path.
INSTALLED = (
    Path("/usr/sbin"),
    Path("/usr/libexec"),
    Path("/usr/local/sbin"),
    Path("/usr/local/mysql/bin"),
    Path("/usr/local/mysql/scripts"),
    Path("/opt/homebrew/opt/mariadb/bin"),
    Path("/usr/local/opt/mariadb/bin"),
)


@dataclass(frozen=True)
class Programs:
    """
    The programs of an installed MariaDB.

    Attributes:
        server: `mariadbd`.
        installer: `mariadb-install-db`, which makes the directory of a new server.
        client: `mariadb`; None where only the server is installed.
    """

    server: Path
    installer: Path
    client: Path | None


class MariaDBServer(ServerProcess):
    """
    A throwaway MariaDB server; made by `mariadb_server`.

    Attributes:
        programs: Of the MariaDB that it is from.
        directory: Of its data.
        port: On 127.0.0.1, the same after each start.
        user: Name of the operating system's user that it runs as; None for the present one.
        settings: On its command line; what is changed here is used at the next start.
    """

    title: ClassVar[str] = "MariaDB server"

    def __init__(self, programs: Programs, directory: Path, user: str | None, settings: Mapping[str, str]) -> None:
        super().__init__(directory, user)
        self.programs = programs
        self.settings = dict(settings)

    def __repr__(self) -> str:
        return f"<MariaDBServer {self.url} in {self.directory}: {'runs' if self.pid else 'does not run'}>"

    @property
    def url(self) -> str:
        """
        The administrator's URL, without a driver and a database: user `root`, no password.
        """
        return self.database_url("")

    def database_url(self, name: str) -> str:
        """
        Return the URL, without a driver, of a database on this server, whether it is there or not.
        """
        return f"mariadb://root@127.0.0.1:{self.port}/{name}"

    def sql(self, *statements: str, database: str = "") -> str:
        """
        Execute statements, each committed on its own, with the client `mariadb`: no driver is needed.

        Args:
            statements: SQL.
            database: Where; empty for none.

        Returns:
            What they returned: a line for each row, its values separated by tabs.

        Raises:
            ServerUnavailable: The client is not installed.
            TestingError: The server refused one; says what it answered.
        """
        client = self.programs.client
        if client is None:
            raise ServerUnavailable("no MariaDB client to ask with; install mariadb-client, or use a driver")
        return ask_client(
            [
                *(str(client), "--no-defaults", "--batch", "--skip-column-names", "--protocol=tcp", "--host=127.0.0.1"),
                *(f"--port={self.port}", "--user=root", "--execute=" + "\n;\n".join(statements)),
                *([database] if database else []),
            ]
        ).rstrip("\n")

    @contextlib.contextmanager
    def database(self, name: str | None = None) -> Iterator[str]:
        """
        Make an empty database, yield its URL without a driver, and drop it; end the connections to it before.

        Args:
            name: Its name; None for one that nobody else has. One that is there already is dropped before.

        Raises:
            ServerUnavailable: The client is not installed.
            TestingError: The server refuses it.
        """
        name = name or f"test_{uuid.uuid4().hex[:12]}"
        quoted = "`{}`".format(name.replace("`", "``"))
        self._drop(name, quoted)
        self.sql(f"CREATE DATABASE {quoted} CHARACTER SET utf8mb4")
        try:
            yield self.database_url(name)
        finally:
            if self.pid is not None:
                self._drop(name, quoted)

    def _drop(self, name: str, quoted: str) -> None:
        # An open transaction holds a lock that DROP DATABASE would wait for.
        literal = "'{}'".format(name.replace("\\", "\\\\").replace("'", "''"))
        for number in self.sql(f"SELECT id FROM information_schema.processlist WHERE db = {literal}").split():
            with contextlib.suppress(TestingError):  # it has just ended
                self.sql(f"KILL {number}")
        self.sql(f"DROP DATABASE IF EXISTS {quoted}")

    def _is_ready(self) -> bool:
        # The port is open before the server hears signals, and one that comes between is lost. It greets after that.
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=2.0) as connection:
                return bool(connection.recv(1)) and super()._is_ready()
        except OSError:
            return False

    def _command(self) -> list[str]:
        settings = {
            **self.settings,
            "datadir": str(self.directory),
            "port": str(self.port),
            "socket": str(self.directory.with_suffix(".sock")),
            "pid-file": str(self.directory.with_suffix(".pid")),
            # In a directory that it shares a server clears away what looks left over, other servers' files too.
            "tmpdir": str(self.directory.parent),
        }
        user = [f"--user={self.user}"] if self.user else []
        return [
            str(self.programs.server),
            "--no-defaults",
            *(f"--{name}={value}" for name, value in settings.items()),
            *user,
        ]


@contextlib.contextmanager
def mariadb_server(settings: Mapping[str, str] | None = None) -> Iterator[MariaDBServer]:
    """
    Run a throwaway MariaDB server; it takes about two seconds to start and goes without a trace.

    Its administrator `root` comes in from this machine without a password; it syncs nothing to the disk. As root it
    runs as the user `mysql` or `nobody`, for MariaDB refuses root.

    Args:
        settings: Options of `mariadbd`, such as `{"max-connections": "10"}`, above those that make it small and quick.

    Raises:
        ServerUnavailable: No MariaDB is installed, or there is no user to run it as.
        TestingError: It does not start; says what is in its log.
    """
    programs = find_programs()
    user = server_user("MariaDB", ("mysql", "nobody"))
    with server_directory(user) as root:
        server = MariaDBServer(programs, root / "data", user, {**SETTINGS, **(settings or {})})
        run_program(
            [
                *(str(programs.installer), "--no-defaults", f"--datadir={server.directory}", f"--tmpdir={root}"),
                *("--skip-test-db", "--auth-root-authentication-method=normal", "--skip-name-resolve"),
                *([f"--user={user}"] if user else []),
            ],
            user,
        )
        try:
            server.start()
            yield server
        finally:
            server.kill()


def find_programs() -> Programs:
    """
    Return the programs of the MariaDB that is installed.

    Raises:
        ServerUnavailable: There is none.
    """
    server = find_program(["mariadbd", "mysqld"], INSTALLED)
    installer = find_program(["mariadb-install-db", "mysql_install_db"], INSTALLED)
    if server is None or installer is None:
        missing = "mariadbd" if server is None else "mariadb-install-db"
        raise ServerUnavailable(
            f"no MariaDB to start: found no program {missing}; install one, for example with apt-get install "
            "mariadb-server or brew install mariadb"
        )
    return Programs(server, installer, find_program(["mariadb", "mysql"], INSTALLED))
