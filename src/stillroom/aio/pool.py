"""Waiting in turn for a connection, in asyncio tasks."""

from __future__ import annotations

import asyncio
import logging
import sys
from inspect import signature
from typing import TYPE_CHECKING, Any
from weakref import WeakSet, ref

from sqlalchemy.pool import AsyncAdaptedQueuePool, QueuePool
from sqlalchemy.util import await_only, greenlet_spawn
from sqlalchemy.util.concurrency import in_greenlet

from ..pool import TICKET, FairQueuePool, Ticket

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.engine import Engine
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.pool import PoolProxiedConnection

logger = logging.getLogger("stillroom")


class TaskWaiter:
    """
    An asyncio task that waits, inside SQLAlchemy's greenlet.
    """

    def __init__(self) -> None:
        self.granted = False
        self._loop = asyncio.get_running_loop()
        self._place: asyncio.Future[None] = self._loop.create_future()

    def wait(self, seconds: float) -> bool:
        return await_only(self._wait(seconds))

    async def _wait(self, seconds: float) -> bool:
        await asyncio.wait((self._place,), timeout=seconds)
        return self._place.done()

    def wake(self) -> None:
        if _running_loop() is self._loop:
            self._resolve()
        else:  # whoever gives the place back runs in another thread
            self._loop.call_soon_threadsafe(self._resolve)

    def _resolve(self) -> None:
        if not self._place.done():
            self._place.set_result(None)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


class _NeedsTask(Exception):
    """
    A connection must be opened, and this task could be cancelled meanwhile.
    """


_opening: WeakSet[asyncio.Task[Any]] = WeakSet()
"""The tasks that may open connections."""


def _in_own_task(create: Callable[..., Any]) -> Callable[..., Any]:
    """
    Make what opens a connection refuse to do so in a task of the application.
    """
    if getattr(create, "stillroom_guarded", False):  # of a pool that is made anew
        return create
    wants_record = bool(signature(create).parameters)

    # The name of the argument tells SQLAlchemy to hand it over.
    def guarded(connection_record: Any = None) -> Any:
        if asyncio.current_task() not in _opening:
            raise _NeedsTask
        return create(connection_record) if wants_record else create()

    guarded.stillroom_guarded = True  # type: ignore[attr-defined]  # a mark of our own
    return guarded


class AsyncFairQueuePool(FairQueuePool, AsyncAdaptedQueuePool):
    """
    Same as `FairQueuePool`, but for asyncio.
    """

    def __init__(self, creator: Callable[..., Any], *args: Any, **kw: Any):
        super().__init__(_in_own_task(creator), *args, **kw)
        # An event loop keeps weak references only: what must not be collected before it is done is kept here.
        self._under_way: set[asyncio.Task[PoolProxiedConnection]] = set()

    def connect(self) -> PoolProxiedConnection:
        """
        Same as `FairQueuePool.connect`, but a task waits.
        """
        gate = self.gate
        return self.check_out(gate.enter(self.wait_limit, TaskWaiter, _holder()) if gate is not None else None)

    def check_out(self, ticket: Ticket | None) -> PoolProxiedConnection:
        """
        Take an idle connection, or open one, which is not lost by a cancellation meanwhile.
        """
        if self.checkedin():
            try:
                return self._take(ticket)
            except _NeedsTask:  # the idle one was no good
                pass
            except BaseException:
                if ticket is not None:
                    ticket.gate.leave(ticket)
                raise
        return await_only(self._taken(ticket))

    def _take(self, ticket: Ticket | None) -> PoolProxiedConnection:
        connection = QueuePool.connect(self)
        connection.record_info[TICKET] = ticket  # type: ignore[index]  # a fresh checkout always has a record
        return connection

    async def _taken(self, ticket: Ticket | None) -> PoolProxiedConnection:
        """
        Take a connection in a task of its own; if nobody waits for it any more, it goes straight back to the pool.

        Drivers and SQLAlchemy drop one that is cancelled half-way: the server keeps it until the garbage collector
        comes.
        """
        wanted = True

        def take() -> PoolProxiedConnection:
            try:
                connection = self._take(ticket)
            except BaseException:
                if ticket is not None:
                    ticket.gate.leave(ticket)
                raise
            if not wanted:
                connection.close()
            return connection

        def done(task: asyncio.Task[PoolProxiedConnection]) -> None:
            self._under_way.discard(task)
            if ticket is not None and task.cancelled():  # by the end of the event loop, before its first step perhaps
                ticket.gate.leave(ticket)

        me = asyncio.current_task()
        # Under the name of the task that it works for, which messages name.
        taking = asyncio.create_task(greenlet_spawn(take), name=me.get_name() if me is not None else None)
        _opening.add(taking)
        self._under_way.add(taking)
        taking.add_done_callback(done)
        try:
            return await asyncio.shield(taking)
        except asyncio.CancelledError:
            wanted = False
            if taking.done() and not taking.cancelled() and taking.exception() is None:
                await greenlet_spawn(taking.result().close)
            raise

    def dispose(self) -> None:
        """
        Same as `AsyncAdaptedQueuePool.dispose`, but waits for what is still being opened: nobody might close that.
        """
        try:
            if in_greenlet() and asyncio.current_task() not in self._under_way:
                await_only(self._settled())
        finally:
            super().dispose()

    async def _settled(self) -> None:
        loop = asyncio.get_running_loop()
        while tasks := [task for task in (*self._under_way, *_ending) if task.get_loop() is loop]:
            await asyncio.wait(tasks)


def _holder() -> ref[asyncio.Task[Any]] | None:
    """
    Return the task that will hold a connection; None outside of one.
    """
    try:
        task = asyncio.current_task()
    except RuntimeError:
        return None
    return ref(task) if task is not None else None


_ending: set[asyncio.Task[None]] = set()
"""The tasks that end broken connections; kept here as an event loop keeps weak references only."""


def end_aside(engine: Engine) -> None:
    """
    Have broken connections ended in tasks of their own, which are waited for.

    A driver may wait up to two seconds for the server's goodbye. A task of the application that is cancelled again
    meanwhile would leave SQLAlchemy in the middle: before 2.1 the connection's place then never came back to the pool.
    """
    dialect = engine.dialect
    do_terminate = dialect.do_terminate

    def terminate(connection: DBAPIConnection) -> None:
        if not in_greenlet():  # the garbage collector ends it
            do_terminate(connection)
            return
        raised = sys.exception()
        ending = asyncio.create_task(greenlet_spawn(do_terminate, connection))
        _ending.add(ending)
        ending.add_done_callback(_ended)
        try:
            await_only(asyncio.wait((ending,)))
        except asyncio.CancelledError:
            if not isinstance(raised, asyncio.CancelledError):  # which SQLAlchemy raises afterwards
                raise

    setattr(dialect, "do_terminate", terminate)  # noqa: B010  # mypy refuses a plain assignment


def _ended(task: asyncio.Task[None]) -> None:
    _ending.discard(task)
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.warning("a broken connection could not be closed", exc_info=error)
