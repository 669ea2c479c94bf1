"""
What the tests of units of work in asyncio share: a table, databases over one driver, and a check for leaks.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import String, make_url, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from stillroom import Databases
from tests.support import servers

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

R = TypeVar("R")

POSTGRESQL_DRIVERS = ("psycopg", "asyncpg")
MARIADB_DRIVERS = ("aiomysql", "asyncmy")
DRIVERS = (*POSTGRESQL_DRIVERS, *MARIADB_DRIVERS, "aiosqlite")
PATIENCE = 10.0
"""How long a test waits for a condition, in seconds."""


class Base(DeclarativeBase):
    """
    The tables of the tests.
    """


class Item(Base):
    """
    A row whose key the test chooses.
    """

    __tablename__ = "items"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str] = mapped_column(String(40), default="")


def with_driver(url: str, driver: str) -> str:
    """
    Return `url` with the driver named, and its password in the clear.
    """
    parsed = make_url(url)
    return parsed.set(drivername=f"{parsed.get_backend_name()}+{driver}").render_as_string(hide_password=False)


@contextlib.contextmanager
def databases(urls: dict[str, str], **settings: Any) -> Iterator[Databases]:
    """
    Declare databases that have the table `items`; the settings are the same for all of them.
    """
    top: dict[str, Any] = {key: settings.pop(key) for key in ("on_multiple_writes", "default") if key in settings}
    dbs = Databases({**top, "databases": {name: {"url": url, **settings} for name, url in urls.items()}})
    try:
        for name in dbs:
            Base.metadata.create_all(dbs[name].engine)
        yield dbs
    finally:
        dbs.close()


def run(dbs: Databases, work: Callable[[], Coroutine[Any, Any, R]], *, loop: str = "asyncio") -> R:
    """
    Run `work` in an event loop of its own, check that it left nothing behind, and close what it opened.

    Args:
        dbs: The databases that it uses.
        work: A coroutine function.
        loop: "asyncio", "anyio" or "uvloop".
    """

    async def whole() -> R:
        try:
            result = await work()
            await nothing_held(dbs)
        finally:
            await dbs.aclose()
        return result

    return run_loop(whole, loop=loop)


def run_loop(work: Callable[[], Coroutine[Any, Any, R]], *, loop: str = "asyncio") -> R:
    """
    Run a coroutine function in a new event loop of the kind named.
    """
    if loop == "anyio":
        import anyio

        return anyio.run(work)
    if loop == "uvloop":
        import uvloop

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(work())
    return asyncio.run(work())


async def until(condition: Callable[[], object], what: str) -> None:
    """
    Wait for a condition without holding up the event loop.

    Raises:
        TimeoutError: It did not come true in time.
    """
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {PATIENCE} s in vain until {what}")
        await asyncio.sleep(0.005)


def held(dbs: Databases) -> dict[str, int]:
    """
    Return how many connections are checked out, or counted as such by the queue, where that is not 0.
    """
    found = {}
    for name in dbs:
        for kind, pool in dbs[name].pools().items():
            found[f"{name} {kind}"] = pool.checkedout()
            gate = getattr(pool, "gate", None)
            if gate is not None:
                found[f"{name} {kind}, queue"] = len(gate.holders) + gate.waiting + gate.limit - gate.free
    return {name: count for name, count in found.items() if count}


async def nothing_held(dbs: Databases) -> None:
    """
    Wait until every connection is back in its pool and none of them is inside a transaction.
    """
    await until(lambda: not held(dbs), f"all connections are back: {held(dbs)}")
    for name in dbs:
        if dbs[name].backend.name == "postgresql":
            url = dbs[name].settings.url
            await until(lambda url=url: not in_transaction(url), "no connection idles in a transaction")  # type: ignore[misc]


def in_transaction(url: Any) -> int:
    """
    Return how many connections to the PostgreSQL database are idle inside a transaction.
    """
    query = "select count(*) from pg_stat_activity where datname = current_database() and state like 'idle in trans%'"
    (count,) = servers._postgresql_row(url.render_as_string(hide_password=False), query)
    assert isinstance(count, int)
    return count


def ids(dbs: Databases, name: str = "main") -> list[int]:
    """
    Return the keys of the rows that are durable, in order; read over the synchronous engine.
    """
    with dbs[name].engine.connect() as connection:
        return list(connection.scalars(select(Item.id).order_by(Item.id)))


def slow_commit(dbs: Databases, seconds: float, name: str = "main") -> None:
    """
    Make each COMMIT that wrote an item take at least `seconds` on the server (PostgreSQL).
    """
    with dbs[name].begin() as connection:
        connection.exec_driver_sql(
            "create or replace function linger() returns trigger language plpgsql as "
            f"$$ begin perform pg_sleep({seconds}); return null; end $$"
        )
        connection.exec_driver_sql(
            "create constraint trigger linger after insert on items deferrable initially deferred "
            "for each row execute function linger()"
        )


def failing_commit(dbs: Databases, name: str) -> None:
    """
    Make each COMMIT that wrote an item fail (PostgreSQL).
    """
    with dbs[name].begin() as connection:
        connection.exec_driver_sql(
            "create or replace function refuse() returns trigger language plpgsql as "
            "$$ begin raise exception 'refused' using errcode = '23514'; end $$"
        )
        connection.exec_driver_sql(
            "create constraint trigger refuse after insert on items deferrable initially deferred "
            "for each row execute function refuse()"
        )
