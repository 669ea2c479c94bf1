"""What a revision does, in a form that the rules understand: read from Alembic's operations or from SQL."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Action", "is_ddl", "key"]

NOT_DDL = frozenset({"data", "other", "truncate"})


@dataclass(frozen=True)
class Action:
    """
    One thing that a revision does.

    Attributes:
        kind: Such as "create_index"; the rules name the same kinds.
        table: The table, with its schema where one is named; empty where none is known.
        name: The column, index, constraint or verb that it is about.
        other: The new name, the condition of a check, or the types of a column.
        flags: What else the rules ask for, such as "concurrently".
        columns: The columns of a new table.
        names: Every name that it gives to something.
        text: How it is shown.
        line: Where it stands in the file.
        statement: Which statement does it; one may do several things.
    """

    kind: str
    table: str = ""
    name: str = ""
    other: str = ""
    flags: frozenset[str] = frozenset()
    columns: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    text: str = ""
    line: int = 0
    statement: str = ""


def is_ddl(action: Action) -> bool:
    """
    Say whether an action changes the schema.
    """
    return action.kind not in NOT_DDL


def key(table: str | None, schema: str | None = None) -> str:
    """
    Name a table as `MetaData.tables` does; PostgreSQL's default schema is none.
    """
    if not table:
        return ""
    return str(table) if not schema or schema == "public" else f"{schema}.{table}"
