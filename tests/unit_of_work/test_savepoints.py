"""
Tests of blocks inside a unit of work that can be rolled back alone.
"""

# The body of a unit of work is what raises, so it stands inside `pytest.raises`, and blocks are told apart.

from __future__ import annotations

import pytest
from sqlalchemy.exc import IntegrityError

from stillroom import Databases, Status, UnitOfWorkEnded, UnknownDatabase
from tests.unit_of_work.shop import Item, names


def test_only_the_block_is_rolled_back(any_dbs: Databases) -> None:
    with any_dbs.unit_of_work() as uow:
        uow.main.add(Item(name="a"))
        with pytest.raises(ZeroDivisionError), uow.savepoint():
            uow.main.add(Item(name="b"))
            uow.main.flush()
            raise ZeroDivisionError
        with uow.savepoint():
            uow.main.add(Item(name="c"))
    assert names(any_dbs) == ["a", "c"]


def test_it_holds_for_all_databases_those_opened_inside_included(shop: Databases) -> None:
    with shop.unit_of_work() as uow:
        uow.main.add(Item(name="a"))
        with pytest.raises(ZeroDivisionError), uow.savepoint():
            uow.main.add(Item(name="b"))
            uow.audit.add(Item(name="c"))
            raise ZeroDivisionError
        uow.audit.add(Item(name="d"))
    assert (names(shop, "main"), names(shop, "audit")) == (["a"], ["d"])


def test_it_holds_for_the_named_databases_alone(shop: Databases) -> None:
    with shop.unit_of_work() as uow:
        with pytest.raises(ZeroDivisionError), uow.savepoint("audit"):
            uow.main.add(Item(name="kept"))
            uow.audit.add(Item(name="gone"))
            raise ZeroDivisionError
    assert (names(shop, "main"), names(shop, "audit")) == (["kept"], [])


def test_the_logger_keeps_what_was_logged_in_the_block(shop: Databases) -> None:
    with shop.unit_of_work() as uow:
        with pytest.raises(ZeroDivisionError), uow.savepoint():
            uow.logger.add(Item(name="tried"))
            raise ZeroDivisionError
    assert names(shop, "log") == ["tried"]


def test_savepoints_nest(any_dbs: Databases) -> None:
    with any_dbs.unit_of_work() as uow:
        with uow.savepoint():
            uow.main.add(Item(name="a"))
            with pytest.raises(ZeroDivisionError), uow.savepoint():
                uow.main.add(Item(name="b"))
                with uow.savepoint():
                    uow.main.add(Item(name="c"))
                raise ZeroDivisionError
            uow.main.add(Item(name="d"))
    assert names(any_dbs) == ["a", "d"]


def test_a_flush_that_fails_at_the_end_of_the_block_rolls_it_back(any_dbs: Databases) -> None:
    with any_dbs.unit_of_work() as uow:
        uow.main.add(Item(name="a"))
        uow.main.flush()
        with pytest.raises(IntegrityError), uow.savepoint():
            uow.main.add(Item(name="a"))
        uow.main.add(Item(name="b"))
    assert names(any_dbs) == ["a", "b"]


def test_a_block_that_the_user_rolled_back_by_hand_ends_in_peace(any_dbs: Databases) -> None:
    with any_dbs.unit_of_work() as uow:
        uow.main.add(Item(name="a"))
        with uow.savepoint():
            uow.main.add(Item(name="b"))
            uow.main.flush()
            nested = uow.main.get_nested_transaction()
            assert nested is not None
            nested.rollback()
    assert names(any_dbs) == ["a"]


def test_an_unknown_database_is_refused(dbs: Databases) -> None:
    with dbs.unit_of_work() as uow, pytest.raises(UnknownDatabase, match="'mian'"), uow.savepoint("mian"):
        pass


def test_after_the_end_there_are_no_savepoints(dbs: Databases) -> None:
    with dbs.unit_of_work() as uow:
        pass
    with pytest.raises(UnitOfWorkEnded):
        uow.savepoint()


@pytest.mark.parametrize("problem", [KeyboardInterrupt, GeneratorExit])
def test_what_is_no_exception_rolls_the_block_back_too(dbs: Databases, problem: type[BaseException]) -> None:
    with dbs.unit_of_work() as uow:
        with pytest.raises(problem), uow.savepoint():
            uow.main.add(Item(name="a"))
            uow.main.flush()
            raise problem
    assert (names(dbs), uow.status) == ([], Status.COMMITTED)


def test_objects_written_before_the_block_stay_in_the_session(any_dbs: Databases) -> None:
    with any_dbs.unit_of_work() as uow:
        item = Item(name="a", amount=1)
        uow.main.add(item)
        with pytest.raises(ZeroDivisionError), uow.savepoint():
            item.amount = 2
            uow.main.flush()
            raise ZeroDivisionError
        assert item.amount == 1
        item.amount += 10
    assert (item.amount, names(any_dbs)) == (11, ["a"])
