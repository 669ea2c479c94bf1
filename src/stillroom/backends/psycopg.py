"""BEGIN without a round trip of its own: psycopg connections that send it together with the first statement."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import generators
from psycopg.pq import ConnStatus, ExecStatus, TransactionStatus

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Generator, Iterable, Iterator

_OK = ConnStatus.OK
_FINE = (ExecStatus.COMMAND_OK, ExecStatus.PIPELINE_SYNC)
_IDLE = TransactionStatus.IDLE
_IN_ERROR = TransactionStatus.INERROR
_LYING_COMMIT = (
    "the transaction was rolled back, not committed: an earlier error had aborted it, and that error was swallowed"
)


class _Packet(psycopg.Pipeline):
    """
    A pipeline for one exchange: what is queued goes out in one network message, and every answer is awaited.

    No Flush goes behind the Sync that ends it, unlike in the driver's own pipelines. The server takes any message as a
    sign that the client goes on, and stops its clock of idle_in_transaction_session_timeout; after a Flush it does not
    start it again.
    """

    def exchange(self) -> Generator[Any, Any, None]:
        """
        Send what is queued, and await the answers.
        """
        while self.command_queue:
            self.command_queue.popleft()()
        self.pgconn.pipeline_sync()
        self.result_queue.append(None)
        yield from generators.send(self.pgconn)
        failure = None
        while self.result_queue and (results := (yield from generators.fetch_many(self.pgconn))):
            queued = self.result_queue.popleft()
            if queued is None and results[0].status in _FINE:
                continue
            try:
                self._process_results(queued, results)
            except psycopg.Error as error:  # the first one: the server passes over what comes after it
                failure = failure or error
        if failure is not None:
            raise failure

    _communicate_gen = exchange  # the driver's name for it


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
    _read_only: Any
    _deferrable: Any
    pgconn: Any
    _pipeline: Any

    def needs_begin(self) -> bool:
        return (
            self.pgconn.transaction_status == _IDLE
            and bool(self.begin or self.begin_once)
            # SQLAlchemy switches the driver's autocommit off when the user sets `isolation_level` on a connection.
            and self.autocommit
        )

    def take_opening(self) -> tuple[bytes, ...]:
        begin = self.begin_once or self.begin
        # What `postgresql_readonly` and `postgresql_deferrable` in execution options set; the driver would send it.
        if self._read_only or self._deferrable:
            begin += (b" READ ONLY" if self._read_only else b"") + (b" DEFERRABLE" if self._deferrable else b"")
        opening = (begin, *self.after_begin)
        self.begin_once = None
        self.after_begin = ()
        return opening

    def _send_opening(self) -> None:
        for command in self.take_opening():
            self.pgconn.send_query_params(command, None)

    def begins_apart(self, query: Any, params: Any) -> bool:
        """
        Say whether BEGIN cannot go along with a statement: in the user's own pipeline, and with several in one string.
        """
        return bool(self.pgconn.pipeline_status) or (not params and isinstance(query, str) and ";" in query[:-1])

    def beginning(self, statement: Generator[Any, Any, None]) -> Generator[Any, Any, None]:
        """
        Take the steps of a cursor's `statement`, with BEGIN in front of what it sends.
        """
        pgconn: Any = self.pgconn
        connection: Any = self
        pipeline = self._pipeline = _Packet(connection)
        # As the driver queues its own COMMIT in a pipeline: a command, and results that are only checked.
        pipeline.command_queue.append(self._send_opening)
        pipeline.result_queue.extend([None] * (1 + len(self.after_begin)))
        pgconn.enter_pipeline_mode()
        try:
            yield from statement
            if pipeline.command_queue:  # the driver gives up a prepared statement
                yield from pipeline.exchange()
        finally:
            self._pipeline = None  # which refers to the connection in its turn
            if pgconn.status == _OK:
                pgconn.exit_pipeline_mode()


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
            with self.pipeline():
                for command in self.take_opening():
                    psycopg.Cursor(self).execute(command)


class Cursor(psycopg.Cursor[Any]):
    """
    A cursor that brings BEGIN along where one is due.
    """

    __slots__ = ()

    def execute(self, query: Any, params: Any = None, **options: Any) -> Any:
        connection: Any = self.connection
        if not connection.needs_begin():
            return super().execute(query, params, **options)
        if connection.begins_apart(query, params):
            connection.open_transaction()
            return super().execute(query, params, **options)
        with connection.lock:
            connection.wait(connection.beginning(self._execute_gen(query, params, **options)))
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
            async with self.pipeline():
                for command in self.take_opening():
                    await psycopg.AsyncCursor(self).execute(command)


class AsyncCursor(psycopg.AsyncCursor[Any]):
    """
    Same as `Cursor`, but for asyncio.
    """

    __slots__ = ()

    async def execute(self, query: Any, params: Any = None, **options: Any) -> Any:
        connection: Any = self.connection
        if not connection.needs_begin():
            return await super().execute(query, params, **options)
        if connection.begins_apart(query, params):
            await connection.open_transaction()
            return await super().execute(query, params, **options)
        async with connection.lock:
            await connection.wait(connection.beginning(self._execute_gen(query, params, **options)))
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
