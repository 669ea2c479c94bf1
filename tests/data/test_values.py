"""
What a file says becomes what the columns hold, or the error names it.
"""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from stillroom.data import DataFileError, RowRefused, load
from tests.data.library import Book, Kind, Member, Note, Thing, rows

if TYPE_CHECKING:
    from pathlib import Path

    from stillroom import Databases

KEY = UUID(int=7)


def stored(dbs: Databases, path: Path) -> dict[str, Any]:
    """
    Load one thing, and return what is there.
    """
    load(dbs, path)
    with dbs.unit_of_work() as uow:
        thing = uow.main.query(Thing).one()
        return {name: getattr(thing, name) for name in ("amount", "ratio", "day", "moment", "raw", "document", "flag",
                                                        "kind", "text")}  # fmt: skip


FULL = {
    "amount": Decimal("1.50"),
    "ratio": 0.1,
    "day": date(2026, 1, 2),
    "moment": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    "raw": b"\x00\xff",
    "document": {"a": [1, None]},
    "flag": True,
    "kind": Kind.POEMS,
    "text": "null",
}


def test_text_of_csv_becomes_values(books: Databases, tmp_path: Path) -> None:
    path = tmp_path / "Thing.csv"
    path.write_text(
        "id,amount,ratio,day,moment,raw,document,flag,kind,text\n"
        f'{KEY},1.50,0.1,2026-01-02,2026-01-02T05:04:05+02:00,AP8=,"{{""a"": [1, null]}}",true,poems,null\n',
        encoding="utf-8",
    )
    assert stored(books, path) == FULL
    assert load(books, path)[0].unchanged == 1


def test_values_of_yaml_become_values(shelf: Databases, tmp_path: Path) -> None:
    path = tmp_path / "things.yaml"
    path.write_text(
        f"Thing:\n- {{id: {KEY}, amount: 1.50, ratio: 0.1, day: 2026-01-02, moment: 2026-01-02T03:04:05Z, "
        "raw: !!binary AP8=, document: {a: [1, null]}, flag: yes, kind: POEMS, text: 'null'}\n",
        encoding="utf-8",
    )
    assert stored(shelf, path) == FULL


@pytest.mark.parametrize("text", ["", '""'])
def test_nothing_in_csv_is_null_where_the_column_takes_it(shelf: Databases, tmp_path: Path, text: str) -> None:
    path = tmp_path / "Thing.csv"
    path.write_text(f"id,amount,day,raw,flag,text\n{KEY},{text},{text},{text},{text},{text}\n", encoding="utf-8")
    found = stored(shelf, path)
    assert [found[name] for name in ("amount", "day", "raw", "flag")] == [None] * 4
    assert found["text"] == (None if text == "" else "")


def test_nothing_in_csv_is_the_default_or_an_empty_text_where_null_is_not_taken(
    shelf: Databases, tmp_path: Path
) -> None:
    (tmp_path / "main.Note.csv").write_text("id,code,text\n,x,\n", encoding="utf-8")
    (tmp_path / "Member.csv").write_text("email,badge\n,5\n", encoding="utf-8")
    load(shelf, tmp_path / "main.Note.csv", key="code")
    load(shelf, tmp_path / "Member.csv", key="badge")
    assert rows(shelf, Note.id, Note.code, Note.text) == [(1, "x", "nothing")]
    assert rows(shelf, Member.email, Member.badge) == [("", 5)]


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("amount", "much", "Decimal"),
        ("ratio", [], "float"),
        ("day", "2026-02-30", "date"),
        ("moment", "yesterday", "datetime"),
        ("raw", "*", "bytes"),
        ("flag", "perhaps", "bool"),
        ("kind", "song", "Kind ('a novel', 'poems')"),
        ("text", 7, "text; put it between quotes"),
        ("id", "7", "UUID"),
        ("id", None, "UUID, and not NULL"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_expected(
    shelf: Databases, tmp_path: Path, name: str, value: Any, expected: str
) -> None:
    path = tmp_path / "Thing.json"
    path.write_text(json.dumps([{"id": str(UUID(int=1))}, {"id": str(KEY), name: value}]), encoding="utf-8")
    with pytest.raises(RowRefused) as caught:
        load(shelf, path)
    error = caught.value
    assert (error.path, error.number, error.column, error.value) == (path, 2, name, value)
    assert f"column {name!r}: {value!r} does not fit: it takes {expected}. Nothing was loaded" in str(error)
    assert rows(shelf, Thing.id) == []


def test_a_time_without_a_zone_is_refused_where_it_could_mean_any(shelf: Databases, tmp_path: Path) -> None:
    path = tmp_path / "Thing.csv"
    path.write_text(f"id,moment\n{KEY},2026-01-02T03:04:05\n", encoding="utf-8")
    with pytest.raises(RowRefused) as caught:
        load(shelf, path)
    assert (caught.value.number, caught.value.column) == (1, "moment")


@pytest.mark.parametrize(
    ("name", "text", "number", "words"),
    [
        ("Writer.csv", "name\nA\nB,2\n", 2, "it has 2 fields, and the header of the CSV file 1"),
        ("Writer.csv", 'name\n"A\n', 1, "ends inside of quotes"),
        ("Writer.jsonl", '{"name": "A"}\n{"name": \n', 2, "truncated"),
        ("Writer.json", '[{"name": "A"}, 5]', 2, "5 is no row"),
        ("Writer.csv", "name,bron\nA,\n", 1, "Writer has no column 'bron'; did you mean 'born'?"),
        ("Book.csv", "title,writer,writer.name\nA,B,C\n", 1, "'writer.name': it is told by its parts and as a whole"),
        ("Book.csv", "title,writer.name,writer\nA,B,\n", 1, "'writer': it is told by its parts and as a whole"),
    ],
)
def test_a_row_that_cannot_be_read_is_named(
    shelf: Databases, tmp_path: Path, name: str, text: str, number: int, words: str
) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    with pytest.raises(RowRefused) as caught:
        load(shelf, path)
    assert caught.value.number == number
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [("Writer.json", b"{"), ("Writer.yaml", b"a: [}"), ("Writer.json", b'["\xff"]'), ("Writer.json", b"5")],
)
def test_a_document_that_cannot_be_read_is_named(shelf: Databases, tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataFileError, match=name):
        load(shelf, tmp_path / name)


# --- what the database refuses


def test_the_row_that_the_database_refuses_is_found_among_many(books: Databases, tmp_path: Path) -> None:
    lines = [f"a{number}@b,{number}" for number in range(1, 400)]
    lines[277] = "again@b,5"  # its badge is another member's
    path = tmp_path / "Member.csv"
    path.write_text("\n".join(["email,badge", *lines]), encoding="utf-8")
    with pytest.raises(RowRefused) as caught:
        load(books, path, key="email")
    assert (caught.value.number, caught.value.column) == (278, "badge")
    assert "UniqueViolation" in str(caught.value)
    assert rows(books, Member.id) == []


def test_a_missing_value_that_only_the_database_misses_is_named(books: Databases, tmp_path: Path) -> None:
    (tmp_path / "Writer.csv").write_text("name\nA\n", encoding="utf-8")
    path = tmp_path / "Book.json"
    path.write_text('[{"id": 1, "title": "x", "writer": "A"}, {"id": 2, "writer": "A"}]', encoding="utf-8")
    with pytest.raises(RowRefused) as caught:
        load(books, path, tmp_path / "Writer.csv")
    assert (caught.value.number, caught.value.column) == (2, "title")
    assert rows(books, Book.id) == []
