"""Stands in for connections of psycopg, in both worlds."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import pq, sql
from sqlalchemy.util import greenlet_spawn

from ..errors import SandboxError
from .copying import AsyncCopy, Copy
from .stand_in import AsyncCursor, AsyncDriver, AsyncStandIn, Cursor, StandIn

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from typing import Self

    from .logical import LogicalConnection

_LYING_COMMIT = (
    "the transaction was rolled back, not committed: an earlier error had aborted it, and that error was swallowed"
)


class PsycopgCursor(Cursor):
    """
    A cursor on the shared psycopg connection.
    """

    def execute(self, operation: Any, parameters: Any = None, **options: Any) -> Any:
        if self._options.get("declares"):
            inside = self.connection.opens_transaction("") or self.connection.logical.in_transaction
            if not inside:
                raise psycopg.errors.NoActiveSqlTransaction("DECLARE CURSOR can only be used in transaction blocks")
        return super().execute(operation, parameters, **options)

    def stream(self, query: Any, params: Any = None, **options: Any) -> Iterator[Any]:
        """
        Run a statement and give its rows; they are all there before the first one is given.
        """
        options.pop("size", None)
        self.execute(query, params, **options)
        yield from self

    def copy(self, statement: Any, params: Any = None, **options: Any) -> Copy:
        """
        Run a COPY when the block ends (FROM STDIN) or begins (TO STDOUT).
        """
        return Copy(self, statement, params)

    def scroll(self, value: int, mode: str = "relative") -> None:
        """
        Skip rows, forwards.
        """
        if mode != "relative" or value < 0:
            raise psycopg.NotSupportedError("in the sandbox cursors go forwards only")
        self.fetchmany(value)


class _Protocol:
    """
    Libpq's connection, with the transaction status of the stand-in.
    """

    socket = -1
    """Nobody may look whether there is something to read: it would be the answer to another's statement."""

    def __init__(self, stand_in: PsycopgStandIn) -> None:
        self._stand_in = stand_in

    @property
    def transaction_status(self) -> pq.TransactionStatus:
        if self._stand_in.closed:
            return pq.TransactionStatus.UNKNOWN
        return pq.TransactionStatus(self._stand_in.logical.status)

    @property
    def status(self) -> int:
        return int(self._stand_in.is_closed_here or self._stand_in.real.pgconn.status)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stand_in.real.pgconn, name)


class _Info:
    """
    What psycopg tells of a connection, with the transaction status of the stand-in.
    """

    def __init__(self, stand_in: PsycopgStandIn) -> None:
        self._stand_in = stand_in

    @property
    def transaction_status(self) -> pq.TransactionStatus:
        return pq.TransactionStatus(self._stand_in.logical.status)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stand_in.real.info, name)


class PsycopgStandIn(StandIn):
    """
    Stands in for a `psycopg.Connection`, Stillroom's own included.

    Attributes:
        autocommit: The driver begins no transaction by itself.
        begin_once: How the next one begins instead.
        after_begin: What follows the next BEGIN.
    """

    cursor_class = PsycopgCursor

    begin_once: bytes | None = None
    after_begin: tuple[bytes, ...] = ()
    isolation_level: Any = None
    read_only: Any = None
    deferrable: Any = None
    row_factory: Any = None
    cursor_factory: Any = None
    server_cursor_factory: Any = None
    prepare_threshold: Any = 5

    def __init__(self, logical: LogicalConnection, dialect: Any) -> None:
        super().__init__(logical, dialect)
        self.lock = threading.Lock()
        self.info = _Info(self)
        self._protocol = _Protocol(self)
        self._blocks = 0
        self.autocommit = False
        self._begin = b""

    @property
    def begin(self) -> bytes:
        """
        How Stillroom's connections begin a transaction; empty for not at all.
        """
        return self._begin

    @begin.setter
    def begin(self, value: bytes) -> None:
        if value and not self._begin:
            self.autocommit = True  # Stillroom's writers ask for it when they connect, which this did not
        self._begin = value

    @property
    def pgconn(self) -> Any:
        """
        Libpq's connection, with the status of the logical transaction.
        """
        # When psycopg looks up a type, it opens a block and puts a cursor of its own upon this connection.
        return self.real.pgconn if self._blocks else self._protocol

    def wait(self, steps: Any, *_: object, **__: object) -> Any:
        """
        Take the steps of one of the driver's own cursors.
        """
        shared = self.logical.shared
        return self.logical.run(lambda: shared.read(lambda: self.real.wait(steps), [], keep=True))

    @property
    def __class__(self) -> Any:
        # psycopg asks `isinstance` before it looks up types.
        return psycopg.Connection

    @__class__.setter
    def __class__(self, value: Any) -> None:
        raise AttributeError("the class of a stand-in cannot be changed")

    def text_of(self, operation: Any) -> str:
        if isinstance(operation, sql.Composable):
            return operation.as_string(None)
        return super().text_of(operation)

    @property
    def closed(self) -> bool:
        """
        Whether it was closed, or the real connection is gone.
        """
        if self.is_closed_here:
            return True
        server = self.logical.shared.server
        return server is not None and bool(server.connection.closed)

    @property
    def broken(self) -> bool:
        """
        Whether the real connection is gone.
        """
        return not self.is_closed_here and self.closed

    def opens_transaction(self, text: str) -> bool:
        if self.logical.in_transaction:
            return False
        if not self.autocommit:
            if self.read_only:
                self.logical.open(read_only=True)
            return True
        if self.needs_begin():
            self.open_transaction()
        return False

    def needs_begin(self) -> bool:
        """
        Say whether the next statement takes BEGIN along.
        """
        return self.autocommit and bool(self.begin or self.begin_once) and not self.logical.in_transaction

    def take_opening(self) -> tuple[bytes, ...]:
        """
        Return how the next transaction begins, which is then taken as done.
        """
        opening = (self.begin_once or self.begin, *self.after_begin)
        self.begin_once = None
        self.after_begin = ()
        return opening

    def open_transaction(self) -> None:
        """
        Begin a transaction, if one is due.
        """
        if self.needs_begin():
            for command in self.take_opening():
                self.logical.execute(command.decode(), lambda: None, opens=False)

    def commit(self) -> None:
        if self.logical.status == pq.TransactionStatus.INERROR:
            self.rollback()
            if self.begin:
                raise psycopg.errors.InFailedSqlTransaction(_LYING_COMMIT)
            return
        super().commit()

    def cursor(self, *arguments: Any, **options: Any) -> Any:
        """
        Make a cursor. One with a name holds all of its rows too: at the server it would end with a savepoint.
        """
        self.require_open()
        name = arguments[0] if arguments else options.pop("name", "")
        for option in ("scrollable", "withhold"):
            if options.pop(option, False) and option == "withhold":
                name = ""
        if name:
            options["declares"] = True
        return self.cursor_class(self, options)

    def real_cursor(self, options: dict[str, Any]) -> Any:
        factory = options.get("row_factory") or self.row_factory
        binary = options.get("binary", False)
        real = self.real
        # Not the connection's own factory, which would begin transactions.
        return (
            psycopg.Cursor(real, row_factory=factory) if not binary else real.cursor(binary=True, row_factory=factory)
        )

    @contextlib.contextmanager
    def transaction(self, savepoint_name: str | None = None, *, force_rollback: bool = False) -> Iterator[Any]:
        """
        Run the block in a transaction, or in a savepoint where one is open.
        """
        self.open_transaction()
        outer = not self.logical.in_transaction
        if outer:
            self.logical.open()
        name = savepoint_name or "psycopg_block"
        if not outer or savepoint_name:
            self.execute(f"SAVEPOINT {name}")
        self._blocks += 1
        try:
            yield self
        except BaseException as error:
            self._blocks -= 1
            self._leave(name, outer=outer, commit=False)
            if not isinstance(error, psycopg.Rollback):
                raise
        else:
            self._blocks -= 1
            self._leave(name, outer=outer, commit=not force_rollback)

    def _leave(self, name: str, *, outer: bool, commit: bool) -> None:
        if outer:
            (self.logical.commit if commit else self.logical.rollback)()
            return
        if not commit:
            self.execute(f"ROLLBACK TO SAVEPOINT {name}")
        self.execute(f"RELEASE SAVEPOINT {name}")

    @contextlib.contextmanager
    def pipeline(self) -> Iterator[Any]:
        """
        Run the block; its statements are sent one by one.
        """
        yield _Pipeline()

    def set_autocommit(self, value: bool) -> None:  # noqa: FBT001  # the driver's signature
        """
        Same as setting `autocommit`.
        """
        self.autocommit = value

    def set_isolation_level(self, value: Any) -> None:
        """
        Same as setting `isolation_level`.
        """
        self.isolation_level = value

    def set_read_only(self, value: Any) -> None:
        """
        Same as setting `read_only`.
        """
        self.read_only = value

    def set_deferrable(self, value: Any) -> None:
        """
        Same as setting `deferrable`.
        """
        self.deferrable = value

    def add_notice_handler(self, callback: Any) -> None:
        """
        Call `callback` for notices of the server, once for all stand-ins.
        """
        server = self.logical.shared.server
        known = vars(server).setdefault("notice_handlers", set())
        if callback not in known:
            known.add(callback)
            self.real.add_notice_handler(callback)

    def notifies(self, *_: object, **__: object) -> Any:
        """
        Refuse: notifications are sent at COMMIT.
        """
        raise SandboxError('notifications are sent at COMMIT, which never comes here. Use isolation="committed"')

    tpc_begin = tpc_prepare = notifies

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        (self.commit if kind is None else self.rollback)()
        self.close()


class _Pipeline:
    """
    A pipeline that sends nothing later.
    """

    def sync(self) -> None:
        """
        Do nothing: all is done.
        """


class PsycopgAsyncCursor(AsyncCursor):
    """
    Same as `PsycopgCursor`, but for asyncio.
    """

    @contextlib.asynccontextmanager
    async def copy(self, statement: Any, params: Any = None, **options: Any) -> AsyncIterator[AsyncCopy]:
        """
        Same as `PsycopgCursor.copy`, but for asyncio.
        """
        async with AsyncCopy(self._cursor.copy(statement, params)) as copy:
            yield copy

    async def stream(self, query: Any, params: Any = None, **options: Any) -> AsyncIterator[Any]:
        """
        Same as `PsycopgCursor.stream`, but for asyncio.
        """
        await self.execute(query, params, **options)
        async for row in self:
            yield row


class PsycopgDriver(AsyncDriver):
    """
    Stands in for a `psycopg.AsyncConnection`.
    """

    awaited = AsyncDriver.awaited | {
        *("set_autocommit", "set_isolation_level", "set_read_only", "set_deferrable", "open_transaction"),
    }

    @property
    def __class__(self) -> Any:
        return psycopg.AsyncConnection

    @__class__.setter
    def __class__(self, value: Any) -> None:
        raise AttributeError("the class of a stand-in cannot be changed")

    def __init__(self, stand_in: StandIn) -> None:
        super().__init__(stand_in)
        object.__setattr__(self, "lock", asyncio.Lock())

    async def wait(self, steps: Any, *_: object, **__: object) -> Any:
        """
        Same as `PsycopgStandIn.wait`, but for asyncio.
        """
        return await greenlet_spawn(self.stand_in.wait, steps)

    def cursor(self, *arguments: Any, **options: Any) -> Any:
        return PsycopgAsyncCursor(self.stand_in.cursor(*arguments, **options))

    @contextlib.asynccontextmanager
    async def transaction(self, *arguments: Any, **options: Any) -> AsyncIterator[Any]:
        """
        Same as `PsycopgStandIn.transaction`, but for asyncio.
        """
        block = self.stand_in.transaction(*arguments, **options)
        await greenlet_spawn(block.__enter__)
        try:
            yield self
        except BaseException as error:
            if not await greenlet_spawn(block.__exit__, type(error), error, error.__traceback__):
                raise
        else:
            await greenlet_spawn(block.__exit__, None, None, None)

    @contextlib.asynccontextmanager
    async def pipeline(self) -> AsyncIterator[Any]:
        """
        Same as `PsycopgStandIn.pipeline`, but for asyncio.
        """
        yield _Pipeline()


class PsycopgAsyncStandIn(AsyncStandIn, PsycopgStandIn):
    """
    Stands in for the connection of psycopg for asyncio, as SQLAlchemy adapts it.
    """

    driver_class = PsycopgDriver

    @property
    def __class__(self) -> Any:
        return PsycopgAsyncStandIn

    @__class__.setter
    def __class__(self, value: Any) -> None:
        raise AttributeError("the class of a stand-in cannot be changed")
