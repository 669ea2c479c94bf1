"""Arrow and Parquet files, with the extra `arrow`."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import IO, TYPE_CHECKING, Any

from sqlalchemy import Numeric
from sqlalchemy.types import TypeDecorator

from ...errors import MissingExtra
from .formats import is_json, json_text, plain, python_type

try:
    import pyarrow as pa
    from pyarrow import parquet
except ImportError as error:
    raise MissingExtra(
        "pyarrow is not installed, which Arrow and Parquet files need", extra="arrow", name="pyarrow"
    ) from error

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy.types import TypeEngine

    from .formats import Convert, Format, Row

_MOST_DIGITS = 38
"""Of a decimal number of 128 bits."""
_BATCH = 1000


class ArrowWriter:
    """
    Writes an Arrow file (version 2 of Feather) or a Parquet file.
    """

    def __init__(
        self, format_: Format, file: IO[bytes], names: Sequence[str], types: Sequence[TypeEngine[Any]]
    ) -> None:
        self.format = format_
        self.file = file
        self.names = names
        self.columns = [_column(type_) for type_ in types]
        self.writer: Any = None

    def write(self, rows: Sequence[Row]) -> None:
        columns = [
            [None if row[position] is None else convert(row[position]) for row in rows]
            for position, (_, convert) in enumerate(self.columns)
        ]
        if self.writer is None:
            self._open(columns)
        schema = self.writer.schema
        arrays = [pa.array(values, type_) for values, type_ in zip(columns, schema.types, strict=True)]
        self.writer.write_batch(pa.record_batch(arrays, schema=schema))

    def close(self) -> None:
        """
        Write the end of the file, without which it cannot be read.
        """
        if self.writer is None:
            self._open([[] for _ in self.columns])
        self.writer.close()

    def _open(self, columns: Sequence[list[Any]]) -> None:
        # What a column of plain SQL holds is seen from its first values.
        types = [
            pa.array(values).type if type_ is None else type_
            for values, (type_, _) in zip(columns, self.columns, strict=True)
        ]
        fields = zip(self.names, [pa.string() if each == pa.null() else each for each in types], strict=True)
        schema = pa.schema(list(fields))
        if self.format == "parquet":
            self.writer = parquet.ParquetWriter(self.file, schema)
        else:
            self.writer = pa.ipc.new_file(self.file, schema)
            self.writer.schema = schema


def read_arrow(format_: Format, file: IO[bytes]) -> Iterator[dict[str, Any]]:
    """
    Read the rows of an Arrow or a Parquet file.
    """
    if format_ == "parquet":
        batches = parquet.ParquetFile(file).iter_batches(_BATCH)
    else:
        opened = pa.ipc.open_file(file)
        batches = (opened.get_batch(number) for number in range(opened.num_record_batches))
    for batch in batches:
        yield from batch.to_pylist()


def _column(type_: TypeEngine[Any]) -> tuple[Any, Convert]:
    """
    Return the Arrow type of a column, None where it is not known before, and what makes its values of ours.
    """
    if is_json(type_):
        return pa.string(), json_text
    kind = python_type(type_)
    inner = type_.impl_instance if isinstance(type_, TypeDecorator) else type_
    if kind is Decimal and isinstance(inner, Numeric) and inner.precision and inner.precision <= _MOST_DIGITS:
        return pa.decimal128(inner.precision, inner.scale or 0), Decimal
    if kind is dt.datetime:
        return pa.timestamp("us", "UTC" if getattr(inner, "timezone", False) else None), _itself
    if kind in _TYPES:
        return _TYPES[kind], _itself
    return (None, _itself) if kind is Any else (pa.string(), _text)


_TYPES = {
    bool: pa.bool_(),
    int: pa.int64(),
    float: pa.float64(),
    str: pa.string(),
    bytes: pa.binary(),
    dt.date: pa.date32(),
    dt.time: pa.time64("us"),
    dt.timedelta: pa.duration("us"),
}


def _itself(value: Any) -> Any:
    return value


def _text(value: Any) -> str:
    simple = plain(value)
    return simple if isinstance(simple, str) else json_text(simple)
