"""
Models that inherit, in one table, in joined tables and in tables of their own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import ForeignKey, String
from sqlalchemy.ext.declarative import AbstractConcreteBase
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, selectin_polymorphic

from tests.support.standing import Content

if TYPE_CHECKING:
    from tests.repository.worlds import Place


class Base(DeclarativeBase):
    """
    The tables of these tests.
    """


class Animal(Base):
    """
    One table for all.
    """

    __tablename__ = "animals"
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "animal"}  # noqa: RUF012 (as SQLAlchemy says)

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    kind: Mapped[str] = mapped_column(String(20))


class Dog(Animal):
    """
    Has a column that the other animals leave empty.
    """

    __mapper_args__ = {"polymorphic_identity": "dog"}  # noqa: RUF012

    tricks: Mapped[int | None]


class Employee(Base):
    """
    A table for what all employees have.
    """

    __tablename__ = "employees"
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "employee"}  # noqa: RUF012

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    kind: Mapped[str] = mapped_column(String(20))
    name: Mapped[str] = mapped_column(String(20))


class Manager(Employee):
    """
    And a table for what managers have beside.
    """

    __tablename__ = "managers"
    __mapper_args__ = {"polymorphic_identity": "manager"}  # noqa: RUF012

    id: Mapped[int] = mapped_column(ForeignKey(Employee.id), primary_key=True, autoincrement=False)
    budget: Mapped[int]


class Shape(AbstractConcreteBase, Base):
    """
    No table: each kind has one of its own.
    """

    strict_attrs = True

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)


class Circle(Shape):
    """
    A table of its own.
    """

    __tablename__ = "circles"
    __mapper_args__ = {"polymorphic_identity": "circle", "concrete": True}  # noqa: RUF012

    radius: Mapped[int]


class Square(Shape):
    """
    Another.
    """

    __tablename__ = "squares"
    __mapper_args__ = {"polymorphic_identity": "square", "concrete": True}  # noqa: RUF012

    side: Mapped[int]


Base.registry.configure()

KINDS: tuple[tuple[type[Any], type[Any], dict[str, Any], dict[str, Any]], ...] = (
    (Animal, Dog, {}, {"tricks": 3}),
    (Employee, Manager, {"name": "Ada"}, {"name": "Grace", "budget": 9}),
)


@pytest.fixture
def place_content() -> Content:
    """
    What `place` has in it.
    """
    return Content("inheritance", "tests.repository.test_inheritance:Base")


@pytest.mark.parametrize(("parent", "child", "plain", "special"), KINDS, ids=["single", "joined"])
def test_a_parent_reads_all_and_a_child_its_own(
    place: Place, parent: type[Any], child: type[Any], plain: dict[str, Any], special: dict[str, Any]
) -> None:
    (name, value) = list(special.items())[-1]
    with place.unit() as uow:
        place.waiting(uow.session()).add_all([parent(id=1, **plain), child(id=2, **special)])
        parents, children = place.repository(parent, uow), place.repository(child, uow)
        assert [type(each) for each in parents.list(order_by="id")] == [parent, child]
        assert [type(each) for each in parents.stream(order_by="id", batch=1)] == [parent, child]
        assert [each.id for each in children.list(**{name: value})] == [2]
        assert (parents.count(), children.count()) == (2, 1)
        assert children.exists(id=1) is False
    with place.unit() as uow:
        parents, children = place.repository(parent, uow), place.repository(child, uow)
        assert type(parents.get(2)) is child
        assert children.get(1) is None
        assert [type(each) for each in parents.get_many([2, 1])] == [child, parent]
        assert children.get_many([1], missing="skip") == []
        assert getattr(children.get(2, for_update=True), name) == value
        found = parents.list(options=[selectin_polymorphic(parent, [child])], order_by="-id")
        assert getattr(found[0], name) == value


def test_concrete_tables_are_read_together_and_alone(place: Place) -> None:
    with place.unit() as uow:
        place.waiting(uow.session()).add_all([Circle(id=1, radius=5), Square(id=2, side=4)])
        shapes, circles = place.repository(Shape, uow), place.repository(Circle, uow)
        assert [type(each) for each in shapes.list(order_by="id")] == [Circle, Square]
        assert shapes.count() == 2
        assert circles.count() == 1
        assert circles.get(1).radius == 5
        assert circles.get(2) is None
        assert type(shapes.get(2)) is Square
