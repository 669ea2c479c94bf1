"""Who may write in the shared transaction: one at a time, in the order in which they came, threads and tasks alike."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
from collections import deque
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol

from sqlalchemy.util import await_only

from ..errors import SandboxError, SandboxTimeout

if TYPE_CHECKING:
    from .actors import Actor, Place

_LOOK_AGAIN = 0.2
"""Seconds after which one who waits looks whether the holder still lives."""
_REMEDY = 'commit or roll back there first, or use isolation="committed" for this test'


class Holder(Protocol):
    """
    A transaction that writes, or wants to.
    """

    actor: Actor
    place: Place | None


class ThreadWaiter:
    """
    A thread that waits for its turn.
    """

    def __init__(self, holder: Holder) -> None:
        self.holder = holder
        self.granted = False
        self.dismissed = False
        self._lock = threading.Lock()
        self._lock.acquire()

    def wait(self, seconds: float) -> bool:
        return self._lock.acquire(timeout=seconds)

    def wake(self) -> None:
        self._lock.release()


class TaskWaiter:
    """
    An asyncio task that waits for its turn, inside SQLAlchemy's greenlet.
    """

    def __init__(self, holder: Holder) -> None:
        self.holder = holder
        self.granted = False
        self.dismissed = False
        self._loop = asyncio.get_running_loop()
        self._turn: asyncio.Future[None] = self._loop.create_future()

    def wait(self, seconds: float) -> bool:
        return await_only(self._wait(seconds))

    async def _wait(self, seconds: float) -> bool:
        await asyncio.wait((self._turn,), timeout=seconds)
        return self._turn.done()

    def wake(self) -> None:
        self._loop.call_soon_threadsafe(self._resolve)

    def _resolve(self) -> None:
        if not self._turn.done():
            self._turn.set_result(None)


class Floor:
    """
    Admits one transaction that writes, and those of the same thread or task inside of it.

    Args:
        name: The name of the database, for messages.
        timeout: The longest wait in seconds.
    """

    def __init__(self, name: str, timeout: float) -> None:
        self.name = name
        self.timeout = timeout
        self._lock = threading.RLock()  # reentrant: the garbage collector may end a transaction anywhere
        self._queue: deque[Any] = deque()
        self._holders: list[Holder] = []

    def enter(self, holder: Holder, new_waiter: Any) -> None:
        """
        Wait for the turn of `holder`.

        Args:
            holder: The transaction.
            new_waiter: Makes a `ThreadWaiter` or `TaskWaiter`, called only if one must wait.

        Raises:
            SandboxTimeout: Somebody else did not end a transaction in time.
        """
        with self._lock:
            if self._admits(holder) or (not self._holders and not self._queue):
                self._holders.append(holder)
                return
            self._refuse_in_vain(holder, blocking=new_waiter is ThreadWaiter)
        self._wait(new_waiter(holder))

    def _admits(self, holder: Holder) -> bool:
        return bool(self._holders) and self._holders[-1].actor.admits(holder.actor)

    def _wait(self, waiter: Any) -> None:
        end = monotonic() + self.timeout
        try:
            with self._lock:
                self._queue.append(waiter)
                self._hand_on()
            while not waiter.wait(max(0.0, min(_LOOK_AGAIN, end - monotonic()))) and not waiter.granted:
                with self._lock:
                    if waiter.granted or waiter.dismissed:
                        break
                    self._refuse_in_vain(waiter.holder, blocking=isinstance(waiter, ThreadWaiter))
                    if monotonic() > end and not waiter.granted:
                        raise self._timeout(waiter.holder)
            if waiter.dismissed:
                raise SandboxError(f"the test has ended while {waiter.holder.actor} waited to write to {self.name!r}")
        except BaseException:
            with self._lock:
                if waiter.granted:
                    self.leave(waiter.holder)
                else:
                    with contextlib.suppress(ValueError):
                        self._queue.remove(waiter)
            raise

    def leave(self, holder: Holder) -> None:
        """
        End the turn of `holder`; a second time does nothing.
        """
        with self._lock:
            if holder in self._holders:
                self._holders.remove(holder)
                self._hand_on()

    def _hand_on(self) -> None:
        for waiter in list(self._queue):
            if self._holders and not self._admits(waiter.holder):
                continue
            waiter.granted = True
            self._queue.remove(waiter)
            self._holders.append(waiter.holder)
            try:
                waiter.wake()
            except RuntimeError:  # its event loop is closed: nobody waits there any more
                self._holders.remove(waiter.holder)

    def clear(self) -> None:
        """
        Send everybody away: the test ends.
        """
        with self._lock:
            self._holders.clear()
            for waiter in self._queue:
                waiter.dismissed = True
                with contextlib.suppress(RuntimeError):  # its event loop is closed
                    waiter.wake()
            self._queue.clear()

    # --- what is said

    def _refuse_in_vain(self, holder: Holder, *, blocking: bool) -> None:
        """
        Refuse to wait for what cannot happen.

        Args:
            holder: Who would wait.
            blocking: Its thread would do nothing else meanwhile.
        """
        if not self._holders:
            return
        first = self._holders[-1]
        if first.actor.has_ended:
            gc.collect()  # what nobody refers to any more is rolled back now
            if not self._holders or self._holders[-1] is not first:
                return
            raise SandboxTimeout(
                f"{holder.actor} cannot write to {self.name!r}: {first.actor} has ended and left a transaction open, "
                f"in which it wrote at {first.place}. Commit or roll back there, or close the session"
            )
        if blocking and first.actor.task is not None and first.actor.thread is holder.actor.thread:
            raise SandboxTimeout(
                f"synchronous code in the thread of an event loop cannot write to {self.name!r}: it would wait for "
                f"{first.actor} of the same loop, which wrote at {first.place} and cannot go on meanwhile; {_REMEDY}"
            )

    def _timeout(self, holder: Holder) -> SandboxTimeout:
        first = self._holders[-1] if self._holders else None
        told = (
            f"{first.actor} has uncommitted writes, begun at {first.place}"
            if first is not None
            else "others came first"
        )
        return SandboxTimeout(
            f"{holder.actor} waited {self.timeout:g} s to write to {self.name!r}, for in the sandbox all connections "
            f"share one transaction: {told}. So {_REMEDY}"
        )
