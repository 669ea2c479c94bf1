"""Loads files of data: all rows of all files are checked first, then written in one unit of work."""

from __future__ import annotations

from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING

from stillroom.data.catalog import Catalog, Target
from stillroom.data.errors import DataFileError
from stillroom.data.files import Part, parts
from stillroom.data.locking import alone, hold
from stillroom.data.rows import Reader
from stillroom.data.writing import TableWriter, matched_key

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

    from stillroom import Databases, UnitOfWork

    Progress = Callable[[str, int, int], object]

__all__ = ["Loaded", "load"]

LOCK = "stillroom load"
ATTEMPTS = 5


@dataclass(frozen=True)
class Loaded:
    """
    What became of the rows of one model.

    Attributes:
        database: The name of the database.
        model: The class, or the table where no class is mapped to it.
        rows: How many the files have.
        inserted: How many were new.
        updated: How many were there and differed.
        unchanged: How many were there just so; they were not touched.
    """

    database: str
    model: str
    rows: int
    inserted: int
    updated: int
    unchanged: int


@dataclass
class _Table:
    """
    What is to be loaded into one table.
    """

    target: Target
    parts: list[Part] = field(default_factory=list)
    rows: int = 0
    names: set[str] = field(default_factory=set)
    key: tuple[str, ...] = ()


def load(
    databases: Databases,
    *paths: str | os.PathLike[str],
    database: str | None = None,
    model: str | type[Any] | None = None,
    key: str | Sequence[str] | None = None,
    dry_run: bool = False,
    progress: Progress | None = None,
    wait: float = 300.0,
) -> list[Loaded]:
    """
    Load files of data: new rows are inserted, those that differ are updated, the others are left alone.

    All of it, or nothing: in the unit of work that is open, or in one of its own, which waits while another process
    loads.

    Args:
        databases: The databases.
        *paths: Files, or directories of files: CSV, JSON, JSON lines, YAML, Parquet, Arrow.
        database: The database of all rows; None: as the files say.
        model: The model, or the table, of all rows; None: as the files say.
        key: The attributes that say whether a row is there; None: the primary key where the rows have it, else the
            model's `__natural_key__`, else its only unique constraint.
        dry_run: Do it, and roll it back.
        progress: Is told of what so many rows of so many are done.
        wait: How long another process that loads is waited for, in seconds.

    Returns:
        What became of the rows, in the order of loading.

    Raises:
        DataFileError: A file cannot be read, or does not say what it holds; or rows have no key.
        RowRefused: A row does not fit; names the file, the row and, where it is known, the column.
        DataLocked: Another process loads, and did not end in time.
        MissingExtra: A library for a format is not installed.
    """
    catalog = Catalog(databases)
    name = model if isinstance(model, str | None) else model.__name__
    wanted = (key,) if isinstance(key, str) else key
    tables = _checked(catalog, parts(catalog, paths, database, name), wanted)
    names = [each for each in databases if any(table.target.database == each for table in tables)]
    if not names:
        return []

    def work(uow: UnitOfWork) -> list[Loaded]:
        if not dry_run:
            return _written(catalog, uow, tables, progress)
        found: list[Loaded] = []
        try:
            with uow.savepoint(*names):
                found = _written(catalog, uow, tables, progress, stays=False)
                raise _DryRun
        except _DryRun:
            return found

    chosen = [databases[each] for each in names]
    if databases.has_current:
        with databases.transaction() as uow:
            for each in chosen:
                hold(uow, each, LOCK, monotonic() + wait)
            return work(uow)
    return alone(chosen, databases.unit_of_work, LOCK, work, wait=wait, attempts=ATTEMPTS)


class _DryRun(Exception):
    """
    Leaves the savepoint of a dry run, so that it is rolled back.
    """


def _checked(catalog: Catalog, found: Iterable[Part], key: Sequence[str] | None) -> list[_Table]:
    """
    Read all rows once, and sort the tables behind those that they refer to.
    """
    tables: dict[Target, _Table] = {}
    for part in found:
        table = tables.setdefault(part.target, _Table(part.target))
        table.parts.append(part)
        for row in Reader(catalog, part):
            table.rows += 1
            table.names |= row.names
    if key is not None and len(tables) > 1:
        raise DataFileError(
            f"key={list(key)!r} is about one model, and the files have rows of {', '.join(map(str, tables))}: load "
            "them one by one, or give the models an attribute __natural_key__"
        )
    for table in tables.values():
        if table.rows:
            table.key = matched_key(catalog, table.target, table.names, key)
    return [tables[target] for name in catalog.databases for target in catalog.targets(name) if target in tables]


def _written(
    catalog: Catalog, uow: UnitOfWork, tables: list[_Table], progress: Progress | None, *, stays: bool = True
) -> list[Loaded]:
    writers = {table.target: _writer(catalog, uow, table, progress) for table in tables if table.rows}
    incomplete = []
    for table in tables:
        writer = writers.get(table.target)
        if writer is None or writer.write(table.parts, table.names, stays=stays):
            continue
        if writer.is_circular:
            incomplete.append(table)
        else:
            writer.complete(table.parts)
    for table in incomplete:
        writers[table.target].complete(table.parts)
    return [_loaded(table, writers.get(table.target)) for table in tables]


def _writer(catalog: Catalog, uow: UnitOfWork, table: _Table, progress: Progress | None) -> TableWriter:
    def report(done: int) -> None:
        if progress is not None:
            progress(str(table.target), done, table.rows)

    return TableWriter(catalog, uow, table.target, table.key, report)


def _loaded(table: _Table, writer: TableWriter | None) -> Loaded:
    unchanged, inserted, updated = (0, 0, 0) if writer is None else writer.counts
    return Loaded(table.target.database, table.target.name, table.rows, inserted, updated, unchanged)
