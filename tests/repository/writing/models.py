"""
The models that the tests of the write side share, one for each rule.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import CheckConstraint, ColumnElement, ForeignKey, Index, String, UniqueConstraint, func, text
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import DeclarativeBase, Mapped, column_property, mapped_column, relationship, synonym

from stillroom import Repository
from stillroom.models import ModelBase, SoftDelete, Timestamps, UTCDateTime, Version


class Base(ModelBase, DeclarativeBase, database="main"):
    """
    The tables of the tests.
    """


class Team(Base):
    """
    What people belong to.
    """

    __tablename__ = "team"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(40), unique=True)


class Person(Base):
    """
    A row with two unique keys, a column of another name, relationships, a hybrid and a synonym.
    """

    __tablename__ = "person"
    __table_args__ = (UniqueConstraint("team_id", "number"), CheckConstraint("age >= 0", name="born"))
    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column("e_mail", String(60), unique=True)
    name: Mapped[str] = mapped_column("full_name", String(60), default="nobody")
    age: Mapped[int | None] = mapped_column()
    older: Mapped[int | None] = column_property(age + 1)
    number: Mapped[int | None]
    changed_at: Mapped[datetime | None] = mapped_column(UTCDateTime, onupdate=lambda: datetime.now(UTC))
    team_id: Mapped[int | None] = mapped_column(ForeignKey(Team.id))
    team: Mapped[Team | None] = relationship()
    badges: Mapped[list[Badge]] = relationship(cascade="all, delete-orphan", back_populates="person")
    mail = synonym("email")

    @hybrid_property
    def loud(self) -> str:
        """
        The name in capitals.
        """
        return self.name.upper()

    @loud.inplace.setter
    def _loud(self, value: str) -> None:
        self.name = value.lower()

    @loud.inplace.expression
    @classmethod
    def _loud_expression(cls) -> ColumnElement[str]:
        return func.upper(cls.name)

    @loud.inplace.update_expression
    @classmethod
    def _loud_update(cls, value: Any) -> list[tuple[Any, Any]]:
        return [(cls.name, value.lower())]


class Badge(Base):
    """
    What is deleted with its person by the unit of work, and keeps the database from deleting the person alone.
    """

    __tablename__ = "badge"
    id: Mapped[int] = mapped_column(primary_key=True)
    person_id: Mapped[int] = mapped_column(ForeignKey(Person.id))
    code: Mapped[str] = mapped_column(String(20), unique=True)
    person: Mapped[Person] = relationship(back_populates="badges")


class Account(Version, Timestamps, Base):
    """
    A row with a version.
    """

    __tablename__ = "account"
    id: Mapped[int] = mapped_column(primary_key=True)
    code: Mapped[str] = mapped_column(String(20), unique=True)
    balance: Mapped[int] = mapped_column(default=0)


class Note(SoftDelete, Version, Base):
    """
    A row that is marked instead of deleted.
    """

    __tablename__ = "note"
    id: Mapped[int] = mapped_column(primary_key=True)
    slug: Mapped[str] = mapped_column(String(20), unique=True)
    text: Mapped[str] = mapped_column(String(40), default="")


class Alias(SoftDelete, Base):
    """
    A name that may be taken again once the row that had it is marked (not on MariaDB, which has no partial indexes).
    """

    __tablename__ = "alias"
    __table_args__ = (
        Index(
            "uq_alias_name_there",
            "name",
            unique=True,
            sqlite_where=text("deleted_at IS NULL"),
            postgresql_where=text("deleted_at IS NULL"),
        ),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(20))
    target: Mapped[str] = mapped_column(String(20), default="")


class Seat(Base):
    """
    A composite key.
    """

    __tablename__ = "seat"
    row: Mapped[str] = mapped_column("line", String(5), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    guest: Mapped[str | None] = mapped_column(String(40))


class Vehicle(Base):
    """
    Single-table inheritance.
    """

    __tablename__ = "vehicle"
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "vehicle"}  # noqa: RUF012
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(String(10))
    plate: Mapped[str] = mapped_column(String(10), unique=True)
    wheels: Mapped[int] = mapped_column(default=4)


class Bike(Vehicle):
    """
    In the table of its base.
    """

    __mapper_args__ = {"polymorphic_identity": "bike"}  # noqa: RUF012
    gears: Mapped[int | None]


class Animal(Version, Base):
    """
    Joined inheritance.
    """

    __tablename__ = "animal"
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "animal"}  # noqa: RUF012
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(String(10))
    name: Mapped[str] = mapped_column(String(20), unique=True)


class Dog(Animal):
    """
    In two tables.
    """

    __tablename__ = "dog"
    __mapper_args__ = {"polymorphic_identity": "dog"}  # noqa: RUF012
    id: Mapped[int] = mapped_column(ForeignKey(Animal.id), primary_key=True)
    tricks: Mapped[int] = mapped_column(default=0)
    walks: Mapped[list[Walk]] = relationship(cascade="all, delete-orphan")


class Walk(Base):
    """
    What a dog has behind it.
    """

    __tablename__ = "walk"
    id: Mapped[int] = mapped_column(primary_key=True)
    dog_id: Mapped[int] = mapped_column(ForeignKey(Dog.id))
    place: Mapped[str] = mapped_column(String(20))


class Circle(Base):
    """
    Concrete inheritance: the base.
    """

    __tablename__ = "circle"
    id: Mapped[int] = mapped_column(primary_key=True)
    radius: Mapped[int] = mapped_column(unique=True)


class Disc(Circle):
    """
    A table of its own with all columns.
    """

    __tablename__ = "disc"
    __mapper_args__ = {"concrete": True}  # noqa: RUF012
    id: Mapped[int] = mapped_column(primary_key=True)
    radius: Mapped[int] = mapped_column(unique=True)
    colour: Mapped[str] = mapped_column(String(10), default="")


People = Repository[Person]
Teams = Repository[Team]
Badges = Repository[Badge]
Accounts = Repository[Account]
Notes = Repository[Note]
Aliases = Repository[Alias]
Seats = Repository[Seat]
Vehicles = Repository[Vehicle]
Bikes = Repository[Bike]
Animals = Repository[Animal]
Dogs = Repository[Dog]
Circles = Repository[Circle]
Discs = Repository[Disc]
