"""Which changes of a column's type leave its rows as they are."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy.exc import SQLAlchemyError

if TYPE_CHECKING:
    from sqlalchemy.engine import Dialect

__all__ = ["is_safe", "written"]

_TYPE = re.compile(
    r"(?P<name>(?:bit|character) varying|double precision|\w+)\s*(?:\((?P<arguments>[^)]*)\))?\s*(?P<rest>.*)$"
)
_NAMES = {"character varying": "varchar", "decimal": "numeric", "varbit": "bit varying"}
_WIDTHS = (1, 3, 4)
"""Bytes of a character, of which MariaDB keeps the longest row's length in one byte, or beyond 255 in two."""


class _Type(NamedTuple):
    name: str
    arguments: tuple[str, ...]
    rest: str


def written(kind: Any, dialect: Dialect) -> str:
    """
    Write a type as the dialect does; empty where it is not known.
    """
    if kind is None:
        return ""
    try:
        return str((kind() if isinstance(kind, type) else kind).compile(dialect=dialect))
    except (SQLAlchemyError, TypeError):
        return ""


def is_safe(old: str, new: str, backend: str) -> bool:
    """
    Say whether the server keeps the rows as they are when a column changes its type.

    Sources: https://www.postgresql.org/docs/current/sql-altertable.html (Notes) and the functions with which PostgreSQL
    simplifies such a cast; https://mariadb.com/kb/en/innodb-online-ddl-operations-with-the-instant-alter-algorithm/.

    Args:
        old: The type as it was; empty where it is not known.
        new: The type to be.
        backend: "postgresql" or "mysql".
    """
    if not old or not new:
        return False
    if old.lower() == new.lower():
        return True
    before, after = _parsed(old), _parsed(new)
    if before is None or after is None or before.rest != after.rest:
        return False
    return _safe_on_mariadb(before, after) if backend == "mysql" else _safe_on_postgresql(before, after)


def _parsed(text: str) -> _Type | None:
    if text.lower().startswith("enum"):
        return _Type("enum", tuple(re.findall(r"'(?:[^']|'')*'", text)), "")
    found = _TYPE.match(text.lower().strip())
    if found is None:
        return None
    arguments = tuple(each.strip() for each in (found["arguments"] or "").split(",") if each.strip())
    return _Type(_NAMES.get(found["name"], found["name"]), arguments, found["rest"].strip())


def _numbers(kind: _Type) -> list[int]:
    return [int(each) for each in kind.arguments if each.isdigit()]


def _safe_on_postgresql(old: _Type, new: _Type) -> bool:
    before, after = _numbers(old), _numbers(new)
    if {old[:2], new[:2]} == {("float", ()), ("double precision", ())}:
        return True
    texts = {"varchar", "text"}
    if old.name in texts and new.name in texts:
        return not after or (bool(before) and after[0] >= before[0])
    if (old.name, new.name) == ("cidr", "inet"):
        return True
    if old.name != new.name:
        return False
    if old.name == "numeric":
        return not after or (bool(before) and after[0] >= before[0] and _scale(after) == _scale(before))
    if old.name in ("bit varying", "timestamp", "time", "interval"):
        return not after or (bool(before) and after[0] >= before[0])
    return False


def _scale(numbers: list[int]) -> int:
    return numbers[1] if len(numbers) > 1 else 0


def _safe_on_mariadb(old: _Type, new: _Type) -> bool:
    if old.name == new.name == "enum":
        return new.arguments[: len(old.arguments)] == old.arguments
    if old.name == new.name == "varchar":
        before, after = _numbers(old), _numbers(new)
        if not before or not after or after[0] < before[0]:
            return False
        return not any(before[0] * width <= 255 < after[0] * width for width in _WIDTHS)
    return False
