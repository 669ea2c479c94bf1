"""
A model with a type of its own.
"""

from __future__ import annotations

from sqlalchemy import Column, Integer, MetaData, Table, Text, types


class Shouted(types.TypeDecorator[str]):
    """
    Text in capitals.
    """

    impl = Text
    cache_ok = True


models = MetaData()
Table("a", models, Column("id", Integer, primary_key=True), Column("name", Shouted()))
