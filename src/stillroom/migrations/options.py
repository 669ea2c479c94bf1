"""How patient a migration is, and whom it tells what it does."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Options"]


def _silent(*_: object) -> None:
    """
    Tell nobody.
    """


@dataclass(frozen=True)
class Options:
    """
    How patient a migration is, and whom it tells what it does.

    Attributes:
        wait: How long another process that migrates the same database is waited for, in seconds.
        lock_timeout: How long a statement waits for a lock, in seconds: so long everybody else waits behind it.
            MariaDB counts whole seconds; SQLite keeps the application's.
        retry_for: How long a revision that met such a lock is tried again as a whole, in seconds.
        notice: Is told, in a sentence, what is waited for.
        progress: Is told the database, how many revisions ran, and how many there are.
    """

    wait: float = 600.0
    lock_timeout: float = 0.2
    retry_for: float = 60.0
    notice: Callable[[str], None] = field(default_factory=lambda: _silent)
    progress: Callable[[str, int, int], None] = field(default_factory=lambda: _silent)
