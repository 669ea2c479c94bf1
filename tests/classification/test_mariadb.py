"""
MariaDB's errors through PyMySQL, aiomysql and asyncmy.
"""

from __future__ import annotations

import operator
import pickle
import queue
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import exc, make_url, text

from stillroom.classification import Details, Kind, classify, details, is_retryable, translate
from stillroom.testing.servers import free_port, wait_until

from .drivers import MARIADB, PATIENCE, Client, commit, meanwhile, run

if TYPE_CHECKING:
    from sqlalchemy import Connection

CASES = {
    "primary key": ("insert into parent values (1, 'x', 1, 1)", Kind.UNIQUE_VIOLATION, "1062"),
    "unique": ("insert into parent values (9, 'one', 1, 1)", Kind.UNIQUE_VIOLATION, "1062"),
    "foreign key": ("insert into child values (9, 77)", Kind.FOREIGN_KEY_VIOLATION, "1452"),
    "referred to": ("delete from parent where id = 1", Kind.FOREIGN_KEY_VIOLATION, "1451"),
    "not null": ("insert into parent values (9, 'x', null, 1)", Kind.NOT_NULL_VIOLATION, "1048"),
    "no default": ("insert into parent (id, code) values (9, 'x')", Kind.NOT_NULL_VIOLATION, "1364"),
    "check": ("insert into parent values (9, 'x', -1, 1)", Kind.CHECK_VIOLATION, "4025"),
    "no table": ("select * from nowhere", Kind.UNDEFINED_TABLE, "1146"),
    "no table to drop": ("drop table nowhere", Kind.UNDEFINED_TABLE, "1051"),
    "no column": ("select nothing from parent", Kind.UNDEFINED_COLUMN, "1054"),
    "syntax": ("selec 1", Kind.INVALID_SQL, "1064"),
    "too long": ("insert into parent values (9, '12345678901', 1, 1)", Kind.INVALID_DATA, "1406"),
    "out of range": ("insert into parent values (9, 'x', 1, 99999)", Kind.INVALID_DATA, "1264"),
    "no number": ("insert into parent values (9, 'x', 'many', 1)", Kind.INVALID_DATA, "1366"),
    "overflow": ("select 9223372036854775807 + 1", Kind.INVALID_DATA, "1690"),
    "no function": ("select no_such_function()", None, "1305"),
}
# What cannot be provoked on a server that others use as well: the server sends the code that it is told to.
RAISED = {
    1020: Kind.SERIALIZATION_FAILURE,
    1614: Kind.DEADLOCK,
    3572: Kind.LOCK_TIMEOUT,
    3024: Kind.STATEMENT_TIMEOUT,
    1053: Kind.DISCONNECTED,
    1080: Kind.DISCONNECTED,
    3169: Kind.DISCONNECTED,
    4031: Kind.DISCONNECTED,
    1040: Kind.TOO_MANY_CONNECTIONS,
    1203: Kind.TOO_MANY_CONNECTIONS,
    1021: Kind.DISK_FULL,
    1114: Kind.DISK_FULL,
    1290: Kind.READ_ONLY,
    1836: Kind.READ_ONLY,
    1586: Kind.UNIQUE_VIOLATION,
    3819: Kind.CHECK_VIOLATION,
    1644: None,
}


@pytest.mark.parametrize("case", CASES)
def test_a_failed_statement_has_the_kind_of_its_number(mariadb: Client, case: str) -> None:
    statement, kind, code = CASES[case]
    error = mariadb.fail(statement)
    assert classify(error) is kind
    assert details(error).code == code


@pytest.mark.parametrize("number", RAISED)
def test_a_number_that_the_server_sends_has_its_kind(mariadb: Client, number: int) -> None:
    error = mariadb.fail(f"signal sqlstate '45000' set mysql_errno = {number}, message_text = ''")
    assert classify(error) is RAISED[number]
    assert details(error).code == str(number)


# The names are in each language of the server, the words around them are not.
@pytest.mark.parametrize("language", ["en_US", "de_DE", "fr_FR", "ja_JP", "ru_RU"])
@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("insert into parent values (9, 'one', 1, 1)", Details("1062", "uq_parent_code")),
        ("insert into child values (9, 77)", Details("1452", "fk_child_parent", "child", ("parent_id",), "DB")),
        ("insert into parent values (9, 'x', null, 1)", Details("1048", columns=("amount",))),
        ("insert into parent values (9, 'x', -1, 1)", Details("4025", "ck_parent_amount", "parent", (), "DB")),
        ("insert into parent values (9, 'x', 1, 99999)", Details("1264", columns=("small",))),
        ("insert into parent values (9, 'x', 'many', 1)", Details("1366", None, "parent", ("amount",), "DB")),
        ("select * from nowhere", Details("1146", table="nowhere", schema="DB")),
        ("select nothing from parent", Details("1054", columns=("nothing",))),
        ("selec 1", Details("1064")),
    ],
)
def test_names_are_read_from_the_message_in_any_language(
    classified_mariadb: str, language: str, statement: str, expected: Details
) -> None:
    error = Client(MARIADB[0], classified_mariadb).fail(f"set lc_messages = '{language}'", statement)
    database = make_url(classified_mariadb).database
    found = details(error)
    assert found == Details(
        expected.code, expected.constraint, expected.table, expected.columns, expected.schema and database
    )


def test_a_value_with_quotes_does_not_hide_the_key(mariadb: Client) -> None:
    statement = "insert into parent values (:id, 'it''s ''x''', 1, 1)"
    error = mariadb.fail(statement.replace(":id", "8"), statement.replace(":id", "9"))
    assert details(error).constraint == "uq_parent_code"


def test_the_check_of_a_column_names_the_column(mariadb: Client) -> None:
    error = mariadb.fail("create temporary table small (n int check (n > 0))", "insert into small values (0)")
    found = details(error)
    assert (found.constraint, found.table, found.columns) == ("n", "small", ("n",))


def test_the_drivers_error_has_the_kind_of_sqlalchemys(mariadb: Client) -> None:
    error = mariadb.fail("insert into parent values (9, 'one', 1, 1)")
    assert isinstance(error, exc.DBAPIError)
    assert error.orig is not None
    assert classify(error.orig) is Kind.UNIQUE_VIOLATION
    assert details(error.orig).constraint == "uq_parent_code"


def test_translating_gives_our_class_whatever_sqlalchemy_made_of_it(mariadb: Client) -> None:
    error = mariadb.fail("insert into parent (id, code) values (9, 'x')")
    assert isinstance(error, exc.OperationalError)
    translated = translate(error, "main")
    assert translated is not None
    assert isinstance(translated, exc.IntegrityError)
    assert (translated.kind, translated.code, translated.columns) == ("not_null_violation", "1364", ("amount",))


def test_a_statement_that_runs_too_long_is_a_statement_timeout(mariadb: Client) -> None:
    assert classify(mariadb.fail("set max_statement_time = 0.05", "select sleep(10)")) is Kind.STATEMENT_TIMEOUT


def test_a_killed_query_is_cancelled_and_no_timeout(mariadb: Client, classified_mariadb: str) -> None:
    def scenario(connection: Connection) -> None:
        number = connection.scalar(text("select connection_id()"))
        asleep = text("select count(*) from information_schema.processlist where id = :id and state = 'User sleep'")

        def kill(other: Connection) -> None:
            wait_until(lambda: other.scalar(asleep, {"id": number}) == 1, "the query sleeps")
            run(other, f"kill query {number}")

        with meanwhile(classified_mariadb, kill):
            run(connection, "select sleep(20) from parent")

    assert classify(mariadb.provoke(scenario)) is Kind.STATEMENT_CANCELLED


def test_a_snapshot_that_is_too_old_is_a_serialization_failure(mariadb: Client) -> None:
    def scenario(first: Connection, second: Connection) -> None:
        if not first.execute(text("show variables like 'innodb_snapshot_isolation'")).all():
            pytest.skip("this server has no innodb_snapshot_isolation")
        commit(first, "set session innodb_snapshot_isolation = on")
        run(first, "select * from parent")
        commit(second, "update parent set small = coalesce(small, 0) + 1 where id = 2")
        run(first, "update parent set small = 2 where id = 2")

    error = mariadb.provoke(scenario, connections=2)
    assert classify(error) is Kind.SERIALIZATION_FAILURE
    assert is_retryable(error)


def test_the_victim_of_a_deadlock_may_run_again(mariadb: Client, classified_mariadb: str) -> None:
    locked: queue.Queue[bool] = queue.Queue()

    def crossing(other: Connection) -> None:
        # The server ends the transaction that changed less: the other one.
        run(other, "update many set n = n + 1 where id > 1")
        locked.put(True)  # noqa: FBT003  # any value will do
        run(other, "update many set n = n + 1 where id = 1")

    def scenario(connection: Connection) -> None:
        run(connection, "update many set n = n + 1 where id = 1")
        with meanwhile(classified_mariadb, crossing):
            assert locked.get(timeout=PATIENCE)
            try:
                run(connection, "update many set n = n + 1 where id = 2")
            finally:
                connection.rollback()

    error = mariadb.provoke(scenario)
    assert classify(error) is Kind.DEADLOCK
    assert is_retryable(error)


@pytest.mark.parametrize(
    "statements",
    [
        ("set innodb_lock_wait_timeout = 1", "update parent set small = 2 where id = 2"),
        ("select * from parent where id = 2 for update nowait",),
    ],
    ids=["timeout", "nowait"],
)
def test_a_lock_that_is_not_granted_is_a_lock_timeout(mariadb: Client, statements: tuple[str, ...]) -> None:
    def scenario(first: Connection, second: Connection) -> None:
        run(first, "select * from parent where id = 2 for update")
        run(second, *statements)

    error = mariadb.provoke(scenario, connections=2)
    assert classify(error) is Kind.LOCK_TIMEOUT
    assert is_retryable(error)


@pytest.mark.parametrize("begun", [False, True], ids=["idle", "in transaction"])
def test_a_connection_that_the_server_ended_is_disconnected(mariadb: Client, *, begun: bool) -> None:
    def scenario(first: Connection, second: Connection) -> None:
        number = first.scalar(text("select connection_id()"))
        if not begun:
            first.commit()
        run(second, f"kill connection {number}")
        run(first, "select 1")

    error = mariadb.provoke(scenario, connections=2)
    assert classify(error) is Kind.DISCONNECTED
    assert is_retryable(error)


def test_a_write_in_a_read_only_transaction_is_refused(mariadb: Client) -> None:
    def scenario(connection: Connection) -> None:
        run(connection, "commit", "start transaction read only", "update parent set small = 1")

    assert classify(mariadb.provoke(scenario)) is Kind.READ_ONLY


def test_a_right_that_is_missing_is_denied_and_names_the_table(mariadb: Client, mariadb_user: str) -> None:
    error = mariadb.other(username=mariadb_user, password="right").fail("select * from parent")
    assert classify(error) is Kind.PERMISSION_DENIED
    assert details(error) == Details("1142", table="parent", schema=make_url(mariadb.url).database)


def test_a_wrong_password_is_denied(mariadb: Client, mariadb_user: str) -> None:
    error = mariadb.other(username=mariadb_user, password="wrong").fail("select 1")
    assert classify(error) is Kind.PERMISSION_DENIED


def test_a_user_with_all_its_connections_in_use_has_too_many(mariadb: Client, mariadb_user: str) -> None:
    def scenario(first: Connection, second: Connection) -> None:
        raise AssertionError("the server took both connections")

    error = mariadb.other(username=mariadb_user, password="right").provoke(scenario, connections=2)
    assert classify(error) is Kind.TOO_MANY_CONNECTIONS


def test_a_server_that_is_not_there_is_disconnected(mariadb: Client) -> None:
    error = mariadb.other(port=free_port()).fail("select 1")
    assert classify(error) is Kind.DISCONNECTED


def test_a_translated_error_travels_between_processes(mariadb: Client) -> None:
    error = mariadb.fail("insert into parent values (9, 'one', 1, 1)")
    assert isinstance(error, exc.DBAPIError)
    translated = translate(error, "main")
    assert translated is not None
    arrived = pickle.loads(pickle.dumps(translated))
    assert type(arrived) is Kind.UNIQUE_VIOLATION.error
    assert str(arrived) == str(translated)
    facts = operator.attrgetter("code", "constraint", "table", "columns", "database", "statement", "params")
    assert facts(arrived) == facts(translated)


def test_a_closed_driver_connection_is_disconnected(mariadb: Client) -> None:
    def scenario(connection: Connection) -> None:
        cursor = connection.connection.dbapi_connection.cursor()  # type: ignore[union-attr]  # it is open
        connection.connection.dbapi_connection.close()  # type: ignore[union-attr]  # it was open
        cursor.execute("select 1")

    assert classify(mariadb.provoke(scenario)) is Kind.DISCONNECTED
