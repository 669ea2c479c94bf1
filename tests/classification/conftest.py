"""
Databases with a few tables, made once for all tests of the classification.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import NullPool, create_engine, make_url, text

from tests.support import servers

from .drivers import MARIADB, POSTGRESQL, SQLITE, Client

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PARENT = """create table parent (
    id int primary key,
    code varchar(10) not null,
    amount int not null,
    small smallint,
    constraint uq_parent_code unique (code),
    constraint ck_parent_amount check (amount >= 0)
)"""
CHILD = """create table child (
    id int primary key,
    parent_id int not null,
    constraint fk_child_parent foreign key (parent_id) references parent (id)
)"""
ROWS = "insert into parent (id, code, amount) values (1, 'one', 1), (2, 'two', 2)"
TABLES = (PARENT, CHILD, ROWS, "insert into child (id, parent_id) values (1, 1)")
BOOKING = """create table booking (
    during int4range,
    constraint ex_booking_during exclude using gist (during with &&)
)"""


def execute(url: str, *statements: str) -> None:
    """
    Run statements, each committed by itself.
    """
    engine = create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for statement in statements:
            connection.execute(text(statement))


def with_driver(url: str, drivername: str) -> str:
    """
    Name the driver in a URL.
    """
    return make_url(url).set(drivername=drivername).render_as_string(hide_password=False)


@pytest.fixture(scope="session")
def classified_postgresql(postgresql_url: str) -> Iterator[str]:
    """
    The URL of a PostgreSQL database with the tables.
    """
    with servers.postgresql_database(postgresql_url) as plain:
        url = with_driver(plain, "postgresql+psycopg")
        execute(url, *TABLES, BOOKING, "insert into booking values ('[1,5)')")
        yield url


@pytest.fixture(scope="session")
def classified_mariadb(mariadb_url: str) -> Iterator[str]:
    """
    The URL of a MariaDB database with the tables.
    """
    with servers.mariadb_database(mariadb_url) as plain:
        url = with_driver(plain, "mariadb+pymysql")
        execute(url, *TABLES, "create table many (id int primary key, n int not null)")
        execute(url, "insert into many select seq, 0 from seq_1_to_200")
        yield url


@pytest.fixture(params=[driver.param() for driver in POSTGRESQL])
def postgresql(request: pytest.FixtureRequest, classified_postgresql: str) -> Client:
    """
    PostgreSQL through each driver.
    """
    return Client(request.param, classified_postgresql)


@pytest.fixture(params=[driver.param() for driver in MARIADB])
def mariadb(request: pytest.FixtureRequest, classified_mariadb: str) -> Client:
    """
    MariaDB through each driver.
    """
    return Client(request.param, classified_mariadb)


@pytest.fixture(params=[driver.param() for driver in SQLITE])
def sqlite(request: pytest.FixtureRequest, tmp_path: Path) -> Client:
    """
    An SQLite file with the tables, through each driver; a locked file fails at once.
    """
    url = f"sqlite:///{tmp_path / 'classified.db'}"
    execute(url, *TABLES)
    return Client(request.param, url, {"timeout": 0})


@pytest.fixture
def postgresql_role(classified_postgresql: str) -> Iterator[str]:
    """
    The name of a PostgreSQL role that may log in once at a time and has no rights.
    """
    name = f"stillroom_{uuid.uuid4().hex[:12]}"
    execute(classified_postgresql, f"create role {name} login connection limit 0")
    yield name
    execute(classified_postgresql, f"drop role {name}")


@pytest.fixture
def mariadb_user(classified_mariadb: str) -> Iterator[str]:
    """
    The name of a MariaDB user who may see one table, with password "right" and one connection at a time.
    """
    name = f"stillroom_{uuid.uuid4().hex[:12]}"
    execute(
        classified_mariadb,
        f"create user {name}@'%' identified by 'right' with max_user_connections 1",
        f"grant select on child to {name}@'%'",
    )
    yield name
    execute(classified_mariadb, f"drop user {name}@'%'")
