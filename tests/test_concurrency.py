"""
Several processes change the same rows at the same time: nothing is lost, and nothing is done twice.
"""

from __future__ import annotations

import multiprocessing
import threading
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from stillroom import Databases, Retry
from stillroom.classification import Kind, classify

if TYPE_CHECKING:
    from collections.abc import Callable

    from stillroom import UnitOfWork

LIMIT = 60.0
"""The longest wait for the processes of a test, in seconds."""

STUBBORN = Retry(attempts=200, base=0.01, cap=0.2, deadline=60)

_start: Any = None


def _meet(barrier: Any) -> None:
    global _start  # noqa: PLW0603  # a barrier reaches a worker process only through its initializer
    _start = barrier


def in_processes(count: int, work: Callable[..., Any], *arguments: Any) -> list[Any]:
    """
    Call `work(number, *arguments)` in `count` new processes, all let go at once; return what they returned.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(count, mp_context=context, initializer=_meet, initargs=(context.Barrier(count),)) as pool:
        futures = [pool.submit(work, number, *arguments) for number in range(count)]
        return [future.result(timeout=LIMIT) for future in futures]


def configured(url: str, **settings: Any) -> Databases:
    return Databases({"databases": {"main": {"url": url, "pool_size": 2, **settings}}})


@dataclass
class Tally:
    """
    What one process did: how often it got through, how often a unit of work was tried, and the errors it met.
    """

    done: int = 0
    tried: int = 0
    errors: tuple[str, ...] = ()


def make_counters(url: str, *values: int) -> None:
    with configured(url) as dbs, dbs.unit_of_work() as uow:
        uow.main.execute(text("create table counters (id integer primary key, value integer not null)"))
        for position, value in enumerate(values, 1):
            uow.main.execute(text("insert into counters values (:id, :value)"), {"id": position, "value": value})


def counters(url: str) -> list[int]:
    with configured(url) as dbs, dbs.unit_of_work(read_only=True) as uow:
        return list(uow.main.scalars(text("select value from counters order by id")))


def read_modify_write(uow: UnitOfWork) -> None:
    value = uow.main.scalar(text("select value from counters where id = 1"))
    uow.main.execute(text("update counters set value = :value where id = 1"), {"value": value + 1})


def count_up(number: int, url: str, units: int) -> Tally:
    tally = Tally()
    with configured(url) as dbs:
        _start.wait(LIMIT)
        for _ in range(units):
            try:
                with dbs.unit_of_work() as uow:
                    read_modify_write(uow)
                tally.done += 1
            except Exception as error:
                tally.errors += (repr(error),)
    return tally


def count_up_or_watch(number: int, url: str, units: int, writers: int) -> Tally:
    """
    Process number 0 reads all the time until the others are done; the others count up.
    """
    if number:
        return count_up(number, url, units)
    tally = Tally()
    with configured(url) as dbs:
        _start.wait(LIMIT)
        last = -1
        end = monotonic() + LIMIT
        while last < units * writers and monotonic() < end:
            with dbs.unit_of_work(read_only=True) as uow:
                value = uow.main.scalar(text("select value from counters where id = 1"))
            if value < last:
                tally.errors += (f"{value} was read after {last}",)
            last = value
            tally.done += 1
    return tally


def test_four_processes_of_500_units_on_one_sqlite_file_lose_nothing(sqlite_database: str) -> None:
    make_counters(sqlite_database, 0)
    tallies = in_processes(4, count_up, sqlite_database, 500)
    assert [tally.errors for tally in tallies] == [()] * 4
    assert [tally.done for tally in tallies] == [500] * 4
    assert counters(sqlite_database) == [2000]


def test_a_process_that_reads_all_the_time_disturbs_no_writer_and_sees_time_go_forward(sqlite_database: str) -> None:
    make_counters(sqlite_database, 0)
    reading, *writing = in_processes(5, count_up_or_watch, sqlite_database, 500, 4)
    assert [tally.errors for tally in (reading, *writing)] == [()] * 5
    assert reading.done > 10
    assert counters(sqlite_database) == [2000]


def create_and_count(number: int, url: str, units: int) -> Tally:
    with configured(url) as dbs:
        _start.wait(LIMIT)
        with dbs.unit_of_work() as uow:
            uow.main.execute(text("create table if not exists counters (id integer primary key, value integer)"))
            uow.main.execute(text("insert or ignore into counters values (1, 0)"))
        for _ in range(units):
            with dbs.unit_of_work() as uow:
                read_modify_write(uow)
    return Tally(done=units)


@pytest.mark.parametrize("attempt", range(3))
def test_processes_that_start_at_once_on_a_file_that_does_not_exist_yet_share_it(
    sqlite_database: str, attempt: int
) -> None:
    in_processes(6, create_and_count, sqlite_database, 20)
    assert counters(sqlite_database) == [120]


def count_up_stubbornly(number: int, url: str, units: int, isolation: str) -> Tally:
    tally = Tally()
    with configured(url, isolation=isolation) as dbs:

        @dbs.transactional(retry=STUBBORN)
        def step(uow: UnitOfWork) -> None:
            tally.tried += 1
            read_modify_write(uow)

        _start.wait(LIMIT)
        for _ in range(units):
            step()
            tally.done += 1
    return tally


@pytest.mark.parametrize("backend", ["postgresql", "mariadb"])
def test_four_processes_at_serializable_with_retry_lose_nothing(backend: str, request: pytest.FixtureRequest) -> None:
    url = request.getfixturevalue(f"{backend}_database")
    make_counters(url, 0)
    tallies = in_processes(4, count_up_stubbornly, url, 100, "SERIALIZABLE")
    assert counters(url) == [400]
    assert sum(tally.tried for tally in tallies) > 400, "nobody met anybody, so the test proved nothing"


def transfer_to_and_fro(number: int, url: str, units: int) -> Tally:
    """
    Move 1 from one row to the other, each process in its own order of rows; rows of `moves` count what was done.
    """
    tally = Tally()
    first, second = (1, 2) if number % 2 else (2, 1)
    with configured(url) as dbs:

        @dbs.transactional(retry=STUBBORN)
        def move(uow: UnitOfWork, key: int) -> None:
            tally.tried += 1
            uow.main.execute(text("insert into moves values (:key)"), {"key": key})
            for row, change in ((first, -1), (second, 1)):
                try:
                    uow.main.execute(
                        text("update counters set value = value + :change where id = :row"),
                        {"row": row, "change": change},
                    )
                except Exception as error:
                    tally.errors += (str(classify(error)),)
                    raise

        _start.wait(LIMIT)
        for unit in range(units):
            move(number * units + unit)
            tally.done += 1
    return tally


@pytest.mark.parametrize("backend", ["postgresql", "mariadb"])
def test_deadlocks_between_processes_are_survived_and_nothing_is_lost_or_doubled(
    backend: str, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue(f"{backend}_database")
    make_counters(url, 1000, 1000)
    with configured(url) as dbs, dbs.unit_of_work() as uow:
        uow.main.execute(text("create table moves (id integer primary key)"))
        if backend == "postgresql":
            name = dbs.main.settings.url.database
            uow.main.execute(text(f"alter database {name} set deadlock_timeout = '20ms'"))
    tallies = in_processes(4, transfer_to_and_fro, url, 50)
    assert {error for tally in tallies for error in tally.errors} == {str(Kind.DEADLOCK)}
    assert counters(url) == [1000, 1000]  # two processes move each way
    with configured(url) as dbs, dbs.unit_of_work(read_only=True) as uow:
        assert uow.main.scalar(text("select count(*) from moves")) == 200


@pytest.mark.parametrize("backend", ["postgresql", "mariadb"])
def test_a_deadlock_provoked_on_purpose_is_tried_again_and_both_get_through(
    backend: str, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue(f"{backend}_database")
    make_counters(url, 0, 0)
    both_hold_one = threading.Barrier(2)
    attempts: list[int] = []
    with configured(url) as dbs:

        @dbs.transactional(retry=STUBBORN)
        def cross(uow: UnitOfWork, first: int, second: int) -> None:
            attempts.append(first)
            add = text("update counters set value = value + 1 where id = :id")
            uow.main.execute(add, {"id": first})
            if attempts.count(first) == 1:
                both_hold_one.wait(10)
            uow.main.execute(add, {"id": second})

        threads = [threading.Thread(target=cross, args=rows) for rows in ((1, 2), (2, 1))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    assert len(attempts) >= 3, "no deadlock came about"
    assert counters(url) == [2, 2]


def test_without_retry_a_lost_race_at_serializable_is_an_error_and_not_a_lost_update(postgresql_database: str) -> None:
    make_counters(postgresql_database, 0)
    dbs = configured(postgresql_database, isolation="SERIALIZABLE")
    with dbs, pytest.raises(DBAPIError) as caught, dbs.unit_of_work() as slow:
        value = slow.main.scalar(text("select value from counters where id = 1"))
        with dbs.unit_of_work() as fast:
            read_modify_write(fast)
        slow.main.execute(text("update counters set value = :value"), {"value": value + 1})
    assert classify(caught.value) is Kind.SERIALIZATION_FAILURE
    assert counters(postgresql_database) == [1]


def test_many_threads_of_one_process_lose_nothing_on_an_sqlite_file(sqlite_database: str) -> None:
    make_counters(sqlite_database, 0)
    failures: list[BaseException] = []
    with configured(sqlite_database) as dbs:

        def work() -> None:
            try:
                for _ in range(25):
                    with dbs.unit_of_work() as uow:
                        read_modify_write(uow)
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert failures == []
    assert counters(sqlite_database) == [200]
