"""Stands in for a driver's connection and cursor, as SQLAlchemy's dialects and Stillroom's backends use them."""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any

from sqlalchemy.util import await_only, greenlet_spawn

from .running import require_greenlet

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from typing import Self

    from .logical import LogicalConnection


class Cursor:
    """
    A cursor on the shared connection; it holds all rows of its statement, so that others can go on.

    Args:
        connection: The stand-in that it belongs to.
        options: What the driver's own cursor is made with.

    Attributes:
        server_side: In production its rows would be fetched from the server one after the other.
    """

    def __init__(self, connection: StandIn, options: dict[str, Any]) -> None:
        self.connection = connection
        self.server_side = False
        self.arraysize = 1
        self._options = options
        self._real: Any = None
        self._rows: deque[Any] = deque()
        self._answer: tuple[Any, ...] | None = None
        self._rest: list[Any] = []

    # --- statements

    def execute(self, operation: Any, parameters: Any = None, **options: Any) -> Any:
        """
        Run a statement, or do what it stands for.
        """
        arguments = (operation,) if parameters is None else (operation, parameters)
        self._run("execute", arguments, options)
        return self

    def executemany(self, operation: Any, seq_of_parameters: Any, **options: Any) -> Any:
        """
        Run a statement for each of several sets of parameters.
        """
        self._run("executemany", (operation, seq_of_parameters), options)
        return self

    def callproc(self, procname: str, parameters: Any = ()) -> Any:
        """
        Call a stored procedure.
        """
        return self._statement("CALL", lambda: self._sent("callproc", (procname, parameters), {}))

    def _run(self, method: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
        text = self.connection.text_of(arguments[0])
        parameters = arguments[1] if method == "execute" and len(arguments) > 1 else ()
        answer = self._statement(text, partial(self._sent, method, arguments, options), parameters)
        if answer is not self:
            self._forget()
            if answer is not None:
                self._answer = answer
                self._rows.append(answer)

    def _statement(self, text: str, call: Callable[[], Any], parameters: Any = ()) -> Any:
        connection = self.connection
        connection.require_open()
        connection.require_greenlet()
        try:
            opens = connection.opens_transaction(text)
            return connection.logical.execute(text, call, opens=opens, parameters=parameters)
        except Exception as error:
            if (other := connection.translated(error)) is not error:
                raise other from error
            raise

    def run_text(self, text: str, call: Callable[[], Any]) -> None:
        """
        Run what sends the statement `text` by other means than the cursor's methods.
        """
        self._statement(text, call)

    def renewed(self) -> Any:
        """
        Return a new cursor of the driver, which is the source of what is known of the result; inside an operation.
        """
        self._forget()
        self._real = self.connection.real_cursor(self._options)
        return self._real

    def _sent(self, method: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """
        Run a method of the driver's cursor, and take its rows; inside an operation.
        """
        real = self.renewed()
        real.arraysize = self.arraysize
        result = getattr(real, method)(*arguments, **options)
        self._take_rows()
        return result if method == "callproc" else self

    def _take_rows(self) -> None:
        if self._real.description is not None:
            self._rows = deque(self._real.fetchall())

    def _forget(self) -> None:
        self._rows = deque()
        self._answer = None
        real, self._real = self._real, None
        if real is not None:
            self.connection.dispose_cursor(real)

    # --- what is known of the result

    @property
    def description(self) -> Any:
        if self._real is not None:
            return self._real.description
        return [("value", None, None, None, None, None, None)] if self._answer is not None else None

    @property
    def rowcount(self) -> int:
        return int(self._real.rowcount) if self._real is not None else -1

    @property
    def lastrowid(self) -> Any:
        return getattr(self._real, "lastrowid", None)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or self._real is None:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(self._real, name)

    # --- rows

    def _fetched(self) -> deque[Any]:
        """
        Return the rows that are left, where the driver could get them.
        """
        if self.server_side:
            self.connection.require_greenlet()
        return self._rows

    def fetchone(self) -> Any:
        """
        Return the next row; None after the last one.
        """
        rows = self._fetched()
        return rows.popleft() if rows else None

    def fetchmany(self, size: int | None = None) -> list[Any]:
        """
        Return the next rows, `arraysize` of them where no size is given.
        """
        rows = self._fetched()
        return [rows.popleft() for _ in range(min(size or self.arraysize, len(rows)))]

    def fetchall(self) -> list[Any]:
        """
        Return the rows that are left.
        """
        rows, self._rows = self._fetched(), deque()
        return list(rows)

    def __iter__(self) -> Iterator[Any]:
        while rows := self._fetched():
            yield rows.popleft()

    def __next__(self) -> Any:
        rows = self._fetched()
        if not rows:
            raise StopIteration
        return rows.popleft()

    def nextset(self) -> Any:
        """
        Go to the next result of a statement that has several.
        """
        if self._real is None:
            return None
        return self.connection.logical.run(self._next_result)

    def _next_result(self) -> Any:
        self._rows = deque()
        found = self._real.nextset()
        if found:
            self._take_rows()
        return found

    def setinputsizes(self, *sizes: Any) -> None:
        """
        Do nothing, as the drivers do.
        """

    def setoutputsize(self, *sizes: Any) -> None:
        """
        Do nothing, as the drivers do.
        """

    def close(self) -> None:
        """
        Let go of the rows.
        """
        self._rows.clear()

    async def _async_soft_close(self) -> None:
        """
        Do nothing: the rows are here already. SQLAlchemy awaits it.
        """

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class StandIn:
    """
    Stands in for a connection; a driver's own peculiarities are in subclasses.

    Args:
        logical: What it does in the shared transaction.
        dialect: SQLAlchemy's dialect.
    """

    cursor_class: type[Cursor] = Cursor

    def __init__(self, logical: LogicalConnection, dialect: Any) -> None:
        self.logical = logical
        self.dialect = dialect
        self.dbapi = dialect.loaded_dbapi
        self.is_closed_here = False
        self._driver: AsyncDriver | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} in the sandbox of {self.logical.shared.name!r}>"

    # --- what subclasses say

    def text_of(self, operation: Any) -> str:
        """
        Return the text of what a cursor is to execute.
        """
        return operation.decode() if isinstance(operation, bytes) else str(operation)

    def opens_transaction(self, text: str) -> bool:
        """
        Say whether a statement outside of a transaction begins one.
        """
        raise NotImplementedError

    def real_cursor(self, options: dict[str, Any]) -> Any:
        """
        Make a cursor of the driver; inside an operation.
        """
        return self.real.cursor(**options)

    def dispose_cursor(self, cursor: Any) -> None:
        """
        Close a cursor of the driver.
        """
        cursor.close()

    def translated(self, error: Exception) -> Exception:
        """
        Return an error of the shared connection's driver as one of the driver that this stands in for.
        """
        return error

    # --- the DBAPI

    @property
    def real(self) -> Any:
        """
        The driver's own connection.
        """
        shared = self.logical.shared
        server = shared.server
        if server is None:
            server = self.logical.run(shared.real) if not shared.runner.is_inside else shared.real()
        return server.connection

    def require_open(self) -> None:
        """
        Refuse the use of a connection that was closed.
        """
        if self.is_closed_here:
            raise self.dbapi.InterfaceError("the connection is closed")

    def require_greenlet(self) -> None:
        """
        Refuse what the driver would await where nothing can be awaited; a synchronous driver awaits nothing.
        """

    def cursor(self, *arguments: Any, **options: Any) -> Any:
        """
        Make a cursor.
        """
        self.require_open()
        return self.cursor_class(self, {})

    def execute(self, operation: Any, *arguments: Any, **options: Any) -> Any:
        """
        Run a statement with a new cursor, which is returned.
        """
        cursor = self.cursor()
        cursor.execute(operation, *arguments, **options)
        return cursor

    def commit(self) -> None:
        """
        Commit, as far as the test goes.
        """
        self.require_open()
        self.require_greenlet()
        self.logical.commit()

    def rollback(self) -> None:
        """
        Undo what was written since the last commit.
        """
        self.require_greenlet()
        self.logical.rollback()

    def close(self) -> None:
        """
        Roll back and refuse further use; the real connection stays.
        """
        self.is_closed_here = True
        self.logical.rollback()

    def terminate(self) -> None:
        """
        Same as `close`.
        """
        self.close()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name in ("logical", "driver_connection"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(self.real, name)


class AsyncStandIn(StandIn):
    """
    Stands in for the connection that SQLAlchemy adapts from an asynchronous driver.
    """

    driver_class: type[AsyncDriver]

    await_ = staticmethod(await_only)
    # Not for `close`: the sandbox and the garbage collector do that anywhere.
    require_greenlet = staticmethod(require_greenlet)

    def cursor(self, *arguments: Any, **options: Any) -> Any:
        cursor = super().cursor(*arguments, **options)
        cursor.server_side = bool(arguments or options.get("server_side"))
        return cursor

    @property
    def driver_connection(self) -> Any:
        """
        What stands in for the asynchronous driver's own connection.
        """
        if self._driver is None:
            self._driver = self.driver_class(self)
        return self._driver

    # SQLAlchemy's dialects ask for it by this name.
    _connection = driver_connection

    def run_async(self, function: Callable[[Any], Any]) -> Any:
        """
        Await what `function` returns for the driver's connection.
        """
        return await_only(function(self.driver_connection))


class AsyncDriver:
    """
    Stands in for the connection of an asynchronous driver: the stand-in's methods, to be awaited.

    Args:
        stand_in: The stand-in for the adapted connection.
    """

    awaited = frozenset({"commit", "rollback", "execute", "executemany"})
    """The names of the methods that are coroutines."""

    def __init__(self, stand_in: StandIn) -> None:
        object.__setattr__(self, "stand_in", stand_in)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.stand_in, name)
        if name not in self.awaited:
            return found

        async def method(*arguments: Any, **options: Any) -> Any:
            result = await greenlet_spawn(found, *arguments, **options)
            return AsyncCursor(result) if isinstance(result, Cursor) else result

        return method

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.stand_in, name, value)

    def cursor(self, *arguments: Any, **options: Any) -> Any:
        """
        Make a cursor whose methods are awaited.
        """
        return AsyncCursor(self.stand_in.cursor(*arguments, **options))

    async def close(self) -> None:
        """
        Same as the stand-in's.
        """
        await greenlet_spawn(self.stand_in.close)


class AsyncCursor:
    """
    Same as `Cursor`, but for asyncio.

    Args:
        cursor: The cursor whose methods are awaited.
    """

    def __init__(self, cursor: Any) -> None:
        self._cursor = cursor
        cursor.server_side = False  # its rows are awaited already

    async def execute(self, operation: Any, parameters: Any = None, **options: Any) -> Self:
        """
        Same as `Cursor.execute`, but for asyncio.
        """
        await greenlet_spawn(self._cursor.execute, operation, parameters, **options)
        return self

    async def executemany(self, operation: Any, seq_of_parameters: Any, **options: Any) -> Self:
        """
        Same as `Cursor.executemany`, but for asyncio.
        """
        await greenlet_spawn(self._cursor.executemany, operation, seq_of_parameters, **options)
        return self

    async def fetchone(self) -> Any:
        """
        Same as `Cursor.fetchone`, but for asyncio.
        """
        return self._cursor.fetchone()

    async def fetchmany(self, size: int | None = None) -> list[Any]:
        """
        Same as `Cursor.fetchmany`, but for asyncio.
        """
        return list(self._cursor.fetchmany(size))

    async def fetchall(self) -> list[Any]:
        """
        Same as `Cursor.fetchall`, but for asyncio.
        """
        return list(self._cursor.fetchall())

    async def close(self) -> None:
        """
        Same as `Cursor.close`, but for asyncio.
        """
        self._cursor.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cursor, name)

    async def __aiter__(self) -> AsyncIterator[Any]:
        for row in self._cursor:
            yield row

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
