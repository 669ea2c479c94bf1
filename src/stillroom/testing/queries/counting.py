"""Assertions on how many statements a block of code sends."""

from __future__ import annotations

import contextlib
from collections import Counter
from typing import TYPE_CHECKING

from ..errors import TooManyQueries
from .recording import Counted, count_queries

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from stillroom import Databases

    from .recording import Query

__all__ = ["assert_max_queries", "assert_queries", "listing"]


@contextlib.contextmanager
def assert_queries(databases: Databases, total: int | None = None, /, **expected: int) -> Iterator[Counted]:
    """
    Assert that the block sends exactly so many statements.

    ::

        with assert_queries(dbs, main=2, audit=0):
            show_orders()

    An exception that leaves the block goes on upwards, and nothing is asserted. See `count_queries` for what counts.

    Args:
        databases: The databases.
        total: How many, to all databases together.
        **expected: How many, for a database by name; those not named may be sent any number.

    Raises:
        TooManyQueries: There were more, or fewer; the message lists them, with the lines they come from.
        TypeError: Neither a total nor a database is given.
    """
    with _asserting(databases, total, expected, "exactly", lambda sent, number: sent == number) as counted:
        yield counted


@contextlib.contextmanager
def assert_max_queries(databases: Databases, total: int | None = None, /, **most: int) -> Iterator[Counted]:
    """
    Same as `assert_queries`, but fewer are fine.
    """
    with _asserting(databases, total, most, "at most", lambda sent, number: sent <= number) as counted:
        yield counted


@contextlib.contextmanager
def _asserting(
    databases: Databases,
    total: int | None,
    expected: Mapping[str, int],
    words: str,
    is_right: Callable[[int, int], bool],
) -> Iterator[Counted]:
    if total is None and not expected:
        raise TypeError("no number was given: pass a total, or one for each database, such as main=3")
    for name in expected:
        _ = databases[name]  # an error for a name that is not declared, before the block runs
    with count_queries(databases) as counted:
        yield counted
    sent = counted.by_database
    wrong = [
        f"{sent[name]} to {name!r}, expected {words} {number}"
        for name, number in expected.items()
        if not is_right(sent[name], number)
    ]
    if total is not None and not is_right(counted.total, total):
        wrong.append(f"{counted.total} in all, expected {words} {total}")
    if wrong:
        raise TooManyQueries(f"statements sent in the block: {'; '.join(wrong)}\n{listing(counted)}")


def listing(counted: Counted) -> str:
    """
    Return the statements as text, for each database, equal ones from one line together.
    """
    parts = []
    for name, number in counted.by_database.items():
        parts.append(f"{name!r}: {number} statement{'s' if number != 1 else ''}")
        groups: Counter[str] = Counter(_described(each) for each in counted.statements if each.database == name)
        parts += [f"  {times} x {described}" for described, times in groups.items()]
    return "\n".join(parts) or "no statement was sent"


def _described(query: Query) -> str:
    notes = []
    if query.role != "writer":
        notes.append(query.role)
    if query.load is not None:
        notes.append(f"{query.load.kind} load of {query.load.attribute}")
    if query.sets != 1:
        notes.append(f"{query.sets} sets of parameters")
    if query.failed:
        notes.append("failed")
    note = f" ({', '.join(notes)})" if notes else ""
    return f"{query.line or 'no line of the application'}{note}\n      {' '.join(query.text.split())}"
