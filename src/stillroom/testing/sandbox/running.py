"""Where statements of the shared connection run: in the caller's thread, a worker's, or an event loop of its own."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy.util import await_only, greenlet_spawn
from sqlalchemy.util.concurrency import in_greenlet

if TYPE_CHECKING:
    from collections.abc import Callable

R = TypeVar("R")
_PATIENCE = 10.0
"""The longest wait in seconds for a statement whose task was cancelled."""


class ThreadRunner:
    """
    Runs operations on a synchronous connection, one at a time.

    A thread runs them itself; for an asyncio task a worker does, so that the event loop goes on.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._busy: int | None = None
        self._adopted: list[Callable[[], None]] = []
        self._worker: ThreadPoolExecutor | None = None

    @property
    def is_inside(self) -> bool:
        """
        Whether this thread is in the middle of an operation, into which the garbage collector has broken.
        """
        return self._busy == threading.get_ident()

    def run(self, operation: Callable[[], R]) -> R:
        """
        Run an operation, in its turn.
        """
        with self._lock:
            return self._run(operation)

    def _run(self, operation: Callable[[], R]) -> R:
        self._busy = threading.get_ident()
        try:
            return operation()
        finally:
            try:
                while self._adopted:
                    self._adopted.pop()()
            finally:
                self._busy = None

    def adopt(self, operation: Callable[[], None]) -> None:
        """
        Run an operation at the end of the one that is running, in which the garbage collector wants it.
        """
        self._adopted.append(operation)

    def try_run(self, operation: Callable[[], R], seconds: float) -> R:
        """
        Same as `run`, but at most `seconds` later.

        Raises:
            TimeoutError: Another operation did not end.
        """
        if not self._lock.acquire(timeout=seconds):
            raise TimeoutError
        try:
            return self._run(operation)
        finally:
            self._lock.release()

    def submit(self, operation: Callable[[], R]) -> Future[R]:
        """
        Let the worker run an operation.
        """
        if self._worker is None:
            self._worker = ThreadPoolExecutor(1, thread_name_prefix="stillroom-sandbox")
        return self._worker.submit(self.run, operation)

    def close(self) -> None:
        """
        End the worker.
        """
        if self._worker is not None:
            self._worker.shutdown(wait=False)
            self._worker = None


class LoopRunner:
    """
    Runs operations on an asynchronous connection, in an event loop in a thread of its own, one at a time.
    """

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name="stillroom-sandbox", daemon=True)
        self._lock = asyncio.Lock()
        self._thread.start()

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    @property
    def is_inside(self) -> bool:
        return threading.current_thread() is self._thread

    def run(self, operation: Callable[[], R]) -> R:
        return self.submit(operation).result()

    def try_run(self, operation: Callable[[], R], seconds: float) -> R:
        future = self.submit(operation)
        try:
            return future.result(seconds)
        except FutureTimeoutError:
            future.cancel()
            raise TimeoutError from None

    def submit(self, operation: Callable[[], R]) -> Future[R]:
        return asyncio.run_coroutine_threadsafe(self._run(operation), self._loop)

    def adopt(self, operation: Callable[[], None]) -> None:
        self.submit(operation)

    async def _run(self, operation: Callable[[], R]) -> R:
        async with self._lock:
            return await greenlet_spawn(operation)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_PATIENCE)


Runner = ThreadRunner | LoopRunner


def require_greenlet() -> None:
    """
    Refuse to go on where the driver could not await its server, so that a test fails where production does.

    Raises:
        sqlalchemy.exc.MissingGreenlet: This is outside of SQLAlchemy's greenlets, such as a lazy load in a coroutine.
    """
    if not in_greenlet():
        await_only(_nothing())  # raises SQLAlchemy's own error


async def _nothing() -> None:
    """
    Stand for what the driver would await.
    """


def run_for_task(runner: Runner, operation: Callable[[], R], interrupt: Callable[[], None] | None) -> R:
    """
    Run an operation for the asyncio task in whose greenlet this is; the event loop goes on meanwhile.

    Args:
        runner: Where it runs.
        operation: What to run. Once begun it is finished, for nobody else can use the connection before.
        interrupt: Makes a statement end early, where the driver can; called when the task is cancelled. None: it is
            begun and finished whatever becomes of the task.
    """
    return await_only(_finished(runner.submit(operation), interrupt))


async def _finished(future: Future[R], interrupt: Callable[[], None] | None) -> R:
    waiting = asyncio.wrap_future(future)
    try:
        return await asyncio.shield(waiting)
    except asyncio.CancelledError:
        if interrupt is not None and not future.done() and not future.cancel():
            with contextlib.suppress(Exception):
                await asyncio.get_running_loop().run_in_executor(None, interrupt)
        await _settled(waiting)
        raise


async def _settled(waiting: asyncio.Future[Any]) -> None:
    clock = asyncio.get_running_loop().time
    end = clock() + _PATIENCE
    while not waiting.done() and clock() < end:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait((waiting,), timeout=end - clock())
    if waiting.done() and not waiting.cancelled():
        waiting.exception()  # taken, so that nobody warns of it
