"""
`export` writes rows to a file from which `load` makes the same rows again.
"""

from __future__ import annotations

import io
import sys
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from stillroom import Repository
from stillroom.errors import BadRow, MissingExtra
from stillroom.models import ModelBase
from tests.repository.things import EMPTY, FULL, Thing, few
from tests.repository.worlds import AIOMYSQL, Place
from tests.support.standing import Content

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy.orm import Session

FORMATS = ("csv", "jsonl", "arrow", "parquet")


def seed(session: Session) -> None:
    Repository[Thing](session).create_many([FULL, EMPTY])


@pytest.fixture
def place_content() -> Content:
    """
    What `place` has in it.
    """
    return Content("things", "tests.repository.things:Base", (seed,))


@pytest.fixture
def things(place: Place) -> Place:
    """
    A place with two things.
    """
    return place


@pytest.fixture
def sqlite(sqlite_place: Place) -> Place:
    """
    The same two things, on SQLite alone: for what happens to files.
    """
    return sqlite_place


def exported(place: Place, target: Any, *columns: Any, **options: Any) -> int:
    with place.unit() as uow:
        count: int = place.repository(Thing, uow, role="reader").export(target, *columns, **options)
    return count


# --- there and back


def test_what_was_exported_is_loaded_as_it_was(things: Place, tmp_path: Path) -> None:
    if things.world == AIOMYSQL:
        pytest.skip("aiomysql cannot write bytes")
    _there_and_back(things, tmp_path / "things.csv")


@pytest.mark.parametrize("format_", FORMATS[1:])
def test_every_format_keeps_every_value(sqlite: Place, tmp_path: Path, format_: str) -> None:
    _there_and_back(sqlite, tmp_path / f"things.{format_}")


def _there_and_back(things: Place, path: Path) -> None:
    assert exported(things, path, order_by="id") == 2
    with things.unit() as uow:
        repository = things.repository(Thing, uow)
        repository.delete_where(all_rows=True)
        assert repository.load(path) == 2

    with things.plain.unit_of_work() as uow:
        assert Repository[Thing](uow).rows(order_by="id") == [FULL, EMPTY]


@pytest.mark.parametrize("format_", FORMATS)
def test_intervals_are_loaded_as_they_were(sqlite: Place, format_: str) -> None:
    class Own(ModelBase, DeclarativeBase, database="main"):
        pass

    class Pause(Own):
        __tablename__ = "pauses"
        id: Mapped[int] = mapped_column(primary_key=True)
        length: Mapped[timedelta | None]

    rows = [{"id": 1, "length": timedelta(days=2, seconds=3)}, {"id": 2, "length": None}]
    file = io.BytesIO()
    with sqlite.unit() as uow:
        Own.metadata.create_all(uow.main.connection())
        pauses = sqlite.repository(Pause, uow)
        assert pauses.create_many(rows) == 2
        assert pauses.export(file, format=format_, order_by="id") == 2
        pauses.delete_where(all_rows=True)
        file.seek(0)
        assert pauses.load(file, format=format_) == 2
        assert pauses.rows(order_by="id") == rows
        Own.metadata.drop_all(uow.main.connection())


def test_two_columns_of_one_name_are_refused(sqlite: Place) -> None:
    with pytest.raises(ValueError, match="several columns are named 'a'"):
        exported(sqlite, io.BytesIO(), text("select 1 as a, 2 as a"), format="jsonl")


@pytest.mark.parametrize("format_", FORMATS)
def test_no_rows_make_a_file_too(sqlite: Place, tmp_path: Path, format_: str) -> None:
    path = tmp_path / f"things.{format_}"

    assert exported(sqlite, path, where=Thing.id > 100) == 0
    with sqlite.unit() as uow:
        assert sqlite.repository(Thing, uow).load(path) == 0


def test_more_rows_than_are_held_at_a_time(things: Place, tmp_path: Path) -> None:
    total = 2500
    with things.plain.unit_of_work() as uow:
        Repository[Thing](uow).load(few(number) for number in range(total))

    assert exported(things, tmp_path / "things.csv", Thing.name, where=Thing.amount >= 0, limit=2400) == 2400
    assert (tmp_path / "things.csv").read_bytes().count(b"\r\n") == 2401 + 1  # a name has a line break in it


# --- formats


def test_csv_tells_null_from_an_empty_text(sqlite: Place) -> None:
    file = io.BytesIO()

    exported(sqlite, file, Thing.id, Thing.name, Thing.kind, Thing.price, format="csv", order_by=Thing.id)

    assert file.getvalue().decode() == (
        'id,name,kind,price\r\n5,"a ""quoted"", name\r\nof two lines \u00e9","",12.50\r\n6,"",\\N,\r\n'
    )


def test_json_lines_are_objects(sqlite: Place) -> None:
    file = io.BytesIO()

    exported(sqlite, file, Thing.id, Thing.at, Thing.data, format="jsonl", order_by=Thing.id, limit=1)

    assert file.getvalue() == (b'{"id":5,"at":"2026-01-02T03:04:05.000678Z","data":{"a":[1,null,"x"],"b":{"c":0.5}}}\n')


def test_parquet_has_the_types_of_the_columns(sqlite: Place, tmp_path: Path) -> None:
    from pyarrow import parquet

    exported(sqlite, tmp_path / "things.parquet", Thing.id, Thing.price, Thing.at, Thing.day, Thing.number)

    schema = parquet.read_schema(tmp_path / "things.parquet")
    assert [str(field.type) for field in schema] == [
        "int64",
        "decimal128(12, 2)",
        "timestamp[us, tz=UTC]",
        "date32[day]",
        "string",
    ]


@pytest.mark.parametrize("format_", FORMATS)
def test_plain_sql_is_exported_too(sqlite: Place, tmp_path: Path, format_: str) -> None:
    path = tmp_path / f"counts.{format_}"

    assert exported(sqlite, path, where=text("select id, name, null as missing from things order by id")) == 2
    assert path.stat().st_size


def test_expressions_are_exported_under_their_names(sqlite: Place) -> None:
    file = io.BytesIO()

    exported(sqlite, file, select(func.count().label("how_many")).select_from(Thing), format="csv")

    assert file.getvalue() == b"how_many\r\n2\r\n"


def test_numbers_that_json_lacks_come_back(things: Place) -> None:
    if things.world.backend != "postgresql":
        pytest.skip("only PostgreSQL stores them")
    file = io.BytesIO()
    with things.unit() as uow:
        repository = things.repository(Thing, uow)
        repository.create(id=8, ratio=float("inf"), **few(8))
        repository.export(file, format="jsonl", id=8)
        repository.delete(8)
        file.seek(0)
        repository.load(file, format="jsonl")

    with things.plain.unit_of_work() as uow:
        assert uow.main.scalar(select(Thing.ratio).where(Thing.id == 8)) == float("inf")


# --- files


def test_a_failing_export_leaves_the_old_file(sqlite: Place, tmp_path: Path) -> None:
    path = tmp_path / "things.csv"
    path.write_text("old")

    with pytest.raises(Exception, match="no such column"):
        exported(sqlite, path, where=text("select colr from things"))

    assert path.read_text() == "old"
    assert [each.name for each in tmp_path.glob("*things.csv*")] == ["things.csv"]


def test_an_unknown_ending_is_refused(sqlite: Place, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not tell the format"):
        exported(sqlite, tmp_path / "things.xls")


def test_an_unknown_format_is_refused(sqlite: Place, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'xls' is not known"):
        exported(sqlite, tmp_path / "things.csv", format="xls")


def test_without_pyarrow_the_extra_is_named(sqlite: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.delitem(sys.modules, "stillroom.repository.bulk.arrow", raising=False)

    with pytest.raises(MissingExtra, match=r"stillroom\[arrow\]"):
        exported(sqlite, tmp_path / "things.parquet")


def test_a_value_that_a_file_has_wrong_is_a_bad_row(sqlite: Place, tmp_path: Path) -> None:
    path = tmp_path / "things.csv"
    path.write_bytes(b"\xef\xbb\xbfname,amount\nfirst,1\nsecond,many\n")

    with sqlite.unit() as uow, pytest.raises(BadRow) as raised:
        sqlite.repository(Thing, uow).load(path)

    assert (raised.value.number, raised.value.column) == (2, "amount")


@pytest.mark.parametrize(
    ("format_", "content"),
    [
        ("csv", b'name,amount\none,1\n"open,1\n'),
        ("csv", b"name,amount\none,1\ntwo\n"),
        ("csv", b'name,amount\none,1\n"a"b,1\n'),
        ("jsonl", b'{"name": "one"}\n{"name": \n'),
    ],
)
def test_a_row_that_cannot_be_read_is_a_bad_row(sqlite: Place, format_: Any, content: bytes) -> None:
    with sqlite.unit() as uow, pytest.raises(BadRow) as raised:
        sqlite.repository(Thing, uow).load(io.BytesIO(content), format=format_)
    assert (raised.value.number, raised.value.column) == (2, None)
