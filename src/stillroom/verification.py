"""What became of a COMMIT whose answer was lost: asked of the server, never guessed."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Literal

from sqlalchemy.exc import SQLAlchemyError

if TYPE_CHECKING:
    from collections.abc import Callable

    from .backends import Marker, Outcome
    from .database import Database

logger = logging.getLogger("stillroom")

_FIRST_PAUSE = 0.01
_LONGEST_PAUSE = 1.0


@dataclass(frozen=True)
class Sleep:
    """
    Ask again after `seconds`.
    """

    seconds: float


@dataclass(frozen=True)
class Stop:
    """
    The question is settled, or given up ("unknown").
    """

    outcome: Literal["committed", "rolled back", "unknown"]


def decide(answer: Outcome | Literal["unreachable"], asked: int, elapsed: float, limit: float) -> Sleep | Stop:
    """
    Decide what follows an answer about a lost COMMIT.

    Args:
        answer: What the server said; "unreachable" if it did not.
        asked: How often it was asked.
        elapsed: Seconds since the first question.
        limit: Seconds after which to give up.
    """
    if answer in ("committed", "rolled back"):
        return Stop(answer)
    if answer == "unknown" or elapsed >= limit:
        return Stop("unknown")
    return Sleep(min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(asked, 10)))


def settle(
    database: Database, marker: Marker, sleep: Callable[[float], None], *, is_async: bool
) -> Literal["committed", "rolled back", "unknown"]:
    """
    Ask `database` what became of the transaction of `marker`, until it says so or its `commit_timeout` has passed.

    Args:
        database: The database that was committed to.
        marker: What was kept of the transaction.
        sleep: Waits for some seconds; in asyncio without blocking the loop.
        is_async: Ask over the asyncio engine, inside SQLAlchemy's greenlet.
    """
    start = monotonic()
    asked = 0
    while True:
        answer: Outcome | Literal["unreachable"]
        try:
            with database.control(is_async=is_async) as connection:
                answer = database.backend.outcome(connection, marker)
        except (SQLAlchemyError, OSError) as error:
            logger.warning("cannot ask %r for the outcome of a COMMIT yet: %s", database.name, type(error).__name__)
            answer = "unreachable"
        asked += 1
        step = decide(answer, asked, monotonic() - start, database.settings.commit_timeout or 30.0)
        if isinstance(step, Stop):
            return step.outcome
        sleep(step.seconds)
