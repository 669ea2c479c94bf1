"""
UUIDs in the order of time: version 7 of RFC 9562, strictly rising within a process.
"""

from __future__ import annotations

import os
import threading
import time
from uuid import UUID

__all__ = ["uuid7"]

_COUNTER_BITS = 42
_RANDOM_BITS = 32


class _Clock:
    """
    The milliseconds and the counter of the last UUID, with the lock that makes both one.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.milliseconds = 0
        self.counter = 0

    def tick(self) -> tuple[int, int]:
        """
        Take the next pair, greater than every one before it.

        Returns:
            Milliseconds since 1970 and a counter of 42 bits.
        """
        now = time.time_ns() // 1_000_000
        with self.lock:
            self.counter += 1
            if now > self.milliseconds or self.counter >> _COUNTER_BITS:
                # A clock that was set back does not set the UUIDs back; the first bit of a new counter is 0, so that
                # 2**41 more fit into its millisecond.
                self.milliseconds = max(now, self.milliseconds + 1)
                self.counter = int.from_bytes(os.urandom(6)) >> 7
            return self.milliseconds, self.counter

    def after_fork(self) -> None:
        """
        Make the child's UUIDs its own: a new lock, for another thread may have held the old one, and a new counter.
        """
        self.lock = threading.Lock()
        # Used up: the next pair begins a new millisecond, so it also follows those from before the fork.
        self.counter = 1 << _COUNTER_BITS


_clock = _Clock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_clock.after_fork)


def uuid7() -> UUID:
    """
    Make a UUID that is greater than every one this process has made before, in all of its threads.

    The layout is RFC 9562, section 5.7; the order within a millisecond comes from a counter with a random start
    (section 6.2, method 1, 42 bits) before 32 random bits. ``uuid.uuid7`` of Python 3.14 has the same layout, but keeps
    its counter without a lock, so two threads may get the same one and lose the order: hence one code for all versions.

    Returns:
        A UUID whose first 48 bits are the milliseconds since 1970.
    """
    milliseconds, counter = _clock.tick()
    value = milliseconds << 80
    value |= 7 << 76
    value |= (counter >> 30) << 64
    value |= 0b10 << 62
    value |= (counter & 0x3FFF_FFFF) << _RANDOM_BITS
    value |= int.from_bytes(os.urandom(4))
    return UUID(int=value)
