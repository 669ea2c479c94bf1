"""Which models and tables the databases have, and which of them a name means."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import Table, inspect
from sqlalchemy.orm import DeclarativeBase, DeclarativeBaseNoMeta, Mapper, registry
from sqlalchemy.schema import sort_tables_and_constraints

from stillroom import Repository
from stillroom.data.errors import DataFileError
from stillroom.models import DATABASE_KEY
from stillroom.repository.bulk.batches import writable
from stillroom.settings.schema import nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from sqlalchemy import Column

    from stillroom import Database, Databases

__all__ = ["Catalog", "Target"]


@dataclass(frozen=True, eq=False)
class Target:
    """
    What rows are loaded into, or dumped from.

    Attributes:
        database: The name of the database.
        name: The class, or the table where no class alone is mapped to it.
        table: The table.
        repository: A class of repositories of the model.
        deferred: The columns that refer to this table, or round in a circle.
    """

    database: str
    name: str
    table: Table
    repository: type[Repository[Any]]
    deferred: frozenset[str]

    def __str__(self) -> str:
        return f"{self.database}.{self.name}"

    @property
    def model(self) -> type[Any]:
        """
        The mapped class; one of our own where no class is mapped to the table.
        """
        return self.repository.describe().model

    @cached_property
    def columns(self) -> dict[str, Column[Any]]:
        """
        The columns that can be given, by attribute.
        """
        return writable(self.repository.describe())

    @cached_property
    def computed(self) -> frozenset[str]:
        """
        The attributes that the database computes, which a file may have and nobody can give.
        """
        return frozenset(self.repository.describe().columns) - frozenset(self.columns)

    @cached_property
    def attributes(self) -> dict[Any, str]:
        """
        The attribute of each column.
        """
        return {column: name for name, column in self.columns.items()}

    @cached_property
    def unique_keys(self) -> list[tuple[str, ...]]:
        """
        The attributes of each unique key, the primary key first; not those of a part of the rows.
        """
        keys = (key for key in self.repository.describe().unique_keys if not _is_partial(key.declared))
        return list(dict.fromkeys(key.names for key in keys))

    @cached_property
    def primary_key(self) -> tuple[str, ...]:
        """
        The attributes of the primary key.
        """
        return self.repository.describe().keys

    def natural_key(self) -> tuple[str, ...]:
        """
        Return the attributes by which people know a row: those of `__natural_key__`, or of the only unique constraint.

        Raises:
            DataFileError: There is none, or more than one.
        """
        declared = getattr(self.model, "__natural_key__", None)
        if declared is not None:
            return (declared,) if isinstance(declared, str) else tuple(declared)
        found = [names for names in self.unique_keys if set(names) != set(self.primary_key)]
        if len(found) == 1:
            return found[0]
        has = f"the unique keys {', '.join(map(str, map(list, found)))}" if found else "no unique key"
        raise DataFileError(
            f"{self} has {has} beside its primary key {list(self.primary_key)!r}, so its rows are not known by "
            "anything else: say which columns, by key= (--key) or the model's attribute __natural_key__, or give the "
            "primary key"
        )


def _is_partial(declared: Any) -> bool:
    return any("where" in options for options in declared.dialect_options.values() if options.get("where") is not None)


class Catalog:
    """
    The models and tables of databases.

    Args:
        databases: The databases.
    """

    def __init__(self, databases: Databases) -> None:
        self.databases = databases
        self._targets: dict[str, list[Target]] = {}

    def targets(self, database: str) -> list[Target]:
        """
        Return what a database has, each behind those that it refers to.

        Raises:
            UnknownDatabase: There is no such database.
        """
        if database not in self._targets:
            self._targets[database] = _targets(self.databases[database])
        return self._targets[database]

    def of_table(self, database: str, table: Any) -> Target | None:
        """
        Return the target of a table, or None.
        """
        return next((each for each in self.targets(database) if each.table is table), None)

    def find(self, name: str, database: str | None, where: str) -> Target:
        """
        Return what a name means: a class or a table.

        Args:
            name: The name.
            database: The database; None for any.
            where: What said so, for messages.

        Raises:
            DataFileError: Nothing is called so, or more than one thing.
        """
        found = self.called(name, database)
        if len(found) == 1:
            return found[0]
        if found:
            options = " or ".join(map(str, found))
            raise DataFileError(f"{where}: {name!r} is {options}; say which by database= (--database), or in its name")
        targets = self._of(database)
        known = nearest(name, {word for each in targets for word in (each.name, each.table.key)})
        place = f"the database {database!r} has" if database is not None else "the databases have"
        hint = "" if targets else "; name its `metadata` in the settings"
        raise DataFileError(f"{where}: {place} no model and no table {name!r}{known}{hint}")

    def called(self, name: str, database: str | None) -> list[Target]:
        """
        Return everything of that name; a class before a table.
        """
        found = self._of(database)
        return [each for each in found if each.name == name] or [each for each in found if each.table.key == name]

    def _of(self, database: str | None) -> list[Target]:
        return [each for name in (self.databases if database is None else [database]) for each in self.targets(name)]


def _targets(database: Database) -> list[Target]:
    mappers = list(_mappers(database))
    collections = [database.metadata, *(cast("Table", each.local_table).metadata for each in mappers)]
    tables = {table for each in collections for table in each.tables.values()}
    ordered, circular = _sorted(tables)
    found = []
    for table in ordered:
        mapped = [each for each in mappers if each.local_table is table]
        # A hierarchy of classes is more than one of its tables, and a class of it less than one: tables are exact.
        alone = [each for each in mapped if each.inherits is None and list(each.self_and_descendants) == [each]]
        deferred = circular | {
            column for fk in table.foreign_key_constraints if fk.referred_table is table for column in fk.columns
        }
        if len(alone) == len(mapped) == 1:
            found.append(_target(database.name, alone[0].class_.__name__, alone[0], deferred))
        elif table.primary_key.columns:
            found.append(_target(database.name, str(table.key), _mapped(table), deferred))
    return found


def _target(database: str, name: str, mapper: Mapper[Any], deferred: set[Column[Any]]) -> Target:
    table = cast("Table", mapper.local_table)
    # Not by `Repository[...]`, which keeps what it makes: a class for a table is made anew for each load.
    repository = type(f"{mapper.class_.__name__}Rows", (Repository,), {"model": mapper.class_, "database": database})
    names = frozenset(mapper.get_property_by_column(each).key for each in deferred if each.table is table)
    return Target(database, name, table, repository, names)


def _mapped(table: Table) -> Mapper[Any]:
    """
    Map a class of our own to a table, by the names of its columns.
    """
    return registry().map_imperatively(type(table.name, (), {}), table)


def _sorted(tables: Iterable[Table]) -> tuple[list[Table], set[Column[Any]]]:
    """
    Sort tables behind those that they refer to, and name the columns of the references that go round in a circle.
    """
    ordered: list[Table] = []
    circular: set[Column[Any]] = set()
    sort: Callable[..., Iterable[tuple[Table | None, Iterable[Any]]]] = sort_tables_and_constraints
    for table, constraints in sort(sorted(tables, key=lambda each: each.key)):
        if table is None:
            circular |= {column for constraint in constraints for column in constraint.columns}
        else:
            ordered.append(table)
    return ordered, circular


def _mappers(database: Database) -> Iterator[Mapper[Any]]:
    """
    Find the mapped classes of a database: those of its metadata, or of a base that names the database.
    """
    metadata = database.metadata
    seen: set[Mapper[Any]] = set()
    for each in _registries(database):
        for mapper in each.mappers:
            table = mapper.local_table
            if mapper in seen or not isinstance(table, Table):
                continue
            is_named = not metadata.tables and table.metadata.info.get(DATABASE_KEY) == database.name
            if is_named or metadata.tables.get(table.key) is table:
                seen.add(mapper)
                yield mapper


def _registries(database: Database) -> Iterator[registry]:
    bases: list[type[Any]] = [DeclarativeBase, DeclarativeBaseNoMeta]
    while bases:
        base = bases.pop()
        bases += base.__subclasses__()
        if "registry" in base.__dict__:
            yield base.registry
    for value in _values_of_modules(database.settings.models, database.settings.metadata):
        mapper: Any = inspect(value, raiseerr=False) if isinstance(value, type) else None
        if isinstance(mapper, Mapper):
            yield mapper.registry


def _values_of_modules(models: Sequence[str], metadata: str | None) -> Iterator[Any]:
    """
    Give what the modules of models hold: a class that was mapped without a declarative base is known to nobody else.
    """
    packages = [*models, *([metadata.partition(":")[0]] if metadata else [])]
    for name, module in list(sys.modules.items()):
        if any(name == package or name.startswith(f"{package}.") for package in packages):
            yield from list(vars(module).values())
