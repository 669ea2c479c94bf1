"""
Checks typed values together: one database's against its backend, and the databases against each other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy.engine import URL

from stillroom.secrets import mask_url
from stillroom.settings.schema import LACKS, Given, Problem, nearest
from stillroom.settings.urls import Backend, backend_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["check_all", "check_database"]

_WRITTEN: Mapping[Backend, str] = {"sqlite": "SQLite", "postgresql": "PostgreSQL", "mysql": "MariaDB or MySQL"}
# https://www.sqlite.org/isolation.html: transactions are serializable; READ UNCOMMITTED matters to a shared cache only.
_SQLITE_ISOLATION = frozenset({"SERIALIZABLE", "READ UNCOMMITTED"})


def check_database(path: str, values: Mapping[str, Any], paths: Mapping[str, str], problems: list[Problem]) -> None:
    """
    Check one database: it has a url, its other URLs are of the same backend, and the backend has what is asked of it.

    Args:
        path: where the database stands, such as ``databases.main``.
        values: what was given, typed; None for what has already failed. Empty values (0, false, []) ask for nothing.
        paths: the full key path of each value.
        problems: grows by everything that is wrong.
    """
    name = path.rpartition(".")[2]
    if "url" not in values:
        text = f"missing; give one, or set STILLROOM_{name.upper()}_URL (for the default database DATABASE_URL will do)"
        problems.append(Problem(f"{path}.url", text))
    url = values.get("url")
    if not isinstance(url, URL):
        return
    backend = backend_of(url)
    for key, reason in LACKS[backend].items():
        if values.get(key):
            problems.append(Problem(paths.get(key, f"{path}.{key}"), f"{reason}; leave it out"))
    isolation = values.get("isolation")
    if backend == "sqlite" and isolation and isolation not in _SQLITE_ISOLATION:
        text = f"SQLite has no {isolation}: its transactions are SERIALIZABLE; leave it out"
        problems.append(Problem(paths.get("isolation", f"{path}.isolation"), text))
    for key in ("replicas", "admin_url", "migration_url"):
        if key == "replicas" and key in LACKS[backend]:
            continue
        others = values.get(key) or ()
        for at, other in enumerate([others] if isinstance(others, URL) else others):
            if backend_of(other) != backend:
                where = f"{paths.get(key, f'{path}.{key}')}{f'[{at}]' if key == 'replicas' else ''}"
                kinds = f"is of {_WRITTEN[backend_of(other)]}, the database of {_WRITTEN[backend]}"
                problems.append(Problem(where, f"{mask_url(other)!r} {kinds}: both must be of one backend"))


def check_all(databases: Mapping[str, Mapping[str, Any]], default: Given | None, problems: list[Problem]) -> str | None:
    """
    Check the databases against each other, and choose the default one.

    Args:
        databases: by name, in declared order, what was given for each.
        default: the default's name as given; None to choose: ``main``, else the only one that is no logger.
        problems: grows by everything that is wrong.

    Returns:
        The default database's name, or None if there is none.
    """
    if not databases:
        if not problems:
            text = "no database is declared; write [databases.main] with a url in stillroom.toml, or set DATABASE_URL"
            problems.append(Problem("databases", text))
        return None
    _check_names(databases, problems)
    loggers = [name for name, values in databases.items() if values.get("role") == "logger"]
    if len(loggers) > 1:
        text = f"only one database can be the logger, and {' and '.join(map(repr, loggers))} are"
        problems.append(Problem(f"databases.{loggers[1]}.role", text))
    _check_dependencies(databases, problems)
    others = [name for name in databases if name not in loggers]
    if default is not None:
        return _given_default(default, databases, loggers, problems)
    if "main" in others or len(others) == 1:
        return "main" if "main" in others else others[0]
    if others:
        text = f"missing; say which database is the default one: {', '.join(map(repr, others))}"
    else:
        text = "every database is a logger, and a logger cannot be the default one; declare another database"
    problems.append(Problem("default", text))
    return None


def _given_default(
    default: Given, databases: Mapping[str, Any], loggers: Sequence[str], problems: list[Problem]
) -> str | None:
    """
    Check the name that was given for the default database. One of a wrong type has been noted already.
    """
    name, path = default
    if not isinstance(name, str) or not name:
        return None
    if name not in databases:
        problems.append(Problem(path, f"no database {name!r} is declared{nearest(name, databases)}"))
    elif name in loggers:
        text = f"{name!r} is the logger, which commits on its own and cannot be the default database; name another one"
        problems.append(Problem(path, text))
    return str(name)


def _check_names(databases: Mapping[str, Any], problems: list[Problem]) -> None:
    """
    Refuse names that differ by case alone: variables of the environment and file systems do not tell them apart.
    """
    seen: dict[str, str] = {}
    for name in databases:
        first = seen.setdefault(name.casefold(), name)
        if first != name:
            text = f"{first!r} and {name!r} differ by case alone: STILLROOM_{name.upper()}_URL would mean both"
            problems.append(Problem(f"databases.{name}", text))


def _check_dependencies(databases: Mapping[str, Mapping[str, Any]], problems: list[Problem]) -> None:
    """
    Check that ``depends_on`` names databases and leads nowhere in a circle.
    """
    needs = {name: list(values.get("depends_on") or ()) for name, values in databases.items()}
    for name, wanted in needs.items():
        for other in wanted:
            if other not in needs:
                text = f"no database {other!r} is declared{nearest(other, needs)}"
                problems.append(Problem(f"databases.{name}.depends_on", text))
    if not any(needs.values()):
        return
    from graphlib import CycleError, TopologicalSorter

    cycle: list[str] = []
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as error:
        cycle = list(reversed(error.args[1]))
    if cycle:
        problems.append(
            Problem(f"databases.{cycle[0]}.depends_on", f"a circle: {' -> '.join(cycle)}; remove one of them")
        )
