"""
What an application's models are made of: bases, column types, mixins and finder methods.
"""

from __future__ import annotations

from stillroom.models.base import DATABASE_KEY, ModelBase, database_of, make_base
from stillroom.models.columns import DecimalNumber, UTCDateTime, UTCNow, annotation_types
from stillroom.models.describe import describe, secret_columns, to_dict
from stillroom.models.mixins import SoftDelete, Timestamps, UUIDKey, Version
from stillroom.models.naming import NAMING_CONVENTION
from stillroom.models.problems import ColumnsNotLoaded, InexactDecimal, InvalidModel, NaiveDatetime, UnknownColumn
from stillroom.models.query import AsyncQueryMixin, QueryMixin, SelectMixin, SupportsSession, session_of
from stillroom.models.uuid7 import uuid7
from stillroom.models.views import View, view, view_sql, views_of

__all__ = [
    "DATABASE_KEY",
    "NAMING_CONVENTION",
    "AsyncQueryMixin",
    "ColumnsNotLoaded",
    "DecimalNumber",
    "InexactDecimal",
    "InvalidModel",
    "ModelBase",
    "NaiveDatetime",
    "QueryMixin",
    "SelectMixin",
    "SoftDelete",
    "SupportsSession",
    "Timestamps",
    "UTCDateTime",
    "UTCNow",
    "UUIDKey",
    "UnknownColumn",
    "Version",
    "View",
    "annotation_types",
    "database_of",
    "describe",
    "make_base",
    "secret_columns",
    "session_of",
    "to_dict",
    "uuid7",
    "view",
    "view_sql",
    "views_of",
]
