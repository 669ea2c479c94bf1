"""Finishing what was begun, whatever happens to the task that waits for it."""

from __future__ import annotations

import asyncio
import logging
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

logger = logging.getLogger("stillroom")

_PAUSE = 1.0
"""Seconds between two attempts to end an end that takes too long."""
_ATTEMPTS = 6


async def run_to_completion(
    work: Coroutine[Any, Any, Any],
    limit: float | None,
    on_limit: Callable[[], None],
    on_given_up: Callable[[], Exception],
) -> None:
    """
    Run `work` as a task of its own and wait for it; a cancellation that comes meanwhile is delivered afterwards.

    Args:
        work: What must not be interrupted.
        limit: Seconds after which it is to end; None for no limit.
        on_limit: Called then. If that does not help within a second, `work` is cancelled, once in each second.
        on_given_up: Called if it was cut short like that, or goes on even so, 6 s after the limit; returns the error
            to raise.

    Raises:
        asyncio.CancelledError: The waiting task was cancelled meanwhile; `work` is done.
        BaseException: What `work` raised.
    """
    anyio = sys.modules.get("anyio")
    if anyio is None:
        return await _complete(work, limit, on_limit, on_given_up)
    # anyio cancels again and again until the task gives in: waiting unshielded would spin.
    with anyio.CancelScope(shield=True):
        return await _complete(work, limit, on_limit, on_given_up)


async def _complete(
    work: Coroutine[Any, Any, Any],
    limit: float | None,
    on_limit: Callable[[], None],
    on_given_up: Callable[[], Exception],
) -> None:
    waiting = asyncio.current_task()
    begun = False

    async def begin() -> None:
        nonlocal begun
        begun = True
        await work

    def start() -> asyncio.Task[None]:
        # Under the name of the task that it works for, which messages name.
        return asyncio.create_task(begin(), name=waiting.get_name() if waiting is not None else None)

    task = start()
    cancelled: asyncio.CancelledError | None = None
    clock = asyncio.get_running_loop().time
    end = None if limit is None else clock() + limit
    attempts = 0
    while (not begun or not task.done()) and attempts <= _ATTEMPTS:
        if task.done():  # cancelled before its first step: the event loop is shutting down, and cancels each task once
            task = start()
        left = None if end is None else end - clock()
        if left is not None and left <= 0:
            if attempts == 0:
                on_limit()
            else:
                task.cancel()
            attempts += 1
            end = clock() + _PAUSE
            continue
        try:
            await asyncio.wait({task}, timeout=left)
        except asyncio.CancelledError as error:
            cancelled = cancelled or error
    failure: BaseException | None
    if attempts and (not task.done() or task.cancelled()):
        task.add_done_callback(_forget)
        failure = on_given_up()
    else:  # cancelled without us: the event loop is shutting down
        failure = asyncio.CancelledError() if task.cancelled() else task.exception()
    if cancelled is not None and failure is not None:
        # Both happened. The cancellation must be delivered; what became of the work goes with it.
        logger.warning("the end of a unit of work failed in a task that was cancelled", exc_info=failure)
        raise cancelled from failure
    if cancelled is not None:
        raise cancelled
    if failure is not None:
        raise failure


def _forget(task: asyncio.Task[Any]) -> None:
    """
    Take the error of a task that nobody waits for any more.
    """
    if not task.cancelled():
        task.exception()
