"""What can go wrong with migrations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stillroom import StillroomError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .running import Outcome

__all__ = [
    "MigrationError",
    "MigrationLocked",
    "MigrationsFailed",
    "NoMigrations",
    "RevisionFailed",
    "RevisionRefused",
    "SqlNotWritten",
    "UnfinishedRevision",
    "UnknownRevision",
]


class MigrationError(StillroomError, RuntimeError):
    """
    A migration, or a question about one, failed.
    """


class NoMigrations(MigrationError, LookupError):
    """
    The settings name no directory of migrations.
    """


class UnknownRevision(MigrationError, LookupError):
    """
    A revision that was asked for is not in the directory of a database; no database was touched.
    """


class MigrationLocked(MigrationError, TimeoutError):
    """
    Another process migrates the database for longer than this one was willing to wait.
    """


class RevisionRefused(MigrationError, ValueError):
    """
    No revision was written, because it would not be what its author wants.
    """


class RevisionFailed(MigrationError):
    """
    A revision failed.

    Attributes:
        database: The name of the database.
        revision: The revision.
        kept: The statements of it that took effect and stay; empty where all of it was rolled back.
    """

    def __init__(self, message: str, *, database: str, revision: str, kept: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.database = database
        self.revision = revision
        self.kept = tuple(kept)


class UnfinishedRevision(MigrationError):
    """
    A process was killed in the midst of a revision, and what it left does not fit what is to run now.
    """


class SqlNotWritten(MigrationError):
    """
    The SQL of an upgrade could not be written for some databases: a revision asks the database before it knows.

    Attributes:
        texts: The SQL of the others, by database.
    """

    def __init__(self, message: str, *, texts: Mapping[str, str]) -> None:
        super().__init__(message)
        self.texts = dict(texts)


class MigrationsFailed(MigrationError):
    """
    One of several databases could not be migrated, and those after it were left alone.

    Attributes:
        outcomes: What became of each database, in order.
    """

    def __init__(self, message: str, *, outcomes: Sequence[Outcome]) -> None:
        super().__init__(message)
        self.outcomes = tuple(outcomes)
