"""
Tests of UUIDs in the order of time: layout, order, uniqueness over threads and a fork.
"""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from threading import Barrier
from uuid import RFC_4122, UUID

import pytest

from stillroom.models import uuid7

MANY = 20_000


def test_the_layout_is_that_of_the_rfc() -> None:
    before = time.time_ns() // 1_000_000
    made = uuid7()
    assert made.version == 7
    assert made.variant == RFC_4122
    # Other tests may have drawn the clock ahead of time by a few milliseconds.
    assert before <= made.int >> 80 <= time.time_ns() // 1_000_000 + 1_000


def test_each_one_is_greater_than_the_one_before() -> None:
    made = [uuid7() for _ in range(MANY)]
    assert all(first < second for first, second in pairwise(made))


def test_a_clock_that_is_set_back_does_not_break_the_order(monkeypatch: pytest.MonkeyPatch) -> None:
    before = uuid7()
    monkeypatch.setattr(time, "time_ns", lambda: 1_000_000_000)
    assert before < uuid7() < uuid7()


def test_threads_keep_the_order_and_never_share_one() -> None:
    barrier = Barrier(8)

    def work(_: int) -> list[UUID]:
        barrier.wait(timeout=30)
        return [uuid7() for _ in range(MANY // 8)]

    with ThreadPoolExecutor(8) as pool:
        lists = list(pool.map(work, range(8)))
    assert all(made == sorted(made) for made in lists)
    # Milliseconds and counter alone tell them apart: the random end is not what keeps them unique.
    assert len({each.int >> 32 for made in lists for each in made}) == MANY


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_fork_makes_others_that_still_follow_the_earlier_ones() -> None:
    before = uuid7()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, b"".join(uuid7().bytes for _ in range(500)))
        os._exit(0)
    os.close(writing)
    parents = [uuid7() for _ in range(500)]
    with os.fdopen(reading, "rb") as stream:
        data = stream.read()
    os.waitpid(child, 0)
    childs = [UUID(bytes=data[at : at + 16]) for at in range(0, len(data), 16)]
    assert len(childs) == 500
    assert len({each.int >> 32 for each in (*parents, *childs)}) == 1_000
    assert before < min(childs)
    assert childs == sorted(childs)
