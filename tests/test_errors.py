"""
Stillroom's exception classes: what they are, what they carry, and that they travel.
"""

from __future__ import annotations

import copy
import inspect
import pickle
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import exc

from stillroom import errors

if TYPE_CHECKING:
    from collections.abc import Callable

CLASSES = [cls for cls in vars(errors).values() if inspect.isclass(cls) and cls.__name__ in errors.__all__]

BASES = {
    errors.SettingsError: (ValueError,),
    errors.NotConfigured: (RuntimeError,),
    errors.AlreadyConfigured: (RuntimeError,),
    errors.UnknownDatabase: (LookupError,),
    errors.UnknownQuery: (AttributeError, KeyError),
    errors.MissingDriver: (ImportError,),
    errors.MissingExtra: (errors.MissingDriver,),
    errors.BadRow: (ValueError,),
    errors.NoUnitOfWork: (RuntimeError,),
    errors.UnitOfWorkEnded: (exc.InvalidRequestError,),
    errors.ConcurrentUseError: (exc.InvalidRequestError,),
    errors.PropagationError: (RuntimeError,),
    errors.MultipleWritesRefused: (exc.InvalidRequestError,),
    errors.PartialCommitError: (RuntimeError,),
    errors.CommitOutcomeUnknown: (exc.OperationalError,),
    errors.TransactionAborted: (exc.PendingRollbackError,),
    errors.HookError: (ExceptionGroup,),
    errors.ForkedConnection: (RuntimeError,),
    errors.PoolTimeout: (exc.TimeoutError,),
    errors.UnitOfWorkTimeout: (TimeoutError,),
    errors.NotDisposable: (PermissionError,),
    errors.NotFound: (exc.NoResultFound,),
    errors.MultipleFound: (exc.MultipleResultsFound,),
    errors.InvalidCursor: (ValueError,),
    errors.InvalidListQuery: (ValueError,),
    errors.InvalidSQLFile: (ValueError,),
    errors.DriverError: (exc.DBAPIError,),
    errors.UniqueViolation: (errors.DriverError, exc.IntegrityError),
    errors.ForeignKeyViolation: (errors.DriverError, exc.IntegrityError),
    errors.NotNullViolation: (errors.DriverError, exc.IntegrityError),
    errors.CheckViolation: (errors.DriverError, exc.IntegrityError),
    errors.ExclusionViolation: (errors.DriverError, exc.IntegrityError),
    errors.SerializationFailure: (errors.DriverError, exc.OperationalError),
    errors.Deadlock: (errors.DriverError, exc.OperationalError),
    errors.LockTimeout: (errors.DriverError, exc.OperationalError),
    errors.StatementTimeout: (errors.DriverError, exc.OperationalError),
    errors.StatementCancelled: (errors.DriverError, exc.OperationalError),
    errors.Disconnected: (errors.DriverError, exc.OperationalError),
    errors.TooManyConnections: (errors.DriverError, exc.OperationalError),
    errors.DiskFull: (errors.DriverError, exc.OperationalError),
    errors.ReadOnlyError: (errors.DriverError, exc.OperationalError, exc.InternalError),
    errors.UndefinedTable: (errors.DriverError, exc.ProgrammingError),
    errors.UndefinedColumn: (errors.DriverError, exc.ProgrammingError),
    errors.InvalidSQL: (errors.DriverError, exc.ProgrammingError),
    errors.PermissionDenied: (errors.DriverError, exc.ProgrammingError),
    errors.InvalidData: (errors.DriverError, exc.DataError),
}

TRAVELS = [
    pytest.param(lambda error: pickle.loads(pickle.dumps(error)), id="pickle"),
    pytest.param(copy.copy, id="copy"),
    pytest.param(copy.deepcopy, id="deepcopy"),
]


def example(cls: type[errors.StillroomError]) -> errors.StillroomError:
    """
    Make an error of a class, with as much in it as it takes.
    """
    if issubclass(cls, errors.HookError):
        return cls("hooks failed", [ValueError("one"), KeyError("two")])
    arguments: dict[type[errors.StillroomError], dict[str, Any]] = {
        errors.SettingsError: {"path": "databases.main.url"},
        errors.InvalidListQuery: {"parameter": "page", "value": "0"},
        errors.BadRow: {"number": 3, "column": "name", "model": int},
        errors.MissingDriver: {"extra": "postgresql", "name": "psycopg"},
        errors.PoolTimeout: {"holders": ["thread 1", "thread 2"]},
        errors.PartialCommitError: {
            "committed": ["a"],
            "failed": ["b"],
            "not_committed": ["c"],
            "errors": {"b": ValueError("b")},
        },
        errors.CommitOutcomeUnknown: {"source": wrapped(), "database": "main"},
    }
    extra = arguments.get(cls, {})
    if issubclass(cls, errors.DriverError):
        extra = {"code": "1", "constraint": "c", "table": "t", "columns": ["a", "b"], "database": "main"}
        extra["source"] = wrapped()
    return cls("it failed", **extra)


def wrapped(*, hide_parameters: bool = False) -> exc.DBAPIError:
    """
    Make an error as SQLAlchemy does.
    """
    error = exc.OperationalError(
        "select :secret", {"secret": 42}, ValueError("the driver's text"), hide_parameters, connection_invalidated=True
    )
    error.add_detail("while testing")
    return error


def state(error: BaseException) -> dict[str, object]:
    """
    Tell what an error holds, in a form that can be compared.
    """
    held = {name: repr(value) for name, value in vars(error).items()}
    return held | {"type": type(error), "args": repr(error.args), "str": str(error)}


def test_every_class_has_the_bases_that_it_is_documented_with() -> None:
    assert set(BASES) == set(CLASSES) - {errors.StillroomError}
    for cls, bases in BASES.items():
        assert issubclass(cls, (errors.StillroomError,))
        assert all(issubclass(cls, base) for base in bases), cls


def test_every_public_class_is_listed() -> None:
    found = {
        name
        for name, value in vars(errors).items()
        if inspect.isclass(value) and issubclass(value, errors.StillroomError) and not name.startswith("_")
    }
    assert found == set(errors.__all__)


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("travel", TRAVELS)
def test_an_error_arrives_with_all_that_it_holds(
    cls: type[errors.StillroomError], travel: Callable[[BaseException], BaseException]
) -> None:
    error = example(cls)
    error.add_note("a note")
    arrived = travel(error)
    assert arrived is not error
    assert state(arrived) == state(error)


@pytest.mark.parametrize("travel", TRAVELS)
def test_a_subclass_with_a_constructor_of_its_own_travels(travel: Callable[[BaseException], BaseException]) -> None:
    arrived = travel(Custom(7))
    assert isinstance(arrived, Custom)
    assert (arrived.number, str(arrived)) == (7, "number 7")


@pytest.mark.parametrize("cls", [errors.ReadOnlyError, errors.DriverError, errors.CommitOutcomeUnknown])
def test_an_error_without_a_driver_says_its_message_and_no_more(cls: type[exc.DBAPIError]) -> None:
    error = cls("readers cannot write; use the writer")  # type: ignore[call-arg]  # these take a message alone
    assert str(error) == "readers cannot write; use the writer"
    assert (error.statement, error.params, error.orig, error.connection_invalidated) == (None, None, None, False)


def test_an_error_keeps_what_sqlalchemy_knows() -> None:
    source = wrapped()
    error = errors.Disconnected(source=source)
    assert (error.statement, error.params, error.orig) == (source.statement, source.params, source.orig)
    assert error.connection_invalidated


def test_an_error_says_what_sqlalchemy_says_without_the_link() -> None:
    source = wrapped()
    lines = str(source).splitlines()
    assert lines[-1].startswith("(Background on this error")
    assert str(errors.Disconnected(source=source, code="57P01")).splitlines() == lines[:-1]


def test_hidden_parameters_stay_hidden() -> None:
    error = errors.Disconnected(source=wrapped(hide_parameters=True))
    assert error.hide_parameters
    assert "42" not in str(error)
    assert "42" not in repr(error)


def test_a_message_of_our_own_stands_before_the_statement() -> None:
    error = errors.ReadOnlyError("no writes here", source=wrapped())
    assert str(error).startswith("(while testing)\nno writes here\n[SQL: select :secret]")


def test_the_code_is_the_databases_and_none_where_it_says_nothing() -> None:
    assert errors.UniqueViolation("x").code is None
    assert errors.UniqueViolation("x", code="23505").code == "23505"
    assert errors.CommitOutcomeUnknown("x").code is None


def test_hook_errors_split_into_hook_errors() -> None:
    group = example(errors.HookError)
    assert isinstance(group, errors.HookError)
    matching, rest = group.split(ValueError)
    assert isinstance(matching, errors.HookError)
    assert isinstance(rest, errors.HookError)
    assert (matching.message, [repr(error) for error in matching.exceptions]) == (group.message, ["ValueError('one')"])


def test_hook_errors_are_caught_in_parts() -> None:
    caught: list[type[BaseException]] = []
    try:
        raise example(errors.HookError)
    except* ValueError as group:
        caught.append(type(group))
    except* KeyError as group:
        caught.append(type(group))
    assert caught == [errors.HookError, errors.HookError]


def test_hook_errors_are_caught_by_the_base_class() -> None:
    with pytest.raises(errors.StillroomError):
        raise example(errors.HookError)


def test_a_missing_driver_says_what_to_install() -> None:
    error = errors.MissingDriver("no driver 'psycopg'", extra="postgresql", name="psycopg")
    assert str(error) == "no driver 'psycopg'; install it with: pip install \"stillroom[postgresql]\""
    assert (error.name, error.extra) == ("psycopg", "postgresql")


def test_a_partial_commit_says_what_is_durable_and_what_is_not() -> None:
    error = example(errors.PartialCommitError)
    assert isinstance(error, errors.PartialCommitError)
    assert (error.committed, error.failed, error.not_committed) == (("a",), ("b",), ("c",))
    assert repr(error.errors["b"]) == "ValueError('b')"


class Custom(errors.StillroomError):
    """
    An error of an application, made from something else than its message.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"number {number}")
        self.number = number
