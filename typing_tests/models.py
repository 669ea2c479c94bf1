"""
The types that checkers infer for bases, mixins and finders.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol, assert_type
from uuid import UUID

from sqlalchemy import Select, select
from sqlalchemy.orm import DeclarativeBase, Mapped, MappedAsDataclass, Session, mapped_column

from stillroom.models import (
    AsyncQueryMixin,
    ModelBase,
    QueryMixin,
    Timestamps,
    UUIDKey,
    Version,
    secret_columns,
    session_of,
    uuid7,
)

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession


class Base(ModelBase, DeclarativeBase, database="main"):
    """
    A base.
    """


class User(QueryMixin, UUIDKey, Timestamps, Version, Base):
    """
    A model with everything.
    """

    __tablename__ = "user_account"
    name: Mapped[str]


class Visitor(AsyncQueryMixin, Base):
    """
    A model for asynchronous sessions.
    """

    __tablename__ = "visitor"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class DataBase(ModelBase, MappedAsDataclass, DeclarativeBase, database="main"):
    """
    A base whose models are dataclasses.
    """


class Point(DataBase):
    """
    A dataclass.
    """

    __tablename__ = "point"
    id: Mapped[int] = mapped_column(primary_key=True, init=False)
    x: Mapped[int]


class Unit(Protocol):
    """
    A synchronous unit of work.
    """

    def session(self, name: str, role: str = "writer") -> Session:
        """
        Return a session.
        """
        ...


class AsyncUnit(Protocol):
    """
    An asynchronous unit of work.
    """

    def session(self, name: str, role: str = "writer") -> AsyncSession:
        """
        Return a session.
        """
        ...


def attributes(user: User) -> None:
    assert_type(user.id, UUID)
    assert_type(user.created_at, datetime)
    assert_type(user.updated_at, datetime)
    assert_type(user.version, int)
    assert_type(user.to_dict(loaded_only=True), dict[str, Any])
    assert_type(secret_columns(User), tuple[str, ...])
    assert_type(uuid7(), UUID)
    assert_type(Point(x=1).x, int)


def statements(session: Session) -> None:
    assert_type(session.scalars(User.select_by("name", "Ada")).all(), Sequence[User])
    assert_type(session.scalars(User.select_range().limit(1)).first(), User | None)
    assert_type(session.scalars(select(User.created_at)).all(), Sequence[datetime])
    statement: Select[User] = User.select_starting_with(User.name, "A")
    assert_type(session.scalars(statement).one(), User)


def finders(session: Session, unit: Unit) -> None:
    assert_type(session_of(session, User), Session)
    assert_type(session_of(unit, User), Session)
    assert_type(User.by_id(unit, uuid7()), User | None)
    assert_type(User.first_by(session, "name", "Ada"), User | None)
    assert_type(User.first_by_lower(session, User.name, "Ada"), User | None)
    assert_type(User.all_by(unit, "name", "Ada"), Sequence[User])
    assert_type(User.containing(unit, User.name, "d", ignoring_case=True), Sequence[User])
    assert_type(User.range(session, order_by=User.name, where=[User.name != ""]), Sequence[User])


async def asynchronous_finders(session: AsyncSession, unit: AsyncUnit) -> None:
    assert_type(session_of(unit, Visitor), "AsyncSession")
    assert_type(await Visitor.by_id(unit, 1), Visitor | None)
    assert_type(await Visitor.first_by(session, Visitor.name, "Ada"), Visitor | None)
    assert_type(await Visitor.all_by_lower(session, "name", "Ada"), Sequence[Visitor])
    assert_type(await session.run_sync(User.all_by, "name", "Ada"), Sequence[User])
