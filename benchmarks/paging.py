"""
What does a page cost, deep in a large table and with each kind of total?
"""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import BigInteger, Index, String, create_engine, func, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from stillroom import Repository

from .measuring import compare
from .report import Figure, Result, Scale, costs
from .workload import database, noting, with_driver

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.engine import Engine

    from .measuring import Measured, Work

SIZE = 50
FIRST, EXACT, ALONE, CORE = "the first page", "exact total", "no total", "Core, two statements"


class Base(DeclarativeBase):
    """
    The large table.
    """


class Event(Base):
    """
    One of a million.
    """

    __tablename__ = "event"
    __table_args__ = (Index("by_time", "at", "id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[int] = mapped_column(BigInteger)
    name: Mapped[str] = mapped_column(String(50))
    email: Mapped[str] = mapped_column(String(80))
    amount: Mapped[int]


class Events(Repository[Event]):
    """
    Reads them.
    """


_FILL = """
    insert into event (id, at, name, email, amount)
    select i, 1577836800 + i * 60, 'event ' || i, 'user' || i || '@example.org', i % 1000 from {numbers}
"""
_NUMBERS = {
    "sqlite": "(with recursive n(i) as (select 1 union all select i + 1 from n where i < :rows) select i from n)",
    "postgresql": "generate_series(1, :rows) as i",
}
ORDER = (Event.at, Event.id)


def run(scale: Scale) -> Result:
    """
    Measure on each backend.
    """
    result = Result()
    rows = scale.pick(1_000_000, 20_000)
    with tempfile.TemporaryDirectory() as directory:
        _measure(result, scale, f"sqlite:///{Path(directory) / 'events.db'}", rows)
    with noting(result, "PostgreSQL"), database("postgresql") as plain:
        _measure(result, scale, with_driver(plain, "postgresql+psycopg"), rows)
    return result


def _measure(result: Result, scale: Scale, url: str, rows: int) -> None:
    engine = create_engine(url)
    backend = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}[engine.dialect.name]
    Base.metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(text(_FILL.format(numbers=_NUMBERS[engine.dialect.name])), {"rows": rows})
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("vacuum analyze" if engine.dialect.name == "postgresql" else "analyze"))
    try:
        _depth(result, scale, engine, backend, rows)
        _totals(result, scale, engine, backend)
        _peers(result, scale, engine, backend)
    finally:
        engine.dispose()


def _depth(result: Result, scale: Scale, engine: Engine, backend: str, rows: int) -> None:
    deep = rows * 9 // 10
    with Session(engine) as session:
        cursor = Events(session).after(None, SIZE, Event.id > deep - SIZE, order_by=ORDER).next_cursor

    def offset(session: Session) -> object:
        return session.scalars(select(Event).order_by(*ORDER).limit(SIZE).offset(deep)).all()

    number = deep // SIZE + 1
    ways = {
        FIRST: lambda session: Events(session).after(None, SIZE, order_by=ORDER),
        "after": lambda session: Events(session).after(cursor, SIZE, order_by=ORDER),
        "page": lambda session: Events(session).page(number, SIZE, order_by=ORDER, total="none"),
        "OFFSET": offset,
    }
    measured = _compare(engine, ways, rounds=scale.pick(12, 2), batch=scale.pick(10, 1))
    result.tables.append(costs(f"{backend}, {SIZE} rows at row {deep:,}", list(measured.values())))
    result.figures.append(Figure(f"{backend}, `after` at row {deep:,} to the first page", measured["after"].wall, 1.5))


def _totals(result: Result, scale: Scale, engine: Engine, backend: str) -> None:
    def page(kind: Any) -> Callable[[Session], object]:
        return lambda session: Events(session).page(3, SIZE, order_by=ORDER, total=kind)

    table = Event.__table__
    rows = select(table).order_by(table.c.at, table.c.id).limit(SIZE).offset(2 * SIZE)
    count = select(func.count()).select_from(table)

    def core(session: Session) -> object:
        connection = session.connection()
        return connection.execute(rows).all(), connection.scalar(count)

    ways = {ALONE: page("none"), "cached": page("cached"), "estimate": page("estimate"), "capped": page("capped")}
    measured = _compare(engine, ways, rounds=scale.pick(12, 2), batch=scale.pick(10, 1))
    result.tables.append(costs(f"{backend}, a page and its total", list(measured.values())))
    result.figures += [
        Figure(f"{backend}, capped total to the page alone", measured["capped"].wall, 3),
        Figure(f"{backend}, estimated total to the page alone", measured["estimate"].wall, 2),
    ]
    measured = _compare(engine, {CORE: core, EXACT: page("exact")}, rounds=scale.pick(12, 2), batch=scale.pick(3, 1))
    result.tables.append(costs(f"{backend}, a page and the exact total", list(measured.values())))
    result.figures.append(Figure(f"{backend}, exact total to Core's two statements", measured[EXACT].wall, 1.3))


def _peers(result: Result, scale: Scale, engine: Engine, backend: str) -> None:
    ways: dict[str, Callable[[Session], object]] = {
        ALONE: lambda session: Events(session).page(3, SIZE, order_by=ORDER, total="none"),
        EXACT: lambda session: Events(session).page(3, SIZE, order_by=ORDER),
    }
    for name, make in (("Advanced Alchemy", _advanced_alchemy), ("Flask-SQLAlchemy", _flask_sqlalchemy)):
        try:
            ways |= make(engine)
        except ImportError as error:
            result.notes.append(f"{name}: not measured, {error}")
    measured = _compare(engine, ways, rounds=scale.pick(3, 1), batch=1)
    result.tables.append(costs(f"{backend}, a page and the total of peers", list(measured.values())))


def _advanced_alchemy(engine: Engine) -> dict[str, Callable[[Session], object]]:
    from advanced_alchemy.filters import LimitOffset, OrderBy
    from advanced_alchemy.repository import SQLAlchemySyncRepository

    class Repository(SQLAlchemySyncRepository[Any]):
        model_type = Event

    filters = (LimitOffset(SIZE, 2 * SIZE), OrderBy("at"), OrderBy("id"))

    def listing(session: Session, *, window: bool) -> object:
        return Repository(session=session).list_and_count(*filters, count_with_window_function=window)

    return {
        "Advanced Alchemy, window": lambda session: listing(session, window=True),
        "Advanced Alchemy, two statements": lambda session: listing(session, window=False),
    }


def _flask_sqlalchemy(engine: Engine) -> dict[str, Callable[[Session], object]]:
    from flask import Flask
    from flask_sqlalchemy import SQLAlchemy

    app = Flask("benchmarks")
    app.config["SQLALCHEMY_DATABASE_URI"] = engine.url.render_as_string(hide_password=False)
    extension = SQLAlchemy(app)
    statement = select(Event).order_by(*ORDER)

    def paginate(_: Session) -> object:
        with app.app_context():
            return extension.paginate(statement, page=3, per_page=SIZE)

    return {"Flask-SQLAlchemy, paginate": paginate}


def _compare(
    engine: Engine, ways: dict[str, Callable[[Session], object]], *, rounds: int, batch: int
) -> dict[str, Measured]:
    def fresh(way: Callable[[Session], object]) -> Work:
        def work() -> None:
            with contextlib.closing(Session(engine)) as session:
                way(session)

        return work

    measured = compare([(name, fresh(way)) for name, way in ways.items()], rounds=rounds, batch=batch)
    return {each.name: each for each in measured}
