"""
Columns whose values a database gives back otherwise than it got them, and tables in schemas.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import CHAR, JSON, Column, ForeignKey, Integer, String, Table, func, insert, null, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from stillroom import Databases
from stillroom.data import DataFileError, RowRefused, dump, load

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Base(DeclarativeBase):
    """
    The tables.
    """


class Country(Base):
    """
    Known by a code that PostgreSQL fills up with blanks.
    """

    __tablename__ = "countries"
    id: Mapped[int] = mapped_column(primary_key=True)
    code: Mapped[str] = mapped_column(CHAR(3), unique=True)
    short: Mapped[str | None] = mapped_column(CHAR(5))


class City(Base):
    """
    Refers to a country, and holds JSON.
    """

    __tablename__ = "cities"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(40), unique=True)
    country_id: Mapped[int | None] = mapped_column(ForeignKey("countries.id"))
    about: Mapped[Any | None] = mapped_column(JSON)
    must: Mapped[Any] = mapped_column(JSON, default=list)
    country: Mapped[Country | None] = relationship()


class Part(Base):
    """
    Refers to a city.
    """

    __tablename__ = "parts"
    id: Mapped[int] = mapped_column(primary_key=True)
    city_id: Mapped[int] = mapped_column(ForeignKey("cities.id"))
    city: Mapped[City] = relationship()


class Schemas(DeclarativeBase):
    """
    A table in a schema, without a class.
    """


EVENTS = Table("events", Schemas.metadata, Column("id", Integer, primary_key=True), schema="log")


@pytest.fixture
def dbs(any_database: str) -> Iterator[Databases]:
    """
    The tables on each backend in turn.
    """
    with Databases({"databases": {"main": {"url": any_database, "metadata": f"{__name__}:Base"}}}) as made:
        Base.metadata.create_all(made.main.engine)
        yield made


def written(directory: Path, name: str, text: str) -> Path:
    path = directory / name
    path.write_text(text, encoding="utf-8")
    return path


def test_blanks_that_fill_up_a_value_are_no_part_of_it(dbs: Databases, tmp_path: Path) -> None:
    path = written(tmp_path, "Country.csv", "code,short\nab,x\ncd ,y  \n")
    assert load(dbs, path)[0].inserted == 2
    assert load(dbs, path)[0].unchanged == 2
    cities = written(tmp_path, "City.json", '[{"name": "Arb", "country": "ab"}, {"name": "Cad", "country": "cd "}]')
    assert load(dbs, cities)[0].inserted == 2
    dump(dbs, tmp_path / "dump")
    assert [each.unchanged for each in load(dbs, tmp_path / "dump")] == [2, 2, 0]


@pytest.mark.parametrize("format_", ["csv", "json", "jsonl", "yaml"])
def test_null_of_the_database_does_not_become_null_of_json(dbs: Databases, tmp_path: Path, format_: Any) -> None:
    rows = [{"id": 1, "name": "none", "about": null()}, {"id": 2, "name": "some", "about": {"inner": None}}]
    with dbs.main.begin() as connection:
        connection.execute(insert(City), rows[:1])
        connection.execute(insert(City), rows[1:])
    dump(dbs, tmp_path / "dump", format=format_)
    with dbs.main.begin() as connection:
        connection.execute(City.__table__.delete())  # type: ignore[attr-defined]  # a Table
    load(dbs, tmp_path / "dump")
    with dbs.main.begin() as connection:
        nothing = select(City.name).where(City.about.is_(null()))
        assert connection.scalars(nothing).all() == ["none"]
        assert connection.scalar(select(func.count()).select_from(City)) == 2


def test_null_of_json_is_a_value_where_there_must_be_one(dbs: Databases, tmp_path: Path) -> None:
    load(dbs, written(tmp_path, "City.csv", "name,must\nnothing,null\n"))
    with dbs.unit_of_work() as uow:
        assert uow.main.scalars(select(City.must)).one() is None


def test_json_tells_no_row_from_another(dbs: Databases, tmp_path: Path) -> None:
    with pytest.raises(RowRefused, match=r"City.about holds JSON\(\), by which no row can be told"):
        load(dbs, written(tmp_path, "Part.json", '[{"city": {"about": {"a": 1}}}]'))


def test_a_schema_may_be_called_like_its_database(postgresql_database: str, tmp_path: Path) -> None:
    settings = {"url": postgresql_database, "metadata": f"{__name__}:Schemas"}
    with Databases({"default": "log", "databases": {"log": settings}}) as dbs:
        with dbs.log.begin() as connection:
            connection.exec_driver_sql("create schema log")
            Schemas.metadata.create_all(connection)
            connection.execute(insert(EVENTS), {"id": 1})
        (dumped,) = dump(dbs, tmp_path)
        assert dumped.path is not None
        assert load(dbs, tmp_path)[0].unchanged == 1
        flat = written(tmp_path, "log.events.csv", "id\n2\n")
        assert load(dbs, flat)[0].inserted == 1
        with pytest.raises(DataFileError, match="no model and no table 'others'"):
            load(dbs, written(tmp_path, "log.others.csv", "id\n2\n"))
