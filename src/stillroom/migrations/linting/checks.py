"""Applies the rules to what a revision does."""

from __future__ import annotations

import ast
import inspect
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from .actions import Action, is_ddl
from .rules import RULES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sqlalchemy import MetaData

    from .recording import Recording

__all__ = ["Found", "Validated", "check", "still_mapped"]

_LONGEST_NAME = {"postgresql": 63, "mysql": 64}
_CONSTRAINTS = ("add_fk", "add_check")
_IS_NOT_NULL = re.compile(r'^\W*"?(?P<column>\w+)"? is not null\W*(?:not valid)?$', re.IGNORECASE)


class Found(NamedTuple):
    """
    A rule that is broken, where, and by what.
    """

    rule: str
    line: int
    what: str


@dataclass(frozen=True)
class Validated:
    """
    The columns that a validated check keeps from being NULL, from the revisions before.

    Attributes:
        columns: Table and column of each.
    """

    columns: frozenset[tuple[str, str]] = frozenset()

    @classmethod
    def after(cls, recordings: Iterable[Recording]) -> Validated:
        """
        Read them from revisions, in order.
        """
        checks: dict[tuple[str, str], str] = {}
        valid: set[tuple[str, str]] = set()
        for action in (action for each in recordings for action in each.actions):
            place = (action.table, action.name)
            if action.kind == "add_check" and (found := _IS_NOT_NULL.match(action.other.strip())):
                checks[place] = found["column"]
                if "not_valid" not in action.flags:
                    valid.add(place)
            elif action.kind == "validate" and place in checks:
                valid.add(place)
            elif action.kind == "drop_constraint":
                valid.discard(place)
        return cls(frozenset((table, checks[table, name]) for table, name in valid))


def check(recording: Recording, backend: str, validated: Validated) -> Iterator[Found]:
    """
    Find what breaks a rule in a revision.

    Args:
        recording: What it does.
        backend: "postgresql", "mysql" or "sqlite".
        validated: What earlier revisions made sure of.
    """
    place = _Place(validated)
    for action in recording.actions:
        flags = place.flags(action)
        for rule in RULES.values():
            if rule.reason(backend) is not None and rule.fires(action, flags):
                yield Found(rule.id, action.line, action.text)
        if action.kind == "data" and "everything" in flags and "new" not in flags:
            yield Found("destructive-sql", action.line, action.text)
        for name in action.names:
            if _length(name, backend) > _LONGEST_NAME.get(backend, 1000):
                yield Found("identifier-too-long", action.line, f"{name!r} ({_length(name, backend)})")
        place.passed(action)
    yield from _of_the_whole(recording, backend, place)
    if recording.error:
        yield Found("unlintable", recording.line, recording.error)


def still_mapped(recordings: Iterable[Recording], metadata: MetaData) -> Iterator[tuple[Recording, Found]]:
    """
    Find tables and columns that revisions take away although the models have them.

    Args:
        recordings: The revisions up to the newest, in order: what a later one makes again is not lost.
        metadata: The models.
    """
    gone: dict[tuple[str, str], tuple[Recording, Action]] = {}
    for recording in recordings:
        for action in recording.actions:
            if action.kind in ("drop_table", "rename_table"):
                gone[action.table, ""] = (recording, action)
            elif action.kind in ("drop_column", "rename_column"):
                gone[action.table, action.name] = (recording, action)
            for back in _made(action):
                gone.pop(back, None)
            if action.kind in ("create_table", "rename_table"):
                made = action.table if action.kind == "create_table" else action.other
                gone = {place: each for place, each in gone.items() if place[0] != made}
    for (table, column), (recording, action) in gone.items():
        model = metadata.tables.get(table)
        if model is not None and (not column or any(each.name == column for each in model.columns)):
            yield recording, Found("still-mapped", action.line, f"{table}.{column}" if column else table)


def _made(action: Action) -> list[tuple[str, str]]:
    if action.kind == "add_column":
        return [(action.table, action.name)]
    return [(action.table, action.other)] if action.kind == "rename_column" else []


class _Place:
    """
    What came before an action in its revision.
    """

    def __init__(self, validated: Validated) -> None:
        self.validated = validated
        self.new: set[str] = set()
        self.new_indexes: set[str] = set()
        self.dropped_indexes: set[str] = set()
        self.constraints: set[tuple[str, str]] = set()

    def flags(self, action: Action) -> frozenset[str]:
        """
        Return an action's flags with those that its place gives it.
        """
        flags = set(action.flags)
        if action.table in self.new or (action.kind == "drop_index" and action.name in self.new_indexes):
            flags.add("new")
        if action.kind == "create_index" and action.name in self.dropped_indexes:
            flags.add("dropped_before")
        if action.kind == "validate" and (action.table, action.name) in self.constraints:
            flags.add("same_transaction")
        if action.kind == "set_not_null" and (action.table, action.name) in self.validated.columns:
            flags.add("checked")
        return frozenset(flags)

    def passed(self, action: Action) -> None:
        """
        Take note of an action.
        """
        if action.kind == "create_table":
            self.new.add(action.table)
        elif action.kind == "rename_table" and action.table in self.new:
            self.new.add(action.other)
        elif action.kind == "create_index" and action.table in self.new:
            self.new_indexes.add(action.name)
        elif action.kind == "drop_index":
            self.dropped_indexes.add(action.name)
        elif action.kind in _CONSTRAINTS and "autocommit" not in action.flags:
            self.constraints.add((action.table, action.name))


def _of_the_whole(recording: Recording, backend: str, place: _Place) -> Iterator[Found]:
    actions = recording.actions
    ddl = [each for each in actions if is_ddl(each)]
    data = [each for each in actions if each.kind == "data" and each.table not in place.new]
    beside = [each for each in ddl if each.table not in place.new]
    if backend in ("postgresql", "mysql") and data and beside:
        yield Found("data-change-in-ddl-revision", data[0].line, data[0].text)
    if backend == "postgresql":
        outside = [each for each in actions if "autocommit" in each.flags]
        if outside and len(outside) < len([each for each in actions if each.kind != "other"]):
            yield Found("mixed-transactional", outside[0].line, outside[0].text)
    statements = {each.statement: each for each in reversed(ddl)}
    if backend == "mysql" and len(statements) > 1:
        second = list(statements.values())[-2]
        yield Found("several-ddl-in-revision", second.line, f"{len(statements)} DDL statements")
    if actions and _does_nothing(recording):
        yield Found("no-downgrade", 1, "downgrade")


def _does_nothing(recording: Recording) -> bool:
    """
    Say whether a revision has no downgrade, or one that says nothing; one that raises says why there is none.
    """
    downgrade = getattr(recording.script.module, "downgrade", None)
    if downgrade is None:
        return True
    try:
        path = inspect.getsourcefile(downgrade) or recording.script.path
        tree = ast.parse(Path(path).read_text(encoding="utf-8"))
    except (OSError, TypeError, SyntaxError):
        return False
    function = next((each for each in ast.walk(tree) if getattr(each, "name", "") == downgrade.__name__), None)
    body = getattr(function, "body", [None])
    return all(isinstance(each, ast.Pass) or _is_constant(each) for each in body)


def _is_constant(node: ast.AST | None) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _length(name: str, backend: str) -> int:
    return len(name.encode()) if backend == "postgresql" else len(name)
