"""Names and texts in SQL that is written here, and not by SQLAlchemy's compiler, which doubles percent signs too."""

from __future__ import annotations


def quoted(*names: str | None) -> str:
    """
    Quote a name, and those that qualify it; None for one that is left out.
    """
    return ".".join('"' + name.replace('"', '""') + '"' for name in names if name is not None)


def literal(text: str) -> str:
    """
    Write a text as a constant.
    """
    return "'" + text.replace("'", "''") + "'"
