"""The unique keys of a model: what says that two rows are the same one, and what an error of a constraint is about."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import Column, Index, PrimaryKeyConstraint, Table, UniqueConstraint
from sqlalchemy.orm.exc import UnmappedColumnError

from ..errors import ForeignKeyViolation, UniqueViolation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.orm import Mapper

    from ..errors import DriverError


@dataclass(frozen=True)
class UniqueKey:
    """
    A primary key, a unique constraint or a unique index.

    Attributes:
        names: The attributes of the model.
        columns: The columns.
        declared: The constraint or index of the table.
    """

    names: tuple[str, ...]
    columns: tuple[Column[Any], ...]
    declared: PrimaryKeyConstraint | UniqueConstraint | Index

    @property
    def table(self) -> Table:
        """
        The table.
        """
        return self.columns[0].table

    @property
    def constraint(self) -> str | None:
        """
        The name, or None where the database gives it one.
        """
        name = self.declared.name
        return name if isinstance(name, str) else None

    def where(self, dialect: str) -> Any:
        """
        Return the condition of a partial index, or None.
        """
        return self.declared.dialect_options[dialect].get("where") if isinstance(self.declared, Index) else None

    def is_called(self, name: str) -> bool:
        """
        Say whether a database calls it so.
        """
        if isinstance(self.declared, PrimaryKeyConstraint):
            return name in (self.constraint, "PRIMARY", f"{self.table.name}_pkey")  # MariaDB, PostgreSQL
        if self.constraint is not None:
            return name == self.constraint
        columns = [column.name for column in self.columns]
        return name in (columns[0], "_".join((self.table.name, *columns, "key")))


def unique_keys(mapper: Mapper[Any]) -> tuple[UniqueKey, ...]:
    """
    Return the unique keys of a mapped class, the primary key first; an index of expressions is none.
    """
    return tuple(key for table in mapper.tables if isinstance(table, Table) for key in _keys(mapper, table))


def _keys(mapper: Mapper[Any], table: Table) -> Iterator[UniqueKey]:
    found: list[Any] = [each for each in table.constraints if isinstance(each, UniqueConstraint)]
    found += [index for index in table.indexes if index.unique]
    for declared in (table.primary_key, *sorted(found, key=lambda each: str(each.name))):
        columns = tuple(declared.expressions if isinstance(declared, Index) else declared.columns)
        if columns and all(isinstance(column, Column) for column in columns):
            with contextlib.suppress(UnmappedColumnError):
                yield UniqueKey(tuple(mapper.get_property_by_column(each).key for each in columns), columns, declared)


def complete(error: DriverError, mapper: Mapper[Any]) -> None:
    """
    Fill in the model, the constraint and the columns of an error: each driver tells another part of them.

    Args:
        error: The error.
        mapper: What was written; a flush may have sent objects of other classes with it.
    """
    if isinstance(error, ForeignKeyViolation):  # its table has the constraint, and may be that of another class
        error.model = mapper.class_
        _complete_foreign_key(error, mapper)
        return
    found = _written(error, mapper)
    error.model = found.class_
    key = violated_key(error, found) if isinstance(error, UniqueViolation) else None
    if key is not None:
        error.constraint = error.constraint or key.constraint
        error.table = error.table or key.table.name
        error.columns = error.columns or tuple(column.name for column in key.columns)


def violated_key(error: UniqueViolation, mapper: Mapper[Any]) -> UniqueKey | None:
    """
    Return the unique key of a mapped class that an error is about, or None.
    """
    for key in unique_keys(mapper):
        if error.table not in (None, key.table.name):
            continue
        if error.constraint is not None and key.is_called(error.constraint):
            return key
        if error.constraint is None and set(error.columns) == {column.name for column in key.columns}:
            return key
    return None


def _written(error: DriverError, mapper: Mapper[Any]) -> Mapper[Any]:
    """
    Return the mapper of the row that an error is about: `mapper`, unless the error says that it is another one.
    """

    def fits(each: Mapper[Any]) -> bool:
        if error.table is not None:
            return any(isinstance(table, Table) and table.name == error.table for table in each.tables)
        return isinstance(error, UniqueViolation) and violated_key(error, each) is not None

    if fits(mapper):
        return mapper
    others = sorted(mapper.registry.mappers, key=lambda each: len(list(each.iterate_to_root())))
    return next(filter(fits, others), mapper)


def _complete_foreign_key(error: ForeignKeyViolation, mapper: Mapper[Any]) -> None:
    tables = (each.local_table for each in mapper.registry.mappers)
    for table in tables:
        if isinstance(table, Table) and table.name == error.table:
            for constraint in table.foreign_key_constraints:
                if constraint.name == error.constraint and constraint.name is not None:
                    error.columns = tuple(constraint.column_keys)
