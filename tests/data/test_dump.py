"""
What `dump` writes, `load` makes the same rows of: in each format, and in another kind of database.
"""

from __future__ import annotations

import io
import json
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, get_args
from uuid import UUID

import pytest
from sqlalchemy import select

from stillroom.data import DataFileError, dump, load
from stillroom.data.dumping import DumpFormat
from tests.data import library
from tests.data.library import Base, Event, Kind, Left, Note, Right, Thing, Writer

if TYPE_CHECKING:
    from pathlib import Path

    from stillroom import Databases

HARD = 'é "quoted", \\ \t 😀\nnext: [line]\n  - and\r\nanother # "\' '


def fill(dbs: Databases) -> None:
    """
    Fill the library with rows that are hard to write down.
    """
    with dbs.unit_of_work() as uow:
        uow.main.add_all(
            [
                Thing(
                    id=UUID(int=1),
                    amount=Decimal("12345678.25"),
                    ratio=0.1 + 0.2,
                    day=date(1, 1, 1),
                    moment=datetime(1999, 12, 31, 23, 59, 59, 120, tzinfo=UTC),
                    raw=bytes(range(256)),
                    document={"a": [1, 2.5, None, True], "é": HARD},
                    flag=False,
                    kind=Kind.NOVEL,
                    text=HARD,
                ),
                Thing(id=UUID(int=2), text="", document="only text", ratio=-1e-7),
                Thing(id=UUID(int=3), text="2026-01-01", document=[]),
                Writer(id=5, name="yes", born=None),
                Note(id=1, code="gone", deleted_at=datetime(2026, 1, 1, tzinfo=UTC), version=4),
                Left(id=1),
            ]
        )
        uow.main.flush()
        uow.main.add(Right(id=2, left_id=1))
        uow.main.flush()
        uow.main.query(Left).one().right_id = 2
        uow.main.execute(Base.metadata.tables["books"].insert(), {"id": 3, "title": "~", "writer_id": 5, "price": 7})
        uow.main.execute(Base.metadata.tables["loans"].insert(), {"code": "null", "book_id": 3})
        uow.audit.add(Event(id=9, text="x"))


def contents(dbs: Databases) -> dict[str, list[Any]]:
    """
    Read everything, without what SQLAlchemy says about it.
    """
    found = {}
    with dbs.unit_of_work() as uow:
        for name, metadata in (("main", Base.metadata), ("audit", library.Log.metadata)):
            for table in metadata.sorted_tables:
                statement = select(table).order_by(*table.primary_key.columns)
                found[f"{name}.{table.name}"] = [tuple(row) for row in uow.session(name).execute(statement)]
    return found


@pytest.mark.parametrize("format_", get_args(DumpFormat))
def test_what_was_dumped_is_loaded_as_it_was(shelf: Databases, tmp_path: Path, format_: Any) -> None:
    fill(shelf)
    dumped = dump(shelf, tmp_path / "out", format=format_)
    assert sum(each.rows for each in dumped) == 10
    with library.databases(f"sqlite:///{tmp_path / 'other.db'}") as other:
        load(other, tmp_path / "out")
        assert contents(other) == contents(shelf)
        assert all(each.unchanged == each.rows for each in load(other, tmp_path / "out"))


def test_what_one_backend_dumped_another_one_loads(
    postgresql_database: str, mariadb_database: str, sqlite_database: str, tmp_path: Path
) -> None:
    urls = [postgresql_database, mariadb_database, sqlite_database]
    previous: dict[str, list[Any]] = {}
    for number, url in enumerate(urls):
        with library.databases(url) as dbs:
            if number == 0:
                fill(dbs)
            else:
                load(dbs, tmp_path / str(number - 1))
                assert contents(dbs) == previous
            dump(dbs, tmp_path / str(number), format=("csv", "jsonl", "yaml")[number])
            previous = contents(dbs)
    assert any(previous.values())


@pytest.mark.parametrize("format_", ["json", "yaml"])
def test_all_databases_are_one_document(shelf: Databases, tmp_path: Path, format_: Any) -> None:
    fill(shelf)
    path = tmp_path / f"all.{format_}"
    with path.open("wb") as file:
        dump(shelf, file, format=format_)
    with library.databases(f"sqlite:///{tmp_path / 'other.db'}") as other:
        load(other, path)
        assert contents(other) == contents(shelf)


def test_some_models_are_chosen(shelf: Databases, tmp_path: Path) -> None:
    fill(shelf)
    stream = io.BytesIO()
    assert [each.model for each in dump(shelf, stream, models=["Event", Writer], format="json")] == ["Writer", "Event"]
    assert json.loads(stream.getvalue()) == {
        "main": {"Writer": [{"id": 5, "name": "yes", "born": None}]},
        "audit": {"Event": [{"id": 9, "text": "x"}]},
    }
    (only,) = dump(shelf, tmp_path, database="audit", models=["notes"])
    assert only.path == str(tmp_path / "audit" / "Notes.csv")


def test_one_model_is_a_stream_of_any_format(shelf: Databases) -> None:
    fill(shelf)
    stream = io.BytesIO()
    dump(shelf, stream, models=["Event"])
    assert stream.getvalue() == b"id,text\r\n9,x\r\n"


def test_what_cannot_be_dumped_is_refused(shelf: Databases, tmp_path: Path) -> None:
    with pytest.raises(DataFileError, match="no model and no table 'Evnt'; did you mean 'Event'"):
        dump(shelf, tmp_path, models=["Evnt"])
    with pytest.raises(DataFileError, match="format='xml' is not known; there are 'csv'"):
        dump(shelf, tmp_path, format="xml")  # type: ignore[arg-type]
    with pytest.raises(DataFileError, match="models cannot be one stream of 'csv'"):
        dump(shelf, io.BytesIO())


def test_a_dump_that_fails_leaves_the_former_file(shelf: Databases, tmp_path: Path) -> None:
    fill(shelf)
    dump(shelf, tmp_path, models=["Event"])
    with shelf.unit_of_work() as uow:
        library.Log.metadata.drop_all(uow.audit.connection())
    with pytest.raises(Exception, match="events"):
        dump(shelf, tmp_path, models=["Event"])
    assert [each.name for each in (tmp_path / "audit").iterdir()] == ["Event.csv"]
    assert "9,x" in (tmp_path / "audit" / "Event.csv").read_text(encoding="utf-8")
