"""Dumps databases to files that `load` makes the same rows of again, also in another kind of database."""

from __future__ import annotations

import io
import os
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, cast, get_args
from uuid import uuid4

import msgspec

from stillroom.data.catalog import Catalog, Target
from stillroom.data.errors import DataFileError
from stillroom.data.files import yaml_library

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from stillroom import Databases, UnitOfWork

    Progress = Callable[[str, int, int], object]

__all__ = ["DumpFormat", "Dumped", "dump"]

DumpFormat = Literal["csv", "json", "jsonl", "yaml", "parquet"]


@dataclass(frozen=True)
class Dumped:
    """
    What was written of one model.

    Attributes:
        database: The name of the database.
        model: The class, or the table where no class is mapped to it.
        path: The file; None where all is one stream.
        rows: How many there are.
    """

    database: str
    model: str
    path: str | None
    rows: int


def dump(
    databases: Databases,
    target: str | os.PathLike[str] | IO[bytes],
    *,
    database: str | None = None,
    models: Sequence[str | type[Any]] | None = None,
    format: DumpFormat = "csv",  # noqa: A002  # the word of the field
    progress: Progress | None = None,
) -> list[Dumped]:
    """
    Write the rows of databases to files, each database as it was at one moment.

    Args:
        databases: The databases.
        target: A directory, which gets a directory for each database and in it a file for each model; or a file open
            for writing bytes, which gets all as one document ("json", "yaml"), or the rows of one model.
        database: One database; None for all.
        models: Some models or tables; None for all.
        format: Of the files; "parquet" needs the extra `arrow`, "yaml" the extra `data`.
        progress: Is told of what so many rows of so many are done.

    Raises:
        DataFileError: There is no such model; or several models cannot be one stream of that format.
        MissingExtra: A library for the format is not installed.
    """
    if format not in get_args(DumpFormat):
        raise DataFileError(f"format={format!r} is not known; there are {', '.join(map(repr, get_args(DumpFormat)))}")
    if format == "yaml":
        yaml_library()
    catalog = Catalog(databases)
    chosen = _chosen(catalog, database, models)
    is_stream = not isinstance(target, str | os.PathLike)
    if is_stream and format not in ("json", "yaml") and len(chosen) != 1:
        raise DataFileError(
            f"{len(chosen)} models cannot be one stream of {format!r}: name one model, take 'json' or 'yaml', or write "
            "into a directory"
        )
    with databases.unit_of_work(read_only=True) as uow:
        if is_stream:
            return _streamed(uow, chosen, cast("IO[bytes]", target), format, progress)
        return [_filed(uow, each, Path(cast("str", target)), format, progress) for each in chosen]


def _chosen(catalog: Catalog, database: str | None, models: Iterable[str | type[Any]] | None) -> list[Target]:
    names = list(catalog.databases) if database is None else [database]
    every = [target for name in names for target in catalog.targets(name)]
    if models is None:
        return every
    wanted = {
        catalog.find(each if isinstance(each, str) else each.__name__, database, "the models to dump")
        for each in models
    }
    return [target for target in every if target in wanted]


def _filed(uow: UnitOfWork, target: Target, directory: Path, format_: str, progress: Progress | None) -> Dumped:
    path = directory / target.database / f"{target.name}.{format_}"
    path.parent.mkdir(parents=True, exist_ok=True)
    with _whole(path) as file:
        rows = _write(uow, target, file, format_)
    if progress is not None:
        progress(str(target), rows, rows)
    return Dumped(target.database, target.name, str(path), rows)


@contextmanager
def _whole(path: Path) -> Iterator[IO[bytes]]:
    """
    Open a file that gets its name only when it is whole.
    """
    beside = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        with beside.open("xb") as file:
            yield file
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def _streamed(
    uow: UnitOfWork, chosen: list[Target], file: IO[bytes], format_: str, progress: Progress | None
) -> list[Dumped]:
    found = []
    document = format_ in ("json", "yaml")
    for position, target in enumerate(chosen):
        previous = chosen[position - 1].database if position else None
        if document:
            file.write(_heading(target, previous, format_))
        rows = _write(uow, target, file, format_, indent=b"    " if format_ == "yaml" else b"")
        if progress is not None:
            progress(str(target), rows, rows)
        found.append(Dumped(target.database, target.name, None, rows))
    if format_ == "json":
        file.write(b"}}\n" if chosen else b"{}\n")
    return found


def _heading(target: Target, previous: str | None, format_: str) -> bytes:
    """
    Return what stands before a list of rows in a document of all databases.
    """
    database, model = (msgspec.json.encode(name) for name in (target.database, target.name))
    is_new = target.database != previous
    if format_ == "yaml":
        return (database + b":\n" if is_new else b"") + b"  " + model + b":\n"
    if is_new:
        return (b"{" if previous is None else b"},\n") + database + b": {" + model + b": "
    return b",\n" + model + b": "


def _write(uow: UnitOfWork, target: Target, file: IO[bytes], format_: str, *, indent: bytes = b"") -> int:
    """
    Write the rows of one model, in the order of their keys; return how many.
    """
    session = uow.session(target.database, role="reader", snapshot=True)
    rows = target.repository(session).with_deleted()
    options: dict[str, Any] = {"order_by": target.primary_key}
    names = list(target.columns)
    if format_ in ("csv", "jsonl", "parquet"):
        return rows.export(file, *names, format=format_, **options)  # type: ignore[arg-type]  # it is one of these
    with tempfile.TemporaryFile() as lines:
        count = rows.export(lines, *names, format="jsonl", **options)
        lines.seek(0)
        if format_ == "json":
            _write_json(lines, file)
        else:
            _write_yaml(lines, file, indent)
    return count


def _write_json(lines: IO[bytes], file: IO[bytes]) -> None:
    separator = b"[\n"
    for line in lines:
        file.write(separator + line.rstrip(b"\n"))
        separator = b",\n"
    file.write(b"[]\n" if separator == b"[\n" else b"\n]\n")


def _write_yaml(lines: IO[bytes], file: IO[bytes], indent: bytes) -> None:
    yaml = yaml_library()
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    is_empty = True
    for line in lines:
        is_empty = False
        text = io.StringIO()
        yaml.dump([msgspec.json.decode(line)], text, Dumper=dumper, sort_keys=False, allow_unicode=True, width=100_000)
        file.writelines(indent + each.encode() + b"\n" for each in text.getvalue().removesuffix("\n").split("\n"))
    if is_empty:
        file.write(indent + b"[]\n")
