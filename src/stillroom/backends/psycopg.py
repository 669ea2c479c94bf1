"""BEGIN without a round trip of its own: psycopg connections that send it together with the first statement."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.pq import TransactionStatus

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator

_IDLE = TransactionStatus.IDLE
_IN_ERROR = TransactionStatus.INERROR
_LYING_COMMIT = (
    "the transaction was rolled back, not committed: an earlier error had aborted it, and that error was swallowed"
)


class _Beginning:
    """
    When and how a connection begins a transaction. Shared by the sync and the async connection.

    The driver is in autocommit mode, so it sends no BEGIN itself; the first statement outside a transaction takes
    `begin` along in one network message (pipeline mode, PostgreSQL's extended query protocol).

    Attributes:
        begin: How each transaction begins; empty: no transaction, each statement commits by itself.
        begin_once: How the next transaction begins instead.
        after_begin: What goes along after the next BEGIN (SET LOCAL ...).
    """

    begin: bytes = b""
    begin_once: bytes | None = None
    after_begin: tuple[bytes, ...] = ()
    autocommit: Any
    pgconn: Any

    def needs_begin(self) -> bool:
        return (
            bool(self.begin or self.begin_once)
            and self.pgconn.transaction_status == _IDLE
            # SQLAlchemy switches the driver's autocommit off when the user sets `isolation_level` on a connection.
            and self.autocommit
        )

    def take_opening(self) -> tuple[bytes, ...]:
        opening = (self.begin_once or self.begin, *self.after_begin)
        self.begin_once = None
        self.after_begin = ()
        return opening

    def enqueue_opening(self, pipeline: Any) -> None:
        # As the driver queues its own COMMIT in a pipeline: a command, and a result that is only checked.
        opening = self.take_opening()
        queue, send = pipeline.command_queue, self.pgconn.send_query_params

        def send_all() -> None:
            for command in opening:
                send(command, None)
            while queue:  # the statement, which the driver has queued meanwhile: both go out as one packet
                queue.popleft()()

        queue.append(send_all)
        pipeline.result_queue.extend([None] * len(opening))


def _end_with_sync(pipeline: Any) -> None:
    """
    Keep the driver from sending a Flush behind the Sync that ends a pipeline.

    The server takes any message as a sign that the client goes on, and stops its clock of
    idle_in_transaction_session_timeout; after a Flush it does not start it again.
    """
    if (fetch := getattr(pipeline, "_fetch_gen", None)) is not None:
        pipeline._fetch_gen = lambda **_: fetch(flush=False)  # noqa: SLF001  # no public switch


class Connection(_Beginning, psycopg.Connection[Any]):
    """
    A psycopg connection whose BEGIN travels with the first statement, and whose COMMIT does not lie.
    """

    def commit(self) -> None:
        if self.pgconn.transaction_status == _IN_ERROR:
            super().rollback()
            raise psycopg.errors.InFailedSqlTransaction(_LYING_COMMIT)
        super().commit()

    def open_transaction(self) -> None:
        if self.needs_begin():
            for command in self.take_opening():
                psycopg.Cursor(self).execute(command)


class Cursor(psycopg.Cursor[Any]):
    """
    A cursor that brings BEGIN along where one is due.
    """

    def execute(self, query: Any, params: Any = None, **options: Any) -> Any:
        connection: Any = self.connection
        if connection.pgconn.transaction_status != _IDLE or not connection.needs_begin():
            return super().execute(query, params, **options)
        with connection.pipeline() as pipeline:
            connection.enqueue_opening(pipeline)
            super().execute(query, params, **options)
            _end_with_sync(pipeline)
        pipeline.__dict__.pop("_fetch_gen", None)  # a pipeline that refers to itself waits for the garbage collector
        return self

    def executemany(self, query: Any, params_seq: Iterable[Any], *, returning: bool = False) -> None:
        connection: Any = self.connection
        connection.open_transaction()
        super().executemany(query, params_seq, returning=returning)

    def copy(self, statement: Any, params: Any = None, **options: Any) -> Any:
        connection: Any = self.connection
        connection.open_transaction()
        return super().copy(statement, params, **options)

    def stream(self, query: Any, params: Any = None, **options: Any) -> Iterator[Any]:
        connection: Any = self.connection
        connection.open_transaction()
        yield from super().stream(query, params, **options)


class ServerCursor(psycopg.ServerCursor[Any]):
    """
    A server-side cursor, which lives in a transaction only.
    """

    def execute(self, query: Any, params: Any = None, **options: Any) -> Any:
        connection: Any = self.connection
        connection.open_transaction()
        return super().execute(query, params, **options)


class AsyncConnection(_Beginning, psycopg.AsyncConnection[Any]):
    """
    Same as `Connection`, but for asyncio.
    """

    async def commit(self) -> None:
        if self.pgconn.transaction_status == _IN_ERROR:
            await super().rollback()
            raise psycopg.errors.InFailedSqlTransaction(_LYING_COMMIT)
        await super().commit()

    async def open_transaction(self) -> None:
        if self.needs_begin():
            for command in self.take_opening():
                await psycopg.AsyncCursor(self).execute(command)


class AsyncCursor(psycopg.AsyncCursor[Any]):
    """
    Same as `Cursor`, but for asyncio.
    """

    async def execute(self, query: Any, params: Any = None, **options: Any) -> Any:
        connection: Any = self.connection
        if connection.pgconn.transaction_status != _IDLE or not connection.needs_begin():
            return await super().execute(query, params, **options)
        async with connection.pipeline() as pipeline:
            connection.enqueue_opening(pipeline)
            await super().execute(query, params, **options)
            _end_with_sync(pipeline)
        pipeline.__dict__.pop("_fetch_gen", None)
        return self

    async def executemany(self, query: Any, params_seq: Iterable[Any], *, returning: bool = False) -> None:
        connection: Any = self.connection
        await connection.open_transaction()
        await super().executemany(query, params_seq, returning=returning)

    @contextlib.asynccontextmanager
    async def copy(self, statement: Any, params: Any = None, **options: Any) -> AsyncIterator[Any]:
        connection: Any = self.connection
        await connection.open_transaction()
        async with super().copy(statement, params, **options) as copy:
            yield copy

    async def stream(self, query: Any, params: Any = None, **options: Any) -> AsyncIterator[Any]:
        connection: Any = self.connection
        await connection.open_transaction()
        async for row in super().stream(query, params, **options):
            yield row


class AsyncServerCursor(psycopg.AsyncServerCursor[Any]):
    """
    Same as `ServerCursor`, but for asyncio.
    """

    async def execute(self, query: Any, params: Any = None, **options: Any) -> Any:
        connection: Any = self.connection
        await connection.open_transaction()
        return await super().execute(query, params, **options)
