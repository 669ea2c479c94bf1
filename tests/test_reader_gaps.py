"""
What one user of a pooled connection asked for is not left to the next: a right to write, a snapshot, a limit.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError

from stillroom import Databases
from stillroom.errors import ReadOnlyError, UnitOfWorkTimeout

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

PSYCOPG = ("psycopg", False)
PSYCOPG_ASYNC = ("psycopg", True)
ASYNCPG = ("asyncpg", True)
PYMYSQL = ("pymysql", False)
AIOMYSQL = ("aiomysql", True)
POSTGRESQL = pytest.mark.parametrize("driver", [PSYCOPG, PSYCOPG_ASYNC, ASYNCPG], ids=str)
WITH_PSYCOPG = pytest.mark.parametrize("driver", [PSYCOPG, PSYCOPG_ASYNC], ids=str)


class One:
    """
    The database `main` with one connection for writing and one for reading, used by units of work one after the other.

    Args:
        url: Of the database.
        driver: Its name, and whether the units run in asyncio.
    """

    def __init__(self, url: str, driver: tuple[str, bool]) -> None:
        name, self.is_async = driver
        parsed = make_url(url)
        named = parsed.set(drivername=f"{parsed.get_backend_name()}+{name}").render_as_string(hide_password=False)
        self.dbs = Databases({"databases": {"main": {"url": named, "pool_size": 1, "max_overflow": 0}}})
        self.runner = asyncio.Runner()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.is_async:
            self.runner.run(self.dbs.aclose())
        else:
            self.dbs.close()
        self.runner.close()

    def unit(self, body: Callable[[Any], Any], *, of: str = "reader", snapshot: bool = False, **options: Any) -> Any:
        """
        Return what `body` returns for the plain Session of a unit of work's reader, or of its writer.
        """
        if self.is_async:
            return self.runner.run(self._unit(body, of, snapshot, options))
        with self.dbs.unit_of_work(**options) as uow:
            session: Any = getattr(uow, of)
            return body(session(snapshot=True) if snapshot else session)

    async def _unit(self, body: Callable[[Any], Any], of: str, snapshot: bool, options: dict[str, Any]) -> Any:
        async with self.dbs.async_unit_of_work(**options) as uow:
            session: Any = getattr(uow, of)
            return await (session(snapshot=True) if snapshot else session).run_sync(body)

    @property
    def engine(self) -> Any:
        """
        What SQLAlchemy's events of the reader's connections come from.
        """
        return self.unit(lambda session: session.connection().engine)


def asking(statement: str) -> Callable[[Any], Any]:
    return lambda session: session.scalar(text(statement))


def rows(session: Any) -> int:
    return int(session.scalar(text("select count(*) from notes")))


# --- the right to write


UNLOCKING = [
    ("sqlite", "/* a comment */ pragma query_only = off"),
    ("sqlite", "-- a comment\npragma query_only = off"),
    ("postgresql", "/* a comment */ set default_transaction_read_only = off"),
    ("postgresql", "select 1; set default_transaction_read_only = off"),
    ("postgresql", "do $$ begin set default_transaction_read_only = off; end $$"),
    ("postgresql", "set session characteristics as transaction read write"),
    ("mariadb", "/* a comment */ set session transaction read write"),
    ("mariadb", "execute immediate 'set session transaction read write'"),
]
SYNC = {"sqlite": ("pysqlite", False), "postgresql": PSYCOPG, "mariadb": PYMYSQL}


@pytest.mark.parametrize(("backend", "statement"), UNLOCKING)
def test_the_next_reader_cannot_write_whatever_the_last_one_switched_off(
    backend: str, statement: str, request: pytest.FixtureRequest
) -> None:
    with One(request.getfixturevalue(f"{backend}_database"), SYNC[backend]) as one:
        one.unit(lambda session: session.execute(text("create table notes (id integer)")), of="main")
        one.unit(lambda session: session.execute(text(statement)).close())
        with pytest.raises(ReadOnlyError):
            one.unit(lambda session: session.execute(text("insert into notes values (1)")))
        assert one.unit(rows) == 0


# --- snapshots


@WITH_PSYCOPG
def test_a_snapshot_that_was_never_used_is_not_the_next_readers(
    driver: tuple[str, bool], postgresql_database: str
) -> None:
    def sees_the_newest(session: Any) -> tuple[int, int, str]:
        before = rows(session)
        with Databases({"databases": {"main": {"url": postgresql_database}}}) as dbs, dbs.unit_of_work() as uow:
            uow.main.execute(text("insert into notes values (1)"))
        return before, rows(session), str(session.scalar(text("show transaction_isolation")))

    with One(postgresql_database, driver) as one:
        one.unit(lambda session: session.execute(text("create table notes (id integer)")), of="main")
        one.unit(lambda session: session.connection() and None, snapshot=True)
        assert one.unit(sees_the_newest) == (0, 1, "read committed")


# --- limits


SHOW_LIMIT = asking("show statement_timeout")


@pytest.mark.parametrize("snapshot", [False, True], ids=["plain", "snapshot"])
@POSTGRESQL
def test_the_limit_of_a_reader_ends_its_statement_and_goes_with_it(
    driver: tuple[str, bool], snapshot: bool, postgresql_database: str
) -> None:
    with One(postgresql_database, driver) as one:
        usual = one.unit(SHOW_LIMIT)
        for _ in range(2):
            limited = one.unit(SHOW_LIMIT, snapshot=snapshot, timeout=30)
            assert limited != usual
            assert (one.unit(SHOW_LIMIT), one.unit(SHOW_LIMIT, snapshot=True)) == (usual, usual)
        with pytest.raises(UnitOfWorkTimeout):
            one.unit(asking("select 1 from pg_sleep(30)"), snapshot=snapshot, timeout=0.2)
        assert (one.unit(SHOW_LIMIT), one.unit(SHOW_LIMIT, snapshot=True)) == (usual, usual)
        # A limit of an earlier unit, kept for the next transaction, would end this.
        assert one.unit(asking("select 1 from pg_sleep(0.3)"), snapshot=True) == 1


@pytest.mark.parametrize("driver", [PYMYSQL, AIOMYSQL, PSYCOPG, PSYCOPG_ASYNC, ASYNCPG], ids=str)
def test_a_limit_costs_a_reader_no_new_connection(driver: tuple[str, bool], request: pytest.FixtureRequest) -> None:
    is_mariadb = driver in (PYMYSQL, AIOMYSQL)
    url = request.getfixturevalue("mariadb_database" if is_mariadb else "postgresql_database")
    connected: list[Any] = []
    with One(url, driver) as one:
        event.listen(one.engine, "connect", lambda connection, _: connected.append(connection))
        who = asking("select connection_id()" if is_mariadb else "select pg_backend_pid()")
        assert len({one.unit(who, timeout=30) for _ in range(3)} | {one.unit(who)}) == 1
    assert connected == []


def test_a_reader_with_a_limit_that_unlocks_itself_leaves_no_right_to_write(mariadb_database: str) -> None:
    with One(mariadb_database, PYMYSQL) as one:
        one.unit(lambda session: session.execute(text("create table notes (id integer)")), of="main")
        one.unit(lambda session: session.execute(text("set session transaction read write")), timeout=30)
        with pytest.raises(ReadOnlyError):
            one.unit(lambda session: session.execute(text("insert into notes values (1)")))


# --- execution options of PostgreSQL


@WITH_PSYCOPG
def test_the_options_for_a_read_only_and_a_deferrable_transaction_hold_for_one(
    driver: tuple[str, bool], postgresql_database: str
) -> None:
    shown = text("select current_setting('transaction_read_only') || current_setting('transaction_deferrable')")

    def with_options(**options: bool) -> Callable[[Any], Any]:
        return lambda session: session.connection(execution_options=options).scalar(shown)

    def writes(session: Any) -> None:
        session.connection(execution_options={"postgresql_readonly": True})
        session.execute(text("create table never (id integer)"))

    with One(postgresql_database, driver) as one:
        plain = one.unit(with_options(), of="main")
        assert plain == "offoff"
        for options, expected in (
            ({"postgresql_readonly": True}, "onoff"),
            ({"postgresql_deferrable": True}, "offon"),
            ({"postgresql_readonly": True, "postgresql_deferrable": True}, "onon"),
        ):
            assert one.unit(with_options(**options), of="main") == expected
            assert one.unit(with_options(), of="main") == "offoff"
        with pytest.raises(DBAPIError, match="read-only transaction"):
            one.unit(writes, of="main")
        one.unit(lambda session: session.execute(text("create table notes (id integer)")), of="main")
        assert one.unit(rows) == 0
