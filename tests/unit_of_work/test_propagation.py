"""
Tests of functions and blocks that join the unit of work that is open, or open one.
"""

# The body of a unit of work is what raises, so it stands inside `pytest.raises`, and blocks are told apart.

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text

from stillroom import AsyncUnitOfWork, Databases, NoUnitOfWork, PropagationError, ReadOnlyError, Status, UnitOfWork
from tests.unit_of_work.shop import Item, idle, names

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from stillroom.propagation import Propagation

ALL: list[Propagation] = ["required", "new", "nested", "mandatory", "never"]
OPENS = {"required", "new", "nested", "never"}
JOINS = {"required", "nested", "mandatory"}


@pytest.mark.parametrize("propagation", ALL)
def test_with_no_unit_open(dbs: Databases, propagation: Propagation) -> None:
    if propagation not in OPENS:
        with pytest.raises(NoUnitOfWork, match="propagation='mandatory'"), dbs.transaction(propagation=propagation):
            pass
        return
    with dbs.transaction(propagation=propagation) as uow:
        assert dbs.current is uow
        uow.main.add(Item(name="a"))
    assert (names(dbs), uow.status) == (["a"], Status.COMMITTED)


@pytest.mark.parametrize("propagation", ALL)
def test_inside_an_open_unit(postgresql_dbs: Databases, propagation: Propagation) -> None:
    dbs = postgresql_dbs
    with dbs.unit_of_work() as outer:
        if propagation == "never":
            with pytest.raises(PropagationError, match="propagation='never'"), dbs.transaction(propagation="never"):
                pass
            return
        with dbs.transaction(propagation=propagation) as uow:
            assert (uow is outer) == (propagation in JOINS)
            uow.main.add(Item(name="a"))
        assert names(dbs) == (["a"] if propagation == "new" else [])
        assert outer.status is Status.ACTIVE


@pytest.mark.parametrize("propagation", ALL)
def test_inside_a_read_only_unit(postgresql_dbs: Databases, propagation: Propagation) -> None:
    dbs = postgresql_dbs
    with dbs.unit_of_work(read_only=True) as outer:
        if propagation != "new":
            with pytest.raises(PropagationError), dbs.transaction(propagation=propagation):
                pass
        else:
            with dbs.transaction(propagation="new") as uow:
                uow.main.add(Item(name="a"))
        if propagation in JOINS:
            with dbs.transaction(propagation=propagation, read_only=True) as joined:
                assert joined is outer
    assert names(dbs) == (["a"] if propagation == "new" else [])


@pytest.mark.parametrize("propagation", ALL)
def test_inside_an_asynchronous_unit(dbs: Databases, propagation: Propagation) -> None:
    async def main() -> None:
        async with dbs.async_unit_of_work():
            if propagation != "new":
                with pytest.raises(PropagationError, match=r"AsyncUnitOfWork active|never"):
                    dbs.transaction(propagation=propagation).__enter__()
                return
            with dbs.transaction(propagation="new") as uow:
                uow.main.add(Item(name="a"))
        await dbs.aclose()

    asyncio.run(main())
    asyncio.run(dbs.aclose())
    assert names(dbs) == (["a"] if propagation == "new" else [])


@pytest.mark.parametrize("propagation", ALL)
def test_asynchronous_blocks_inside_a_synchronous_unit(dbs: Databases, propagation: Propagation) -> None:
    async def main() -> None:
        with dbs.unit_of_work():
            if propagation != "new":
                with pytest.raises(PropagationError):
                    await dbs.async_transaction(propagation=propagation).__aenter__()
                return
            async with dbs.async_transaction(propagation="new") as uow:
                assert isinstance(uow, AsyncUnitOfWork)

    asyncio.run(main())


def test_the_refusal_in_a_read_only_unit_names_the_remedies(dbs: Databases) -> None:
    with dbs.unit_of_work(read_only=True):
        with pytest.raises(PropagationError, match="Open the outer one without read_only=True, mark this"):
            dbs.transaction().__enter__()


def test_a_nested_block_is_rolled_back_alone(any_dbs: Databases) -> None:
    with any_dbs.unit_of_work() as uow:
        uow.main.add(Item(name="a"))
        with pytest.raises(ZeroDivisionError), any_dbs.transaction(propagation="nested") as inner:
            inner.main.add(Item(name="b"))
            inner.main.flush()
            raise ZeroDivisionError
        with any_dbs.transaction(propagation="nested") as inner:
            inner.main.add(Item(name="c"))
    assert names(any_dbs) == ["a", "c"]


def test_a_new_block_is_committed_although_the_outer_one_is_rolled_back(postgresql_dbs: Databases) -> None:
    with pytest.raises(ZeroDivisionError), postgresql_dbs.unit_of_work() as uow:
        uow.main.add(Item(name="gone"))
        uow.main.flush()
        with postgresql_dbs.transaction(propagation="new") as inner:
            inner.main.add(Item(name="kept"))
        raise ZeroDivisionError
    assert names(postgresql_dbs) == ["kept"]
    assert idle(postgresql_dbs)


@pytest.mark.parametrize("outer", [None, "READ COMMITTED"])
def test_another_isolation_than_the_open_one_is_refused(postgresql_dbs: Databases, outer: str | None) -> None:
    has = outer or "the default"
    with postgresql_dbs.unit_of_work(isolation=outer):
        with pytest.raises(
            PropagationError, match=f"'SERIALIZABLE' was asked for, and the open unit of work has '{has}'"
        ):
            postgresql_dbs.transaction(isolation="SERIALIZABLE").__enter__()
        with postgresql_dbs.transaction(isolation="SERIALIZABLE", propagation="new") as uow:
            assert uow.main.scalar(text("show transaction_isolation")) == "serializable"


def test_the_same_isolation_joins(postgresql_dbs: Databases) -> None:
    with postgresql_dbs.unit_of_work(isolation="SERIALIZABLE") as outer:
        with postgresql_dbs.transaction(isolation="SERIALIZABLE") as uow:
            assert uow is outer


@pytest.mark.parametrize("use", ["transaction", "async_transaction", "transactional"])
def test_an_unknown_propagation_is_refused_when_it_is_named(dbs: Databases, use: str) -> None:
    with pytest.raises(ValueError, match="propagation='requires': it is one of 'required', 'new'"):
        getattr(dbs, use)(propagation="requires")


# --- transactional


def test_a_function_gets_the_unit_first(dbs: Databases) -> None:
    @dbs.transactional
    def put(uow: UnitOfWork, name: str, *, amount: int = 0) -> int:
        uow.main.add(Item(name=name, amount=amount))
        return amount + 1

    assert put("a", amount=4) == 5
    assert names(dbs) == ["a"]


def test_functions_that_call_each_other_share_one_unit(dbs: Databases) -> None:
    @dbs.transactional()
    def inner(uow: UnitOfWork) -> UnitOfWork:
        uow.main.add(Item(name="a"))
        return uow

    @dbs.transactional()
    def outer(uow: UnitOfWork) -> None:
        assert inner() is uow
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        outer()
    assert names(dbs) == []


def test_a_method_gets_the_unit_after_self(dbs: Databases) -> None:
    class Service:
        @dbs.transactional()
        def put(self, uow: UnitOfWork, name: str) -> tuple[Any, str]:
            uow.main.add(Item(name=name))
            return self, name

    service = Service()
    assert service.put("a") == (service, "a")
    assert names(dbs) == ["a"]


def test_a_class_method_gets_the_unit_after_cls(dbs: Databases) -> None:
    class Service:
        @classmethod
        @dbs.transactional()
        def put(cls, uow: UnitOfWork, name: str) -> type:
            uow.main.add(Item(name=name))
            return cls

    assert Service.put("a") is Service
    assert names(dbs) == ["a"]


def test_a_coroutine_function_gets_an_asynchronous_unit(dbs: Databases) -> None:
    @dbs.transactional()
    async def put(uow: AsyncUnitOfWork, name: str) -> str:
        uow.main.add(Item(name=name))
        return name

    async def main() -> str:
        try:
            return await put("a")
        finally:
            await dbs.aclose()

    assert asyncio.run(main()) == "a"
    assert names(dbs) == ["a"]


def test_the_wrapper_keeps_name_and_documentation_and_shows_the_signature_without_the_unit(dbs: Databases) -> None:
    @dbs.transactional()
    def put(uow: UnitOfWork, name: str, amount: int = 1) -> None:
        """
        Put it there.
        """

    assert put.__name__ == "put"
    assert "Put it there" in str(put.__doc__)
    assert str(inspect.signature(put)) == "(name: 'str', amount: 'int' = 1) -> 'None'"


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_generators_are_refused(dbs: Databases, kind: str) -> None:
    def rows(uow: UnitOfWork) -> Any:
        yield uow

    async def async_rows(uow: AsyncUnitOfWork) -> Any:
        yield uow

    with pytest.raises(TypeError, match="rows is a generator: its body runs after the call"):
        dbs.transactional(rows if kind == "sync" else async_rows)


def test_options_are_those_of_the_unit_it_opens(dbs: Databases) -> None:
    @dbs.transactional(read_only=True)
    def put(uow: UnitOfWork) -> None:
        uow.main.execute(text("delete from item"))

    with pytest.raises(ReadOnlyError):
        put()


# --- with_session


def test_a_function_gets_a_session(shop: Databases) -> None:
    @shop.with_session("audit")
    def put(session: Session, name: str) -> None:
        assert session is shop.session("audit")
        session.add(Item(name=name))

    put("a")
    assert names(shop, "audit") == ["a"]


def test_a_function_gets_the_session_of_the_open_unit(dbs: Databases) -> None:
    @dbs.with_session()
    def current(session: Session) -> Session:
        return session

    with dbs.unit_of_work() as uow:
        assert current() is uow.main


def test_a_function_that_only_reads_joins_a_read_only_unit(dbs: Databases) -> None:
    @dbs.with_session(role="reader")
    def reader(session: Session) -> Session:
        return session

    @dbs.with_session(role="any")
    def anyone(session: Session) -> Session:
        return session

    with dbs.unit_of_work(read_only=True) as uow:
        assert reader() is uow.reader is anyone()


def test_a_function_that_writes_is_refused_in_a_read_only_unit(dbs: Databases) -> None:
    @dbs.with_session()
    def writer(session: Session) -> Session:
        return session

    with dbs.unit_of_work(read_only=True), pytest.raises(PropagationError):
        writer()


def test_a_reader_that_opens_its_own_unit_cannot_write(dbs: Databases) -> None:
    @dbs.with_session("main", role="reader")
    def put(session: Session) -> None:
        session.execute(text("insert into item (name, amount) values ('a', 0)"))

    with pytest.raises(ReadOnlyError):
        put()
    assert names(dbs) == []
