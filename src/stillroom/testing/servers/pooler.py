"""PgBouncer before a PostgreSQL server, for tests of an application that runs behind a pooler."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, overload

from sqlalchemy.engine import URL, make_url

from ..errors import ServerUnavailable
from .directories import server_directory
from .processes import ServerProcess, find_program, server_user

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["PgBouncer", "pgbouncer"]

# Each transaction on whichever connection is free: what pools are for, and what leaks the state of a session.
SETTINGS = {"pool_mode": "transaction", "default_pool_size": "5", "max_client_conn": "100"}

INSTALLED = (Path("/usr/sbin"), Path("/usr/local/sbin"), Path("/opt/homebrew/bin"))


class PgBouncer(ServerProcess):
    """
    A throwaway PgBouncer before all databases of a PostgreSQL server; made by `pgbouncer`.

    Attributes:
        program: `pgbouncer`.
        server: The URL of the server behind it; its user and password are the ones that it knows.
        directory: Of its configuration.
        port: On 127.0.0.1, the same after each start.
        user: Name of the operating system's user that it runs as; None for the present one.
        settings: Of the section `[pgbouncer]`; what is changed here is used at the next start.
    """

    title: ClassVar[str] = "PgBouncer"

    def __init__(
        self, program: Path, directory: Path, user: str | None, server: URL, settings: Mapping[str, str]
    ) -> None:
        super().__init__(directory, user)
        self.program = program
        self.server = server
        self.settings = dict(settings)

    def __repr__(self) -> str:
        return f"<PgBouncer :{self.port} -> {self.server!r}: {'runs' if self.pid else 'does not run'}>"

    @overload
    def url(self, url: str) -> str: ...
    @overload
    def url(self, url: URL) -> URL: ...
    def url(self, url: str | URL) -> str | URL:
        """
        Return the URL with the pooler's address in place of the server's, as the type that was given.
        """
        rewritten = make_url(url).set(host="127.0.0.1", port=self.port)
        return rewritten.render_as_string(hide_password=False) if isinstance(url, str) else rewritten

    def _command(self) -> list[str]:
        self.directory.mkdir(exist_ok=True)
        users = self.directory / "users.txt"
        name, password = (
            part.replace('"', '""') for part in (self.server.username or "postgres", self.server.password or "")
        )
        users.write_text(f'"{name}" "{password}"\n', encoding="utf-8")
        settings = {
            **self.settings,
            "listen_addr": "127.0.0.1",
            "listen_port": str(self.port),
            "unix_socket_dir": "",
            "auth_type": "trust",
            "auth_file": str(users),
            "admin_users": self.server.username or "postgres",
        }
        lines = [f"{key} = {value}" for key, value in settings.items()]
        target = f"* = host={self.server.host or '127.0.0.1'} port={self.server.port or 5432}"
        configuration = self.directory / "pgbouncer.ini"
        configuration.write_text("\n".join(["[databases]", target, "[pgbouncer]", *lines, ""]), encoding="utf-8")
        return [str(self.program), str(configuration)]


@contextlib.contextmanager
def pgbouncer(url: str | URL, settings: Mapping[str, str] | None = None) -> Iterator[PgBouncer]:
    """
    Run a throwaway PgBouncer before a PostgreSQL server; it hands out server connections for one transaction each.

    Anybody on this machine may come in as the user of `url`. As root it runs as the user `postgres` or `nobody`, for
    PgBouncer refuses root.

    Args:
        url: Of the server, with the user and the password with which PgBouncer connects.
        settings: Of the section `[pgbouncer]`, such as `{"default_pool_size": "1"}`.

    Raises:
        ServerUnavailable: No PgBouncer is installed, or there is no user to run it as.
        TestingError: It does not start; says what is in its log.
    """
    program = find_program(["pgbouncer"], INSTALLED)
    if program is None:
        raise ServerUnavailable(
            "no PgBouncer to start: found no program pgbouncer; install it, for example with apt-get install pgbouncer "
            "or brew install pgbouncer"
        )
    user = server_user("PgBouncer", ("postgres", "nobody"))
    with server_directory(user) as root:
        pooler = PgBouncer(program, root / "pgbouncer", user, make_url(url), {**SETTINGS, **(settings or {})})
        try:
            pooler.start()
            yield pooler
        finally:
            pooler.kill()
