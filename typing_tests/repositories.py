"""
The types that checkers infer for repositories.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, assert_type

from sqlalchemy import select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from stillroom import (
    AsyncReadRepository,
    AsyncRepository,
    AsyncUnitOfWork,
    Databases,
    ReadRepository,
    Repository,
    UnitOfWork,
    WriteRepository,
)
from stillroom.models import ModelBase
from stillroom.repository.filters import In
from stillroom.repository.paging.pages import CursorPage, Page

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm import Session


class Base(ModelBase, DeclarativeBase, database="main"):
    """
    A base.
    """


class User(Base):
    """
    A row.
    """

    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    active: Mapped[bool]


@dataclass
class Person:
    """
    A domain object, which knows nothing of the row.
    """

    id: int
    name: str


Model = TypeVar("Model", bound=Base)


class Named(Repository[Model]):
    """
    A base class of the user's own.
    """

    def called(self, name: str) -> list[Model]:
        return self.list(name=name)


class Users(Repository[User]):
    """
    Rows in and out.
    """


class People(Repository[User, Person]):
    """
    Domain objects in and out.
    """


class Readers(ReadRepository[User]):
    """
    A read side.
    """


class Writers(WriteRepository[User]):
    """
    A write side.
    """


class AsyncUsers(AsyncRepository[User]):
    """
    The same for asyncio.
    """


class AsyncPeople(AsyncReadRepository[User, Person]):
    """
    Domain objects for asyncio.
    """


def rows(uow: UnitOfWork, session: Session, dbs: Databases) -> None:
    users = Users(uow)
    assert_type(users.get(1), User | None)
    assert_type(users.list(User.name == "Ada", order_by="name", limit=3), list[User])
    assert_type(users.list(select(User), User.active, In(User.id, [1])), list[User])
    assert_type(users.get_many([1, 2]), list[User])
    assert_type(users.one(name="Ada"), User)
    assert_type(users.one_or_none(), User | None)
    assert_type(users.first(order_by=User.name.desc()), User | None)
    assert_type(users.count(), int)
    assert_type(users.exists(), bool)
    assert_type([each for each in users.stream()], list[User])  # noqa: C416 (what a loop gets)
    assert_type(users.rows(User.name), list[dict[str, Any]])
    assert_type(users.records(Person), list[Person])
    assert_type(users.json(), bytes)
    assert_type(users.page(3), Page[User])
    assert_type(users.after(None), CursorPage[User])
    assert_type(users.create(name="Ada"), User)
    assert_type(users.get_or_create(name="Ada"), tuple[User, bool])
    assert_type(users.with_deleted(), Users)
    assert_type(Users(session).get(1), User | None)
    assert_type(Users.autocommit(dbs), Users)
    assert_type(Repository[User](uow).get(1), User | None)
    assert_type(Named[User](uow).called("Ada"), list[User])


def sides(uow: UnitOfWork) -> None:
    assert_type(Readers(uow).list(), list[User])
    assert_type(Writers(uow).get(1), User | None)
    Readers(uow).create(name="Ada")  # type: ignore[attr-defined]  # a read side has nothing that writes
    Writers(uow).list()  # type: ignore[attr-defined]  # nor a write side what reads


def domain(uow: UnitOfWork) -> None:
    people = People(uow)
    assert_type(people.get(1), Person | None)
    assert_type(people.list(User.name == "Ada"), list[Person])
    assert_type(people.add(Person(1, "Ada")), Person)
    assert_type(people.page(), Page[Person])


async def asynchronous(uow: AsyncUnitOfWork, session: AsyncSession) -> None:
    users = AsyncUsers(uow)
    assert_type(await users.get(1), User | None)
    assert_type(await users.list(), list[User])
    assert_type([each async for each in users.stream()], list[User])
    assert_type(await users.page(), Page[User])
    assert_type(await AsyncUsers(session).count(), int)
    assert_type(await AsyncPeople(uow).get(1), Person | None)


def wrong_worlds(uow: UnitOfWork, other: AsyncUnitOfWork) -> None:
    Users(other)  # type: ignore[arg-type]  # a synchronous repository takes no unit of asyncio
    AsyncUsers(uow)  # type: ignore[arg-type]  # nor the other way round
