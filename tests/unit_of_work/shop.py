"""
One table, and what the tests ask about it.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from sqlalchemy import String, event, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from stillroom import Databases

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping


class Base(DeclarativeBase):
    """
    The base of the model in this file.
    """


class Item(Base):
    """
    Something with a unique name.
    """

    __tablename__ = "item"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(50), unique=True)
    amount: Mapped[int] = mapped_column(default=0)


def make(databases: Mapping[str, Mapping[str, Any] | str], **top: Any) -> Databases:
    """
    Declare databases, and create the table in each.
    """
    declared = {name: {"url": each} if isinstance(each, str) else each for name, each in databases.items()}
    dbs = Databases({"databases": declared, **top})
    for name in dbs:
        Base.metadata.create_all(dbs[name].engine)
    return dbs


@contextlib.contextmanager
def made(databases: Mapping[str, Mapping[str, Any] | str], **top: Any) -> Iterator[Databases]:
    """
    Do as `make`, and close the databases at the end.
    """
    with make(databases, **top) as dbs:
        yield dbs


def names(dbs: Databases, database: str | None = None) -> list[str]:
    """
    Return the names of the items that are durable.
    """
    chosen = dbs.default if database is None else dbs[database]
    with chosen.reader_engine.connect() as connection:
        return list(connection.scalars(select(Item.name).order_by(Item.id)))


def amount(dbs: Databases, name: str, database: str | None = None) -> int | None:
    """
    Return the durable amount of an item.
    """
    chosen = dbs.default if database is None else dbs[database]
    with chosen.reader_engine.connect() as connection:
        return connection.scalar(select(Item.amount).where(Item.name == name))


def idle(dbs: Databases) -> bool:
    """
    Say whether every connection is back in its pool.
    """
    return not any(pool.checkedout() for name in dbs for pool in dbs[name].pools().values())


@contextlib.contextmanager
def listening(target: Any, name: str, listener: Callable[..., Any]) -> Iterator[None]:
    """
    Listen to an event of SQLAlchemy in the block.
    """
    event.listen(target, name, listener)
    try:
        yield
    finally:
        event.remove(target, name, listener)
