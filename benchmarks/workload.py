"""
The work that every way does: `select 1`, then a get, then an update; and the tables for it.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from sqlalchemy import String, create_engine, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from stillroom.testing.servers import ServerUnavailable
from tests.support import servers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.engine import Engine
    from sqlalchemy.ext.asyncio import AsyncSession

    from .report import Result


class Base(DeclarativeBase):
    """
    The tables of the benchmarks.
    """


class Item(Base):
    """
    One thing of which there are so many.
    """

    __tablename__ = "item"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(50), default="thing")
    amount: Mapped[int] = mapped_column(default=0)


ONE = text("select 1")
FIRST = select(Item).where(Item.id == 1)


def write(session: Session) -> None:
    """
    Do the work of a writing unit, without its end.
    """
    session.execute(ONE)
    session.get_one(Item, 1).amount += 1


async def write_async(session: AsyncSession) -> None:
    """
    Same as `write`, but for asyncio.
    """
    await session.execute(ONE)
    (await session.get_one(Item, 1)).amount += 1


def read(session: Session) -> None:
    """
    Do the work of a reading unit.
    """
    session.scalars(FIRST).one()


async def read_async(session: AsyncSession) -> None:
    """
    Same as `read`, but for asyncio.
    """
    (await session.scalars(FIRST)).one()


def fill(engine: Engine) -> None:
    """
    Create the table and its first row.
    """
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add(Item(id=1))
        session.commit()


@contextlib.contextmanager
def database(backend: str) -> Iterator[str]:
    """
    Make a database with the table and its row on a server, yield its URL without a driver, and drop it.

    Args:
        backend: "postgresql" or "mariadb".

    Raises:
        stillroom.testing.servers.ServerUnavailable: No such server is there.
    """
    making: Any
    if backend == "postgresql":
        making, driver = servers.postgresql_database(servers.postgresql_url()), "postgresql+psycopg"
    else:
        making, driver = servers.mariadb_database(servers.mariadb_url()), "mysql+pymysql"
    with making as url:
        engine = create_engine(with_driver(url, driver))
        fill(engine)
        engine.dispose()
        yield url


def with_driver(url: str, drivername: str) -> str:
    """
    Return `url` with another dialect and driver.
    """
    return f"{drivername}:{url.partition(':')[2]}"


@contextlib.contextmanager
def noting(result: Result, what: str) -> Iterator[None]:
    """
    Note in `result` that a server or a library is missing, instead of failing.
    """
    try:
        yield
    except ServerUnavailable as error:
        result.notes.append(f"{what}: not measured, {error}")
