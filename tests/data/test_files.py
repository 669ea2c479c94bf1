"""
A file says whose rows it has: by its name, by its directory, by its keys, or whoever loads it says so.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from stillroom import Databases, UnknownDatabase
from stillroom.data import DataFileError, load
from tests.data.library import Event, Notes, Writer, rows
from tests.data.processes import lines, started
from tests.integrations.test_extras import REFUSE

if TYPE_CHECKING:
    from pathlib import Path

WRITERS = "name\nA\n"


def loaded(dbs: Databases, *paths: Path, **options: Any) -> list[tuple[str, str, int]]:
    return [(each.database, each.model, each.inserted) for each in load(dbs, *paths, **options)]


def written(directory: Path, name: str, text: str) -> Path:
    path = directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "name", ["Writer.csv", "main.Writer.csv", "main/Writer.csv", "writers.csv", "a/main.writers.csv"]
)
def test_the_name_of_a_file_tells_its_model(shelf: Databases, tmp_path: Path, name: str) -> None:
    assert loaded(shelf, written(tmp_path, name, WRITERS)) == [("main", "Writer", 1)]


@pytest.mark.parametrize(
    "content",
    [
        {"Writer": [{"name": "A"}], "Event": [{"id": 1, "text": "x"}]},
        {"main": {"writers": [{"name": "A"}]}, "audit": {"Event": [{"id": 1, "text": "x"}]}},
    ],
)
def test_the_keys_of_a_document_tell_its_models(shelf: Databases, tmp_path: Path, content: Any) -> None:
    path = written(tmp_path, "seed.json", json.dumps(content))
    assert sorted(loaded(shelf, path)) == [("audit", "Event", 1), ("main", "Writer", 1)]
    with shelf.unit_of_work() as uow:
        assert uow.audit.query(Event.text).all() == [("x",)]


def test_the_arguments_tell_more_than_the_name(shelf: Databases, tmp_path: Path) -> None:
    path = written(tmp_path, "anything.csv", WRITERS)
    assert loaded(shelf, path, model="Writer") == [("main", "Writer", 1)]
    assert loaded(shelf, path, model=Writer, database="main") == [("main", "Writer", 0)]


def test_a_directory_is_all_of_its_files(shelf: Databases, tmp_path: Path) -> None:
    written(tmp_path, "main/Writer.csv", WRITERS)
    written(tmp_path, "audit/Event.jsonl", '{"id": 1, "text": "x"}\n')
    written(tmp_path, "README.md", "no data")
    assert sorted(loaded(shelf, tmp_path)) == [("audit", "Event", 1), ("main", "Writer", 1)]


def test_several_files_of_one_model_are_one_table(shelf: Databases, tmp_path: Path) -> None:
    paths = [written(tmp_path, f"{name}/Writer.csv", f"name\n{name}\n") for name in "ab"]
    assert loaded(shelf, *paths) == [("main", "Writer", 2)]


def test_a_name_of_two_things_is_refused_with_both(shelf: Databases, tmp_path: Path) -> None:
    path = written(tmp_path, "notes.csv", "id\n1\n")
    with pytest.raises(DataFileError, match=r"'notes' is main.Note or audit.Notes; say which by database="):
        load(shelf, path)
    load(shelf, path, database="audit")
    with shelf.unit_of_work() as uow:
        assert uow.audit.query(Notes.id).all() == [(1,)]


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("Writr.csv", {}, "the databases have no model and no table 'Writr'; did you mean 'Writer'?"),
        ("audit/Writer.csv", {}, "the database 'audit' has no model and no table 'Writer'; known: 'Event', 'Notes'"),
        ("Writer.csv", {"database": "audit"}, "the database 'audit' has no model and no table 'Writer'"),
        ("Writer.txt", {}, "the ending of a file tells its format; known are .csv"),
        ("x.json", {}, "no model and no table 'Writr'"),
        ("y.json", {}, "'Writer' is none of the databases of this load, which are 'main', 'audit'"),
        ("z.json", {}, "'Writer' is no list of rows, but int"),
    ],
)
def test_what_cannot_be_told_is_an_error_that_says_what_there_is(
    shelf: Databases, tmp_path: Path, name: str, options: Any, words: str
) -> None:
    texts = {"x.json": '{"Writr": []}', "y.json": '{"Writer": {"name": "A"}}', "z.json": '{"Writer": 1}'}
    path = written(tmp_path, name, texts.get(name, WRITERS))
    with pytest.raises(DataFileError) as caught:
        load(shelf, path, **options)
    assert words in str(caught.value)
    assert repr(str(path)) in str(caught.value)


def test_an_unknown_database_a_missing_file_and_an_empty_directory_are_told(shelf: Databases, tmp_path: Path) -> None:
    with pytest.raises(UnknownDatabase):
        load(shelf, written(tmp_path, "Writer.csv", WRITERS), database="mian")
    with pytest.raises(DataFileError, match="No such file"):
        load(shelf, tmp_path / "none" / "Writer.csv")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataFileError, match="has no file of data"):
        load(shelf, tmp_path / "empty")


def test_several_databases_are_loaded_together_or_not_at_all(shelf: Databases, tmp_path: Path) -> None:
    written(tmp_path, "main/Writer.csv", WRITERS)
    bad = written(tmp_path, "audit/Event.csv", "id,text\n1,\n2,x\n2,\n")
    bad.write_text('id,text\n1,x\n"",y\n', encoding="utf-8")
    with pytest.raises(ValueError, match=r"Event.csv', row 2"):
        load(shelf, tmp_path, key=None)
    with shelf.unit_of_work() as uow:
        assert (uow.main.query(Writer).all(), uow.audit.query(Event).all()) == ([], [])


def test_a_load_joins_the_unit_of_work_that_is_open(books: Databases, tmp_path: Path) -> None:
    path = written(tmp_path, "Writer.csv", WRITERS)
    with books.unit_of_work() as uow:
        load(books, path)
        assert uow.main.query(Writer.name).all() == [("A",)]
        uow.doom()
    assert rows(books, Writer.name) == []


def test_a_dry_run_counts_and_leaves_nothing(books: Databases, tmp_path: Path) -> None:
    path = written(tmp_path, "Writer.csv", WRITERS)
    assert loaded(books, path, dry_run=True) == [("main", "Writer", 1)]
    assert rows(books, Writer.name) == []
    assert loaded(books, path) == [("main", "Writer", 1)]


def test_progress_is_told_up_to_the_end(shelf: Databases, tmp_path: Path) -> None:
    path = written(tmp_path, "Writer.csv", "name\n" + "\n".join(f"w{number}" for number in range(9000)) + "\n")
    seen: list[tuple[str, int, int]] = []
    load(shelf, path, progress=lambda *each: seen.append(each))
    assert {what for what, _, _ in seen} == {"main.Writer"}
    assert [done for _, done, _ in seen] == sorted(done for _, done, _ in seen)
    assert seen[-1][1:] == (9000, 9000)
    assert len(seen) > 2


def test_a_key_that_was_given_does_not_come_again(books: Databases, tmp_path: Path) -> None:
    load(books, written(tmp_path, "Writer.csv", "id,name\n7,A\n"))
    with books.unit_of_work() as uow:
        uow.main.add_all([Writer(name=str(number)) for number in range(9)])
    assert min(number for number, name in rows(books, Writer.id, Writer.name) if name != "A") > 7


def test_a_database_without_models_says_what_is_missing(sqlite_database: str, tmp_path: Path) -> None:
    with Databases({"default": "other", "databases": {"other": {"url": sqlite_database}}}) as dbs:
        with pytest.raises(DataFileError, match="name its `metadata` in the settings"):
            load(dbs, written(tmp_path, "Writer.csv", WRITERS))


def test_yaml_without_its_library_says_how_to_install_it(tmp_path: Path) -> None:
    written(tmp_path, "seed.yaml", "Writer: []\n")
    program = REFUSE.format(names={"yaml"}) + (
        "from stillroom import MissingExtra\n"
        "from stillroom.data import load\n"
        "from tests.data import library\n"
        "with library.databases('sqlite://') as dbs:\n"
        "    try:\n"
        "        load(dbs, sys.argv[1])\n"
        "    except MissingExtra as error:\n"
        "        print(error)\n"
    )
    with started(program, str(tmp_path)) as process:
        assert 'pip install "stillroom[data]"' in lines(process)[0]


def test_a_dry_run_leaves_the_counters_of_keys_alone(books: Databases, tmp_path: Path) -> None:
    path = written(tmp_path, "seed.json", '{"Writer": [{"id": 1000, "name": "A"}]}')
    assert loaded(books, path, dry_run=True) == [("main", "Writer", 1)]
    with books.unit_of_work() as uow:
        uow.main.add(writer := Writer(name="B"))
        uow.main.flush()
        # MariaDB's counter is past the row itself, whatever becomes of it.
        assert writer.id < 1000 or books.main.backend.name == "mysql"
