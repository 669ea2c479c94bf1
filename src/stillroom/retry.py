"""When a failed unit of work is tried again, and after how long: decisions only, the waiting is the caller's."""

from __future__ import annotations

import random
from collections.abc import Collection  # noqa: TC003  # whoever reads the annotations of a struct needs the name
from time import monotonic

import msgspec

from .classification import RETRYABLE, Kind, classify, is_retryable


class Retry(msgspec.Struct, frozen=True, kw_only=True):
    """
    How often and how patiently a unit of work is tried again.

    Each attempt is a fresh unit of work. Tried again are errors after which nothing was committed, and which may
    not come again: serialization failures, deadlocks, lock timeouts, a locked SQLite file, a connection that was
    lost before COMMIT. The wait before attempt n is random between 0 and `base * 2 ** (n - 1)` seconds, at most
    `cap` ("full jitter"): https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/.

    Args:
        attempts: How many times at most, the first included.
        base: The longest wait before the second attempt, in seconds.
        cap: The longest wait before any attempt, in seconds.
        deadline: No attempt starts later than this many seconds after the first; None for no limit.
        kinds: The kinds of errors to try again; None for those above.

    Raises:
        ValueError: A number is out of range.
    """

    attempts: int = 3
    base: float = 0.05
    cap: float = 2.0
    deadline: float | None = 30.0
    kinds: Collection[Kind] | None = None

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ValueError(f"attempts={self.attempts!r}: it counts the first attempt, so it is at least 1")
        for name in ("base", "cap", "deadline"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ValueError(f"{name}={value!r}: seconds cannot be negative")
        for kind in self.kinds or ():
            if kind not in RETRYABLE:
                known = ", ".join(str(each) for each in Kind if each in RETRYABLE)
                raise ValueError(f"kinds has {kind!r}, which comes again however often it is tried; it takes {known}")

    def covers(self, error: BaseException) -> bool:
        """
        Say whether a unit of work that ended with `error` may be tried again.
        """
        if not is_retryable(error):
            return False
        return self.kinds is None or classify(error) in self.kinds


class Attempts:
    """
    The attempts of one call so far.

    Args:
        retry: The policy.
    """

    __slots__ = ("_end", "made", "retry")

    def __init__(self, retry: Retry) -> None:
        self.retry = retry
        self.made = 0
        self._end = None if retry.deadline is None else monotonic() + retry.deadline

    def pause_after(self, error: BaseException) -> float | None:
        """
        Decide what follows an attempt that failed.

        Returns:
            How long to wait before the next attempt, in seconds; None to give up, with what was tried noted on
            `error`.
        """
        self.made += 1
        retry = self.retry
        if not retry.covers(error):
            return None
        pause = random.uniform(0, min(retry.cap, retry.base * 2.0 ** (self.made - 1)))  # noqa: S311  # no secret
        if self.made >= retry.attempts:
            if retry.attempts > 1:
                error.add_note(f"stillroom: gave up after {self.made} attempts")
            return None
        if self._end is not None and monotonic() + pause > self._end:
            error.add_note(f"stillroom: gave up after {self.made} attempts, at the deadline of {retry.deadline:g} s")
            return None
        return pause
