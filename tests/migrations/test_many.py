"""Many databases: a canary first, several at a time, and what was done, failed and not started."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text

from stillroom import Databases
from stillroom.migrations import MigrationError, MigrationsFailed, status, upgrade
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


DIES = """
import os, signal
from pathlib import Path
from time import sleep
died = Path({died!r})
op.execute("create table a (id int)")
if os.getpid() != {parent}:
    died.write_text(Path(op.get_bind().engine.url.database).stem)
    {how}
for _ in range(6000):
    if died.exists():
        break
    sleep(0.01)
"""
"""A revision that ends its process; in the one that began the upgrade it waits until another process has died."""


@pytest.mark.parametrize("start", ["forked", "anew"])
@pytest.mark.parametrize(
    ("how", "told"), [("os.kill(os.getpid(), signal.SIGKILL)", "signal 9"), ("os._exit(3)", "exit code 3")]
)
def test_the_database_whose_process_died_is_named_and_a_rerun_resumes(
    how: str, told: str, start: str, tmp_path: Path
) -> None:
    given = many(tmp_path, 4)
    died = tmp_path / "died"
    body = DIES.format(died=str(died), parent=os.getpid(), how=how)
    for name in given["databases"]:
        shop.write(tmp_path / "migrations" / name, "a", body)
    with Databases(given) as dbs:
        if start == "anew":
            status(dbs)  # opens what must not be forked
        with pytest.raises(MigrationsFailed) as caught:
            upgrade(dbs, parallel=2)
        name = f"db{died.read_text(encoding='utf-8')}"
        states = {each.database: each.state for each in caught.value.outcomes}
        assert states.pop(name) == "failed"
        # Whoever works beside it may have begun another one before the death is noticed.
        assert sorted(states.values()) in (["done", "not started", "not started"], ["done", "done", "not started"])
        assert f"the database {name!r} could not be migrated: the process that migrated it died ({told})" in str(
            caught.value
        ), caught.value
        again = {each.database: each.state for each in upgrade(dbs)}
        assert {each for each, state in states.items() if state == "done"} == {
            each for each, state in again.items() if state == "nothing to do"
        }
        assert all(names(dbs, each) == {"a"} for each in given["databases"])


def test_a_revision_that_ends_the_program_is_a_failure(tmp_path: Path) -> None:
    given = many(tmp_path, 3)
    for name in given["databases"]:
        shop.write(tmp_path / "migrations" / name, "a", "raise SystemExit(4)")
    with Databases(given) as dbs, pytest.raises(MigrationsFailed, match=r"was interrupted by SystemExit\(4\)"):
        upgrade(dbs, parallel=2)


UNGUARDED = """
import sys
sys.path.insert(0, {package!r})
from stillroom import Databases
from stillroom.migrations import status, upgrade
with Databases({given!r}) as dbs:
    status(dbs)
    print(*(each.state for each in upgrade(dbs, parallel=3)))
"""


def test_processes_that_cannot_begin_leave_the_work_to_this_one(tmp_path: Path) -> None:
    given = many(tmp_path, 4)
    for name in given["databases"]:
        shop.tables(tmp_path / "migrations" / name, "a")
    script = tmp_path / "unguarded.py"
    script.write_text(UNGUARDED.format(package=str(shop.PACKAGE), given=given), encoding="utf-8")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.split() == ["done"] * 4, done.stderr


def test_databases_in_memory_are_upgraded_where_they_are(tmp_path: Path) -> None:
    given = shop.settings(tmp_path, dict.fromkeys(("db0", "db1"), "sqlite://")) | {"default": "db0"}
    for name in given["databases"]:
        shop.tables(tmp_path / "migrations" / name, "a")
    with Databases(given) as dbs:
        upgrade(dbs, parallel=None)
        assert all(names(dbs, name) == {"a"} for name in given["databases"])


def test_less_than_one_at_a_time_is_refused(tmp_path: Path) -> None:
    with Databases(many(tmp_path, 2)) as dbs, pytest.raises(MigrationError, match="parallel=0"):
        upgrade(dbs, parallel=0)
