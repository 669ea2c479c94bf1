"""
SQLite's errors through sqlite3 and aiosqlite.
"""

from __future__ import annotations

import operator
import pickle
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import exc, text

from stillroom.classification import Details, Kind, classify, details, is_retryable, translate

from .drivers import SQLITE, Client, run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sqlalchemy import Connection

STRICT = "create table exact (n int) strict"
EXPRESSION = "create unique index ux_lower on parent (lower(code))"
# Statements before, the one that fails, its kind, its code.
CASES: dict[str, tuple[tuple[str, ...], Kind | None, str]] = {
    "primary key": (("insert into parent values (1, 'x', 1, 1)",), Kind.UNIQUE_VIOLATION, "CONSTRAINT_PRIMARYKEY"),
    "row number": (
        ("create table t (id integer primary key)", "insert into t values (1)", "insert into t values (1)"),
        Kind.UNIQUE_VIOLATION,
        "CONSTRAINT_PRIMARYKEY",
    ),
    "unique": (("insert into parent values (9, 'one', 1, 1)",), Kind.UNIQUE_VIOLATION, "CONSTRAINT_UNIQUE"),
    "not null": (("insert into parent values (9, 'x', null, 1)",), Kind.NOT_NULL_VIOLATION, "CONSTRAINT_NOTNULL"),
    "check": (("insert into parent values (9, 'x', -1, 1)",), Kind.CHECK_VIOLATION, "CONSTRAINT_CHECK"),
    "foreign key": (
        ("pragma foreign_keys = on", "insert into child values (9, 77)"),
        Kind.FOREIGN_KEY_VIOLATION,
        "CONSTRAINT_FOREIGNKEY",
    ),
    "read only": (("pragma query_only = on", "delete from child"), Kind.READ_ONLY, "READONLY"),
    "full": (
        ("pragma max_page_count = 1", "create table blobs as select zeroblob(100000) as b"),
        Kind.DISK_FULL,
        "FULL",
    ),
    "too big": (("select zeroblob(2000000000)",), Kind.INVALID_DATA, "TOOBIG"),
    "no row number": (
        ("create table t (id integer primary key)", "insert into t values ('x')"),
        Kind.INVALID_DATA,
        "MISMATCH",
    ),
    "wrong type": ((STRICT, "insert into exact values ('x')"), Kind.INVALID_DATA, "CONSTRAINT_DATATYPE"),
    "no table": (("select * from nowhere",), None, "ERROR"),
    "syntax": (("selec 1",), None, "ERROR"),
    "trigger": (
        ("create trigger t before delete on child begin select raise(abort, 'no'); end", "delete from child"),
        None,
        "CONSTRAINT_TRIGGER",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_failed_statement_has_the_kind_of_its_name(sqlite: Client, case: str) -> None:
    statements, kind, code = CASES[case]

    def scenario(connection: Connection) -> None:
        by_itself(connection)
        run(connection, *statements)

    error = sqlite.provoke(scenario)
    assert classify(error) is kind
    assert details(error).code == f"SQLITE_{code}"


@pytest.mark.parametrize(
    ("statements", "expected"),
    [
        (("insert into parent values (9, 'one', 1, 1)",), Details("UNIQUE", None, "parent", ("code",))),
        (
            ("create table pair (a, b, primary key (a, b))", "insert into pair values (1, 2), (1, 2)"),
            Details("PRIMARYKEY", None, "pair", ("a", "b")),
        ),
        ((EXPRESSION, "insert into parent values (9, 'ONE', 1, 1)"), Details("UNIQUE", "ux_lower")),
        (("insert into parent values (9, 'x', null, 1)",), Details("NOTNULL", None, "parent", ("amount",))),
        (("insert into parent values (9, 'x', -1, 1)",), Details("CHECK", "ck_parent_amount")),
        (("create table t (n check (n > 0))", "insert into t values (0)"), Details("CHECK")),
        ((STRICT, "insert into exact values ('x')"), Details("DATATYPE", None, "exact", ("n",))),
        (("pragma foreign_keys = on", "insert into child values (9, 77)"), Details("FOREIGNKEY")),
        (('create table "a.b" (c unique)', 'insert into "a.b" values (1), (1)'), Details("UNIQUE")),
    ],
    ids=["unique", "pair", "expression", "not null", "check", "unnamed check", "type", "foreign key", "dots"],
)
def test_names_are_read_from_the_message(sqlite: Client, statements: tuple[str, ...], expected: Details) -> None:
    def scenario(connection: Connection) -> None:
        by_itself(connection)
        run(connection, *statements)

    found = details(sqlite.provoke(scenario))
    assert found == Details(f"SQLITE_CONSTRAINT_{expected.code}", expected.constraint, expected.table, expected.columns)


def test_the_drivers_error_has_the_kind_of_sqlalchemys(sqlite: Client) -> None:
    error = sqlite.fail("insert into parent values (9, 'one', 1, 1)")
    assert isinstance(error, exc.DBAPIError)
    assert error.orig is not None
    assert classify(error.orig) is Kind.UNIQUE_VIOLATION


def test_translating_gives_our_class(sqlite: Client) -> None:
    error = sqlite.fail("insert into parent values (9, 'one', 1, 1)")
    assert isinstance(error, exc.DBAPIError)
    translated = translate(error, "main")
    assert isinstance(translated, Kind.UNIQUE_VIOLATION.error)
    assert (translated.table, translated.columns, translated.database) == ("parent", ("code",), "main")


def test_a_locked_database_is_a_lock_timeout_and_may_run_again(sqlite: Client) -> None:
    def scenario(first: Connection, second: Connection) -> None:
        by_itself(first, second)
        run(first, "begin immediate")
        run(second, "begin immediate")

    error = sqlite.provoke(scenario, connections=2)
    assert details(error).code == "SQLITE_BUSY"
    assert classify(error) is Kind.LOCK_TIMEOUT
    assert is_retryable(error)


def test_a_snapshot_that_is_too_old_is_a_serialization_failure_and_may_run_again(sqlite: Client) -> None:
    def scenario(first: Connection, second: Connection) -> None:
        by_itself(first, second)
        run(first, "pragma journal_mode = wal", "begin", "select * from parent")
        run(second, "update parent set small = 1")
        run(first, "update parent set small = 2")

    error = sqlite.provoke(scenario, connections=2)
    assert details(error).code == "SQLITE_BUSY_SNAPSHOT"
    assert classify(error) is Kind.SERIALIZATION_FAILURE
    assert is_retryable(error)


def test_a_table_that_is_locked_in_a_shared_cache_is_a_lock_timeout(sqlite: Client) -> None:
    def scenario(first: Connection, second: Connection) -> None:
        by_itself(first, second)
        run(first, "create table t (n)", "begin immediate", "insert into t values (1)")
        run(second, "select * from t")

    shared = sqlite.other(database="file:locked", query={"mode": "memory", "cache": "shared", "uri": "true"})
    error = shared.provoke(scenario, connections=2)
    assert details(error).code == "SQLITE_LOCKED_SHAREDCACHE"
    assert classify(error) is Kind.LOCK_TIMEOUT


def test_an_interrupted_statement_is_a_statement_timeout(sqlite: Client) -> None:
    def scenario(connection: Connection) -> None:
        on_driver(connection, lambda driver: driver.set_progress_handler(lambda: 1, 1))
        run(connection, "select * from parent, parent, parent")

    assert classify(sqlite.provoke(scenario)) is Kind.STATEMENT_TIMEOUT


def test_a_file_that_is_opened_read_only_is_read_only(sqlite: Client, tmp_path: Path) -> None:
    path = tmp_path / "classified.db"
    read_only = sqlite.other(database=f"file:{path}", query={"uri": "true", "mode": "ro"})
    assert classify(read_only.fail("delete from child")) is Kind.READ_ONLY


def test_what_an_authorizer_refuses_is_denied() -> None:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.set_authorizer(lambda *_: sqlite3.SQLITE_DENY)
        with pytest.raises(sqlite3.DatabaseError) as caught:
            connection.execute("select 1")
    assert classify(caught.value) is Kind.PERMISSION_DENIED


def test_a_file_that_cannot_be_opened_has_no_kind(tmp_path: Path) -> None:
    # Only sqlite3: the worker thread of an aiosqlite connection that failed to open outlives its event loop.
    error = Client(SQLITE[0], f"sqlite:///{tmp_path / 'missing' / 'x.db'}").fail("select 1")
    assert details(error).code == "SQLITE_CANTOPEN"
    assert classify(error) is None


def test_a_translated_error_travels_between_processes(sqlite: Client) -> None:
    error = sqlite.fail("insert into parent values (9, 'one', 1, 1)")
    assert isinstance(error, exc.DBAPIError)
    translated = translate(error, "main")
    assert translated is not None
    arrived = pickle.loads(pickle.dumps(translated))
    assert type(arrived) is Kind.UNIQUE_VIOLATION.error
    assert str(arrived) == str(translated)
    facts = operator.attrgetter("code", "constraint", "table", "columns", "database", "statement", "params")
    assert facts(arrived) == facts(translated)


def test_a_closed_driver_connection_is_disconnected() -> None:
    # Only sqlite3: the worker thread of a closed aiosqlite connection outlives its event loop with an error.
    def scenario(connection: Connection) -> None:
        connection.connection.dbapi_connection.close()  # type: ignore[union-attr]  # it was open
        connection.execute(text("select 1"))

    assert classify(Client(SQLITE[0], "sqlite://").provoke(scenario)) is Kind.DISCONNECTED


def by_itself(*connections: Connection) -> None:
    """
    Leave BEGIN to the statements of the test.
    """
    for connection in connections:
        connection.connection.dbapi_connection.isolation_level = None  # type: ignore[union-attr]  # it is open


def on_driver(connection: Connection, work: Callable[[Any], Any]) -> None:
    """
    Call a method of the driver's own connection, awaited where it is aiosqlite's.
    """
    dbapi_connection: Any = connection.connection.dbapi_connection
    if hasattr(dbapi_connection, "run_async"):
        dbapi_connection.run_async(work)
    else:
        work(dbapi_connection)
