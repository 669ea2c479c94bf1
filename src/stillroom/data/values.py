"""What a file says, turned into what the columns of a model hold."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import CHAR, NCHAR

from stillroom.repository.bulk.formats import from_file, is_json, python_type

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Column

    from stillroom.data.catalog import Target

__all__ = ["LEFT_OUT", "Wrong", "conversion", "is_padded"]

LEFT_OUT = object()
"""In place of a value that the file does not give."""


class Wrong(Exception):
    """
    A value is not what the column holds.

    Attributes:
        expected: What it holds.
    """

    def __init__(self, expected: str) -> None:
        super().__init__(expected)
        self.expected = expected


def conversion(target: Target, name: str, format_: str) -> Callable[[Any], Any]:
    """
    Make what turns a value of a file into one of a column.

    It raises `Wrong`, and returns `LEFT_OUT` where the default of the column is to be taken.

    Args:
        target: The model.
        name: The attribute.
        format_: Of the file; in "csv" every value is text.
    """
    column = target.columns[name]
    kind = python_type(column.type)
    # In documents JSON is itself, as in lines of JSON; in the other formats it is a text.
    inner = from_file("jsonl" if format_ in ("json", "yaml", "jsonl") else "csv", column.type)
    is_text = kind is str
    padded = is_padded(column)
    empty = _empty(column, is_csv=format_ == "csv")

    def convert(value: Any) -> Any:
        if value is None or (value == "" and not is_text and format_ == "csv"):
            if empty is Wrong:
                raise Wrong(f"{_called(kind)}, and not NULL")
            return empty
        if is_text and not isinstance(value, str):
            raise Wrong("text; put it between quotes")
        if inner is None:
            return value.rstrip(" ") if padded else value
        try:
            return inner(value)
        except (msgspec.MsgspecError, ValueError, ArithmeticError) as error:
            if isinstance(kind, type) and issubclass(kind, enum.Enum) and value in kind.__members__:
                return kind[value]
            raise Wrong("JSON" if is_json(column.type) else _called(kind)) from error

    return convert


def is_padded(column: Column[Any]) -> bool:
    """
    Say whether blanks at the end are no part of a column's values: PostgreSQL adds them, MariaDB takes them away.
    """
    return isinstance(column.type, CHAR | NCHAR)


def _empty(column: Column[Any], *, is_csv: bool) -> Any:
    """
    Return what becomes of a value that is none.
    """
    if column.nullable and not column.primary_key:
        return None
    has_default = column.default is not None or column.server_default is not None or column.identity is not None
    if is_csv and (has_default or column is column.table.autoincrement_column):
        return LEFT_OUT
    return "" if is_csv and python_type(column.type) is str else Wrong


def _called(kind: Any) -> str:
    """
    Name a type for people.
    """
    if kind is Any:
        return "a value"
    name = getattr(kind, "__name__", str(kind))
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return f"{name} ({', '.join(repr(each.value) for each in kind)})"
    return str(name)
