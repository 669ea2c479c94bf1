"""
Every exception that Stillroom raises; each is also the nearest builtin or SQLAlchemy class.

It has more than 600 lines because they are looked for in one place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from sqlalchemy import exc

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = [
    "AlreadyConfigured",
    "BadRow",
    "CheckViolation",
    "CommitOutcomeUnknown",
    "ConcurrentUseError",
    "Deadlock",
    "Disconnected",
    "DiskFull",
    "DriverError",
    "ExclusionViolation",
    "ForeignKeyViolation",
    "ForkedConnection",
    "HookError",
    "InvalidCursor",
    "InvalidData",
    "InvalidListQuery",
    "InvalidSQL",
    "InvalidSQLFile",
    "LockTimeout",
    "MissingDriver",
    "MissingExtra",
    "MultipleFound",
    "MultipleWritesRefused",
    "NoUnitOfWork",
    "NotConfigured",
    "NotDisposable",
    "NotFound",
    "NotNullViolation",
    "PartialCommitError",
    "PermissionDenied",
    "PoolTimeout",
    "PropagationError",
    "ReadOnlyError",
    "SerializationFailure",
    "SettingsError",
    "StatementCancelled",
    "StatementTimeout",
    "StillroomError",
    "TooManyConnections",
    "TransactionAborted",
    "UndefinedColumn",
    "UndefinedTable",
    "UniqueViolation",
    "UnitOfWorkEnded",
    "UnitOfWorkTimeout",
    "UnknownDatabase",
    "UnknownQuery",
]


def _rebuild(cls: type[StillroomError], args: tuple[Any, ...]) -> StillroomError:
    """
    Make an error again from its class and arguments, without its ``__init__``.
    """
    return cls.__new__(cls, *args)


class StillroomError(Exception):
    """
    The base of all errors that Stillroom raises.

    Errors pickle and copy with all their attributes, whatever the signature of their constructor, because task queues
    send them between processes.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        # Exception.__reduce__ calls the constructor with `args`; keyword-only parameters and SQLAlchemy's own
        # seven-argument form would fail there, in the process that receives the error.
        return _rebuild, (type(self), self.args), dict(self.__dict__) or None


class SettingsError(StillroomError, ValueError):
    """
    A setting is wrong or missing.

    Attributes:
        path: the full key path, such as ``databases.main.url``, or None.
    """

    path: str | None

    def __init__(self, message: str, *, path: str | None = None) -> None:
        super().__init__(message)
        self.path = path


class NotConfigured(StillroomError, RuntimeError):
    """
    Databases are used before ``configure``.
    """


class AlreadyConfigured(StillroomError, RuntimeError):
    """
    Databases are configured again while they are in use.
    """


class UnknownDatabase(StillroomError, LookupError):
    """
    No database of that name is declared.
    """


class MissingDriver(StillroomError, ImportError):
    """
    A database driver is not installed.

    Attributes:
        name: the module that is missing, or None.
        extra: the extra of Stillroom that installs it, or None.
    """

    extra: str | None

    def __init__(self, message: str, *, extra: str | None = None, name: str | None = None) -> None:
        if extra is not None:
            message = f'{message}; install it with: pip install "stillroom[{extra}]"'
        super().__init__(message, name=name)
        self.extra = extra

    def __reduce__(self) -> tuple[Any, ...]:
        # ImportError keeps these outside of __dict__.
        return _rebuild, (type(self), self.args), {**self.__dict__, "msg": self.msg, "name": self.name}


class MissingExtra(MissingDriver):
    """
    A library is not installed that one of Stillroom's extras brings.
    """


class NoUnitOfWork(StillroomError, RuntimeError):
    """
    There is no current unit of work in this thread or task.
    """


class UnitOfWorkEnded(StillroomError, exc.InvalidRequestError):
    """
    A unit of work is used after its end.
    """


class ConcurrentUseError(StillroomError, exc.InvalidRequestError):
    """
    Two threads or tasks use one unit of work at the same time.
    """


class PropagationError(StillroomError, RuntimeError):
    """
    The propagation of a function does not fit the current unit of work.
    """


class MultipleWritesRefused(StillroomError, exc.InvalidRequestError):
    """
    A unit of work wrote to more than one database where the settings allow one only.
    """


class PartialCommitError(StillroomError, RuntimeError):
    """
    Some databases of a unit of work are committed and others are not.

    Attributes:
        committed: names of the databases that are durable, in the order of their commits.
        failed: names of the databases whose commit failed.
        not_committed: names of the databases that were rolled back without an attempt to commit.
        errors: the error of each failed database, by name.
    """

    committed: tuple[str, ...]
    failed: tuple[str, ...]
    not_committed: tuple[str, ...]
    errors: dict[str, BaseException]

    def __init__(
        self,
        message: str,
        *,
        committed: Iterable[str] = (),
        failed: Iterable[str] = (),
        not_committed: Iterable[str] = (),
        errors: Mapping[str, BaseException] | None = None,
    ) -> None:
        super().__init__(message)
        self.committed = tuple(committed)
        self.failed = tuple(failed)
        self.not_committed = tuple(not_committed)
        self.errors = dict(errors or {})


class TransactionAborted(StillroomError, exc.PendingRollbackError):
    """
    A COMMIT was asked for after a database error had already ended the transaction; its cause is that first error.
    """


class HookError(StillroomError, ExceptionGroup[Exception]):
    """
    The errors of ``on_commit`` or ``on_rollback`` callbacks; the unit of work itself ended as its status says.
    """

    def derive(self, excs: Sequence[Exception], /) -> HookError:  # type: ignore[override]  # narrower on purpose
        """
        Make the group of the same kind that ``split``, ``subgroup`` and ``except*`` need.

        Args:
            excs: the errors of the new group.

        Returns:
            A group with the same message.
        """
        return type(self)(self.message, excs)


class ForkedConnection(StillroomError, RuntimeError):
    """
    A child process uses a connection of its parent.
    """


class PoolTimeout(StillroomError, exc.TimeoutError):
    """
    No connection became free in time.

    Attributes:
        holders: one line for each connection that is out, saying who holds it.
    """

    holders: tuple[str, ...]

    def __init__(self, message: str, *, holders: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.holders = tuple(holders)


class UnitOfWorkTimeout(StillroomError, TimeoutError):
    """
    The body of a unit of work ran longer than its timeout; the unit was rolled back.
    """


class NotDisposable(StillroomError, PermissionError):
    """
    A database that is not marked ``disposable`` was to be dropped.
    """


class NotFound(StillroomError, exc.NoResultFound):
    """
    A row was required and there is none.

    Attributes:
        model: the mapped class, or None.
        keys: the primary keys that are missing, where rows were looked for by key.
    """

    def __init__(self, message: str, *, model: type[Any] | None = None, keys: Iterable[Any] = ()) -> None:
        super().__init__(message)
        self.model = model
        self.keys = tuple(keys)


class MultipleFound(StillroomError, exc.MultipleResultsFound):
    """
    One row was required and there are more.

    Attributes:
        model: the mapped class, or None.
    """

    def __init__(self, message: str, *, model: type[Any] | None = None) -> None:
        super().__init__(message)
        self.model = model


class BadRow(StillroomError, ValueError):
    """
    A row of many does not fit; where they were to be written, none of them was. Its cause is the error of that row.

    Attributes:
        number: which row, counted from 1.
        column: the attribute that does not fit, or None where the database does not tell.
        model: the mapped class.
    """

    def __init__(self, message: str, *, number: int, column: str | None = None, model: type[Any] | None = None) -> None:
        super().__init__(message)
        self.number = number
        self.column = column
        self.model = model


class InvalidSQLFile(StillroomError, ValueError):
    """
    A file of SQL is not what ``load_sql`` can read: a query without a name or a text, or two with one name.
    """


class UnknownQuery(StillroomError, AttributeError, KeyError):
    """
    A file of SQL has no query of that name.
    """

    __str__ = Exception.__str__  # KeyError shows the repr of its text


class InvalidCursor(StillroomError, ValueError):
    """
    A cursor of a page was changed, or belongs to another question.
    """


class InvalidListQuery(StillroomError, ValueError):
    """
    A web query string asks for what a ``ListQuery`` does not declare, or with a value that does not fit.

    Attributes:
        parameter: the name in the query string.
        value: what it had, or None.
    """

    def __init__(self, message: str, *, parameter: str, value: str | None = None) -> None:
        super().__init__(message)
        self.parameter = parameter
        self.value = value


class _DatabaseFailure(StillroomError, exc.DBAPIError):
    """
    A SQLAlchemy DBAPI error that can also be made from a message alone.
    """

    # SQLAlchemy's `code` is a key of its own error pages; ours is what the database said, or None. SQLAlchemy's own
    # classes fix the type to str, which "str | None" contradicts in each subclass: hence Any.
    code: Any = None
    database: str | None

    def __init__(self, message: str | None, source: exc.DBAPIError | None, database: str | None) -> None:
        # Not DBAPIError.__init__: it cannot do without a driver's error, and it makes the message from that alone.
        if source is None:
            exc.StatementError.__init__(self, message or "", None, None, None)
            self.connection_invalidated = False
        else:
            text = message if message is not None else str(source.args[0])
            exc.StatementError.__init__(
                self,
                text,
                source.statement,
                source.params,
                source.orig,
                source.hide_parameters,
                ismulti=source.ismulti,
            )
            self.detail = list(source.detail)
            self.connection_invalidated = source.connection_invalidated
        self.database = database

    def __str__(self) -> str:
        # A plain StatementError writes the statement and the parameters (or that they are hidden) as SQLAlchemy does,
        # without the link to SQLAlchemy's error pages, which `code` would lead astray.
        plain = exc.StatementError(
            str(self.args[0]), self.statement, self.params, self.orig, self.hide_parameters, ismulti=self.ismulti
        )
        plain.detail = self.detail
        return str(plain)


class CommitOutcomeUnknown(_DatabaseFailure, exc.OperationalError):
    """
    The connection was lost during COMMIT, and nobody can say whether the transaction is durable.

    Attributes:
        database: the name of the database, or None.
    """

    def __init__(
        self, message: str | None = None, *, source: exc.DBAPIError | None = None, database: str | None = None
    ) -> None:
        """
        Make it from a message, the SQLAlchemy error, or both.

        Args:
            message: what happened; by default the driver's text.
            source: the error that COMMIT raised; its statement, driver error and flags are kept.
            database: the name of the database.
        """
        super().__init__(message, source, database)


class DriverError(_DatabaseFailure):
    """
    A driver's error whose kind is known by its code; made by :func:`stillroom.classification.translate`.

    It keeps ``statement``, ``params``, ``orig``, ``hide_parameters`` and ``connection_invalidated`` of the SQLAlchemy
    error that it stands for.

    Attributes:
        kind: the kind in snake case, as in :class:`stillroom.classification.Kind`; a property of the class.
        code: SQLSTATE, errno or ``sqlite_errorname`` as text, or None.
        constraint: the name of the violated constraint or index, or None.
        table: the table, or None.
        columns: the columns, empty where the driver does not tell.
        database: the name of the database, or None.
        model: the mapped class, where a repository raised it.
        key: the primary key, where a repository raised it for one row.
    """

    kind: ClassVar[str] = "driver_error"
    model: type[Any] | None = None
    key: Any = None
    constraint: str | None
    table: str | None
    columns: tuple[str, ...]

    def __init__(
        self,
        message: str | None = None,
        *,
        source: exc.DBAPIError | None = None,
        code: str | None = None,
        constraint: str | None = None,
        table: str | None = None,
        columns: Iterable[str] = (),
        database: str | None = None,
    ) -> None:
        """
        Make it from a message, the SQLAlchemy error, or both.

        Args:
            message: what happened; by default the driver's text.
            source: the SQLAlchemy error; its statement, parameters, driver error and flags are kept.
            code: SQLSTATE, errno or ``sqlite_errorname``.
            constraint: the name of the violated constraint.
            table: the table.
            columns: the columns.
            database: the name of the database.
        """
        super().__init__(message, source, database)
        self.code = code
        self.constraint = constraint
        self.table = table
        self.columns = tuple(columns)


class UniqueViolation(DriverError, exc.IntegrityError):
    """
    A value is already there that a unique constraint, unique index or primary key allows once.
    """

    kind = "unique_violation"


class ForeignKeyViolation(DriverError, exc.IntegrityError):
    """
    A row refers to one that does not exist, or is still referred to.
    """

    kind = "foreign_key_violation"


class NotNullViolation(DriverError, exc.IntegrityError):
    """
    A column that needs a value got none.
    """

    kind = "not_null_violation"


class CheckViolation(DriverError, exc.IntegrityError):
    """
    A CHECK constraint refuses the row.
    """

    kind = "check_violation"


class ExclusionViolation(DriverError, exc.IntegrityError):
    """
    An exclusion constraint refuses the row (PostgreSQL).
    """

    kind = "exclusion_violation"


class SerializationFailure(DriverError, exc.OperationalError):
    """
    The transaction conflicts with another that committed meanwhile; run all of it again.
    """

    kind = "serialization_failure"


class Deadlock(DriverError, exc.OperationalError):
    """
    The transaction was chosen to end a deadlock and is rolled back; run all of it again.
    """

    kind = "deadlock"


class LockTimeout(DriverError, exc.OperationalError):
    """
    A lock was not granted in time; for SQLite, "database is locked".
    """

    kind = "lock_timeout"


class StatementTimeout(DriverError, exc.OperationalError):
    """
    The statement ran longer than allowed; on PostgreSQL and SQLite also one that somebody cancelled.
    """

    kind = "statement_timeout"


class StatementCancelled(DriverError, exc.OperationalError):
    """
    Somebody cancelled the statement (MariaDB, MySQL: ``KILL QUERY``).
    """

    kind = "statement_cancelled"


class Disconnected(DriverError, exc.OperationalError):
    """
    The connection is lost or could not be made.
    """

    kind = "disconnected"


class TooManyConnections(DriverError, exc.OperationalError):
    """
    The server takes no further connections.
    """

    kind = "too_many_connections"


class DiskFull(DriverError, exc.OperationalError):
    """
    The database has no room left.
    """

    kind = "disk_full"


class ReadOnlyError(DriverError, exc.OperationalError, exc.InternalError):
    """
    A reader wrote, or the server or the file takes no writes; raised by the database, or early by Stillroom.
    """

    kind = "read_only"


class UndefinedTable(DriverError, exc.ProgrammingError):
    """
    There is no such table or view.
    """

    kind = "undefined_table"


class UndefinedColumn(DriverError, exc.ProgrammingError):
    """
    There is no such column.
    """

    kind = "undefined_column"


class InvalidSQL(DriverError, exc.ProgrammingError):
    """
    The server cannot parse the statement.
    """

    kind = "invalid_sql"


class PermissionDenied(DriverError, exc.ProgrammingError):
    """
    The database user lacks the right, or the login was refused.
    """

    kind = "permission_denied"


class InvalidData(DriverError, exc.DataError):
    """
    A value is out of range, too long or not of the column's type.
    """

    kind = "invalid_data"
