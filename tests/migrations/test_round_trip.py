"""What autogenerate writes makes what the models say, and nothing is left to be written after it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import inspect, text

from stillroom.migrations import RevisionRefused, check, downgrade, init, revision, upgrade
from tests.migrations import shelf, shop
from tests.migrations.test_writing import execute

if TYPE_CHECKING:
    from pathlib import Path

    from stillroom import Databases


def run(dbs: Databases) -> tuple[str, ...]:
    """
    Write what is missing, run it, and see that nothing is missing then.
    """
    (written,) = revision(dbs, "x", autogenerate=True)
    upgrade(dbs)
    assert check(dbs) == []
    assert revision(dbs, "again", autogenerate=True) == []
    return written.changes


def test_the_whole_chinook_schema(any_database: str, tmp_path: Path) -> None:
    with shop.databases(tmp_path, any_database, metadata="tests.migrations.chinook:models") as dbs:
        init(dbs)
        assert sum(each.startswith("add_table") for each in run(dbs)) == 11
        downgrade(dbs, "base")
        upgrade(dbs)
        assert check(dbs) == []


def test_views_enums_computed_columns_checks_and_partial_indexes(postgresql_database: str, tmp_path: Path) -> None:
    with shop.databases(tmp_path, postgresql_database, metadata="tests.migrations.shelf:first") as dbs:
        init(dbs)
        assert run(dbs)[0] == "add_enum kind"
        execute(dbs, "insert into item (id, name, price, amount, kind) values (1, 'a', 2, 3, 'book')")
        with dbs.main.connect() as connection:
            assert connection.execute(text("select total from item")).scalar() == 6
            assert connection.execute(text("select name from live")).scalar() == "a"
    with shop.databases(tmp_path, postgresql_database, metadata="tests.migrations.shelf:later") as dbs:
        changes = set(run(dbs))
        assert changes >= {
            *("modify_enum kind", "add_enum state", "modify_view live", "add_view cheap", "add_column item.state"),
            *("add_constraint item.ck_item_price_1", "remove_constraint item.ck_item_price_0", "remove_table shelf"),
        }
        execute(dbs, "insert into item (id, name, price, amount, kind) values (2, 'b', 2, 3, 'it''s')")
        with dbs.main.connect() as connection:
            kinds = {each["name"]: each["labels"] for each in inspect(connection).get_enums()}  # type: ignore[attr-defined]
            assert kinds == {"kind": ["map", "book", "record", "it's"], "state": ["new", "used"]}
        execute(dbs, "delete from item where id = 2")
        downgrade(dbs, "base")
        with dbs.main.connect() as connection:
            assert inspect(connection).get_enums() == []  # type: ignore[attr-defined]
            assert inspect(connection).get_view_names() == []
        upgrade(dbs)
        assert check(dbs) == []


def test_views_and_checks_on_the_other_backends(any_database: str, tmp_path: Path) -> None:
    with shop.databases(tmp_path, any_database, metadata="tests.migrations.shelf:plain") as dbs:
        init(dbs)
        assert run(dbs) == ("add_table thing", "add_view things")
        execute(dbs, "create view foreign_one as select 1 as x")
        assert check(dbs) == []
        execute(dbs, "drop view things")
        assert [each.text.partition(": ")[2] for each in check(dbs)] == ["add_view things"]


def test_names_are_quoted_as_they_are(postgresql_database: str, tmp_path: Path) -> None:
    with shop.databases(tmp_path, postgresql_database, metadata="tests.migrations.shelf:oddly_named") as dbs:
        init(dbs)
        assert run(dbs)[0] == 'add_enum 100% "sure"'
        with dbs.main.connect() as connection:
            (found,) = inspect(connection).get_enums()  # type: ignore[attr-defined]
            assert found["name"] == '100% "sure"'
        downgrade(dbs, "base")
        with dbs.main.connect() as connection:
            assert inspect(connection).get_enums() == []  # type: ignore[attr-defined]


def test_a_value_that_an_enum_would_lose_is_its_author_s_to_decide(postgresql_database: str, tmp_path: Path) -> None:
    with shop.databases(tmp_path, postgresql_database, metadata="tests.migrations.shelf:first") as dbs:
        init(dbs)
        run(dbs)
    with shop.databases(tmp_path, postgresql_database, metadata="tests.migrations.shelf:without") as dbs:
        with pytest.raises(RevisionRefused, match="enum 'kind' would lose 'record'"):
            revision(dbs, "x", autogenerate=True)
        assert "modify_enum kind" in {each.text.partition(": ")[2] for each in check(dbs)}


def test_a_view_comes_and_goes_with_its_tables(any_database: str) -> None:
    from stillroom import Database

    with Database(any_database).engine.connect() as connection:
        for _ in range(2):
            shelf.plain.create_all(connection)
        assert inspect(connection).get_view_names() == ["things"]
        shelf.plain.drop_all(connection)
        assert inspect(connection).get_view_names() == []
        connection.commit()
        engine = connection.engine
    engine.dispose()
