"""Many databases at a time: a few processes, for Alembic works on one database at a time in each."""

from __future__ import annotations

from collections import deque
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from graphlib import TopologicalSorter
from multiprocessing import get_context
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["in_processes"]

T = TypeVar("T")


def in_processes(
    wanted: Sequence[str],
    needs: Mapping[str, Sequence[str]],
    work: Callable[[str], T],
    *,
    processes: int,
    done: Callable[[int], None],
) -> dict[str, T | Exception]:
    """
    Call `work` with each name, several at a time, each after those that it needs; the first failure starts no more.

    Args:
        wanted: The names.
        needs: What each name needs, for all there are.
        work: Called in other processes: it and its result must pickle.
        processes: How many.
        done: Is told how many names are done.

    Returns:
        What came of each name that was begun.
    """
    order = TopologicalSorter(needs)
    order.prepare()
    ready: deque[str] = deque()
    running: dict[Future[T], str] = {}
    found: dict[str, T | Exception] = {}
    failed = False
    # A fork would take along what this process has open, and the threads' locks as they are.
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        while True:
            while order.is_active() and (names := order.get_ready()):
                ready += [name for name in names if name in wanted]
                order.done(*(name for name in names if name not in wanted))
            while ready and len(running) < processes and not failed:
                name = ready.popleft()
                running[pool.submit(work, name)] = name
            if not running:
                return found
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                name = running.pop(future)
                error = future.exception()
                if isinstance(error, Exception):
                    found[name], failed = error, True
                else:
                    found[name] = future.result()
                    order.done(name)
                done(len(found))
