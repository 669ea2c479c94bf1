"""Test databases: made for a run and a worker from templates, and gone or kept at its end."""

from __future__ import annotations

from .marker import mark_environment
from .providing import TestDatabase, collect_garbage, provide

__all__ = ["TestDatabase", "collect_garbage", "mark_environment", "provide"]
