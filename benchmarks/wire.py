"""
How long does a unit of work take where each round trip to the server costs a millisecond?
"""

from __future__ import annotations

from stillroom.testing.servers import Proxy

from . import peers
from .measuring import compare
from .report import Result, Scale, Table
from .workload import database, noting, read, with_driver, write

ONE_WAY = 0.0005
"""Seconds that the proxy holds each message back, in each direction."""


def run(scale: Scale) -> Result:
    """
    Measure the time on the clock of reading and writing units over a slow wire.
    """
    result = Result()
    with noting(result, "PostgreSQL"), database("postgresql") as plain, Proxy(delay=ONE_WAY, settle=0) as proxy:
        url = with_driver(proxy.url(plain), "postgresql+psycopg")
        rounds, batch = scale.pick(12, 2), scale.pick(15, 3)
        for title, body, makers in (
            ("reading", read, (peers.bare, _pinging, peers.stillroom_reader, peers.stillroom, *peers.LIBRARIES)),
            ("writing", write, (peers.bare, _pinging, peers.stillroom, *peers.LIBRARIES)),
        ):
            with peers.opened(*makers, url=url, notes=result.notes) as found:
                measured = compare([(peer.name, peer.doing(body)) for peer in found], rounds=rounds, batch=batch)
            result.tables.append(
                Table(
                    f"A {title} unit, PostgreSQL with psycopg, 1 ms a round trip (ratios to the first line)",
                    ("way", "wall", "ms"),
                    [(each.name, each.wall, each.wall_microseconds / 1000) for each in measured],
                )
            )
    return result


def _pinging(url: str) -> peers.Peer:
    peer = peers.bare(url, pool_pre_ping=True)
    return peers.Peer("bare Session, pool_pre_ping", peer.engine, peer.unit)
