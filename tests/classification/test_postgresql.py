"""
PostgreSQL's errors through psycopg (synchronous and not) and asyncpg.
"""

from __future__ import annotations

import operator
import pickle
import queue
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import exc, text

from stillroom.classification import Details, Kind, classify, details, is_retryable, translate
from stillroom.testing.servers import free_port, wait_until

from .drivers import PATIENCE, Client, commit, meanwhile, run

if TYPE_CHECKING:
    from sqlalchemy import Connection

CASES = {
    "primary key": ("insert into parent values (1, 'x', 1)", Kind.UNIQUE_VIOLATION, "23505"),
    "unique": ("insert into parent values (9, 'one', 1)", Kind.UNIQUE_VIOLATION, "23505"),
    "foreign key": ("insert into child values (9, 77)", Kind.FOREIGN_KEY_VIOLATION, "23503"),
    "referred to": ("delete from parent where id = 1", Kind.FOREIGN_KEY_VIOLATION, None),
    "not null": ("insert into parent values (9, 'x', null)", Kind.NOT_NULL_VIOLATION, "23502"),
    "check": ("insert into parent values (9, 'x', -1)", Kind.CHECK_VIOLATION, "23514"),
    "exclusion": ("insert into booking values ('[3,9)')", Kind.EXCLUSION_VIOLATION, "23P01"),
    "no table": ("select * from nowhere", Kind.UNDEFINED_TABLE, "42P01"),
    "no column": ("select nothing from parent", Kind.UNDEFINED_COLUMN, "42703"),
    "syntax": ("selec 1", Kind.INVALID_SQL, "42601"),
    "too long": ("insert into parent values (9, '12345678901', 1)", Kind.INVALID_DATA, "22001"),
    "out of range": ("insert into parent values (9, 'x', 1, 99999)", Kind.INVALID_DATA, "22003"),
    "no number": ("select cast('x' as int)", Kind.INVALID_DATA, "22P02"),
    "no function": ("select no_such_function()", None, "42883"),
}
# What cannot be provoked on a server that others use as well: the server sends the code that it is told to.
RAISED = {
    "23001": Kind.FOREIGN_KEY_VIOLATION,
    "25P03": Kind.DISCONNECTED,
    "25P04": Kind.DISCONNECTED,
    "08006": Kind.DISCONNECTED,
    "57P01": Kind.DISCONNECTED,
    "57P02": Kind.DISCONNECTED,
    "57P03": Kind.DISCONNECTED,
    "57P04": Kind.DISCONNECTED,
    "57P05": Kind.DISCONNECTED,
    "53100": Kind.DISK_FULL,
    "53300": Kind.TOO_MANY_CONNECTIONS,
    "40003": None,
    "55000": None,
    "P0001": None,
}


@pytest.mark.parametrize("case", CASES)
def test_a_failed_statement_has_the_kind_of_its_sqlstate(postgresql: Client, case: str) -> None:
    statement, kind, code = CASES[case]
    error = postgresql.fail(statement)
    assert classify(error) is kind
    assert code is None or details(error).code == code


@pytest.mark.parametrize("code", RAISED)
def test_a_code_that_the_server_sends_has_its_kind(postgresql: Client, code: str) -> None:
    error = postgresql.fail(f"do $$ begin raise exception 'x' using errcode = '{code}'; end $$")
    assert classify(error) is RAISED[code]
    assert details(error).code == code


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("insert into parent values (9, 'one', 1)", Details("23505", "uq_parent_code", "parent", (), "public")),
        ("insert into child values (9, 77)", Details("23503", "fk_child_parent", "child", (), "public")),
        ("insert into parent values (9, 'x', null)", Details("23502", None, "parent", ("amount",), "public")),
        ("insert into parent values (9, 'x', -1)", Details("23514", "ck_parent_amount", "parent", (), "public")),
        ("insert into booking values ('[3,9)')", Details("23P01", "ex_booking_during", "booking", (), "public")),
        ("selec 1", Details("42601")),
    ],
)
def test_details_come_from_the_drivers_own_fields(postgresql: Client, statement: str, expected: Details) -> None:
    assert details(postgresql.fail(statement)) == expected


def test_the_drivers_error_has_the_kind_of_sqlalchemys(postgresql: Client) -> None:
    error = postgresql.fail("insert into parent values (9, 'one', 1)")
    assert isinstance(error, exc.DBAPIError)
    assert error.orig is not None
    driver_error = error.orig.__cause__ or error.orig
    assert classify(driver_error) is Kind.UNIQUE_VIOLATION
    assert details(driver_error).constraint == "uq_parent_code"


def test_translating_gives_our_class_whatever_sqlalchemy_made_of_it(postgresql: Client) -> None:
    error = postgresql.fail("set local statement_timeout = '50ms'", "select pg_sleep(10)")
    assert isinstance(error, exc.DBAPIError)
    translated = translate(error, "main")
    assert isinstance(translated, Kind.STATEMENT_TIMEOUT.error)
    assert (translated.code, translated.database, translated.orig) == ("57014", "main", error.orig)


def test_a_cancelled_query_counts_as_a_timeout_because_its_code_is_the_same(
    postgresql: Client, classified_postgresql: str
) -> None:
    def scenario(connection: Connection) -> None:
        pid = connection.scalar(text("select pg_backend_pid()"))
        asleep = text("select count(*) from pg_stat_activity where pid = :pid and wait_event = 'PgSleep'")

        def cancel(other: Connection) -> None:
            def sleeps() -> bool:
                other.rollback()  # or the snapshot of the activity stays as it was
                return bool(other.scalar(asleep, {"pid": pid}))

            wait_until(sleeps, "the query sleeps")
            other.execute(text("select pg_cancel_backend(:pid)"), {"pid": pid})

        with meanwhile(classified_postgresql, cancel):
            run(connection, "select pg_sleep(20)")

    assert classify(postgresql.provoke(scenario)) is Kind.STATEMENT_TIMEOUT


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_an_update_of_what_another_transaction_changed_is_a_serialization_failure(
    postgresql: Client, level: str
) -> None:
    def scenario(first: Connection, second: Connection) -> None:
        run(first, f"set transaction isolation level {level}", "select * from parent")
        commit(second, "update parent set small = 1 where id = 2")
        run(first, "update parent set small = 2 where id = 2")

    error = postgresql.provoke(scenario, connections=2)
    assert classify(error) is Kind.SERIALIZATION_FAILURE
    assert is_retryable(error)


def test_the_victim_of_a_deadlock_may_run_again(postgresql: Client, classified_postgresql: str) -> None:
    pids: queue.Queue[int] = queue.Queue()

    def crossing(other: Connection) -> None:
        pids.put(other.scalar(text("select pg_backend_pid()")) or 0)
        run(other, "set local deadlock_timeout = '15s'", "update parent set small = 3 where id = 2")
        run(other, "update parent set small = 3 where id = 1")

    def scenario(connection: Connection) -> None:
        run(connection, "set local deadlock_timeout = '50ms'", "update parent set small = 4 where id = 1")
        with meanwhile(classified_postgresql, crossing):
            waiting = text("select count(*) from pg_locks where not granted and pid = :pid")
            pid = {"pid": pids.get(timeout=PATIENCE)}
            wait_until(lambda: connection.scalar(waiting, pid) == 1, "the other transaction waits")
            try:
                run(connection, "update parent set small = 4 where id = 2")
            finally:
                connection.rollback()

    error = postgresql.provoke(scenario)
    assert classify(error) is Kind.DEADLOCK
    assert is_retryable(error)


@pytest.mark.parametrize(
    "statements",
    [
        ("set local lock_timeout = '50ms'", "update parent set small = 2 where id = 2"),
        ("select * from parent where id = 2 for update nowait",),
    ],
    ids=["timeout", "nowait"],
)
def test_a_lock_that_is_not_granted_is_a_lock_timeout(postgresql: Client, statements: tuple[str, ...]) -> None:
    def scenario(first: Connection, second: Connection) -> None:
        run(first, "update parent set small = 1 where id = 2")
        run(second, *statements)

    error = postgresql.provoke(scenario, connections=2)
    assert classify(error) is Kind.LOCK_TIMEOUT
    assert is_retryable(error)


@pytest.mark.parametrize("begun", [False, True], ids=["idle", "in transaction"])
def test_a_connection_that_the_server_ended_is_disconnected(postgresql: Client, *, begun: bool) -> None:
    def scenario(first: Connection, second: Connection) -> None:
        pid = first.scalar(text("select pg_backend_pid()"))
        if not begun:
            first.commit()
        second.execute(text("select pg_terminate_backend(:pid, 10000)"), {"pid": pid})
        run(first, "select 1")

    error = postgresql.provoke(scenario, connections=2)
    assert classify(error) is Kind.DISCONNECTED
    assert is_retryable(error)


def test_a_write_in_a_read_only_transaction_is_refused(postgresql: Client) -> None:
    error = postgresql.fail("set transaction read only", "update parent set small = 1")
    assert classify(error) is Kind.READ_ONLY


def test_a_right_that_is_missing_is_denied(postgresql: Client, postgresql_role: str) -> None:
    error = postgresql.fail(f"set local role {postgresql_role}", "select * from parent")
    assert classify(error) is Kind.PERMISSION_DENIED
    assert details(error).code == "42501"


def test_a_server_that_takes_no_more_connections_is_told_by_asyncpg_and_not_by_psycopg(
    postgresql: Client, postgresql_role: str
) -> None:
    error = postgresql.other(username=postgresql_role).fail("select 1")
    told = Kind.TOO_MANY_CONNECTIONS if postgresql.driver.module == "asyncpg" else Kind.DISCONNECTED
    assert classify(error) is told


def test_an_unknown_role_is_told_by_asyncpg_and_not_by_psycopg(postgresql: Client) -> None:
    error = postgresql.other(username="stillroom_nobody").fail("select 1")
    told = Kind.PERMISSION_DENIED if postgresql.driver.module == "asyncpg" else Kind.DISCONNECTED
    assert classify(error) is told


def test_a_server_that_is_not_there_is_disconnected_where_the_driver_has_an_error_of_its_own(
    postgresql: Client,
) -> None:
    error = postgresql.other(host="127.0.0.1", port=free_port()).fail("select 1")
    # asyncpg lets the operating system's error through, which may come from anywhere.
    told = None if isinstance(error, OSError) else Kind.DISCONNECTED
    assert classify(error) is told
    assert isinstance(error, OSError) == (postgresql.driver.module == "asyncpg")


def test_a_value_that_does_not_fit_is_invalid_data_whoever_refuses_it(postgresql: Client) -> None:
    def scenario(connection: Connection) -> None:
        connection.execute(text("select * from parent where id = :id"), {"id": "not a number"})

    assert classify(postgresql.provoke(scenario)) is Kind.INVALID_DATA


def test_a_translated_error_travels_between_processes(postgresql: Client) -> None:
    error = postgresql.fail("insert into parent values (9, 'one', 1)")
    assert isinstance(error, exc.DBAPIError)
    translated = translate(error, "main")
    assert translated is not None
    arrived = pickle.loads(pickle.dumps(translated))
    assert type(arrived) is Kind.UNIQUE_VIOLATION.error
    assert str(arrived) == str(translated)
    facts = operator.attrgetter("code", "constraint", "table", "columns", "database", "statement", "params")
    assert facts(arrived) == facts(translated)


def test_a_statement_after_a_swallowed_error_has_no_kind_of_its_own(postgresql: Client) -> None:
    def scenario(connection: Connection) -> None:
        with pytest.raises(exc.DBAPIError):
            run(connection, "select 1 / 0")
        run(connection, "select 1")

    error = postgresql.provoke(scenario)
    assert details(error).code == "25P02"
    assert classify(error) is None
    assert not is_retryable(error)
