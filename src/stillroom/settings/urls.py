"""
Reads the URLs of databases: which backends and drivers there are, and what is wrong with a URL, without its password.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from stillroom.secrets import mask_url
from stillroom.settings.schema import nearest

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["DRIVERS", "Backend", "backend_of", "parse_url", "scheme_backend"]

Backend = Literal["sqlite", "postgresql", "mysql"]

# The drivers of each dialect, with what installs them; the first one is taken where the URL names none.
DRIVERS: Mapping[str, Mapping[str, str]] = {
    "sqlite": {"pysqlite": "part of Python", "aiosqlite": 'pip install "stillroom[async]"'},
    "postgresql": {
        "psycopg": 'pip install "stillroom[postgresql]"',
        "psycopg2": "pip install psycopg2-binary",
        "asyncpg": "pip install asyncpg",
    },
    "mysql": {
        "pymysql": 'pip install "stillroom[mariadb]"',
        "mysqldb": "pip install mysqlclient",
        "aiomysql": 'pip install "stillroom[async]"',
        "asyncmy": "pip install asyncmy",
        "mariadbconnector": "pip install mariadb",
    },
}
_DIALECTS: Mapping[str, Backend] = {
    "sqlite": "sqlite",
    "postgresql": "postgresql",
    "postgres": "postgresql",
    "mysql": "mysql",
    "mariadb": "mysql",
}
_WRITTEN = ("sqlite", "postgresql", "mysql", "mariadb")

_SCHEME = re.compile(r"\s*([A-Za-z][\w.-]*)(?:\+[\w.-]*)?://")
_FILE = re.compile(r"[\w./\\~-]*[\w-]\.(?:db|sqlite|sqlite3)")
_HIGHEST_PORT = 65535
_ENCODE = "characters such as @ : / % ? # in a user or a password are written percent-encoded (@ is %40)"


def parse_url(text: str | URL) -> URL | str:
    """
    Read the URL of a database.

    ``postgres://`` (as Heroku writes it) becomes ``postgresql://``, ``psycopg_async`` becomes ``psycopg``, which serves
    both worlds, and ``?password=`` becomes the URL's own, which SQLAlchemy masks. A file's path stays as given.

    Args:
        text: the URL; white space around it is dropped.

    Returns:
        The URL, or a sentence that says what is wrong with it and is safe to be shown.
    """
    if isinstance(text, URL):
        return _checked(text, text.render_as_string(hide_password=False))
    text = text.strip()
    if not text:
        return "the URL is empty"
    if "://" not in text:
        return _no_scheme(text)
    # Nothing is raised or chained here: SQLAlchemy's errors may quote the text, and a traceback shows what is chained.
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        reason = f"{mask_url(text)!r} is no URL of a database: the form is backend://user@host:port/name"
        return f"{reason}; the port is a whole number; {_ENCODE}"
    return _checked(url, text)


def backend_of(url: URL) -> Backend:
    """
    Say which backend a valid URL is of.

    Returns:
        ``sqlite``, ``postgresql``, or ``mysql`` (for MariaDB too).
    """
    return _DIALECTS[url.get_backend_name()]


def scheme_backend(text: object) -> Backend | None:
    """
    Say which backend a URL is of by its scheme alone.

    Args:
        text: a URL, or anything.

    Returns:
        The backend, or None where the scheme is none of ours, or is not there.
    """
    if isinstance(text, URL):
        return _DIALECTS.get(text.get_backend_name().lower())
    scheme = _SCHEME.match(text) if isinstance(text, str) else None
    return _DIALECTS.get(scheme[1].lower()) if scheme else None


def _no_scheme(text: str) -> str:
    """
    Say what is wrong with a text that has no ``://``; it is shown only where it is surely a file's name.
    """
    if _FILE.fullmatch(text):
        return f"{text!r} is no URL; a file of SQLite is written {'sqlite:///' + text!r}"
    return f"a text of {len(text)} characters without '://' is no URL; write backend://user@host:port/name"


def _checked(url: URL, text: str) -> URL | str:
    """
    Check dialect, driver, host and port, and bring the URL into one form.
    """
    dialect, _, driver = url.drivername.lower().partition("+")
    backend = _DIALECTS.get(dialect)
    if backend is None:
        meant = nearest(dialect, _WRITTEN).partition("; known")[0]
        reason = f"{mask_url(text)!r} is of the unknown dialect {dialect!r}{meant}"
        return f"{reason}; known dialects: {', '.join(_WRITTEN)}"
    driver = "psycopg" if driver == "psycopg_async" else driver
    if driver and driver not in DRIVERS[backend]:
        return _unknown_driver(dialect, driver, backend)
    if backend == "sqlite" and (url.host or url.username or url.port):
        forms = "three slashes (sqlite:///shop.db), with an absolute path four (sqlite:////srv/shop.db)"
        return f"{mask_url(text)!r} names a host: a file of SQLite is written with {forms}"
    if "@" in (url.host or ""):
        return f"{mask_url(text)!r} has more than one '@': {_ENCODE}"
    if url.port is not None and not 0 < url.port <= _HIGHEST_PORT:
        return f"{mask_url(text)!r} has the port {url.port}: a port is 1 to {_HIGHEST_PORT}"
    name = "postgresql" if dialect == "postgres" else dialect
    url = url.set(drivername=f"{name}+{driver}" if driver else name)
    return url if backend == "sqlite" else _password_in_its_place(url)


def _unknown_driver(dialect: str, driver: str, backend: Backend) -> str:
    """
    Name the drivers that are known, and what installs them.
    """
    known = ", ".join(f"{name} ({install})" for name, install in DRIVERS[backend].items())
    default = next(iter(DRIVERS[backend]))
    meant = nearest(driver, DRIVERS[backend]).partition("; known")[0]
    reason = f"{driver!r} is no driver that Stillroom knows for {dialect}{meant}"
    return f"{reason}; known drivers: {known}; without one ({dialect}://…) it is {default}"


def _password_in_its_place(url: URL) -> URL:
    """
    Move ``?user=…&password=…`` to where SQLAlchemy masks it; as in the drivers, the argument wins over the URL's own.
    """
    password, user = url.query.get("password"), url.query.get("user", url.username)
    if not isinstance(password, str) or not isinstance(user, str):
        return url
    return url.set(username=user, password=password).difference_update_query(["user", "password"])
