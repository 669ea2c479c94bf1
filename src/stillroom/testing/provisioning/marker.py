"""The mark by which a database says of itself which environment it is of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import Column, MetaData, String, Table, inspect, select

from ..connection import Line

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from stillroom import Database

__all__ = ["TABLE", "mark_environment", "read_mark"]

TABLE = "stillroom_environment"

_table = Table(TABLE, MetaData(), Column("environment", String(64), primary_key=True))


def mark_environment(database: Database, environment: str) -> None:
    """
    Write into a database which environment it is of, such as "production": tests refuse to run beside it then.

    The mark is one row of the table `stillroom_environment`; another call replaces it.

    Args:
        database: The database.
        environment: The environment. Tests refuse a name with the word production, prod or live in it.
    """

    def work(connection: Connection) -> None:
        _table.create(connection, checkfirst=True)
        mark = _table.c.environment
        if connection.scalar(select(mark).where(mark == environment)) is None:
            connection.execute(_table.insert(), {"environment": environment})
        connection.execute(_table.delete().where(mark != environment))  # last, so that it is never without a mark

    settings = database.settings
    with Line.to(settings, settings.migration_url or settings.url, database.name, database.application) as line:
        line.run(work)


def read_mark(connection: Connection) -> str | None:
    """
    Return the mark of the database that a connection leads to; None where it has none.
    """
    if not inspect(connection).has_table(TABLE):
        return None
    marks = connection.execute(select(_table.c.environment)).scalars().all()
    return ", ".join(sorted(marks)) or None
