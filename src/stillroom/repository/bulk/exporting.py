"""Rows written to a file, and read back from one, in constant memory."""

from __future__ import annotations

import contextlib
import os
from itertools import count
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from uuid import uuid4

import msgspec
from sqlalchemy import Select
from sqlalchemy.types import NullType

from ...sessions import ReaderSession, may_narrow
from ..results.rows import selection
from . import formats
from .batches import bad_row, writable
from .formats import Format

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from sqlalchemy.engine import Result
    from sqlalchemy.orm import Session

    from ..plan import Plan
    from ..query import Query

__all__ = ["Format", "export", "exported"]

_BATCH = 1000
"""How many rows are fetched and written at a time."""


def export(
    session: Session, plan: Plan, target: str | os.PathLike[str] | IO[bytes], query: Query, format_: Format | None
) -> int:
    """
    Write the rows that fit to a file, and return how many.

    Raises:
        ValueError: The format is not known, or two columns have one name.
        MissingExtra: The format needs pyarrow, which is not installed.
    """
    chosen = formats.format_of(target, format_)
    statement = selection(plan, query)
    types = [each.type for each in statement.selected_columns] if isinstance(statement, Select) else None
    written = 0
    with _streamed(session, plan, statement) as result, _opened(target) as file:
        names = tuple(result.keys())
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(
                f"several columns are named {', '.join(map(repr, twice))}; give them names of their own (AS)"
            )
        writer = formats.writer(chosen, file, names, types or [NullType()] * len(names))
        for rows in result.partitions(_BATCH):
            writer.write(rows)
            written += len(rows)
        writer.close()
    return written


@contextlib.contextmanager
def _streamed(session: Session, plan: Plan, statement: Any) -> Iterator[Result[Any]]:
    if isinstance(session, ReaderSession):
        session = session(snapshot=True)  # a cursor lives in a transaction, and the statements of a reader have none
    where = {"mapper": plan.mapper}
    options = {"yield_per": _BATCH}
    if session.autoflush:
        session.flush()
    if may_narrow(session):
        result = session.execute(statement, bind_arguments=where, execution_options=options)
    else:
        result = session.connection(bind_arguments=where).execute(statement, execution_options=options)
    with contextlib.closing(result):
        yield result


@contextlib.contextmanager
def _opened(target: str | os.PathLike[str] | IO[bytes]) -> Iterator[IO[bytes]]:
    """
    Open a file that gets its name only when it is whole.
    """
    if not isinstance(target, str | os.PathLike):
        yield target
        return
    path = Path(target)
    beside = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        with beside.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def exported(
    plan: Plan, source: str | os.PathLike[str] | IO[bytes], format_: Format | None
) -> Generator[dict[str, Any]]:
    """
    Read rows from a file that an export wrote, or that another program wrote in its form.

    Raises:
        BadRow: A row of the file cannot be read, or a value is not what the model's column holds.
    """
    chosen = formats.format_of(source, format_)
    conversions = {
        name: convert
        for name, column in writable(plan).items()
        if (convert := formats.from_file(chosen, column.type)) is not None
    }
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(Path(source).open("rb")) if isinstance(source, str | os.PathLike) else source
        rows = formats.reader(chosen, file)
        for number in count(1):
            name = None
            try:
                row = next(rows, None)
                if row is None:
                    return
                for name in row.keys() & conversions.keys():
                    row[name] = conversions[name](row[name])
            except (msgspec.MsgspecError, ValueError) as error:
                raise bad_row(plan.model, number, error, name) from error
            yield row
