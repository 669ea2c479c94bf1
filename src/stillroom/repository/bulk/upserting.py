"""Many rows upserted at once: by COPY into a temporary table where that is, else by the driver's own executemany."""

from __future__ import annotations

from itertools import repeat
from operator import is_, itemgetter
from typing import TYPE_CHECKING, Any, cast
from uuid import uuid4

from sqlalchemy import column as sql_column
from sqlalchemy import func, select, text, tuple_
from sqlalchemy import table as sql_table

from .. import conflicts, upserting
from ..writing import refresh
from .batches import bad_row, iterated
from .copying import Copy, takes_copy
from .loading import Inserting, all_or_nothing, is_of_a_row, writing

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sqlalchemy.engine import Connection
    from sqlalchemy.orm import Session
    from sqlalchemy.sql.dml import Insert

    from ..keys import UniqueKey
    from ..plan import Plan
    from .batches import Batch, Shape
    from .loading import Values


def upsert_many(
    session: Session,
    plan: Plan,
    rows: Iterable[Mapping[str, Any]],
    match: Sequence[str] | None,
    update: Sequence[str] | None,
) -> int:
    """
    Insert rows, or update those that are there; of several rows with one key the later ones update the first.

    Raises:
        ValueError: No unique key has just the attributes `match`, or one of their values is missing.
    """
    with writing(session, plan) as connection:
        if not upserting.fits_one_statement(plan, connection.dialect.name):
            return sum(upserting.upsert(session, plan, row, match, update) is not None for row in iterated(rows))
        upserts = _Upserts(session, connection, plan, match, update)
        count = sum(map(upserts.send, upserts.inserting.batches(rows, alike=True)))
        refresh(session, plan, upserts.updated)
        return count


class _Upserts:
    """
    Upserts batches of rows, each shape with a statement of its own.

    Attributes:
        updated: The attributes of rows that were there and may have changed.
    """

    def __init__(
        self,
        session: Session,
        connection: Connection,
        plan: Plan,
        match: Sequence[str] | None,
        update: Sequence[str] | None,
    ) -> None:
        self.session = session
        self.connection = connection
        self.plan = plan
        self.match = match
        self.update = update
        self.dialect = connection.dialect.name
        self.inserting = Inserting(session, connection, plan, self._insert)
        self.stagings: dict[Shape, _Staging | None] = {}
        self.updated: set[str] = set()

    def _aim(self, shape: Shape) -> conflicts.Target:
        return conflicts.target(self.plan, shape.given, self.match, self.update)

    def send(self, batch: Batch) -> int:
        """
        Upsert a batch, and return how many rows it has.
        """
        aim = self._aim(batch.shape)
        self.updated.update(aim.update)
        self._require_values(batch, aim)
        if not self._staged(batch):
            self.inserting.send(batch)
            if self.dialect in upserting.MARIADB:
                self._check(batch, aim)
        return len(batch.rows)

    def _require_values(self, batch: Batch, aim: conflicts.Target) -> None:
        names = aim.key.names
        if not any(any(map(is_, map(itemgetter(name), batch.rows), repeat(None))) for name in names):
            return
        for number, row in enumerate(batch.rows, batch.first):
            for name in names:
                if row[name] is None:
                    try:
                        conflicts.require_values(self.plan, aim, row)
                    except ValueError as error:
                        raise bad_row(self.plan.model, number, error, name) from error

    # --- INSERT ... ON CONFLICT

    def _insert(self, shape: Shape, values: Values) -> Insert:
        statement = upserting.INSERT[self.dialect](shape.table).values(values).inline()
        return self.resolved(shape, statement)

    def resolved(self, shape: Shape, statement: Any) -> Insert:
        """
        Return an INSERT of rows of a shape that updates those that are there.
        """
        return cast("Insert", upserting.resolved(self.plan, self._aim(shape), statement, {}, self.dialect))

    def _check(self, batch: Batch, aim: conflicts.Target) -> None:
        """
        Make sure that no row was passed over, as ON DUPLICATE KEY does with one that meets another unique key first.
        """
        names = set(batch.shape.names)
        others = [key for key in self.plan.unique_keys if key.names != aim.key.names and set(key.names) <= names]
        if others and (self._misses(batch, aim) or any(self._meets(batch, aim, key) for key in others)):
            for row in batch.rows:  # one of them raises; or the database takes two keys for one
                upserting.upsert(self.session, self.plan, row, self.match, self.update)

    def _misses(self, batch: Batch, aim: conflicts.Target) -> bool:
        """
        Say whether a row of the batch is not there.
        """
        columns = [self.plan.columns[name] for name in aim.key.names]
        wanted = {tuple(row[name] for name in aim.key.names) for row in batch.rows}
        found = select(func.count()).select_from(self.plan.model).where(tuple_(*columns).in_(list(wanted)))
        return self.session.scalar(found) != len(wanted)

    def _meets(self, batch: Batch, aim: conflicts.Target, other: UniqueKey) -> bool:
        """
        Say whether a row that is there has a row's values of another unique key, and is not the one that is meant.
        """
        columns = [self.plan.columns[name] for name in (*other.names, *aim.key.names)]
        meant = {
            tuple(row[name] for name in other.names): tuple(row[name] for name in aim.key.names) for row in batch.rows
        }
        width = len(other.names)
        asked = [key for key in meant if None not in key]
        found = select(*columns).where(tuple_(*columns[:width]).in_(asked))
        there = [tuple(row) for row in self.session.execute(found)]
        return any(meant.get(row[:width]) != row[width:] for row in there)

    # --- COPY, and INSERT ... SELECT ... ON CONFLICT

    def _staged(self, batch: Batch) -> bool:
        if batch.shape not in self.stagings:
            self.stagings[batch.shape] = self._staging(batch.shape)
        staging = self.stagings[batch.shape]
        if staging is None:
            return False
        try:
            with all_or_nothing(self.connection.begin_nested()):
                if staging.is_used:
                    self.connection.execute(staging.clear)
                staging.is_used = True
                staging.copy.write(batch)
                self.connection.execute(staging.insert)
        except Exception as error:
            if not is_of_a_row(error):
                raise
            # Two rows of the batch with one key perhaps, or a value that COPY does not take: INSERT has the last word.
            return False
        return True

    def _staging(self, shape: Shape) -> _Staging | None:
        if not (shape.is_plain and takes_copy(self.connection)) or self.inserting.by_core or self._may_be_prepared():
            return None
        staging = _Staging(self, shape)
        return staging if staging.copy.fits else None

    def _may_be_prepared(self) -> bool:
        """
        Say whether the unit of work may end in two phases: PREPARE TRANSACTION refuses one with temporary tables.
        """
        unit = getattr(self.session, "unit", None)
        return unit is not None and "two_phase" in (unit.options.on_multiple_writes or unit.declared.on_multiple_writes)


class _Staging:
    """
    A temporary table for rows of one shape, gone with the transaction.

    Attributes:
        copy: Writes rows there.
        insert: Upserts what is there.
        clear: Empties it.
        is_used: It may hold rows of an earlier batch.
    """

    is_used = False

    def __init__(self, upserts: _Upserts, shape: Shape) -> None:
        connection = upserts.connection
        name = f"stillroom_{uuid4().hex}"
        format_ = connection.dialect.identifier_preparer
        chosen = ", ".join(format_.format_column(column) for column in shape.columns)
        source = format_.format_table(shape.table)
        connection.exec_driver_sql(
            f"CREATE TEMPORARY TABLE {name} ON COMMIT DROP AS SELECT {chosen} FROM {source} WITH NO DATA"
        )
        self.copy = Copy(connection, None, name, shape)
        staged = sql_table(name, *(sql_column(each.name, each.type) for each in shape.columns))
        statement = upserting.INSERT["postgresql"](shape.table).from_select(list(shape.columns), select(staged))
        self.insert = upserts.resolved(shape, statement)
        self.clear = text(f"TRUNCATE {name}")
