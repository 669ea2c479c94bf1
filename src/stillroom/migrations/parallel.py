"""Many databases at a time: a few processes, for Alembic works on one database at a time in each."""

from __future__ import annotations

import gc
import os
import sys
import threading
import traceback
from collections import deque
from contextlib import ExitStack, suppress
from graphlib import TopologicalSorter
from multiprocessing import Pipe, get_context
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from .errors import MigrationError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess
    from typing import Self

__all__ = ["Workers", "usual_count"]

T = TypeVar("T")

PATIENCE = 5.0
"""Seconds in which a process that has hung up ends."""


def usual_count() -> int:
    """
    Return how many databases at a time there are if nobody says it: two for each CPU, for a migration often waits.
    """
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return 2 * (cpus or 1)


class Workers(Generic[T]):
    """
    Processes that call one function with one name at a time, while they are entered.

    One of them is a thread of this process, which is ready at once; the others may have to import everything first.

    Args:
        work: What they call: it and its results must pickle.
        count: How many; at least one.
        may_fork: This process has nothing open that a fork would share.
    """

    def __init__(self, work: Callable[[str], T], count: int, *, may_fork: bool) -> None:
        self._work = work
        self._count = count
        self._may_fork = may_fork
        self._workers: dict[Connection[Any, Any], BaseProcess | threading.Thread] = {}

    def __enter__(self) -> Self:
        process = _process(may_fork=self._may_fork)
        with ExitStack() as stack:
            stack.callback(self._end)
            for _ in range(self._count - 1):
                calls = self._begin(process)
                calls.close()  # the process has its own, so that its death is the end of the conversation
            self._begin(threading.Thread)  # the last: a fork would copy the locks that it holds
            stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def run(
        self, wanted: Sequence[str], needs: Mapping[str, Sequence[str]], done: Callable[[int], None]
    ) -> dict[str, T | Exception]:
        """
        Have the function called with each name, after those that it needs; the first failure starts no more.

        Args:
            wanted: The names.
            needs: What each name needs, for all there are.
            done: Is told how many names are done.

        Returns:
            What came of each name that was begun.
        """
        order = TopologicalSorter(needs)
        order.prepare()
        ready: deque[str] = deque()
        idle: list[Connection[Any, Any]] = []
        running: dict[Connection[Any, Any], str] = {}
        found: dict[str, T | Exception] = {}
        failed = False
        while True:
            while order.is_active() and (names := order.get_ready()):
                ready += [name for name in names if name in wanted]
                order.done(*(name for name in names if name not in wanted))
            while ready and idle and not failed:
                worker = idle.pop()
                running[worker] = ready.popleft()
                with suppress(OSError):  # it is dead, which shows below
                    worker.send(running[worker])
            if not running and (failed or not ready):
                return found
            answered = wait(list(self._workers))
            for worker in [each for each in self._workers if each in answered]:
                name, result = running.pop(worker, None), self._answer(worker)
                if worker in self._workers:
                    idle.append(worker)
                elif worker in idle:
                    idle.remove(worker)
                if name is None:  # it has begun, or died before it had anything to do
                    continue
                found[name] = result
                if isinstance(result, Exception):
                    failed = True
                else:
                    order.done(name)
                done(len(found))

    def _begin(self, kind: type[BaseProcess | threading.Thread]) -> Connection[Any, Any]:
        ours, theirs = Pipe()
        inherited = [*self._workers, ours] if kind is get_context("fork").Process else []
        worker = kind(target=_serve, args=(theirs, self._work, inherited))
        worker.start()
        self._workers[ours] = worker
        return theirs

    def _answer(self, worker: Connection[Any, Any]) -> Any:
        """
        Receive what a worker says; one that died is a worker no more.
        """
        try:
            return worker.recv()
        except (EOFError, OSError):
            gone = self._workers.pop(worker)
            worker.close()
        gone.join(PATIENCE)
        code = getattr(gone, "exitcode", None) or 0
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return MigrationError(f"the process that migrated it died ({how})")

    def _end(self) -> None:
        for worker in self._workers:
            worker.close()
        for each in self._workers.values():
            each.join()


def _process(*, may_fork: bool) -> type[BaseProcess]:
    """
    Say how processes begin: forked, which takes no time, or anew, which takes half a second of imports.

    A fork copies the locks that other threads hold, and nobody would give them back; macOS's libraries do not bear it.
    """
    alone = threading.active_count() == 1 and sys.platform == "linux"
    return get_context("fork").Process if may_fork and alone else get_context("spawn").Process


def _serve(calls: Connection[Any, Any], work: Callable[[str], T], inherited: Sequence[Connection[Any, Any]]) -> None:
    """
    Say that it begins, then call `work` with each name that comes, until whoever sends them is gone.

    Args:
        calls: Brings the names.
        work: What is called.
        inherited: The other ends of such connections, which a fork has too, and would outlive their owner here.
    """
    if inherited:
        gc.freeze()  # what it has of its parent is never garbage here, and each look at it would copy its memory
    for each in inherited:
        each.close()
    with calls, suppress(EOFError, OSError, KeyboardInterrupt):
        calls.send(None)
        while True:
            calls.send(_called(work, calls.recv()))


def _called(work: Callable[[str], T], name: str) -> T | Exception:
    try:
        return work(name)
    except Exception as error:  # noqa: BLE001  # it is raised where it is received
        error.add_note(traceback.format_exc())  # which does not pickle otherwise
        return error
    except BaseException as error:  # noqa: BLE001  # sys.exit() in a revision would end a thread without a word
        return MigrationError(f"it was interrupted by {error!r}")
