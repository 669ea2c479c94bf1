"""ASGI: a unit of work for each request, ended before the response starts; for every framework that speaks it."""

from __future__ import annotations

import asyncio
import inspect
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from .. import context
from ..errors import UnitOfWorkEnded
from .policy import CommitPolicy

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping
    from typing import Self, TypeAlias

    from ..aio import AsyncUnitOfWork
    from ..databases import Databases
    from ..unit_of_work import UnitOfWork

    Message: TypeAlias = MutableMapping[str, Any]
    Scope: TypeAlias = MutableMapping[str, Any]
    Receive: TypeAlias = Callable[[], Awaitable[Message]]
    Send: TypeAlias = Callable[[Message], Awaitable[None]]
    Application: TypeAlias = Callable[[Any, Any, Any], Awaitable[None]]  # each framework has types of its own for them

__all__ = ["KEY", "RequestUnits", "UnitOfWorkMiddleware"]

KEY = "stillroom"
"""The key of the `RequestUnits` in the scope."""
_LAST_WORDS = ("websocket.close", "websocket.http.response.start")
_ENDED = (
    "the unit of work of this request has ended, because its answer has begun; a streaming body or a background task "
    "opens one of its own: `async with dbs.async_unit_of_work() as uow:`"
)


class UnitOfWorkMiddleware:
    """
    Gives each request a unit of work: `scope["state"]["uow"]` (Starlette: `request.state.uow`), and `dbs.current`.

    It ends when the application starts to answer and before a byte of it is sent, so that a failed COMMIT is an error
    for the client; exception handlers of Starlette are asked for the answer. A streaming body and a background task
    come later: they open units of their own. At the end of the lifespan the databases are closed.

    In a thread that was started for the request, as Starlette does for a `def` view, `dbs.current` is a blocking unit
    of work. It ends with the other one, in a thread too.

    Args:
        app: The application.
        databases: The databases.
        policy: When to commit; its veto gets the scope and the message `http.response.start`.
        websocket: "none" opens no unit for a websocket; "message" opens one for the handshake and one for each message,
            which ends before the next message is sent or waited for, so that no connection is held while nothing
            happens.

    Raises:
        ValueError: `websocket` is neither.
    """

    def __init__(
        self,
        app: Application,
        databases: Databases,
        *,
        policy: CommitPolicy | None = None,
        websocket: Literal["none", "message"] = "none",
    ) -> None:
        if websocket not in ("none", "message"):
            raise ValueError(f"websocket={websocket!r}: it is 'none' or 'message'")
        self.app = app
        self.databases = databases
        self.policy = policy or CommitPolicy()
        self.websocket = websocket

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        kind = scope["type"]
        outer = scope.get(KEY)
        if outer is not None and outer.databases is self.databases:  # an application inside another shares its unit
            await self.app(scope, receive, send)
        elif kind == "http":
            await self._answer(scope, receive, send)
        elif kind == "websocket" and self.websocket == "message":
            await self._converse(scope, receive, send)
        elif kind == "lifespan":
            await self._live(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        units = RequestUnits(self.databases, self.policy, scope)
        around = sys.exception()
        receiving = _Receiving(receive, around)
        failure: Exception | None = None

        async def send_after_end(message: Message) -> None:
            nonlocal failure
            if message["type"] == "http.response.start" and not units.ended:
                # Whoever answers while an exception is handled does so instead of the view, which did not return.
                raised = sys.exception()
                try:
                    await units.settle(message, raised if raised is not around else receiving.handled)
                except Exception as error:
                    failure = error
                    raise
            if failure is None:
                await send(message)

        with units:
            await units.open()
            try:
                await self.app(scope, receiving, send_after_end)
            except BaseException as error:
                await units.end(error)
                if failure is None or not isinstance(error, Exception):
                    raise
            else:
                if not units.ended:
                    units.doom("the application gave no answer")
                    await units.end(None)
            if failure is not None:  # also where the application swallowed it: nothing was sent yet
                answer = await _ask_handlers(scope, failure)
                if answer is None:
                    raise failure
                await answer(scope, receive, send)

    async def _converse(self, scope: Scope, receive: Receive, send: Send) -> None:
        units = RequestUnits(self.databases, self.policy, scope)
        around = sys.exception()

        async def receive_in_unit() -> Message:
            await units.end(None)
            message = await receive()
            await units.open()
            return message

        async def send_after_end(message: Message) -> None:
            was_open = not units.ended
            raised = sys.exception()
            if message["type"] in _LAST_WORDS and raised is not None and raised is not around:
                units.doom_for(raised)  # whoever hangs up then does so instead of the endpoint
            await units.end(None)
            await send(message)
            if was_open:
                await units.open()

        with units:
            await units.open()
            try:
                await self.app(scope, receive_in_unit, send_after_end)
            except BaseException as error:
                await units.end(error)
                raise
            await units.end(None)

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_after_close(message: Message) -> None:
            if message["type"] != "lifespan.startup.complete":  # the server ends the event loop when it has the message
                await self.databases.aclose()
            await send(message)

        await self.app(scope, receive, send_after_close)


class _Receiving:
    """
    The `receive` of a request, which knows the exception that is handled by whoever waits in it.

    Starlette sends a streaming answer in a task of its own, and meanwhile waits here for the client to leave: an
    exception that it handles is seen here only.

    Args:
        receive: The server's.
        around: The exception that is handled around the middleware.

    Attributes:
        handled: The exception; None where none is handled, or nobody waits.
    """

    __slots__ = ("_around", "_receive", "handled")

    def __init__(self, receive: Receive, around: BaseException | None) -> None:
        self.handled: BaseException | None = None
        self._receive = receive
        self._around = around

    def __call__(self) -> Awaitable[Message]:
        raised = sys.exception()
        return self._receive() if raised is self._around else self._receive_while(raised)

    async def _receive_while(self, raised: BaseException | None) -> Message:
        self.handled = raised
        try:
            return await self._receive()
        finally:
            self.handled = None


class RequestUnits:
    """
    The units of work of one request: an asynchronous one, and a blocking one for code that runs in a thread.

    A request should write through one of them: where both have written, a failure of the asynchronous COMMIT, the
    later one, cannot undo the other.

    Args:
        databases: The databases.
        policy: When to commit.
        scope: The request's.

    Attributes:
        ended: No unit is open.
    """

    def __init__(self, databases: Databases, policy: CommitPolicy, scope: Scope) -> None:
        self.databases = databases
        self.policy = policy
        self.scope = scope
        self.ended = True
        self._unit: AsyncUnitOfWork | None = None
        self._blocking: UnitOfWork | None = None
        self._outer: tuple[Any, Any] = None, None
        self._state: dict[str, Any] = {}
        self._deciding = threading.Lock()  # never held across SQL

    def __enter__(self) -> Self:
        """
        Be in the scope, which stays the same object: what the application puts there, those around it may read.
        """
        self._state = self.scope.setdefault("state", {})
        self._outer = self.scope.get(KEY), self._state.get("uow")
        self.scope[KEY] = self
        return self

    def __exit__(self, *_: object) -> None:
        # Without the way back from the scope to the units, which would be a cycle.
        self.scope[KEY], self._state["uow"] = self._outer
        if self._unit is not None:
            # It was left where it ended. That was another task if the application answers in one of its own; a task
            # that calls it again and again would keep each of these units, with its request.
            context.leave(self._unit)

    async def open(self) -> None:
        """
        Open the asynchronous unit of work, which costs nothing before it is used.
        """
        self._blocking = None
        self._unit = unit = self.policy.new_unit(self.databases.async_unit_of_work, self.scope)
        await unit.__aenter__()
        unit.in_threads = self._in_thread
        self.scope["state"]["uow"] = unit
        self.ended = False

    def asynchronous(self) -> AsyncUnitOfWork:
        """
        Return the asynchronous unit of work that is open.

        Raises:
            UnitOfWorkEnded: The answer has begun; what comes later opens a unit of its own.
        """
        if self.ended or self._unit is None:
            raise UnitOfWorkEnded(_ENDED)
        return self._unit

    def blocking(self) -> UnitOfWork:
        """
        Return the blocking unit of work, opened now if it was not; only for code that runs in a thread.

        Raises:
            UnitOfWorkEnded: The answer has begun; what comes later opens a unit of its own.
        """
        with self._deciding:  # two threads would make two, and one of these would never end
            if self.ended:
                raise UnitOfWorkEnded(_ENDED)
            if self._blocking is None:
                unit = self.policy.new_unit(self.databases.unit_of_work, self.scope)
                unit.core.start()  # not by `with`, which makes it current: in the event loop the other one is
                self._blocking = unit
            return self._blocking

    def _in_thread(self) -> UnitOfWork:
        # Not None where it has ended, so that a callback of `on_commit` finds none that is open.
        return self._blocking or self.blocking()

    def doom(self, reason: str) -> None:
        """
        Make the end a rollback.
        """
        for unit in (self._unit, self._blocking):
            if unit is not None and unit.is_active:
                unit.doom(reason)

    def doom_for(self, error: BaseException) -> None:
        """
        Make the end a rollback, since an exception left the endpoint.
        """
        self.doom(f"{type(error).__name__} left the endpoint")

    async def settle(self, message: Message, raised: BaseException | None) -> None:
        """
        Commit or roll back.

        Args:
            message: The beginning of the answer, which the policy judges.
            raised: What the answer is made of, if not of what the view returned.
        """
        try:
            refusal = f"{type(raised).__name__} left the view" if raised is not None else None
            refusal = refusal or self.policy.refusal(message["status"], self.scope, message)
        except Exception as error:
            await self.end(error)
            raise
        if refusal is not None:
            self.doom(refusal)
        await self.end(None)

    async def end(self, error: BaseException | None) -> None:
        """
        End what is open; nothing where it has ended.

        Args:
            error: What left the application; None to commit.
        """
        with self._deciding:
            if self.ended:
                return
            self.ended = True
        try:
            if self._blocking is not None:
                await _end_in_thread(self._blocking, error)
        except BaseException as failure:
            error = failure
            raise
        finally:
            if self._unit is not None:
                self._unit.in_threads = None
                await self._unit.__aexit__(type(error) if error is not None else None, error, None)


async def _end_in_thread(unit: UnitOfWork, error: BaseException | None) -> None:
    from ..aio.completion import run_to_completion

    kind = type(error) if error is not None else None

    async def end() -> None:
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(_enders(), copy_context().run, unit.__exit__, kind, error, None)

    # Its own limits hold for what it waits for: none is needed here.
    await run_to_completion(end(), None, lambda: None, TimeoutError)


@cache
def _enders() -> ThreadPoolExecutor:
    """
    Return threads for the ends of blocking units of work, as many as there are at once.

    A unit that had to wait for a free thread, as those of `asyncio.to_thread`, would keep its locks meanwhile, and
    those who have the threads may be waiting for just these locks.
    """
    return ThreadPoolExecutor(sys.maxsize, thread_name_prefix="stillroom-end")


if hasattr(os, "register_at_fork"):  # a forked child has none of its parent's threads
    os.register_at_fork(after_in_child=_enders.cache_clear)


async def _ask_handlers(scope: Scope, error: Exception) -> Application | None:
    """
    Make the answer to a failed COMMIT as Starlette's exception handlers do for an error of a view, where it is there.
    """
    handlers, _ = scope.get("starlette.exception_handlers", ({}, {}))
    handler = next((handlers[each] for each in type(error).__mro__ if each in handlers), None)
    if handler is None:
        return None
    from starlette.concurrency import run_in_threadpool
    from starlette.requests import Request

    answer: Any = await run_in_threadpool(handler, Request(scope), error)
    if inspect.isawaitable(answer):
        answer = await answer
    made: Application | None = answer
    return made
