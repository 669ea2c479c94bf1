"""Who may write in the shared transaction: one at a time, in the order in which they came, threads and tasks alike."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
from collections import deque
from time import monotonic
from typing import TYPE_CHECKING, Protocol

from sqlalchemy.util import await_only

from ..errors import SandboxError, SandboxTimeout

if TYPE_CHECKING:
    from .actors import Actor, Place

_LOOK_AGAIN = 0.05
"""Seconds after which one who waits looks what the holder does, and whether it still lives."""
_LOOKS_AT_TEST = 4
"""How often a task in the thread of the test must be seen to do nothing until it is taken to wait for others."""
_LOOKS = 20
"""The same for the application's threads, which do other things between two statements."""
_REMEDY = 'commit or roll back there first, or use isolation="committed" for this test'


class Holder(Protocol):
    """
    A transaction that has its turn, or wants it: see `Transaction`.
    """

    actor: Actor
    place: Place | None
    admitted: bool
    statements: int
    idle_at: int
    has_read: bool
    stale: str


class Waiter:
    """
    One who waits for a turn.

    Args:
        holder: The transaction.
        writes: It is about to write; else it begins, and may go ahead without a turn as long as it reads.
    """

    blocks = True
    """Its thread does nothing else meanwhile."""

    def __init__(self, holder: Holder, *, writes: bool) -> None:
        self.holder = holder
        self.writes = writes
        self.granted = False
        self.dismissed = False
        self._looks: dict[Holder, tuple[int, int]] = {}

    def looks_at(self, held: Holder) -> int:
        """
        Look at one that has its turn, and return how often in a row that did nothing.
        """
        before, times = self._looks.get(held, (-1, 0))
        is_idle = held.statements == before and not held.statements % 2
        times = times + 1 if is_idle else 0
        self._looks[held] = (held.statements, times)
        return times

    def is_done(self) -> bool:
        """
        Say whether the wait is over.
        """
        return self.granted or self.dismissed

    def wait(self, seconds: float) -> bool:
        raise NotImplementedError

    def wake(self) -> None:
        raise NotImplementedError


class ThreadWaiter(Waiter):
    """
    A thread that waits for its turn.
    """

    def __init__(self, holder: Holder, *, writes: bool) -> None:
        super().__init__(holder, writes=writes)
        self._lock = threading.Lock()
        self._lock.acquire()

    def wait(self, seconds: float) -> bool:
        return self._lock.acquire(timeout=seconds)

    def wake(self) -> None:
        self._lock.release()


class TaskWaiter(Waiter):
    """
    An asyncio task that waits for its turn, inside SQLAlchemy's greenlet.
    """

    blocks = False

    def __init__(self, holder: Holder, *, writes: bool) -> None:
        super().__init__(holder, writes=writes)
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

    SQLite's BEGIN IMMEDIATE asks for the turn before the transaction writes. As long as it has only read, others can
    overtake it, where it would keep them waiting without need; then it is told when it writes upon what is stale.

    Args:
        name: The name of the database, for messages.
        timeout: The longest wait in seconds.

    Attributes:
        thread: The one of the test.
    """

    def __init__(self, name: str, timeout: float) -> None:
        self.name = name
        self.timeout = timeout
        self._lock = threading.RLock()  # reentrant: the garbage collector may end a transaction anywhere
        self.thread: threading.Thread | None = None
        self._queue: deque[Waiter] = deque()
        self._holders: list[Holder] = []
        self._overtaken: list[Holder] = []

    def is_own(self, actor: Actor) -> bool:
        """
        Say whether it is the test's own synchronous code.
        """
        return actor.task is None and actor.thread is self.thread

    def enter(self, holder: Holder, new_waiter: type[Waiter], *, writes: bool = True) -> None:
        """
        Wait for the turn of `holder`.

        Args:
            holder: The transaction.
            new_waiter: `ThreadWaiter` or `TaskWaiter`.
            writes: It is about to write; else it begins.

        Raises:
            SandboxTimeout: Somebody else did not end a transaction in time.
        """
        with self._lock:
            has_turn = holder in self._holders
            if has_turn or self._admits(holder) or (not self._holders and not self._queue):
                if not has_turn:
                    self._holders.append(holder)
                holder.admitted = writes
                return
            waiter = new_waiter(holder, writes=writes)
            self._refuse_in_vain(waiter)
        self._wait(waiter)

    def _admits(self, holder: Holder) -> bool:
        return bool(self._holders) and self._holders[-1].actor.admits(holder.actor)

    def _wait(self, waiter: Waiter) -> None:
        end = monotonic() + self.timeout
        try:
            with self._lock:
                self._queue.append(waiter)
                self._hand_on()
            while not waiter.wait(max(0.0, min(_LOOK_AGAIN, end - monotonic()))) and not waiter.is_done():
                with self._lock:
                    if waiter.is_done():
                        break
                    self._refuse_in_vain(waiter)
                    self._look(waiter)
                    if monotonic() > end and not waiter.granted:
                        raise self._timeout(waiter.holder)
            if waiter.dismissed:
                raise SandboxError(f"the test has ended while {waiter.holder.actor} waited to write to {self.name!r}")
        except BaseException:
            with self._lock:
                if waiter.granted:
                    waiter.holder.admitted = False
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
            if holder in self._overtaken:
                self._overtaken.remove(holder)
            if holder in self._holders:
                self._holders.remove(holder)
                if holder.admitted:
                    self._tell_overtaken(holder)
                self._hand_on()

    def _tell_overtaken(self, holder: Holder) -> None:
        # A rollback counts too: they may have read what is gone now.
        for each in self._overtaken:
            if each.has_read and not each.actor.admits(holder.actor):
                each.stale = f"{holder.actor} (at {holder.place})"

    def _hand_on(self) -> None:
        for waiter in list(self._queue):
            self._overtake(waiter)
            if not self._holders or self._admits(waiter.holder):
                others = self._holders
            elif not waiter.writes and all(self._yields(held, waiter) for held in self._holders):
                others = self._overtaken
            else:
                continue
            waiter.granted = True
            waiter.holder.admitted = waiter.writes
            self._queue.remove(waiter)
            others.append(waiter.holder)
            try:
                waiter.wake()
            except RuntimeError:  # its event loop is closed: nobody waits there any more
                others.remove(waiter.holder)

    def _overtake(self, waiter: Waiter) -> None:
        """
        Take the turn from those that have only read, where they would keep `waiter` waiting without need.
        """
        while self._holders and not self._admits(waiter.holder):
            held = self._holders[-1]
            if held.admitted or not self._yields(held, waiter):
                return
            if self._holders and self._holders[-1] is held:  # else the garbage collector has ended it
                self._overtaken.append(self._holders.pop())

    def _yields(self, held: Holder, waiter: Waiter) -> bool:
        """
        Say whether to wait for one that has its turn would be in vain, as long as one of the two only reads.
        """
        actor = held.actor
        if actor.has_ended or self.is_own(actor) or held.idle_at == held.statements:
            return True
        return waiter.blocks and actor.task is not None and actor.thread is waiter.holder.actor.thread

    def _look(self, waiter: Waiter) -> None:
        """
        Look whether those that have their turn do anything.
        """
        for held in self._holders:
            enough = _LOOKS_AT_TEST if held.actor.thread is self.thread else _LOOKS
            if waiter.looks_at(held) >= min(enough, self.timeout / _LOOK_AGAIN / 2):
                held.idle_at = held.statements
        self._hand_on()

    def clear(self) -> None:
        """
        Send everybody away: the test ends.
        """
        with self._lock:
            self._holders.clear()
            self._overtaken.clear()
            for waiter in self._queue:
                waiter.dismissed = True
                with contextlib.suppress(RuntimeError):  # its event loop is closed
                    waiter.wake()
            self._queue.clear()

    # --- what is said

    def _refuse_in_vain(self, waiter: Waiter) -> None:
        """
        Refuse to wait for what cannot happen; one that has not written can be overtaken instead.
        """
        first = next((held for held in reversed(self._holders) if held.admitted), None)
        if first is None or not waiter.writes:
            return
        holder = waiter.holder
        if first.actor.has_ended:
            gc.collect()  # what nobody refers to any more is rolled back now
            if first not in self._holders:
                return
            raise SandboxTimeout(
                f"{holder.actor} cannot write to {self.name!r}: {first.actor} has ended and left a transaction open, "
                f"in which it wrote at {first.place}. Commit or roll back there, or close the session"
            )
        if waiter.blocks and first.actor.task is not None and first.actor.thread is holder.actor.thread:
            raise SandboxTimeout(
                f"synchronous code in the thread of an event loop cannot write to {self.name!r}: it would wait for "
                f"{first.actor} of the same loop, which wrote at {first.place} and cannot go on meanwhile; {_REMEDY}"
            )

    def _timeout(self, holder: Holder) -> SandboxTimeout:
        first = self._holders[-1] if self._holders else None
        told = "others came first"
        if first is not None:
            what = "uncommitted writes" if first.admitted else "a transaction open"
            told = f"{first.actor} has {what}, begun at {first.place}"
        return SandboxTimeout(
            f"{holder.actor} waited {self.timeout:g} s to write to {self.name!r}, for in the sandbox all connections "
            f"share one transaction: {told}. So {_REMEDY}"
        )
