"""What a revision sent so far, what of it would stay if it failed now, and what a killed process did of it before."""

from __future__ import annotations

import re
from contextlib import suppress
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from sqlalchemy import event

from stillroom.secrets import mask_text

from .applied import Unfinished
from .errors import UnfinishedRevision

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    from sqlalchemy import Connection

    from .applied import Log

__all__ = ["Watch"]

_SPACE = r"(?>(?:\s|--[^\n]*|/\*(?s:.*?)\*/)*)"
"""What may stand before a statement, comments included."""
_DDL = re.compile(
    rf"{_SPACE}(create|alter|drop|rename|truncate|grant|revoke|comment|analyze|optimize)\b", re.IGNORECASE
)
_READS = re.compile(rf"{_SPACE}(select|show|pragma|explain|describe|set)\b", re.IGNORECASE)
_CONCURRENT = re.compile(
    rf"{_SPACE}create\s+(?:unique\s+)?index\s+concurrently\s+(?:if\s+not\s+exists\s+)?(\S+)\s", re.IGNORECASE
)
LONGEST = 120
"""Characters of a statement that are shown."""

# What a statement was to make is there already, or what it was to take away is gone: it took effect before its process
# died. Of one that only makes something, what is missing says that it never could.
_THERE: set[object] = {"42P07", "42710", "42701", "42P06", 1007, 1050, 1060, 1061, 1826}
_GONE: set[object] = {"42704", "42P01", "42703", "3F000", 1008, 1051, 1054, 1091, 1146, 4161}
_TAKES_AWAY = re.compile(rf"{_SPACE}(?!create\b).*?\b(drop|rename|change|set\s+schema)\b", re.IGNORECASE | re.DOTALL)


class Watch:
    """
    Follows the statements of each revision, while it is entered.

    A statement that takes effect although its revision does not end (DDL on MariaDB, what runs outside of a
    transaction) is written down before it is sent. So the next process knows what a killed one did: it leaves out
    what is done, and sees whether the last statement is.

    Args:
        connection: The connection that migrates.
        log: Where it is written down.
        revisions: What runs, in order.
        committed: Is called with each revision that is durable.
        up: Revisions are run, not undone.
    """

    def __init__(
        self,
        connection: Connection,
        log: Log,
        revisions: list[str],
        committed: Callable[[str], None],
        *,
        up: bool = True,
    ) -> None:
        self.connection = connection
        self.ddl_commits = connection.dialect.name not in ("postgresql", "sqlite")
        self.committed = committed
        self.done: list[str] = []
        self.failing = ""
        self.in_autocommit = False
        self._log = log
        self._left = list(revisions)
        self._up = up
        self._before_us = _checked(log.unfinished(connection), revisions, up=up)
        self._digests: list[str] = []
        self._kept = 0
        self._ending: str | None = None
        self._is_committing = False
        self._how = "run"
        self._noting = False

    @property
    def kept(self) -> list[str]:
        """
        The statements of the revision under way that stay although it failed.
        """
        return self.done[: self._kept]

    @property
    def can_retry(self) -> bool:
        """
        Whether nothing of the revision under way can have stayed.
        """
        return not self._kept and not self.in_autocommit

    @property
    def resumes(self) -> bool:
        """
        Whether the revision under way goes on where a killed process stood: what stays of it is written down.
        """
        return self._before_us is not None

    def revision_done(self, revision: str) -> None:
        """
        Note that a revision ran; its commit comes next.
        """
        if self._left_out:
            raise UnfinishedRevision(
                f"{self._before_us} ({self._before_us.shown if self._before_us else ''}), and now has fewer statements "
                f"than it had; {_REMEDY}"
            )
        self._ending = revision

    def confirm(self) -> None:
        """
        Note that the revision whose COMMIT was sent is durable: nothing was raised since.
        """
        if not self._is_committing or self._ending is None:
            return
        self._is_committing = False
        self.failing = ""
        self.done.clear()
        self._digests.clear()
        self._before_us = None
        self._kept = 0
        self.committed(self._ending)
        self._left = self._left[1:]
        self._ending = None

    @property
    def _left_out(self) -> bool:
        """
        Whether statements of the killed process have not come by yet.
        """
        return self._before_us is not None and len(self._digests) < len(self._before_us.done)

    def _before(
        self,
        connection: Connection,
        cursor: Any,
        statement: str,
        parameters: Any,
        context: Any,
        many: bool,  # noqa: FBT001  # SQLAlchemy calls it so
    ) -> None:
        if self._noting:
            return
        self.failing = _shown(statement)
        self.in_autocommit = connection.get_execution_options().get("isolation_level") == "AUTOCOMMIT"
        self._how = "run"
        if self._ending is not None or _READS.match(statement):
            return
        is_ddl = _DDL.match(statement) is not None
        if self.ddl_commits and is_ddl:
            self._kept = len(self.done)  # the server commits what stands before it first, even if it then fails
        digest = sha256(f"{statement}{parameters!r}".encode()).hexdigest()[:16]
        self._how = self._seen_before(digest)
        self._digests.append(digest)
        if self._how == "run" and is_ddl and (self.in_autocommit or self.ddl_commits):
            self._note(connection, self._digests[:-1], digest)

    def _seen_before(self, digest: str) -> str:
        """
        Say what to do with the next statement: "run" it, "leave" it out, or "try" it, for it may be done.
        """
        state, position = self._before_us, len(self._digests)
        if state is None or position > len(state.done):
            return "run"
        if position == len(state.done):
            return "try" if digest == state.begun else "run"
        if digest != state.done[position]:
            raise UnfinishedRevision(
                f"{state} ({state.shown}), and its statement {position + 1} is another one now: {self.failing}; "
                f"{_REMEDY}"
            )
        return "leave"

    def _instead(self, cursor: Any, statement: str, *rest: Any) -> bool:
        """
        Take the place of the driver where a statement is done already.
        """
        if self._noting or self._how == "run":
            return False
        if self._how == "leave":
            return True
        parameters = () if len(rest) < 2 or not rest[0] else (rest[0],)
        try:
            cursor.execute(statement, *parameters)
        except Exception as error:
            if not _done_before(statement, error):
                raise
            if (index := _CONCURRENT.match(statement)) and not _is_valid(cursor, index[1]):
                cursor.execute(f"drop index concurrently {index[1]}")
                cursor.execute(statement, *parameters)
        return True

    def _after(self, connection: Connection, cursor: Any, statement: str, *_: Any) -> None:
        if self._noting:
            return
        shown, self.failing = self.failing, ""
        if _READS.match(statement):
            return
        self.done.append(shown)
        is_ddl = _DDL.match(statement) is not None
        if self.in_autocommit or (self.ddl_commits and is_ddl) or self._how == "leave":
            self._kept = len(self.done)
        if self.in_autocommit and not is_ddl and self._ending is None:
            self._note(connection, self._digests, None)

    def _note(self, connection: Connection, done: list[str], begun: str | None) -> None:
        self._noting = True
        try:
            self._log.note(
                connection, Unfinished(self._left[0], self._up, tuple(done), begun, self.failing or self.done[-1])
            )
        finally:
            self._noting = False

    def _begins(self, connection: Connection) -> None:
        self.confirm()

    def _commits(self, connection: Connection) -> None:
        if self._ending is None:
            self._kept = len(self.done)
            if self._digests and self._how == "run" and not self.failing:
                self._note(connection, self._digests, None)  # in the transaction that is committed here
            return
        self._is_committing = True  # it may fail yet, as with a constraint that is checked last
        self.failing = "COMMIT"

    def _listeners(self) -> dict[str, Any]:
        return {
            "before_cursor_execute": self._before,
            "after_cursor_execute": self._after,
            "begin": self._begins,
            "commit": self._commits,
        }

    def __enter__(self) -> Self:
        for name, listener in self._listeners().items():
            event.listen(self.connection, name, listener)
        if self._before_us is not None:
            for name in ("do_execute", "do_execute_no_params"):
                event.listen(self.connection.engine, name, self._instead)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for name, listener in self._listeners().items():
            event.remove(self.connection, name, listener)
        for name in ("do_execute", "do_execute_no_params"):
            with suppress(Exception):  # it was not listened for
                event.remove(self.connection.engine, name, self._instead)


_REMEDY = (
    "put the revision's old text back and run it again; or do by hand what is missing and say so with `stillroom stamp`"
)


def _checked(state: Unfinished | None, revisions: list[str], *, up: bool) -> Unfinished | None:
    """
    Return what a killed process left.

    Raises:
        UnfinishedRevision: It is not what runs next.
    """
    if state is not None and (state.up != up or state.revision != revisions[0]):
        way = "upgrade" if state.up else "downgrade"
        raise UnfinishedRevision(f"{state} ({state.shown}); finish that first with `stillroom {way}`")
    return state


def _done_before(statement: str, error: Exception) -> bool:
    codes = {getattr(error, "sqlstate", None), *(each for each in error.args if isinstance(each, int))}
    expected = _THERE | _GONE if _TAKES_AWAY.match(statement) else _THERE
    return not expected.isdisjoint(codes)


def _is_valid(cursor: Any, index: str) -> bool:
    """
    Say whether an index is whole: a process that was ended while it made one concurrently leaves it invalid.
    """
    quoted = index.replace("'", "''")
    cursor.execute(f"select indisvalid from pg_index where indexrelid = to_regclass('{quoted}')")
    row = cursor.fetchone()
    return row is None or bool(row[0])


def _shown(statement: str) -> str:
    return mask_text(" ".join(statement.split()))[:LONGEST]
