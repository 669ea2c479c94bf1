"""Databases that share a server's database, each with its own revisions: by table, or a schema for each tenant."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import inspect, text

from stillroom import Database, Databases, SettingsError
from stillroom.migrations import check, init, revision, status, upgrade
from tests.migrations import shop

if TYPE_CHECKING:
    from pathlib import Path


def test_two_databases_in_one_keep_their_revisions_apart(any_database: str, tmp_path: Path) -> None:
    given = shop.settings(tmp_path, {"main": any_database, "other": any_database})
    given["databases"]["other"]["version_table"] = "other_version"
    shop.tables(tmp_path / "migrations/main", "a", "b")
    shop.tables(tmp_path / "migrations/other", "c")
    with Databases(given | {"default": "main"}) as dbs:
        assert [each.revisions for each in upgrade(dbs)] == [("a", "b"), ("c",)]
        assert [each.current for each in status(dbs)] == [("b",), ("c",)]
        assert check(dbs) == []
        with dbs.main.connect() as connection:
            assert {"alembic_version", "other_version"} <= set(inspect(connection).get_table_names())


@pytest.mark.parametrize("parallel", [1, 2])
def test_each_tenant_has_a_schema(parallel: int, postgresql_database: str, tmp_path: Path) -> None:
    shop.tables(tmp_path / "migrations", "a", "b")
    given = {
        "default": "north",
        "databases": {
            name: {
                "url": postgresql_database,
                "migrations": str(tmp_path / "migrations"),
                "version_schema": name,
                "server_settings": {"search_path": name},
            }
            for name in ("north", "south")
        },
    }
    with Databases(given) as dbs:
        assert [each.revisions for each in upgrade(dbs, parallel=parallel)] == [("a", "b"), ("a", "b")]
        assert check(dbs) == []
        with dbs.north.connect() as connection:
            found = set(inspect(connection).get_table_names(schema="south"))
            assert found == {"a", "b", "alembic_version", "stillroom_migrations"}
            assert connection.execute(text("select count(*) from south.b")).scalar() == 0


def test_a_backend_without_schemas_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="version_schema: SQLite has no schemas; `version_table`"):
        shop.databases(tmp_path, "sqlite://", version_schema="x")


def test_a_dropped_file_leaves_nothing_beside_it(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    directory.mkdir()
    shop.tables(tmp_path / "migrations/main", "a")
    with shop.databases(tmp_path, f"sqlite:///{directory / 'x.db'}", disposable=True) as dbs:
        upgrade(dbs)
        assert (directory / "x.db-migrating").exists()
        database: Database = dbs.main
        database.drop()
    assert list(directory.iterdir()) == []


def test_a_directory_that_tenants_share_is_made_once_and_gets_one_revision(tmp_path: Path) -> None:
    given = shop.settings(tmp_path, {name: f"sqlite:///{tmp_path / name}.db" for name in ("north", "south")})
    for each in given["databases"].values():
        each["migrations"] = str(tmp_path / "tenant")
    with Databases(given | {"default": "north"}) as dbs:
        assert init(dbs) == [tmp_path / "tenant/versions"]
        assert init(dbs) == []
        assert [each.database for each in revision(dbs, "a table")] == ["north"]
