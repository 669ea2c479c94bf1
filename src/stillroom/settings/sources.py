"""
Reads where settings come from: a TOML file, ``pyproject.toml``, flat keys of an ``.ini`` file, the environment.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stillroom.settings.interpolation import Text, Verbatim
from stillroom.settings.schema import DATABASE_KEYS, Problem, guess

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

__all__ = ["DATABASE_URL", "find_file", "from_flat", "url_variables"]

DATABASE_URL = "DATABASE_URL"
CONFIG = "STILLROOM_CONFIG"

_URL_VARIABLE = re.compile(r"STILLROOM_(.+)_URL")
_WORDS = re.compile(r"[\s,]+")
# A comma may stand inside a URL: it separates two only before white space, before the next URL, or at the end.
_BETWEEN_URLS = re.compile(r"\s*,\s+|\s+|\s*,(?=[A-Za-z][\w+.-]*://|\$\{|$)")
_TABLE_DEPTH = 2


def find_file(
    path: str | os.PathLike[str] | None, environ: Mapping[str, str], problems: list[Problem]
) -> dict[str, Any]:
    """
    Read the settings' file.

    Args:
        path: the file; None for the one that STILLROOM_CONFIG names, else ``stillroom.toml`` in the current directory,
            else ``[tool.stillroom]`` in its ``pyproject.toml``.
        environ: the variables.
        problems: grows by one where a file that was named is not there or cannot be read.

    Returns:
        What the file says; an empty dict where there is no file.
    """
    if path is not None:
        return _read(Path(path), "", problems)
    if named := environ.get(CONFIG):
        return _read(Path(named), f" ({CONFIG})", problems)
    own, project = Path("stillroom.toml"), Path("pyproject.toml")
    if own.is_file():
        return _read(own, "", problems)
    if project.is_file():
        table = _tables(project, "", problems).get("tool", {}).get("stillroom", {})
        return table if isinstance(table, dict) else _read(project, "", problems)
    return {}


def _read(path: Path, named_by: str, problems: list[Problem]) -> dict[str, Any]:
    """
    Read one file: all of it, or the one table where it is a ``pyproject.toml``.
    """
    if path.suffix.lower() in {".ini", ".cfg", ".conf"}:
        text = f"an .ini file{named_by} is for Settings.from_ini, after its framework has read it; this reads TOML"
        problems.append(Problem(str(path), text))
        return {}
    tables = _tables(path, named_by, problems)
    if path.name != "pyproject.toml" or not tables:
        return tables
    tool = tables.get("tool", {})
    table = tool.get("stillroom") if isinstance(tool, dict) else None
    if not isinstance(table, dict):
        problems.append(Problem(str(path), f"the file{named_by} has no table [tool.stillroom]"))
        return {}
    return table


def _tables(path: Path, named_by: str, problems: list[Problem]) -> dict[str, Any]:
    """
    Parse a TOML file. The parser's error carries the whole document, so that only its sentence is kept.
    """
    import tomllib

    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        problems.append(
            Problem(str(path), f"the settings' file{named_by} cannot be read: {error.strerror or type(error).__name__}")
        )
    except UnicodeDecodeError as error:
        problems.append(Problem(str(path), f"the settings' file{named_by} is not UTF-8 at byte {error.start}"))
    except tomllib.TOMLDecodeError as error:
        problems.append(Problem(str(path), f"the settings' file{named_by} is not valid TOML: {error}"))
    return {}


def from_flat(flat: Mapping[str, Any], prefix: str, problems: list[Problem]) -> dict[str, Any]:
    """
    Turn flat keys into nested tables.

    Args:
        flat: for instance Pyramid's settings; keys that do not begin with ``prefix`` are left alone.
        prefix: what the keys begin with, such as ``stillroom.``.
        problems: grows by one where a key is both a value and a table.

    Returns:
        The tables, with every string a Text, and the lists split.
    """
    prefix = prefix if not prefix or prefix.endswith(".") else f"{prefix}."
    tables: dict[str, Any] = {}
    for full, value in flat.items():
        if not full.startswith(prefix) or full == prefix:
            continue
        keys = _split_key(full.removeprefix(prefix))
        table: Any = tables
        for key in keys[:-1]:
            table = table.setdefault(key, {}) if isinstance(table, dict) else None
        if not isinstance(table, dict) or isinstance(table.get(keys[-1]), dict):
            problems.append(Problem(full, "the key has a value here, and further keys below it elsewhere"))
            continue
        table[keys[-1]] = _typed(keys, value)
    return tables


def _split_key(key: str) -> list[str]:
    """
    Split a flat key; below a table such as ``server_settings`` the rest is one key, for names there may have dots.
    """
    keys = key.split(".")
    start = 2 if keys[0] == "profiles" else 0
    if len(keys) > start + _TABLE_DEPTH + 1 and keys[start] == "databases":
        known = DATABASE_KEYS.get(keys[start + _TABLE_DEPTH])
        if known is not None and known.form == "table":
            return [*keys[: start + 3], ".".join(keys[start + 3 :])]
    return keys


def _typed(keys: list[str], value: Any) -> Any:
    """
    Read the text of one flat key in the form that its setting has.
    """
    if not isinstance(value, str):
        return value
    if len(keys) > 1 and (table := DATABASE_KEYS.get(keys[-2])) is not None and table.form == "table":
        return str(value) if keys[-2] == "server_settings" else guess(keys[-1], value)
    known = DATABASE_KEYS.get(keys[-1]) if "databases" in keys[:-1] else None
    if known is not None and known.form in {"words", "urls"}:
        between = _WORDS if known.form == "words" else _BETWEEN_URLS
        return [Text(item) for item in between.split(value.strip()) if item]
    return Text(value.strip())


def url_variables(environ: Mapping[str, str]) -> dict[str, tuple[str, Verbatim]]:
    """
    Find the variables that name a database: ``STILLROOM_MAIN_URL``.

    Args:
        environ: the variables. One that is set but empty counts as not set, as shells and containers pass it on so.

    Returns:
        By the upper-case name of the database: the variable's name and its value.
    """
    found = {}
    for variable, value in environ.items():
        if value and (match := _URL_VARIABLE.fullmatch(variable)):
            found[match[1].upper()] = (variable, Verbatim(value))
    return found
