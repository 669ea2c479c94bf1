"""Makes up what customers send, and the accidents that are to happen on the way."""

from __future__ import annotations

import os
import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import event

from stillroom.demo.problems import DemoError
from stillroom.demo.shop import Request

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stillroom import UnitOfWork

__all__ = ["BETWEEN_COMMITS", "BUG", "CRASH", "CRASHES", "POOR", "TWICE", "accident", "make_requests"]

POOR = "customer without money"
BUG = "exception in the middle"
TWICE = "order sent twice"
CRASH = "process dies in the middle"
BETWEEN_COMMITS = "process dies between two COMMITs"
CRASHES = (CRASH, BETWEEN_COMMITS)

# In each run of so many requests, these positions go wrong.
CYCLE = 20
MISHAPS = {7: POOR, 11: BUG, 18: TWICE}
# Everybody wants these few tracks, and a few customers buy most.
HITS, REGULARS = 12, 8
FEWEST_TRACKS = 3  # a hit and two that nobody else wants


def accident(uow: UnitOfWork, request: Request) -> None:
    """
    Let happen what the request is to suffer from, when everything is written and nothing is committed.

    Raises:
        RuntimeError: A bug, on purpose.
    """
    if request.mishap == BUG:
        raise RuntimeError("a bug, on purpose")
    if request.mishap == CRASH:
        os._exit(1)
    if request.mishap == BETWEEN_COMMITS:
        # `catalog` is committed (or prepared) first; SQLAlchemy calls this when `sales` is about to be.
        event.listen(uow.sales, "before_commit", lambda _: os._exit(1))


def make_requests(
    tracks: Sequence[int], customers: Sequence[tuple[int, int]], *, count: int, processes: int
) -> list[Request]:
    """
    Make up requests, always the same ones for the same shop.

    Args:
        tracks: The ids.
        customers: Ids and balances, in cents.
        count: How many requests.
        processes: How many processes share them in turn; one that is sent twice goes to the same process.

    Raises:
        DemoError: There are too few tracks, or no customer has money.
    """
    regulars = [id_ for id_, balance in customers if balance >= 100][:REGULARS]
    if len(tracks) < FEWEST_TRACKS or not regulars:
        raise DemoError(
            f"the data set has {len(tracks)} track(s) and {len(regulars)} customer(s) with money; the demo needs at "
            f"least {FEWEST_TRACKS} and 1"
        )
    poor = [id_ for id_, balance in customers if balance < 100]
    *tracks, quiet, locked = tracks
    hits = tracks[:HITS]
    dice = random.Random(1)  # noqa: S311  # the same requests in every run
    mishaps = dict.fromkeys(range(count), "")
    mishaps |= {position: MISHAPS.get(position % CYCLE, "") for position in mishaps}
    mishaps |= {count // 3: CRASH, 2 * count // 3: BETWEEN_COMMITS}
    requests: list[Request] = []
    for position in range(count):
        wanted = dice.sample(hits if dice.random() < 0.8 else tracks, k=dice.randint(1, min(3, len(hits))))
        request = Request(
            id=position + 1,
            order_number=f"S-{position + 1:06}",
            customer_id=dice.choice(regulars),
            items=tuple((track, dice.randint(1, 2)) for track in wanted),
            mishap=mishaps[position],
        )
        requests.append(_prepared(request, requests[-processes:], poor, (quiet, locked)))
    return requests


def _prepared(request: Request, before: Sequence[Request], poor: Sequence[int], spare: tuple[int, int]) -> Request:
    # Tracks that nobody else wants: what happens is the accident, and not "out of stock" before it.
    quiet, locked = spare
    changes: dict[str, Any] = {}
    if request.mishap == BETWEEN_COMMITS:
        # What a dead process leaves prepared on PostgreSQL keeps its rows locked until recovery.
        changes = {"items": ((locked, 1),)}
    elif request.mishap in (BUG, CRASH):
        changes = {"items": ((quiet, 1),)}
    elif request.mishap == POOR and poor:
        changes = {"customer_id": poor[request.id % len(poor)], "items": ((quiet, 1),)}
    elif request.mishap == TWICE and not before[0].mishap:
        changes = {name: getattr(before[0], name) for name in ("order_number", "customer_id", "items")}
    elif request.mishap:
        changes = {"mishap": ""}
    return replace(request, **changes)
