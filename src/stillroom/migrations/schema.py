"""The schema of a database as a file of SQL, from which a new one is made faster than by running every revision."""

from __future__ import annotations

import io
import re
from contextlib import suppress
from traceback import walk_tb
from typing import TYPE_CHECKING, Any

import msgspec
from alembic import command
from sqlalchemy import make_url

from stillroom import Database
from stillroom.secrets import mask_text

from .chain import Chain, chains
from .connecting import exclusive, with_engine
from .environment import Task
from .errors import MigrationError
from .options import Options

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Connection, Engine

    from stillroom import Databases

__all__ = ["Statements", "dump_schema", "load_schema", "offline", "schema_file"]

NEXT = "\n-- stillroom: next\n"
"""Stands between statements: a semicolon may be part of one."""
_HEADER = "-- The schema of {name!r} at revision {revision} for {backend}; load it with `stillroom schema-load`."
_READ = re.compile(r"-- The schema of '.*' at revision (\S+) for (\w+);")


class Statements(io.StringIO):
    """
    Keeps apart the statements that Alembic writes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def write(self, text: str, /) -> int:
        if (statement := text.strip()) and not statement.startswith("-- "):
            self.found.append(statement)
        return super().write(text)


def schema_file(databases: Databases, database: str) -> Path:
    """
    Return where the schema of a database is kept: beside its revisions.
    """
    return Chain(databases[database]).directory / "schema.sql"


def dump_schema(databases: Databases, database: str | None = None) -> dict[str, str]:
    """
    Write what the revisions make of an empty database, their rows included, and connect to nothing.

    Args:
        databases: The application's.
        database: One of them; None for all that have migrations.

    Returns:
        The SQL, by database.

    Raises:
        MigrationError: A revision asks the database before it knows what to do (SQLite's may).
    """
    return {chain.name: _dump(chain) for chain in chains(databases, database)}


def load_schema(databases: Databases, database: str, text: str, *, options: Options | None = None) -> str:
    """
    Make the schema of an empty database, and write down that it has the revisions.

    Args:
        databases: The application's.
        database: The database.
        text: What `dump_schema` returned.
        options: How patient it is.

    Returns:
        The revision that it has now; pending ones, where the file is older than they are, are not run.

    Raises:
        MigrationError: The database has revisions already, or the file is for another one.
    """
    chain, settled = Chain(databases[database]), options or Options()
    header = _READ.match(text)
    backend = chain.database.backend.name
    if header is None or header[2] != backend:
        first = text.partition("\n")[0][:100]
        raise MigrationError(
            f"this is no schema for {chain.name!r} on {backend}: its first line is {first!r}; "
            "write it with `stillroom schema-dump`"
        )
    scripts = chain.pending((), header[1])

    def work(engine: Engine) -> None:
        with exclusive(engine, chain, settled, autocommit=True) as connection:
            if current := chain.current(connection):
                raise MigrationError(
                    f"the database {chain.name!r} has revision {', '.join(current)}; a schema is loaded into an "
                    "empty one"
                )
            _execute(connection, text.split(NEXT)[1:], chain.name)
            chain.log.prepare(connection)
            chain.log.add(connection, scripts)
            connection.commit()

    with_engine(chain.database, settled.lock_timeout, work)
    return header[1]


def offline(chain: Chain, start: str, end: str) -> list[str]:
    """
    Return the statements of an upgrade, without a database.

    Raises:
        MigrationError: A revision asks the database before it knows what to do.
    """
    chain.script()
    output = Statements()
    try:
        chain.command(command.upgrade, Task(chain), f"{start}:{end}", sql=True, output=output)
    except Exception as error:
        cause = error.__cause__ if isinstance(error, MigrationError) and error.__cause__ else error
        revision = _failing(chain, cause)
        if revision is None and isinstance(error, MigrationError):
            raise
        what = f"revision {revision!r} of the database {chain.name!r}" if revision else repr(chain.name)
        if chain.database.backend.name == "sqlite" and "copy_from" in str(cause):
            why = (
                "SQLite makes a table anew to alter it, and only the database knows that table. Give the whole table "
                f"to op.batch_alter_table() as copy_from, or run `stillroom upgrade {chain.name}` instead"
            )
        else:
            why = (
                f"{type(cause).__name__}: {str(cause).rstrip('.')}. It asks for something that only op.get_bind() can "
                f"tell, so it runs over a connection alone, by `stillroom upgrade {chain.name}`"
            )
        raise MigrationError(f"the SQL of {what} cannot be written without the database: {why}") from error
    return output.found


def _failing(chain: Chain, error: BaseException) -> str | None:
    """
    Say in which revision an error was raised.
    """
    revisions = {script.path: script.revision for script in chain.script().walk_revisions()}
    files = [frame.f_code.co_filename for frame, _ in walk_tb(error.__traceback__)]
    return next((revisions[file] for file in files if file in revisions), None)


def _dump(chain: Chain) -> str:
    head, backend = chain.head(), chain.database.backend.name
    if head is None:
        raise MigrationError(f"the database {chain.name!r} has no revisions; write one with `stillroom revision`")
    statements = _made_in_memory(chain) if backend == "sqlite" else _in_one(offline(chain, "base", head))
    header = _HEADER.format(name=chain.name, revision=head, backend=backend)
    return NEXT.join([header, *statements]) + "\n"


def _in_one(statements: list[str]) -> list[str]:
    """
    Leave out where one revision's transaction ends and the next one's begins.
    """
    kept: list[str] = []
    for each in statements:
        if each == "BEGIN;" and kept and kept[-1] == "COMMIT;":
            kept.pop()
        else:
            kept.append(each)
    return kept


def _made_in_memory(chain: Chain) -> list[str]:
    """
    Run the revisions on a database in memory, and let Python write it down; altered tables are known only then.
    """
    settings = msgspec.structs.replace(chain.database.settings, url=make_url("sqlite://"), migration_url=None)
    database = Database(settings, name=chain.name)
    copy = Chain(database)
    log = copy.log.table.name
    try:
        with exclusive(database.engine, copy, Options()) as connection:
            copy.log.prepare(connection)
            copy.command(command.upgrade, Task(copy, connection), "head")
            driver: Any = connection.connection.driver_connection
            found = [each for each in driver.iterdump() if not re.match(rf'(CREATE TABLE|INSERT INTO) "?{log}\b', each)]
    finally:
        database.close()
    return found


def _execute(connection: Connection, statements: list[str], name: str) -> None:
    """
    Send the statements as they are, BEGIN and COMMIT among them: the connection is in autocommit.
    """
    connection.commit()
    cursor = connection.connection.cursor()
    for each in statements:
        try:
            cursor.execute(each.strip())
        except Exception as error:
            with suppress(Exception):  # no transaction was open
                cursor.execute("ROLLBACK")
            statement, why = mask_text(" ".join(each.split()))[:120], mask_text(str(error))
            raise MigrationError(
                f"the schema of {name!r} failed at {statement!r}: {why}. Create the database anew before you try again"
            ) from error
    cursor.close()
