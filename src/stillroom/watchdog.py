"""An upper bound for a COMMIT that nobody answers, where the driver has none: the connection is hung up."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from itertools import count
from time import monotonic, sleep
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_FINEST = 0.01
"""Seconds between two looks at the list, for the shortest limits."""


class _Watchdog:
    """
    One daemon thread for the process, started with the first COMMIT that it watches.

    Watching costs two dictionary operations, which CPython does in one step each; the thread looks at its list a few
    times in each limit.
    """

    def __init__(self) -> None:
        self.watched: dict[int, tuple[float, Callable[[], int | None]]] = {}
        self.keys = count()
        self.is_idle = False
        self._interval = 1.0
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None

    def attend(self, seconds: float) -> None:
        """
        Make sure that the thread runs, is awake, and looks often enough for a limit of `seconds`.
        """
        if seconds < self._interval * 10:
            self._interval = max(_FINEST, seconds / 10)
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="stillroom-watchdog", daemon=True)
                    self._thread.start()
        if self.is_idle:
            self._wake.set()

    def _run(self) -> None:
        while True:
            self._wake.clear()
            self.is_idle = True
            if not self.watched:  # looked at after saying so: whoever came in between has seen it, or is seen here
                self._wake.wait()
            self.is_idle = False
            while self.watched:
                self._hang_up(monotonic())
                sleep(self._interval)

    def _hang_up(self, now: float) -> None:
        for key, (end, descriptor) in list(self.watched.items()):
            if now > end and self.watched.pop(key, None) is not None:
                with contextlib.suppress(Exception):
                    hang_up(descriptor)


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


_watchdog = _Watchdog()


def _forget_parent() -> None:
    global _watchdog  # noqa: PLW0603  # the parent's thread does not exist in the child
    _watchdog = _Watchdog()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_parent)


def watch(descriptor: Callable[[], int | None], seconds: float) -> int:
    """
    Hang up on a socket in `seconds`, unless `forget` is called with the key that is returned.

    Args:
        descriptor: Returns the socket that the connection has now; None where it has none any more.
        seconds: The limit.
    """
    watchdog = _watchdog
    key = next(watchdog.keys)
    watchdog.watched[key] = (monotonic() + seconds, descriptor)
    watchdog.attend(seconds)
    return key


def forget(key: int) -> None:
    """
    Let a socket be.
    """
    _watchdog.watched.pop(key, None)


class Limit:
    """
    Hang up on a socket if the block takes longer than allowed.

    Args:
        descriptor: Returns the socket that the connection has now; None where it has none any more.
        seconds: The limit.
    """

    __slots__ = ("_descriptor", "_key", "_seconds")

    def __init__(self, descriptor: Callable[[], int | None], seconds: float) -> None:
        self._descriptor = descriptor
        self._seconds = seconds

    def __enter__(self) -> None:
        self._key = watch(self._descriptor, self._seconds)

    def __exit__(self, *_: object) -> None:
        forget(self._key)
