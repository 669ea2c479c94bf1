"""Rows that were checked, written to one table: those that are new or differ, and nothing else."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

from sqlalchemy import JSON, null, select
from sqlalchemy.exc import DBAPIError

from stillroom import BadRow, DriverError, ForeignKeyViolation, classify
from stillroom.classification import OF_A_ROW
from stillroom.data.errors import DataFileError
from stillroom.data.rows import Reader, Resolver, matching, reference, require_plain
from stillroom.repository.bulk.loading import advance_counters

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from stillroom import UnitOfWork
    from stillroom.data.catalog import Catalog, Target
    from stillroom.data.errors import RowRefused
    from stillroom.data.files import Part
    from stillroom.data.rows import Row

__all__ = ["Counts", "TableWriter", "matched_key"]

SIZE = 4000
"""How many rows are compared and written at a time: what a load holds of a file that can be read row by row."""

UNCHANGED, INSERTED, UPDATED = range(3)
Counts = tuple[int, int, int]
"""How many rows are as they were, were inserted and were updated."""


def matched_key(catalog: Catalog, target: Target, names: set[str], key: Sequence[str] | None) -> tuple[str, ...]:
    """
    Return the attributes that say whether a row is there: the primary key where the rows have it, else the natural key.

    Args:
        catalog: The models.
        target: The model.
        names: The attributes that rows have.
        key: What the user said, columns or relationships.

    Raises:
        DataFileError: There is none, or it is not unique.
    """
    if key is not None:
        given: Sequence[str] = key
    elif target.primary_key and set(target.primary_key) <= names:
        return target.primary_key
    else:
        given = target.natural_key()
    wanted = [name for each in given for name in _held_by(catalog, target, each)]
    found = next((each for each in target.unique_keys if set(each) == set(wanted)), None)
    if found is None:
        has = ", ".join(str(list(each)) for each in target.unique_keys)
        raise DataFileError(
            f"the key {wanted!r} of {target} is not unique, so rows could be there twice; unique are {has}"
        )
    if not set(found) <= names:
        raise DataFileError(
            f"the rows of {target} have no {sorted(set(found) - names)!r}, by which they would be found again: give "
            "it, or say by which columns, with key= (--key)"
        )
    for name in found:
        require_plain(target, name)
    return found


def _held_by(catalog: Catalog, target: Target, name: str) -> tuple[str, ...]:
    found = None if name in target.columns else reference(catalog, target, name)
    return (name,) if found is None else found.local


class TableWriter:
    """
    Writes the rows of one model.

    Args:
        catalog: The models.
        uow: The unit of work.
        target: The model.
        key: The attributes that say whether a row is there.
        report: Is told how many rows are done.
    """

    def __init__(
        self, catalog: Catalog, uow: UnitOfWork, target: Target, key: tuple[str, ...], report: Callable[[int], object]
    ) -> None:
        self.catalog = catalog
        self.target = target
        self.key = key
        self.report = report
        self.session = uow.session(target.database, role="writer")
        self.rows = target.repository(uow, role="writer")
        self.hides = self.rows.plan.deletes_softly
        # A reference that may be empty is filled in when all rows are there; others must stand in the right order.
        self.later = frozenset(name for name in target.deferred if name not in key and target.columns[name].nullable)
        columns = target.columns.items()
        self.nulls = [name for name, column in columns if column.nullable and isinstance(column.type, JSON)]
        self.states = bytearray()

    def write(self, parts: Sequence[Part], names: set[str], *, stays: bool = True) -> bool:
        """
        Write all rows.

        Args:
            parts: The rows.
            names: The attributes that they have.
            stays: It is not rolled back in any case: counters of keys would not come back with it.

        Returns:
            Whether that was all: else call `complete` when the rows of the other tables are there.

        Raises:
            RowRefused: One does not fit.
        """
        later = self.later & names
        self._pass(parts, without=later)
        column = self.target.table.autoincrement_column
        if stays and column is not None and self.target.attributes.get(column) in names:
            self._advance()
        return not later

    def complete(self, parts: Sequence[Part]) -> None:
        """
        Fill in the references that were left out.
        """
        self._pass(parts)

    @property
    def is_circular(self) -> bool:
        """
        Whether a reference leads over other tables back to this one.
        """
        keys = (key for name in self.later for key in self.target.columns[name].foreign_keys)
        return any(key.column.table is not self.target.table for key in keys)

    def _advance(self) -> None:
        connection = self.session.connection()
        if connection.dialect.name == "postgresql":
            advance_counters(connection, self.rows.plan)

    @property
    def counts(self) -> Counts:
        """
        What became of the rows.
        """
        return self.states.count(UNCHANGED), self.states.count(INSERTED), self.states.count(UPDATED)

    def _pass(self, parts: Sequence[Part], without: frozenset[str] = frozenset()) -> None:
        resolver = Resolver()
        done = 0
        for rows in _batches(row for part in parts for row in Reader(self.catalog, part)):
            for row in rows:
                _leave_out(row, without)
            resolver.resolve(self.session, rows)
            for some in self._without_repetitions(rows):
                self._send(some, done)
                done += len(some)
            self.report(done)

    def _without_repetitions(self, rows: list[Row]) -> Iterator[list[Row]]:
        """
        Split rows where a key comes again: the later row counts, and each statement knows a row once.
        """
        begin = 0
        seen: set[tuple[Any, ...]] = set()
        for position, row in enumerate(rows):
            key = self._key(row)
            if key in seen:
                yield rows[begin:position]
                begin, seen = position, set()
            seen.add(key)
        yield rows[begin:]

    def _key(self, row: Row) -> tuple[Any, ...]:
        for name in self.key:
            if row.values.get(name) is None:
                reason = f"it has no {name!r}, and the row is found again by {list(self.key)!r}"
                raise row.part.refused(row.number, reason, name)
        return tuple(row.values[name] for name in self.key)

    # --- what is there

    def _send(self, rows: list[Row], first: int) -> None:
        there = self._there(rows)
        self.states.extend(bytes(max(0, first + len(rows) - len(self.states))))
        different = []
        for position, row in enumerate(rows, first):
            known = there.get(self._key(row))
            if known is None:
                self.states[position] = INSERTED
            elif not self._differs(row, known):
                continue
            else:
                if self.states[position] == UNCHANGED:
                    self.states[position] = UPDATED
                # The row keeps its primary key: another one may have that of the file, and would meet the statement.
                kept = (name for name in self.target.primary_key if name in row.values and name not in self.key)
                row.values |= {name: known[name] for name in kept}
            different.append(row)
        with_key = [(self._key(row), row) for row in different]
        # In one order in every process, and rows of one form together, which go in one statement; only rows that refer
        # to others of the same table keep theirs.
        if not self.target.deferred - self.later:
            with_key.sort(key=lambda each: (tuple(each[1].values), _sortable(each[0])))
        if with_key:
            self._upsert([row for _, row in with_key])

    def _there(self, rows: list[Row]) -> dict[tuple[Any, ...], dict[str, Any]]:
        names = list(dict.fromkeys(name for row in rows for name in row.values))
        if self.hides:
            names.append("deleted_at")
        wanted = [name for name in dict.fromkeys(names) if name not in self.key]
        found = {}
        size = len(self.key)
        for values in matching(self.session, self.target, self.key, wanted, (self._key(row) for row in rows)):
            found[tuple(values[:size])] = dict(zip(wanted, values[size:], strict=True))
        return found

    def _differs(self, row: Row, known: dict[str, Any]) -> bool:
        if self.hides and "deleted_at" not in row.values and known["deleted_at"] is not None:
            return True  # what is loaded is there
        # The version of a row that is there counts on, and its primary key stays.
        skipped = (*(() if self.key == self.target.primary_key else self.target.primary_key), self.rows.plan.version)
        return any(known[name] != value for name, value in row.values.items() if name in known and name not in skipped)

    # --- sending

    def _upsert(self, rows: list[Row]) -> None:
        """
        Send rows; look for the one that is to blame if they are refused.
        """
        try:
            self.rows.upsert_many([self._sent(row) for row in rows], match=self.key)
        except BadRow as error:
            row = rows[error.number - 1]
            raise self._refused(row, error.__cause__ or error, error.column) from error
        except DBAPIError as error:
            if classify(error) not in OF_A_ROW:
                raise
            if len(rows) == 1:
                raise self._refused(rows[0], error, self._column(rows[0], error)) from error
            half = len(rows) // 2
            self._upsert(rows[:half])
            self._upsert(rows[half:])

    def _sent(self, row: Row) -> dict[str, Any]:
        # SQLAlchemy writes None into a column of JSON as JSON's null, which is a value.
        return row.values | {name: null() for name in self.nulls if name in row.values and row.values[name] is None}

    def _refused(self, row: Row, error: BaseException, column: str | None) -> RowRefused:
        # The first line; what PostgreSQL adds has other values of the row in it.
        reason = str(getattr(error, "orig", None) or error).partition("\n")[0]
        value = None if column is None else row.values.get(column)
        shown = "" if value is None else f"{value!r} is refused: "
        return row.part.refused(row.number, f"{shown}{reason} ({type(error).__name__})", column, value)

    def _column(self, row: Row, error: DBAPIError) -> str | None:
        """
        Return the attribute that an error is about, if it is one only.
        """
        if isinstance(error, ForeignKeyViolation):
            return self._dangling(row)
        names = error.columns if isinstance(error, DriverError) else ()
        found = [name for name, column in self.target.columns.items() if column.name in names]
        return found[0] if len(found) == len(names) == 1 else None

    def _dangling(self, row: Row) -> str | None:
        """
        Find the reference that leads nowhere, which not every database tells.
        """
        for name, value in row.values.items():
            for key in self.target.columns[name].foreign_keys if value is not None else ():
                statement = select(key.column).where(key.column == value).limit(1)
                if self.session.connection().execute(statement).first() is None:
                    return name
        return None


def _leave_out(row: Row, names: frozenset[str]) -> None:
    if names:
        row.values = {name: value for name, value in row.values.items() if name not in names}
        row.references = {name: each for name, each in row.references.items() if names.isdisjoint(each.local)}


def _batches(rows: Iterator[Row]) -> Iterator[list[Row]]:
    while some := list(islice(rows, SIZE)):
        yield some


def _sortable(key: tuple[Any, ...]) -> tuple[Any, ...]:
    """
    Return a key that can be compared with others, whatever its types.
    """
    return tuple(value if isinstance(value, int | float | str | bytes) else str(value) for value in key)
