"""Provides the shop's tables, in databases that are empty or that an earlier run of the demo has marked as its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import Column, Connection, MetaData, String, Table, insert, inspect, select

from stillroom.demo.models import BASES
from stillroom.demo.problems import DemoError

if TYPE_CHECKING:
    from stillroom import Database, Databases

__all__ = ["can_prepare", "provide_tables"]

MARK = "stillroom_demo"
"""The table that marks a database as the demo's, and says which of its three it is."""
OURS = "stillroom_"
"""How the names of tables begin that Stillroom itself keeps, for recovery; they stay."""


def provide_tables(databases: Databases) -> None:
    """
    Make the shop's tables in every database, empty.

    All databases are looked at before the first is changed.

    Raises:
        DemoError: A database has tables that are not the demo's. Nothing was changed.
    """
    for name in BASES:
        with databases[name].begin() as connection:
            _refuse_others(name, connection)
    for name, base in BASES.items():
        _make_tables(name, databases[name], base.metadata)


def _mark() -> Table:
    return Table(MARK, MetaData(), Column("name", String(20), primary_key=True))


def _refuse_others(name: str, connection: Connection) -> None:
    inspector = inspect(connection)
    found = {*inspector.get_table_names(), *inspector.get_view_names()}
    is_marked = MARK in found
    strangers = sorted(each for each in found if not each.startswith(OURS))
    if is_marked:
        marks = connection.scalars(select(_mark().c.name)).all()
        if marks and marks != [name]:
            raise DemoError(
                f"the database for {name!r} is the demo's {', '.join(map(repr, marks))}. Give each of "
                f"{', '.join(map(repr, BASES))} a database of its own, the same one every time"
            )
        strangers = [each for each in strangers if each not in BASES[name].metadata.tables]
    if strangers:
        named = ", ".join(map(repr, strangers[:5])) + (", …" if len(strangers) > 5 else "")
        raise DemoError(
            f"the database for {name!r} has tables that are not the demo's: {named}. It was left as it is. Name an "
            "empty database: the demo makes its own tables there, and drops those of its earlier runs"
        )


def _make_tables(name: str, database: Database, metadata: MetaData) -> None:
    # The mark comes first and stays: where DDL cannot be rolled back, a run that is interrupted leaves tables that the
    # next one knows as the demo's.
    mark = _mark()
    with database.begin() as connection:
        mark.create(connection, checkfirst=True)
        if not connection.scalars(select(mark.c.name)).all():
            connection.execute(insert(mark), {"name": name})
    with database.begin() as connection:
        metadata.drop_all(connection)
        metadata.create_all(connection)


def can_prepare(databases: Databases) -> bool:
    """
    Say whether an order can be committed in two phases, in `catalog` and `sales` together.

    Stock is what is prepared, so `catalog` has to be PostgreSQL, with `max_prepared_transactions` above 0. MariaDB
    could prepare as well, but lists the prepared transactions of all its databases at once: the demo could not leave
    those of others alone in recovery, so it does without.
    """
    kinds = {name: databases[name].settings.backend for name in ("catalog", "sales")}
    if kinds["catalog"] != "postgresql" or kinds["sales"] == "mysql":
        return False
    return all(_keeps_prepared(databases[name]) for name, kind in kinds.items() if kind == "postgresql")


def _keeps_prepared(database: Database) -> bool:
    with database.begin() as connection:
        return int(connection.exec_driver_sql("SHOW max_prepared_transactions").scalar_one()) > 0
