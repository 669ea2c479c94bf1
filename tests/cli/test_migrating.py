"""The commands that migrate: what they print, and their exit codes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.cli.command import run
from tests.migrations import shop

if TYPE_CHECKING:
    from pathlib import Path

MODELS = """
from sqlalchemy import Column, Integer, MetaData, Table
models = MetaData()
Table("book", models, Column("id", Integer, primary_key=True))
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """
    A directory with two databases, of which one has models.
    """
    (tmp_path / "shelf.py").write_text(MODELS, encoding="utf-8")
    (tmp_path / "stillroom.toml").write_text(
        'default = "main"\n'
        '[databases.main]\nurl = "sqlite:///main.db"\nmigrations = "migrations/main"\nmetadata = "shelf:models"\n'
        'depends_on = ["log"]\n'
        '[databases.log]\nurl = "sqlite:///log.db"\nmigrations = "migrations/log"\n',
        encoding="utf-8",
    )
    return tmp_path


def test_a_project_from_its_first_revision_to_its_first_upgrade(project: Path) -> None:
    assert run("init", cwd=project).stdout.count("made ") == 2
    done = run("revision", "main", "-m", "books", "--autogenerate", "--json", cwd=project)
    assert done.returncode == 0, done.stderr
    (written,) = json.loads(done.stdout)
    assert written["changes"] == ["add_table book"]
    assert run("check", cwd=project).returncode == 3
    assert "CREATE TABLE book" in run("plan", "--sql", cwd=project).stdout
    upgraded = run("upgrade", "--json", cwd=project)
    assert [(each["database"], each["state"]) for each in json.loads(upgraded.stdout)] == [
        ("log", "nothing to do"),
        ("main", "done"),
    ]
    assert run("check", cwd=project).returncode == 0
    assert json.loads(run("migrations", "main", "--json", cwd=project).stdout)[0]["current"] == [written["revision"]]
    assert json.loads(run("history", "--json", cwd=project).stdout)[0]["message"] == "books"
    assert run("downgrade", "main", "--revision", "-1", cwd=project).returncode == 0
    assert run("upgrade-sql", "out", "main", cwd=project).returncode == 0
    assert "CREATE TABLE book" in (project / "out/main.sql").read_text(encoding="utf-8")


def test_a_failure_is_a_table_a_paragraph_and_exit_code_1(project: Path) -> None:
    shop.write(project / "migrations/log", "bad", 'op.execute("drop table nowhere")')
    shop.tables(project / "migrations/main", "a")
    done = run("upgrade", cwd=project)
    assert done.returncode == 1
    assert "not started" in done.stdout
    assert done.stderr.startswith("Error: revision 'bad' of the database 'log' failed at 'drop table nowhere'")
    assert "Traceback" not in done.stderr


def test_no_directory_is_told_with_the_command_that_makes_it(project: Path) -> None:
    done = run("check", cwd=project)
    assert (done.returncode, "stillroom init" in done.stderr) == (1, True)
