"""
The types that checkers infer for pages and lists, in both worlds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_type

from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from stillroom import AsyncRepository, Repository
from stillroom.repository.paging.listing import ListQuery
from stillroom.repository.paging.pages import CursorPage, Page

if TYPE_CHECKING:
    from stillroom import AsyncUnitOfWork, UnitOfWork


class Base(DeclarativeBase):
    """
    The tables.
    """


class User(Base):
    """
    A user.
    """

    __tablename__ = "users"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Users(Repository[User]):
    """
    The users.
    """


class AsyncUsers(AsyncRepository[User]):
    """
    The users, for asyncio.
    """


USERS = ListQuery(User, filters=[User.name], sort=["name"])


def pages(uow: UnitOfWork) -> None:
    users, listing = Users(uow), USERS.parse("name=Ada")
    page = users.page(1, 20, User.name == "Ada", total="estimate")
    assert_type(page, Page[User])
    assert_type(page.items, list[User])
    assert_type(page.total, int | None)
    assert_type(users.after(page_cursor(users)), CursorPage[User])
    assert_type(listing.page(users, User.id > 1), Page[User])
    assert_type(listing.after(users), CursorPage[User])
    assert_type(listing.next_link(page), str | None)


def page_cursor(users: Users) -> str | None:
    return users.after(size=20, order_by="-name").next_cursor


async def async_pages(uow: AsyncUnitOfWork) -> None:
    users, listing = AsyncUsers(uow), USERS.parse({"name": "Ada"})
    assert_type(await users.page(2), Page[User])
    assert_type(await listing.page(users), Page[User])
    assert_type(await listing.after(users), CursorPage[User])
