"""Rows, records and JSON, without mapped objects; plain SQL too."""

from __future__ import annotations

from .rows import json, records, rows

__all__ = ["json", "records", "rows"]
