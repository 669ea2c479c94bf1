"""
The types that checkers infer for databases, units of work and functions that run in them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import assert_type

from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session, scoped_session

from stillroom import AsyncUnitOfWork, Database, Databases, Retry, Status, UnitOfWork

dbs = Databases()


def databases() -> None:
    assert_type(dbs.main, Database)
    assert_type(dbs["main"], Database)
    assert_type(dbs.default, Database)
    assert_type(dbs.current, UnitOfWork | AsyncUnitOfWork)
    assert_type(dbs.scoped("main"), scoped_session[Session])


def unit() -> None:
    assert_type(dbs.unit_of_work(), UnitOfWork)
    with dbs.unit_of_work(timeout=5.0) as uow:
        assert_type(uow, UnitOfWork)
        assert_type(uow.main, Session)
        assert_type(uow.session("audit", role="reader"), Session)
        assert_type(uow.reader, Session)
        assert_type(uow.logger, Session)
        assert_type(uow.status, Status)
        with uow.savepoint("main"):
            uow.on_commit(lambda: None)


async def async_unit() -> None:
    assert_type(dbs.async_unit_of_work(), AsyncUnitOfWork)
    async with dbs.async_unit_of_work() as uow:
        assert_type(uow, AsyncUnitOfWork)
        assert_type(uow.main, AsyncSession)
        assert_type(uow.session("audit", role="reader"), AsyncSession)
        async with uow.savepoint():
            uow.on_commit(lambda: None)
    async with dbs.async_transaction(propagation="nested") as joined:
        assert_type(joined, AsyncUnitOfWork)


def sessions(database: Database) -> None:
    with database.session() as session:
        assert_type(session, Session)
    with dbs.transaction(propagation="mandatory") as uow:
        assert_type(uow, UnitOfWork)


@dbs.transactional
def plain(uow: UnitOfWork, name: str) -> int:
    return len(name)


@dbs.transactional(propagation="new", retry=Retry(attempts=5), read_only=True)
def with_options(uow: UnitOfWork, name: str, *, amount: int = 0) -> str:
    return name * amount


@dbs.transactional()
async def asynchronous(uow: AsyncUnitOfWork, name: str) -> int:
    return len(name)


@dbs.with_session("main", role="reader")
def reads(session: Session, key: int) -> str | None:
    return session.get(str, key)


@dbs.with_session(retry=Retry())
async def reads_asynchronously(session: AsyncSession, key: int) -> str | None:
    return await session.get(str, key)


class Service:
    """
    Methods get the unit of work after `self`.
    """

    @dbs.transactional
    def plain(self, uow: UnitOfWork, name: str) -> int:
        return len(name)

    @dbs.transactional(retry=Retry())
    async def asynchronous(self, uow: AsyncUnitOfWork, name: str) -> int:
        return len(name)

    @dbs.with_session("main")
    def reads(self, session: Session, key: int) -> str | None:
        return session.get(str, key)


@dbs.transactional
async def plain_asynchronous(uow: AsyncUnitOfWork, name: str) -> int:
    return len(name)


def methods(service: Service) -> None:
    assert_type(service.plain("a"), int)
    assert_type(service.asynchronous("a"), Awaitable[int])
    assert_type(service.reads(1), str | None)
    assert_type(plain_asynchronous("a"), Awaitable[int])


def calls() -> None:
    assert_type(plain("a"), int)
    assert_type(with_options("a", amount=3), str)
    assert_type(reads(1), str | None)
    assert_type(asynchronous("a"), Awaitable[int])
    assert_type(reads_asynchronously(1), Awaitable[str | None])
    taken: Callable[[str], int] = plain
    assert_type(taken("a"), int)


def wrong_calls() -> None:
    plain(3)  # type: ignore[arg-type]
    with_options("a", amount="b")  # type: ignore[arg-type]
    reads()  # type: ignore[call-arg]
    dbs.transaction(propagation="requires")  # type: ignore[arg-type]
