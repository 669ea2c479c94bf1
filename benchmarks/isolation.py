"""
One test, kept from the others by SQLAlchemy's recipe, by Stillroom, and by making its database anew.
"""

from __future__ import annotations

import contextlib
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import ForeignKey, String, create_engine, delete, event, make_url, select
from sqlalchemy import __version__ as sqlalchemy
from sqlalchemy.exc import SAWarning
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from stillroom import Databases
from stillroom.migrations import upgrade
from stillroom.testing import TestOptions, TestRun
from tests.support import servers

from .workload import with_driver

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.engine import Engine

    from stillroom.testing import Isolation

    from .measuring import Work

_CREATE = """
    op.create_table(
        "table_{number}",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.String(50), nullable=False),
        sa.Column("parent_id", sa.Integer{reference}),
    )
"""
_INDEX = """
    op.create_index("index_{number}", "table_{number}", ["name"])
"""
_REVISION = """
import sqlalchemy as sa
from alembic import op
revision, down_revision = {name!r}, {down!r}


def upgrade():{operation}"""


class Base(DeclarativeBase):
    """
    The first tables of the chain, which the body of the test uses; the others are there only to be there.
    """


class First(Base):
    """
    The beginning of the chain of foreign keys.
    """

    __tablename__ = "table_0"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(50))


class Second(Base):
    """
    What refers to the first.
    """

    __tablename__ = "table_1"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(50))
    parent_id: Mapped[int] = mapped_column(ForeignKey("table_0.id"))


class Third(Base):
    """
    What refers to the second.
    """

    __tablename__ = "table_2"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(50))
    parent_id: Mapped[int] = mapped_column(ForeignKey("table_1.id"))


@dataclass(frozen=True)
class Place:
    """
    Where the tests of one backend run.

    Attributes:
        backend: "PostgreSQL" or "SQLite".
        url: Of the database that everybody but Stillroom uses; migrated.
        ours: The URL of Stillroom's settings, which no database needs to have.
        anew: The URL of a database that is dropped and created for each test.
        migrations: The directory of revisions.
    """

    backend: str
    url: str
    ours: str
    anew: str
    migrations: Path

    @property
    def is_file(self) -> bool:
        """
        Whether it is SQLite's.
        """
        return self.backend == "SQLite"


def write_revisions(directory: Path, tables: int, revisions: int) -> Path:
    """
    Write the revisions of a database, one for each table and then for indexes; return their directory.
    """
    versions = directory / "migrations" / "versions"
    versions.mkdir(parents=True)
    down = None
    for number in range(revisions):
        reference = f', sa.ForeignKey("table_{number - 1}.id")' if number else ""
        made = _CREATE.format(number=number, reference=reference)
        operation = made if number < tables else _INDEX.format(number=number - tables)
        name = f"{number:04}"
        (versions / f"{name}.py").write_text(_REVISION.format(name=name, down=down, operation=operation))
        down = name
    return directory / "migrations"


def databases(url: str, migrations: Path) -> Databases:
    """
    Return Stillroom's databases for one URL.
    """
    return Databases({"databases": {"main": {"url": url, "migrations": str(migrations)}}})


def migrate(url: str, migrations: Path) -> None:
    """
    Bring a database to its newest revision.
    """
    with databases(url, migrations) as made:
        upgrade(made)


def body(session: Session) -> None:
    """
    Do what a test does: three inserts along the chain, a commit and a select.
    """
    first = First(name="first")
    session.add(first)
    session.flush()
    second = Second(name="second", parent_id=first.id)
    session.add(second)
    session.flush()
    session.add(Third(name="third", parent_id=second.id))
    session.commit()
    assert len(session.scalars(select(Third)).all()) == 1


def equip(engine: Engine, place: Place) -> Engine:
    """
    Give an engine of SQLAlchemy's for SQLite the BEGIN of its documentation, and what the sandbox sets.

    Without the same pragmas the two would not do the same: foreign keys are looked at, and nothing waits for the disk.
    """
    if not place.is_file:
        return engine

    def connected(connection: Any, _: object) -> None:
        connection.isolation_level = None
        for pragma in ("journal_mode=WAL", "foreign_keys=ON", "synchronous=OFF"):
            connection.execute(f"PRAGMA {pragma}")

    def begun(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN")

    event.listen(engine, "connect", connected)
    event.listen(engine, "begin", begun)
    return engine


def driven(url: str) -> str:
    """
    Return a URL with the driver that everybody is measured with.
    """
    return with_driver(url, "postgresql+psycopg") if url.startswith("postgresql") else url


@contextlib.contextmanager
def bare(place: Place) -> Iterator[Work]:
    """
    SQLAlchemy's recipe: one connection, an outer transaction, and a session that joins it by savepoints.
    """
    engine = equip(create_engine(driven(place.url)), place)
    connection = engine.connect()

    def test() -> None:
        transaction = connection.begin()
        with Session(bind=connection, join_transaction_mode="create_savepoint") as session:
            body(session)
        transaction.rollback()

    try:
        yield test
    finally:
        connection.close()
        engine.dispose()


@dataclass(frozen=True)
class Stillroom:
    """
    Stillroom's ways, in one run of tests.
    """

    run: TestRun

    @property
    def url(self) -> str:
        """
        Where the test database is.
        """
        return self.run.made["main"].url.render_as_string(hide_password=False)

    def unit(self) -> None:
        """
        Run the test in the sandbox, with the unit of work of the fixture `uow`.
        """
        with self.run.isolated(), self.run.databases.unit_of_work(commit="manual") as uow:
            body(uow.main)

    def session(self) -> None:
        """
        Run the test in the sandbox, with a session of SQLAlchemy's: what isolation alone costs.
        """
        self._session("sandbox")

    def committed(self) -> None:
        """
        Run the test with real commits, and clean up.
        """
        self._session("committed")

    def clone(self) -> None:
        """
        Run the test on a database of its own.
        """
        self._session("clone")

    def _session(self, isolation: Isolation) -> None:
        with self.run.isolated(isolation=isolation), Session(self.run.databases["main"].engine) as session:
            body(session)


@contextlib.contextmanager
def stillroom(place: Place) -> Iterator[Stillroom]:
    """
    Stillroom, on its test database.
    """
    with databases(place.ours, place.migrations) as made, TestRun(made, TestOptions()) as run:
        yield Stillroom(run)


@contextlib.contextmanager
def anew(place: Place) -> Iterator[Work]:
    """
    Drop the database, create it and migrate it for the test.
    """

    def test() -> None:
        drop(place.anew)
        if not place.is_file:
            name = make_url(place.anew).database
            servers.postgresql_execute(servers.postgresql_url(), f"CREATE DATABASE {name}")
        with databases(place.anew, place.migrations) as made:
            upgrade(made)
            with Session(made["main"].engine) as session:
                body(session)

    try:
        yield test
    finally:
        drop(place.anew)


def drop(url: str) -> None:
    """
    Remove a database, and what was made from it under longer names.
    """
    parsed = make_url(url)
    name = parsed.database or ""
    if parsed.get_backend_name() == "sqlite":
        for file in Path(name).parent.glob(f"{Path(name).stem}*"):
            file.unlink()
        return
    admin = servers.postgresql_url()
    engine = create_engine(driven(admin))
    with engine.connect() as connection:
        query = "select datname, datistemplate from pg_database where position(%s in datname) > 0"
        found = connection.exec_driver_sql(query, (name,)).all()
    engine.dispose()
    for each, is_template in found:
        if is_template:
            servers.postgresql_execute(admin, f'ALTER DATABASE "{each}" IS_TEMPLATE false')
        servers.postgresql_execute(admin, f'DROP DATABASE "{each}" WITH (FORCE)')


def clear(url: str) -> int:
    """
    Remove what a test has left in a database, and say how many rows that was.
    """
    engine = create_engine(driven(url))
    try:
        with engine.begin() as connection:
            return sum(connection.execute(delete(each)).rowcount for each in (Third, Second, First))
    finally:
        engine.dispose()


class NotIsolated(Exception):
    """
    A way does not do what it would be measured for.
    """


def require_isolated(test: Work, url: str) -> None:
    """
    See that nothing stays of a test, and that another one can follow.

    Raises:
        NotIsolated: Rows are there after it, or it ends in a recursion, as a connection does that begins by itself.
    """
    for _ in range(2):
        error = ""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SAWarning)
            try:
                test()
            except RecursionError:
                error = ", and it ended with RecursionError"
        left = clear(url)
        if left or error:
            raise NotIsolated(f"on SQLAlchemy {sqlalchemy} {left} rows that a test committed are there after it{error}")
