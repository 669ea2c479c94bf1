"""COPY, PostgreSQL's way for many rows, through the drivers that have it."""

from __future__ import annotations

import json
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

from sqlalchemy import JSON, event, text

from ...connections import before_statement
from ..quoting import quoted

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection
    from sqlalchemy.types import TypeEngine

    from .batches import Batch, Processor, Shape

_COPY = "stillroom_copy"
"""The execution option with a `Copy` and its rows. The statement goes through SQLAlchemy: past every guard, into every
log, and its errors become SQLAlchemy's."""

_TEXT = 25
_BINARY = {
    16: 16,  # boolean
    17: 17,  # bytea
    20: 20,  # bigint
    21: 21,  # smallint
    23: 23,  # integer
    25: _TEXT,
    114: 114,  # json
    700: 700,  # real
    701: 701,  # double precision
    1042: _TEXT,  # character
    1043: _TEXT,  # character varying
    1082: 1082,  # date
    1083: 1083,  # time
    1114: 1114,  # timestamp
    1184: 1184,  # timestamp with time zone
    1186: 1186,  # interval
    1700: 1700,  # numeric
    2950: 2950,  # uuid
    3802: 3802,  # jsonb
}
"""The types (by OID) that go out in binary, each with the one whose form it has there. What SQLAlchemy's types make of
a value is just what psycopg writes as these."""
_TIMESTAMP = 1114
_JSON = {114: "", 3802: "\x01"}
"""What the binary form of JSON types begins with: jsonb has the number of its version."""

_TYPES = text(
    "select a.attname, coalesce(nullif(t.typbasetype, 0), t.oid)::integer, t.typtype::text "
    "from pg_attribute a join pg_type t on t.oid = a.atttypid where a.attrelid = cast(:name as regclass)"
)
"""Asked of the catalogue, since the table may be other than the model says, and nobody else may read it."""


class Copy:
    """
    Writes tuples into some columns of a table.

    Args:
        connection: The connection, inside a transaction.
        schema: The schema of the table, or None.
        table: The name of the table.
        shape: The columns.

    Attributes:
        fits: COPY stores the same as INSERT would.
    """

    def __init__(self, connection: Connection, schema: str | None, table: str, shape: Shape) -> None:
        self.connection = connection
        self.schema = schema
        self.table = table
        self.columns = [column.name for column in shape.columns]
        self.name = quoted(schema, table)
        self.fits = True
        self.processors: dict[str, Processor] = dict(shape.processors)
        self.types = None if connection.dialect.driver == "asyncpg" else self._types(shape)
        form = "FORMAT text" if self.types is None else "FORMAT binary"
        names = ", ".join(map(quoted, self.columns))
        self.statement = f"COPY {self.name} ({names}) FROM STDIN WITH ({form})"

    def _types(self, shape: Shape) -> list[int] | None:
        asked = self.connection.execute(_TYPES, {"name": self.name})
        found = {name: (_TEXT if kind == "e" else oid) for name, oid, kind in asked}
        types = [found.get(name, 0) for name in self.columns]
        if not all(each in _BINARY for each in types):
            # As text, the server would drop the zone of a time that goes into a column without one.
            self.fits = _TIMESTAMP not in types
            return None
        for name, column, oid in zip(shape.names, shape.columns, types, strict=True):
            if oid in _JSON and isinstance(column.type, JSON):
                self.processors[name] = self._json(shape.processors[name], _JSON[oid])
        return [
            _TEXT if self.processors.get(name) is not shape.processors.get(name) else _BINARY[oid]
            for name, oid in zip(shape.names, types, strict=True)
        ]

    def _json(self, process: Processor, prefix: str) -> Processor:
        """
        Return what makes of a JSON value the text that the server reads, with fewer calls than the driver needs for it.

        Args:
            process: SQLAlchemy's way, for values that may be NULL.
            prefix: What is before the text.
        """
        # SQLAlchemy's own JSON, not the driver's: it calls the engine's serializer.
        text_type: TypeEngine[Any] = JSON()
        serialize = text_type.bind_processor(self.connection.dialect) or json.dumps

        def to_text(value: Any) -> str | None:
            if type(value) not in (dict, list):
                wrapped = process(value)
                if wrapped is None:
                    return None
                value = wrapped.obj
            text = serialize(value)
            return prefix + (text.decode() if isinstance(text, bytes) else text)

        return to_text

    def write(self, batch: Batch) -> None:
        """
        Send the rows of a batch, in one COPY.
        """
        dialect = self.connection.dialect
        if not event.contains(dialect, "do_execute", _execute):
            event.listen(dialect, "do_execute", _execute)
        self.connection.exec_driver_sql(self.statement, execution_options={_COPY: (self, batch)})


def takes_copy(connection: Connection) -> bool:
    """
    Say whether the driver has COPY.
    """
    dialect = connection.dialect
    return dialect.name == "postgresql" and dialect.driver in ("psycopg", "psycopg_async", "asyncpg")


def _execute(cursor: Any, statement: str, parameters: Any, context: Any) -> bool | None:
    """
    Do a COPY in place of executing its statement; leave all other statements to SQLAlchemy.
    """
    option = context.execution_options.get(_COPY)
    if option is None:
        return None
    before_statement(statement, context)
    copy, batch = option
    if not context.dialect.is_async:
        with cursor.copy(statement) as writer:
            if copy.types is not None:
                writer.set_types(copy.types)
            write = writer.write_row
            for rows in batch.tuples(copy.processors):
                for row in rows:
                    write(row)
    else:
        send = _asyncpg if context.dialect.driver == "asyncpg" else _psycopg_async
        context.root_connection.connection.dbapi_connection.run_async(partial(send, copy=copy, batch=batch))
    return True


async def _psycopg_async(driver: Any, copy: Copy, batch: Batch) -> None:
    async with driver.cursor() as cursor, cursor.copy(copy.statement) as writer:
        if copy.types is not None:
            writer.set_types(copy.types)
        for rows in batch.tuples(copy.processors):
            for row in rows:
                await writer.write_row(row)


async def _asyncpg(driver: Any, copy: Copy, batch: Batch) -> None:
    import asyncpg

    records = chain.from_iterable(batch.tuples(copy.processors))
    try:
        await driver.copy_records_to_table(copy.table, schema_name=copy.schema, columns=copy.columns, records=records)
    except asyncpg.PostgresError as error:
        # As SQLAlchemy's cursor does: an error that it takes for the driver's, with the code of the server's.
        adapted: Any = copy.connection.dialect.loaded_dbapi.Error(str(error))
        adapted.pgcode = adapted.sqlstate = error.sqlstate
        raise adapted from error
