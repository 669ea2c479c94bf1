"""
How much process CPU does a unit of work cost against a bare Session, and how much in other libraries?
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy.orm import Session

from stillroom import Databases

from . import peers
from .measuring import compare
from .report import Figure, Result, Scale, costs
from .workload import database, fill, noting, read, with_driver, write

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .measuring import Measured
    from .peers import Body, Peer

POSTGRESQL_BAR = 1.10
SQLITE_BAR = 1.15


def run(scale: Scale) -> Result:
    """
    Measure writing units, reading units and units that open nothing.
    """
    result = Result()
    _sqlite(result, scale)
    with noting(result, "PostgreSQL"):
        _postgresql(result, scale)
    _nothing(result, scale)
    return result


def _find(measured: list[Measured], name: str) -> Measured:
    return next(each for each in measured if each.name == name)


def _sqlite(result: Result, scale: Scale) -> None:
    measured = _pairs(WRITING, write, "sqlite://", result, scale.pick(40, 3), scale.pick(60, 4))
    result.tables.append(costs("A writing unit, SQLite in memory", measured))
    ours = _find(measured, "Stillroom")
    result.figures.append(Figure("CPU of a writing unit to a bare Session, SQLite in memory", ours.cpu, SQLITE_BAR))


def _postgresql(result: Result, scale: Scale) -> None:
    rounds, batch = scale.pick(40, 3), scale.pick(30, 3)
    with database("postgresql") as plain:
        url = with_driver(plain, "postgresql+psycopg")
        measured = _pairs(WRITING, write, url, result, rounds, batch)
        result.tables.append(costs("A writing unit, PostgreSQL with psycopg", measured))
        ours = _find(measured, "Stillroom")
        result.figures.append(Figure("CPU of a writing unit to a bare Session, PostgreSQL", ours.cpu, POSTGRESQL_BAR))
        measured = _pairs(READING, read, url, result, rounds // 2 or 2, batch)
        result.tables.append(costs("A reading unit (one select), PostgreSQL with psycopg", measured))


WRITING = (peers.bare_begin, peers.stillroom, *peers.LIBRARIES)
READING = (peers.stillroom_reader, peers.stillroom, *peers.LIBRARIES)


def _pairs(
    makers: Sequence[Callable[[str], Peer]], body: Body, url: str, result: Result, rounds: int, batch: int
) -> list[Measured]:
    """
    Measure each library with the bare Session alone beside it, and return them with the Session of the first pair.

    With all of them in turn the interpreter would unlearn again and again what it had learnt about SQLAlchemy's code
    with the classes of one of them (inline caches, PEP 659); an application has one library.
    """
    measured: list[Measured] = []
    for make in makers:
        with peers.opened(peers.bare, make, url=url, notes=result.notes) as pair:
            if len(pair) == 1:
                continue
            if url == "sqlite://":
                for peer in pair:
                    fill(peer.engine)
            bare, other = compare([(peer.name, peer.doing(body)) for peer in pair], rounds=rounds, batch=batch)
            measured += [other] if measured else [bare, other]
    return measured


def _nothing(result: Result, scale: Scale) -> None:
    databases = Databases({"databases": {"main": {"url": "sqlite://"}}})
    engine = databases["main"].engine

    def session() -> None:
        with Session(engine):
            pass

    def unit() -> None:
        with databases.unit_of_work():
            pass

    measured = compare(
        [("bare Session", session), ("Stillroom", unit)], rounds=scale.pick(30, 3), batch=scale.pick(1000, 50)
    )
    result.tables.append(costs("A unit that opens nothing", measured))
    databases.close()
