"""
How fast are many rows created, loaded and upserted, against the database's own way, and in other libraries?
"""

from __future__ import annotations

import contextlib
import gc
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from sqlalchemy import JSON, DateTime, Numeric, String, create_engine, insert, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from stillroom import Databases, Repository
from stillroom.repository.bulk.batches import Batches
from stillroom.repository.plan import Plan
from tests.support import servers

from .report import Figure, Result, Scale, Table
from .workload import noting, with_driver

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    Rows = list[dict[str, Any]]
    Way = tuple[str, Callable[[], object]]

LOAD_BAR, SQLITE_LOAD_BAR = 1.3, 3.0
CREATE_BAR, CREATE_PEER_BAR = 1.10, 8.0
UPSERT_BAR, UPSERT_PEER_BAR = 1.2, 10.0
MEMORY_BAR = 100.0
"""MiB over the start."""


class Base(DeclarativeBase):
    """
    The table of these benchmarks.
    """


class Article(Base):
    """
    Ten columns: integers, texts, a decimal number, a time, JSON.
    """

    __tablename__ = "article"

    id: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[int]
    size: Mapped[int]
    name: Mapped[str] = mapped_column(String(50))
    email: Mapped[str] = mapped_column(String(50))
    note: Mapped[str]
    price: Mapped[Decimal] = mapped_column(Numeric(12, 2))
    active: Mapped[bool]
    at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    data: Mapped[dict[str, Any]] = mapped_column(JSON().with_variant(postgresql.JSONB(), "postgresql"))


START = datetime(2026, 1, 1, tzinfo=UTC)


def row(number: int) -> dict[str, Any]:
    """
    Make a row.
    """
    return {
        "id": number,
        "owner": number % 100,
        "size": number * 7,
        "name": f"article {number}",
        "email": f"writer{number}@example.org",
        "note": "some words of a text, and some more of them",
        "price": Decimal(number) / 100,
        "active": number % 2 == 0,
        "at": START + timedelta(seconds=number),
        "data": {"number": number, "tags": ["x", "y"]},
    }


@dataclass
class Place:
    """
    A database with the table in it, twice connected to: by us and by SQLAlchemy alone.
    """

    dbs: Databases
    url: str

    def __post_init__(self) -> None:
        self.engine = create_engine(self.url)
        Base.metadata.create_all(self.engine)
        self.truncate = "TRUNCATE article" if self.engine.dialect.name == "postgresql" else "DELETE FROM article"

    def ours(self, method: str, rows: Rows, **options: Any) -> Callable[[], object]:
        """
        Return the work of calling a method of our repository on an empty table.
        """

        def work() -> None:
            with self.dbs.unit_of_work() as uow:
                uow.main.execute(text(self.truncate))
                getattr(Repository[Article](uow), method)(rows, **options)

        return work

    def theirs(self, body: Callable[[Session], object]) -> Callable[[], object]:
        """
        Return the work of a body with a plain session on an empty table.
        """

        def work() -> None:
            with Session(self.engine) as session:
                session.execute(text(self.truncate))
                body(session)
                session.commit()

        return work

    def driver(self, body: Callable[[Any], object]) -> Callable[[], object]:
        """
        Return the work of a body with a cursor of the driver on an empty table.
        """

        def work() -> None:
            connection = self.engine.raw_connection()
            cursor = connection.cursor()
            cursor.execute(self.truncate)
            body(cursor)
            connection.commit()
            connection.close()

        return work


def run(scale: Scale) -> Result:
    """
    Measure on SQLite and PostgreSQL, then the memory.
    """
    result = Result()
    with tempfile.TemporaryDirectory() as directory:
        url = f"sqlite:///{directory}/bulk.db"
        with _place(url) as place:
            _sqlite(place, result, scale)
        _memory(url, "SQLite", result, scale)
    with noting(result, "PostgreSQL"), servers.postgresql_database(servers.postgresql_url()) as plain:
        url = with_driver(plain, "postgresql+psycopg")
        with _place(url) as place:
            _postgresql(place, result, scale)
        _memory(url, "PostgreSQL", result, scale)
    return result


@contextlib.contextmanager
def _place(url: str) -> Iterator[Place]:
    dbs = Databases({"databases": {"main": {"url": url}}})
    place = Place(dbs, url)
    try:
        yield place
    finally:
        dbs.close()
        place.engine.dispose()


def _sqlite(place: Place, result: Result, scale: Scale) -> None:
    rows = [row(number) for number in range(1, scale.pick(100_000, 200) + 1)]
    batches = Batches(Plan(Article), place.engine.dialect, rows, converts=True)
    tuples = [each for batch in batches for some in batch.tuples() for each in some]
    marks = ", ".join("?" * len(tuples[0]))
    raw = place.driver(lambda cursor: cursor.executemany(f"INSERT INTO article VALUES ({marks})", tuples))
    found = _compare(
        "load, SQLite",
        [("raw executemany of ready tuples", raw), ("Stillroom load", place.ours("load", rows)), _core(place, rows)],
        result,
        rounds=scale.pick(7, 1),
    )
    result.figures.append(Figure("load to raw executemany, SQLite", found["Stillroom load"], SQLITE_LOAD_BAR))
    _creating(place, "SQLite", result, scale)
    _upserting(place, "SQLite", result, scale)


def _postgresql(place: Place, result: Result, scale: Scale) -> None:
    rows = [row(number) for number in range(1, scale.pick(100_000, 200) + 1)]
    place.ours("load", rows)()
    ready = _copied_out(place, "")

    def copy(cursor: Any) -> None:
        _copy_in(cursor, "article", ready)

    found = _compare(
        "load, PostgreSQL",
        [
            ("COPY of ready-made bytes", place.driver(copy)),
            ("Stillroom load", place.ours("load", rows)),
            _core(place, rows),
        ],
        result,
        rounds=scale.pick(7, 1),
    )
    result.figures.append(Figure("load to COPY of ready-made bytes", found["Stillroom load"], LOAD_BAR))
    _creating(place, "PostgreSQL", result, scale)
    _upserting(place, "PostgreSQL", result, scale)


def _creating(place: Place, backend: str, result: Result, scale: Scale) -> None:
    rows = [row(number) for number in range(scale.pick(10_000, 100))]
    for each in rows:
        del each["id"]  # which the database gives, as it does where rows are created
    ways = [
        _core(place, rows),
        ("Stillroom create_many", place.ours("create_many", rows)),
        ("ORM add_all", place.theirs(lambda session: session.add_all(Article(**each) for each in rows))),
        *_peers(place, rows, result),
    ]
    found = _compare(f"create_many, {backend}", ways, result, rounds=scale.pick(5, 1))
    ours = found["Stillroom create_many"]
    result.figures.append(Figure(f"create_many to Core executemany, {backend}", ours, CREATE_BAR))
    if (peer := found.get("Advanced Alchemy add_many")) is not None:
        figure = Figure(
            f"Advanced Alchemy add_many to create_many, {backend}", peer / ours, CREATE_PEER_BAR, "at least"
        )
        result.figures.append(figure)


def _upserting(place: Place, backend: str, result: Result, scale: Scale) -> None:
    rows = [row(number) for number in range(1, scale.pick(100_000, 200) + 1)]
    half = rows[::2]

    def prepared(work: Callable[[Session], object]) -> Callable[[], object]:
        def with_half(session: Session) -> None:
            if session.get_bind().dialect.name == "postgresql":
                session.execute(text("INSERT INTO article SELECT * FROM half"))
            else:
                session.execute(text("INSERT INTO article SELECT * FROM half WHERE true"))
            work(session)

        return place.theirs(with_half)

    def ours(rows: Rows) -> None:
        with place.dbs.unit_of_work() as uow:
            uow.main.execute(text(place.truncate))
            uow.main.execute(text("INSERT INTO article SELECT * FROM half"))
            Repository[Article](uow).upsert_many(rows, match=["id"])

    place.ours("load", half)()
    with place.engine.begin() as connection:
        connection.execute(text("CREATE TABLE half AS SELECT * FROM article"))
    base: Way = ("Core ON CONFLICT executemany", prepared(lambda session: _core_upsert(session, rows)))
    ways = [base, ("Stillroom upsert_many", partial(ours, rows))]
    if backend == "PostgreSQL":
        ready = _copied_out(place, "SELECT * FROM half", rows=rows)
        ways.insert(0, ("COPY to a temporary table, ON CONFLICT", prepared(lambda session: _staged(session, ready))))
    found = _compare(f"upsert_many of which half exist, {backend}", ways, result, rounds=scale.pick(5, 1))
    if backend == "PostgreSQL":
        figure = Figure("upsert_many to COPY and ON CONFLICT", found["Stillroom upsert_many"], UPSERT_BAR)
        result.figures.append(figure)
    try:
        peer = _advanced_alchemy()
    except ImportError:
        return
    fewer = rows[: scale.pick(20_000, 200)]  # it takes minutes for all of them
    once = _compare(
        f"upsert_many of {len(fewer)} rows beside Advanced Alchemy, {backend}",
        [
            ("Stillroom upsert_many", partial(ours, fewer)),
            ("Advanced Alchemy upsert_many", prepared(lambda session: _alchemy_upsert(peer(session=session), fewer))),
        ],
        result,
        rounds=1,
    )
    ratio = once["Advanced Alchemy upsert_many"]
    result.figures.append(Figure(f"Advanced Alchemy to upsert_many, {backend}", ratio, UPSERT_PEER_BAR, "at least"))


# --- the ways of others


def _core(place: Place, rows: Rows) -> Way:
    statement = insert(Article.__table__)  # type: ignore[arg-type]  # SQLAlchemy types it as any FROM clause
    return "Core executemany", place.theirs(lambda session: session.connection().execute(statement, rows))


def _core_upsert(session: Session, rows: Rows) -> None:
    make: Any = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    statement = make(Article.__table__)
    names = [name for name in rows[0] if name != "id"]
    update = {name: statement.excluded[name] for name in names}
    session.connection().execute(statement.on_conflict_do_update(index_elements=["id"], set_=update), rows)


def _peers(place: Place, rows: Rows, result: Result) -> list[Way]:
    ways: list[Way] = []
    try:
        peer = _advanced_alchemy()
    except ImportError as error:
        result.notes.append(f"Advanced Alchemy: not measured, {error}")
    else:
        add = place.theirs(lambda session: peer(session=session).add_many([Article(**each) for each in rows]))
        ways.append(("Advanced Alchemy add_many", add))
    try:
        model = _sqlmodel()
    except ImportError as error:
        result.notes.append(f"SQLModel: not measured, {error}")
    else:
        ways.append(("SQLModel add_all", place.theirs(lambda session: session.add_all(model(**each) for each in rows))))
    return ways


def _advanced_alchemy() -> Any:
    from advanced_alchemy.repository import SQLAlchemySyncRepository

    class Articles(SQLAlchemySyncRepository[Any]):
        """
        The repository of Advanced Alchemy, as its documentation shows.
        """

        model_type = Article

    return Articles


def _alchemy_upsert(repository: Any, rows: Rows) -> None:
    repository.upsert_many([Article(**each) for each in rows], match_fields=["id"])


@cache
def _sqlmodel() -> Any:
    from sqlmodel import Field, SQLModel

    class SQLModelArticle(SQLModel, table=True):
        """
        The same table.
        """

        __tablename__ = "article"

        id: int | None = Field(default=None, primary_key=True)
        owner: int
        size: int
        name: str
        email: str
        note: str
        price: Decimal = Field(sa_type=Numeric(12, 2))
        active: bool
        at: datetime = Field(sa_type=DateTime(timezone=True))
        data: dict[str, Any] = Field(sa_type=JSON().with_variant(postgresql.JSONB(), "postgresql"))

    return SQLModelArticle


def _copied_out(place: Place, query: str, rows: Rows | None = None) -> bytes:
    if rows is not None:
        place.ours("load", rows)()
    connection = place.engine.raw_connection()
    with connection.cursor().copy("COPY article TO STDOUT") as copy:
        ready = b"".join(copy)
    connection.rollback()
    connection.close()
    return ready


def _copy_in(cursor: Any, table: str, ready: bytes) -> None:
    with cursor.copy(f"COPY {table} FROM STDIN") as copy:
        for start in range(0, len(ready), 65_536):
            copy.write(ready[start : start + 65_536])


def _staged(session: Session, ready: bytes) -> None:
    names = [column.name for column in Article.__table__.c if column.name != "id"]
    cursor = session.connection().connection.cursor()
    cursor.execute("CREATE TEMPORARY TABLE staged (LIKE article) ON COMMIT DROP")
    _copy_in(cursor, "staged", ready)
    update = ", ".join(f"{name} = excluded.{name}" for name in names)
    cursor.execute(f"INSERT INTO article SELECT * FROM staged ON CONFLICT (id) DO UPDATE SET {update}")


# --- measuring


def _compare(title: str, ways: Sequence[Way], result: Result, *, rounds: int) -> dict[str, float]:
    """
    Measure ways on the clock in turns, the first one the measure of the others: whole tables, so each way runs alone.

    Returns:
        The median of the ratios to the first way, by name.
    """
    seconds: dict[str, list[float]] = {name: [] for name, _ in ways}
    gc.collect()
    gc.freeze()
    for number in range(rounds + (rounds > 1)):  # the first round warms up
        for name, work in ways if number % 2 else reversed(ways):
            gc.collect()
            start = time.perf_counter()
            work()
            if number or rounds == 1:
                seconds[name].append(time.perf_counter() - start)
    gc.unfreeze()
    base = seconds[ways[0][0]]
    ratios = {
        name: statistics.median(one / other for one, other in zip(found, base, strict=True))
        for name, found in seconds.items()
    }
    rows = [(name, ratios[name], round(statistics.median(found) * 1000)) for name, found in seconds.items()]
    result.tables.append(Table(f"{title} (ratios to the first line)", ("way", "wall", "ms"), [*rows]))
    return ratios


_MEMORY = """
import re, sys
from pathlib import Path
from benchmarks.bulk import Article, Base, row
from stillroom import Databases, Repository
url, path, total = sys.argv[1], sys.argv[2], int(sys.argv[3])
dbs = Databases({"databases": {"main": {"url": url}}})
Base.metadata.drop_all(dbs["main"].engine)
Base.metadata.create_all(dbs["main"].engine)
with dbs.unit_of_work() as uow:
    Repository[Article](uow).load([row(0)])
    Repository[Article](uow).export(path)
# Not getrusage, where a program begins with the peak of the one that started it.
peak = lambda: int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024
start = peak()
with dbs.unit_of_work() as uow:
    Repository[Article](uow).load(row(number) for number in range(1, total))
loaded = peak()
with dbs.unit_of_work() as uow:
    Repository[Article](uow).export(path)
print(loaded - start, peak() - start)
dbs.close()
"""


def _memory(url: str, backend: str, result: Result, scale: Scale) -> None:
    total = scale.pick(1_000_000, 20_000)
    with tempfile.TemporaryDirectory() as directory:
        done = subprocess.run(
            [sys.executable, "-c", _MEMORY, url, f"{directory}/articles.csv", str(total)],
            capture_output=True,
            text=True,
            check=True,
        )
    loaded, both = map(float, done.stdout.split())
    result.tables.append(
        Table(
            f"Peak memory over the start of {total} rows, {backend}",
            ("way", "MiB"),
            [("load from a generator", loaded), ("and export to CSV", both)],
        )
    )
    result.figures.append(Figure(f"MiB of a streamed load and export, {backend}", both, MEMORY_BAR))
