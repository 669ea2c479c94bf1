"""Writes down what the shop's databases are sent, for the one unit of work that the demo shows."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Any

from sqlalchemy import event

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stillroom import Databases

__all__ = ["Recording", "Sent", "record"]


@dataclass
class Sent:
    """
    One statement, or the begin or end of a transaction.

    Attributes:
        database: The name of the database.
        text: What was sent.
        at: When, in milliseconds since the first one.
        took: How long the statement took, in milliseconds; None for the ends of transactions.
    """

    database: str
    text: str
    at: float
    took: float | None = None


@dataclass
class Recording:
    """
    What was sent, in order.
    """

    sent: list[Sent] = field(default_factory=list)
    started: float = field(default_factory=perf_counter)

    def add(self, database: str, text: str) -> None:
        """
        Write down what is being sent.
        """
        now = perf_counter()
        if not self.sent:
            self.started = now
        self.sent.append(Sent(database, " ".join(text.split()), 1000 * (now - self.started)))

    def finish(self) -> None:
        """
        Write down that the answer has come.
        """
        last = self.sent[-1]
        last.took = 1000 * (perf_counter() - self.started) - last.at


@contextmanager
def record(databases: Databases) -> Iterator[Recording]:
    """
    Record everything that this process sends to `databases` inside the block.
    """
    recording = Recording()
    with ExitStack() as stack:
        for name in databases:
            for engine in (databases[name].engine, databases[name].reader_engine):
                for what, listener in _listeners(name, recording).items():
                    event.listen(engine, what, listener)
                    stack.callback(event.remove, engine, what, listener)
        yield recording


def _listeners(name: str, recording: Recording) -> dict[str, Any]:
    def statement(connection: Any, cursor: Any, text: str, *_: Any) -> None:
        recording.add(name, text)

    def answer(*_: Any) -> None:
        recording.finish()

    def begin(connection: Any) -> None:
        recording.add(name, "BEGIN")

    def commit(connection: Any) -> None:
        recording.add(name, "COMMIT")

    def rollback(connection: Any) -> None:
        recording.add(name, "ROLLBACK")

    return {
        "before_cursor_execute": statement,
        "after_cursor_execute": answer,
        "begin": begin,
        "commit": commit,
        "rollback": rollback,
    }
