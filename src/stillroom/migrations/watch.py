"""What a revision sent so far, and what of it would stay if it failed now."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from sqlalchemy import event

from stillroom.secrets import mask_text

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    from sqlalchemy import Connection

__all__ = ["Watch"]

_DDL = re.compile(r"\s*(create|alter|drop|rename|truncate|grant|revoke|comment|analyze|optimize)\b", re.IGNORECASE)
_READS = re.compile(r"\s*(select|show|pragma|explain|describe|set)\b", re.IGNORECASE)
LONGEST = 120
"""Characters of a statement that are shown."""


class Watch:
    """
    Follows the statements of each revision, while it is entered.

    Args:
        connection: The connection that migrates.
        committed: Is called with each revision that is durable.
    """

    def __init__(self, connection: Connection, committed: Callable[[str], None]) -> None:
        self.connection = connection
        self.ddl_commits = connection.dialect.name not in ("postgresql", "sqlite")
        self.committed = committed
        self.done: list[str] = []
        self.failing = ""
        self.in_autocommit = False
        self._kept = 0
        self._ending: str | None = None

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

    def revision_done(self, revision: str) -> None:
        """
        Note that a revision ran; its commit comes next.
        """
        self._ending = revision

    def _before(self, connection: Connection, cursor: Any, statement: str, *_: Any) -> None:
        self.failing = _shown(statement)
        self.in_autocommit = connection.get_execution_options().get("isolation_level") == "AUTOCOMMIT"
        if self.ddl_commits and _DDL.match(statement):
            self._kept = len(self.done)  # the server commits what stands before it first, even if it then fails

    def _after(self, connection: Connection, cursor: Any, statement: str, *_: Any) -> None:
        self.failing = ""
        if _READS.match(statement):
            return
        self.done.append(_shown(statement))
        if self.in_autocommit or (self.ddl_commits and _DDL.match(statement)):
            self._kept = len(self.done)

    def _committed(self, connection: Connection) -> None:
        if self._ending is None:
            self._kept = len(self.done)
            return
        self.done.clear()
        self._kept = 0
        self.committed(self._ending)
        self._ending = None

    def _listeners(self) -> dict[str, Any]:
        return {
            "before_cursor_execute": self._before,
            "after_cursor_execute": self._after,
            "commit": self._committed,
        }

    def __enter__(self) -> Self:
        for name, listener in self._listeners().items():
            event.listen(self.connection, name, listener)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for name, listener in self._listeners().items():
            event.remove(self.connection, name, listener)


def _shown(statement: str) -> str:
    return mask_text(" ".join(statement.split()))[:LONGEST]
