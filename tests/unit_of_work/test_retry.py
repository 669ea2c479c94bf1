"""
Tests of units of work that are tried again.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import event, select, text, update
from sqlalchemy.exc import IntegrityError, OperationalError

from stillroom import (
    CommitOutcomeUnknown,
    Databases,
    HookError,
    Kind,
    Retry,
    SerializationFailure,
    Status,
    UnitOfWork,
    classify,
    is_retryable,
)
from stillroom.retry import Attempts
from tests.unit_of_work.shop import Item, amount, idle, made, names

if TYPE_CHECKING:
    from collections.abc import Callable

QUICK = Retry(attempts=5, base=0.001)


def conflict() -> SerializationFailure:
    return SerializationFailure("made up by the test")


# --- the policy


@pytest.mark.parametrize(
    ("field", "value"), [("attempts", 0), ("attempts", -1), ("base", -0.1), ("cap", -1.0), ("deadline", -1.0)]
)
def test_a_number_out_of_range_is_refused(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{field}={value!r}"):
        Retry(**{field: value})  # type: ignore[arg-type]


def test_pauses_are_random_between_nothing_and_a_bound_that_doubles_up_to_the_cap() -> None:
    bounds = [0.1, 0.2, 0.4, 0.5, 0.5]
    longest = [0.0] * len(bounds)
    for _ in range(300):
        attempts = Attempts(Retry(attempts=6, base=0.1, cap=0.5, deadline=None))
        for n, bound in enumerate(bounds):
            pause = attempts.pause_after(conflict())
            assert pause is not None
            assert 0 <= pause <= bound
            longest[n] = max(longest[n], pause)
    assert all(found > 0.8 * bound for found, bound in zip(longest, bounds, strict=True))


def test_the_number_of_attempts_has_an_end_that_is_noted() -> None:
    attempts = Attempts(Retry(attempts=3, base=0))
    assert [attempts.pause_after(conflict()) for _ in range(2)] == [0, 0]
    last = conflict()
    assert attempts.pause_after(last) is None
    assert last.__notes__ == ["stillroom: gave up after 3 attempts"]


def test_no_attempt_starts_after_the_deadline() -> None:
    attempts = Attempts(Retry(attempts=100, base=0, deadline=0.05))
    error = conflict()
    end = time.monotonic() + 10
    while attempts.pause_after(error) is not None:
        assert time.monotonic() < end
        time.sleep(0.01)
    assert attempts.made < 100
    assert "at the deadline of 0.05 s" in error.__notes__[0]


def test_only_the_chosen_kinds_are_tried_again() -> None:
    retry = Retry(kinds=[Kind.DEADLOCK])
    assert not retry.covers(conflict())
    assert Retry(kinds=[Kind.SERIALIZATION_FAILURE]).covers(conflict())


@pytest.mark.parametrize("error", [ValueError("x"), KeyError("x"), CommitOutcomeUnknown("x")])
def test_other_errors_are_not_tried_again(error: Exception) -> None:
    assert not Retry().covers(error)


# --- units of work


def failing(dbs: Databases, times: int, retry: Retry | None = QUICK) -> tuple[Callable[[], None], list[UnitOfWork]]:
    units: list[UnitOfWork] = []

    @dbs.transactional(retry=retry)
    def work(uow: UnitOfWork) -> None:
        units.append(uow)
        uow.main.add(Item(name=f"attempt {len(units)}"))
        uow.main.flush()
        if len(units) <= times:
            raise conflict()

    return work, units


def test_each_attempt_is_a_fresh_unit_and_only_the_last_is_committed(any_dbs: Databases) -> None:
    work, units = failing(any_dbs, 2)
    work()
    assert names(any_dbs) == ["attempt 3"]
    assert len({id(uow) for uow in units}) == 3
    assert [uow.status for uow in units] == [Status.ROLLED_BACK, Status.ROLLED_BACK, Status.COMMITTED]
    assert idle(any_dbs)


def test_after_the_last_attempt_the_error_goes_up(dbs: Databases) -> None:
    work, units = failing(dbs, 99)
    with pytest.raises(SerializationFailure) as caught:
        work()
    assert len(units) == 5
    assert "stillroom: gave up after 5 attempts" in caught.value.__notes__


def test_without_retry_there_is_one_attempt(dbs: Databases) -> None:
    work, units = failing(dbs, 99, retry=None)
    with pytest.raises(SerializationFailure) as caught:
        work()
    assert len(units) == 1
    assert not hasattr(caught.value, "__notes__")


@pytest.mark.parametrize("propagation", ["required", "new", "nested", "mandatory"])
def test_inside_another_unit_the_error_goes_up_with_a_tag(postgresql_dbs: Databases, propagation: Any) -> None:
    runs: list[int] = []

    @postgresql_dbs.transactional(retry=QUICK, propagation=propagation)
    def work(uow: UnitOfWork) -> None:
        runs.append(1)
        raise conflict()

    with pytest.raises(SerializationFailure) as caught, postgresql_dbs.unit_of_work():
        work()
    assert len(runs) == 1
    assert caught.value.stillroom_retryable  # type: ignore[attr-defined]
    assert any("whoever opened the outermost" in note for note in caught.value.__notes__)


def test_the_outermost_tries_all_of_it_again(dbs: Databases) -> None:
    runs: list[str] = []

    @dbs.transactional(retry=QUICK)
    def inner(uow: UnitOfWork) -> None:
        runs.append("inner")
        if len(runs) < 5:
            raise conflict()
        uow.main.add(Item(name="a"))

    @dbs.transactional(retry=QUICK)
    def outer(uow: UnitOfWork) -> None:
        runs.append("outer")
        inner()

    outer()
    assert runs == ["outer", "inner", "outer", "inner", "outer", "inner"]
    assert names(dbs) == ["a"]


def test_an_outcome_that_is_unknown_is_never_tried_again(dbs: Databases) -> None:
    runs: list[int] = []

    @dbs.transactional(retry=QUICK)
    def work(uow: UnitOfWork) -> None:
        runs.append(1)
        raise CommitOutcomeUnknown("made up by the test")

    with pytest.raises(CommitOutcomeUnknown):
        work()
    assert len(runs) == 1


def test_an_error_after_the_commit_is_never_tried_again(dbs: Databases) -> None:
    runs: list[int] = []

    def late(_: object) -> None:
        raise conflict()

    @dbs.transactional(retry=QUICK)
    def with_listener(uow: UnitOfWork) -> None:
        runs.append(1)
        uow.main.add(Item(name=f"listener {len(runs)}"))
        event.listen(uow.main, "after_commit", late)

    @dbs.transactional(retry=QUICK)
    def with_callback(uow: UnitOfWork) -> None:
        runs.append(1)
        uow.main.add(Item(name=f"callback {len(runs)}"))
        uow.on_commit(lambda: late(None))

    with pytest.raises(SerializationFailure):
        with_listener()
    with pytest.raises(HookError):
        with_callback()
    assert names(dbs) == ["listener 1", "callback 2"]


def test_a_method_is_tried_again_with_its_self(dbs: Databases) -> None:
    class Service:
        runs = 0

        @dbs.transactional(retry=QUICK)
        def work(self, uow: UnitOfWork, name: str) -> None:
            self.runs += 1
            uow.main.add(Item(name=name))
            if self.runs < 3:
                raise conflict()

    service = Service()
    service.work("a")
    assert (service.runs, names(dbs)) == (3, ["a"])


def test_with_session_tries_again(dbs: Databases) -> None:
    sessions: list[object] = []

    @dbs.with_session(retry=QUICK)
    def work(session: Any) -> None:
        sessions.append(session)
        if len(sessions) < 3:
            raise conflict()
        session.add(Item(name="a"))

    work()
    assert (len({id(each) for each in sessions}), names(dbs)) == (3, ["a"])


# --- real conflicts


def increments(dbs: Databases, isolation: str | None, workers: int, each: int) -> tuple[int, list[BaseException]]:
    """
    Let threads read, add one and write back; return the attempts made and what went wrong.
    """
    made_attempts: list[int] = []
    wrong: list[BaseException] = []

    @dbs.transactional(retry=Retry(attempts=200, base=0.005, cap=0.1, deadline=60), isolation=isolation)
    def increment(uow: UnitOfWork) -> None:
        made_attempts.append(1)
        seen = uow.main.scalar(select(Item.amount).where(Item.name == "counter"))
        assert seen is not None
        uow.main.execute(update(Item).where(Item.name == "counter").values(amount=seen + 1))

    def work() -> None:
        try:
            for _ in range(each):
                increment()
        except BaseException as error:
            wrong.append(error)

    with dbs.unit_of_work() as uow:
        uow.main.add(Item(name="counter"))
    threads = [threading.Thread(target=work) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return len(made_attempts), wrong


@pytest.mark.parametrize("backend", ["postgresql", "mariadb"])
def test_concurrent_increments_lose_nothing(request: pytest.FixtureRequest, backend: str) -> None:
    dbs: Databases = request.getfixturevalue(f"{backend}_dbs")
    attempts, wrong = increments(dbs, "SERIALIZABLE", workers=4, each=15)
    assert wrong == []
    assert amount(dbs, "counter") == 60
    assert attempts > 60, "the test is to provoke conflicts"


def test_a_serialization_failure_is_tried_again(postgresql_dbs: Databases) -> None:
    runs: list[int] = []

    @postgresql_dbs.transactional(retry=QUICK, isolation="REPEATABLE READ")
    def work(uow: UnitOfWork) -> None:
        runs.append(1)
        uow.main.scalars(select(Item)).all()
        if len(runs) == 1:
            with postgresql_dbs.main.begin() as other:
                other.execute(text("update item set amount = 10"))
        uow.main.execute(text("update item set amount = amount + 1"))

    with postgresql_dbs.unit_of_work() as uow:
        uow.main.add(Item(name="a"))
    work()
    assert (len(runs), amount(postgresql_dbs, "a")) == (2, 11)


@pytest.mark.parametrize("swallow", [True, False])
def test_a_deadlock_is_tried_again_even_when_it_was_swallowed(mariadb_dbs: Databases, *, swallow: bool) -> None:
    runs: list[int] = []
    dbs = mariadb_dbs
    locked, other_done = threading.Event(), threading.Event()

    def other() -> None:
        with dbs.unit_of_work() as unit:
            rows = ", ".join(f"('row {n}', 0)" for n in range(50))
            unit.main.execute(text(f"insert into item (name, amount) values {rows}"))
            unit.main.execute(text("update item set amount = 1 where name = 'b'"))
            locked.set()
            unit.main.execute(text("update item set amount = 1 where name = 'a'"))
            unit.doom()
        other_done.set()

    thread = threading.Thread(target=other)

    @dbs.transactional(retry=QUICK)
    def work(uow: UnitOfWork) -> None:
        runs.append(1)
        uow.main.execute(text("update item set amount = 2 where name = 'a'"))
        if len(runs) == 1:
            thread.start()
            assert locked.wait(10)
        try:
            uow.main.execute(text("update item set amount = 2 where name = 'b'"))
        except OperationalError:
            if not swallow:
                raise

    with dbs.unit_of_work() as uow:
        uow.main.add_all([Item(name="a"), Item(name="b")])
    work()
    thread.join(20)
    assert other_done.is_set()
    assert len(runs) == 2
    assert (names(dbs), amount(dbs, "a"), amount(dbs, "b")) == (["a", "b"], 2, 2)


def test_a_locked_sqlite_file_is_tried_again(sqlite_database: str) -> None:
    runs: list[int] = []
    with made({"main": {"url": sqlite_database, "lock_timeout": 0.05}}) as dbs:
        holder = dbs.unit_of_work()
        holder.__enter__()
        holder.main.add(Item(name="holder"))
        holder.main.flush()
        thread_error: list[BaseException] = []

        @dbs.transactional(retry=Retry(attempts=100, base=0.01, cap=0.05))
        def work(uow: UnitOfWork) -> None:
            runs.append(1)
            uow.main.add(Item(name="waiter"))

        def waiter() -> None:
            try:
                work()
            except BaseException as error:
                thread_error.append(error)

        thread = threading.Thread(target=waiter)
        thread.start()
        end = time.monotonic() + 10
        while len(runs) < 3 and time.monotonic() < end:
            time.sleep(0.01)
        holder.__exit__(None, None, None)
        thread.join(10)
        assert thread_error == []
        assert len(runs) >= 3
        assert sorted(names(dbs)) == ["holder", "waiter"]


def test_a_unique_violation_is_not_tried_again(dbs: Databases) -> None:
    runs: list[int] = []

    @dbs.transactional(retry=QUICK)
    def work(uow: UnitOfWork) -> None:
        runs.append(1)
        uow.main.add_all([Item(name="a"), Item(name="a")])

    with pytest.raises(IntegrityError) as caught:
        work()
    assert len(runs) == 1
    assert not is_retryable(caught.value)
    assert classify(caught.value) is Kind.UNIQUE_VIOLATION
