"""
Models with types that are not SQLAlchemy's.
"""

from __future__ import annotations

from sqlalchemy import Column, Integer, MetaData, Table, Text, types

from stillroom.models import DecimalNumber, UTCDateTime


class Shouted(types.TypeDecorator[str]):
    """
    Text in capitals.
    """

    impl = Text
    cache_ok = True


models = MetaData()
Table("a", models, Column("id", Integer, primary_key=True), Column("name", Shouted()))

ours = MetaData()
Table(
    "b",
    ours,
    Column("id", Integer, primary_key=True),
    Column("price", DecimalNumber(12, 2)),
    Column("at", UTCDateTime().with_variant(Integer(), "mysql")),
    Column("until", Integer().with_variant(UTCDateTime(), "sqlite")),
)
