"""Waiting in turn for a connection, in asyncio tasks."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from sqlalchemy.pool import AsyncAdaptedQueuePool
from sqlalchemy.util import await_only, greenlet_spawn

from ..pool import FairQueuePool, Gate, Ticket, current_task

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.pool import PoolProxiedConnection


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


class AsyncFairQueuePool(FairQueuePool, AsyncAdaptedQueuePool):
    """
    Same as `FairQueuePool`, but for asyncio.
    """

    def enter(self, gate: Gate) -> Ticket:
        return gate.enter(self.wait_limit, TaskWaiter, current_task())

    def check_out(self) -> PoolProxiedConnection:
        """
        Same as `FairQueuePool.check_out`, but a connection that is being opened is not lost by a cancellation.
        """
        return await_only(_opened(super().check_out))


_closing: set[asyncio.Task[Any]] = set()
"""What must not be collected before it is done: an event loop keeps weak references only."""


async def _opened(check_out: Callable[[], PoolProxiedConnection]) -> PoolProxiedConnection:
    """
    Open a connection in a task of its own.

    Drivers and SQLAlchemy drop one that is cancelled half-way: the server keeps it until the garbage collector comes.
    """
    opening = asyncio.create_task(greenlet_spawn(check_out))
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        closing = asyncio.create_task(_close_when_open(opening))
        _closing.add(closing)
        closing.add_done_callback(_closing.discard)
        raise


async def _close_when_open(opening: asyncio.Task[PoolProxiedConnection]) -> None:
    with contextlib.suppress(Exception):  # nobody asks for this connection any more
        connection = await opening
        await greenlet_spawn(connection.invalidate)
