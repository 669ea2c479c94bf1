"""
Models of what Alembic by itself does not compare, as they are first and as they are later.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    ARRAY,
    CheckConstraint,
    Column,
    Computed,
    Enum,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    false,
    func,
    select,
    text,
)
from sqlalchemy.types import Boolean

from stillroom.models import NAMING_CONVENTION, view


def item(metadata: MetaData, kind: Enum, least: int, *more: Any) -> Table:
    return Table(
        "item",
        metadata,
        Column("id", Integer, primary_key=True),
        Column("name", String(20), nullable=False),
        Column("gone", Boolean, server_default=false(), nullable=False),
        Column("price", Integer, nullable=False),
        Column("amount", Integer, nullable=False),
        Column("total", Integer, Computed("price * amount", persisted=True)),
        Column("kind", kind, nullable=False),
        CheckConstraint(f"price >= {least}", name=f"price_{least}"),
        *more,
    )


first = MetaData(naming_convention=NAMING_CONVENTION)
_kind = Enum("book", "record", name="kind")
_item = item(first, _kind, 0)
Table("shelf", first, Column("id", Integer, primary_key=True), Column("kind", _kind), Column("all", ARRAY(_kind)))
Index(None, _item.c.name, unique=True, postgresql_where=text("not gone"))
Index("ix_item_lower", func.lower(_item.c.name))
view(first, "live", select(_item.c.id, _item.c.name).where(~_item.c.gone, _item.c.name.not_like("100% :x")))

later = MetaData(naming_convention=NAMING_CONVENTION)
_kind = Enum("map", "book", "record", "it's", name="kind")
_item = item(later, _kind, 1, Column("state", Enum("new", "used", name="state")))
Index("ix_item_new", _item.c.name, postgresql_where=text("state = 'new'"))
view(later, "live", select(_item.c.id, _item.c.price).where(~_item.c.gone))
view(later, "cheap", select(_item.c.id).where(_item.c.price < 10))

without = MetaData(naming_convention=NAMING_CONVENTION)
item(without, Enum("book", name="kind"), 1)

plain = MetaData(naming_convention=NAMING_CONVENTION)
_thing = Table(
    "thing", plain, Column("id", Integer, primary_key=True), Column("n", Integer), CheckConstraint("n > 0", name="n")
)
view(plain, "things", select(_thing.c.id))

oddly_named = MetaData(naming_convention=NAMING_CONVENTION)
_sure = Enum("yes", "no", name='100% "sure"')
Table("odd", oddly_named, Column("id", Integer, primary_key=True), Column("sure", _sure))
