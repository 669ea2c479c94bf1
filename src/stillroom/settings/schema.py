"""
What settings may be written: the keys, their types and bounds, the names that are taken, what a backend lacks.
"""

from __future__ import annotations

import keyword
import math
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from msgspec import Meta

from stillroom.secrets import is_secret, mask_text
from stillroom.settings.interpolation import Text

__all__ = [
    "DATABASE_KEYS",
    "LACKS",
    "RESERVED_NAMES",
    "TOP_KEYS",
    "URL_KEYS",
    "Given",
    "Key",
    "Problem",
    "convert",
    "guess",
    "join",
    "known_keys",
    "name_problem",
    "nearest",
]

MultipleWrites = Literal["ordered", "two_phase", "refuse"]
Isolation = Literal["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE", "READ UNCOMMITTED"]
Role = Literal["logger"]

# A database is read as `uow.main` and `dbs.main`: one of these names could not be reached.
_RESERVED = """
    any commit core databases doom in_threads info is_active logger on_commit on_rollback options outer reader rollback
    savepoint session status writer
    aclose async_transaction async_unit_of_work close configure current declared default has_current is_configured ping
    override recover scoped settings transaction transactional unit_of_work watch_databases with_session
    add begin database end execute flush get name nested role snapshot token uow
"""  # of the unit of work; of the databases; of what people would take for either
RESERVED_NAMES = frozenset(_RESERVED.split())

Seconds = Annotated[float, Meta(ge=0)]
Count = Annotated[int, Meta(ge=0)]
AtLeastOne = Annotated[int, Meta(ge=1)]
Name = Annotated[str, Meta(min_length=1)]
SecretKey = Annotated[str, Meta(min_length=16)]
ModuleName = Annotated[str, Meta(pattern=r"^[^\W\d]\w*(\.[^\W\d]\w*)*$")]
ObjectName = Annotated[str, Meta(pattern=r"^[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*$")]


class Problem(NamedTuple):
    """
    One thing that is wrong: the full key path and a sentence that is safe to be shown.
    """

    path: str
    text: str


class Given(NamedTuple):
    """
    A value and the full key path (or the variable) that it was given by.
    """

    value: Any
    path: str


class Key(NamedTuple):
    """
    What may stand under one key.

    Attributes:
        type: the type as msgspec reads it.
        expected: the same in words, for errors.
        form: how text from a flat source is read: as it is, as a list of words or of URLs, or as a further table.
    """

    type: Any
    expected: str
    form: Literal["plain", "words", "urls", "table"] = "plain"


_SECONDS = Key(Seconds, "a number of seconds, 0 or more")
_FLAG = Key(bool, "true or false")
_URL = Key(str, "a URL, such as 'postgresql://user@host/name'")

DATABASE_KEYS: Mapping[str, Key] = {
    "url": _URL,
    "replicas": Key(tuple[str, ...], "a list of URLs", "urls"),
    "role": Key(Role, "'logger'"),
    "metadata": Key(ObjectName, "'package.module:attribute'"),
    "models": Key(tuple[ModuleName, ...], "a list of packages or modules, such as ['shop.models']", "words"),
    "migrations": Key(Name, "a directory"),
    "depends_on": Key(tuple[str, ...], "a list of names of databases", "words"),
    "admin_url": _URL,
    "migration_url": _URL,
    "version_table": Key(Name, "the name of a table"),
    "version_schema": Key(Name, "the name of a schema"),
    "disposable": _FLAG,
    "pooler": _FLAG,
    "pool_size": Key(AtLeastOne, "a number of connections, 1 or more"),
    "max_overflow": Key(Count, "a number of connections, 0 or more"),
    "pool_timeout": _SECONDS,
    "pool_recycle": _SECONDS,
    "ping_after": _SECONDS,
    "connect_timeout": _SECONDS,
    "statement_timeout": _SECONDS,
    "lock_timeout": _SECONDS,
    "idle_transaction_timeout": _SECONDS,
    "commit_timeout": _SECONDS,
    "verify_commit": _FLAG,
    "isolation": Key(Isolation, "'READ COMMITTED', 'REPEATABLE READ', 'SERIALIZABLE' or 'READ UNCOMMITTED'"),
    "echo": _FLAG,
    "server_settings": Key(dict[str, str | int | float | bool], "a table of text, numbers and booleans", "table"),
    "connect_args": Key(dict[str, Any], "a table", "table"),
    "engine": Key(dict[str, Any], "a table", "table"),
}
URL_KEYS = frozenset({"url", "replicas", "admin_url", "migration_url"})
_NEVER_SHOWN = URL_KEYS | {"connect_args", "engine", "server_settings"}

TOP_KEYS: Mapping[str, Key] = {
    "default": Key(Name, "the name of a database"),
    "on_multiple_writes": Key(MultipleWrites, "'ordered', 'two_phase' or 'refuse'"),
    "application": Key(Name, "a name, as text"),
    "secret_key": Key(SecretKey, "a text of 16 characters or more, such as `openssl rand -hex 32` makes"),
}

LACKS: Mapping[str, Mapping[str, str]] = {
    "sqlite": {
        "replicas": "SQLite has no replicas",
        "idle_transaction_timeout": "SQLite has no timeout for idle transactions",
        "pooler": "SQLite has no pooler",
        "server_settings": "SQLite has no server",
        "version_schema": "SQLite has no schemas; `version_table` tells apart what shares a file",
        "connect_timeout": "SQLite connects to no server; `lock_timeout` is how long it waits for a lock",
    },
    "postgresql": {},
    "mysql": {
        "pooler": "the setting `pooler` is about PgBouncer, which MariaDB and MySQL have not",
        "version_schema": "a schema of MariaDB is a database of its own; `version_table` tells apart what shares one",
    },
}

_OWN_ENGINE_KEYS: Mapping[str, str] = {
    "url": "url",
    "connect_args": "connect_args",
    "pool_size": "pool_size",
    "max_overflow": "max_overflow",
    "pool_timeout": "pool_timeout",
    "pool_recycle": "pool_recycle",
    "pool_pre_ping": "ping_after",
    "echo": "echo",
    "isolation_level": "isolation",
}

_TRUE, _FALSE = frozenset({"true", "yes", "on", "1", "t", "y"}), frozenset({"false", "no", "off", "0", "f", "n"})


def nearest(word: str, known: Iterable[str]) -> str:
    """
    Say which known word is meant, for the end of an error's sentence.

    Args:
        word: what was written.
        known: what could have been.

    Returns:
        ``; did you mean 'main'?``, else ``; known: 'audit', 'main'``, else an empty text.
    """
    import difflib

    words = sorted(known)
    found = difflib.get_close_matches(word, words, n=1)
    if found:
        return f"; did you mean {found[0]!r}?"
    return f"; known: {', '.join(map(repr, words))}" if words else ""


def known_keys(path: str, table: Any, known: Iterable[str], problems: list[Problem]) -> dict[str, Any]:
    """
    Take the keys of a table that exist, and note the others.

    Args:
        path: where the table stands, such as ``databases.main``; empty for the whole.
        table: what stands there; should be a mapping.
        known: the keys that exist.
        problems: grows by one for every key that does not.

    Returns:
        A new dict of the known keys.
    """
    if not isinstance(table, Mapping):
        problems.append(Problem(path, f"expected a table, got {type(table).__name__}"))
        return {}
    known = tuple(known)
    taken = {}
    for key, value in table.items():
        if key in known:
            taken[key] = value
        elif key == "profile" and not path:
            problems.append(
                Problem(key, "a profile is chosen by the argument `profile` or by STILLROOM_PROFILE, not by a key")
            )
        else:
            problems.append(Problem(join(path, key), f"unknown key{nearest(str(key), known)}"))
    return taken


def join(path: str, key: object) -> str:
    """
    Extend a key path by one key.
    """
    return f"{path}.{mask_text(str(key))}" if path else mask_text(str(key))


def name_problem(name: object) -> str | None:
    """
    Say why a name cannot be that of a database.

    Args:
        name: what was written as the name.

    Returns:
        A sentence, or None where the name is good.
    """
    if not isinstance(name, str) or not name.isidentifier() or keyword.iskeyword(name) or name.startswith("_"):
        return "a database is read as `uow.<name>`, so its name is a letter, then letters, digits, `_`, and no keyword"
    if name in RESERVED_NAMES:
        return f"{name!r} is a word of the unit of work, which would hide the database; choose another name"
    return None


def convert(key: str, path: str, value: Any, keys: Mapping[str, Key], problems: list[Problem]) -> Any:
    """
    Give a value its type.

    Args:
        key: the last key of the path.
        path: the full key path, for errors.
        value: as read; a Text (from a flat source, or with a variable in it) may spell a number or a boolean.
        keys: the table that ``key`` stands in.
        problems: grows by one where the value does not fit.

    Returns:
        The value, or None where it does not fit.
    """
    wanted = keys[key]
    if isinstance(value, Text):
        value = _from_text(value, wanted)
    if key == "isolation" and isinstance(value, str):
        value = " ".join(value.upper().replace("_", " ").split())
    # The error is noted, not chained: msgspec's own may quote the value, and a traceback shows what is chained.
    try:
        converted = msgspec.convert(value, wanted.type, strict=not isinstance(value, Text))
    except msgspec.ValidationError as error:
        problems.append(Problem(path, f"expected {wanted.expected}, got {_shown(key, value, str(error))}"))
        return None
    if isinstance(converted, float) and not math.isfinite(converted):
        problems.append(Problem(path, f"expected {wanted.expected}, got {converted!r}"))
        return None
    if key == "server_settings":
        return {name: _server_text(setting) for name, setting in converted.items()}
    if key == "engine":
        problems.extend(
            Problem(join(path, name), f"this has a setting of its own: `{_OWN_ENGINE_KEYS[name]}` of the database")
            for name in sorted(converted.keys() & _OWN_ENGINE_KEYS.keys())
        )
    return converted


def _from_text(value: Text, wanted: Key) -> Any:
    """
    Read the booleans that msgspec does not know; the rest is for its lax mode.
    """
    word = value.strip()
    if wanted.type is bool and word.lower() in _TRUE | _FALSE:
        return word.lower() in _TRUE
    return value if wanted.type in {str, Name} else Text(word)


def _server_text(value: object) -> str:
    """
    Write the value of a server's variable as the server reads it.
    """
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value)


def _shown(key: str, value: Any, error: str) -> str:
    """
    Show a wrong value, or only its type where it could hold a secret.
    """
    kind = type(value).__name__ if not isinstance(value, Text) else "text"
    if key in _NEVER_SHOWN or is_secret(key):
        where = error.rpartition(" - at ")[2] if " - at " in error else ""
        return f"{kind}{f' (at {where})' if where else ''}"
    return f"{mask_text(repr(str(value) if isinstance(value, Text) else value))} ({kind})"


def guess(key: str, value: str) -> Any:
    """
    Read a value of a free table in a flat source: a whole number, a number, a boolean, else text.

    Args:
        key: its name; what names a secret stays text, for a password may look like a number.
        value: the text.
    """
    word = value.strip()
    if is_secret(key):
        return value
    if word.lower() in {"true", "false"}:
        return word.lower() == "true"
    for number in (int, float):
        try:
            return number(word)
        except ValueError:
            continue
    return value
