"""
Models for tables that are made without revisions.
"""

from __future__ import annotations

from sqlalchemy import Column, Integer, MetaData, Table

models = MetaData()
Table("thing", models, Column("id", Integer, primary_key=True))

in_schema = MetaData(schema="stock")
Table("thing", in_schema, Column("id", Integer, primary_key=True))
