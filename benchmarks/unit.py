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
    from .measuring import Measured

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
    makers = (peers.bare, peers.bare_begin, peers.stillroom, *peers.LIBRARIES)
    with peers.opened(*makers, url="sqlite://", notes=result.notes) as found:
        for peer in found:
            fill(peer.engine)
        ways = [(peer.name, peer.doing(write)) for peer in found]
        measured = compare(ways, rounds=scale.pick(40, 3), batch=scale.pick(60, 4))
    result.tables.append(costs("A writing unit, SQLite in memory", measured))
    ours = _find(measured, "Stillroom")
    result.figures.append(Figure("CPU of a writing unit to a bare Session, SQLite in memory", ours.cpu, SQLITE_BAR))


def _postgresql(result: Result, scale: Scale) -> None:
    rounds, batch = scale.pick(40, 3), scale.pick(30, 3)
    with database("postgresql") as plain:
        url = with_driver(plain, "postgresql+psycopg")
        makers = (peers.bare, peers.bare_begin, peers.stillroom, *peers.LIBRARIES)
        with peers.opened(*makers, url=url, notes=result.notes) as found:
            measured = compare([(peer.name, peer.doing(write)) for peer in found], rounds=rounds, batch=batch)
        result.tables.append(costs("A writing unit, PostgreSQL with psycopg", measured))
        ours = _find(measured, "Stillroom")
        result.figures.append(Figure("CPU of a writing unit to a bare Session, PostgreSQL", ours.cpu, POSTGRESQL_BAR))
        makers = (peers.bare, peers.stillroom_reader, peers.stillroom, *peers.LIBRARIES)
        with peers.opened(*makers, url=url, notes=result.notes) as found:
            measured = compare([(peer.name, peer.doing(read)) for peer in found], rounds=rounds // 2 or 2, batch=batch)
        result.tables.append(costs("A reading unit (one select), PostgreSQL with psycopg", measured))


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
