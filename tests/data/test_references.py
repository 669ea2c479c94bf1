"""
Rows are known by their natural keys, and refer to each other by them.
"""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

import pytest

from stillroom.data import DataFileError, RowRefused, load
from tests.data import library
from tests.data.library import Book, Chapter, Left, Member, Note, Right, Shelf, Writer, rows

if TYPE_CHECKING:
    from pathlib import Path

    from stillroom import Databases

BOOKS = """
Chapter:
  - {number: 1, book: {title: Emma, writer: Austen}}
  - {number: 2, book: {title: Emma, writer: {name: Austen}}}
  - {number: 1, book: {title: Emma, writer: Other}}
Book:
  - {title: Emma, writer: {name: Austen}, price: 7.5, kind: NOVEL}
  - {title: Emma, writer_id: {name: Other}}
Writer:
  - {name: Austen, born: 1775-12-16}
  - {name: Other}
"""


def written(directory: Path, name: str, text: str) -> Path:
    path = directory / name
    path.write_text(text, encoding="utf-8")
    return path


def test_rows_refer_to_others_of_the_same_load_by_what_people_know(books: Databases, tmp_path: Path) -> None:
    path = written(tmp_path, "seed.yaml", BOOKS)
    load(books, path)
    with books.unit_of_work() as uow:
        found = uow.main.query(Chapter.number, Book.title, Writer.name).select_from(Chapter)
        joined = {tuple(row) for row in found.join(Book).join(Writer)}
    assert joined == {(1, "Emma", "Austen"), (2, "Emma", "Austen"), (1, "Emma", "Other")}

    changed = rows(books, Book.id, Book.changed)
    assert [each.unchanged for each in load(books, path)] == [2, 2, 3]
    assert rows(books, Book.id, Book.changed) == changed, "an onupdate that ran would make the second load another"


def test_a_reference_finds_what_is_in_the_database(books: Databases, tmp_path: Path) -> None:
    load(books, written(tmp_path, "seed.yaml", BOOKS))
    load(books, written(tmp_path, "Chapter.csv", "number,book.title,book.writer.name\n3,Emma,Other\n"))
    with books.unit_of_work() as uow:
        found = uow.main.query(Writer.name).select_from(Chapter).join(Book).join(Writer).filter(Chapter.number == 3)
        assert found.scalar() == "Other"


def test_a_table_without_a_class_refers_by_its_column(shelf: Databases, tmp_path: Path) -> None:
    load(shelf, written(tmp_path, "seed.yaml", BOOKS))
    loans = written(tmp_path, "loans.csv", "code,book_id.title,book_id.writer.name\nL1,Emma,Austen\n")
    assert load(shelf, loans)[0].inserted == 1
    table = library.Base.metadata.tables["loans"]
    assert rows(shelf, table.c.code, table.c.book_id) == [("L1", 1)]


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ({"title": "Ulysses", "writer": "Austen"}, "there is no Book(title=Ulysses, writer=Writer(name=Austen))"),
        ({"title": "Emma", "writer": "Nobody"}, "there is no Book(title=Emma, writer=Writer(name=Nobody))"),
        ({"title": "Emma"}, "there are 2 Book(title=Emma)"),
        ({"titel": "Emma"}, "Book has no column 'titel'; did you mean 'title'?"),
        ("Emma", "'Emma' does not tell which Book: that takes ['writer_id', 'title']"),
    ],
)
def test_a_reference_that_leads_nowhere_is_named(shelf: Databases, tmp_path: Path, reference: Any, words: str) -> None:
    load(shelf, written(tmp_path, "seed.yaml", BOOKS))
    chapters = [{"number": 8, "book": {"title": "Emma", "writer": "Other"}}, {"number": 9, "book": reference}]
    path = written(tmp_path, "Chapter.json", json.dumps(chapters))
    with pytest.raises(RowRefused) as caught:
        load(shelf, path)
    assert (caught.value.number, caught.value.column) == (2, "book")
    assert words in str(caught.value)
    assert len(rows(shelf, Chapter.id)) == 3


def test_a_list_is_no_reference(shelf: Databases, tmp_path: Path) -> None:
    with pytest.raises(RowRefused, match="is a list, which a row cannot hold"):
        load(shelf, written(tmp_path, "Book.json", '[{"title": "x", "chapters": []}]'))


# --- the same table, and circles


def test_rows_refer_to_later_rows_of_their_own_table(books: Databases, tmp_path: Path) -> None:
    low, mid = {"name": "low", "above": "mid"}, {"name": "mid", "above": {"name": "top"}}
    path = written(tmp_path, "Shelf.json", json.dumps([low, mid, {"name": "top", "above": None}]))
    assert load(books, path)[0].inserted == 3
    names = dict(rows(books, Shelf.id, Shelf.name))
    above = {name: names.get(above) for name, above in rows(books, Shelf.name, Shelf.above_id)}
    assert above == {"low": "mid", "mid": "top", "top": None}
    assert load(books, path)[0].unchanged == 3

    flat = written(tmp_path, "Shelf.json", '[{"name": "low", "above": null}]')
    assert load(books, flat)[0].updated == 1
    assert ("low", None) in rows(books, Shelf.name, Shelf.above_id)


def test_tables_that_refer_to_each_other_are_loaded(books: Databases, tmp_path: Path) -> None:
    path = written(tmp_path, "circle.json", '{"Right": [{"id": 1, "left_id": 2}], "Left": [{"id": 2, "right_id": 1}]}')
    load(books, path)
    assert (rows(books, Left.id, Left.right_id), rows(books, Right.id, Right.left_id)) == ([(2, 1)], [(1, 2)])
    assert all(each.unchanged == 1 for each in load(books, path))


# --- which key


def test_two_unique_constraints_need_to_be_told_apart(shelf: Databases, tmp_path: Path) -> None:
    path = written(tmp_path, "Member.csv", "email,badge\na@b,1\n")
    with pytest.raises(DataFileError, match=r"has the unique keys \['(email|badge)'\], \['(email|badge)'\] beside"):
        load(shelf, path)
    load(shelf, path, key="badge")
    load(shelf, written(tmp_path, "Member.csv", "email,badge\nc@d,1\n"), key="badge")
    assert rows(shelf, Member.email, Member.badge) == [("c@d", 1)]


def test_a_model_may_say_its_natural_key(shelf: Databases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Member, "__natural_key__", ("email",), raising=False)
    load(shelf, written(tmp_path, "Member.csv", "email,badge\na@b,1\n"))
    load(shelf, written(tmp_path, "Member.csv", "email,badge\na@b,2\n"))
    assert rows(shelf, Member.email, Member.badge) == [("a@b", 2)]


def test_a_key_may_name_a_relationship(shelf: Databases, tmp_path: Path) -> None:
    load(shelf, written(tmp_path, "Writer.csv", "name\nA\n"))
    path = written(tmp_path, "Book.csv", "id,title,writer.name\n5,x,A\n")
    load(shelf, path)
    again = written(tmp_path, "Book.csv", "id,title,writer.name\n6,x,A\n")
    assert load(shelf, again, key=["writer", "title"])[0].unchanged == 1
    assert rows(shelf, Book.id) == [(5,)]


@pytest.mark.parametrize(
    ("key", "words"),
    [("born", "is not unique"), ("id", "the rows of main.Writer have no ['id']")],
)
def test_a_key_that_cannot_be_one_is_refused(shelf: Databases, tmp_path: Path, key: str, words: str) -> None:
    with pytest.raises(DataFileError) as caught:
        load(shelf, written(tmp_path, "Writer.csv", "name,born\nA,\n"), key=key)
    assert words in str(caught.value)


def test_a_row_without_its_key_is_named(shelf: Databases, tmp_path: Path) -> None:
    path = written(tmp_path, "Chapter.csv", "number,book_id\n1,\n")
    with pytest.raises(RowRefused, match="it has no 'book_id'") as caught:
        load(shelf, path)
    assert caught.value.column == "book_id"


def test_of_two_rows_with_one_key_the_later_counts(books: Databases, tmp_path: Path) -> None:
    path = written(tmp_path, "Writer.csv", "name,born\nA,1900-01-01\nB,\nA,1901-01-01\n")
    (found,) = load(books, path)
    assert (found.inserted, found.updated) == (2, 1)
    assert [(name, str(born)) for name, born in rows(books, Writer.name, Writer.born)] == [
        ("A", "1901-01-01"),
        ("B", "None"),
    ]


def test_versions_count_changes_and_deleted_rows_come_back(books: Databases, tmp_path: Path) -> None:
    path = written(tmp_path, "main.Note.csv", "code,text\nx,one\n")
    for _ in range(2):
        load(books, path)
    assert rows(books, Note.code, Note.version) == [("x", 1)]
    with books.unit_of_work() as uow:
        uow.main.query(Note).one().deleted_at = datetime.now(UTC)
    assert load(books, path)[0].updated == 1
    assert rows(books, Note.code, Note.deleted_at) == [("x", None)]


def test_a_row_that_is_there_keeps_its_primary_key_though_the_file_has_that_of_another(
    books: Databases, tmp_path: Path
) -> None:
    with books.unit_of_work() as uow:
        uow.main.add_all([Writer(id=1, name="Ada"), Writer(id=5, name="Bob")])
    path = tmp_path / "seed.json"
    path.write_text('{"Writer": [{"id": 5, "name": "Ada", "born": "1815-12-10"}]}')
    assert [each.updated for each in load(books, path, key="name")] == [1]
    with books.unit_of_work() as uow:
        found = uow.main.query(Writer.id, Writer.name, Writer.born).order_by(Writer.id).all()
    assert found == [(1, "Ada", date(1815, 12, 10)), (5, "Bob", None)]
