"""What a test left open at its end."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Leak"]


@dataclass(frozen=True)
class Leak:
    """
    A transaction that a test left open.

    Attributes:
        database: The name of the database.
        who: The session, connection, thread or task that held it.
        where: The line that opened it, or what it had last sent.
    """

    database: str
    who: str
    where: str

    def __str__(self) -> str:
        return f"{self.database!r}: {self.who}, {self.where}"
