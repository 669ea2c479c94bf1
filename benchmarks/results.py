"""
What do rows, records and JSON cost against the driver alone, and against what goes through mapped objects?
"""

from __future__ import annotations

import contextlib
import tempfile
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import JSON, BigInteger, DateTime, Numeric, String, insert, make_url, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from stillroom import Databases, Repository
from stillroom.models import ModelBase

from .measuring import compare
from .report import Figure, Result, Scale, costs
from .workload import database, noting, with_driver

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy.engine import Connection

    from .measuring import Measured, Work

    Ways = list[tuple[str, Work]]

FEW, MANY = 1_000, 100_000
ROWS_BAR, RECORDS_BAR = 0.85, 0.75
JSON_BARS = {"PostgreSQL": 0.25, "SQLite": 0.15}
MANY_BAR = 0.13


class Base(ModelBase, DeclarativeBase, database="main"):
    """
    The table of this benchmark.
    """


class Sale(Base):
    """
    A row of 10 columns: integers, text, a number, a time and JSON.
    """

    __tablename__ = "sale"

    id: Mapped[int] = mapped_column(primary_key=True)
    customer: Mapped[int]
    quantity: Mapped[int]
    stock: Mapped[int] = mapped_column(BigInteger)
    name: Mapped[str] = mapped_column(String(50))
    city: Mapped[str] = mapped_column(String(50))
    note: Mapped[str] = mapped_column(String(50))
    price: Mapped[Decimal] = mapped_column(Numeric(10, 2))
    sold_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    details: Mapped[dict[str, Any]]


class SaleRecord(msgspec.Struct):
    """
    The same as a msgspec Struct.
    """

    id: int
    customer: int
    quantity: int
    stock: int
    name: str
    city: str
    note: str
    price: Decimal
    sold_at: datetime
    details: dict[str, Any]


def run(scale: Scale) -> Result:
    """
    Measure rows, records and JSON, on PostgreSQL and on SQLite.
    """
    result = Result()
    with noting(result, "PostgreSQL"), database("postgresql") as plain:
        _backend(result, scale, "PostgreSQL", with_driver(plain, "postgresql+psycopg"))
    with tempfile.TemporaryDirectory() as directory:
        _backend(result, scale, "SQLite", f"sqlite:///{Path(directory) / 'sales.db'}")
    return result


def _backend(result: Result, scale: Scale, backend: str, url: str) -> None:
    databases = Databases({"databases": {"main": {"url": url}}})
    engine = databases["main"].engine
    Base.metadata.create_all(engine)
    try:
        for count in (FEW, scale.pick(MANY, 2 * FEW)):
            with engine.begin() as connection:
                connection.execute(Sale.__table__.delete())
                connection.execute(insert(Sale), list(_sales(count)))
            title = f"{count:,} rows of 10 columns, {backend}"
            rounds, batch = (scale.pick(30, 2), scale.pick(5, 1)) if count == FEW else (scale.pick(5, 2), 1)
            with contextlib.ExitStack() as stack:
                connection = stack.enter_context(engine.connect())
                if count == FEW:
                    measured = compare(_reading(result, stack, connection, url), rounds=rounds, batch=batch)
                    result.tables.append(costs(f"Reading {title}", measured))
                    if backend == "PostgreSQL":
                        result.figures += _bars(measured, "psycopg's dict_row", rows=ROWS_BAR, records=RECORDS_BAR)
                ways = _json(result, connection)
                if ways:
                    measured = compare(ways, rounds=rounds, batch=batch)
                    result.tables.append(costs(f"JSON of {title}", measured))
                    bar = JSON_BARS[backend] if count == FEW else MANY_BAR
                    result.figures += _bars(measured, f"ORM, pydantic, JSON, {title}", json=bar)
    finally:
        databases.close()


def _bars(measured: list[Measured], against: str, **bars: float) -> list[Figure]:
    walls = {each.name: each.wall for each in measured}
    return [Figure(f"{name} to {against}", walls[f"Stillroom, {name}"], bar) for name, bar in bars.items()]


def _sales(count: int) -> Iterator[dict[str, Any]]:
    start = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)
    for number in range(1, count + 1):
        yield {
            "id": number,
            "customer": number % 100,
            "quantity": number % 7,
            "stock": number * 10**9,
            "name": f"name {number}",
            "city": "London",
            "note": "a few words",
            "price": Decimal(number % 10**6) / 100,
            "sold_at": start + timedelta(minutes=number),
            "details": {"colour": "red", "size": number % 50},
        }


def _fresh(connection: Connection, work: Callable[[Session], object]) -> Work:
    """
    Return work in a session of its own, which has loaded nothing, on a connection that is open already.

    It ends with a COMMIT, as a unit of work does: at a ROLLBACK psycopg forgets the statements that it has prepared.
    """

    def fresh() -> object:
        with Session(connection) as session:
            found = work(session)
            session.commit()
            return found

    return fresh


def _reading(result: Result, stack: contextlib.ExitStack, connection: Connection, url: str) -> Ways:
    sales = Repository[Sale]
    table = Sale.__table__
    ways: Ways = []
    if connection.dialect.name == "postgresql":
        import psycopg
        from psycopg.rows import dict_row

        plain = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
        driver: Any = stack.enter_context(psycopg.connect(plain, row_factory=dict_row))
        sql = "select " + ", ".join(table.columns.keys()) + " from sale"
        ways.append(("psycopg's dict_row", lambda: driver.execute(sql).fetchall()))
    ways += [
        ("Core mappings", _fresh(connection, lambda session: session.execute(select(table)).mappings().all())),
        ("Stillroom, rows", _fresh(connection, lambda session: sales(session).rows())),
        ("Stillroom, records", _fresh(connection, lambda session: sales(session).records(SaleRecord))),
        ("ORM", _fresh(connection, lambda session: session.scalars(select(Sale)).all())),
    ]
    for make in (_advanced_alchemy, _sqlmodel, _flask_sqlalchemy):
        try:
            ways.append(make(stack, connection, url))
        except ImportError as error:
            result.notes.append(f"{make.__name__}: not measured, {error}")
    return ways


def _advanced_alchemy(stack: contextlib.ExitStack, connection: Connection, url: str) -> tuple[str, Work]:
    from advanced_alchemy.repository import SQLAlchemySyncRepository

    class Sales(SQLAlchemySyncRepository[Any]):
        """
        Their repository.
        """

        model_type = Sale

    return "Advanced Alchemy", _fresh(connection, lambda session: Sales(session=session).get_many())


def _sqlmodel(stack: contextlib.ExitStack, connection: Connection, url: str) -> tuple[str, Work]:
    import sqlmodel

    model = _sqlmodel_class()

    def read() -> object:
        with sqlmodel.Session(connection) as session:
            return session.exec(sqlmodel.select(model)).all()

    return "SQLModel", read


@cache
def _sqlmodel_class() -> Any:
    import sqlmodel

    class SaleModel(sqlmodel.SQLModel, table=True):
        """
        Their model of the table.
        """

        __tablename__ = "sale"

        id: int = sqlmodel.Field(primary_key=True)
        customer: int
        quantity: int
        stock: int = sqlmodel.Field(sa_type=BigInteger)
        name: str
        city: str
        note: str
        price: Decimal = sqlmodel.Field(max_digits=10, decimal_places=2)
        sold_at: datetime = sqlmodel.Field(sa_type=DateTime(timezone=True))
        details: dict[str, Any] = sqlmodel.Field(sa_type=JSON)

    return SaleModel


def _flask_sqlalchemy(stack: contextlib.ExitStack, connection: Connection, url: str) -> tuple[str, Work]:
    from flask import Flask
    from flask_sqlalchemy import SQLAlchemy

    app = Flask("benchmarks")
    app.config["SQLALCHEMY_DATABASE_URI"] = url
    extension = SQLAlchemy(app)
    stack.enter_context(app.app_context())
    stack.callback(extension.engine.dispose)

    class SaleModel(extension.Model):  # type: ignore[name-defined]  # made at run time
        """
        Their model of the table.
        """

        __table__ = Sale.__table__.to_metadata(extension.metadata)

    def read() -> object:
        found = extension.session.scalars(select(SaleModel)).all()
        extension.session.remove()
        return found

    return "Flask-SQLAlchemy", read


def _json(result: Result, connection: Connection) -> Ways:
    try:
        import pydantic
    except ImportError as error:
        result.notes.append(f"JSON: not measured, {error}")
        return []
    fields = {name: (each.type.python_type, ...) for name, each in Sale.__table__.columns.items()}
    model: Any = pydantic.create_model("SaleOut", __config__=pydantic.ConfigDict(from_attributes=True), **fields)
    several: Any = pydantic.TypeAdapter(list[model])
    sales = Repository[Sale]

    def through_orm(session: Session) -> bytes:
        return bytes(several.dump_json(several.validate_python(session.scalars(select(Sale)).all())))

    return [
        ("ORM, pydantic, JSON", _fresh(connection, through_orm)),
        ("Stillroom, rows, msgspec", _fresh(connection, lambda session: msgspec.json.encode(sales(session).rows()))),
        ("Stillroom, json", _fresh(connection, lambda session: sales(session).json())),
    ]
