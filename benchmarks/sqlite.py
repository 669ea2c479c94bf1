"""
How many of the read-modify-writes of four processes on one SQLite file survive, and how fast are they?
"""

from __future__ import annotations

import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from stillroom import Database

from .measuring import LONGEST
from .report import Figure, Result, Scale, Table
from .workload import Item, fill

PROCESSES = 4
_BAR = 1.5
_PATIENCE = 60.0

Unit = Callable[[], None]


@dataclass(frozen=True)
class Outcome:
    """
    What came of one run.
    """

    committed: int
    lost: int
    errors: int
    seconds: float

    @property
    def throughput(self) -> float:
        """
        Units that were committed and not lost, in a second.
        """
        return self.committed / self.seconds


def run(scale: Scale) -> Result:
    """
    Let processes count on one file, in three ways.
    """
    units, rounds = scale.pick(500, 10), scale.pick(2, 1)
    runs: dict[str, list[Outcome]] = {name: [] for name in WAYS}
    end = time.monotonic() + LONGEST
    for number in range(rounds):
        if number and time.monotonic() > end:
            rounds = number  # on a slow disk one round says enough
            break
        for name, outcomes in runs.items():
            outcomes.append(_measure(name, units))
    base = runs["SQLAlchemy's defaults"]
    rows: list[tuple[object, ...]] = []
    for name, outcomes in runs.items():
        ratio = statistics.median(
            mine.throughput / other.throughput for mine, other in zip(outcomes, base, strict=True)
        )
        rows.append(
            (
                name,
                sum(each.committed for each in outcomes),
                sum(each.lost for each in outcomes),
                sum(each.errors for each in outcomes),
                round(statistics.median(each.throughput for each in outcomes)),
                ratio,
            )
        )
    ours = rows[-1]
    assert isinstance(ours[5], float)
    wanted = rounds * PROCESSES * units
    return Result(
        tables=[
            Table(
                f"{PROCESSES} processes of {units} read-modify-writes on one file, {rounds} times",
                ("way", "committed", "lost", "errors", "commits/s", "ratio"),
                rows,
            )
        ],
        figures=[
            Figure("SQLite, commits a second to SQLAlchemy's defaults", ours[5], _BAR, "at least"),
            Figure("SQLite, committed of what was wanted", float(str(ours[1])) / wanted, 1, "at least"),
            Figure("SQLite, lost", float(str(ours[2])), 0),
            Figure("SQLite, errors", float(str(ours[3])), 0),
        ],
    )


def _measure(name: str, units: int) -> Outcome:
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        file = Path(directory) / "count.db"
        engine = create_engine(f"sqlite:///{file}")
        fill(engine)
        engine.dispose()
        context = multiprocessing.get_context("spawn")  # a child that inherits nothing
        ready, done = context.Barrier(PROCESSES), context.Queue()
        processes = [
            context.Process(target=count, args=(name, str(file), units, ready, done)) for _ in range(PROCESSES)
        ]
        for process in processes:
            process.start()
            stack.callback(process.kill)
        reports = [done.get(timeout=_PATIENCE) for _ in processes]
        for process in processes:
            process.join(_PATIENCE)
        with Session(engine) as session:
            counted = session.get_one(Item, 1).amount
        engine.dispose()
    committed = sum(report[0] for report in reports)
    seconds = max(report[3] for report in reports) - min(report[2] for report in reports)
    return Outcome(committed, committed - counted, sum(report[1] for report in reports), seconds)


def count(name: str, file: str, units: int, ready: Any, done: Any) -> None:
    """
    Count up in a process of its own, and report what was committed, what failed, and when it began and ended.

    Args:
        name: of the way.
        file: of the database.
        units: how often to count.
        ready: a barrier for all processes.
        done: a queue for the report.
    """
    unit, close = WAYS[name](file)
    committed = errors = 0
    ready.wait(_PATIENCE)
    start = time.monotonic()
    for _ in range(units):
        try:
            unit()
            committed += 1
        except DBAPIError:
            errors += 1
    done.put((committed, errors, start, time.monotonic()))
    close()


def _add(session: Session) -> None:
    session.get_one(Item, 1).amount += 1


def _defaults(file: str) -> tuple[Unit, Unit]:
    engine = create_engine(f"sqlite:///{file}")

    def unit() -> None:
        with Session(engine) as session:
            _add(session)
            session.commit()

    return unit, engine.dispose


def _recipe(file: str) -> tuple[Unit, Unit]:
    """
    Follow SQLAlchemy's page on SQLite (serializable isolation, transactional DDL): the driver begins nothing, we do.
    """
    engine = create_engine(f"sqlite:///{file}")

    @event.listens_for(engine, "connect")
    def _connected(dbapi_connection: Any, record: Any) -> None:
        dbapi_connection.isolation_level = None
        dbapi_connection.execute("PRAGMA journal_mode=WAL")

    @event.listens_for(engine, "begin")
    def _begins(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN")

    def unit() -> None:
        with Session(engine) as session:
            _add(session)
            session.commit()

    return unit, engine.dispose


def _stillroom(file: str) -> tuple[Unit, Unit]:
    database = Database(f"sqlite:///{file}")

    def unit() -> None:
        with database.session() as session:
            _add(session)

    return unit, database.close


WAYS: dict[str, Callable[[str], tuple[Unit, Unit]]] = {
    "SQLAlchemy's defaults": _defaults,
    "BEGIN recipe and WAL": _recipe,
    "Stillroom": _stillroom,
}
