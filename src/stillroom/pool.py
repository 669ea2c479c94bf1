"""Waiting for a connection that is fair: first in, first out."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections import deque
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
from sqlalchemy import event
from sqlalchemy.pool import QueuePool

from .errors import PoolTimeout
from .forking import process

if TYPE_CHECKING:
    import asyncio
    from types import FrameType
    from weakref import ref

    from sqlalchemy.engine import Engine
    from sqlalchemy.pool import PoolProxiedConnection

TICKET = "stillroom_ticket"
_SHOWN_HOLDERS = 10


class Waiter(Protocol):
    """
    One who stands in the queue of a `Gate`.
    """

    granted: bool

    def wait(self, seconds: float) -> bool:
        """
        Wait until woken, at most `seconds`; say whether woken.
        """

    def wake(self) -> None:
        """
        End the wait; called from any thread.
        """


class ThreadWaiter:
    """
    A thread that waits.
    """

    def __init__(self) -> None:
        self.granted = False
        self._lock = threading.Lock()
        self._lock.acquire()

    def wait(self, seconds: float) -> bool:
        return self._lock.acquire(timeout=min(seconds, threading.TIMEOUT_MAX))

    def wake(self) -> None:
        self._lock.release()


class Ticket(msgspec.Struct, eq=False):
    """
    The right to one connection, and who has it.
    """

    gate: Gate
    thread: int
    task: ref[asyncio.Task[Any]] | None
    since: float

    def __str__(self) -> str:
        held = f"for {monotonic() - self.since:.1f} s"
        if self.task is not None:
            task = self.task()
            if task is None or task.done():
                return f"a task that has ended, {held}"
            return f"task {task.get_name()!r} {held}{_place_of_task(task)}"
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        if self.thread not in names:
            return f"a thread that has ended, {held}"
        return f"thread {names[self.thread]!r} {held}{_place(_frame_of(self.thread))}"


def _frame_of(thread: int) -> FrameType | None:
    return sys._current_frames().get(thread)  # noqa: SLF001  # documented, in spite of its name


def _place_of_task(task: asyncio.Task[Any]) -> str:
    """
    Name the innermost line of the application that a task waits at: it may have been started by a framework.
    """
    found = ""
    waiting: Any = task.get_coro()
    while waiting is not None:
        frame = getattr(waiting, "cr_frame", None) or getattr(waiting, "ag_frame", None)
        found = _place_of(frame) or found if frame is not None else found
        waiting = getattr(waiting, "cr_await", None) or getattr(waiting, "ag_await", None)
    return found


def _place(frame: FrameType | None) -> str:
    """
    Name the line of the application that a holder is at, below the frames of libraries.
    """
    while frame is not None:
        if found := _place_of(frame):
            return found
        frame = frame.f_back
    return ""


def _place_of(frame: FrameType) -> str:
    name = frame.f_code.co_filename
    module = frame.f_globals.get("__name__", "")
    package = module.partition(".")[0]
    if "site-packages" in name or package in ("stillroom", "threading", "contextlib", "asyncio", "concurrent"):
        return ""
    return f", now at {name}:{frame.f_lineno} in {frame.f_code.co_name}"


class Gate:
    """
    Admits as many holders as there are connections, in the order in which they came.

    A freed place is handed to the first in the queue, never put up for grabs: a thread that has just finished would
    win it again and again over threads that must first wake up.

    Args:
        limit: How many may hold a connection at once.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.generation = process.generation
        # Reentrant, since the garbage collector may return a connection while this thread holds the lock.
        self._lock = threading.RLock()
        self.closed = False
        # One for each connection that is not in use. What is done to it and to the holders, CPython does in one step.
        self._places = deque([None] * limit)
        self._queue: deque[Waiter] = deque()
        self.holders: set[Ticket] = set()

    def __repr__(self) -> str:
        return f"<Gate limit={self.limit} held={len(self.holders)} waiting={len(self._queue)}>"

    @property
    def free(self) -> int:
        """
        How many places nobody has.
        """
        return len(self._places)

    @property
    def waiting(self) -> int:
        """
        How many stand in the queue.
        """
        return len(self._queue)

    def enter(self, timeout: float, new_waiter: Any = ThreadWaiter, task: Any = None) -> Ticket:
        """
        Wait for a place.

        Args:
            timeout: The longest wait in seconds.
            new_waiter: Makes a `Waiter`, called only if one must wait.
            task: A weak reference to the asyncio task that will hold the connection.

        Raises:
            PoolTimeout: No place came free in time; the message says who holds them.
        """
        if self._queue or not self._takes_place():
            # Made outside of the lock: that may run the garbage collector, which may give a place back.
            self._wait(new_waiter(), timeout)
        ticket = Ticket(self, threading.get_ident(), task, monotonic())
        self.holders.add(ticket)
        return ticket

    def _takes_place(self) -> bool:
        """
        Take a place if there is one.
        """
        try:
            self._places.pop()
        except IndexError:
            return False
        return True

    def _wait(self, waiter: Waiter, timeout: float) -> None:
        try:
            self._queue.append(waiter)
            self._hand_on()  # a place may have come free in the meantime
            woken = waiter.granted or waiter.wait(timeout)
        except BaseException:  # a cancellation, or an interrupt from the keyboard: leave, or pass the place on
            if not self._leave(waiter):
                self._places.append(None)
                self._hand_on()
            raise
        if not woken and self._leave(waiter):
            holders = sorted(self.holders, key=lambda ticket: ticket.since)
            raise PoolTimeout(self._timeout_text(timeout, holders), holders=tuple(map(str, holders)))

    def _leave(self, waiter: Waiter) -> bool:
        """
        Take `waiter` out of the queue; False if it got a place in the meantime.
        """
        with self._lock:
            if waiter.granted:
                return False
            with contextlib.suppress(ValueError):  # interrupted before it stood in the queue
                self._queue.remove(waiter)
            return True

    def _hand_on(self) -> None:
        """
        Give the places that are free to those who wait, the first in the queue first.
        """
        while True:
            with self._lock:
                if not self._queue or not self._takes_place():
                    return
                waiter = self._queue.popleft()
                waiter.granted = True
            try:
                waiter.wake()
            except RuntimeError:  # its event loop is closed: nobody waits there any more
                waiter.granted = False
                self._places.append(None)

    def leave(self, ticket: Ticket) -> None:
        """
        Give a place back; a second time does nothing.
        """
        if self.generation != process.generation:
            return  # a forked child, for which a vanished thread may hold the lock; its pools have gates of their own
        try:
            self.holders.remove(ticket)
        except KeyError:
            return
        self._places.append(None)
        if self._queue:
            self._hand_on()

    def _timeout_text(self, timeout: float, holders: list[Ticket]) -> str:
        shown = "; ".join(str(ticket) for ticket in holders[:_SHOWN_HOLDERS])
        more = len(holders) - _SHOWN_HOLDERS
        return (
            f"no connection came free within {timeout:g} s: all {self.limit} are in use, {self.waiting} more wait. "
            f"Held by {shown}{f' and {more} more' if more > 0 else ''}. "
            "End units of work sooner, or raise pool_size or max_overflow"
        )


class FairQueuePool(QueuePool):
    """
    SQLAlchemy's QueuePool behind a `Gate`.

    Takes the arguments of QueuePool; `pool_size` + `max_overflow` connections at most, no limit with
    `max_overflow=-1`.
    """

    def __init__(self, creator: Any, pool_size: int = 5, max_overflow: int = 10, timeout: float = 30.0, **kw: Any):
        super().__init__(creator, pool_size=pool_size, max_overflow=max_overflow, timeout=timeout, **kw)
        self.gate = Gate(pool_size + max_overflow) if max_overflow >= 0 and pool_size > 0 else None
        self.wait_limit = timeout

    def connect(self) -> PoolProxiedConnection:
        """
        Check a connection out, waiting in turn.

        Raises:
            PoolTimeout: None came free in time.
        """
        gate = self.gate
        ticket = gate.enter(self.wait_limit) if gate is not None else None
        try:
            connection = super().connect()
            connection.record_info[TICKET] = ticket  # type: ignore[index]  # a fresh checkout always has a record
        except BaseException:
            if ticket is not None:
                ticket.gate.leave(ticket)
            raise
        return connection

    def dispose(self) -> None:
        """
        Close what is idle; what is in use is closed on its return.
        """
        if self.gate is not None:
            self.gate.closed = True
        super().dispose()


def install(engine: Engine) -> None:
    """
    Make the pool of `engine` give places back when connections return.
    """

    def detached(dbapi_connection: Any, record: Any) -> None:
        ticket = record.record_info.pop(TICKET, None)
        if ticket is not None:
            ticket.gate.leave(ticket)

    def checked_in(dbapi_connection: Any, record: Any) -> None:
        ticket = record.record_info.pop(TICKET, None)
        if ticket is None:
            return
        gate = ticket.gate
        if gate.closed and gate.generation == process.generation:
            record.invalidate()  # nobody would take it from a pool that is given up, nor close it
        gate.leave(ticket)

    event.listen(engine, "checkin", checked_in)
    event.listen(engine, "detach", detached)
