"""
Classification where no server is needed: what is no database error, what may run again, messages that cannot be read.
"""

from __future__ import annotations

import sqlite3
import subprocess
import sys

import pymysql.err
import pytest
from sqlalchemy import create_engine, exc, text

from stillroom import errors
from stillroom.classification import Details, Kind, classify, details, is_retryable, translate

DEADLOCK = pymysql.err.OperationalError(1213, "Deadlock found")


def wrap(error: Exception, *, connection_invalidated: bool = False) -> exc.DBAPIError:
    """
    Wrap a driver's error as SQLAlchemy does.
    """
    return exc.OperationalError("select 1", {}, error, connection_invalidated=connection_invalidated)


def test_each_kind_has_its_own_class_and_each_class_a_kind() -> None:
    leaves = {cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, errors.DriverError)}
    assert {kind.error for kind in Kind} == leaves - {errors.DriverError}
    assert all(kind.value == kind.error.kind for kind in Kind)
    assert Kind("unique_violation") is Kind.UNIQUE_VIOLATION


@pytest.mark.parametrize(
    "error",
    [
        ValueError("x"),
        KeyError(1062),
        OSError(2006, "x"),
        ConnectionRefusedError(111, "x"),
        exc.InvalidRequestError("x"),
        exc.StatementError("x", "select 1", {}, ValueError(1213)),
        exc.StatementError("x", "select 1", {}, None),
        KeyboardInterrupt(),
        errors.SettingsError("x"),
        errors.PoolTimeout("x"),
    ],
    ids=repr,
)
def test_what_is_no_database_error_has_no_kind_and_no_details(error: BaseException) -> None:
    assert classify(error) is None
    assert details(error) == Details()
    assert not is_retryable(error)


@pytest.mark.parametrize("kind", Kind)
def test_our_own_error_has_the_kind_of_its_class(kind: Kind) -> None:
    assert classify(kind.error("raised early")) is kind


def test_a_driver_error_of_no_kind_has_none() -> None:
    assert classify(errors.DriverError("x")) is None


def test_an_invalidated_connection_is_disconnected_whatever_the_code_says() -> None:
    assert classify(wrap(pymysql.err.InternalError(9999, "x"), connection_invalidated=True)) is Kind.DISCONNECTED
    assert classify(wrap(sqlite3.OperationalError("x"), connection_invalidated=True)) is Kind.DISCONNECTED


def test_an_error_inside_of_two_wrappers_is_found() -> None:
    inner = wrap(DEADLOCK)
    assert classify(exc.StatementError("x", "select 1", {}, inner)) is Kind.DEADLOCK


def test_wrappers_that_go_round_in_circles_have_no_kind() -> None:
    error = wrap(ValueError("x"))
    error.orig = error
    assert classify(error) is None


def test_text_does_not_decide_the_kind() -> None:
    assert classify(wrap(sqlite3.OperationalError("database is locked"))) is None
    assert classify(wrap(pymysql.err.OperationalError(9999, "Deadlock found when trying to get lock"))) is None


@pytest.mark.parametrize(
    ("kind", "expected"),
    [(kind, kind.value in {"serialization_failure", "deadlock", "lock_timeout", "disconnected"}) for kind in Kind],
)
def test_what_may_run_again(kind: Kind, *, expected: bool) -> None:
    assert is_retryable(kind.error("x")) is expected


def test_an_unknown_outcome_is_never_run_again() -> None:
    error = errors.CommitOutcomeUnknown(
        source=wrap(pymysql.err.OperationalError(2013, "x"), connection_invalidated=True)
    )
    assert classify(error) is None
    assert not is_retryable(error)


def test_a_partial_commit_is_never_run_again() -> None:
    error = errors.PartialCommitError("x", errors={"main": wrap(DEADLOCK)})
    error.__cause__ = wrap(DEADLOCK)
    assert not is_retryable(error)


def test_an_error_that_is_tagged_is_not_run_again() -> None:
    error = errors.Deadlock("x")
    error.stillroom_retry = False  # type: ignore[attr-defined]  # anybody may set it
    assert not is_retryable(error)


@pytest.mark.parametrize(
    "first", [wrap(DEADLOCK), wrap(pymysql.err.IntegrityError(1062, "x"))], ids=["deadlock", "key"]
)
def test_an_aborted_transaction_may_run_again_if_its_first_error_may(first: Exception) -> None:
    error = errors.TransactionAborted("x")
    error.__cause__ = first
    assert is_retryable(error) is is_retryable(first)


def test_an_aborted_transaction_of_unknown_cause_is_not_run_again() -> None:
    assert not is_retryable(errors.TransactionAborted("x"))


def test_translating_what_has_no_kind_gives_none() -> None:
    assert translate(wrap(sqlite3.OperationalError("x"))) is None


def test_translating_twice_gives_the_same_error() -> None:
    error = errors.Deadlock("x")
    assert translate(error) is error


def test_translating_keeps_the_statement_and_hides_what_is_hidden() -> None:
    engine = create_engine("sqlite://", hide_parameters=True)
    with engine.connect() as connection:
        connection.execute(text("create table t (n int unique)"))
        connection.execute(text("insert into t values (:n)"), {"n": 4711})
        with pytest.raises(exc.IntegrityError) as caught:
            connection.execute(text("insert into t values (:n)"), {"n": 4711})
    engine.dispose()
    translated = translate(caught.value, "main")
    assert isinstance(translated, errors.UniqueViolation)
    assert translated.statement == caught.value.statement
    assert translated.params == caught.value.params
    assert translated.hide_parameters
    assert "4711" not in str(translated)
    assert "hide_parameters=True" in str(translated)


@pytest.mark.parametrize("number", [1062, 1451, 1452, 4025, 3819, 1048, 1366, 1146, 1051, 1142])
@pytest.mark.parametrize("message", ["", "'", "``", "` '", "(`a`.`b`, CONSTRAINT `c", "no names at all"])
def test_a_message_without_names_gives_none(number: int, message: str) -> None:
    found = details(pymysql.err.OperationalError(number, message))
    assert found == Details(str(number))


def test_an_error_without_a_message_has_its_code() -> None:
    assert details(pymysql.err.OperationalError(1062)) == Details("1062")


@pytest.mark.parametrize(
    ("number", "message", "expected"),
    [
        # As MySQL 8 says it.
        (1062, "Duplicate entry 'a' for key 'shop.uq_name'", Details("1062", "uq_name", "shop")),
        (3819, "Check constraint 'ck_price' is violated.", Details("3819", "ck_price")),
        (
            1452,
            "x (`d`.`t``x`, CONSTRAINT `fk` FOREIGN KEY (`a`, `b``c`) REFERENCES `p` (`x`, `y`))",
            Details("1452", "fk", "t`x", ("a", "b`c"), "d"),
        ),
        (1051, "Unknown table 'd.a,d.b'", Details("1051")),
    ],
)
def test_names_in_the_forms_of_other_servers_are_read(number: int, message: str, expected: Details) -> None:
    assert details(pymysql.err.OperationalError(number, message)) == expected


def test_importing_the_module_loads_no_driver() -> None:
    program = (
        "import sys, stillroom.classification\n"
        "drivers = {'psycopg', 'psycopg2', 'asyncpg', 'pymysql', 'MySQLdb', 'aiomysql', 'asyncmy', 'aiosqlite'}\n"
        "print(sorted(drivers & set(sys.modules)))\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout.strip() == "[]"
