"""COPY through psycopg in the sandbox: all of it at once, so that others can use the connection meanwhile."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from sqlalchemy.util import greenlet_spawn

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from typing import Self

    from .psycopg import PsycopgCursor


_TO_STDOUT = re.compile(r"\bto\s+stdout\b", re.IGNORECASE)


class Copy:
    """
    A COPY whose data are kept until it runs, in one piece: meanwhile others can use the connection.

    Args:
        cursor: The cursor.
        statement: The COPY.
        params: Its parameters.
    """

    def __init__(self, cursor: PsycopgCursor, statement: Any, params: Any) -> None:
        self.cursor = cursor
        self.statement = statement
        self.params = params
        self._steps: list[tuple[str, Any]] = []
        self._rows: list[Any] = []
        self._blocks: list[Any] = []
        self._types: Any = None
        self._text = cursor.connection.text_of(statement)
        self._reads = _TO_STDOUT.search(self._text) is not None
        self._has_run = False

    def set_types(self, types: Any) -> None:
        """
        Set the types of the columns.
        """
        self._types = types

    def write(self, buffer: Any) -> None:
        """
        Send a piece of data.
        """
        self._steps.append(("write", bytes(buffer) if isinstance(buffer, bytearray | memoryview) else buffer))

    def write_row(self, row: Any) -> None:
        """
        Send a row.
        """
        self._steps.append(("write_row", tuple(row)))

    def read(self) -> Any:
        """
        Return the next piece of data; empty after the last one.
        """
        self._load()
        return self._blocks.pop(0) if self._blocks else b""

    def __iter__(self) -> Iterator[Any]:
        self._load()
        while self._blocks:
            yield self._blocks.pop(0)

    def read_row(self) -> Any:
        """
        Return the next row; None after the last one.
        """
        self._load(rows=True)
        return self._rows.pop(0) if self._rows else None

    def rows(self) -> Iterator[Any]:
        """
        Give the rows.
        """
        while (row := self.read_row()) is not None:
            yield row

    def finish(self) -> None:
        """
        Run the COPY with what was given.
        """
        if not self._reads:
            self._run(self._write)

    def _load(self, *, rows: bool = False) -> None:
        if self._reads and not self._has_run:
            self._run(lambda copy: self._read(copy, rows=rows))

    def _write(self, copy: Any) -> None:
        for method, data in self._steps:
            getattr(copy, method)(data)

    def _read(self, copy: Any, *, rows: bool) -> None:
        if rows:
            self._rows = list(copy.rows())
        else:
            self._blocks = [bytes(block) if isinstance(block, memoryview) else block for block in copy]

    def _run(self, work: Callable[[Any], None]) -> None:
        self._has_run = True
        cursor = self.cursor

        def call() -> None:
            real = cursor.renewed()
            with real.copy(self.statement, self.params) as copy:
                if self._types is not None:
                    copy.set_types(self._types)
                work(copy)

        cursor.run_text(self._text, call)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.finish()


class AsyncCopy:
    """
    Same as `Copy`, but for asyncio.

    Args:
        copy: The COPY.
    """

    def __init__(self, copy: Copy) -> None:
        self._copy = copy

    def set_types(self, types: Any) -> None:
        """
        Same as `Copy.set_types`.
        """
        self._copy.set_types(types)

    async def write(self, buffer: Any) -> None:
        """
        Same as `Copy.write`, but for asyncio.
        """
        self._copy.write(buffer)

    async def write_row(self, row: Any) -> None:
        """
        Same as `Copy.write_row`, but for asyncio.
        """
        self._copy.write_row(row)

    async def read(self) -> Any:
        """
        Same as `Copy.read`, but for asyncio.
        """
        return await greenlet_spawn(self._copy.read)

    async def __aiter__(self) -> AsyncIterator[Any]:
        while block := await self.read():
            yield block

    async def read_row(self) -> Any:
        """
        Same as `Copy.read_row`, but for asyncio.
        """
        return await greenlet_spawn(self._copy.read_row)

    async def rows(self) -> AsyncIterator[Any]:
        """
        Same as `Copy.rows`, but for asyncio.
        """
        while (row := await self.read_row()) is not None:
            yield row

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *arguments: object) -> None:
        await greenlet_spawn(self._copy.__exit__, *arguments)
