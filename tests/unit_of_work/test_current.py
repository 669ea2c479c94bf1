"""
Tests of which unit of work is current.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from stillroom import Databases, NoUnitOfWork
from tests.unit_of_work.shop import Item, made, names

if TYPE_CHECKING:
    from pathlib import Path


def test_outside_there_is_none_and_the_error_says_what_to_do(dbs: Databases) -> None:
    assert not dbs.has_current
    for use in (lambda: dbs.current, dbs.session):
        with pytest.raises(NoUnitOfWork, match=r"open one: `with dbs\.unit_of_work\(\) as uow:`"):
            use()


def test_inside_it_is_the_innermost(postgresql_dbs: Databases) -> None:
    dbs = postgresql_dbs
    with dbs.unit_of_work() as outer:
        assert dbs.current is outer
        with dbs.unit_of_work() as inner:
            assert dbs.current is inner
            assert dbs.session() is inner.main
            inner.main.add(Item(name="inner"))
        assert dbs.current is outer
        assert names(dbs) == ["inner"]
    assert not dbs.has_current


def test_after_an_exception_the_outer_one_is_current_again(dbs: Databases) -> None:
    with dbs.unit_of_work() as outer:
        with pytest.raises(ZeroDivisionError), dbs.unit_of_work():
            raise ZeroDivisionError
        assert dbs.current is outer


def test_the_session_of_the_current_unit_is_found_by_name_and_role(shop: Databases) -> None:
    with shop.unit_of_work() as uow:
        assert shop.session() is uow.main
        assert shop.session("audit") is uow.audit
        assert shop.session("main", role="reader") is uow.reader


def test_a_thread_starts_with_none(dbs: Databases) -> None:
    seen: list[bool] = []
    with dbs.unit_of_work():
        thread = threading.Thread(target=lambda: seen.append(dbs.has_current))
        thread.start()
        thread.join()
    assert seen == [False]


def test_asyncio_to_thread_inherits_it(dbs: Databases) -> None:
    async def main() -> object:
        with dbs.unit_of_work() as uow:
            return await asyncio.to_thread(lambda: dbs.current) is uow

    assert asyncio.run(main())


def test_two_threads_have_each_their_own(postgresql_dbs: Databases) -> None:
    both = threading.Barrier(2, timeout=10)
    wrong: list[BaseException] = []

    def work(name: str) -> None:
        try:
            with postgresql_dbs.unit_of_work() as uow:
                both.wait()
                assert postgresql_dbs.current is uow
                uow.main.add(Item(name=name))
                both.wait()
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(name,)) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert sorted(names(postgresql_dbs)) == ["a", "b"]


def test_other_databases_have_their_own(tmp_path: Path, dbs: Databases) -> None:
    with made({"main": f"sqlite:///{tmp_path / 'other.db'}"}) as others, dbs.unit_of_work() as uow:
        assert not others.has_current
        with others.unit_of_work() as other:
            assert (dbs.current, others.current) == (uow, other)
            assert dbs.session() is not others.session()
        assert dbs.current is uow


def test_an_inherited_unit_that_has_ended_is_refused(dbs: Databases) -> None:
    with dbs.unit_of_work():
        inherited = contextvars.copy_context()

    def look() -> None:
        assert not dbs.has_current
        with pytest.raises(NoUnitOfWork, match=r"inherited is not usable any more \(<UnitOfWork committed>\)"):
            _ = dbs.current

    inherited.run(look)


def test_where_an_ended_unit_was_inherited_a_new_one_can_be_opened(dbs: Databases) -> None:
    with dbs.unit_of_work():
        inherited = contextvars.copy_context()

    def work() -> None:
        with dbs.unit_of_work() as uow:
            assert dbs.current is uow
            uow.main.add(Item(name="a"))

    inherited.run(work)
    assert names(dbs) == ["a"]


def test_units_that_are_left_in_another_order_leave_the_outermost_current(dbs: Databases) -> None:
    with dbs.unit_of_work() as outermost:
        first, second = dbs.unit_of_work(), dbs.unit_of_work()
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        assert dbs.current is second
        second.__exit__(None, None, None)
        assert dbs.current is outermost


def test_a_generator_in_another_context_ends_its_unit_without_harm(dbs: Databases) -> None:
    # Frameworks enter and leave a generator in different copies of the context.
    from contextlib import contextmanager

    @contextmanager
    def unit():  # type: ignore[no-untyped-def]  # noqa: ANN202
        with dbs.unit_of_work() as uow:
            yield uow

    manager = unit()
    uow = contextvars.copy_context().run(manager.__enter__)
    uow.main.execute(text("insert into item (name, amount) values ('a', 0)"))
    contextvars.copy_context().run(manager.__exit__, None, None, None)
    assert not dbs.has_current
    assert names(dbs) == ["a"]


def test_units_that_end_in_another_context_are_not_kept_by_the_next(dbs: Databases) -> None:
    def work() -> None:
        for _ in range(3):
            unit = dbs.unit_of_work()
            unit.__enter__()
            contextvars.copy_context().run(unit.__exit__, None, None, None)
            assert unit.outer is None

    contextvars.copy_context().run(work)
