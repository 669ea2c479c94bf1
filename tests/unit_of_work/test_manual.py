"""
Tests of units of work that the user commits.
"""

# The body of a unit of work is what raises, so it stands inside `pytest.raises`, and blocks are told apart.

from __future__ import annotations

import pytest
from sqlalchemy import insert, text
from sqlalchemy.exc import IntegrityError

from stillroom import Databases, Retry, Status, UnitOfWork, UnitOfWorkEnded
from tests.unit_of_work.shop import Item, idle, names


def test_only_what_is_committed_by_hand_is_kept(any_dbs: Databases) -> None:
    with any_dbs.unit_of_work(commit="manual") as uow:
        uow.main.add(Item(name="a"))
        uow.commit()
        assert names(any_dbs) == ["a"]
        uow.main.add(Item(name="b"))
        uow.commit()
        uow.main.add(Item(name="c"))
        uow.main.flush()
    assert (names(any_dbs), uow.status) == (["a", "b"], Status.PARTLY_COMMITTED)
    assert idle(any_dbs)


def test_without_a_commit_nothing_is_kept(any_dbs: Databases) -> None:
    with any_dbs.unit_of_work(commit="manual") as uow:
        uow.main.execute(insert(Item).values(name="a", amount=0))
    assert (names(any_dbs), uow.status) == ([], Status.ROLLED_BACK)


def test_what_was_not_even_flushed_counts_as_lost(dbs: Databases) -> None:
    with dbs.unit_of_work(commit="manual") as uow:
        uow.main.add(Item(name="a"))
    assert (names(dbs), uow.status) == ([], Status.ROLLED_BACK)


def test_after_the_last_commit_it_is_committed(shop: Databases) -> None:
    with shop.unit_of_work(commit="manual") as uow:
        uow.main.add(Item(name="a"))
        uow.audit.add(Item(name="b"))
        uow.commit()
        assert uow.status is Status.ACTIVE
    assert (names(shop, "main"), names(shop, "audit"), uow.status) == (["a"], ["b"], Status.COMMITTED)


def test_an_exception_after_a_commit_says_that_a_part_is_durable(dbs: Databases) -> None:
    with pytest.raises(ZeroDivisionError), dbs.unit_of_work(commit="manual") as uow:
        uow.main.add(Item(name="a"))
        uow.commit()
        raise ZeroDivisionError
    assert (names(dbs), uow.status) == (["a"], Status.PARTLY_COMMITTED)


def test_rollback_goes_on_in_new_transactions(any_dbs: Databases) -> None:
    with any_dbs.unit_of_work(commit="manual") as uow:
        uow.main.add(Item(name="a"))
        uow.main.flush()
        uow.rollback()
        uow.main.add(Item(name="b"))
        uow.commit()
    assert (names(any_dbs), uow.status) == (["b"], Status.COMMITTED)


def test_rollback_is_there_in_an_ordinary_unit_too(shop: Databases) -> None:
    calls: list[str] = []
    with shop.unit_of_work() as uow:
        uow.main.add(Item(name="a"))
        uow.audit.add(Item(name="b"))
        uow.on_commit(lambda: calls.append("dropped"))
        uow.on_rollback(lambda: calls.append("rolled back"))
        uow.rollback()
        assert calls == ["rolled back"]
        uow.main.add(Item(name="c"))
        uow.on_commit(lambda: calls.append("committed"))
    assert (names(shop, "main"), names(shop, "audit")) == (["c"], [])
    assert calls == ["rolled back", "committed"]


def test_callbacks_run_at_each_commit(dbs: Databases) -> None:
    calls: list[str] = []
    with dbs.unit_of_work(commit="manual") as uow:
        uow.main.add(Item(name="a"))
        uow.on_commit(lambda: calls.append("first"))
        uow.commit()
        assert calls == ["first"]
        uow.main.add(Item(name="b"))
        uow.on_commit(lambda: calls.append("second"))
        uow.commit()
        assert calls == ["first", "second"]
    assert calls == ["first", "second"]


@pytest.mark.parametrize("writes", [True, False])
def test_callbacks_after_the_last_commit_never_run(dbs: Databases, *, writes: bool) -> None:
    calls: list[str] = []
    with dbs.unit_of_work(commit="manual") as uow:
        uow.on_commit(lambda: calls.append("committed"))
        if writes:
            uow.main.add(Item(name="a"))
    assert calls == []


def test_a_commit_that_fails_ends_the_unit(any_dbs: Databases) -> None:
    with any_dbs.unit_of_work(commit="manual") as uow:
        uow.main.add_all([Item(name="a"), Item(name="a")])
        with pytest.raises(IntegrityError):
            uow.commit()
        with pytest.raises(UnitOfWorkEnded, match="is rolled back"):
            uow.main.add(Item(name="b"))
    assert (names(any_dbs), uow.status) == ([], Status.ROLLED_BACK)
    assert idle(any_dbs)


def test_a_second_commit_that_fails_says_that_a_part_is_durable_and_is_not_tried_again(
    postgresql_dbs: Databases,
) -> None:
    runs: list[UnitOfWork] = []
    dbs = postgresql_dbs

    @dbs.transactional(commit="manual", isolation="REPEATABLE READ", retry=Retry(attempts=3, base=0))
    def work(uow: UnitOfWork) -> None:
        runs.append(uow)
        uow.main.add(Item(name=f"run {len(runs)}"))
        uow.commit()
        uow.main.execute(text("select amount from item"))
        with dbs.main.begin() as other:
            other.execute(text("update item set amount = amount + 1"))
        uow.main.execute(text("update item set amount = amount + 1"))

    with pytest.raises(Exception, match="could not serialize"):
        work()
    assert (names(dbs), [uow.status for uow in runs]) == (["run 1"], [Status.PARTLY_COMMITTED])


def test_committing_by_hand_must_be_asked_for(dbs: Databases) -> None:
    with dbs.unit_of_work() as uow, pytest.raises(RuntimeError, match=r"unit_of_work\(commit='manual'\)"):
        uow.commit()


def test_a_doomed_unit_cannot_be_committed_by_hand(dbs: Databases) -> None:
    with dbs.unit_of_work(commit="manual") as uow:
        uow.main.add(Item(name="a"))
        uow.doom("no money")
        with pytest.raises(RuntimeError, match=r"is doomed \(no money\)"):
            uow.commit()
    assert (names(dbs), uow.status) == ([], Status.ROLLED_BACK)


def test_objects_stay_readable_after_a_commit_by_hand(dbs: Databases) -> None:
    with dbs.unit_of_work(commit="manual") as uow:
        item = Item(name="a", amount=3)
        uow.main.add(item)
        uow.commit()
        assert item.amount == 3
        item.amount = 4
        uow.commit()
    with dbs.unit_of_work() as uow:
        assert uow.main.get_one(Item, item.id).amount == 4
