"""What differs between SQLite, PostgreSQL and MariaDB: one small module for each."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

from .base import GID_PREFIX, LIMITED, Backend, Begin, Marker, Outcome, Role, Server, new_gid

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

__all__ = [
    "GID_PREFIX",
    "LIMITED",
    "Backend",
    "Begin",
    "Marker",
    "Outcome",
    "Role",
    "Server",
    "backend_for",
    "new_gid",
]

_BACKENDS = {
    "sqlite": ("sqlite", "SQLite"),
    "postgresql": ("postgresql", "PostgreSQL"),
    "mysql": ("mysql", "MySQL"),
    "mariadb": ("mysql", "MySQL"),
}


def backend_for(url: URL) -> Backend:
    """
    Return the backend that serves the dialect of `url`.

    Raises:
        LookupError: Stillroom has no backend for the dialect; settings refuse such a URL earlier.
    """
    dialect = url.get_backend_name()
    if dialect not in _BACKENDS:
        raise LookupError(f"no backend for the dialect {dialect!r}; there are {', '.join(_BACKENDS)}")
    return _backend(*_BACKENDS[dialect])


@cache
def _backend(module: str, name: str) -> Backend:
    # Imported when it is needed: an application that uses PostgreSQL does not load sqlite3.
    backend: Backend = getattr(import_module(f".{module}", __package__), name)()
    return backend
