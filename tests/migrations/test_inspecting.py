"""Where databases stand, and what an upgrade would do."""

from __future__ import annotations

import getpass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from stillroom.migrations import (
    MigrationError,
    RevisionRefused,
    check,
    history,
    plan,
    revision,
    sql,
    stamp,
    status,
    upgrade,
)
from tests.migrations import shop

if TYPE_CHECKING:
    from pathlib import Path

    from stillroom import Databases

MODELS = {"metadata": "tests.migrations.test_writing:models"}


def kinds(dbs: Databases) -> list[str]:
    return [each.kind for each in check(dbs)]


def test_status_says_what_runs_next_and_who_ran_the_last(any_database: str, tmp_path: Path) -> None:
    shop.tables(tmp_path / "migrations/main", "a", "b")
    with shop.databases(tmp_path, any_database) as dbs:
        (before,) = status(dbs)
        assert (before.current, before.heads, before.pending, before.at) == ((), ("b",), ("a", "b"), None)
        upgrade(dbs)
        (after,) = status(dbs)
        assert (after.current, after.pending, after.findings) == (("b",), (), ())
        assert after.at is not None
        assert abs(datetime.now(UTC) - after.at) < timedelta(minutes=10)
        assert after.by.startswith(f"{getpass.getuser()}@")


def test_check_names_each_thing_that_is_off(sqlite_database: str, tmp_path: Path) -> None:
    directory = tmp_path / "migrations/main"
    shop.tables(directory, "a")
    with shop.databases(tmp_path, sqlite_database, **MODELS) as dbs:
        assert kinds(dbs) == ["pending"]
        upgrade(dbs)
        assert kinds(dbs) == []

        column = shop.write(directory, "b", 'op.add_column("a", sa.Column("extra", sa.Integer))', down="a")
        upgrade(dbs)
        assert [(each.kind, each.text) for each in check(dbs)] == [
            ("drift", "to bring the tables to the models: remove_column a.extra")
        ]

        column.write_text(column.read_text(encoding="utf-8") + "\n# changed my mind\n", encoding="utf-8")
        assert kinds(dbs) == ["edited", "drift"]
        with pytest.raises(RevisionRefused, match="ran another text of b than there is now"):
            revision(dbs, "again", autogenerate=True)

        shop.tables(directory, "c", down="a")
        assert kinds(dbs) == ["edited", "heads", "pending"]

        column.unlink()
        assert kinds(dbs) == ["unknown"]
        with pytest.raises(MigrationError, match="newer code migrated the database"):
            upgrade(dbs)


def test_plan_lists_what_an_upgrade_would_run_with_its_sql(any_database: str, tmp_path: Path) -> None:
    directory = tmp_path / "migrations/main"
    shop.tables(directory, "a", "b")
    shop.write(directory, "c", "op.get_bind().execute(sa.text('select 1')).scalar()", down="b")
    with shop.databases(tmp_path, any_database) as dbs:
        upgrade(dbs, revision="a")
        b, c = plan(dbs)
        assert (b.revision, c.revision, c.sql) == ("b", "c", None)
        assert b.sql is not None
        assert "CREATE TABLE b" in b.sql
        assert "CREATE TABLE a" not in b.sql
        assert status(dbs)[0].current == ("a",)


def test_sql_is_written_without_a_database(tmp_path: Path) -> None:
    shop.tables(tmp_path / "migrations/main", "a", "b")
    with shop.databases(tmp_path, "postgresql://127.0.0.1:1/x") as dbs:
        whole, rest = sql(dbs)["main"], sql(dbs, start="a")["main"]
    assert "CREATE TABLE a" in whole
    assert "CREATE TABLE b" in rest
    assert "CREATE TABLE a" not in rest


def test_history_lists_the_newest_first(tmp_path: Path) -> None:
    shop.tables(tmp_path / "migrations/main", "a", "b")
    with shop.databases(tmp_path, "postgresql://127.0.0.1:1/x") as dbs:
        assert [(each.revision, each.down, each.message) for each in history(dbs)] == [
            ("b", ("a",), "b"),
            ("a", (), "a"),
        ]


def test_a_stamp_says_that_a_revision_is_there(any_database: str, tmp_path: Path) -> None:
    shop.tables(tmp_path / "migrations/main", "a", "b")
    with shop.databases(tmp_path, any_database) as dbs:
        stamp(dbs, "a")
        assert status(dbs)[0].current == ("a",)
        assert upgrade(dbs)[0].revisions == ("b",)
        with pytest.raises(MigrationError, match=r"'main' has no revision 'nowhere' in .*; the newest are 'b', 'a'"):
            stamp(dbs, "nowhere")
        stamp(dbs, "a", purge=True)
        assert status(dbs)[0].current == ("a",)
