"""
`once` runs a function once in the life of a database: in one process of many, and again only if it failed.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from stillroom import Database, PropagationError
from stillroom.data import DataLocked, once
from stillroom.migrations.owned import NEVER
from tests.data import shop
from tests.data.processes import at_once, lines, started, together
from tests.data.processes import begin as let_begin

if TYPE_CHECKING:
    from pathlib import Path

    from stillroom import Databases, UnitOfWork

COMMON = """
from stillroom.data import once
from tests.data import shop
dbs = shop.databases(sys.argv[1])
def seed(uow):
    uow.main.add(shop.Genre(Name="Rock"))
def run(function):
    try:
        sys.stdout.write(f"{once(dbs, 'seed-1', function)}\\n")
    finally:
        dbs.close()
"""
RUN = COMMON + "run(seed)\n"
HOLD = (
    COMMON
    + """
def slow(uow):
    seed(uow)
    uow.main.flush()
    print("inside", flush=True)
    sys.stdin.readline()
run(slow)
"""
)
FAIL_FIRST = (
    COMMON
    + """
import pathlib
def first_fails(uow):
    seed(uow)
    uow.main.flush()
    try:
        pathlib.Path(sys.argv[2]).touch(exist_ok=False)
    except FileExistsError:
        return
    raise LookupError(uow.main.query(shop.Genre).count())
run(first_fails)
"""
)


def names(dbs: Databases) -> list[str | None]:
    with dbs.unit_of_work() as uow:
        return [name for (name,) in uow.main.query(shop.Genre.Name)]


def seed(uow: UnitOfWork) -> None:
    uow.session("main").add(shop.Genre(Name="Rock"))


def test_one_of_four_processes_runs_it(dbs: Databases, any_database: str) -> None:
    assert at_once(4, RUN, any_database) == ["False", "False", "False", "True"]
    assert names(dbs) == ["Rock"]
    assert once(dbs, "seed-1", seed) is False
    assert once(dbs, "seed-2", seed) is True
    assert names(dbs) == ["Rock", "Rock"]


def test_others_wait_for_who_is_at_it(dbs: Databases, any_database: str) -> None:
    with started(HOLD, any_database) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "inside\n"
        others = together(2, RUN, any_database)
        let_begin(others)
        with pytest.raises(DataLocked, match="stillroom once seed-1: another process is at it in the database"):
            with shop.databases(any_database, lock_timeout=0.2) as impatient:
                once(impatient, "seed-1", seed, wait=0.3)
        assert others.poll() is None
        let_begin(holder)
        assert lines(holder) == ["True"]
        assert lines(others) == ["False", "False"]
    assert names(dbs) == ["Rock"]


def test_the_next_one_runs_it_where_the_first_was_killed(dbs: Databases, any_database: str) -> None:
    with started(HOLD, any_database) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "inside\n"
        holder.send_signal(signal.SIGKILL)
        holder.wait(timeout=60)
    assert once(dbs, "seed-1", seed) is True
    assert names(dbs) == ["Rock"]


def test_where_the_first_process_fails_another_one_runs_it(dbs: Databases, any_database: str, tmp_path: Path) -> None:
    found = at_once(3, FAIL_FIRST, any_database, str(tmp_path / "failed"))
    assert found == ["False", "LookupError: 1", "True"]
    assert names(dbs) == ["Rock"]


def test_a_failure_leaves_nothing_and_the_next_call_tries_again(dbs: Databases) -> None:
    def fails(uow: UnitOfWork) -> None:
        seed(uow)
        uow.session("main").flush()
        raise LookupError("no")

    for _ in range(2):
        with pytest.raises(LookupError):
            once(dbs, "seed-1", fails)
    assert names(dbs) == []
    assert once(dbs, "seed-1", seed) is True


def test_a_database_that_stands_alone_does_as_well(dbs: Databases, any_database: str) -> None:
    with Database(any_database) as alone:
        assert [once(alone, "seed-1", seed), once(alone, "seed-1", seed)] == [True, False]
    assert once(dbs, "seed-1", seed) is False, "it is noted in the database"


def test_keys_are_told_apart_by_case(dbs: Databases) -> None:
    assert [once(dbs, "seed", seed), once(dbs, "Seed", seed), once(dbs, "seed", seed)] == [True, True, False]


def test_inside_a_unit_of_work_it_is_refused(sqlite: Databases) -> None:
    with sqlite.unit_of_work(), pytest.raises(PropagationError, match=r"once\('seed-1'\): a unit of work is open"):
        once(sqlite, "seed-1", seed)


@pytest.mark.parametrize("key", ["", "k" * 256])
def test_a_key_that_cannot_be_stored_is_refused(sqlite: Databases, key: str) -> None:
    with pytest.raises(ValueError, match="1 to 255"):
        once(sqlite, key, seed)


def test_migrations_leave_its_table_alone() -> None:
    assert "stillroom_once" in NEVER


@pytest.mark.parametrize("how", ["doom", "rollback", "session"])
def test_a_function_that_rolls_back_has_not_run(dbs: Databases, how: str) -> None:
    def work(uow: UnitOfWork) -> None:
        if how == "doom":
            uow.doom()
        elif how == "rollback":
            uow.rollback()
        else:
            uow.main.rollback()
            uow.main.add(shop.Genre(Name="Rock"))

    with pytest.raises(PropagationError, match="nothing was done"):
        once(dbs, "seed", work)
    with dbs.unit_of_work() as uow:
        assert uow.main.query(shop.Genre).count() == 0
    assert once(dbs, "seed", lambda uow: uow.main.add(shop.Genre(Name="Rock"))) is True
