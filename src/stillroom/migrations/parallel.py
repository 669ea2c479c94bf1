"""Many databases at a time: a few processes, for Alembic works on one database at a time in each."""

from __future__ import annotations

import sys
import threading
from collections import deque
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from graphlib import TopologicalSorter
from multiprocessing import get_context
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from multiprocessing.context import BaseContext

__all__ = ["in_processes"]

T = TypeVar("T")


def _context(*, may_fork: bool) -> BaseContext:
    """
    Say how processes begin: forked, which takes no time, or anew, which takes half a second of imports.

    A fork copies the locks that other threads hold, and nobody would give them back; macOS's libraries do not bear it.
    """
    alone = threading.active_count() == 1 and sys.platform == "linux"
    return get_context("fork" if may_fork and alone else "spawn")


def in_processes(
    wanted: Sequence[str],
    needs: Mapping[str, Sequence[str]],
    work: Callable[[str], T],
    *,
    processes: int,
    done: Callable[[int], None],
    may_fork: bool,
) -> dict[str, T | Exception]:
    """
    Call `work` with each name, several at a time, each after those that it needs; the first failure starts no more.

    Args:
        wanted: The names.
        needs: What each name needs, for all there are.
        work: Called in other processes: it and its result must pickle.
        processes: How many, this one included.
        done: Is told how many names are done.
        may_fork: This process has nothing open that a fork would share.

    Returns:
        What came of each name that was begun.
    """
    order = TopologicalSorter(needs)
    order.prepare()
    ready: deque[str] = deque()
    running: dict[Future[T], str] = {}
    here: Future[T] | None = None
    found: dict[str, T | Exception] = {}
    failed = False
    others = min(processes, len(wanted)) - 1  # this process is one of them, and begins at once
    with (
        ProcessPoolExecutor(max(others, 1), mp_context=_context(may_fork=may_fork)) as pool,
        ThreadPoolExecutor(1) as thread,
    ):
        while True:
            while order.is_active() and (names := order.get_ready()):
                ready += [name for name in names if name in wanted]
                order.done(*(name for name in names if name not in wanted))
            while ready and len(running) < processes and not failed:
                name = ready.popleft()
                # The processes are forked at the first `submit`, so the thread is to begin after that.
                if here is None and (len(running) >= others or not ready):
                    future = here = thread.submit(work, name)
                else:
                    future = pool.submit(work, name)
                running[future] = name
            if not running:
                return found
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                name = running.pop(future)
                here = None if future is here else here
                error = future.exception()
                if isinstance(error, Exception):
                    found[name], failed = error, True
                else:
                    found[name] = future.result()
                    order.done(name)
                done(len(found))
