"""Rows as they come, of any shape, turned into batches of tuples as the driver takes them."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby, islice
from operator import itemgetter
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import Column, Table, bindparam, inspect
from sqlalchemy.orm import InstanceState

from ...errors import BadRow
from ...models import InvalidModel, UnknownColumn

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Callable, Iterable, Sequence

    from sqlalchemy import Dialect

    from ..plan import Plan

    Default = Callable[["Current"], Any]
    Processor = Callable[[Any], Any]

SIZE = 20_000
"""How many rows a batch has at most: what a load holds in memory."""
_STEP = 1000
"""How many of them become tuples at a time: few enough to die young, before the garbage collector goes around."""


class _Missing:
    """
    In place of a value that a row does not have.
    """


_MISSING = _Missing()


@dataclass(frozen=True, slots=True)
class Batch:
    """
    Rows that one statement takes.

    Attributes:
        shape: What their tuples consist of.
        rows: The rows.
        first: The number of the first of them, counted from 1.
    """

    shape: Shape
    rows: Sequence[Mapping[str, Any]]
    first: int

    def tuples(self, processors: Mapping[str, Processor] | None = None) -> Iterator[list[tuple[Any, ...]]]:
        """
        Make the tuples, some at a time.

        Args:
            processors: What converts values, by attribute, in place of the shape's own.

        Raises:
            BadRow: A default or a column type fails on a value.
        """
        for start in range(0, len(self.rows), _STEP):
            some = self.rows[start : start + _STEP]
            yield self.shape.tuples(
                some, self.first + start, self.shape.processors if processors is None else processors
            )

    def halves(self) -> tuple[Batch, Batch]:
        """
        Return two batches of half the size.
        """
        half = len(self.rows) // 2
        return (
            Batch(self.shape, self.rows[:half], self.first),
            Batch(self.shape, self.rows[half:], self.first + half),
        )


@dataclass(slots=True)
class Current:
    """
    The part of SQLAlchemy's execution context that is meant for default functions that look at the other values.
    """

    shape: Shape
    dialect: Dialect
    values: dict[str, list[Any]]
    position: int = 0

    @property
    def current_parameters(self) -> dict[str, Any]:
        """
        The values of the row, by the keys of the columns.
        """
        return {
            column.key: self.values[name][self.position]
            for name, column in zip(self.shape.names, self.shape.columns, strict=True)
            if self.values[name][self.position] is not _MISSING
        }

    def get_current_parameters(self, isolate_multiinsert_groups: bool = True) -> dict[str, Any]:  # noqa: FBT001, FBT002
        """
        Same as `current_parameters`; the signature is SQLAlchemy's.
        """
        return self.current_parameters


class Shape:
    """
    Which columns the tuples of a statement have, and how they come to their values.

    Args:
        plan: The model.
        dialect: The dialect of the database.
        names: The attributes that have a value in at least one row.
        converts: The tuples go to the driver itself, so the column types' conversions are due here.

    Attributes:
        table: The table.
        given: The attributes that have a value in at least one row.
        names: These and those that Python makes, in the order of the table.
        columns: Their columns.
        is_plain: All that a row needs is in its tuple: no SQL makes a value of another one, or one that is missing.
    """

    def __init__(self, plan: Plan, dialect: Dialect, names: frozenset[str], *, converts: bool) -> None:
        every = writable(plan)
        self.model = plan.model
        self.table = table_of(plan)
        self.given = names
        self.dialect = dialect
        defaults = {name: _default(plan, name, column) for name, column in every.items()}
        self.names = tuple(name for name in every if name in names or defaults[name] is not None)
        self.columns = tuple(every[name] for name in self.names)
        self.defaults = {name: default for name in self.names if (default := defaults[name]) is not None}
        types = [column.type.dialect_impl(dialect) for column in self.columns]
        processors = zip(self.names, (type_.bind_processor(dialect) for type_ in types), strict=True)
        self.processors: dict[str, Processor] = {
            name: each for name, each in processors if each is not None and converts
        }
        left_out = (column for name, column in every.items() if name not in self.names)
        self.is_plain = all(column.default is None for column in left_out) and all(
            type_.bind_expression(bindparam("value", type_=type_)) is None for type_ in types
        )

    def tuples(
        self, rows: Sequence[Mapping[str, Any]], first: int, processors: Mapping[str, Processor]
    ) -> list[tuple[Any, ...]]:
        """
        Return the values of the rows.

        Raises:
            BadRow: A default or a column type fails on a value.
        """
        if not self.names:
            return [()] * len(rows)
        values: dict[str, Any] = {}
        incomplete = set()
        for name in self.names:
            try:
                values[name] = list(map(itemgetter(name), rows))
            except KeyError:
                values[name] = [row.get(name, _MISSING) for row in rows]
                incomplete.add(name)
        current = Current(self, self.dialect, values)
        for name, default in self.defaults.items():
            if name in incomplete:
                values[name] = self._map(name, _filling(default, current), enumerate(values[name]), first)
                incomplete.remove(name)
        for name, processor in processors.items():
            # Not even a type that makes something else of None gets to see what is missing: that is NULL.
            process = _skipping(processor) if name in incomplete else processor
            values[name] = self._map(name, process, values[name], first)
        for name in incomplete:
            values[name] = [None if value is _MISSING else value for value in values[name]]
        return list(zip(*values.values(), strict=True))

    def _map(self, name: str, function: Callable[[Any], Any], values: Iterable[Any], first: int) -> list[Any]:
        done: list[Any] = []
        try:
            done.extend(map(function, values))  # what is done stays in the list, so its length says where it failed
        except Exception as error:  # a type's or a default's own, of any class
            raise bad_row(self.model, first + len(done), error, name) from error
        return done


def bad_row(model: type[Any], number: int, error: Exception, column: str | None) -> BadRow:
    """
    Make the error for a row that does not fit.
    """
    where = f", column {column!r}" if column is not None else ""
    # The first line; what PostgreSQL adds has values of the row in it, and logs are no place for those.
    reason = str(getattr(error, "orig", None) or error).partition("\n")[0]
    return BadRow(
        f"row {number} does not fit {model.__name__}{where}: {reason} ({type(error).__name__}). None of the rows was "
        "written: correct this one or leave it out",
        number=number,
        column=column,
        model=model,
    )


def _filling(default: Default, current: Current) -> Callable[[tuple[int, Any]], Any]:
    def fill(numbered: tuple[int, Any]) -> Any:
        current.position, value = numbered
        return default(current) if value is _MISSING else value

    return fill


def _skipping(processor: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: value if value is _MISSING else processor(value)


def table_of(plan: Plan) -> Table:
    """
    Return the table that rows of the model are written to.

    Raises:
        InvalidModel: The model is mapped to something else than tables.
    """
    table = plan.mapper.local_table
    if not isinstance(table, Table):
        raise InvalidModel(
            f"{plan.model.__name__} is mapped to {table!r}, which is no table; write to the tables behind it"
        )
    return table


@lru_cache(maxsize=256)
def writable(plan: Plan) -> dict[str, Column[Any]]:
    """
    Return the columns that can be given, by attribute in the order of the table; not those that the database computes.
    """
    tables = plan.mapper.tables
    return {
        each.key: column
        for each in plan.mapper.column_attrs
        if isinstance(column := each.columns[0], Column) and column.table in tables and column.computed is None
    }


def _default(plan: Plan, name: str, column: Column[Any]) -> Default | None:
    """
    Return what Python makes a missing value of; None where it is left to the database.
    """
    mapper = plan.mapper
    if column is mapper.polymorphic_on and mapper.polymorphic_identity is not None:
        return lambda _: mapper.polymorphic_identity
    if name == plan.version and callable(generate := mapper.version_id_generator):
        return lambda _: generate(None)
    default: Any = column.default
    if default is None:
        return None
    if default.is_callable:
        return cast("Default", default.arg)
    return (lambda _: default.arg) if default.is_scalar else None


def _left_to_the_database(plan: Plan, name: str, column: Column[Any]) -> bool:
    """
    Say whether the statement must not name the column where a row has no value for it.
    """
    makes = column.server_default is not None or column.identity is not None or column.default is not None
    # A joined class has its key in two tables; the first of them counts it up.
    counted = any(each is each.table.autoincrement_column for each in plan.mapper.get_property(name).columns)
    return _default(plan, name, column) is None and (makes or counted)


class Batches:
    """
    The batches of a load, made while they are asked for.

    Args:
        plan: The model.
        dialect: The dialect of the database.
        rows: Mappings by attribute, or objects with these attributes.
        converts: As for `Shape`.
        alike: The rows of a batch all have the same names, since it matters which ones are given.
    """

    def __init__(
        self, plan: Plan, dialect: Dialect, rows: Iterable[Any], *, converts: bool, alike: bool = False
    ) -> None:
        self.plan = plan
        self.rows = rows
        self.columns = writable(plan)
        self.made = {name for name, each in self.columns.items() if _left_to_the_database(plan, name, each)}
        self.optional = set(self.columns) if alike else self.made
        self.shapes: Callable[[frozenset[str]], Shape] = lru_cache(maxsize=None)(
            lambda names: Shape(plan, dialect, names, converts=converts)
        )

    def __iter__(self) -> Iterator[Batch]:
        """
        Make the batches; rows of a batch all have, or all lack, what only the database can make.

        Raises:
            BadRow: A row has a name that is none of the model's, or a value that cannot be converted.
        """
        first, rows = 1, iter(self.rows)
        while chunk := list(islice(rows, SIZE)):
            mappings = chunk if set(map(type, chunk)) == {dict} else self._mappings(chunk, first)
            names = frozenset().union(*mappings)
            # As many names in each row as in all of them together: then every row has every name.
            is_uniform = set(map(len, mappings)) == {len(names)}
            if not names <= self.columns.keys():
                names = self._known(names, mappings, first)
            if is_uniform:
                yield Batch(self.shapes(names), mappings, first)
            else:
                yield from self._alike(names, mappings, first)
            first += len(chunk)

    def _alike(self, names: frozenset[str], rows: list[Mapping[str, Any]], first: int) -> Iterator[Batch]:
        optional = tuple(name for name in self.optional & names if not _all_have(name, rows))
        if not optional:
            yield Batch(self.shapes(names), rows, first)
            return
        for given, run in groupby(rows, key=lambda row: tuple(name in row for name in optional)):
            left_out = {name for name, is_there in zip(optional, given, strict=True) if not is_there}
            batch = Batch(self.shapes(names - left_out), list(run), first)
            first += len(batch.rows)
            yield batch

    def _known(self, names: frozenset[str], rows: Sequence[Mapping[str, Any]], first: int) -> frozenset[str]:
        """
        Leave out what the database computes itself, which an export has too.

        Raises:
            BadRow: A row has a name that is none of the model's.
        """
        known = self.plan.columns.keys()
        if not names <= known:
            number, name = next(
                (number, name) for number, row in enumerate(rows, first) for name in row if name not in known
            )
            error = UnknownColumn(
                f"{self.plan.model.__name__} has no column {name!r}; it has {', '.join(map(repr, self.columns))}"
            )
            raise bad_row(self.plan.model, number, error, name) from error
        return names.intersection(self.columns)

    def _mappings(self, chunk: list[Any], first: int) -> list[Mapping[str, Any]]:
        mappings: list[Mapping[str, Any]] = []
        for row in chunk:
            try:
                mappings.append(row if isinstance(row, Mapping) else self._mapping(row))
            except Exception as error:  # an attribute or a hook of the user's may raise anything
                raise bad_row(self.plan.model, first + len(mappings), error, None) from error
        return mappings

    def _mapping(self, row: Any) -> Mapping[str, Any]:
        if self.plan.returns is not None and self.plan.converter is not None and isinstance(row, self.plan.returns):
            found = self.plan.converter.values(row)
        elif isinstance(state := inspect(row, raiseerr=False), InstanceState):
            found = {name: state.dict[name] for name in self.columns if name in state.dict}
        else:
            found = {name: getattr(row, name) for name in self.columns if hasattr(row, name)}
        if not found:
            raise TypeError(f"{row!r} is neither a mapping nor an object with columns as attributes")
        # An object has all of its attributes, also those that are yet to be made.
        absent = [name for name, value in found.items() if value is None and not self.columns[name].nullable]
        for name in absent:
            if name in self.made or self.columns[name].default is not None:
                del found[name]
        return found


def _all_have(name: str, rows: Iterable[Mapping[str, Any]]) -> bool:
    try:
        deque(map(itemgetter(name), rows), maxlen=0)
    except KeyError:
        return False
    return True


def once(rows: Any) -> Any:
    """
    Return rows, guarded where they can be read only once: a second attempt would write what the first has left of them.
    """
    return _Once(rows) if isinstance(rows, Iterator | AsyncIterator) or hasattr(rows, "read") else rows


class _Once:
    """
    A generator or an open file, to be taken once.
    """

    def __init__(self, rows: Any) -> None:
        self.rows = rows


def taken(rows: Any) -> Any:
    """
    Return rows that perhaps can be read only once.

    Raises:
        TypeError: They were taken before.
    """
    if not isinstance(rows, _Once):
        return rows
    found, rows.rows = rows.rows, None
    if found is None:
        raise TypeError(
            "the rows came from a generator or an open file, and an attempt that failed has consumed it: give a list "
            "or a path, or make the generator anew in a transactional function"
        )
    return found


def iterated(rows: Any) -> Iterable[Any]:
    """
    Return rows to iterate over, wherever they come from.

    Raises:
        TypeError: They were taken before.
    """
    rows = taken(rows)
    return cast("Iterable[Any]", rows) if hasattr(rows, "__iter__") else _drawn(rows)


def _drawn(rows: AsyncIterable[Any]) -> Iterator[Any]:
    """
    Draw the rows of an asynchronous iterable from inside of `AsyncSession.run_sync`.
    """
    from sqlalchemy.util import await_only

    iterator = aiter(rows)
    while chunk := await_only(_some(iterator)):
        yield from chunk


async def _some(iterator: AsyncIterator[Any]) -> list[Any]:
    chunk: list[Any] = []
    async for row in iterator:
        chunk.append(row)
        if len(chunk) == SIZE:
            break
    return chunk
