"""Whether a URL may be used for tests at all, decided before anything is connected to."""

from __future__ import annotations

import ipaddress
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import unquote, urlsplit

from stillroom.secrets import mask_text, mask_url

from .errors import NotATestDatabase
from .naming import TEST_WORDS, is_test_name, says_production

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlalchemy import URL

    from stillroom import DatabaseSettings

    from .options import TestOptions

__all__ = ["ENVIRONMENT_VARIABLES", "check", "refuse_marked", "sqlite_path"]

ENVIRONMENT_VARIABLES = ("ENV", "ENVIRONMENT", "STAGE", "APP_SETTINGS", "DJANGO_SETTINGS_MODULE", "STILLROOM_PROFILE")
"""
Variables that name an environment: these, and for the first three every name that ends with an underscore and the word,
such as FLASK_ENV. A value with a slash is a path (VIRTUAL_ENV), and names none.
"""

_LOOPBACK_NAMES = frozenset({"localhost", "localhost.localdomain", "ip6-localhost", "ip6-loopback"})
_HOSTS = ("host", "hostaddr")
"""Arguments of drivers that say where to connect to, beside the URL's own host."""
_ELSEWHERE = ("service", "dsn", "conninfo", "read_default_file", "read_default_group", "default_file", "default_group")
"""Arguments that lead to a file which says it."""
_FROM_ENVIRONMENT = {"PGHOST": "{}", "PGHOSTADDR": "{}", "PGSERVICE": "service={}"}
"""What libpq takes where no host is named; the second goes before a host that is."""
_SOCKETS = ("unix_socket", "unix_sock")
_NAMES = ("dbname", "database", "db")


def check(
    databases: Mapping[str, DatabaseSettings], options: TestOptions, environ: Mapping[str, str] = os.environ
) -> None:
    """
    Refuse databases that are not recognisable as test databases; nothing is connected to, and no name is resolved.

    The name of each has a whole word for tests in it, its servers are local or allowed by name, and no variable of the
    environment says that this is production. A name in `options.allowed_databases` lifts the first and the last.

    Args:
        databases: The settings of the databases, by name.
        options: What is allowed, and who is told what was found.
        environ: The variables.

    Raises:
        NotATestDatabase: Says which value is wrong and what to do.
    """
    for name, settings in databases.items():
        _Check(name, settings, options, environ).run()


def refuse_marked(name: str, settings: DatabaseSettings, options: TestOptions, environment: str | None) -> None:
    """
    Refuse a database that says of itself that it is of production.

    Args:
        name: Its name in the settings.
        settings: Its settings.
        options: What is allowed.
        environment: What `mark_environment` wrote into it; None for nothing.

    Raises:
        NotATestDatabase: Says what to do.
    """
    if environment is None or not says_production(environment):
        return
    if settings.url.database in options.allowed_databases:
        options.notice(f"{name}: {settings.url.database!r} is marked {environment!r}, and allowed by its exact name")
        return
    raise NotATestDatabase(
        f"the database {name!r} ({mask_url(settings.url)}) is marked {environment!r} in its table "
        "'stillroom_environment': tests make and drop databases beside it, so they do not run there. Point the profile "
        "of the tests to another server or database; if the mark is wrong, take it away with "
        'mark_environment(database, "test")'
    )


def sqlite_path(url: URL) -> Path | None:
    """
    Return the file of an SQLite URL as it is written; None for a database in memory.
    """
    name = url.database or ""
    if name in ("", ":memory:") or "vfs=memdb" in name or "memdb" in url.query.get("vfs", ""):
        return None
    if not name.startswith("file:"):
        return Path(name)
    parts = urlsplit(name)  # https://www.sqlite.org/uri.html
    path = unquote(parts.path)
    in_memory = path in ("", ":memory:") or "mode=memory" in parts.query or url.query.get("mode") == "memory"
    return None if in_memory else Path(path)


class _Check:
    """
    The rules for one database.
    """

    def __init__(self, name: str, settings: DatabaseSettings, options: TestOptions, environ: Mapping[str, str]) -> None:
        self.name = name
        self.settings = settings
        self.options = options
        self.environ = environ
        self.database = settings.url.database or ""
        self.allowed = bool(self.database) and self.database in options.allowed_databases

    def run(self) -> None:
        """
        Apply them all.
        """
        if self.settings.backend == "sqlite":
            self._check_file()
            where = "no server"
        else:
            self._check_name()
            where = ", ".join(dict.fromkeys(self._check_hosts()))
        self._check_environment()
        why = ", allowed by its exact name" if self.allowed else ""
        self.options.notice(f"{self.name}: {mask_url(self.settings.url)} is for tests ({where}{why})")

    def _refuse(self, why: str, remedy: str) -> NoReturn:
        raise NotATestDatabase(
            mask_text(
                f"the database {self.name!r} ({mask_url(self.settings.url)}) is not used for tests: {why}. {remedy}"
            )
        )

    def _wrong_name(self, what: str) -> NoReturn:
        known = ", ".join(sorted(TEST_WORDS))
        self._refuse(
            f"{what} has none of the words {known} in it",
            f"Name another database in the settings for tests, such as [profiles.test.databases.{self.name}]; "
            f"if this one is right, allow it by its exact name: allowed_databases=({self.database!r},)",
        )

    def _check_file(self) -> None:
        path = sqlite_path(self.settings.url)
        if path is None or self.allowed:
            return
        written = Path(os.path.normpath(path))  # in tests/../shop.db no directory says so
        if any(map(is_test_name, written.parts)):
            return
        if not path.resolve().is_relative_to(Path(tempfile.gettempdir()).resolve()):
            self._wrong_name(f"the path {str(path)!r}")

    def _check_name(self) -> None:
        arguments = {**self.settings.url.query, **self.settings.connect_args}
        hidden = next((key for key in _NAMES if key in arguments), None)
        if hidden is not None:
            self._refuse(
                f"the argument {hidden!r} names the database {arguments[hidden]!r} apart from the URL's path",
                "Write the name into the path of the URL, where it can be checked",
            )
        if not self.database:
            self._refuse("its URL names no database", "Write the name into the path of the URL")
        if not self.allowed and not is_test_name(self.database):
            self._wrong_name(f"the name {self.database!r}")

    def _check_hosts(self) -> Iterator[str]:
        settings = self.settings
        urls = [("url", settings.url)]
        urls += [(f"replicas[{number}]", url) for number, url in enumerate(settings.replicas)]
        urls += [("admin_url", settings.admin_url)] if settings.admin_url is not None else []
        urls += [("migration_url", settings.migration_url)] if settings.migration_url is not None else []
        for key, url in urls:
            hosts = list(self._hosts(url))
            for source, host in hosts:
                if not _is_local(host) and not self._is_allowed(host, url.port):
                    self._refuse(
                        f"{source or key} leads to {host!r}, which is not this machine",
                        f"If tests may run there, allow it by name: allowed_hosts=({host!r},)",
                    )
            yield ", ".join(host for _, host in hosts) or "a local socket"

    def _hosts(self, url: URL) -> Iterator[tuple[str, str]]:
        """
        Yield where a driver would connect to, each with who says so (empty for the URL).
        """
        backend = self.settings.backend
        arguments = {**url.query, **self.settings.connect_args}
        named: list[tuple[str, Any]] = [("", url.host)] if url.host else []
        named += [(f"the argument {key!r}", arguments[key]) for key in _HOSTS if arguments.get(key)]
        named += [("", arguments[key]) for key in _SOCKETS if arguments.get(key)]
        # What a file or a service leads to is not known here: allowed by its own name, or not at all.
        elsewhere = [key for key in _ELSEWHERE if arguments.get(key)]
        named += [(f"the argument {key!r}", f"{key}={arguments[key]}") for key in elsewhere]
        if backend == "postgresql":
            variables = _FROM_ENVIRONMENT.items()
            found = {key: form.format(self.environ[key]) for key, form in variables if self.environ.get(key)}
            named += [(f"the variable {key}", host) for key, host in found.items() if not named or key == "PGHOSTADDR"]
        for source, value in named:
            for text in [value] if isinstance(value, str) else value:
                for host in str(text).split(","):  # libpq tries several in turn
                    if host:
                        yield source, host

    def _is_allowed(self, host: str, port: int | None) -> bool:
        # A host in a query may carry a port of its own; SQLAlchemy takes `host:port` there.
        asked = {host.lower(), host.lower().rpartition(":")[0], f"{host.lower()}:{port}"}
        return not asked.isdisjoint(each.lower() for each in self.options.allowed_hosts if each)

    def _check_environment(self) -> None:
        for variable, value in sorted(self.environ.items()):
            if _names_environment(variable) and "/" not in value and "\\" not in value and says_production(value):
                if self.allowed:
                    self.options.notice(f"{self.name}: {variable} says {value!r}, and the exact name is allowed")
                    continue
                self._refuse(
                    f"the variable {variable} says {value!r}",
                    "Run the tests in an environment of their own, without that variable; if this database is right "
                    f"all the same, allow it by its exact name: allowed_databases=({self.database!r},)",
                )


def _names_environment(variable: str) -> bool:
    upper = variable.upper()
    return upper in ENVIRONMENT_VARIABLES or upper.endswith(tuple(f"_{word}" for word in ENVIRONMENT_VARIABLES[:3]))


def _is_local(host: str) -> bool:
    """
    Say whether a host is this machine, by its text alone: a name server could say anything.
    """
    if host.startswith(("/", "@")):
        return True  # a socket; "@" is Linux's abstract one
    host = _without_port(host).lower().rstrip(".")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host in _LOOPBACK_NAMES or host.endswith(".localhost")  # RFC 6761, section 6.3
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped.is_loopback
    return address.is_loopback


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0] if host.count(":") == 1 else host
