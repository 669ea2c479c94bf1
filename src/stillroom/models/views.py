"""Views, declared beside the tables that they look at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import Column, Connection, MetaData, Table, event

if TYPE_CHECKING:
    from sqlalchemy.engine import Dialect
    from sqlalchemy.sql.selectable import SelectBase

__all__ = ["View", "view", "view_sql", "views_of"]

_KEY = "stillroom_views"


@dataclass(frozen=True, eq=False)
class View:
    """
    A view that belongs to a MetaData.

    Attributes:
        name: Its name.
        schema: Its schema; None for the database's own.
        query: What it shows.
    """

    name: str
    schema: str | None
    query: SelectBase


def view(base: Any, name: str, query: SelectBase, *, schema: str | None = None) -> Table:
    """
    Declare a view, which `create_all` and the migrations make as they make the tables.

    Args:
        base: A declarative base or a MetaData: the one of the tables.
        name: Its name.
        query: What it shows: a `select(...)`, or `text(...).columns(...)`.
        schema: Its schema; None for the database's own.

    Returns:
        What is selected from: `select(live).where(live.c.name == "x")`.
    """
    metadata: MetaData = getattr(base, "metadata", base)
    made = View(name, schema, query)
    views: list[View] = metadata.info.setdefault(_KEY, [])
    if not views:
        event.listen(metadata, "after_create", _create)
        event.listen(metadata, "before_drop", _drop)
    views.append(made)
    columns = (Column(each.key, each.type) for each in query.selected_columns)
    return Table(name, MetaData(), *columns, schema=schema)


def views_of(metadata: MetaData) -> list[View]:
    """
    Return the views of a MetaData, in the order of their declaration.
    """
    return list(metadata.info.get(_KEY, ()))


def view_sql(view: View, dialect: Dialect) -> tuple[str, str]:
    """
    Return the quoted name of a view, and the SQL of what it shows.
    """
    # Drivers whose parameters are written with a percent sign would have each of them doubled.
    make: Any = type(dialect)
    plain: Dialect = make(paramstyle="named")
    quote = plain.identifier_preparer.quote
    name = quote(view.name) if view.schema is None else f"{quote(view.schema)}.{quote(view.name)}"
    text = str(view.query.compile(dialect=plain, compile_kwargs={"literal_binds": True}))
    return name, text


def _create(metadata: MetaData, connection: Connection, **_: Any) -> None:
    how = "CREATE VIEW IF NOT EXISTS" if connection.dialect.name == "sqlite" else "CREATE OR REPLACE VIEW"
    for each in views_of(metadata):
        name, text = view_sql(each, connection.dialect)
        _execute(connection, f"{how} {name} AS {text}")


def _drop(metadata: MetaData, connection: Connection, **_: Any) -> None:
    for each in reversed(views_of(metadata)):
        _execute(connection, f"DROP VIEW IF EXISTS {view_sql(each, connection.dialect)[0]}")


def _execute(connection: Connection, statement: str) -> None:
    connection.exec_driver_sql(statement, execution_options={"no_parameters": True})
