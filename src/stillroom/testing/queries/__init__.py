"""Assertions on what code sends to its databases: how many statements, and none again and again."""

from .counting import assert_max_queries, assert_queries
from .lines import Line
from .recording import Counted, Load, Query, count_queries
from .repeats import Repeat, StaleBaseline, assert_no_repeats

__all__ = [
    "Counted",
    "Line",
    "Load",
    "Query",
    "Repeat",
    "StaleBaseline",
    "assert_max_queries",
    "assert_no_repeats",
    "assert_queries",
    "count_queries",
]
