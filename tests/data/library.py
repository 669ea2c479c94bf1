"""
Models whose keys mean nothing: rows are known by names, and refer to each other by names.
"""

from __future__ import annotations

import enum
from datetime import UTC, date, datetime
from decimal import Decimal  # noqa: TC003  # SQLAlchemy reads the annotations
from typing import TYPE_CHECKING, Any
from uuid import UUID  # noqa: TC003  # the same

from sqlalchemy import (
    JSON,
    Column,
    Float,
    ForeignKey,
    Integer,
    LargeBinary,
    Numeric,
    String,
    Table,
    UniqueConstraint,
    select,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from stillroom import Databases
from stillroom.models import ModelBase, SoftDelete, Version

if TYPE_CHECKING:
    from collections.abc import Sequence


class Base(ModelBase, DeclarativeBase, database="main"):
    """
    The library.
    """


class Log(ModelBase, DeclarativeBase, database="audit"):
    """
    Another database.
    """


class Kind(enum.Enum):
    """
    Names and values differ.
    """

    NOVEL = "a novel"
    POEMS = "poems"


class Writer(Base):
    """
    Known by the name.
    """

    __tablename__ = "writers"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(80), unique=True)
    born: Mapped[date | None]


class Book(Base):
    """
    Known by its writer and the title.
    """

    __tablename__ = "books"
    __table_args__ = (UniqueConstraint("writer_id", "title"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str] = mapped_column(String(80))
    writer_id: Mapped[int] = mapped_column(ForeignKey("writers.id"))
    price: Mapped[Decimal | None] = mapped_column(Numeric(8, 2))
    kind: Mapped[Kind | None]
    read: Mapped[bool | None]
    changed: Mapped[datetime] = mapped_column(default=lambda: datetime.now(UTC), onupdate=lambda: datetime.now(UTC))

    writer: Mapped[Writer] = relationship()
    chapters: Mapped[list[Chapter]] = relationship(back_populates="book")


class Chapter(Base):
    """
    Known by its book and the number.
    """

    __tablename__ = "chapters"
    __table_args__ = (UniqueConstraint("book_id", "number"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[int]
    book_id: Mapped[int | None] = mapped_column(ForeignKey("books.id"))

    book: Mapped[Book | None] = relationship(back_populates="chapters")


class Shelf(Base):
    """
    Refers to others of its kind.
    """

    __tablename__ = "shelves"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(80), unique=True)
    above_id: Mapped[int | None] = mapped_column(ForeignKey("shelves.id"))

    above: Mapped[Shelf | None] = relationship(remote_side="Shelf.id")


class Member(Base):
    """
    Has two unique constraints.
    """

    __tablename__ = "members"

    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(String(80), unique=True)
    badge: Mapped[int] = mapped_column(unique=True)


class Note(SoftDelete, Version, Base):
    """
    Counts its versions, and is deleted softly.
    """

    __tablename__ = "notes"

    id: Mapped[int] = mapped_column(primary_key=True)
    code: Mapped[str] = mapped_column(String(80), unique=True)
    text: Mapped[str] = mapped_column(String(80), default="nothing")


class Thing(Base):
    """
    Has values of many types.
    """

    __tablename__ = "things"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    amount: Mapped[Decimal | None]
    ratio: Mapped[float | None] = mapped_column(Float(53))
    day: Mapped[date | None]
    moment: Mapped[datetime | None]
    raw: Mapped[bytes | None] = mapped_column(LargeBinary)
    document: Mapped[Any | None] = mapped_column(JSON)
    flag: Mapped[bool | None]
    kind: Mapped[Kind | None]
    text: Mapped[str | None] = mapped_column(String(200))


class Left(Base):
    """
    Refers to what refers to it.
    """

    __tablename__ = "lefts"

    id: Mapped[int] = mapped_column(primary_key=True)
    right_id: Mapped[int | None] = mapped_column(ForeignKey("rights.id", name="fk_lefts_right", use_alter=True))


class Right(Base):
    """
    Refers to what refers to it.
    """

    __tablename__ = "rights"

    id: Mapped[int] = mapped_column(primary_key=True)
    left_id: Mapped[int] = mapped_column(ForeignKey("lefts.id", name="fk_rights_left"))


Table(
    "loans",
    Base.metadata,
    Column("code", String(20), primary_key=True),
    Column("book_id", Integer, ForeignKey("books.id"), nullable=False),
)


class Event(Log):
    """
    In the other database.
    """

    __tablename__ = "events"

    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str] = mapped_column(String(80))


class Notes(Log):
    """
    The table has the name of another database's.
    """

    __tablename__ = "notes"

    id: Mapped[int] = mapped_column(primary_key=True)


def databases(url: str, audit: str = "sqlite://") -> Databases:
    """
    Make both databases, and their tables.
    """
    main = {"url": url, "metadata": "tests.data.library:Base"}
    beside = {"url": audit, "metadata": "tests.data.library:Log"}
    made = Databases({"default": "main", "databases": {"main": main, "audit": beside}})
    Base.metadata.create_all(made.main.engine)
    Log.metadata.create_all(made.audit.engine)
    return made


def rows(dbs: Databases, *columns: Any) -> list[tuple[Any, ...]]:
    """
    Read columns of one model, in the order of their values.
    """
    with dbs.unit_of_work() as uow:
        found: Sequence[Any] = uow.main.execute(select(*columns)).all()
    return sorted((tuple(row) for row in found), key=repr)
