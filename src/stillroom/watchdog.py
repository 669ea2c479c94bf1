"""An upper bound for a COMMIT that nobody answers, where the driver has none: the connection is hung up."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from time import monotonic, sleep
from typing import TYPE_CHECKING, Protocol
from weakref import WeakValueDictionary

if TYPE_CHECKING:
    from collections.abc import Callable

_FINEST = 0.01
"""Seconds between two looks, for the shortest limits."""


class Watched(Protocol):
    """
    What the watchdog looks at.

    Attributes:
        hang_up_at: The moment (`time.monotonic`, seconds) at which it is hung up; None for not now.
    """

    hang_up_at: float | None

    def socket(self) -> int | None:
        """
        Return the socket that the connection has now; None where it has none any more.
        """


class _Watchdog:
    """
    One daemon thread for the process, started with the first COMMIT that it watches.

    Whoever is watched sets a moment and takes it back; the thread looks at all of them a few times in each limit.

    Attributes:
        is_idle: The thread sleeps, or was not started: it must be told of the next moment that is set.
    """

    def __init__(self) -> None:
        self.is_idle = True
        # Its references can be listed while others come and go, which those of a WeakSet cannot.
        self._watched: WeakValueDictionary[int, Watched] = WeakValueDictionary()
        self._interval = 1.0
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None

    def keep(self, watched: Watched, seconds: float) -> None:
        """
        Look at `watched` from now on, as long as it lives, and often enough for a limit of `seconds`.
        """
        self._interval = max(_FINEST, min(self._interval, seconds / 10))
        self._watched[id(watched)] = watched

    def attend(self) -> None:
        """
        Make sure that the thread runs and is awake.
        """
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="stillroom-watchdog", daemon=True)
                    self._thread.start()
        self._wake.set()

    def _run(self) -> None:
        while True:
            self._wake.clear()
            self.is_idle = True
            if not self._look():  # looked at after saying so: whoever came in between has seen it, or is seen here
                self._wake.wait()
            self.is_idle = False
            while self._look():
                sleep(self._interval)

    def _look(self) -> bool:
        """
        Hang up on those whose moment has come, and say whether anybody has set one.

        A function of its own, since the thread must not keep what it has looked at.
        """
        found = (reference() for reference in self._watched.valuerefs())
        due = [(each, end) for each in found if each is not None and (end := each.hang_up_at) is not None]
        for watched, end in due:
            if monotonic() > end and watched.hang_up_at is end:
                watched.hang_up_at = None
                with contextlib.suppress(Exception):
                    hang_up(watched.socket)
        return bool(due)


def hang_up(descriptor: Callable[[], int | None]) -> None:
    """
    End the conversation on a socket: whoever waits for an answer gets a connection error.

    Args:
        descriptor: Returns the socket that the connection has now; None where it has none any more.
    """
    found = descriptor()
    if found is None or found < 0:
        return
    with socket.socket(fileno=os.dup(found)) as connection:
        # Between the two, the driver may have closed it, and another socket got the number.
        if descriptor() == found:
            connection.shutdown(socket.SHUT_RDWR)


watchdog = _Watchdog()


def _forget_parent() -> None:
    global watchdog  # noqa: PLW0603  # the parent's thread does not exist in the child
    watchdog = _Watchdog()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_parent)


class Limit:
    """
    Hang up on a socket if the block takes longer than allowed.

    Args:
        socket: Returns the socket that the connection has now; None where it has none any more.
        seconds: The limit.
    """

    hang_up_at: float | None = None

    def __init__(self, socket: Callable[[], int | None], seconds: float) -> None:
        self.socket = socket
        self._seconds = seconds

    def __enter__(self) -> None:
        watchdog.keep(self, self._seconds)
        self.hang_up_at = monotonic() + self._seconds
        if watchdog.is_idle:
            watchdog.attend()

    def __exit__(self, *_: object) -> None:
        self.hang_up_at = None
