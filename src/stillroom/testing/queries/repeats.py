"""Finds the statement that one line sends again and again, with other values (N+1)."""

from __future__ import annotations

import contextlib
import hashlib
import re
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import RepeatedQueries
from . import baseline as baselines
from .lines import application_line
from .recording import count_queries

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from pathlib import Path

    from stillroom import Databases

    from .lines import Line
    from .recording import Counted, Load, Query

__all__ = ["Repeat", "StaleBaseline", "assert_no_repeats", "normalized"]

_STRING = re.compile(r"'(?:[^']|'')*'")
_PLACEHOLDER = re.compile(r"%\(\w+\)s|%s|\$\d+|(?<![:\w]):\w+")
_CAST = re.compile(r"\?::\w+(\(\d+(,\s*\d+)?\))?(\[\])*")
_NUMBER = re.compile(r"(?<![\w.])\d+(\.\d+)?\b")
_LIST = re.compile(r"\(\s*\?(\s*,\s*\?)*\s*\)")
_LISTS = re.compile(r"\(\?\)(\s*,\s*\(\?\))+")


class StaleBaseline(UserWarning):
    """
    A baseline lists repeats that are gone.
    """


@dataclass(frozen=True)
class Repeat:
    """
    A statement that one line sent more often than it may.

    Attributes:
        database: The name of the database.
        line: The line; None where none of the application is behind it.
        text: The statement without its values.
        times: How often it was sent.
        load: What the ORM loaded by itself with it; None if it did not.
    """

    database: str
    line: Line | None
    text: str
    times: int
    load: Load | None = None

    @property
    def key(self) -> str:
        """
        What it is called in a baseline: the same when lines move, and on every backend.
        """
        digest = hashlib.sha256(self.text.encode()).hexdigest()[:12]
        return f"{self.database} {self.place} {digest}"

    @property
    def place(self) -> str:
        """
        The module and the function, as in "shop.views:list_orders".
        """
        return f"{self.line.module}:{self.line.function}" if self.line is not None else "?"

    @property
    def remedy(self) -> str:
        """
        What to do about it.
        """
        if self.load is not None and self.load.kind == "column":
            return (
                f"deferred or expired columns of {self.load.attribute} are loaded for one object after the other; "
                "load them with the query (undefer), or query the objects again with one statement"
            )
        if self.load is not None:
            how = "selectinload" if self.load.is_list else "joinedload"
            return (
                f"the relationship {self.load.attribute} is loaded for one object after the other; load it with the "
                f"query: .options({how}({self.load.attribute}))"
            )
        verb = self.text.partition(" ")[0].upper()
        if verb == "INSERT":
            return (
                "send the rows with one statement: session.execute(insert(...), [{...}, {...}]), or add them all and "
                "flush once"
            )
        if verb in ("UPDATE", "DELETE"):
            return f"send one {verb} for all rows: with where(column.in_(...)), or with a list of parameters"
        return "ask once for all of them: where(column.in_(...))"

    def __str__(self) -> str:
        where = self.line or "no line of the application"
        return f"{self.times} times to {self.database!r} from {where}\n      {self.text}\n      {self.remedy}"


@contextlib.contextmanager
def assert_no_repeats(
    databases: Databases,
    *,
    limit: int = 1,
    allow: Collection[str] = (),
    baseline: Path | None = None,
    name: str | None = None,
    update: bool = False,
) -> Iterator[Counted]:
    """
    Assert that in the block no line sends the same statement again and again, as a loop over objects does (N+1).

    ::

        with assert_no_repeats(dbs):
            show_orders()

    Statements are the same if they differ in values only. What one flush sends counts once, and so does what the ORM
    loads together with a query (selectinload). An exception that leaves the block goes on upwards, unchecked.

    Args:
        databases: The databases.
        limit: How often one line may send the same statement to one database.
        allow: Repeats that may be: a relationship ("Order.customer"), a function ("shop.views:list_orders"), or a part
            of the statement.
        baseline: A file with the known repeats of old code, which may go on; new ones fail.
        name: What the block is called in the baseline; None for its module and function.
        update: Write what is found into the baseline instead.

    Raises:
        RepeatedQueries: There are some; the message names the lines, the relationships and the remedies.
    """
    block = name or _here()
    with count_queries(databases) as counted:
        yield counted
    found = [each for each in _repeats(counted.statements, limit) if not _is_allowed(each, allow)]
    if baseline is not None and update:
        baselines.write(baseline, block, {each.key: _remark(each) for each in found})
        return
    if baseline is not None:
        known = baselines.read(baseline).get(block, {})
        gone = sorted(known.keys() - {each.key for each in found})
        found = [each for each in found if each.key not in known]
        if gone and not found:
            warnings.warn(_gone(baseline, block, gone), StaleBaseline, stacklevel=3)
    if found:
        lines = "\n".join(f"  {each}" for each in found)
        new = f", which {str(baseline)!r} does not list" if baseline is not None else ""
        raise RepeatedQueries(f"the same statement was sent again and again{new}:\n{lines}")


def _here() -> str:
    line = application_line()
    return f"{line.module}:{line.function}" if line is not None else "?"


def _remark(repeat: Repeat) -> str:
    return repeat.load.attribute if repeat.load is not None else repeat.text[:80]


def _gone(path: Path, block: str, keys: Iterable[str]) -> str:
    listed = "".join(f"\n  {key}" for key in keys)
    return f"{str(path)!r} lists repeats of {block} that are gone; take them out, or run with update=True:{listed}"


def _repeats(statements: Iterable[Query], limit: int) -> list[Repeat]:
    groups: dict[tuple[str, Line | None, str], list[Query]] = {}
    flushed = set()
    for query in statements:
        if query.load is not None and query.load.kind == "eager":
            continue  # it is the ORM that divides it into several statements, where the objects are many
        key = (query.database, query.line, normalized(query.text))
        if query.flush is not None:
            if (key, query.flush) in flushed:
                continue
            flushed.add((key, query.flush))
        groups.setdefault(key, []).append(query)
    return [
        Repeat(database, line, text, len(queries), queries[0].load)
        for (database, line, text), queries in groups.items()
        if len(queries) > limit
    ]


def _is_allowed(repeat: Repeat, allow: Collection[str]) -> bool:
    attribute = repeat.load.attribute if repeat.load is not None else None
    return any(each in (attribute, repeat.place) or each in repeat.text for each in allow)


def normalized(text: str) -> str:
    """
    Return a statement without its values, and with one of each list of them.
    """
    text = _PLACEHOLDER.sub("?", _STRING.sub("?", " ".join(text.split())))
    text = _LIST.sub("(?)", _NUMBER.sub("?", _CAST.sub("?", text)))
    return _LISTS.sub("(?)", text)
