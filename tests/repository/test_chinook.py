"""
The whole Chinook shop goes through `load` and comes back through `export` as it was.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Column, ForeignKey, Integer, Numeric, String
from sqlalchemy.orm import DeclarativeBase

from stillroom.models import ModelBase
from stillroom.models.columns import UTCDateTime
from tests.repository.models import create_tables

if TYPE_CHECKING:
    from tests.repository.worlds import Place

CHINOOK = Path(__file__).parents[2] / "../shared/data/chinook/ChinookData.json"
ORDER = (
    *("Genre", "MediaType", "Artist", "Album", "Track", "Employee", "Customer", "Invoice", "InvoiceLine"),
    *("Playlist", "PlaylistTrack"),
)
"""What a table refers to comes before it."""
REFERENCES = {f"{name}Id": name for name in ORDER} | {"ReportsTo": "Employee", "SupportRepId": "Employee"}


def _value(name: str, value: Any) -> Any:
    if isinstance(value, float):
        return Decimal(str(value))
    return datetime.fromisoformat(value).replace(tzinfo=UTC) if value and name.endswith("Date") else value


def _data() -> dict[str, list[dict[str, Any]]]:
    """
    Read the shop where it is beside the project, else the demo's small one.
    """
    source = CHINOOK if CHINOOK.exists() else files("stillroom.demo") / "data.json"
    data = json.loads(source.read_text(encoding="utf-8"))
    return {table: [{name: _value(name, row[name]) for name in row} for row in data[table]] for table in ORDER}


def _column(table: str, name: str, rows: list[dict[str, Any]]) -> Column[Any]:
    types: dict[type[Any], Any] = {int: Integer(), Decimal: Numeric(10, 2), datetime: UTCDateTime(), str: String(255)}
    found = {type(row[name]) for row in rows if row.get(name) is not None}
    kind = next(type_ for python, type_ in reversed(types.items()) if python in found)
    is_key = name == f"{table}Id" or (table == "PlaylistTrack")
    target = REFERENCES.get(name)
    keys = [] if target in (None, table) and name != "ReportsTo" else [ForeignKey(f"{target}.{target}Id")]
    return Column(name, kind, *keys, primary_key=is_key, nullable=not is_key)


def _models(data: dict[str, list[dict[str, Any]]]) -> tuple[Any, dict[str, type[Any]]]:
    class Shop(ModelBase, DeclarativeBase, database="main"):
        """
        The tables, as the data set has them.
        """

    models = {}
    for table, rows in data.items():
        names = dict.fromkeys(name for row in rows for name in row)
        columns = {name: _column(table, name, rows) for name in names}
        models[table] = type(table, (Shop,), {"__tablename__": table, **columns})
    return Shop.metadata, models


def test_the_whole_shop_comes_back_as_it_was(threads: Place, tmp_path: Path) -> None:
    data = _data()
    metadata, models = _models(data)
    create_tables(threads, metadata)

    with threads.unit() as uow:
        for name, model in models.items():
            assert threads.repository(model, uow).load(data[name]) == len(data[name])
    with threads.unit() as uow:
        for name, model in models.items():
            assert threads.repository(model, uow, role="reader").export(tmp_path / f"{name}.csv") == len(data[name])
    with threads.plain["main"].engine.begin() as connection:
        metadata.drop_all(connection)
    create_tables(threads, metadata)
    with threads.unit() as uow:
        for name, model in models.items():
            threads.repository(model, uow).load(tmp_path / f"{name}.csv")

    with threads.unit() as uow:
        for name, model in models.items():
            repository = threads.repository(model, uow)
            found = repository.rows(order_by=repository.plan.keys)
            missing = dict.fromkeys(model.__table__.c.keys())
            expected = [missing | row for row in data[name]]
            assert found == sorted(expected, key=lambda row: [row[key] for key in repository.plan.keys]), name
