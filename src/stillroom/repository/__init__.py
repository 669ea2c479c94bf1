"""Repositories: read and write one model through a session, and never commit."""

from __future__ import annotations

from .filters import After, AnyOf, Before, Between, In, Not, NotIn, Search
from .paging import CursorPage, Page
from .paging.listing import Field, Limits, Listing, ListQuery
from .read_side import ReadRepository
from .results.sql import load_sql
from .write_side import Repository, WriteRepository

__all__ = [
    "After",
    "AnyOf",
    "Before",
    "Between",
    "CursorPage",
    "Field",
    "In",
    "Limits",
    "ListQuery",
    "Listing",
    "Not",
    "NotIn",
    "Page",
    "ReadRepository",
    "Repository",
    "Search",
    "WriteRepository",
    "load_sql",
]
