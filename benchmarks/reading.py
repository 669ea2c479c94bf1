"""
What do `get` and `exists` of a repository cost against the Session's own, and in other libraries?
"""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import create_engine, exists, select
from sqlalchemy.orm import Session

from stillroom import Repository

from .measuring import compare
from .report import Figure, Result, Scale, costs
from .workload import Item, database, fill, noting, with_driver

if TYPE_CHECKING:
    from collections.abc import Callable

    from .measuring import Measured, Work

BARS = {"loaded": 1.5, "cold": 1.10, "exists": 1.10}
OURS, ADVANCED = "Stillroom", "Advanced Alchemy"
TITLES = {"loaded": "get of a loaded object", "cold": "get of an object that is not loaded", "exists": "exists"}
BASES = {"loaded": "session.get", "cold": "session.get", "exists": "select(exists())"}


class Items(Repository[Item]):
    """
    Reads them.
    """


def run(scale: Scale) -> Result:
    """
    Measure on each backend.
    """
    result = Result()
    with tempfile.TemporaryDirectory() as directory:
        url = f"sqlite:///{Path(directory) / 'items.db'}"
        fill(create_engine(url))
        _measure(result, scale, url, "SQLite")
    with noting(result, "PostgreSQL"), database("postgresql") as plain:
        _measure(result, scale, with_driver(plain, "postgresql+psycopg"), "PostgreSQL")
    return result


def _measure(result: Result, scale: Scale, url: str, backend: str) -> None:
    engine = create_engine(url)
    with Session(engine) as session:
        session.get(Item, 1)
        for question, ways in _ways(session).items():
            batch = scale.pick(2000 if question == "loaded" else 200, 4)
            measured = compare(ways, rounds=scale.pick(30, 3), batch=batch)
            result.tables.append(costs(f"{TITLES[question]}, {backend}", measured))
            ours = _find(measured, OURS)
            name = f"{TITLES[question]} to {BASES[question]}, {backend}"
            result.figures.append(Figure(name, ours.cpu, BARS[question]))
    engine.dispose()


def _find(measured: list[Measured], name: str) -> Measured:
    return next(each for each in measured if each.name == name)


def _ways(session: Session) -> dict[str, list[tuple[str, Work]]]:
    held = session.get(Item, 1)  # what nobody holds is forgotten
    items = Items(session)

    def forgetting(get: Callable[[Any], object]) -> Work:
        def work() -> None:
            session.expunge_all()
            get(1)

        return work

    def loaded(get: Callable[[Any], object]) -> Work:
        def work() -> object:
            assert held is not None
            return get(1)

        return work

    gets: list[tuple[str, Callable[[Any], object]]] = [
        ("session.get", lambda key: session.get(Item, key)),
        (OURS, items.get),
    ]
    questions: list[tuple[str, Work]] = [
        ("select(exists())", lambda: session.scalar(select(exists().where(Item.amount == 0)))),
        (OURS, lambda: items.exists(amount=0)),
    ]
    with contextlib.suppress(ImportError):
        from advanced_alchemy.repository import SQLAlchemySyncRepository

        class Peers(SQLAlchemySyncRepository[Item]):
            model_type = Item

        peers = Peers(session=session)
        gets.append((ADVANCED, peers.get))
        questions.append((ADVANCED, lambda: peers.exists(amount=0)))
    return {
        "loaded": [(name, loaded(get)) for name, get in gets],
        "cold": [(name, forgetting(get)) for name, get in gets],
        "exists": questions,
    }
