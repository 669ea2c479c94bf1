"""
How many round trips does a unit of work take, counted on the wire?
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from stillroom import Databases
from stillroom.testing.servers import Proxy
from tests.support import servers

from . import peers
from .report import Figure, Result, Scale, Table
from .workload import Item, database, noting, with_driver

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from typing import Any

    from .measuring import Work

WARM = 12
"""Units before the count: drivers ask for types, and prepare a statement that comes again and again."""
_READ = select(Item.amount).where(Item.id == 1)
_WRITE = update(Item).where(Item.id == 1).values(amount=Item.amount + 1)


def run(scale: Scale) -> Result:
    """
    Count the trips of units with one statement, on each driver.
    """
    result = Result()
    rows: list[tuple[object, ...]] = []
    units = scale.pick(10, 2)
    with noting(result, "PostgreSQL"), database("postgresql") as plain, Proxy() as proxy:
        url = proxy.url(plain)
        _count_sync(result, rows, proxy, with_driver(url, "postgresql+psycopg"), ("psycopg", 2), units)
        asyncio.run(_count_async(result, rows, proxy, with_driver(url, "postgresql+asyncpg"), units))
    with noting(result, "MariaDB"), database("mariadb") as plain, Proxy(port=_port(servers.mariadb_url())) as proxy:
        _count_sync(result, rows, proxy, with_driver(proxy.url(plain), "mysql+pymysql"), ("PyMySQL", 3), units)
    result.tables.append(Table("Round trips of a unit with one statement", ("way", "driver", "read", "write"), rows))
    return result


def _port(url: str) -> int:
    from sqlalchemy import make_url

    return make_url(url).port or 3306


def _count_sync(
    result: Result, rows: list[tuple[object, ...]], proxy: Proxy, url: str, driver: tuple[str, int], units: int
) -> None:
    def read(session: Any) -> None:
        session.execute(_READ).scalar()

    def write(session: Any) -> None:
        session.execute(_WRITE)

    makers: Iterable[Callable[[str], peers.Peer]] = (peers.bare, peers.stillroom, *peers.LIBRARIES)
    with peers.opened(peers.stillroom_reader, *makers, url=url, notes=result.notes) as found:
        name, bar = driver
        for peer in found:
            reads = _trips(proxy, peer.doing(read), units)
            writes = _trips(proxy, peer.doing(write), units) if peer.writes else "-"
            rows.append((peer.name, name, reads, writes))
            if peer.name == "Stillroom, reader":
                result.figures.append(Figure(f"round trips of a reading unit, {name}", reads, 1))
            elif peer.name == "Stillroom" and isinstance(writes, float):
                result.figures.append(Figure(f"round trips of a writing unit, {name}", writes, bar))


def _trips(proxy: Proxy, work: Work, units: int) -> float:
    for _ in range(WARM):
        work()
    before = proxy.trips
    for _ in range(units):
        work()
    return (proxy.trips - before) / units


async def _count_async(result: Result, rows: list[tuple[object, ...]], proxy: Proxy, url: str, units: int) -> None:
    bare = create_async_engine(url)
    databases = Databases({"databases": {"main": {"url": url}}})

    async def bare_unit(statement: Any) -> None:
        async with AsyncSession(bare) as session:
            await session.execute(statement)
            await session.commit()

    async def reader(statement: Any) -> None:
        async with databases.async_unit_of_work() as uow:
            await uow.reader.execute(statement)

    async def writer(statement: Any) -> None:
        async with databases.async_unit_of_work() as uow:
            await uow.main.execute(statement)

    async def trips(work: Callable[[Any], Awaitable[None]], statement: Any) -> float:
        for _ in range(WARM):
            await work(statement)
        before = proxy.trips
        for _ in range(units):
            await work(statement)
        return (proxy.trips - before) / units

    try:
        reading, writing = await trips(reader, _READ), await trips(writer, _WRITE)
        rows.append(("Stillroom, reader", "asyncpg", reading, "-"))
        rows.append(("bare AsyncSession", "asyncpg", await trips(bare_unit, _READ), await trips(bare_unit, _WRITE)))
        rows.append(("Stillroom", "asyncpg", await trips(writer, _READ), writing))
        result.figures.append(Figure("round trips of a reading unit, asyncpg", reading, 1))
        result.figures.append(Figure("round trips of a writing unit, asyncpg", writing, 3))
    finally:
        await bare.dispose()
        await databases["main"].async_engine.dispose()
        await databases["main"].async_reader_engine.dispose()
        databases.close()
