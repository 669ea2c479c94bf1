"""
The BEGIN that travels with the first statement: whatever that statement is, one transaction holds it and what follows.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, ProgrammingError

from stillroom.testing.servers import Proxy
from tests.commits.worlds import PSYCOPG, PSYCOPG_ASYNC, Place, column, databases, execute

if TYPE_CHECKING:
    from collections.abc import Iterator

INSERT = text("INSERT INTO item VALUES (:id)")


@pytest.fixture(params=[PSYCOPG, PSYCOPG_ASYNC], ids=str)
def place(request: pytest.FixtureRequest, postgresql_database: str) -> Iterator[Place]:
    execute(postgresql_database, "CREATE TABLE item (id INTEGER PRIMARY KEY)")
    dbs = databases({"main": {"url": request.param.url(postgresql_database)}})
    with Place(dbs, is_async=request.param.is_async) as opened:
        yield opened


@pytest.fixture(autouse=True)
def _no_warnings_from_the_driver(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    assert [record for record in caplog.records if record.name == "psycopg" and record.levelno >= logging.WARNING] == []


def rows(url: str) -> list[int]:
    return column(url, "SELECT id FROM item ORDER BY id")


def inserting(number: int) -> Any:
    return lambda session: session().execute(INSERT, {"id": number})


def fail(session: Any) -> Any:
    raise LookupError("roll back")


def test_a_first_statement_that_fails_leaves_a_clean_connection(place: Place, postgresql_database: str) -> None:
    ended = place.unit(lambda session: session().execute(text("SELECT * FROM nowhere")))
    assert isinstance(ended.error, ProgrammingError)
    assert place.unit(lambda session: session().execute(INSERT, {"id": 1})).error is None
    assert rows(postgresql_database) == [1]


FIRST = {
    "one statement": lambda session: session().execute(INSERT, {"id": 1}),
    "several statements in one string": lambda session: session().execute(
        text("SELECT 1; INSERT INTO item VALUES (1)")
    ),
    "many parameters": lambda session: session().execute(INSERT, [{"id": 1}, {"id": 2}, {"id": 3}]),
    "a savepoint": lambda session: session().begin_nested().commit(),
    "streamed results": lambda session: (
        session()
        .execute(text("SELECT generate_series(1, 50)"), execution_options={"stream_results": True, "max_row_buffer": 5})
        .close()
    ),
    "an isolation of the user": lambda session: (
        session().connection(execution_options={"isolation_level": "SERIALIZABLE"}).execute(INSERT, {"id": 1})
    ),
}


@pytest.mark.parametrize("first", FIRST)
def test_what_comes_first_is_part_of_the_transaction(first: str, place: Place, postgresql_database: str) -> None:
    def body(session: Any) -> None:
        FIRST[first](session)
        session().execute(INSERT, {"id": 9})
        raise LookupError("roll back")

    assert isinstance(place.unit(body).error, LookupError)
    assert rows(postgresql_database) == []


@pytest.mark.parametrize("first", FIRST)
def test_what_comes_first_is_committed_with_the_rest(first: str, place: Place, postgresql_database: str) -> None:
    def body(session: Any) -> None:
        FIRST[first](session)
        session().execute(INSERT, {"id": 9})

    assert place.unit(body).error is None
    assert place.unit(lambda session: session().execute(INSERT, {"id": 10})).error is None
    assert rows(postgresql_database)[-2:] == [9, 10]


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_copy_through_the_raw_connection_is_part_of_the_transaction(end: str, postgresql_database: str) -> None:
    execute(postgresql_database, "CREATE TABLE item (id INTEGER PRIMARY KEY)")

    def body(session: Any) -> None:
        raw = session().connection().connection
        with raw.cursor() as cursor, cursor.copy("COPY item FROM STDIN") as copy:
            copy.write_row((1,))
        if end == "rollback":
            fail(session)

    with Place(databases({"main": {"url": PSYCOPG.url(postgresql_database)}})) as opened:
        opened.unit(body)
    assert rows(postgresql_database) == ([1] if end == "commit" else [])


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_asynchronous_copy_is_part_of_the_transaction(end: str, postgresql_database: str) -> None:
    execute(postgresql_database, "CREATE TABLE item (id INTEGER PRIMARY KEY)")
    dbs = databases({"main": {"url": PSYCOPG_ASYNC.url(postgresql_database)}})

    async def run() -> None:
        async with dbs, dbs.async_unit_of_work() as unit:
            connection = await unit.session().connection()
            raw = (await connection.get_raw_connection()).driver_connection
            assert raw is not None
            async with raw.cursor() as cursor, cursor.copy("COPY item FROM STDIN") as copy:
                await copy.write_row((1,))
            if end == "rollback":
                unit.doom()

    asyncio.run(run())
    assert rows(postgresql_database) == ([1] if end == "commit" else [])


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_a_pipeline_of_the_user_is_part_of_the_transaction(end: str, postgresql_database: str) -> None:
    execute(postgresql_database, "CREATE TABLE item (id INTEGER PRIMARY KEY)")

    def body(session: Any) -> None:
        driver = session().connection().connection.driver_connection
        with driver.pipeline(), driver.cursor() as cursor:
            cursor.execute("INSERT INTO item VALUES (1)")
            cursor.execute("INSERT INTO item VALUES (2)")
        if end == "rollback":
            fail(session)

    with Place(databases({"main": {"url": PSYCOPG.url(postgresql_database)}})) as opened:
        opened.unit(body)
    assert rows(postgresql_database) == ([1, 2] if end == "commit" else [])


def test_a_first_statement_that_cannot_be_sent_does_not_use_up_the_isolation(place: Place) -> None:
    def body(session: Any) -> Any:
        with pytest.raises(ProgrammingError):
            session().execute(text("SELECT :value"), {"value": object()})
        return session().execute(text("SELECT current_setting('transaction_isolation')")).scalar()

    assert place.unit(body, isolation="SERIALIZABLE").seen == "serializable"


def test_a_driver_that_gives_up_prepared_statements_leaves_a_clean_connection(place: Place) -> None:
    def body(session: Any) -> Any:
        driver = session().connection().connection.driver_connection
        driver.prepare_threshold, driver.prepared_max = 0, 1
        seen = session().execute(text(f"SELECT {number}")).scalar()
        return seen, session().execute(text("SELECT count(*) FROM pg_prepared_statements")).scalar() < 4

    for number in range(6):
        assert place.unit(body).seen == (number, True)


def test_prepared_statements_change_nothing(place: Place, postgresql_database: str) -> None:
    for number in range(12):
        assert place.unit(inserting(number)).error is None
        ended = place.unit(lambda session: (session().execute(INSERT, {"id": 99}), fail(session)))
        assert isinstance(ended.error, LookupError)
    assert rows(postgresql_database) == list(range(12))


def test_a_prepared_statement_that_fails_first_leaves_a_clean_connection(
    place: Place, postgresql_database: str
) -> None:
    for number in range(8):
        assert place.unit(inserting(number)).error is None
    for _ in range(3):
        assert isinstance(place.unit(lambda session: session().execute(INSERT, {"id": 1})).error, DBAPIError)
    assert place.unit(lambda session: session().execute(INSERT, {"id": 8})).error is None
    assert rows(postgresql_database) == list(range(9))


@pytest.mark.parametrize("world", [PSYCOPG, PSYCOPG_ASYNC], ids=str)
def test_behind_a_pooler_each_transaction_carries_its_settings_and_leaves_none(
    world: Any, postgresql_database: str
) -> None:
    query = text("SELECT current_setting('statement_timeout'), current_setting('transaction_read_only')")
    with Proxy(port=make_url(postgresql_database).port or 0) as proxy:
        url = world.url(proxy.url(postgresql_database))
        dbs = databases({"main": {"url": url, "pooler": True, "statement_timeout": 1.5}})
        with Place(dbs, is_async=world.is_async) as opened:
            for _ in range(7):
                proxy.reset()
                assert tuple(opened.unit(lambda session: session().execute(query).one()).seen) == ("1500ms", "off")
                seen = opened.unit(lambda session: session(role="reader").execute(query).one()).seen
                assert tuple(seen) == ("1500ms", "on")
            assert proxy.trips == 4


def test_a_user_may_leave_transactions_and_the_next_one_has_them_again(place: Place, postgresql_database: str) -> None:
    def body(session: Any) -> None:
        connection = session().connection(execution_options={"isolation_level": "AUTOCOMMIT"})
        connection.execute(text("CREATE INDEX CONCURRENTLY item_id ON item (id)"))

    def insert_and_fail(session: Any) -> None:
        session().execute(INSERT, {"id": 1})
        raise LookupError("roll back")

    assert place.unit(body).error is None
    assert isinstance(place.unit(insert_and_fail).error, LookupError)
    assert rows(postgresql_database) == []
    assert place.unit(inserting(2)).error is None
    assert rows(postgresql_database) == [2]
