"""
Makes checked values of what the sources say: profile and environment over the file, variables put in, types given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from sqlalchemy.engine import URL

from stillroom.settings.checks import check_all, check_database
from stillroom.settings.interpolation import MissingVariable, Verbatim, expand, expand_url
from stillroom.settings.schema import (
    DATABASE_KEYS,
    LACKS,
    TOP_KEYS,
    URL_KEYS,
    Given,
    Problem,
    convert,
    join,
    known_keys,
    name_problem,
    nearest,
)
from stillroom.settings.sources import DATABASE_URL, url_variables
from stillroom.settings.urls import parse_url, scheme_backend

__all__ = ["Resolved", "convert_database", "overlay", "resolve"]

PROFILE = "STILLROOM_PROFILE"
TEST = "test"

# They belong to the server of the url beside them: with another url they would send reads, migrations or a
# DROP DATABASE to the old server.
_OF_THE_SERVER = ("replicas", "admin_url", "migration_url")
# What is written in the words of one backend or driver.
_OF_THE_BACKEND = ("connect_args", "server_settings", "isolation")

Environ = Mapping[str, str]


class Resolved(NamedTuple):
    """
    Checked values, each table with only what was given.
    """

    databases: dict[str, dict[str, Any]]
    top: dict[str, Any]
    profile: str | None


class _Layer(NamedTuple):
    """
    One source's tables: where they stand, the top keys, the databases.
    """

    path: str
    top: dict[str, Any]
    databases: dict[str, dict[str, Any]]


def resolve(raw: Mapping[str, Any], profile: str | None, environ: Environ, problems: list[Problem]) -> Resolved | None:
    """
    Make checked values of the settings as written.

    Args:
        raw: the tables of a file or a mapping.
        profile: the profile's name; None for that of STILLROOM_PROFILE; empty for none.
        environ: the variables.
        problems: grows by everything that is wrong.

    Returns:
        The values, or None if anything is wrong.
    """
    tables = known_keys("", raw, [*TOP_KEYS, "databases", "profiles"], problems)
    base = _layer("", tables, problems)
    profiles = _profiles(tables.get("profiles", {}), problems)
    profile = (environ.get(PROFILE) if profile is None else profile) or None
    layers = [base, *_chosen(profile, profiles, problems)]
    top = {
        key: Given(value, join(layer.path, key))
        for layer in layers
        for key, value in layer.top.items()
        if value is not None
    }
    top = _expanded(top, environ, problems)
    databases = _merged(layers, environ)
    supplied = _supplied(databases, top.get("default"), environ)
    if supplied is not None:
        databases.setdefault(supplied, {})
    _override_urls(databases, [base, *profiles.values()], environ, problems)
    if supplied is not None and "url" not in databases[supplied]:
        url = Given(Verbatim(environ[DATABASE_URL]), f"databases.{supplied}.url ({DATABASE_URL})")
        databases[supplied]["url"] = url
    databases = {name: _expanded(given, environ, problems) for name, given in databases.items()}
    if profile == TEST and not problems:
        # Only what the profile itself names: a database that it leaves as it is may be the one in production.
        for name, table in profiles[TEST].databases.items():
            if table.get("url") is not None:
                databases[name].setdefault("disposable", Given(value=True, path=f"databases.{name}.disposable"))
    values = {
        key: convert(key, given.path, given.value, TOP_KEYS, problems)
        for key, given in top.items()
        if given.value is not None
    }
    converted = {name: convert_database(f"databases.{name}", given, problems) for name, given in databases.items()}
    values["default"] = check_all(converted, top.get("default"), problems)
    return None if problems else Resolved(converted, values, profile)


def _layer(path: str, tables: Mapping[str, Any], problems: list[Problem]) -> _Layer:
    """
    Take one source apart; unknown keys and names are noted with the path that they have in this source.
    """
    databases: dict[str, dict[str, Any]] = {}
    where = join(path, "databases")
    declared = tables.get("databases", {})
    if not isinstance(declared, Mapping):
        known_keys(where, declared, (), problems)
        declared = {}
    for name, table in declared.items():
        if problem := name_problem(name):
            problems.append(Problem(join(where, name), problem))
        elif isinstance(table, str):
            problems.append(
                Problem(join(where, name), f"expected a table, got text; a URL is written {join(where, name)}.url")
            )
        else:
            databases[name] = known_keys(join(where, name), table, DATABASE_KEYS, problems)
    return _Layer(path, {key: tables[key] for key in TOP_KEYS if key in tables}, databases)


def _profiles(table: Any, problems: list[Problem]) -> dict[str, _Layer]:
    """
    Take all profiles apart, those too that are not chosen: a slip there would only show in production.
    """
    if not isinstance(table, Mapping):
        known_keys("profiles", table, (), problems)
        return {}
    layers = {}
    for name, tables in table.items():
        path = join("profiles", name)
        layers[str(name)] = _layer(path, known_keys(path, tables, [*TOP_KEYS, "databases"], problems), problems)
    return layers


def _chosen(profile: str | None, profiles: Mapping[str, _Layer], problems: list[Problem]) -> list[_Layer]:
    """
    Find the chosen profile.
    """
    if profile is None:
        return []
    if profile not in profiles:
        known = nearest(profile, profiles) or "; no profiles are declared"
        problems.append(Problem(join("profiles", profile), f"no profile {profile!r} is declared{known}"))
        return []
    return [profiles[profile]]


def _merged(layers: Iterable[_Layer], environ: Environ) -> dict[str, dict[str, Given]]:
    """
    Lay the databases of the layers over each other.
    """
    databases: dict[str, dict[str, Given]] = {}
    for layer in layers:
        for name, table in layer.databases.items():
            path = join(join(layer.path, "databases"), name)
            upper = {key: Given(value, join(path, key)) for key, value in table.items()}
            databases[name] = overlay(databases.get(name, {}), upper, lambda text: _backend(text, environ))
    return databases


def overlay(
    lower: Mapping[str, Given], upper: Mapping[str, Given], backend: Callable[[Any], str | None]
) -> dict[str, Given]:
    """
    Lay one database's table over another.

    A table inside is merged, everything else replaced; None takes the default again. Another ``url`` is another server:
    what belongs to the old one does not carry over, nor, on another backend, what that one lacks.

    Args:
        lower: what was given so far.
        upper: what comes over it.
        backend: says which backend a URL is of, as it is written; None where that is not known.

    Returns:
        The values of both.
    """
    merged = dict(lower)
    if "url" in upper and "url" in lower:
        old, new = backend(lower["url"].value), backend(upper["url"].value)
        dropped = [*_OF_THE_SERVER, *LACKS.get(new or "", ())]
        if old != new and None not in {old, new}:
            dropped += _OF_THE_BACKEND
        for key in dropped:
            merged.pop(key, None)
    for key, given in upper.items():
        below = merged.get(key)
        if given.value is None:
            merged.pop(key, None)
        elif below is not None and isinstance(given.value, Mapping) and isinstance(below.value, Mapping):
            merged[key] = Given(_deep(below.value, given.value), given.path)
        else:
            merged[key] = given
    return merged


def _deep(lower: Mapping[str, Any], upper: Mapping[str, Any]) -> dict[str, Any]:
    """
    Merge two tables at every depth.
    """
    merged = dict(lower)
    for key, value in upper.items():
        below = merged.get(key)
        both = isinstance(value, Mapping) and isinstance(below, Mapping)
        merged[key] = _deep(below, value) if both else value  # type: ignore[arg-type]
    return merged


def _backend(text: Any, environ: Environ) -> str | None:
    """
    Say which backend a URL with variables in it is of, as far as the variables are set.
    """
    known = scheme_backend(text)
    if known is None and isinstance(text, str):
        try:
            return scheme_backend(expand_url(text, environ))
        except MissingVariable:
            return None
    return known


def _override_urls(
    databases: dict[str, dict[str, Given]], layers: Iterable[_Layer], environ: Environ, problems: list[Problem]
) -> None:
    """
    Put in the URLs of ``STILLROOM_<DATABASE>_URL``.

    A name that only another profile declares is left alone, for variables are shared; one that nothing declares is a
    slip, unless it begins with TEST_: such variables name the servers of a test run.
    """
    variables = url_variables(environ)
    here = {name.upper(): name for name in databases}
    anywhere = {name.upper() for layer in layers for name in layer.databases} | here.keys()
    for name, (variable, value) in variables.items():
        if name in here:
            table = databases[here[name]]
            upper = {"url": Given(value, f"databases.{here[name]}.url ({variable})")}
            databases[here[name]] = overlay(table, upper, lambda text: _backend(text, environ))
        elif name not in anywhere and not name.startswith("TEST_"):
            known = nearest(variable, [f"STILLROOM_{known}_URL" for known in anywhere])
            text = f"no database {name.lower()!r} is declared, and this variable declares none{known}"
            problems.append(Problem(variable, f"{text}; DATABASE_URL alone declares 'main'" if not anywhere else text))


def _expanded(table: Mapping[str, Given], environ: Environ, problems: list[Problem]) -> dict[str, Given]:
    """
    Put the variables into every string of one table. A value that lacks one becomes None, so that it is noted once.
    """
    expanded = {}
    for key, given in table.items():
        before = len(problems)
        value = _expand(key, given, environ, problems)
        expanded[key] = Given(value if len(problems) == before else None, given.path)
    return expanded


def _expand(key: str, given: Given, environ: Environ, problems: list[Problem]) -> Any:
    """
    Put the variables into a value at every depth. What lacks one is noted.
    """
    value, path = given
    # A URL object is a tuple, and finished: a "${" in it is a part of its password.
    if isinstance(value, URL):
        return value
    if isinstance(value, str):
        try:
            return expand_url(value, environ) if key in URL_KEYS else expand(value, environ)
        except MissingVariable as error:
            problems.append(Problem(path, str(error)))
            return None
    if isinstance(value, Mapping):
        return {name: _expand(key, Given(item, join(path, name)), environ, problems) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_expand(key, Given(item, f"{path}[{at}]"), environ, problems) for at, item in enumerate(value)]
    return value


def _supplied(databases: Mapping[str, Mapping[str, Given]], default: Given | None, environ: Environ) -> str | None:
    """
    Say which database DATABASE_URL is for: the default one, which need not be declared where nothing else could be it.

    Returns:
        Its name; None where the variable is not set, or the default database is not known.
    """
    if not environ.get(DATABASE_URL):
        return None
    candidates = [name for name, given in databases.items() if "role" not in given or given["role"].value != "logger"]
    if default is not None:
        name = default.value
    elif "main" in candidates or not candidates:
        name = "main"
    else:
        name = candidates[0] if len(candidates) == 1 else None
    if not isinstance(name, str) or (name not in databases and (candidates or name_problem(name))):
        return None
    return str(name)


def convert_database(path: str, given: Mapping[str, Given], problems: list[Problem]) -> dict[str, Any]:
    """
    Give the values of one database their types, URLs included, and check them together.

    Args:
        path: where the database stands, such as ``databases.main``.
        given: its values, without variables.
        problems: grows by everything that is wrong.

    Returns:
        The values that are right.
    """
    values: dict[str, Any] = {}
    for key, (value, where) in given.items():
        if value is None:
            values[key] = None
        elif key == "replicas":
            values[key] = _urls(where, value, problems)
        elif key in URL_KEYS:
            values[key] = _url(where, value, problems)
        else:
            values[key] = convert(key, where, value, DATABASE_KEYS, problems)
    check_database(path, values, {key: item.path for key, item in given.items()}, problems)
    return {key: value for key, value in values.items() if value is not None}


def _url(path: str, value: Any, problems: list[Problem]) -> URL | None:
    """
    Read one URL. Nothing of it is shown here: the sentences of ``parse_url`` are masked.
    """
    if value is not None:
        is_url = isinstance(value, (str, URL))
        parsed = parse_url(value) if is_url else f"expected {DATABASE_KEYS['url'].expected}, got {type(value).__name__}"
        if isinstance(parsed, URL):
            return parsed
        problems.append(Problem(path, parsed))
    return None


def _urls(path: str, value: Any, problems: list[Problem]) -> tuple[URL, ...] | None:
    """
    Read a list of URLs; a URL is a tuple itself, and a string a sequence.
    """
    if not isinstance(value, (list, tuple)) or isinstance(value, URL):
        problems.append(Problem(path, f"expected {DATABASE_KEYS['replicas'].expected}, got {type(value).__name__}"))
        return None
    urls = [_url(f"{path}[{at}]", item, problems) for at, item in enumerate(value)]
    return tuple(url for url in urls if url is not None) if None not in urls else None
