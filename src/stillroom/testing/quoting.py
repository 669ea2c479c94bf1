"""
Names and texts as they stand in a statement that is sent as it is.

SQLAlchemy's own quoting writes each `%` twice, for drivers that put parameters in; where there are none, it stays two.
"""

from __future__ import annotations

__all__ = ["backquoted", "escaped", "literal", "quoted"]


def quoted(name: str) -> str:
    """
    Quote a name as the standard has it.
    """
    return '"{}"'.format(name.replace('"', '""'))


def backquoted(name: str) -> str:
    """
    Quote a name for MariaDB and MySQL.
    """
    return "`{}`".format(name.replace("`", "``"))


def literal(text: str) -> str:
    """
    Write a text as the standard has it.
    """
    return "'{}'".format(text.replace("'", "''"))


def escaped(text: str) -> str:
    """
    Write a text for MariaDB and MySQL, where a backslash escapes.
    """
    return literal(text.replace("\\", "\\\\"))
