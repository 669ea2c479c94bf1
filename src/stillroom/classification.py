"""
Says what kind of error a driver raised, from its code alone, and makes Stillroom's own class of it.
"""

from __future__ import annotations

import enum
import re
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from msgspec import Struct
from msgspec.structs import replace
from sqlalchemy import exc

from . import errors

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["OF_A_ROW", "Details", "Kind", "classify", "details", "is_retryable", "translate"]


class Kind(enum.Enum):
    """
    The kinds of database errors; the value is the name in snake case.
    """

    UNIQUE_VIOLATION = "unique_violation"
    FOREIGN_KEY_VIOLATION = "foreign_key_violation"
    NOT_NULL_VIOLATION = "not_null_violation"
    CHECK_VIOLATION = "check_violation"
    EXCLUSION_VIOLATION = "exclusion_violation"
    SERIALIZATION_FAILURE = "serialization_failure"
    DEADLOCK = "deadlock"
    LOCK_TIMEOUT = "lock_timeout"
    STATEMENT_TIMEOUT = "statement_timeout"
    STATEMENT_CANCELLED = "statement_cancelled"
    DISCONNECTED = "disconnected"
    TOO_MANY_CONNECTIONS = "too_many_connections"
    DISK_FULL = "disk_full"
    READ_ONLY = "read_only"
    UNDEFINED_TABLE = "undefined_table"
    UNDEFINED_COLUMN = "undefined_column"
    INVALID_SQL = "invalid_sql"
    PERMISSION_DENIED = "permission_denied"
    INVALID_DATA = "invalid_data"

    @property
    def error(self) -> type[errors.DriverError]:
        """
        The class of :mod:`stillroom.errors` that stands for the kind.
        """
        return _CLASSES[self.value]


class Details(Struct, frozen=True):
    """
    What a driver tells about an error beside its kind; None or empty where it does not tell.

    Attributes:
        code: SQLSTATE, errno or ``sqlite_errorname`` as text.
        constraint: the violated constraint or index.
        table: the table; for a foreign key the one that has the constraint, not the one that it refers to.
        columns: the columns.
        schema: the schema (PostgreSQL) or database (MariaDB, MySQL) of the table.
    """

    code: str | None = None
    constraint: str | None = None
    table: str | None = None
    columns: tuple[str, ...] = ()
    schema: str | None = None


# https://www.postgresql.org/docs/current/errcodes-appendix.html
_BY_SQLSTATE: Final = MappingProxyType(
    {
        # RESTRICT has its own code from PostgreSQL 18 on; before, it was 23503.
        "23001": Kind.FOREIGN_KEY_VIOLATION,
        "23502": Kind.NOT_NULL_VIOLATION,
        "23503": Kind.FOREIGN_KEY_VIOLATION,
        "23505": Kind.UNIQUE_VIOLATION,
        "23514": Kind.CHECK_VIOLATION,
        "23P01": Kind.EXCLUSION_VIOLATION,
        "25006": Kind.READ_ONLY,
        # idle_in_transaction_session_timeout and transaction_timeout end the session, not only the statement.
        "25P03": Kind.DISCONNECTED,
        "25P04": Kind.DISCONNECTED,
        "28000": Kind.PERMISSION_DENIED,
        "28P01": Kind.PERMISSION_DENIED,
        "40001": Kind.SERIALIZATION_FAILURE,
        "40P01": Kind.DEADLOCK,
        "42501": Kind.PERMISSION_DENIED,
        "42601": Kind.INVALID_SQL,
        "42703": Kind.UNDEFINED_COLUMN,
        "42P01": Kind.UNDEFINED_TABLE,
        "53100": Kind.DISK_FULL,
        "53300": Kind.TOO_MANY_CONNECTIONS,
        "55P03": Kind.LOCK_TIMEOUT,
        # statement_timeout and a cancel request share this code; only the text, which is translated, tells them apart.
        "57014": Kind.STATEMENT_TIMEOUT,
        "57P01": Kind.DISCONNECTED,
        "57P02": Kind.DISCONNECTED,
        "57P03": Kind.DISCONNECTED,
        "57P04": Kind.DISCONNECTED,
        "57P05": Kind.DISCONNECTED,
    }
)
# Whole classes of SQLSTATE: data exceptions, connection exceptions.
_BY_SQLSTATE_CLASS: Final = MappingProxyType({"22": Kind.INVALID_DATA, "08": Kind.DISCONNECTED})

# https://mariadb.com/docs/server/reference/error-codes and https://dev.mysql.com/doc/mysql-errors/en/
_ERRNO_OF_KIND: Final = MappingProxyType(
    {
        Kind.UNIQUE_VIOLATION: (1062, 1586, 1859),
        Kind.FOREIGN_KEY_VIOLATION: (1216, 1217, 1451, 1452),
        Kind.NOT_NULL_VIOLATION: (1048, 1263, 1364),
        Kind.CHECK_VIOLATION: (3819, 4025),
        # 1020 is MariaDB's write conflict under innodb_snapshot_isolation; 3101 that of MySQL's group replication.
        Kind.SERIALIZATION_FAILURE: (1020, 3101),
        Kind.DEADLOCK: (1213, 1614),
        Kind.LOCK_TIMEOUT: (1205, 3572),
        Kind.STATEMENT_TIMEOUT: (1969, 3024),
        Kind.STATEMENT_CANCELLED: (1317,),
        # 4031 is MySQL's; MariaDB says it of a trigger that is missing, and SQLAlchemy drops the connection for both.
        Kind.DISCONNECTED: (1053, 1080, 1927, 2002, 2003, 2005, 2006, 2012, 2013, 2055, 3169, 4031),
        # 1226 is any limit of an account; the number of its connections is the one in use.
        Kind.TOO_MANY_CONNECTIONS: (1040, 1203, 1226),
        Kind.DISK_FULL: (1021, 1114),
        # 1290 is any "--option prevents this"; after a failover it is --read-only.
        Kind.READ_ONLY: (1290, 1792, 1836),
        Kind.UNDEFINED_TABLE: (1051, 1146),
        Kind.UNDEFINED_COLUMN: (1054,),
        Kind.INVALID_SQL: (1064, 1149),
        Kind.PERMISSION_DENIED: (1044, 1045, 1142, 1143, 1227, 1370, 1698),
        Kind.INVALID_DATA: (1264, 1265, 1292, 1300, 1365, 1366, 1367, 1406, 1411, 1441, 1690, 3140),
    }
)
_BY_ERRNO: Final = MappingProxyType({number: kind for kind, numbers in _ERRNO_OF_KIND.items() for number in numbers})

# https://www.sqlite.org/rescode.html. A missing table or column and bad SQL are all plain SQLITE_ERROR: no kind.
# SQLITE_CANTOPEN and SQLITE_IOERR mean a wrong path or a broken disk, which no reconnect mends: no kind either.
_BY_SQLITE_NAME: Final = MappingProxyType(
    {
        "SQLITE_CONSTRAINT_UNIQUE": Kind.UNIQUE_VIOLATION,
        "SQLITE_CONSTRAINT_PRIMARYKEY": Kind.UNIQUE_VIOLATION,
        "SQLITE_CONSTRAINT_ROWID": Kind.UNIQUE_VIOLATION,
        "SQLITE_CONSTRAINT_FOREIGNKEY": Kind.FOREIGN_KEY_VIOLATION,
        "SQLITE_CONSTRAINT_NOTNULL": Kind.NOT_NULL_VIOLATION,
        "SQLITE_CONSTRAINT_CHECK": Kind.CHECK_VIOLATION,
        "SQLITE_CONSTRAINT_DATATYPE": Kind.INVALID_DATA,
        "SQLITE_BUSY_SNAPSHOT": Kind.SERIALIZATION_FAILURE,
        "SQLITE_BUSY": Kind.LOCK_TIMEOUT,
        "SQLITE_LOCKED": Kind.LOCK_TIMEOUT,
        # Processes that race to open one WAL file.
        "SQLITE_PROTOCOL": Kind.LOCK_TIMEOUT,
        "SQLITE_INTERRUPT": Kind.STATEMENT_TIMEOUT,
        "SQLITE_READONLY": Kind.READ_ONLY,
        "SQLITE_FULL": Kind.DISK_FULL,
        "SQLITE_AUTH": Kind.PERMISSION_DENIED,
        "SQLITE_PERM": Kind.PERMISSION_DENIED,
        "SQLITE_TOOBIG": Kind.INVALID_DATA,
        "SQLITE_MISMATCH": Kind.INVALID_DATA,
    }
)

# Python gives the name "unknown" to codes that are newer than its own table; the last eight bits are the primary code.
_SQLITE_NAME_OF_CODE: Final = MappingProxyType(
    {
        3: "SQLITE_PERM",
        5: "SQLITE_BUSY",
        6: "SQLITE_LOCKED",
        8: "SQLITE_READONLY",
        9: "SQLITE_INTERRUPT",
        13: "SQLITE_FULL",
        15: "SQLITE_PROTOCOL",
        18: "SQLITE_TOOBIG",
        20: "SQLITE_MISMATCH",
        23: "SQLITE_AUTH",
        3091: "SQLITE_CONSTRAINT_DATATYPE",
    }
)

_CLASSES: Final = MappingProxyType(
    {
        cls.kind: cls
        for cls in (
            errors.UniqueViolation,
            errors.ForeignKeyViolation,
            errors.NotNullViolation,
            errors.CheckViolation,
            errors.ExclusionViolation,
            errors.SerializationFailure,
            errors.Deadlock,
            errors.LockTimeout,
            errors.StatementTimeout,
            errors.StatementCancelled,
            errors.Disconnected,
            errors.TooManyConnections,
            errors.DiskFull,
            errors.ReadOnlyError,
            errors.UndefinedTable,
            errors.UndefinedColumn,
            errors.InvalidSQL,
            errors.PermissionDenied,
            errors.InvalidData,
        )
    }
)
_BY_NAME: Final = MappingProxyType({kind.value: kind for kind in Kind})

OF_A_ROW: Final = frozenset(
    {
        Kind.UNIQUE_VIOLATION,
        Kind.FOREIGN_KEY_VIOLATION,
        Kind.NOT_NULL_VIOLATION,
        Kind.CHECK_VIOLATION,
        Kind.EXCLUSION_VIOLATION,
        Kind.INVALID_DATA,
    }
)
"""
The kinds of errors that the values of one row may be to blame for.

They are the SQLSTATE classes 22 (data exception) and 23 (integrity constraint violation) of PostgreSQL's list of error
codes, and what MariaDB and SQLite say instead. Without the rows to blame, the others could be written; not so after a
lock, a lost connection or a missing table.
"""

RETRYABLE: Final = frozenset({Kind.SERIALIZATION_FAILURE, Kind.DEADLOCK, Kind.LOCK_TIMEOUT, Kind.DISCONNECTED})

_MYSQL_MODULES: Final = frozenset({"pymysql", "MySQLdb", "aiomysql", "asyncmy", "cymysql", "mysql", "mariadb"})
_DRIVER_MODULES: Final = _MYSQL_MODULES | {"psycopg", "psycopg2", "asyncpg", "sqlite3", "aiosqlite"}
# More wrappers than this around one driver's error are a cycle.
_MAX_WRAPPERS: Final = 10


class _Found(Struct, frozen=True):
    """
    The driver's error inside of SQLAlchemy's.

    Attributes:
        error: the innermost error.
        is_dbapi: SQLAlchemy says that it is a driver's, or its class comes from a driver that we know.
        invalidated: SQLAlchemy gave the connection up.
    """

    error: BaseException
    is_dbapi: bool
    invalidated: bool


def classify(error: BaseException) -> Kind | None:
    """
    Say the kind of any driver's or SQLAlchemy error, by its code and never by its text.

    Args:
        error: an error of psycopg, psycopg2, asyncpg, PyMySQL, mysqlclient, aiomysql, asyncmy, sqlite3 or aiosqlite,
            a SQLAlchemy error around one, or one of :mod:`stillroom.errors`.

    Returns:
        The kind; None for what is no database error, and for a database error that has no kind here.
    """
    if isinstance(error, errors.DriverError):
        return _BY_NAME.get(error.kind)
    if isinstance(error, errors.StillroomError):
        # CommitOutcomeUnknown has a lost connection inside, but "disconnected" would invite to run it again.
        return None
    found = _unwrap(error)
    if found.invalidated:
        return Kind.DISCONNECTED
    name = _sqlite_name(found.error)
    if name is not None:
        return _BY_SQLITE_NAME.get(name) or _BY_SQLITE_NAME.get("_".join(name.split("_")[:2]))
    number = _errno(found)
    if number:
        return _BY_ERRNO.get(number)
    state = _sqlstate(found.error)
    if state is not None and not _is_mysql(found.error):
        return _BY_SQLSTATE.get(state) or _BY_SQLSTATE_CLASS.get(state[:2])
    return _classify_without_code(found)


def details(error: BaseException) -> Details:
    """
    Read constraint, table and columns of an error where the driver tells.

    PostgreSQL's drivers tell them apart from the message. SQLite and MariaDB name them only inside of it; what cannot
    be read there is None.

    Args:
        error: as for :func:`classify`.

    Returns:
        What is known; all None for what is no database error.
    """
    found = _unwrap(error)
    known = _details_of_driver(found)
    if isinstance(error, errors.DriverError):
        # An error that was pickled may have lost the driver's own objects.
        return Details(error.code, error.constraint, error.table, error.columns, known.schema)
    return known


def translate(error: exc.DBAPIError, database: str | None = None) -> errors.DriverError | None:
    """
    Make Stillroom's class from a SQLAlchemy error.

    Args:
        error: the error that SQLAlchemy raised.
        database: the name of the database, for ``DriverError.database``.

    Returns:
        An error to ``raise ... from error``, with the same statement, parameters, driver error and flags; ``error``
        itself if it is one already; None if it has no kind.
    """
    if isinstance(error, errors.DriverError):
        return error
    kind = classify(error)
    if kind is None:
        return None
    known = details(error)
    return kind.error(
        source=error,
        code=known.code,
        constraint=known.constraint,
        table=known.table,
        columns=known.columns,
        database=database,
    )


def is_retryable(error: BaseException) -> bool:
    """
    Say whether the same unit of work may succeed when it is run again from its start.

    That is so for a serialization failure, a deadlock, a lock timeout ("database is locked") and a lost connection,
    also when a swallowed one of these led to ``TransactionAborted``, for nothing was committed then.

    Args:
        error: any error.

    Returns:
        True if it may. False for any other, for ``CommitOutcomeUnknown`` and ``PartialCommitError`` (a part may be
        durable), and for an error whose attribute ``stillroom_retry`` is False.
    """
    if getattr(error, "stillroom_retry", None) is False:
        return False
    if isinstance(error, errors.TransactionAborted):
        first = error.__cause__
        return first is not None and not isinstance(first, errors.TransactionAborted) and is_retryable(first)
    return classify(error) in RETRYABLE


def _unwrap(error: BaseException) -> _Found:
    """
    Go down SQLAlchemy's wrappers to the driver's error.
    """
    invalidated = is_dbapi = False
    for _ in range(_MAX_WRAPPERS):
        if not isinstance(error, exc.StatementError):
            break
        is_dbapi = isinstance(error, exc.DBAPIError)
        invalidated = invalidated or (is_dbapi and bool(getattr(error, "connection_invalidated", False)))
        if error.orig is None:
            break
        error = error.orig
    return _Found(error, is_dbapi or not _DRIVER_MODULES.isdisjoint(_modules(error)), invalidated)


def _modules(error: BaseException) -> set[str]:
    """
    Name the top-level packages that an error's classes come from.
    """
    return {cls.__module__.partition(".")[0] for cls in type(error).__mro__}


def _class_names(error: BaseException) -> set[str]:
    return {cls.__name__ for cls in type(error).__mro__}


def _is_mysql(error: BaseException) -> bool:
    return not _MYSQL_MODULES.isdisjoint(_modules(error))


def _sqlite_name(error: BaseException) -> str | None:
    """
    Read the name of an SQLite error.
    """
    name = getattr(error, "sqlite_errorname", None)
    number = getattr(error, "sqlite_errorcode", None)
    if name == "unknown" and isinstance(number, int):
        return _SQLITE_NAME_OF_CODE.get(number) or _SQLITE_NAME_OF_CODE.get(number & 0xFF) or str(number)
    return name if isinstance(name, str) else None


def _errno(found: _Found) -> int | None:
    """
    Read the number of a MariaDB or MySQL error: the first argument, as all of its drivers have it.

    Many other exceptions have a number there (OSError, KeyError): it counts only on a driver's error.
    """
    error = found.error
    if not found.is_dbapi or isinstance(error, OSError) or not error.args:
        return None
    number = error.args[0]
    if isinstance(number, bool) or not isinstance(number, int):
        number = getattr(error, "errno", None)
    return number if isinstance(number, int) else None


def _sqlstate(error: BaseException) -> str | None:
    """
    Read the SQLSTATE: `sqlstate` in psycopg, asyncpg and SQLAlchemy's adapter of it, `pgcode` in psycopg2.
    """
    for attribute in ("sqlstate", "pgcode"):
        state = getattr(error, attribute, None)
        if isinstance(state, str) and len(state) == 5:
            return state
    return None


def _classify_without_code(found: _Found) -> Kind | None:
    """
    Classify what a driver raises by itself, where no server gave a code: by the driver's class and attributes.
    """
    error = found.error
    if not found.is_dbapi or isinstance(error, exc.SQLAlchemyError):
        return None
    names = _class_names(error)
    if "DataError" in names or "DataError" in _class_names(error.__cause__ or error):
        # A value that the driver refuses to send; on other drivers the server refuses it. asyncpg's own class is the
        # cause of SQLAlchemy's.
        return Kind.INVALID_DATA
    if "InterfaceError" in names and _is_mysql(error):
        # PyMySQL and asyncmy say (0, ...), aiomysql no number, of a connection that is closed.
        return Kind.DISCONNECTED
    if getattr(error, "pgconn", None) is not None:
        # psycopg sets it for an attempt to connect that failed, and passes on no SQLSTATE then.
        return Kind.DISCONNECTED
    return None


def _details_of_driver(found: _Found) -> Details:
    """
    Read the details from the driver's error.
    """
    error = found.error
    message = next((arg for arg in reversed(error.args) if isinstance(arg, str)), "")
    name = _sqlite_name(error)
    if name is not None:
        return replace(_sqlite_details(name, message), code=name)
    number = _errno(found)
    if number:
        parse = _MYSQL_PARSERS.get(number)
        return replace(parse(message) if parse else Details(), code=str(number))
    state = _sqlstate(error)
    if state is None or _is_mysql(error):
        return Details()
    return replace(_postgresql_details(error), code=state)


def _postgresql_details(error: BaseException) -> Details:
    """
    Read what psycopg keeps in `diag`, and asyncpg in its own error behind SQLAlchemy's.
    """
    for source in (getattr(error, "diag", None), getattr(error, "orig", None), error.__cause__, error):
        if source is not None and hasattr(source, "constraint_name"):
            column = getattr(source, "column_name", None)
            return Details(
                constraint=source.constraint_name or None,
                table=getattr(source, "table_name", None) or None,
                columns=(column,) if column else (),
                schema=getattr(source, "schema_name", None) or None,
            )
    return Details()


def _sqlite_details(name: str, message: str) -> Details:
    """
    Read the names from SQLite's message, which is always English: "UNIQUE constraint failed: item.code, item.shop".
    """
    named = message.partition(": ")[2]
    if name == "SQLITE_CONSTRAINT_CHECK":
        # Without a name of its own, a constraint is shown as its expression.
        return Details(constraint=named) if re.fullmatch(r"\w+", named) else Details()
    if name == "SQLITE_CONSTRAINT_DATATYPE":
        named = message.rpartition(" ")[2]
    elif index := re.fullmatch(r"index '(.+)'", named):
        return Details(constraint=index[1])
    parts = [part.split(".") for part in named.split(", ")]
    if not name.startswith("SQLITE_CONSTRAINT_") or any(len(part) != 2 or part[0] != parts[0][0] for part in parts):
        return Details()
    return Details(table=parts[0][0], columns=tuple(column for _, column in parts))


# MariaDB's messages are translated, but they name things in the same order in each language, in quotes or backticks.
_TICKED: Final = r"`((?:[^`]|``)+)`"
_FOREIGN_KEY: Final = re.compile(rf"{_TICKED}\.{_TICKED}, CONSTRAINT {_TICKED} FOREIGN KEY \(((?:{_TICKED}(?:, )?)+)\)")
_THREE_AT_END: Final = re.compile(rf"{_TICKED}\.{_TICKED}\.{_TICKED}[^`]*$")
_TWO_AT_END: Final = re.compile(rf"{_TICKED}\.{_TICKED}[^`]*$")


def _plain(name: str) -> str:
    return name.replace("``", "`")


def _first_quoted(message: str) -> str | None:
    match = re.search(r"'([^']+)'", message)
    return match[1] if match else None


def _mysql_unique(message: str) -> Details:
    # The value comes first and may have quotes in it: the key is the last. MySQL 8 writes 'table.key'.
    match = re.search(r"'([^']+)'[^']*$", message)
    if match is None:
        return Details()
    table, _, key = match[1].rpartition(".")
    return Details(constraint=key, table=table or None)


def _mysql_foreign_key(message: str) -> Details:
    match = _FOREIGN_KEY.search(message)
    if match is None:
        return Details()
    columns = tuple(_plain(column) for column in re.findall(_TICKED, match[4]))
    return Details(constraint=_plain(match[3]), table=_plain(match[2]), columns=columns, schema=_plain(match[1]))


def _mysql_check(message: str) -> Details:
    names = [_plain(name) for name in re.findall(_TICKED, message)]
    if len(names) != 3:
        return Details(constraint=_first_quoted(message))
    constraint, schema, table = names
    if constraint.startswith(table + "."):
        # The check of one column is named after it.
        column = constraint.removeprefix(table + ".")
        return Details(constraint=column, table=table, columns=(column,), schema=schema)
    return Details(constraint=constraint, table=table, schema=schema)


def _mysql_column(message: str) -> Details:
    column = _first_quoted(message)
    return Details(columns=(column.rpartition(".")[2],)) if column else Details()


def _mysql_value(message: str) -> Details:
    match = _THREE_AT_END.search(message)
    if match is None:
        return Details()
    return Details(schema=_plain(match[1]), table=_plain(match[2]), columns=(_plain(match[3]),))


def _mysql_table(message: str) -> Details:
    named = _first_quoted(message)
    if named is None or "," in named:
        return Details()
    schema, _, table = named.rpartition(".")
    return Details(table=table, schema=schema or None)


def _mysql_denied(message: str) -> Details:
    match = _TWO_AT_END.search(message)
    return Details(schema=_plain(match[1]), table=_plain(match[2])) if match else Details()


_PARSERS_OF_ERRNO: Final[tuple[tuple[Callable[[str], Details], tuple[int, ...]], ...]] = (
    (_mysql_unique, (1062, 1586, 1859)),
    (_mysql_foreign_key, (1451, 1452)),
    (_mysql_check, (3819, 4025)),
    (_mysql_column, (1048, 1054, 1264, 1265, 1364, 1406)),
    (_mysql_value, (1292, 1366)),
    (_mysql_table, (1051, 1146)),
    (_mysql_denied, (1142,)),
)
_MYSQL_PARSERS: Final = MappingProxyType({number: parse for parse, numbers in _PARSERS_OF_ERRNO for number in numbers})
