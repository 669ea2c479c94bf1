"""
Tests of what runs after a unit of work.
"""

# The body of a unit of work is what raises, so it stands inside `pytest.raises`, and blocks are told apart.

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import IntegrityError

from stillroom import Databases, HookError, NoUnitOfWork, Status
from tests.unit_of_work.shop import Item, idle, names

if TYPE_CHECKING:
    from collections.abc import Callable


class Calls(list[str]):
    """
    Which callbacks ran.
    """

    def note(self, name: str) -> Callable[[], None]:
        return lambda: self.append(name)


@pytest.fixture
def calls() -> Calls:
    """
    An empty list of calls.
    """
    return Calls()


def failing() -> None:
    raise LookupError("the callback failed")


def test_callbacks_run_in_order_when_everything_is_durable(shop: Databases, calls: Calls) -> None:
    def look() -> None:
        calls.append(f"{names(shop, 'main')} {names(shop, 'audit')} {names(shop, 'log')}")

    with shop.unit_of_work() as uow:
        uow.on_commit(look)
        uow.on_commit(calls.note("second"))
        uow.main.add(Item(name="a"))
        uow.audit.add(Item(name="b"))
        uow.logger.add(Item(name="c"))
        assert calls == []
    assert calls == ["['a'] ['b'] ['c']", "second"]


def test_the_two_kinds_exclude_each_other(dbs: Databases, calls: Calls) -> None:
    with dbs.unit_of_work() as uow:
        uow.on_commit(calls.note("committed"))
        uow.on_rollback(calls.note("rolled back"))
    with pytest.raises(ZeroDivisionError), dbs.unit_of_work() as uow:
        uow.on_commit(calls.note("second committed"))
        uow.on_rollback(calls.note("second rolled back"))
        raise ZeroDivisionError
    assert calls == ["committed", "second rolled back"]


def test_doom_and_a_failed_commit_are_rollbacks(any_dbs: Databases, calls: Calls) -> None:
    with any_dbs.unit_of_work() as uow:
        uow.on_commit(calls.note("committed"))
        uow.on_rollback(calls.note("doomed"))
        uow.doom()
    with pytest.raises(IntegrityError), any_dbs.unit_of_work() as uow:
        uow.on_commit(calls.note("committed"))
        uow.on_rollback(calls.note("failed"))
        uow.main.add_all([Item(name="a"), Item(name="a")])
    assert calls == ["doomed", "failed"]


def test_callbacks_run_also_where_no_session_was_opened(dbs: Databases, calls: Calls) -> None:
    with dbs.unit_of_work() as uow:
        uow.on_commit(calls.note("committed"))
    assert calls == ["committed"]


def test_a_callback_sees_no_current_unit_and_may_open_one(any_dbs: Databases) -> None:
    def follow() -> None:
        with pytest.raises(NoUnitOfWork):
            _ = any_dbs.current
        with any_dbs.unit_of_work() as after:
            assert any_dbs.current is after
            after.main.add(Item(name="from the callback"))

    with any_dbs.unit_of_work() as uow:
        uow.main.add(Item(name="a"))
        uow.on_commit(follow)
    assert names(any_dbs) == ["a", "from the callback"]
    assert idle(any_dbs)


def test_a_callback_after_an_inner_unit_sees_the_outer_one(postgresql_dbs: Databases) -> None:
    seen: list[object] = []
    with postgresql_dbs.unit_of_work() as outer:
        with postgresql_dbs.unit_of_work() as inner:
            inner.on_commit(lambda: seen.append(postgresql_dbs.current))
        assert seen == [outer]


def test_the_unit_has_ended_when_its_callbacks_run(dbs: Databases) -> None:
    seen: list[object] = []
    with dbs.unit_of_work() as uow:
        session = uow.main
        session.add(Item(name="a"))
        uow.on_commit(lambda: seen.extend([uow.status, session.in_transaction(), idle(dbs)]))
    assert seen == [Status.COMMITTED, False, True]


def test_the_errors_of_callbacks_are_raised_together_after_all_ran(dbs: Databases, calls: Calls) -> None:
    with pytest.raises(HookError, match=r"committed, but 2 callback\(s\) failed after that") as caught:
        with dbs.unit_of_work() as uow:
            uow.main.add(Item(name="a"))
            uow.on_commit(failing)
            uow.on_commit(calls.note("between"))
            uow.on_commit(lambda: int("x") and None)
            uow.on_commit(calls.note("last"))
    assert [type(each) for each in caught.value.exceptions] == [LookupError, ValueError]
    assert calls == ["between", "last"]
    assert (names(dbs), uow.status) == (["a"], Status.COMMITTED)


def test_a_callback_that_fails_does_not_hide_the_error_of_the_body(
    dbs: Databases, calls: Calls, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ZeroDivisionError) as caught, dbs.unit_of_work() as uow:
        uow.on_rollback(failing)
        uow.on_rollback(calls.note("last"))
        raise ZeroDivisionError
    assert any("LookupError" in note for note in caught.value.__notes__)
    assert calls == ["last"]
    assert "a callback failed" in caplog.text


def test_what_is_not_callable_is_refused_at_once(dbs: Databases) -> None:
    with dbs.unit_of_work() as uow, pytest.raises(TypeError, match="not 'send'; use a lambda to pass some"):
        uow.on_commit("send")  # type: ignore[arg-type]


# --- savepoints


def test_a_rolled_back_savepoint_takes_its_callbacks_along(any_dbs: Databases, calls: Calls) -> None:
    with any_dbs.unit_of_work() as uow:
        uow.main.add(Item(name="a"))
        uow.on_commit(calls.note("before"))
        with pytest.raises(ZeroDivisionError), uow.savepoint():
            uow.main.add(Item(name="b"))
            uow.on_commit(calls.note("inside"))
            raise ZeroDivisionError
        with uow.savepoint():
            uow.on_commit(calls.note("released"))
        uow.on_commit(calls.note("after"))
    assert calls == ["before", "released", "after"]


def test_a_savepoint_of_the_session_takes_its_callbacks_along_too(any_dbs: Databases, calls: Calls) -> None:
    with any_dbs.unit_of_work() as uow:
        with pytest.raises(ZeroDivisionError), uow.main.begin_nested():
            uow.on_commit(calls.note("inside"))
            raise ZeroDivisionError
        by_hand = uow.main.begin_nested()
        uow.on_commit(calls.note("by hand"))
        by_hand.rollback()
        with uow.main.begin_nested():
            uow.on_commit(calls.note("released"))
    assert calls == ["released"]


@pytest.mark.parametrize("outer_is_ours", [True, False])
@pytest.mark.parametrize("inner_is_ours", [True, False])
def test_a_released_savepoint_goes_with_the_outer_one(
    any_dbs: Databases, calls: Calls, *, outer_is_ours: bool, inner_is_ours: bool
) -> None:
    with any_dbs.unit_of_work() as uow:
        uow.main.add(Item(name="a"))
        with pytest.raises(ZeroDivisionError), uow.savepoint() if outer_is_ours else uow.main.begin_nested():
            with uow.savepoint() if inner_is_ours else uow.main.begin_nested():
                uow.on_commit(calls.note("inner"))
                uow.main.add(Item(name="b"))
            raise ZeroDivisionError
    assert (calls, names(any_dbs)) == ([], ["a"])


def test_many_savepoints_in_a_row_are_not_mixed_up(dbs: Databases, calls: Calls) -> None:
    # A savepoint that is collected may leave its id to the next one.
    with dbs.unit_of_work() as uow:
        for n in range(200):
            if n % 2:
                with pytest.raises(ZeroDivisionError), uow.main.begin_nested():
                    uow.on_commit(calls.note(str(n)))
                    raise ZeroDivisionError
            else:
                with uow.main.begin_nested():
                    uow.on_commit(calls.note(str(n)))
    assert calls == [str(n) for n in range(0, 200, 2)]


def test_the_release_of_a_savepoint_is_no_commit(any_dbs: Databases, calls: Calls) -> None:
    with pytest.raises(ZeroDivisionError), any_dbs.unit_of_work() as uow:
        event.listen(uow.main, "after_commit", lambda _: calls.append("SQLAlchemy's event"))
        uow.on_commit(calls.note("ours"))
        with uow.main.begin_nested():
            uow.main.add(Item(name="a"))
        raise ZeroDivisionError
    assert "ours" not in calls
    assert uow.status is Status.ROLLED_BACK


# --- after a rollback to a savepoint


def test_a_rolled_back_savepoint_makes_its_rollback_callbacks_due_although_the_unit_commits(
    shop: Databases, calls: Calls
) -> None:
    with shop.unit_of_work() as uow:
        uow.on_commit(calls.note("committed"))
        with pytest.raises(LookupError), uow.savepoint():
            uow.main.add(Item(name="gone"))
            uow.on_rollback(calls.note("undone"))
            raise LookupError
        uow.on_rollback(calls.note("never"))
        assert calls == []
    assert (calls, uow.status) == (["undone", "committed"], Status.COMMITTED)


# --- partly committed


def test_no_callback_runs_when_only_a_part_is_durable(shop: Databases, calls: Calls) -> None:
    def refuse(_: object) -> None:
        raise RuntimeError("no commit here")

    with pytest.raises(Exception, match="durable"), shop.unit_of_work() as uow:
        uow.on_commit(calls.note("committed"))
        uow.on_rollback(calls.note("rolled back"))
        uow.audit.add(Item(name="a"))
        uow.main.add(Item(name="b"))
        event.listen(uow.main, "before_commit", refuse)
    assert (calls, uow.status) == ([], Status.PARTLY_COMMITTED)


def test_a_session_that_was_rolled_back_by_hand_keeps_the_rest(shop: Databases, calls: Calls) -> None:
    with shop.unit_of_work() as uow:
        uow.main.execute(text("insert into item (name, amount) values ('gone', 0)"))
        uow.audit.add(Item(name="kept"))
        uow.on_commit(calls.note("committed"))
        uow.main.rollback()
    assert (names(shop, "main"), names(shop, "audit"), calls) == ([], ["kept"], ["committed"])
