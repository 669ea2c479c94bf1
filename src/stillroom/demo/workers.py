"""Several processes that serve customers at the same time, and the one that starts them and replaces those that die."""

from __future__ import annotations

import multiprocessing
import signal
from collections import deque
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any

from stillroom import Settings
from stillroom.demo.customers import accident
from stillroom.demo.problems import DemoError
from stillroom.demo.shop import Receipt, Request, dbs, place_order, reason, report_death

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from multiprocessing.context import SpawnProcess

__all__ = ["Failure", "Trade", "trade"]

# Nothing is heard of any process for so many seconds: then something hangs.
SILENCE = 60.0


@dataclass(frozen=True)
class Failure:
    """
    What the customer gets instead of a receipt.

    Attributes:
        request: Which request it answers.
        reason: Why.
    """

    request: int
    reason: str


@dataclass
class Trade:
    """
    What became of the requests, as far as the customers know.

    Attributes:
        requests: What was asked for.
        receipts: What was acknowledged.
        failures: What was refused, or went wrong.
        died: The requests that killed the process which worked on them.
    """

    requests: list[Request]
    receipts: list[Receipt] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    died: list[Request] = field(default_factory=list)

    @property
    def settled(self) -> int:
        """
        How many requests have come to an end.
        """
        return len(self.receipts) + len(self.failures) + len(self.died)


def work(settings: dict[str, Any], requests: list[Request], answers: Connection) -> None:
    """
    Serve requests, one after the other: what each of the processes does.

    Args:
        settings: Of the shop's databases; the process makes connections of its own.
        requests: What to serve.
        answers: Gets a receipt or a failure for each.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one that started us
    dbs.configure(Settings.from_mapping(settings, environ={}))
    for request in requests:
        try:
            place_order(request, answers.send, accident)
        except Exception as error:  # noqa: BLE001  # a server answers, whatever went wrong
            answers.send(Failure(request.id, reason(error)))
    dbs.close()


@dataclass
class Worker:
    """
    A process and the requests that it has not answered yet.
    """

    process: SpawnProcess
    waiting: deque[Request]


def trade(
    settings: dict[str, Any],
    requests: Sequence[Request],
    processes: int,
    progress: Callable[[int], object],
) -> Trade:
    """
    Serve requests by several processes at the same time.

    The processes are spawned, not forked: so the demo does the same on every platform, and a process that has only
    what it is given behaves like the servers of a real shop. One that dies is replaced, as a supervisor would.

    Args:
        settings: Of the shop's databases.
        requests: Dealt to the processes in turn.
        processes: How many.
        progress: Called with how many requests are settled.

    Raises:
        DemoError: The processes do not answer.
    """
    result = Trade(list(requests))
    shares = [deque(requests[start::processes]) for start in range(processes)]
    running = dict(_start(settings, share) for share in shares if share)
    try:
        while running:
            ready = wait(list(running), timeout=SILENCE)
            if not ready:
                raise DemoError(f"nothing was heard of {len(running)} process(es) for {SILENCE:g} s; they were ended")
            for answers in ready:
                assert isinstance(answers, Connection)  # noqa: S101  # `wait` returns what it was given
                if not _receive(answers, running[answers], result):
                    running |= _replace(settings, running.pop(answers), result)
                progress(result.settled)
    finally:
        for worker in running.values():
            worker.process.terminate()
            worker.process.join()
    return result


def _start(settings: dict[str, Any], requests: deque[Request]) -> tuple[Connection, Worker]:
    context = multiprocessing.get_context("spawn")
    # A pipe for each: what a process sent before it died is there, and nobody waits for a lock that it held.
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=work, args=(settings, list(requests), theirs), daemon=True)
    process.start()
    theirs.close()  # now the process has the only other end, and its death is the end of the pipe
    return ours, Worker(process, requests)


def _receive(answers: Connection, worker: Worker, result: Trade) -> bool:
    """
    Take one answer; return False where the process has ended.
    """
    try:
        answer = answers.recv()
    except EOFError:
        answers.close()
        return False
    worker.waiting.popleft()
    if isinstance(answer, Receipt):
        result.receipts.append(answer)
    else:
        result.failures.append(answer)
    return True


def _replace(settings: dict[str, Any], worker: Worker, result: Trade) -> dict[Connection, Worker]:
    worker.process.join()
    if not worker.waiting:
        return {}
    killer = worker.waiting.popleft()
    result.died.append(killer)
    report_death(killer)
    return dict([_start(settings, worker.waiting)]) if worker.waiting else {}
