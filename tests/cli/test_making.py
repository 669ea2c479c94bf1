"""The commands that create, drop, ask and draw databases."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest

from tests.cli.command import PACKAGE, invoke, run

if TYPE_CHECKING:
    from pathlib import Path


def configure(directory: Path, url: str, extra: str = "") -> None:
    (directory / "stillroom.toml").write_text(f'[databases.main]\nurl = "{url}"\n{extra}', encoding="utf-8")


def missing(url: str) -> str:
    """
    Return the URL of a database that is not there.
    """
    return f"{url}.new" if url.startswith("sqlite") else f"{url}_new"


def test_a_database_is_created_and_dropped(any_database: str, tmp_path: Path) -> None:
    configure(tmp_path, missing(any_database), "disposable = true\n")
    outcomes = [
        json.loads(invoke(*arguments, "--json", cwd=tmp_path).stdout)[0]["outcome"]
        for arguments in (("create",), ("create", "main"), ("recreate", "--yes"), ("drop", "--yes"), ("drop", "--yes"))
    ]
    assert outcomes == ["created", "was there", "created anew", "dropped", "was not there"]


@pytest.mark.parametrize("what", ["drop", "recreate"])
def test_what_is_not_disposable_stays(what: str, tmp_path: Path) -> None:
    configure(tmp_path, "sqlite:///x.db")
    invoke("create", cwd=tmp_path)
    done = invoke(what, "--yes", cwd=tmp_path)
    assert done.exit_code == 2
    assert "databases.main.disposable = true" in done.stderr
    assert (tmp_path / "x.db").exists()


@pytest.mark.parametrize("command", ["create", "sql", "erd"])
def test_a_name_that_no_database_has_is_wrong_usage(command: str, tmp_path: Path) -> None:
    configure(tmp_path, "sqlite:///x.db")
    done = invoke(command, "mian", cwd=tmp_path)
    assert done.exit_code == 2
    assert "no database is named 'mian'; declared are 'main'" in done.stderr


@pytest.mark.parametrize("what", ["drop", "recreate"])
def test_who_does_not_say_yes_keeps_the_database(what: str, tmp_path: Path) -> None:
    configure(tmp_path, "sqlite:///x.db", "disposable = true\n")
    invoke("create", cwd=tmp_path)
    done = invoke(what, cwd=tmp_path)  # without an input, the question has no answer
    assert done.exit_code == 1
    assert "Is that what you want?" in done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "x.db").exists()


def test_sql_only_reads_unless_it_is_asked_to_write(any_database: str, tmp_path: Path) -> None:
    configure(tmp_path, any_database)
    make = "create table item (id int, name varchar(20))"
    refused = invoke("sql", "-c", make, cwd=tmp_path)
    assert refused.exit_code == 1
    assert "Traceback" not in refused.stderr
    assert "`stillroom sql --write`" in refused.stderr
    written = invoke("sql", "--write", "-c", make, "-c", "insert into item values (1, '50%'), (2, null)", cwd=tmp_path)
    assert (written.exit_code, written.stderr.splitlines()[-1]) == (0, "2 rows")
    found = invoke("sql", "--json", "-c", "select * from item order by id", cwd=tmp_path)
    assert json.loads(found.stdout) == [{"id": 1, "name": "50%"}, {"id": 2, "name": None}]
    found = invoke("sql", "main", "--csv", "-c", "select * from item order by id;", cwd=tmp_path)
    assert found.stdout == "id,name\n1,50%\n2,\n"


def test_statements_of_several_lines_are_piped_in(tmp_path: Path) -> None:
    configure(tmp_path, "sqlite:///x.db")
    done = invoke("sql", "--json", cwd=tmp_path, typed="select\n  ';' as a;\n\nselect 2 as b")
    assert [json.loads(line) for line in done.stdout.splitlines()] == [[{"a": ";"}], [{"b": 2}]], done.stderr


def test_a_prompt_goes_on_after_an_error(tmp_path: Path) -> None:
    configure(tmp_path, "sqlite:///x.db")
    screen, terminal = pty.openpty()
    typed = b"select * from nowhere;\nselect 40\n  + 2 as answer;\nexit\n"
    process = subprocess.Popen(
        [sys.executable, "-m", "stillroom", "sql"],
        stdin=terminal,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(PACKAGE), "HOME": str(tmp_path)},
        text=True,
    )
    try:
        os.write(screen, typed)
        out, told = process.communicate(timeout=100)
    finally:
        process.kill()
        os.close(screen)
        os.close(terminal)
    assert process.returncode == 0, told
    assert "no such table: nowhere" in told
    assert "answer" in out
    assert "42" in out


MODELS = """
from sqlalchemy import Column, ForeignKey, Integer, MetaData, String, Table
models = MetaData()
Table("author", models, Column("id", Integer, primary_key=True), Column("name", String(100)))
Table("book", models, Column("id", Integer, primary_key=True), Column("author_id", ForeignKey("author.id")),
      Column("after_id", ForeignKey("book.id")))
"""


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    """
    A directory with settings and models.
    """
    (tmp_path / "shelf.py").write_text(MODELS, encoding="utf-8")
    configure(tmp_path, "sqlite:///x.db", 'metadata = "shelf:models"\n')
    return tmp_path


def test_the_models_are_drawn(shelf: Path) -> None:
    assert run("erd", "-o", "shelf.svg", cwd=shelf).stdout == "wrote shelf.svg\n"
    picture = ET.parse(shelf / "shelf.svg").getroot()
    texts = ["".join(each.itertext()) for each in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert {"author", "book", "name", "varchar(100)?", "PK", "FK"} <= set(texts)
    boxes = [each for each in picture.iter() if each.get("class") == "box"]
    (author, book) = [(float(each.get("x", 0)), float(each.get("width", 0))) for each in boxes]
    assert author[0] + author[1] < book[0]  # what refers stands to the right, and nothing overlaps
    assert float(picture.get("width", 0)) >= book[0] + book[1]


def test_the_models_are_text_for_other_programs(shelf: Path) -> None:
    mermaid = run("erd", "main", "--format", "mermaid", cwd=shelf).stdout
    assert mermaid.startswith("erDiagram\n")
    assert "author |o--o{ book : author_id" in mermaid
    dot = run("erd", "--format", "dot", cwd=shelf).stdout
    assert '"book":"author_id" -> "author":"id"' in dot
    found = json.loads(run("erd", "--json", cwd=shelf).stdout)
    assert [each["name"] for each in found["tables"]] == ["author", "book"]
    assert len(found["references"]) == 2


def test_the_ending_of_the_file_tells_the_format(shelf: Path) -> None:
    assert run("erd", "-o", "shelf.mmd", cwd=shelf).returncode == 0
    assert (shelf / "shelf.mmd").read_text(encoding="utf-8").startswith("erDiagram\n")
    refused = run("erd", "-o", "shelf.png", cwd=shelf)
    assert refused.returncode == 2
    assert "'shelf.png' does not tell the format" in refused.stderr
    assert not (shelf / "shelf.png").exists()


def test_a_database_without_models_is_told(tmp_path: Path) -> None:
    configure(tmp_path, "sqlite:///x.db")
    done = run("erd", cwd=tmp_path)
    assert done.returncode == 2
    assert "databases.main.metadata: the database has no models" in done.stderr


@pytest.mark.parametrize("name", ["bash", "zsh", "fish"])
def test_a_shell_gets_its_completion(name: str, tmp_path: Path) -> None:
    source = run(cwd=tmp_path, environ={"_STILLROOM_COMPLETE": f"{name}_source"})
    if name == "bash" and "bash" in source.stderr.lower() and source.returncode:
        pytest.skip(source.stderr)
    assert "_STILLROOM_COMPLETE" in source.stdout
    words = {"COMP_WORDS": "stillroom sta", "COMP_CWORD": "sta" if name == "fish" else "1"}
    done = run(cwd=tmp_path, environ={"_STILLROOM_COMPLETE": f"{name}_complete", **words})
    assert {"stamp", "status"} <= {word for line in done.stdout.splitlines() for word in line.replace(",", " ").split()}
