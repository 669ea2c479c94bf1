"""
A small shop: what the tests of the read side read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, ForeignKey, String, insert
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

from stillroom.models import ModelBase, SoftDelete

if TYPE_CHECKING:
    from tests.repository.worlds import Place


class Base(ModelBase, DeclarativeBase, database="main"):
    """
    The tables of the tests.
    """


class User(Base):
    """
    A customer.
    """

    __tablename__ = "users"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str] = mapped_column(String(40))
    email: Mapped[str | None] = mapped_column(String(80), unique=True)
    age: Mapped[int | None]
    orders: Mapped[list[Order]] = relationship(back_populates="user", order_by="Order.id")


class Order(Base):
    """
    What a customer bought.
    """

    __tablename__ = "orders"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
    total: Mapped[int]
    user: Mapped[User] = relationship(back_populates="orders")


class Line(Base):
    """
    A part of an order: its key has two columns.
    """

    __tablename__ = "order_lines"

    order_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    text: Mapped[str] = mapped_column(String(40), default="")


class Note(SoftDelete, Base):
    """
    What is only marked when it is deleted.
    """

    __tablename__ = "notes"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    text: Mapped[str] = mapped_column(String(40))


USERS: tuple[dict[str, Any], ...] = (
    {"id": 1, "name": "Ada", "email": "ada@example.org", "age": 36},
    {"id": 2, "name": "Grace", "email": "grace@example.org", "age": 85},
    {"id": 3, "name": "Edsger", "email": None, "age": 72},
    {"id": 4, "name": "100%_sure", "email": "sure@example.org", "age": None},
)
"""Two of them lack a value, and one has the characters that LIKE takes for its own."""
ORDERS: tuple[dict[str, Any], ...] = (
    {"id": 10, "user_id": 1, "total": 5},
    {"id": 11, "user_id": 1, "total": 7},
    {"id": 12, "user_id": 2, "total": 9},
)


def create_tables(place: Place, metadata: Any = Base.metadata, name: str = "main") -> None:
    """
    Make the tables around the library.
    """
    with place.plain[name].engine.begin() as connection:
        metadata.create_all(connection)


def fill(connection: Connection) -> None:
    """
    Store the users and their orders.
    """
    connection.execute(insert(User), list(USERS))
    connection.execute(insert(Order), list(ORDERS))


def seed(session: Session) -> None:
    """
    Same as `fill`, but for the template of a test database.
    """
    fill(session.connection())
