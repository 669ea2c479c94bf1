"""
What a unit of work says of itself is true: after an interrupt, a lost answer, or a transaction that ended unasked.
"""

from __future__ import annotations

import contextlib
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.schema import CreateTable

from stillroom import Retry
from stillroom.errors import CommitOutcomeUnknown, SerializationFailure, TransactionAborted
from stillroom.status import Status
from stillroom.testing.servers import Proxy
from tests.commits.worlds import (
    AIOMYSQL,
    ASYNCPG,
    COMMIT,
    PSYCOPG,
    PYMYSQL,
    WORLDS,
    Place,
    World,
    column,
    databases,
    execute,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Executable

SQLITE = World("sqlite_database", "pysqlite", is_async=False)
AIOSQLITE = World("sqlite_database", "aiosqlite", is_async=True)
FILES = (SQLITE, AIOSQLITE)
THRICE = Retry(attempts=3, base=0)


class Site:
    """
    A table `item` in a database of a world, reached by the library through `reach`, and by the test directly.
    """

    def __init__(self, world: World, url: str, reach: str | None = None) -> None:
        self.world = world
        self.url = url
        self.reach = world.url(reach or url)
        execute(url, "CREATE TABLE item (id INTEGER PRIMARY KEY)")

    def open(self, **settings: Any) -> Place:
        """
        Declare the database; `settings` are added.
        """
        return Place(databases({"main": {"url": self.reach, **settings}}), is_async=self.world.is_async)

    def rows(self) -> list[int]:
        """
        Return the rows that are durable.
        """
        return column(self.url, "SELECT id FROM item ORDER BY id")


@pytest.fixture
def site(request: pytest.FixtureRequest) -> Site:
    """
    The database of the world that the test is parametrized with, `indirect`.
    """
    world = request.param
    return Site(world, request.getfixturevalue(world.fixture))


@pytest.fixture(params=WORLDS, ids=str)
def proxied(request: pytest.FixtureRequest) -> Iterator[tuple[Site, Proxy]]:
    """
    The database of each world with a server, behind a proxy.
    """
    world = request.param
    url = request.getfixturevalue(world.fixture)
    with Proxy(port=make_url(url).port or 0) as proxy:
        yield Site(world, url, proxy.url(url)), proxy


def worlds(*each: World) -> pytest.MarkDecorator:
    """
    Run the test with the fixture `site` in these worlds.
    """
    return pytest.mark.parametrize("site", each, indirect=True, ids=str)


def insert(number: int) -> Executable:
    return text(f"INSERT INTO item VALUES ({number})")


# --- an interrupt from the keyboard while SQLite commits


def interrupt_commit(driver: Any, *, written: bool) -> None:
    """
    Let the signal of Ctrl-C come with the next COMMIT, before the driver writes or when it has: then Python raises it.
    """

    def commit() -> None:
        del driver.commit
        if written:
            driver.commit()
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(1000):  # the interpreter looks for signals at its own moments
            pass
        pytest.fail("the signal did not come")

    driver.commit = commit


@pytest.mark.parametrize("written", [True, False], ids=["after", "before"])
def test_an_interrupted_commit_of_sqlite_says_what_the_file_says(sqlite_database: str, written: bool) -> None:
    site = Site(SQLITE, sqlite_database)

    def body(session: Any) -> None:
        session().execute(insert(1))
        interrupt_commit(session().connection().connection.driver_connection, written=written)

    with site.open() as place:
        ended = place.unit(body)
        after = place.unit(lambda session: session().execute(insert(2)))
    assert isinstance(ended.error, KeyboardInterrupt)
    assert ended.status is (Status.COMMITTED if written else Status.ROLLED_BACK)
    assert ended.hooks == (["commit"] if written else ["rollback"])
    assert site.rows() == ([1, 2] if written else [2])
    assert after.status is Status.COMMITTED


# --- SQLite rolls back by itself, and the error is swallowed

ROLLBACK_OF_KEY_9 = (
    "CREATE TRIGGER no_nine BEFORE INSERT ON item WHEN new.id = 9 BEGIN SELECT RAISE(ROLLBACK, 'no nine'); END"
)
ENDLESS = """
    INSERT INTO item WITH RECURSIVE n (i) AS (SELECT 100 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n LIMIT 90000000
"""
ENDINGS = {"trigger": "INSERT INTO item VALUES (9)", "statement_timeout": ENDLESS}


@pytest.mark.parametrize("ending", ENDINGS)
@worlds(*FILES)
def test_what_follows_a_rollback_of_sqlite_itself_is_refused(site: Site, ending: str) -> None:
    execute(site.url, ROLLBACK_OF_KEY_9)

    def body(session: Any) -> None:
        session().execute(insert(1))
        with contextlib.suppress(DBAPIError):
            session().execute(text(ENDINGS[ending]))
        session().execute(insert(2))  # without a transaction it would commit by itself

    with site.open(statement_timeout=0.05) as place:
        ended = place.unit(body)
        assert place.unit(lambda session: session().execute(insert(3))).status is Status.COMMITTED
    assert isinstance(ended.error, TransactionAborted)
    assert (ended.status, ended.hooks) == (Status.ROLLED_BACK, ["rollback"])
    assert site.rows() == [3]


@pytest.mark.parametrize("ending", ENDINGS)
def test_nor_does_a_savepoint_save_what_sqlite_rolled_back(sqlite_database: str, ending: str) -> None:
    site = Site(SQLITE, sqlite_database)
    execute(site.url, ROLLBACK_OF_KEY_9)
    with site.open(statement_timeout=0.05) as place:
        unit = place.dbs.unit_of_work()
        with pytest.raises(TransactionAborted), unit:
            unit.main.execute(insert(1))
            with pytest.raises(DBAPIError), unit.savepoint():
                unit.main.execute(text(ENDINGS[ending]))
            unit.main.execute(insert(2))
    assert unit.status is Status.ROLLED_BACK
    assert site.rows() == []


# --- transactions that end before their unit of work does


def commit_in_sql(session: Any) -> None:
    session().execute(insert(1))
    session().execute(text("COMMIT"))


def autocommit(session: Any) -> None:
    session().connection(execution_options={"isolation_level": "AUTOCOMMIT"}).execute(insert(1))


def text_of_ddl(session: Any) -> None:
    session().execute(insert(1))
    session().execute(text("CREATE TABLE IF NOT EXISTS other (id INTEGER)"))


def compiled_ddl(session: Any) -> None:
    session().execute(insert(1))
    session().execute(CreateTable(Table("other", MetaData(), Column("id", Integer)), if_not_exists=True))


EARLY = [
    *((world, ends) for world in (*WORLDS, *FILES) for ends in (commit_in_sql, autocommit)),
    *((world, ends) for world in (PYMYSQL, AIOMYSQL) for ends in (text_of_ddl, compiled_ddl)),
]


@pytest.mark.parametrize(
    ("site", "ends"), EARLY, indirect=["site"], ids=lambda value: getattr(value, "__name__", None) or str(value)
)
def test_a_unit_that_fails_after_its_transaction_ended_is_partly_committed(
    site: Site, ends: Callable[[Any], None]
) -> None:
    runs: list[int] = []

    def body(session: Any) -> None:
        runs.append(1)
        ends(session)
        raise SerializationFailure("one that would be tried again")

    with site.open() as place:
        ended = place.unit(body)
        assert site.rows() == [1]
        execute(site.url, "DELETE FROM item")
        error = place.call(body, retry=THRICE)
    assert isinstance(ended.error, SerializationFailure)
    assert (ended.status, ended.hooks) == (Status.PARTLY_COMMITTED, [])
    assert isinstance(error, SerializationFailure)
    assert (len(runs), site.rows()) == (2, [1])


@worlds(PYMYSQL, AIOMYSQL)
def test_plain_sql_that_ends_no_transaction_leaves_a_unit_that_can_be_rolled_back(site: Site) -> None:
    def body(session: Any) -> None:
        session().execute(insert(1))
        session().execute(text("CREATE TEMPORARY TABLE passing (id INTEGER)"))
        session().execute(text("SELECT 1")).all()
        raise LookupError

    with site.open() as place:
        assert place.unit(body).status is Status.ROLLED_BACK
    assert site.rows() == []


# --- lost answers to a COMMIT that is not the unit's own


def test_a_lost_answer_to_a_commit_by_hand_is_unknown_and_not_run_again(proxied: tuple[Site, Proxy]) -> None:
    site, proxy = proxied
    runs: list[int] = []

    def body(session: Any) -> None:
        runs.append(1)
        session().execute(insert(len(runs)))
        proxy.on_client(COMMIT, "cut_after")
        session().commit()

    with site.open() as place:
        ended = place.unit(body)
        error = place.call(body, retry=THRICE)
    assert isinstance(ended.error, DBAPIError)
    assert (ended.status, ended.hooks) == (Status.UNKNOWN, [])
    assert isinstance(error, DBAPIError)
    assert (len(runs), site.rows()) == (2, [1, 2])


def test_a_lost_answer_to_the_loggers_commit_is_unknown_and_not_run_again(
    proxied: tuple[Site, Proxy], sqlite_database: str
) -> None:
    site, proxy = proxied
    runs: list[int] = []

    def body(session: Any) -> None:
        runs.append(1)
        session("log").execute(insert(len(runs)))
        proxy.on_client(COMMIT, "cut_after")

    settings = {"main": {"url": sqlite_database}, "log": {"url": site.reach, "role": "logger"}}
    with Place(databases(settings, default="main"), is_async=site.world.is_async) as place:
        ended = place.unit(body)
        error = place.call(body, retry=THRICE)
    assert isinstance(ended.error, CommitOutcomeUnknown)
    assert (ended.status, ended.hooks) == (Status.UNKNOWN, [])
    assert isinstance(error, CommitOutcomeUnknown)
    assert (len(runs), site.rows()) == (2, [1, 2])


def test_a_commit_that_the_limit_of_asyncpg_cut_short_is_unknown(postgresql_database: str) -> None:
    with Proxy(port=make_url(postgresql_database).port or 0) as proxy:
        site = Site(ASYNCPG, postgresql_database, proxy.url(postgresql_database))
        with site.open(connect_args={"command_timeout": 0.3}, commit_timeout=20) as place:
            assert place.unit(lambda session: session().execute(insert(1))).error is None
            proxy.on_client(COMMIT, "black_hole_after")
            ended = place.unit(lambda session: session().execute(insert(2)))
    assert isinstance(ended.error, CommitOutcomeUnknown)
    assert (ended.status, ended.hooks) == (Status.UNKNOWN, [])
    assert site.rows() == [1, 2]


def test_a_unit_is_not_blamed_for_the_lost_answer_of_one_that_used_its_connection_later(
    postgresql_database: str,
) -> None:
    with Proxy(port=make_url(postgresql_database).port or 0) as proxy:
        site = Site(PSYCOPG, postgresql_database, proxy.url(postgresql_database))
        with site.open(pool_size=1, max_overflow=0) as place:
            first = place.dbs.unit_of_work()
            with pytest.raises(LookupError), first:
                first.main.execute(insert(1))
                first.main.rollback()  # the connection is back in the pool
                with pytest.raises(CommitOutcomeUnknown), place.dbs.unit_of_work() as second:
                    second.main.execute(insert(2))
                    proxy.on_client(COMMIT, "cut_after")
                raise LookupError
    assert (first.status, second.status) == (Status.ROLLED_BACK, Status.UNKNOWN)
    assert site.rows() == [2]
