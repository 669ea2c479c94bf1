"""Progress bars for commands that take long."""

from __future__ import annotations

from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import Console

__all__ = ["progress_bars"]

EVERY = 0.1
"""Seconds between two drawings."""


@contextmanager
def progress_bars(console: Console) -> Iterator[Callable[[str, int, int], None]]:
    """
    Give a function that shows a bar for each thing that is done; nothing is shown where there is no terminal.

    Args:
        console: Where; not where the results go.
    """
    columns = (TextColumn("{task.description:<8}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    tasks: dict[str, TaskID] = {}
    shown = 0.0
    # Without a thread that draws: a process that has one cannot be forked safely.
    bars = Progress(*columns, console=console, transient=True, disable=not console.is_terminal, auto_refresh=False)
    with bars:

        def show(what: str, done: int, total: int) -> None:
            nonlocal shown
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done)
            if (now := monotonic()) - shown > EVERY or done == total:
                shown = now
                bars.refresh()

        yield show
