"""Finds what is dangerous in revisions before they run, and measures what they really do."""

from __future__ import annotations

from .linter import Hazard, lint
from .rules import RULES, Rule
from .tracing import TakenLock, TracedStatement, trace

__all__ = ["RULES", "Hazard", "Rule", "TakenLock", "TracedStatement", "lint", "trace"]
