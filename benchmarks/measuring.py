"""
Measuring fairly on a machine that is not quiet: interleaved rounds, and medians of ratios within a round.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

LONGEST = 20.0
"""Seconds after which a comparison ends with the round that runs."""
FEWEST = 2
"""Rounds that a comparison has at least."""

Work = Callable[[], object]
AsyncWork = Callable[[], Awaitable[object]]


@dataclass(frozen=True)
class Measured:
    """
    What one way cost.

    Attributes:
        name: of the way.
        cpu: process CPU time, as a ratio to the first way: the median of the rounds.
        wall: time on the clock, likewise.
        cpu_microseconds: process CPU time of one piece of work: the median of the rounds.
        wall_microseconds: time on the clock, likewise.
        spread: the half between the quarters of the CPU ratios (interquartile range).
    """

    name: str
    cpu: float
    wall: float
    cpu_microseconds: float
    wall_microseconds: float
    spread: float


Sample = tuple[float, float]
"""CPU and wall seconds of one batch."""


def compare(ways: Sequence[tuple[str, Work]], *, rounds: int, batch: int) -> list[Measured]:
    """
    Measure ways of doing the same; the first one is the measure of the others.

    Each round runs a batch of every way, and begins with another way than the round before. Ratios are taken within a
    round, so what disturbs the machine for longer than a round disturbs all ways alike. The garbage collector is on,
    is run before each batch, and does not look at what was there before the first round.

    Args:
        ways: names and what to measure.
        rounds: how many.
        batch: how many pieces of work in each.
    """
    for _, work in ways:
        for _ in range(max(3, batch // 2)):
            work()
    samples: list[list[Sample]] = [[] for _ in ways]
    with _frozen():
        for position in _order(len(ways), rounds):
            work = ways[position][1]
            gc.collect()
            wall, cpu = time.perf_counter(), time.process_time()
            for _ in range(batch):
                work()
            samples[position].append((time.process_time() - cpu, time.perf_counter() - wall))
    return _evaluate([name for name, _ in ways], samples, batch)


async def compare_async(ways: Sequence[tuple[str, AsyncWork]], *, rounds: int, batch: int) -> list[Measured]:
    """
    Same as `compare`, but for asyncio.
    """
    for _, work in ways:
        for _ in range(max(3, batch // 2)):
            await work()
    samples: list[list[Sample]] = [[] for _ in ways]
    with _frozen():
        for position in _order(len(ways), rounds):
            work = ways[position][1]
            gc.collect()
            await asyncio.sleep(0)
            wall, cpu = time.perf_counter(), time.process_time()
            for _ in range(batch):
                await work()
            samples[position].append((time.process_time() - cpu, time.perf_counter() - wall))
    return _evaluate([name for name, _ in ways], samples, batch)


def _order(ways: int, rounds: int) -> Iterator[int]:
    end = time.monotonic() + LONGEST
    for number in range(rounds):
        if number >= FEWEST and time.monotonic() > end:
            return  # on a busy machine fewer rounds rather than a longer wait
        turn = [(number + offset) % ways for offset in range(ways)]
        # Every second round backwards: otherwise the same way would always come after the same other one.
        yield from turn if number % 2 else reversed(turn)


class _frozen:  # noqa: N801  # used like a function, as contextlib's own
    """
    The same state of the garbage collector for everything inside the block.
    """

    def __enter__(self) -> None:
        gc.collect()
        gc.freeze()
        gc.enable()

    def __exit__(self, *_: object) -> None:
        gc.unfreeze()


def _evaluate(names: Sequence[str], samples: Sequence[Sequence[Sample]], batch: int) -> list[Measured]:
    base = samples[0]
    measured = []
    for name, mine in zip(names, samples, strict=True):
        ratios = [one[0] / other[0] for one, other in zip(mine, base, strict=True)]
        quarters = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else [ratios[0]] * 3
        measured.append(
            Measured(
                name=name,
                cpu=statistics.median(ratios),
                wall=statistics.median(one[1] / other[1] for one, other in zip(mine, base, strict=True)),
                cpu_microseconds=statistics.median(one[0] for one in mine) / batch * 1e6,
                wall_microseconds=statistics.median(one[1] for one in mine) / batch * 1e6,
                spread=quarters[2] - quarters[0],
            )
        )
    return measured


def percentile(values: Sequence[float], share: float) -> float:
    """
    Return the value that `share` (0 to 1) of the values do not exceed.
    """
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
