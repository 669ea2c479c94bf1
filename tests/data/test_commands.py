"""
The commands `load` and `dump`: what they print, and their exit codes.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from stillroom import Databases, Settings
from stillroom.cli import main
from tests.cli.command import run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Command = Callable[..., tuple[int, str, str]]

MODELS = """
from sqlalchemy import String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
class Base(DeclarativeBase): ...
class Book(Base):
    __tablename__ = "books"
    id: Mapped[int] = mapped_column(primary_key=True)
    code: Mapped[str] = mapped_column(String(20), unique=True)
    year: Mapped[int | None]
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """
    A directory with a database, its models and a file of data.
    """
    (tmp_path / "bookshelf.py").write_text(MODELS, encoding="utf-8")
    (tmp_path / "stillroom.toml").write_text(
        'default = "main"\n[databases.main]\nurl = "sqlite:///main.db"\nmetadata = "bookshelf:Base"\n', encoding="utf-8"
    )
    (tmp_path / "Book.csv").write_text("code,year\na,1900\nb,\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    with Databases(Settings.load()) as databases:
        databases.main.metadata.create_all(databases.main.engine)
    return tmp_path


@pytest.fixture
def command(project: Path, capfd: pytest.CaptureFixture[str]) -> Command:
    """
    Runs the command in the project: its exit code, and what it printed.
    """

    def call(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        printed = capfd.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    return call


def test_a_file_goes_in_and_comes_out(project: Path, command: Command) -> None:
    code, output, _ = command("load", "Book.csv", "--dry-run")
    assert (code, "All of it was rolled back" in output) == (0, True)
    _, output, _ = command("load", "Book.csv", "--key", "code", "--json")
    assert json.loads(output) == [
        {"database": "main", "model": "Book", "rows": 2, "inserted": 2, "updated": 0, "unchanged": 0}
    ]
    code, _, _ = command("dump", "out", "--model", "Book", "--format", "jsonl")
    assert code == 0
    assert (project / "out/main/Book.jsonl").read_text(encoding="utf-8").count("\n") == 2
    assert "unchanged" in command("load", "out")[1]


def test_the_standard_output_is_one_document(project: Path, command: Command) -> None:
    command("load", "Book.csv")
    done = run("dump", "-", cwd=project)
    assert json.loads(done.stdout) == {
        "main": {"Book": [{"id": 1, "code": "a", "year": 1900}, {"id": 2, "code": "b", "year": None}]}
    }
    assert done.stderr == ""


def test_once_is_once(project: Path, command: Command) -> None:
    assert "inserted" in command("load", "Book.csv", "--once", "seed-1")[1]
    (project / "Book.csv").write_text("code,year\nc,1\n", encoding="utf-8")
    done = command("load", "Book.csv", "--once", "seed-1")
    assert done == (0, "'seed-1' was done before; nothing was loaded.\n", "")
    assert command("load", "Book.csv", "--once", "x", "--dry-run")[0] == 2


def test_a_bad_row_is_a_paragraph_and_exit_code_2(project: Path, command: Command) -> None:
    (project / "Book.csv").write_text("code,year\na,1900\nb,soon\n", encoding="utf-8")
    assert command("load", "Book.csv") == (
        2,
        "",
        "Error: 'Book.csv', row 2 of main.Book, column 'year': 'soon' does not fit: it takes int. Nothing was loaded\n",
    )


@pytest.mark.parametrize("arguments", [("load", "Book.csv"), ("dump", "out")])
def test_an_unknown_model_is_a_paragraph_and_exit_code_2(command: Command, arguments: tuple[str, ...]) -> None:
    code, _, errors = command(*arguments, "--model", "Bok")
    assert (code, "did you mean 'Book'?" in errors) == (2, True)
