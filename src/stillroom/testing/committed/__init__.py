"""Isolation of tests that really commit: what they wrote is cleaned away, and seeds survive."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy.exc import SQLAlchemyError

from ..errors import TestingError
from .tracking import Tracker

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

    from stillroom import Database

    from ..leaks import Leak
    from .base import Cleaner

__all__ = ["Committed"]


class Committed:
    """
    Cleans one database after each test that really commits, so that the next one finds exactly the same rows.

    Which tables changed is asked of the database itself, so it does not matter who wrote: this process or another one,
    a trigger, COPY or a cascade. Rows that were there at the first `begin` (seeds) are put back if they were changed or
    deleted. The tables of migrations are left alone. Nothing is truncated, where a DELETE does the same.

    Args:
        database: The database; it is reached over a connection of its own.
        sequences: Put sequences back too, where that is cheap (PostgreSQL; on SQLite they always are).
    """

    def __init__(self, database: Database, *, sequences: bool = True) -> None:
        self.database = database
        self._tracker = Tracker(database)
        self._sequences = sequences
        self._cleaner: Cleaner | None = None

    def __repr__(self) -> str:
        return f"<Committed {self.database.name!r}>"

    def watch(self, engine: Engine) -> None:
        """
        Note who takes the connections of an engine, for the messages about those that are left open.
        """
        self._tracker.watch(engine)

    def begin(self) -> None:
        """
        Start a test. At the first one, note what the database holds.

        Raises:
            TestingError: The database cannot be read.
        """
        if self._cleaner is None:
            cleaner = self._make()
            try:
                cleaner.note()
            except BaseException:
                cleaner.close()
                raise
            self._cleaner = cleaner
        self._tracker.is_on = True

    def end(self) -> list[Leak]:
        """
        End a test: clean up after it.

        Returns:
            The transactions that were still open half a second after the test; they were ended, and rolled back.

        Raises:
            TestingError: The rows cannot be put back; the database must be made anew.
        """
        if self._cleaner is None or not self._tracker.is_on:
            return []
        self._tracker.is_on = False
        try:
            return self._cleaner.clean()
        except SQLAlchemyError as error:
            raise TestingError(
                f"the test database {self.database.name!r} could not be cleaned, and must be made anew: {error}"
            ) from error
        finally:
            self._tracker.clear()

    def forget(self) -> None:
        """
        Note anew at the next `begin` what the database holds, for it was made anew.
        """
        if self._cleaner is not None:
            self._cleaner.close()
            self._cleaner = None

    def close(self) -> None:
        """
        Close the connection.
        """
        self.forget()

    def _make(self) -> Cleaner:
        kind = self.database.backend.name
        if kind == "postgresql":
            from .postgresql import PostgreSQLCleaner

            return PostgreSQLCleaner(self.database, self._tracker, sequences=self._sequences)
        if kind == "sqlite":
            from .sqlite import SQLiteCleaner

            return SQLiteCleaner(self.database, self._tracker)
        from .mariadb import MariaDBCleaner

        return MariaDBCleaner(self.database, self._tracker)
