"""What cleaning is on every kind of database."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from stillroom import Database

    from ..leaks import Leak
    from .tracking import Tracker

__all__ = ["GRACE", "KEPT", "Cleaner", "wait_for"]

KEPT = ("alembic_version", "stillroom_migrations")
"""Tables that belong to the migrations, and are left alone."""

GRACE = 0.5
"""Seconds that a transaction may take to end after its test: a server may have answered before it has finished."""


class Cleaner:
    """
    Brings a database back to what it was at the first test.

    Args:
        database: The database.
        tracker: Knows who holds its connections.
    """

    def __init__(self, database: Database, tracker: Tracker) -> None:
        self.database = database
        self.tracker = tracker

    def note(self) -> None:
        """
        Take what the database holds now for what it shall hold at the start of every test.
        """
        raise NotImplementedError

    def clean(self) -> list[Leak]:
        """
        End the transactions that are open, and put all rows back as they were.

        Returns:
            The transactions.

        Raises:
            TestingError: It cannot be done; the database must be made anew.
        """
        raise NotImplementedError

    def close(self) -> None:
        """
        Give up what is kept.
        """


def wait_for(condition: Callable[[], bool], seconds: float) -> bool:
    """
    Wait until something holds, and say whether it does.
    """
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True
