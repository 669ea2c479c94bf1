"""
Orders as rows, and what makes domain classes of every kind for them.
"""

from __future__ import annotations

import dataclasses
import enum
from decimal import Decimal  # noqa: TC003  # SQLAlchemy reads the annotations when it maps
from typing import Any

import attrs
import msgspec
import pydantic
from sqlalchemy import JSON, Column, ForeignKey, PickleType, String, Table, and_, func
from sqlalchemy.ext.associationproxy import AssociationProxy, association_proxy
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    attribute_keyed_dict,
    column_property,
    mapped_column,
    relationship,
)

from stillroom.models import Version

# --- the rows


class Base(DeclarativeBase):
    """
    The tables of the tests.
    """


class CustomerRow(Base):
    """
    Who orders.
    """

    __tablename__ = "customers"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(40))


tagged = Table(
    "tagged",
    Base.metadata,
    Column("order_id", ForeignKey("orders.id"), primary_key=True),
    Column("tag_id", ForeignKey("tags.id"), primary_key=True),
)


class TagRow(Base):
    """
    A word that orders share.
    """

    __tablename__ = "tags"
    id: Mapped[int] = mapped_column(primary_key=True)
    word: Mapped[str] = mapped_column(String(40), unique=True)


class LineRow(Base):
    """
    A line, which its order gives half of its key.
    """

    __tablename__ = "lines"
    order_id: Mapped[int] = mapped_column(ForeignKey("orders.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str] = mapped_column(String(40))
    note: Mapped[str] = mapped_column(String(40), default="as usual")


class RemarkRow(Base):
    """
    A remark: a value, which has a key in the database only.
    """

    __tablename__ = "remarks"
    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[int] = mapped_column(ForeignKey("orders.id"))
    text: Mapped[str] = mapped_column(String(40))


class LabelRow(Base):
    """
    A label, by its language.
    """

    __tablename__ = "labels"
    order_id: Mapped[int] = mapped_column(ForeignKey("orders.id"), primary_key=True)
    language: Mapped[str] = mapped_column(String(2), primary_key=True)
    text: Mapped[str] = mapped_column(String(40))


class OrderRow(Version, Base):
    """
    What was ordered.
    """

    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    state: Mapped[str] = mapped_column(String(10), default="open")
    total: Mapped[Decimal | None]
    internal: Mapped[str] = mapped_column(String(40), default="not for everyone")
    to_street: Mapped[str | None] = mapped_column(String(40))
    to_city: Mapped[str | None] = mapped_column(String(40))
    extra: Mapped[Any | None] = mapped_column(JSON)
    pickled: Mapped[Any | None] = mapped_column(PickleType)
    customer_id: Mapped[int | None] = mapped_column(ForeignKey("customers.id"))
    customer: Mapped[CustomerRow | None] = relationship()
    lines: Mapped[list[LineRow]] = relationship(cascade="all, delete-orphan", order_by=LineRow.number)
    remarks: Mapped[list[RemarkRow]] = relationship(cascade="all, delete-orphan", order_by=RemarkRow.id)
    late_remarks: Mapped[list[RemarkRow]] = relationship(
        primaryjoin=lambda: and_(RemarkRow.order_id == OrderRow.id, RemarkRow.text == "late"), viewonly=True
    )
    tags: Mapped[set[TagRow]] = relationship(secondary=tagged)
    labels: Mapped[dict[str, LabelRow]] = relationship(
        cascade="all, delete-orphan", collection_class=attribute_keyed_dict("language")
    )
    shout: Mapped[str] = column_property(func.upper(state))
    words: AssociationProxy[set[str]] = association_proxy("tags", "word")

    @property
    def size(self) -> int:
        """
        How many words there are.
        """
        return len(self.tags)


class State(enum.Enum):
    """
    Whether an order is on its way.
    """

    OPEN = "open"
    SENT = "sent"


# --- classes of every kind, frozen where the kind can be


NEEDED: Any = object()


def as_dataclass(name: str, /, **fields: tuple[Any, Any]) -> type[Any]:
    listed = [
        (field, type_) if default is NEEDED else (field, type_, default) for field, (type_, default) in fields.items()
    ]
    return dataclasses.make_dataclass(name, listed, frozen=True, slots=True, kw_only=True)


def as_attrs(name: str, /, **fields: tuple[Any, Any]) -> type[Any]:
    made = {
        field: attrs.field(type=type_, default=attrs.NOTHING if default is NEEDED else default)
        for field, (type_, default) in fields.items()
    }
    return attrs.make_class(name, made, frozen=True, slots=True, kw_only=True)


def as_struct(name: str, /, **fields: tuple[Any, Any]) -> type[Any]:
    listed = [
        (field, type_) if default is NEEDED else (field, type_, default) for field, (type_, default) in fields.items()
    ]
    return msgspec.defstruct(name, listed, frozen=True, kw_only=True)


def as_pydantic(name: str, /, **fields: tuple[Any, Any]) -> type[Any]:
    given: dict[str, Any] = {
        field: (type_, ... if default is NEEDED else default) for field, (type_, default) in fields.items()
    }
    made: type[Any] = pydantic.create_model(name, __config__=pydantic.ConfigDict(frozen=True), **given)
    return made


def of(container: Any, *items: Any) -> Any:
    """
    Return the type of a container of these items, which checkers need not understand.
    """
    return container[items if len(items) > 1 else items[0]]


KINDS = (as_dataclass, as_attrs, as_struct, as_pydantic)


def changed(item: Any, **values: Any) -> Any:
    """
    Return a copy of an object of any kind with other values.
    """
    names = getattr(type(item), "model_fields", None) or getattr(item, "__struct_fields__", None)
    names = names or getattr(item, "__slots__", None) or [each.name for each in dataclasses.fields(item)]
    return type(item)(**{name: getattr(item, name) for name in names if name != "__weakref__"} | values)
