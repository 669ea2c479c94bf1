"""A transaction as the application sees it, inside of the shared one."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .actors import Actor, Place

_numbers = itertools.count(1)


class Transaction:
    """
    What one connection of the application takes for its transaction.

    Attributes:
        actor: Who runs it.
        test: The number of the test in which it began.
        place: Where it began to write; None before.
        admitted: It has its turn to write.
        layered: It has written, and is one of the shared transaction's layers.
        savepoint: The real savepoint from which it is undone.
        names: The application's savepoints in it, outermost first, with the real ones or None.
        failed: An error has aborted it, as the real server would have.
        committed: It was committed while an inner one was open, and ends with that.
        lost: Why what it wrote is gone; empty as long as it is not.
        settings: What SET LOCAL has set, by name.
        before: What these settings were before.
        read_only: It began READ ONLY.
        immediate: It has waited for its turn at its BEGIN, as SQLite's BEGIN IMMEDIATE does.
        statements: How often one of its statements has begun or ended, if `immediate`; odd while one runs.
        idle_at: The count of statements at which it was found to do nothing.
        has_read: It has read something before it wrote.
        stale: Who has written since, while others went ahead of it; empty as long as nobody has.
    """

    __slots__ = (
        "actor",
        "admitted",
        "before",
        "changes_schema",
        "committed",
        "failed",
        "has_read",
        "idle_at",
        "immediate",
        "layered",
        "lost",
        "mixed",
        "names",
        "number",
        "place",
        "read_only",
        "savepoint",
        "settings",
        "stale",
        "statements",
        "test",
    )

    def __init__(self, actor: Actor, test: int, *, read_only: bool = False) -> None:
        self.number = next(_numbers)
        self.actor = actor
        self.test = test
        self.place: Place | None = None
        self.admitted = False
        self.layered = False
        self.savepoint = ""
        self.names: list[tuple[str, str | None]] = []
        self.failed = False
        self.committed = False
        self.changes_schema = False
        self.mixed = False
        self.lost = ""
        self.settings: dict[str, str] = {}
        self.before: dict[str, str] = {}
        self.read_only = read_only
        self.immediate = False
        self.statements = 0
        self.idle_at = -1
        self.has_read = False
        self.stale = ""
