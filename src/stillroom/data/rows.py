"""Rows of files, checked and turned into values of columns; references to other rows by what people know them by."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import ARRAY, JSON, and_, column, func, inspect, literal, select, tuple_
from sqlalchemy.orm import RelationshipDirection

from stillroom.data.errors import DataFileError
from stillroom.data.values import LEFT_OUT, Wrong, conversion, is_padded
from stillroom.repository.bulk.formats import is_json
from stillroom.settings.schema import nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from sqlalchemy import Column, Select
    from sqlalchemy.orm import Session

    from stillroom.data.catalog import Catalog, Target
    from stillroom.data.files import Part

__all__ = ["Reader", "Reference", "Resolver", "Row", "matching", "reference", "require_plain"]

PARAMETERS = 8000
"""How many values one SELECT looks for; each database takes more."""


@dataclass(frozen=True)
class Reference:
    """
    How rows of one model refer to another.

    Attributes:
        target: The other model.
        local: The attributes that hold the reference.
        remote: Those of the other model which they repeat.
    """

    target: Target
    local: tuple[str, ...]
    remote: tuple[str, ...]


class Natural(NamedTuple):
    """
    A row of another model, by values that people know.

    Attributes:
        target: The model.
        local: The attributes, of the row that refers, which hold the reference.
        wanted: The attributes that are asked for.
        names: The attributes, or references, that are known.
        values: Their values; of a reference again one of these.
    """

    target: Target
    local: tuple[str, ...]
    wanted: tuple[str, ...]
    names: tuple[str, ...]
    values: tuple[Any, ...]

    def __str__(self) -> str:
        return f"{self.target.name}({', '.join(f'{n}={v!s}' for n, v in zip(self.names, self.values, strict=True))})"


@dataclass(slots=True)
class Row:
    """
    A row that was checked.

    Attributes:
        part: Where it stands.
        number: Which row of it.
        values: By attribute.
        references: What is to be looked up, by the column of the file.
    """

    part: Part
    number: int
    values: dict[str, Any]
    references: dict[str, Natural]

    @property
    def names(self) -> set[str]:
        """
        The attributes that it has values for.
        """
        return {*self.values, *(name for each in self.references.values() for name in each.local)}


def reference(catalog: Catalog, target: Target, name: str) -> Reference | None:
    """
    Return what a column or a relationship refers to; None where it is no reference to one row.
    """
    mapper = inspect(target.model)
    if name in mapper.relationships:
        relationship = mapper.relationships[name]
        if relationship.direction is not RelationshipDirection.MANYTOONE:
            return None
        pairs = list(relationship.local_remote_pairs or ())
        table = relationship.mapper.local_table
    elif name in target.columns:
        column = target.columns[name]
        keys = [key for key in column.foreign_keys if key.constraint is not None and len(key.constraint.columns) == 1]
        if len(keys) != 1:
            return None
        pairs = [(column, keys[0].column)]
        table = keys[0].column.table
    else:
        return None
    other = catalog.of_table(target.database, table)
    if other is None or not all(a in target.attributes and b in other.attributes for a, b in pairs):
        return None
    return Reference(other, tuple(target.attributes[a] for a, _ in pairs), tuple(other.attributes[b] for _, b in pairs))


class _Parts(dict[str, Any]):
    """
    A value that names with dots have told; no object of the file's own.
    """


class Reader:
    """
    Reads the rows of one part.

    Args:
        catalog: The models.
        part: The rows.
    """

    def __init__(self, catalog: Catalog, part: Part) -> None:
        self.catalog = catalog
        self.part = part
        self.target = part.target
        self._converters: dict[tuple[Target, str], Callable[[Any], Any]] = {}
        self._references: dict[tuple[Target, str], Reference | None] = {}
        self._by_column = {column.name: name for name, column in self.target.columns.items()}

    def __iter__(self) -> Iterator[Row]:
        """
        Give the rows.

        Raises:
            RowRefused: One has an unknown name, or a value that does not fit.
        """
        for number, raw in self.part.rows():
            yield self._row(number, raw)

    def _row(self, number: int, raw: dict[str, Any]) -> Row:
        values: dict[str, Any] = {}
        references: dict[str, Natural] = {}
        for name, value in (self._nested(number, raw) if any("." in name for name in raw) else raw).items():
            try:
                self._take(name, value, values, references)
            except Wrong as error:
                reason = f"{value!r} does not fit: it takes {error.expected}"
                raise self.part.refused(number, reason, name, value) from error
            except DataFileError as error:
                raise self.part.refused(number, str(error), name, value) from error
        return Row(self.part, number, values, references)

    def _nested(self, number: int, raw: dict[str, Any]) -> dict[str, Any]:
        """
        Turn names with dots, which CSV has for a reference, into values inside values; without a value there is none.
        """
        found = _Parts()
        for name, value in raw.items():
            *outer, last = name.split(".")
            inner: Any = found
            for each in outer:
                inner = inner.setdefault(each, _Parts()) if isinstance(inner, _Parts) else None
            if not isinstance(inner, _Parts) or last in inner:
                reason = "it is told by its parts and as a whole, and only one of the two can be: leave one of them out"
                raise self.part.refused(number, reason, name, value)
            inner[last] = value
        return {name: _without_nothing(value) for name, value in found.items()}

    def _take(self, name: str, value: Any, values: dict[str, Any], references: dict[str, Natural]) -> None:
        target = self.target
        attribute = name if name in target.columns else self._by_column.get(name)
        is_nested = isinstance(value, Mapping)
        if attribute is not None and not (is_nested and not is_json(target.columns[attribute].type)):
            taken = self._converter(target, attribute)(value)
            if taken is not LEFT_OUT:
                values[attribute] = taken
            return
        found = self._reference(target, attribute or name)
        if found is None:
            if name in target.computed:
                return
            raise _unknown(target, name) if attribute is None else Wrong("one value, and not several")
        if value is None:
            for local in found.local:
                values[local] = self._converter(target, local)(None)
        else:
            references[name] = self._natural(found, value)

    def _natural(self, found: Reference, value: Any) -> Natural:
        target = found.target
        if not isinstance(value, Mapping):
            key = target.natural_key()
            if len(key) != 1:
                raise DataFileError(f"{value!r} does not tell which {target.name}: that takes {list(key)!r}")
            value = {key[0]: value}
        if not value:
            raise Wrong(f"what tells which {target.name}")
        known: list[tuple[str, Any]] = []
        for name, each in value.items():
            inner = self._reference(target, name)
            if inner is not None and (isinstance(each, Mapping) or name not in target.columns):
                known.append((name, self._natural(inner, each)))
            elif name in target.columns:
                require_plain(target, name)
                try:
                    taken = self._converter(target, name)(each)
                except Wrong as error:
                    raise Wrong(f"{error.expected} as {name!r} of the {target.name}") from error
                known.append((name, None if taken is LEFT_OUT else taken))
            else:
                raise _unknown(target, name)
        names, values = zip(*known, strict=True)
        return Natural(target, found.local, found.remote, names, values)

    def _converter(self, target: Target, name: str) -> Callable[[Any], Any]:
        key = (target, name)
        if key not in self._converters:
            self._converters[key] = conversion(target, name, self.part.format)
        return self._converters[key]

    def _reference(self, target: Target, name: str) -> Reference | None:
        key = (target, name)
        if key not in self._references:
            self._references[key] = reference(self.catalog, target, name)
        return self._references[key]


def require_plain(target: Target, name: str) -> None:
    """
    Refuse a column whose values cannot tell one row from another.

    Raises:
        DataFileError: It holds lists or JSON.
    """
    if isinstance(target.columns[name].type, JSON | ARRAY):
        raise DataFileError(
            f"{target.name}.{name} holds {target.columns[name].type!r}, by which no row can be told from others: take "
            "another column"
        )


def _unknown(target: Target, name: str) -> DataFileError:
    if name in inspect(target.model).relationships:
        return DataFileError(
            f"{target.name}.{name} is a list, which a row cannot hold: load the rows on its other side"
        )
    return DataFileError(f"{target.name} has no column {name!r}{nearest(name, target.columns)}")


def _without_nothing(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    inner = {name: _without_nothing(each) for name, each in value.items()}
    return inner if any(each not in (None, "") for each in inner.values()) else None


# --- looking up


class Resolver:
    """
    Finds the rows that others refer to, many with one SELECT, and remembers them.
    """

    def __init__(self) -> None:
        self._found: dict[Natural, list[tuple[Any, ...]]] = {}

    def resolve(self, session: Session, rows: Iterable[Row]) -> None:
        """
        Give rows the values of their references.

        Raises:
            RowRefused: There is no such row, or more than one.
        """
        waiting = [row for row in rows if row.references]
        if not waiting:
            return
        if len(self._found) > 100_000:  # it is a memory, and no copy of the table
            self._found.clear()
        self._look_up(session, {natural for row in waiting for natural in row.references.values()})
        for row in waiting:
            for name, natural in row.references.items():
                candidates = self._found[natural]
                if len(candidates) != 1:
                    there = f"there are {len(candidates)}" if candidates else "there is no"
                    reason = f"{there} {natural}, neither in the database nor in the files"
                    raise row.part.refused(row.number, reason, name, str(natural))
                row.values.update(zip(natural.local, candidates[0], strict=True))

    def _look_up(self, session: Session, naturals: set[Natural]) -> None:
        groups: defaultdict[Any, list[Natural]] = defaultdict(list)
        for natural in naturals - self._found.keys():
            kinds = tuple(each.local if isinstance(each, Natural) else None for each in natural.values)
            groups[natural.target, natural.wanted, natural.names, kinds].append(natural)
        for group in groups.values():
            self._look_up_alike(session, group)

    def _look_up_alike(self, session: Session, group: list[Natural]) -> None:
        self._look_up(session, {value for each in group for value in each.values if isinstance(value, Natural)})
        first = group[0]
        names: list[str] = []
        for name, value in zip(first.names, first.values, strict=True):
            names += value.local if isinstance(value, Natural) else (name,)
        asked = {natural: tuple(self._known(natural)) for natural in group}
        found = defaultdict(list)
        values = [each for each in dict.fromkeys(asked.values()) if None not in each]
        for row in matching(session, first.target, names, first.wanted, values):
            found[tuple(row[: len(names)])].append(tuple(row[len(names) :]))
        for natural, each in asked.items():
            self._found[natural] = found.get(each, [])

    def _known(self, natural: Natural) -> Iterator[Any]:
        """
        Give the values that a row is looked up by; None, which no row matches, where it refers to what is not there.
        """
        for value in natural.values:
            if isinstance(value, Natural):
                rows = self._found[value]
                yield from rows[0] if len(rows) == 1 else [None] * len(value.local)
            else:
                yield value


def matching(
    session: Session, target: Target, names: Iterable[str], wanted: Iterable[str], keys: Iterable[tuple[Any, ...]]
) -> Iterator[Any]:
    """
    Give the rows that have one of some tuples of values, as many at a time as a statement takes.

    Args:
        session: The session.
        target: The model.
        names: The attributes of the tuples.
        wanted: The attributes that follow them in what is given.
        keys: The tuples.
    """
    columns = [target.columns[name] for name in names]
    selected = [*columns, *(target.columns[name] for name in wanted)]
    padded = [position for position, each in enumerate(selected) if is_padded(each)]
    connection = session.connection()
    rest = iter(keys)
    while some := list(islice(rest, PARAMETERS // len(columns))):
        found = connection.execute(_narrowed(select(*selected), columns, some, connection.dialect.name))
        yield from (_unpadded(row, padded) for row in found) if padded else found


def _unpadded(row: Sequence[Any], padded: list[int]) -> list[Any]:
    values = list(row)
    for position in padded:
        if values[position] is not None:
            values[position] = values[position].rstrip(" ")
    return values


def _narrowed(statement: Select[Any], columns: list[Column[Any]], some: list[tuple[Any, ...]], dialect: str) -> Any:
    if len(columns) == 1:
        return statement.where(columns[0].in_([value for (value,) in some]))
    if dialect != "postgresql":
        return statement.where(tuple_(*columns).in_(some))
    # PostgreSQL takes IN with tuples for thousands of ORs, and plans them one by one: a join with arrays instead.
    arrays = (literal(list(each), ARRAY(of.type)) for of, each in zip(columns, zip(*some, strict=True), strict=True))
    names = [f"c{position}" for position in range(len(columns))]
    typed = (column(name, of.type) for name, of in zip(names, columns, strict=True))
    listed = func.unnest(*arrays).table_valued(*typed).render_derived(name="listed")
    return statement.join(listed, and_(*(of == listed.c[name] for of, name in zip(columns, names, strict=True))))
