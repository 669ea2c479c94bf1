"""
How much process CPU does an asynchronous unit of work cost against a bare AsyncSession?
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from stillroom import Databases

from .measuring import compare_async
from .report import Result, Scale, costs
from .workload import Base, Item, database, noting, with_driver, write_async

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from .measuring import AsyncWork, Measured

ADVANCED = "Advanced Alchemy"


def run(scale: Scale) -> Result:
    """
    Measure writing units on each driver.
    """
    result = Result()
    asyncio.run(_drivers(result, scale))
    return result


async def _drivers(result: Result, scale: Scale) -> None:
    rounds = scale.pick(20, 2)
    measured = await _measure(result, "sqlite+aiosqlite://", rounds, scale.pick(25, 3), fill=True)
    result.tables.append(costs("A writing unit, aiosqlite in memory", measured))
    with noting(result, "PostgreSQL"), database("postgresql") as plain:
        for driver in ("psycopg", "asyncpg"):
            url = with_driver(plain, f"postgresql+{driver}")
            measured = await _measure(result, url, rounds, scale.pick(20, 3), fill=False)
            result.tables.append(costs(f"A writing unit, PostgreSQL with {driver}", measured))


async def _measure(result: Result, url: str, rounds: int, batch: int, *, fill: bool) -> list[Measured]:
    engines: list[AsyncEngine] = []
    bare = create_async_engine(url)
    databases = Databases({"databases": {"main": {"url": url}}})
    engines += [bare, databases["main"].async_engine]

    async def bare_unit() -> None:
        async with AsyncSession(bare) as session:
            await write_async(session)
            await session.commit()

    async def unit() -> None:
        async with databases.async_unit_of_work() as uow:
            await write_async(uow.main)

    ways: list[tuple[str, AsyncWork]] = [("bare AsyncSession", bare_unit), ("Stillroom", unit)]
    try:
        ways.append((ADVANCED, _advanced_alchemy(url, engines)))
    except ImportError as error:
        result.notes.append(f"{ADVANCED}: not measured, {error}")
    try:
        for engine in engines if fill else ():
            await _fill(engine)
        return await compare_async(ways, rounds=rounds, batch=batch)
    finally:
        for engine in engines:
            await engine.dispose()
        databases.close()


def _advanced_alchemy(url: str, engines: list[AsyncEngine]) -> AsyncWork:
    from advanced_alchemy.config import SQLAlchemyAsyncConfig

    config = SQLAlchemyAsyncConfig(connection_string=url)
    engines.append(config.get_engine())

    async def unit() -> None:
        async with config.get_session() as session:
            await write_async(session)
            await session.commit()

    return unit


async def _fill(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with AsyncSession(engine) as session:
        session.add(Item(id=1))
        await session.commit()
