"""
Does every thread and every task get its turn when there are fewer connections than them?
"""

from __future__ import annotations

import asyncio
import statistics
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import create_async_engine

from stillroom import Database
from stillroom.settings import Settings

from .measuring import percentile
from .report import Figure, Result, Scale, Table

if TYPE_CHECKING:
    from collections.abc import Sequence

WORKERS = 32
WORK = 0.002
"""Seconds that each turn holds its connection."""
MEMORY = "file:/stillroom-benchmark?vfs=memdb&uri=true"
_FAIRNESS_BAR = 2
_THROUGHPUT_BAR = 0.95

Checkout = Callable[[], AbstractContextManager[Any]]


@dataclass
class Turns:
    """
    What came of one run.

    Attributes:
        turns: of each worker.
        waits: seconds, of all turns.
        seconds: that the run took.
    """

    turns: list[int]
    waits: list[float]
    seconds: float

    @property
    def throughput(self) -> float:
        """
        Turns of all workers in a second.
        """
        return sum(self.turns) / self.seconds


def run(scale: Scale) -> Result:
    """
    Measure threads, then tasks, on few and on more connections.
    """
    result = Result()
    seconds, rounds = scale.pick(150, 20) / 100, scale.pick(3, 1)
    for connections in (2, 8):
        plain, ours = [], []
        for _ in range(rounds):
            plain.append(_threads_on_sqlalchemy(connections, seconds))
            ours.append(_threads_on_stillroom(connections, seconds))
        _report(result, "threads", connections, plain, ours)
    for connections in (2, 8):
        plain, ours = [], []
        for _ in range(rounds):
            plain.append(asyncio.run(_tasks_on_sqlalchemy(connections, seconds)))
            ours.append(asyncio.run(_tasks_on_stillroom(connections, seconds)))
        _report(result, "tasks", connections, plain, ours)
    return result


def _database(connections: int) -> Database:
    settings = {"url": "sqlite://", "pool_size": connections, "max_overflow": 0, "pool_timeout": 30.0}
    return Database(Settings.from_mapping({"databases": {"main": settings}}, environ={})["main"])


def _threads_on_sqlalchemy(connections: int, seconds: float) -> Turns:
    from sqlalchemy.pool import QueuePool

    engine = create_engine(f"sqlite:///{MEMORY}", poolclass=QueuePool, pool_size=connections, max_overflow=0)
    try:
        return _threads(engine.connect, seconds)
    finally:
        engine.dispose()


def _threads_on_stillroom(connections: int, seconds: float) -> Turns:
    database = _database(connections)
    try:
        return _threads(database.engine.connect, seconds)
    finally:
        database.close()


def _threads(checkout: Checkout, seconds: float) -> Turns:
    turns, waits = [0] * WORKERS, [list[float]() for _ in range(WORKERS)]
    gate = threading.Barrier(WORKERS + 1)
    end = 0.0

    def work(number: int) -> None:
        gate.wait()
        while (start := time.perf_counter()) < end:
            with checkout():
                waits[number].append(time.perf_counter() - start)
                time.sleep(WORK)
            turns[number] += 1

    threads = [threading.Thread(target=work, args=(number,)) for number in range(WORKERS)]
    for thread in threads:
        thread.start()
    start = time.perf_counter()
    end = start + seconds
    gate.wait()
    for thread in threads:
        thread.join()
    return Turns(turns, [wait for mine in waits for wait in mine], time.perf_counter() - start)


async def _tasks_on_sqlalchemy(connections: int, seconds: float) -> Turns:
    from sqlalchemy.pool import AsyncAdaptedQueuePool

    engine = create_async_engine(
        f"sqlite+aiosqlite:///{MEMORY}", poolclass=AsyncAdaptedQueuePool, pool_size=connections, max_overflow=0
    )
    try:
        return await _tasks(engine.connect, seconds)
    finally:
        await engine.dispose()


async def _tasks_on_stillroom(connections: int, seconds: float) -> Turns:
    database = _database(connections)
    try:
        return await _tasks(database.async_engine.connect, seconds)
    finally:
        await database.async_engine.dispose()
        database.close()


async def _tasks(checkout: Callable[[], Any], seconds: float) -> Turns:
    turns, waits = [0] * WORKERS, list[float]()
    begin = time.perf_counter()
    end = begin + seconds

    async def work(number: int) -> None:
        while (start := time.perf_counter()) < end:
            async with checkout():
                waits.append(time.perf_counter() - start)
                await asyncio.sleep(WORK)
            turns[number] += 1

    working: list[Awaitable[None]] = [work(number) for number in range(WORKERS)]
    await asyncio.gather(*working)
    return Turns(turns, waits, time.perf_counter() - begin)


def _report(result: Result, kind: str, connections: int, plain: Sequence[Turns], ours: Sequence[Turns]) -> None:
    # The others each have one turn before me, at the pace of SQLAlchemy's pool on this machine.
    fair = (WORKERS - connections) / statistics.median(run.throughput for run in plain)
    rows: list[tuple[object, ...]] = []
    for name, runs in (("SQLAlchemy", plain), ("Stillroom", ours)):
        late = statistics.median(percentile(run.waits, 0.99) for run in runs)
        rows.append(
            (
                name,
                min(min(run.turns) for run in runs),
                max(max(run.turns) for run in runs),
                statistics.median(percentile(run.waits, 0.5) for run in runs) * 1000,
                late * 1000,
                late / fair,
                round(max(max(run.waits) for run in runs) * 1000),
                round(statistics.median(run.throughput for run in runs)),
            )
        )
    throughput = statistics.median(one.throughput / other.throughput for one, other in zip(ours, plain, strict=True))
    what = f"{WORKERS} {kind} on {connections} connections"
    result.tables.append(
        Table(
            f"{what}, work of {WORK * 1000:g} ms; a fair wait is {fair * 1000:.1f} ms",
            ("pool", "fewest turns", "most", "p50 ms", "p99 ms", "p99/fair", "worst ms", "turns/s"),
            rows,
        )
    )
    late = statistics.median(percentile(run.waits, 0.99) for run in ours)
    result.figures.append(Figure(f"{what}, p99 of the wait to the fair share", late / fair, _FAIRNESS_BAR))
    if kind == "threads":  # tasks share one processor: there the same figure is the CPU of an empty checkout
        result.figures.append(Figure(f"{what}, throughput", throughput, _THROUGHPUT_BAR, "at least"))
