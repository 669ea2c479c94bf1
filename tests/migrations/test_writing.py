"""Revisions that are written: what the models ask for, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, inspect

from stillroom.migrations import MigrationError, RevisionRefused, check, init, merge, revision, upgrade
from tests.migrations import shop

if TYPE_CHECKING:
    from stillroom import Databases

MODELS = {"metadata": "tests.migrations.test_writing:models"}
models = MetaData()
Table("a", models, Column("id", Integer, primary_key=True))

nothing = MetaData()


def execute(dbs: Databases, *statements: str) -> None:
    with dbs.main.begin() as connection:
        for each in statements:
            connection.exec_driver_sql(each)


@pytest.mark.parametrize("base", ["Catalog", "Sales", "Log"])
def test_what_autogenerate_writes_brings_the_tables_to_the_models(any_database: str, base: str, tmp_path: Path) -> None:
    with shop.databases(tmp_path, any_database, metadata=f"stillroom.demo.models:{base}") as dbs:
        init(dbs)
        (written,) = revision(dbs, "the shop", autogenerate=True)
        assert len(written.changes) >= len(dbs.main.metadata.tables)
        assert upgrade(dbs)[0].revisions == (written.revision,)
        assert check(dbs) == []
        assert revision(dbs, "again", autogenerate=True) == []


def test_types_of_other_packages_are_imported(sqlite_database: str, tmp_path: Path) -> None:
    with shop.databases(tmp_path, sqlite_database, metadata="tests.migrations.kinds:models") as dbs:
        init(dbs)
        (written,) = revision(dbs, "kinds", autogenerate=True)
        assert "import tests.migrations.kinds" in Path(written.path).read_text(encoding="utf-8")
        assert upgrade(dbs)[0].state == "done"


def test_our_own_types_are_written_by_their_public_names(sqlite_database: str, tmp_path: Path) -> None:
    with shop.databases(tmp_path, sqlite_database, metadata="tests.migrations.kinds:ours") as dbs:
        init(dbs)
        (written,) = revision(dbs, "kinds", autogenerate=True)
        text = Path(written.path).read_text(encoding="utf-8")
        assert "from alembic import op\nimport stillroom.models\n\nrevision = " in text
        assert "stillroom.models.DecimalNumber(" in text
        assert "sa.Integer().with_variant(stillroom.models.UTCDateTime(timezone=True), 'sqlite')" in text
        assert "stillroom.models.UTCDateTime(timezone=True).with_variant(sa.Integer(), 'mysql')" in text
        assert "stillroom.models.columns" not in text
        assert upgrade(dbs)[0].state == "done"
        assert check(dbs) == []


def test_an_empty_revision_stands_on_the_newest(tmp_path: Path) -> None:
    shop.tables(tmp_path / "migrations/main", "a")
    with shop.databases(tmp_path, "sqlite://") as dbs:
        (written,) = revision(dbs, "fill in")
        assert "down_revision = 'a'" in Path(written.path).read_text(encoding="utf-8")


@pytest.mark.parametrize("metadata", [None, "tests.migrations.test_writing:nothing"])
def test_a_database_without_models_is_refused(metadata: str | None, sqlite_database: str, tmp_path: Path) -> None:
    shop.tables(tmp_path / "migrations/main", "a")
    with shop.databases(tmp_path, sqlite_database, metadata=metadata) as dbs:
        upgrade(dbs)
        with pytest.raises(RevisionRefused, match="has no models"):
            revision(dbs, "drop all", autogenerate=True)


def test_a_database_that_is_not_at_the_newest_revision_is_refused(sqlite_database: str, tmp_path: Path) -> None:
    shop.tables(tmp_path / "migrations/main", "a")
    with shop.databases(tmp_path, sqlite_database, **MODELS) as dbs:
        with pytest.raises(RevisionRefused, match="not at the newest revision"):
            revision(dbs, "again", autogenerate=True)


def test_tables_of_other_owners_stay_and_our_own_go(any_database: str, tmp_path: Path) -> None:
    shop.tables(tmp_path / "migrations/main", "a", "gone")
    with shop.databases(tmp_path, any_database, **MODELS) as dbs:
        upgrade(dbs)
        execute(dbs, "create table foreign_one (id int)", "create index foreign_index on foreign_one (id)")
        assert [each.text.partition(": ")[2] for each in check(dbs)] == ["remove_table gone"]
        assert revision(dbs, "clean up", autogenerate=True)[0].changes == ("remove_table gone",)
        upgrade(dbs)
        assert check(dbs) == []
        with dbs.main.connect() as connection:
            assert set(inspect(connection).get_table_names()) >= {"a", "foreign_one"}


def test_more_than_a_few_drops_must_be_allowed(sqlite_database: str, tmp_path: Path) -> None:
    shop.tables(tmp_path / "migrations/main", "a", "b", "c", "d", "e")
    with shop.databases(tmp_path, sqlite_database, **MODELS) as dbs:
        upgrade(dbs)
        with pytest.raises(RevisionRefused, match=r"would drop 4 tables and columns \(b, c, d, e\)"):
            revision(dbs, "drop", autogenerate=True)
        assert len(list((tmp_path / "migrations/main/versions").glob("*.py"))) == 5
        assert len(revision(dbs, "drop", autogenerate=True, allow_drops=True)) == 1


def test_two_heads_are_refused_until_they_are_merged(sqlite_database: str, tmp_path: Path) -> None:
    directory = tmp_path / "migrations/main"
    shop.tables(directory, "a")
    shop.tables(directory, "b", down="a")
    shop.tables(directory, "c", down="a")
    with shop.databases(tmp_path, sqlite_database) as dbs:
        for attempt in (lambda: revision(dbs, "on which"), lambda: upgrade(dbs)):
            with pytest.raises(MigrationError, match=r"2 heads \(b, c\); join them with `stillroom merge main`"):
                attempt()
        (merged,) = merge(dbs, "main")
        assert merge(dbs, "main") == []
        assert upgrade(dbs)[0].revisions[-1] == merged.revision
