"""Many databases: a canary first, several at a time, and what was done, failed and not started."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text

from stillroom import Databases
from stillroom.migrations import MigrationError, MigrationsFailed, upgrade
from tests.migrations import shop
from tests.migrations.test_running import BROKEN, names

if TYPE_CHECKING:
    from pathlib import Path


def many(tmp_path: Path, count: int) -> dict[str, Any]:
    urls = {f"db{number}": f"sqlite:///{tmp_path / f'{number}.db'}" for number in range(count)}
    return shop.settings(tmp_path, urls) | {"default": "db0"}


@pytest.mark.parametrize("parallel", [1, 2])
def test_a_canary_that_fails_leaves_the_others_alone(parallel: int, tmp_path: Path) -> None:
    given = many(tmp_path, 4)
    given["databases"]["db2"]["depends_on"] = ["db1"]
    for name in given["databases"]:
        shop.tables(tmp_path / "migrations" / name, "a")
    bad = shop.write(tmp_path / "migrations/db2", "b", BROKEN, down="a")
    with Databases(given) as dbs:
        with pytest.raises(MigrationsFailed) as caught:
            upgrade(dbs, parallel=parallel, canary="db2")
        states = {each.database: each.state for each in caught.value.outcomes}
        assert states == {"db1": "done", "db2": "failed", "db0": "not started", "db3": "not started"}
        assert (names(dbs, "db0"), names(dbs, "db2")) == (set(), {"a"})
        bad.unlink()
        done = {each.database: each.state for each in upgrade(dbs, parallel=parallel, canary="*")}
        assert done == {"db0": "done", "db1": "nothing to do", "db2": "nothing to do", "db3": "done"}
        with pytest.raises(MigrationError, match="the canary 'nobody' is not one of"):
            upgrade(dbs, canary="nobody")


def test_a_directory_that_many_share_is_run_in_each_of_them_at_once(tmp_path: Path) -> None:
    given = many(tmp_path, 12)
    for each in given["databases"].values():
        each["migrations"] = str(tmp_path / "migrations")
    revisions = tuple(f"t{number:02}" for number in range(20))
    shop.tables(tmp_path / "migrations", *revisions)
    with Databases(given) as dbs:
        done = upgrade(dbs, parallel=4)
        assert [each.revisions for each in done] == [revisions] * 12
        for name in dbs:
            with dbs[name].connect() as connection:
                assert connection.execute(text("select count(*) from stillroom_migrations")).scalar() == 20
        assert {each.state for each in upgrade(dbs, parallel=4)} == {"nothing to do"}
