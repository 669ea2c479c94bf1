"""The command `stillroom lint`: what it prints in each format, and its exit codes."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, NamedTuple

import pytest

from stillroom.cli import main
from tests.cli.command import run as run_as_a_process
from tests.migrations import shop

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SETTINGS = 'default = "main"\n[databases.main]\nurl = "{}"\nmigrations = "migrations/main"\n'
FILE = "migrations/main/versions/b.py"
INDEX = 'op.create_index("ix", "book", ["a"])'
BOOK = 'op.create_table("book", sa.Column("id", sa.BigInteger, primary_key=True), sa.Column("a", sa.Integer))'


def project(directory: Path, body: str, url: str = "postgresql://127.0.0.1:1/x") -> Path:
    """
    Write a project with two revisions: one that makes a table, and another.
    """
    (directory / "stillroom.toml").write_text(SETTINGS.format(url), encoding="utf-8")
    shop.write(directory / "migrations/main", "a", BOOK, 'op.drop_table("book")')
    shop.write(directory / "migrations/main", "b", body, "raise RuntimeError", down="a")
    return directory


class Done(NamedTuple):
    """
    What the command printed, and its exit code.
    """

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """
    Run the command in this process, which is a second faster.
    """

    def run(*arguments: str, cwd: Path) -> Done:
        monkeypatch.chdir(cwd)
        monkeypatch.setattr(sys, "path", [*sys.path])
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert isinstance(caught.value.code, int)
        return Done(caught.value.code, *capsys.readouterr())

    return run


def test_text_says_where_what_why_and_what_instead(tmp_path: Path) -> None:
    done = run_as_a_process("lint", cwd=project(tmp_path, INDEX))
    assert done.returncode == 1
    first, reason, remedy, counts = done.stdout.splitlines()
    assert first == f"{FILE}:9: error: index-not-concurrent: create index ix on book"
    assert reason.strip() == "takes a SHARE lock: nobody writes to the table while the index is built."
    assert remedy.strip().startswith("Instead: postgresql_concurrently=True inside")
    assert counts == "1 error(s), 0 warning(s), 0 of style"


def test_json_is_for_programs(run: Callable[..., Done], tmp_path: Path) -> None:
    done = run("lint", "main", "--format", "json", cwd=project(tmp_path, INDEX))
    shown = json.loads(done.stdout)
    assert shown["statements"] is None
    assert [(each["rule"], each["severity"], each["line"]) for each in shown["hazards"]] == [
        ("index-not-concurrent", "error", 9)
    ]


def test_annotations_are_for_github(run: Callable[..., Done], tmp_path: Path) -> None:
    done = run("lint", "--format", "github", cwd=project(tmp_path, 'op.execute("drop table x -- 100%\\n cascade")'))
    assert done.returncode == 1
    cascade, drop = done.stdout.splitlines()
    assert cascade.startswith(f"::error file={FILE},line=9,title=drop-cascade::drop table x cascade: CASCADE drops ")
    assert drop.startswith(f"::error file={FILE},line=9,title=drop-table::drop table x cascade: the data are gone")


def test_an_annotation_is_one_line_whatever_it_says(run: Callable[..., Done], tmp_path: Path) -> None:
    done = run("lint", "--format", "github", cwd=project(tmp_path, 'op.drop_table("50%\\n::set")'))
    assert "drop table 50%25%0A::set" in done.stdout
    assert len(done.stdout.splitlines()) == 1


@pytest.mark.parametrize(
    ("body", "options", "code"),
    [
        ("pass", (), 0),
        (INDEX, (), 1),
        ('op.drop_index("ix", "book")', (), 0),
        ('op.drop_index("ix", "book")', ("--strict",), 1),
        ('op.create_table("x", sa.Column("id", sa.Integer, primary_key=True))', ("--strict",), 0),
        (INDEX, ("--since", "b"), 0),
        (INDEX, ("--since", "nowhere"), 1),
        (INDEX, ("--format", "xml"), 2),
    ],
)
def test_errors_make_it_fail_and_warnings_if_it_is_strict(
    run: Callable[..., Done], body: str, options: tuple[str, ...], code: int, tmp_path: Path
) -> None:
    assert run("lint", *options, cwd=project(tmp_path, body)).returncode == code


def test_all_has_those_that_the_database_has(run: Callable[..., Done], sqlite_database: str, tmp_path: Path) -> None:
    directory = project(tmp_path, 'op.drop_table("book")', sqlite_database)
    assert run("upgrade", cwd=directory).returncode == 0
    assert run("lint", cwd=directory).returncode == 0
    assert run("lint", "--all", cwd=directory).returncode == 1


def test_trace_shows_what_was_measured(run: Callable[..., Done], postgresql_database: str, tmp_path: Path) -> None:
    directory = project(tmp_path, INDEX, postgresql_database)
    shown = run("lint", "--trace", "--since", "a", cwd=directory).stdout
    assert "ShareLock book" in shown
    (statement,) = json.loads(run("lint", "--trace", "--since", "a", "--format", "json", cwd=directory).stdout)[
        "statements"
    ]
    assert statement["locks"] == [{"relation": "book", "mode": "ShareLock"}]
    assert (statement["scanned"], statement["indexes"], statement["rewritten"]) == (["book"], ["ix"], [])
    annotations = run("lint", "--trace", "--since", "a", "--format", "github", cwd=directory).stdout
    assert (
        f"::notice file={FILE},line=9,title=measured::CREATE INDEX ix ON book (a): ShareLock on book, " in annotations
    )


def test_trace_without_postgresql_is_refused(run: Callable[..., Done], sqlite_database: str, tmp_path: Path) -> None:
    done = run("lint", "--trace", cwd=project(tmp_path, INDEX, sqlite_database))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: no database is on PostgreSQL")
