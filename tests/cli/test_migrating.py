"""The commands that migrate: what they print, and their exit codes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.cli.command import at_a_terminal, invoke, run
from tests.migrations import shop

if TYPE_CHECKING:
    from pathlib import Path

MODELS = """
from sqlalchemy import Column, Integer, MetaData, Table
models = MetaData()
Table("book", models, Column("id", Integer, primary_key=True))
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """
    A directory with two databases, of which one has models.
    """
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "models_of_migrating.py").write_text(MODELS, encoding="utf-8")
    (tmp_path / "stillroom.toml").write_text(
        'default = "main"\n'
        '[databases.main]\nurl = "sqlite:///main.db"\nmigrations = "migrations/main"\n'
        'metadata = "models_of_migrating:models"\ndepends_on = ["log"]\n'
        '[databases.log]\nurl = "sqlite:///log.db"\nmigrations = "migrations/log"\n',
        encoding="utf-8",
    )
    return tmp_path


def test_a_project_from_its_first_revision_to_its_first_upgrade(project: Path) -> None:
    assert invoke("init", cwd=project).stdout.count("made ") == 2
    done = invoke("revision", "main", "-m", "books", "--autogenerate", "--json", cwd=project)
    assert done.exit_code == 0, done.stderr
    (written,) = json.loads(done.stdout)
    assert written["changes"] == ["add_table book"]
    assert invoke("check", cwd=project).exit_code == 3
    assert "CREATE TABLE book" in invoke("plan", "--sql", cwd=project).stdout
    upgraded = invoke("upgrade", "--json", cwd=project)
    assert [(each["database"], each["state"]) for each in json.loads(upgraded.stdout)] == [
        ("log", "nothing to do"),
        ("main", "done"),
    ]
    assert invoke("check", cwd=project).exit_code == 0
    assert json.loads(invoke("migrations", "main", "--json", cwd=project).stdout)[0]["current"] == [written["revision"]]
    assert json.loads(invoke("history", "--json", cwd=project).stdout)[0]["message"] == "books"
    assert invoke("downgrade", "main", "--revision", "-1", "--yes", cwd=project).exit_code == 0
    assert invoke("upgrade-sql", "out", "main", cwd=project).exit_code == 0
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
    done = invoke("check", cwd=project)
    assert (done.exit_code, "stillroom init" in done.stderr) == (2, True)
    made, again = invoke("init", "main", cwd=project), invoke("init", cwd=project)
    assert made.stdout == "made migrations/main/versions\n"
    assert again.stdout == "made migrations/log/versions\nthere is already migrations/main/versions\n"
    assert json.loads(invoke("init", "--json", cwd=project).stdout) == []


@pytest.mark.parametrize(
    ("first", "command"),
    [
        ("log", ("upgrade", "--revision", "besdline")),
        ("main", ("downgrade", "--yes", "--revision", "besdline")),
        ("log", ("stamp", "besdline")),
    ],
)
def test_a_misspelt_revision_is_wrong_usage_before_any_database_is_touched(
    first: str, command: tuple[str, ...], project: Path
) -> None:
    shop.tables(project / "migrations/log", "first", "baseline")
    shop.tables(project / "migrations/main", "first", "baseline")
    done = invoke(*command, cwd=project)
    assert done.exit_code == 2
    where = f"the database '{first}' has no revision 'besdline' in 'migrations/{first}/versions'"
    assert done.stderr == f"Error: {where}; did you mean 'baseline'?\n"
    assert list(project.glob("*.db")) == []


def test_a_downgrade_without_a_terminal_needs_yes(project: Path) -> None:
    shop.tables(project / "migrations/log", "a")
    shop.tables(project / "migrations/main", "a")
    assert invoke("upgrade", cwd=project).exit_code == 0
    refused = invoke("downgrade", "--revision", "base", cwd=project, typed="y\n")
    assert (refused.exit_code, "--yes" in refused.stderr) == (2, True)
    assert all(each["current"] == ["a"] for each in json.loads(invoke("migrations", "--json", cwd=project).stdout))


@pytest.mark.parametrize(("answer", "left"), [("n", ["b"]), ("y", ["a"])])
def test_a_downgrade_names_what_it_undoes_and_asks(answer: str, left: list[str], project: Path) -> None:
    shop.tables(project / "migrations/log", "a", "b")
    shop.tables(project / "migrations/main", "a")
    assert invoke("upgrade", cwd=project).exit_code == 0
    code, said = at_a_terminal("downgrade", "--revision", "a", cwd=project, typed=answer)
    assert code == (0 if answer == "y" else 1), said
    assert "This is going to undo:\n  log: b\nIs that what you want?" in said
    assert json.loads(invoke("migrations", "log", "--json", cwd=project).stdout)[0]["current"] == left


def test_sql_that_needs_the_database_is_told_and_the_others_are_written(project: Path) -> None:
    shop.tables(project / "migrations/log", "a")
    batch = 'with op.batch_alter_table("a") as batch:\n    batch.drop_column("x")'
    shop.write(project / "migrations/log", "b", batch, down="a")
    shop.tables(project / "migrations/main", "a")
    done = invoke("upgrade-sql", "out", cwd=project)
    assert (done.exit_code, done.stdout) == (1, "wrote out/main.sql\n")
    assert "the SQL of revision 'b' of the database 'log' cannot be written without the database" in done.stderr
    assert "copy_from, or run `stillroom upgrade log` instead" in done.stderr
    shop.write(project / "migrations/log", "b", "op.get_bind().scalar(sa.select(1)) + 1", down="a")
    asking = invoke("upgrade-sql", "out", cwd=project)
    assert (asking.exit_code, "revision 'b' of the database 'log'" in asking.stderr) == (1, True)
    assert [each.name for each in (project / "out").iterdir()] == ["main.sql"]


def test_one_head_is_told_and_is_no_error(project: Path) -> None:
    shop.tables(project / "migrations/main", "a")
    done = invoke("merge", "main", cwd=project)
    assert (done.exit_code, done.stdout) == (0, "The revisions of main have one head; there is nothing to join.\n")


def test_tables_that_differ_end_with_what_to_do(project: Path) -> None:
    assert invoke("init", cwd=project).exit_code == 0
    done = invoke("check", "main", cwd=project)
    assert done.exit_code == 4
    assert done.stdout.splitlines()[-1] == (
        'main: write a revision that does it: stillroom revision main -m "..." --autogenerate'
    )


def test_a_plan_says_whom_it_asks(project: Path) -> None:
    assert invoke("init", cwd=project).exit_code == 0
    assert invoke("plan", cwd=project).stderr == "asking which revision there is in: main, log\n"
    assert invoke("plan", "--json", cwd=project).stderr == ""


def test_a_canary_and_several_at_a_time(project: Path) -> None:
    shop.write(project / "migrations/log", "bad", 'op.execute("drop table nowhere")')
    shop.tables(project / "migrations/main", "a")
    done = invoke("upgrade", "--canary", "--parallel", "2", "--json", cwd=project)
    assert (done.exit_code, [each["state"] for each in json.loads(done.stdout)]) == (1, ["failed", "not started"])
    (project / "migrations/log/versions/bad.py").unlink()
    done = invoke("upgrade", "--json", "--parallel", cwd=project)
    assert [each["state"] for each in json.loads(done.stdout)] == ["nothing to do", "done"], done.stderr
    wrong = invoke("upgrade", "--canary", "nobody", cwd=project)
    assert "the canary 'nobody' is not one of the databases to be upgraded ('log', 'main')" in wrong.stderr


def test_a_plan_shows_locks_and_risks(project: Path) -> None:
    shop.tables(project / "migrations/log", "a")
    shop.write(project / "migrations/log", "b", 'op.drop_table("a")', down="a")
    shown = invoke("plan", "log", cwd=project).stdout
    assert all(word in shown for word in ("writers of the whole file", "destroys data", "has no way back"))
    (_, found) = json.loads(invoke("plan", "log", "--json", cwd=project).stdout)
    assert found["reversible"] is False
    assert found["steps"][0]["risks"] == ["destroys data", "breaks code that runs now"]


def test_a_schema_is_dumped_loaded_and_squashed(project: Path) -> None:
    shop.tables(project / "migrations/log", "a", "b")
    missing = invoke("schema-load", "log", cwd=project)
    assert (missing.exit_code, "stillroom schema-dump log" in missing.stderr) == (2, True)
    assert invoke("schema-dump", "log", cwd=project).stdout == "wrote migrations/log/schema.sql\n"
    assert json.loads(invoke("schema-load", "log", "--json", cwd=project).stdout) == {
        "database": "log",
        "revision": "b",
    }
    squashed = json.loads(invoke("squash", "log", "-m", "all", "--json", cwd=project).stdout)
    assert squashed[0]["changes"] == ["a", "b"]
    assert invoke("check", "log", cwd=project).exit_code == 0
    assert invoke("schema-dump", "-o", "x.sql", cwd=project).exit_code == 2
