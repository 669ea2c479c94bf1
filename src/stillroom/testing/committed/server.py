"""Cleaning on a server: over one connection of its own, apart from the application's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy.exc import DBAPIError

from ..connection import Line, execute
from ..errors import TestingError
from .base import Cleaner

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from sqlalchemy.engine import Connection

    from stillroom import Database

    from .tracking import Tracker

__all__ = ["ATTEMPTS", "ENDING", "ServerCleaner", "rows"]

T = TypeVar("T")

ATTEMPTS = 3
"""How often cleaning is tried where the test has ended the connection, holds locks or has changed the tables."""
ENDING = 10.0
"""Seconds that the server may take to end a session."""
_PATIENCE = 60.0
"""Seconds that cleaning may take."""


class ServerCleaner(Cleaner):
    """
    Cleans a database in which the copies of the seeds are temporary tables: they end with the connection.
    """

    settings: tuple[str, ...]
    """What a new connection is set to."""

    def __init__(self, database: Database, tracker: Tracker) -> None:
        super().__init__(database, tracker)
        self._line = Line.to(
            database.settings,
            database.settings.url,
            database.name,
            f"{database.application} (cleaning)",
            patience=_PATIENCE,
        )
        self._has_copies = False

    def note(self) -> None:
        self._run(self._note)

    def _note(self, connection: Connection) -> None:
        raise NotImplementedError

    def close(self) -> None:
        self._line.close()
        self._has_copies = False

    def _run(self, work: Callable[[Connection], T]) -> T:
        try:
            if not self._has_copies:  # the connection is a new one
                self._line.execute(*self.settings)
            return self._line.run(work)
        except DBAPIError as error:
            if error.connection_invalidated:
                self.close()
            raise

    def _require_copies(self) -> None:
        """
        Refuse to put seeds back where their copies are gone.
        """
        if not self._has_copies:
            raise TestingError(
                f"the seeds of the test database {self.database.name!r} were changed, and the connection that kept "
                "their copies was ended by the test; the database must be made anew"
            )

    def _require_tables(self, seeded: Collection[Any], found: Collection[Any]) -> None:
        """
        Refuse to put seeds back where their tables are gone.
        """
        if not set(seeded) <= set(found):
            raise TestingError(
                f"the test dropped tables of {self.database.name!r} that hold seeds; the database must be made anew"
            )


def rows(connection: Connection, statement: str) -> list[Any]:
    """
    Send a question as it is, and return the rows.
    """
    return list(execute(connection, statement))
