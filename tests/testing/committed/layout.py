"""
Tables with seeds, cycles and references to themselves, and what all tables of a database hold.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from sqlalchemy import Column, ForeignKey, Integer, MetaData, String, Table, create_engine, insert, inspect, select
from sqlalchemy.pool import NullPool

from stillroom import Databases
from stillroom.testing.committed import Committed

if TYPE_CHECKING:
    from collections.abc import Iterator

metadata = MetaData()

country = Table(
    "country",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(50), unique=True),
    Column("part_of", ForeignKey("country.id")),
)
city = Table(
    "city",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("country_id", ForeignKey("country.id", ondelete="CASCADE"), nullable=False),
)
person = Table(
    "person",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("city_id", ForeignKey("city.id")),
    Column("boss_id", ForeignKey("person.id")),
    Column("favourite_id", ForeignKey("pet.id", use_alter=True, name="fk_favourite")),
)
pet = Table(
    "pet",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("owner_id", ForeignKey("person.id"), nullable=False),
)
keyless = Table("keyless", metadata, Column("word", String(50)))
version = Table("alembic_version", metadata, Column("version_num", String(32), primary_key=True))

SEEDS: tuple[tuple[Table, list[dict[str, Any]]], ...] = (
    (country, [{"id": 0, "name": "Nowhere", "part_of": None}, {"id": 1, "name": "Utopia", "part_of": 1}]),
    (country, [{"id": 2, "name": "Atlantis", "part_of": 1}]),
    (city, [{"id": 10, "country_id": 1}, {"id": 20, "country_id": 2}]),
    (keyless, [{"word": "one"}, {"word": "one"}, {"word": "two"}]),
    (version, [{"version_num": "abc"}]),
)


def databases(url: str) -> Databases:
    return Databases({"default": "main", "databases": {"main": {"url": url}}})


@contextlib.contextmanager
def prepared(url: str, *, seeds: bool = True) -> Iterator[tuple[Databases, Committed]]:
    """
    Give databases with one, "main", in which the tables are, and the isolation for it.
    """
    with databases(url) as dbs:
        metadata.create_all(dbs.main.engine)
        if seeds:
            with dbs.main.begin() as connection:
                if connection.dialect.name in ("mysql", "mariadb"):  # an id of 0 would be made another one
                    connection.exec_driver_sql("set session sql_mode = 'NO_AUTO_VALUE_ON_ZERO'")
                for table, rows in SEEDS:
                    connection.execute(insert(table), rows)
        with isolated(dbs) as committed:
            yield dbs, committed


@contextlib.contextmanager
def isolated(dbs: Databases) -> Iterator[Committed]:
    committed = Committed(dbs.main)
    stop = dbs.main.watch_engines(lambda engine, _: committed.watch(engine))
    try:
        yield committed
    finally:
        stop()
        committed.close()


def contents(url: str) -> dict[str, list[str]]:
    """
    Read every row of every table, over a connection of its own.
    """
    with databases(url) as dbs:
        engine = create_engine(dbs.main.engine.url, poolclass=NullPool)
        found = {}
        with engine.connect() as connection:
            inspector = inspect(connection)
            schemas: list[str | None] = [None]
            if connection.dialect.name == "postgresql":
                schemas = [name for name in inspector.get_schema_names() if name != "information_schema"]
            for schema in schemas:
                for name in inspector.get_table_names(schema=schema):
                    table = Table(name, MetaData(), schema=schema, autoload_with=connection, resolve_fks=False)
                    rows = connection.execute(select(table)).all()
                    found[f"{schema}.{name}"] = sorted(repr(tuple(row)) for row in rows)
        return found
