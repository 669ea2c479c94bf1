"""The files of exports and loads: CSV and JSON lines; each value written so that it is read back as it was."""

from __future__ import annotations

import math
import re
from datetime import timedelta
from pathlib import PurePath
from typing import IO, TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import msgspec
from sqlalchemy import ARRAY, JSON, Interval
from sqlalchemy.types import TypeDecorator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import Protocol

    from sqlalchemy.types import TypeEngine

    Convert = Callable[[Any], Any]
    Row = tuple[Any, ...]

    class Writer(Protocol):
        """
        Writes rows of one format to a file.
        """

        def write(self, rows: Sequence[Row]) -> None:
            """
            Write some rows.
            """

        def close(self) -> None:
            """
            Write what the format ends with; the file itself stays open.
            """


Format: TypeAlias = Literal["csv", "jsonl", "arrow", "parquet"]
_ENDINGS: dict[str, Format] = {
    ".csv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".parquet": "parquet",
}


def format_of(place: Any, format_: Format | None) -> Format:
    """
    Return the format that is named, or the one of a path's ending.

    Raises:
        ValueError: There is no such format, or the path does not say.
    """
    known = get_args(Format)
    if format_ is not None:
        if format_ not in known:
            raise ValueError(f"format={format_!r} is not known; there are {', '.join(map(repr, known))}")
        return format_
    found = _ENDINGS.get(PurePath(place).suffix.lower()) if not hasattr(place, "read") else None
    if found is None:
        raise ValueError(f"{place!r} does not tell the format: name it, format={' or '.join(map(repr, known))}")
    return found


def writer(format_: Format, file: IO[bytes], names: Sequence[str], types: Sequence[TypeEngine[Any]]) -> Writer:
    """
    Make what writes rows to a file.

    Raises:
        MissingExtra: The format needs pyarrow, which is not installed.
    """
    if format_ == "csv":
        return _CSVWriter(file, names, types)
    if format_ == "jsonl":
        return _JSONLinesWriter(file, names, types)
    from .arrow import ArrowWriter

    return ArrowWriter(format_, file, names, types)


def reader(format_: Format, file: IO[bytes]) -> Iterator[dict[str, Any]]:
    """
    Read the rows of a file, by name, as the format has them.

    Raises:
        MissingExtra: The format needs pyarrow, which is not installed.
    """
    if format_ == "csv":
        return _read_csv(file)
    if format_ == "jsonl":
        return map(msgspec.json.Decoder(dict[str, Any]).decode, filter(bytes.strip, file))
    from .arrow import read_arrow

    return read_arrow(format_, file)


# --- values


def python_type(type_: TypeEngine[Any]) -> Any:
    """
    Return the Python type of a column's values; `Any` where it says none, or where JSON has one already.
    """
    if isinstance(type_, Interval):  # a TypeDecorator of points in time, where the backend has no intervals
        return timedelta
    if isinstance(type_, TypeDecorator):
        return python_type(type_.impl_instance)
    if isinstance(type_, JSON):
        return Any
    if isinstance(type_, ARRAY):
        return list[python_type(type_.item_type) | None] if type_.dimensions in (None, 1) else Any  # type: ignore[misc]
    try:
        return type_.python_type
    except NotImplementedError:
        return Any


def is_json(type_: TypeEngine[Any]) -> bool:
    """
    Say whether a column holds JSON.
    """
    return isinstance(type_.impl_instance if isinstance(type_, TypeDecorator) else type_, JSON)


def from_file(format_: Format, type_: TypeEngine[Any]) -> Convert | None:
    """
    Return what makes a column's value of what a file has; None where it is that already.
    """
    if is_json(type_):
        return None if format_ == "jsonl" else lambda value: None if value is None else msgspec.json.decode(value)
    wanted = python_type(type_)
    if wanted in (Any, str):
        return None
    as_json = format_ != "jsonl" and isinstance(type_, ARRAY)

    def convert(value: Any) -> Any:
        if value is None:
            return None
        if as_json and isinstance(value, str):
            value = msgspec.json.decode(value)
        return msgspec.convert(value, wanted, strict=False)

    return convert


def json_text(value: Any) -> str:
    """
    Write a value as JSON.
    """
    return msgspec.json.encode(value).decode()


def plain(value: Any) -> Any:
    """
    Return a value as JSON or text has it: times in ISO 8601, decimal numbers and UUIDs as text, bytes in base 64.
    """
    return value if type(value) in (str, int) else msgspec.to_builtins(value)


# --- CSV


class _CSVWriter:
    """
    Writes CSV (RFC 4180, UTF-8, with a header): NULL is nothing between commas, an empty text is `""`.
    """

    def __init__(self, file: IO[bytes], names: Sequence[str], types: Sequence[TypeEngine[Any]]) -> None:
        self.file = file
        self.texts: list[Convert] = [json_text if is_json(type_) else _text for type_ in types]
        self.file.write(_line(map(_quoted, names)))

    def write(self, rows: Sequence[Row]) -> None:
        texts = self.texts
        self.file.write(
            b"".join(
                _line("" if value is None else _quoted(text(value)) for text, value in zip(texts, row, strict=True))
                for row in rows
            )
        )

    def close(self) -> None:
        """
        Do nothing: a CSV file has no end of its own.
        """


def _line(fields: Iterable[str]) -> bytes:
    return (",".join(fields) + "\r\n").encode()


_TO_QUOTE = re.compile(r'[",\r\n]')


def _quoted(text: str) -> str:
    if not text or _TO_QUOTE.search(text):
        return '"' + text.replace('"', '""') + '"'
    return text


def _text(value: Any) -> str:
    simple = plain(value)
    if isinstance(simple, str):
        return simple
    if isinstance(simple, bool | list | dict):
        return json_text(simple)
    return str(simple)


_FIELD = re.compile(r'(?:"((?:[^"]|"")*)"|([^",\r\n]*))(,|\r?\n|\r|$)')


def _read_csv(file: IO[bytes]) -> Iterator[dict[str, Any]]:
    records = _records(line.decode() for line in file)
    names = [name or "" for name in next(records, [])]
    names[:1] = [names[0].removeprefix("\ufeff")] if names else []
    for record in records:
        if len(record) != len(names):
            raise ValueError(f"it has {len(record)} fields, and the header of the CSV file {len(names)}")
        yield dict(zip(names, record, strict=True))


def _records(lines: Iterable[str]) -> Iterator[list[str | None]]:
    """
    Split lines into fields; an empty field is None, for Python's own reader does not tell it from `""`.
    """
    begun: list[str] = []
    in_quotes = False
    for line in lines:
        begun.append(line)
        in_quotes ^= line.count('"') % 2 == 1
        if in_quotes:
            continue  # the record goes on
        text = "".join(begun)
        begun.clear()
        record: list[str | None] = []
        position = 0
        while match := _FIELD.match(text, position):
            quoted, bare, end = match.groups()
            record.append((bare or None) if quoted is None else quoted.replace('""', '"'))
            position = match.end()
            if end != ",":
                break
        if position != len(text):
            raise ValueError(f"this is no line of a CSV file: {text!r}")
        yield record
    if begun:
        raise ValueError("the CSV file ends inside of quotes")


# --- JSON lines


class _JSONLinesWriter:
    """
    Writes a JSON object a line.
    """

    def __init__(self, file: IO[bytes], names: Sequence[str], types: Sequence[TypeEngine[Any]]) -> None:
        self.file = file
        self.names = names
        self.floats = [position for position, type_ in enumerate(types) if python_type(type_) is float]
        self.encoder = msgspec.json.Encoder()

    def write(self, rows: Sequence[Row]) -> None:
        objects = [dict(zip(self.names, row, strict=True)) for row in rows]
        for name in (self.names[position] for position in self.floats):
            for each in objects:
                if each[name] is not None and not math.isfinite(each[name]):
                    each[name] = str(each[name])  # JSON has no NaN
        self.file.write(self.encoder.encode_lines(objects))

    def close(self) -> None:
        """
        Do nothing: the last line is the end.
        """
