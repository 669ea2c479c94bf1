"""
A program that writes to several databases in one unit of work and is killed at a given step of its two-phase commit.

Its argument is JSON: `settings`, `step` ("prepare:2": after the second call of that step) and `is_async`.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from stillroom import Databases, ending, two_phase
from tests.commits.worlds import Place

if TYPE_CHECKING:
    from collections.abc import Callable

STEPS: dict[str, tuple[Any, str]] = {
    "prepare": (two_phase, "_prepare"),
    "decide": (two_phase, "_decide"),
    "commit": (ending, "commit_session"),
    "finish": (two_phase, "_finish"),
}


def die_after(step: str) -> None:
    """
    Arrange for the process to be killed right after the n-th call of a step; "decide:0" is before its first.
    """
    name, _, number = step.partition(":")
    module, function = STEPS[name]
    original: Callable[..., Any] = getattr(module, function)
    left = int(number)

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        nonlocal left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        original(*args, **kwargs)
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    setattr(module, function, wrapper)


def write_everywhere(session: Any) -> None:
    """
    Insert a row into each database.
    """
    for name in session().info["unit_of_work"].databases:
        session(name).execute(text("INSERT INTO item VALUES (2)"))


def main() -> None:
    """
    Run the unit of work.
    """
    order = json.loads(sys.argv[1])
    dbs = Databases()
    dbs.configure(order["settings"])
    die_after(order["step"])
    with Place(dbs, is_async=order["is_async"]) as place:
        ended = place.unit(write_everywhere)
    sys.exit(f"it was not killed: {ended!r}")


if __name__ == "__main__":
    main()
