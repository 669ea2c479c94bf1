"""Many rows at once: INSERT by the driver's own executemany, or COPY; all of them or none."""

from __future__ import annotations

import contextlib
import re
from os import PathLike
from typing import IO, TYPE_CHECKING, Any, NamedTuple, NoReturn, cast

from sqlalchemy import Table, bindparam, func, insert, select
from sqlalchemy import cast as sql_cast
from sqlalchemy.dialects.postgresql import REGCLASS
from sqlalchemy.exc import DBAPIError

from ...classification import OF_A_ROW, classify, details
from ...errors import DriverError, ReadOnlyError, StillroomError
from ..problems import raise_translated
from ..quoting import quoted
from ..upserting import MARIADB
from .batches import Batches, bad_row, iterated, taken, writable
from .copying import Copy, takes_copy
from .exporting import exported

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Callable, Iterable, Iterator, Sequence

    from sqlalchemy import Column, Dialect
    from sqlalchemy.engine import Connection, NestedTransaction
    from sqlalchemy.orm import Session, SessionTransaction
    from sqlalchemy.sql.dml import Insert

    from ..plan import Plan
    from .batches import Batch, Shape
    from .exporting import Format

    Rows = Iterable[Any] | AsyncIterable[Any] | str | PathLike[str] | IO[bytes]
    Values = dict[Column[Any], Any]
    Make = Callable[[Shape, Values], Insert]

_WORTH_A_COPY = 100
"""So few rows are there as soon by INSERT, which has nothing to ask of the catalogue."""


def create_many(session: Session, plan: Plan, rows: Iterable[Any]) -> int:
    """
    Insert rows, and return how many.
    """
    with writing(session, plan) as connection:
        inserting = Inserting(session, connection, plan)
        count = 0
        for batch in inserting.batches(rows):
            copy = inserting.copy(batch.shape) if len(batch.rows) >= _WORTH_A_COPY else None
            if copy is None or not copied(connection, batch, copy):
                inserting.send(batch)
            count += len(batch.rows)
    return count


def load(session: Session, plan: Plan, rows: Rows, format_: Format | None = None) -> int:
    """
    Insert any number of rows the fastest way, a batch at a time, and return how many.
    """
    rows = taken(rows)
    if isinstance(rows, str | PathLike) or hasattr(rows, "read"):
        with contextlib.closing(exported(plan, cast("Any", rows), format_)) as read:
            return load(session, plan, read)
    with writing(session, plan) as connection:
        inserting = Inserting(session, connection, plan)
        count, keyed = 0, False
        for batch in inserting.batches(cast("Iterable[Any]", rows)):
            send_searching(inserting, batch)
            count += len(batch.rows)
            keyed = keyed or not batch.shape.given.isdisjoint(plan.keys)
        if keyed and connection.dialect.name == "postgresql":
            advance_counters(connection, plan)
    return count


@contextlib.contextmanager
def writing(session: Session, plan: Plan) -> Iterator[Connection]:
    """
    Open a savepoint for the block, and give the connection; after an error nothing of the block stays.

    Raises:
        ReadOnlyError: The session is a reader.
    """
    if getattr(session, "role", None) == "reader":
        raise ReadOnlyError(
            f"a reader cannot write {plan.model.__name__}; nothing was sent. Write through the writer: "
            f"give the repository the unit of work without role='reader'"
        )
    with all_or_nothing(session.begin_nested()):
        yield session.connection(bind_arguments={"mapper": plan.mapper})


@contextlib.contextmanager
def all_or_nothing(savepoint: NestedTransaction | SessionTransaction) -> Iterator[None]:
    """
    Release a savepoint after the block, or roll back to it.
    """
    try:
        yield
        savepoint.commit()
    except BaseException as error:
        try:
            savepoint.rollback()
        except Exception as failure:  # noqa: BLE001  # a deadlock takes the savepoint along; the first error tells more
            error.add_note(f"stillroom: the savepoint could not be rolled back either: {failure!r}")
        raise


class Inserting:
    """
    Sends tuples with INSERT, each shape with a statement of its own.

    Args:
        session: The session.
        connection: Its connection, inside a savepoint.
        plan: The model.
        make: Makes the INSERT of a shape and its values by column; None for one without more.
    """

    def __init__(self, session: Session, connection: Connection, plan: Plan, make: Make | None = None) -> None:
        self.session = session
        self.connection = connection
        self.plan = plan
        self.make = make or _plain_insert
        self.sqls: dict[Shape, _Sql] = {}
        self.copies: dict[Shape, Copy] = {}
        self.joined = len(plan.mapper.tables) > 1
        # SQLAlchemy's own way where the driver's executemany is a round trip a row, and where schemas are translated.
        self.by_core = self.joined or bool(
            connection.dialect.use_insertmanyvalues_wo_returning
            or connection.get_execution_options().get("schema_translate_map")
        )

    def batches(self, rows: Iterable[Any] | AsyncIterable[Any], *, alike: bool = False) -> Batches:
        """
        Return the rows in batches; `alike` as for `Batches`.
        """
        return Batches(self.plan, self.connection.dialect, iterated(rows), converts=not self.by_core, alike=alike)

    def copy(self, shape: Shape) -> Copy | None:
        """
        Return the COPY for a shape; None where that is not possible, or would mean something else.
        """
        if self.by_core or not shape.is_plain or not shape.columns or not takes_copy(self.connection):
            return None
        if shape not in self.copies:
            self.copies[shape] = Copy(self.connection, shape.table.schema, shape.table.name, shape)
        copy = self.copies[shape]
        return copy if copy.fits else None

    def send(self, batch: Batch) -> None:
        """
        Send the rows of a batch.
        """
        for rows in batch.tuples():
            self._send(batch.shape, rows)

    def _send(self, shape: Shape, rows: list[tuple[Any, ...]]) -> None:
        if self.joined:
            self.session.execute(insert(self.plan.model), [dict(zip(shape.names, row, strict=True)) for row in rows])
        elif self.by_core:
            self.connection.execute(self._statement(shape), _named(shape, rows))
        else:
            sql = self.sqls.get(shape) or self.sqls.setdefault(shape, self._sql(shape))
            parameters: Any = rows if sql.positional else _named(shape, rows)
            if sql.further:
                values = tuple(sql.further.values())
                parameters = [row + values if sql.positional else row | sql.further for row in parameters]
            self.connection.exec_driver_sql(sql.text, parameters)

    def _statement(self, shape: Shape) -> Insert:
        return self.make(
            shape,
            {
                column: bindparam(f"p{position}", type_=column.type, required=True)
                for position, column in enumerate(shape.columns)
            },
        )

    def _sql(self, shape: Shape) -> _Sql:
        dialect = self.connection.dialect
        compiled: Any = self._statement(shape).compile(dialect=dialect, column_keys=[])
        sql = str(compiled)
        # The same for all rows, such as what a function for `onupdate` returned.
        further = {name: parameter for parameter, name in compiled.bind_names.items() if not parameter.required}
        if dialect.name in MARIADB:  # whose drivers take parameters among the VALUES alone
            literals = {name: compiled.render_literal_value(each.value, each.type) for name, each in further.items()}
            return _Sql(_spelled_out(sql, compiled, literals), compiled.positional, {})
        names = compiled.positiontup[len(shape.columns) :] if compiled.positional else further
        return _Sql(sql, compiled.positional, {name: _converted(further[name], dialect) for name in names})


class _Sql(NamedTuple):
    """
    What the driver gets: the statement, and values that are the same for all rows.
    """

    text: str
    positional: bool
    further: dict[str, Any]


def _plain_insert(shape: Shape, values: Values) -> Insert:
    return insert(shape.table).values(values).inline()


def _converted(parameter: Any, dialect: Dialect) -> Any:
    processor = parameter.type.dialect_impl(dialect).bind_processor(dialect)
    return parameter.value if processor is None else processor(parameter.value)


def _spelled_out(sql: str, compiled: Any, literals: dict[str, str]) -> str:
    """
    Put literals in the place of parameters of a paramstyle of percent signs.
    """
    if not compiled.positional:
        return re.sub(r"%\((\w+)\)s", lambda found: literals.get(found[1], found[0]), sql)
    values = iter([literals.get(name, "%s") for name in compiled.positiontup])
    return re.sub(r"(?<!%)%s", lambda _: next(values), sql)


def _named(shape: Shape, rows: Sequence[tuple[Any, ...]]) -> list[dict[str, Any]]:
    names = [f"p{position}" for position in range(len(shape.columns))]
    return [dict(zip(names, row, strict=True)) for row in rows]


def copied(connection: Connection, batch: Batch, copy: Copy) -> bool:
    """
    Send a batch by COPY; say False where it was refused, for INSERT takes more (a text for a number) and tells more.
    """
    try:
        with all_or_nothing(connection.begin_nested()):
            copy.write(batch)
    except Exception as error:
        if not is_of_a_row(error):
            raise
        return False
    return True


def send_searching(inserting: Inserting, batch: Batch) -> None:
    """
    Send a batch, by COPY where there is one; look for the row that is to blame if it is refused.

    Raises:
        BadRow: A row does not fit.
    """
    copy = inserting.copy(batch.shape)
    if copy is None or not copied(inserting.connection, batch, copy):
        _search(inserting, batch)


def _search(inserting: Inserting, batch: Batch) -> None:
    try:
        with all_or_nothing(inserting.connection.begin_nested()):
            inserting.send(batch)
    except Exception as error:
        if not is_of_a_row(error):
            raise
        if len(batch.rows) == 1:
            _raise_bad_row(inserting.plan, batch.first, error)
    else:
        return
    for half in batch.halves():
        _search(inserting, half)


def _raise_bad_row(plan: Plan, number: int, error: Exception) -> NoReturn:
    if isinstance(error, DBAPIError):
        try:
            raise_translated(error, plan)
        except DriverError as ours:
            raise bad_row(plan.model, number, ours, _column(plan, ours)) from ours
        except DBAPIError:
            pass  # of a kind that has no class of ours
    raise bad_row(plan.model, number, error, None) from error


def is_of_a_row(error: Exception) -> bool:
    """
    Say whether a row may be to blame for an error.
    """
    # A time limit that has passed, a task that interferes: ours are about the whole.
    if isinstance(error, StillroomError) or details(error).code == "SQLITE_ERROR":
        return False  # SQLite's word for a missing table, and for whatever else is wrong with a statement
    kind = classify(error)
    return kind is None or kind in OF_A_ROW


def _column(plan: Plan, error: DriverError) -> str | None:
    """
    Return the attribute that an error is about, if it is one only.
    """
    found = [name for name, column in writable(plan).items() if column.name in error.columns]
    return found[0] if len(found) == len(error.columns) == 1 else None


def advance_counters(connection: Connection, plan: Plan) -> None:
    """
    Let the counters of keys go on behind the keys that were given, as the other databases do by themselves.
    """
    translated = connection.get_execution_options().get("schema_translate_map") or {}
    for table in plan.mapper.tables:
        column = table.autoincrement_column if isinstance(table, Table) else None
        if column is None:
            continue
        name = quoted(translated.get(table.schema, table.schema), table.name)
        counter = sql_cast(func.pg_get_serial_sequence(name, column.name), REGCLASS)
        found = select(counter.label("counter"), func.max(column).label("greatest")).subquery()
        connection.execute(
            select(func.setval(found.c.counter, found.c.greatest)).where(
                func.has_sequence_privilege(found.c.counter, "UPDATE"),
                found.c.greatest > func.coalesce(func.pg_sequence_last_value(found.c.counter), 0),
            )
        )
