"""Files of data: what their rows are rows of, and the rows themselves, read as often as they are needed."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from stillroom import MissingExtra
from stillroom.data.errors import DataFileError, RowRefused
from stillroom.repository.bulk import formats

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Iterator

    from stillroom.data.catalog import Catalog, Target

__all__ = ["ENDINGS", "Part", "parts", "yaml_library"]

DataFormat = Literal["csv", "json", "jsonl", "yaml", "parquet", "arrow"]
ENDINGS: dict[str, DataFormat] = {
    ".csv": "csv",
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".yaml": "yaml",
    ".yml": "yaml",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
}
"""Formats by the ending of a file."""


@dataclass(frozen=True)
class Part:
    """
    Rows of one model, in one file.

    Attributes:
        path: The file.
        format: Its format.
        target: What the rows are rows of.
        read: Gives the rows, from the first on at each call.
    """

    path: Path
    format: DataFormat
    target: Target
    read: Callable[[], Iterable[Any]]

    def rows(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """
        Give the rows with their numbers, as the file has them.

        Raises:
            RowRefused: One cannot be read.
        """
        rows = iter(self.read())
        for number in count(1):
            try:
                row = next(rows, None)
            except (msgspec.MsgspecError, ValueError) as error:
                raise self.refused(number, str(error)) from error
            if row is None:
                return
            if not isinstance(row, dict) or not all(isinstance(name, str) for name in row):
                raise self.refused(number, f"{row!r} is no row: a row has names and values")
            yield number, row

    def refused(self, number: int, reason: str, column: str | None = None, value: Any = None) -> RowRefused:
        """
        Make the error for a row.
        """
        where = "" if column is None else f", column {column!r}"
        return RowRefused(
            f"{str(self.path)!r}, row {number} of {self.target}{where}: {reason}. Nothing was loaded",
            path=self.path,
            number=number,
            column=column,
            value=value,
            model=self.target.model,
        )


def parts(
    catalog: Catalog, paths: Iterable[str | os.PathLike[str]], database: str | None, model: str | None
) -> list[Part]:
    """
    Find out what files, or directories of files, hold.

    Args:
        catalog: The models.
        paths: The files and directories.
        database: The database of all rows; None: as the files say.
        model: The model of all rows; None: as the files say.

    Raises:
        DataFileError: A file cannot be read, or does not say what it holds.
        MissingExtra: A library for its format is not installed.
        UnknownDatabase: There is no such database.
    """
    if database is not None:
        catalog.targets(database)
    reading = _Reading(catalog, database, model)
    return [part for path in _files(map(Path, paths)) for part in reading.parts(path)]


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if not path.is_dir():
            yield path
            continue
        found = [each for each in sorted((*path.glob("*"), *path.glob("*/*"))) if each.suffix.lower() in ENDINGS]
        if not found:
            raise DataFileError(f"the directory {str(path)!r} has no file of data ({', '.join(ENDINGS)})")
        yield from found


@dataclass(frozen=True)
class _Reading:
    """
    Finds out what files hold.
    """

    catalog: Catalog
    database: str | None
    model: str | None

    def parts(self, path: Path) -> Iterator[Part]:
        format_ = ENDINGS.get(path.suffix.lower())
        if format_ is None:
            raise DataFileError(f"{str(path)!r}: the ending of a file tells its format; known are {', '.join(ENDINGS)}")
        if format_ in ("json", "yaml"):
            content = _document(path, format_)
            for target, rows in self._of_document(path, content):
                yield Part(path, format_, target, lambda rows=rows: rows)  # type: ignore[misc]  # mypy infers no default
            return
        _require_file(path)
        target = self._of_name(path)
        yield Part(path, format_, target, lambda: _streamed(path, format_))

    # --- whose rows

    def _of_name(self, path: Path) -> Target:
        where = repr(str(path))
        database, name = self._told(path)
        return self.catalog.find(self.model or name, database, where)

    def _told(self, path: Path) -> tuple[str | None, str]:
        """
        Return the database and the model that the name of a file tells: main.Artist.csv, or main/Artist.csv.
        """
        stem = path.name[: -len(path.suffix)]
        above = path.parent.name
        database = self.database or (above if above in self.catalog.databases else None)
        first, _, rest = stem.partition(".")
        if rest and first in self.catalog.databases and self.database in (None, first):
            is_schema = self.catalog.called(stem, database or first)  # which may be called like a database
            return (database, stem) if is_schema else (first, rest)
        return database, stem

    def _of_document(self, path: Path, content: Any) -> Iterator[tuple[Target, list[Any]]]:
        """
        Find the lists of rows: {"Artist": [...]}, {"main": {"Artist": [...]}}, or a list alone.
        """
        where = repr(str(path))
        if isinstance(content, list):
            yield self._of_name(path), content
            return
        if not isinstance(content, dict) or self.model is not None:
            wanted = "a list of rows" if self.model is not None else "a list of rows, or lists by the names of models"
            raise DataFileError(f"{where} holds no {wanted.removeprefix('a ')}: it is to be {wanted}")
        database, stem = self._told(path)
        if stem in self.catalog.databases and self.database is None:
            database = stem
        for name, value in content.items():
            if isinstance(value, dict):
                if name not in self.catalog.databases or self.database not in (None, name):
                    known = self.database or ", ".join(map(repr, self.catalog.databases))
                    raise DataFileError(f"{where}: {name!r} is none of the databases of this load, which are {known}")
                lists, place = value, name
            else:
                lists, place = {name: value}, database
            for model, rows in lists.items():
                target = self.catalog.find(str(model), place, where)
                if not isinstance(rows, list | None):
                    raise DataFileError(f"{where}: {model!r} is no list of rows, but {type(rows).__name__}")
                yield target, rows or []


# --- what is in a file


def _require_file(path: Path) -> None:
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise DataFileError(f"{str(path)!r} cannot be read: {error.strerror}") from error


def _streamed(path: Path, format_: Any) -> Iterator[dict[str, Any]]:
    with path.open("rb") as file:
        yield from formats.reader(format_, file)


def _document(path: Path, format_: DataFormat) -> Any:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataFileError(f"{str(path)!r} cannot be read: {error.strerror}") from error
    if format_ == "json":
        try:
            return msgspec.json.decode(content)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise DataFileError(f"{str(path)!r} is not JSON: {error}") from error
    yaml = yaml_library()
    try:
        found = yaml.load(content, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError as error:
        raise DataFileError(f"{str(path)!r} is not YAML: {' '.join(str(error).split())}") from error
    return {} if found is None else found


def yaml_library() -> Any:
    """
    Return PyYAML.

    Raises:
        MissingExtra: It is not installed.
    """
    try:
        import yaml
    except ImportError as error:
        raise MissingExtra("PyYAML is not installed, which YAML files need", extra="data", name="yaml") from error
    return yaml
