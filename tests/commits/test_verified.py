"""
What a unit of work says when the answer to its COMMIT is lost on the way.
"""

from __future__ import annotations

import os
import signal
import threading
from time import monotonic
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import select, text
from sqlalchemy.engine import make_url
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from stillroom import Retry
from stillroom.errors import CommitOutcomeUnknown, Disconnected
from stillroom.status import Status
from stillroom.testing.servers import Proxy
from tests.commits.worlds import COMMIT, PSYCOPG, PYMYSQL, WORLDS, Place, World, column, databases, execute

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stillroom.testing.servers import PostgresPair

LIMIT = 0.5
"""The `commit_timeout` of these tests, in seconds."""

REACHED = {"cut_before": False, "cut_after": True, "black_hole": False, "black_hole_after": True}
"""Whether the server gets the COMMIT."""


class Site:
    """
    A table on a server, reached by the library through a proxy and by the test around it.
    """

    def __init__(self, world: World, url: str, proxy: Proxy) -> None:
        self.world = world
        self.url = url
        self.proxy = proxy
        execute(url, "CREATE TABLE item (id INTEGER PRIMARY KEY)")

    def open(self, **settings: Any) -> Place:
        """
        Declare the database; `settings` are added.
        """
        url = self.world.url(self.proxy.url(self.url))
        dbs = databases({"main": {"url": url, "commit_timeout": LIMIT, **settings}})
        return Place(dbs, is_async=self.world.is_async)

    def rows(self) -> list[int]:
        """
        Return the rows that are durable.
        """
        return column(self.url, "SELECT id FROM item ORDER BY id")


def insert(number: int) -> Any:
    return lambda session: session().execute(text("INSERT INTO item VALUES (:id)"), {"id": number})


@pytest.fixture(params=WORLDS, ids=str)
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    world = request.param
    url = request.getfixturevalue(world.fixture)
    with Proxy(port=make_url(url).port or 0) as proxy:
        yield Site(world, url, proxy)


@pytest.mark.parametrize("action", REACHED)
def test_with_verify_commit_the_outcome_is_what_the_server_did(site: Site, action: Any) -> None:
    with site.open(verify_commit=True) as place:
        assert place.unit(insert(1)).status is Status.COMMITTED
        site.proxy.on_client(COMMIT, action)
        start = monotonic()
        ended = place.unit(insert(2))
        took = monotonic() - start
        after = place.unit(insert(3))
    assert site.rows() == ([1, 2, 3] if REACHED[action] else [1, 3])
    if REACHED[action]:
        assert (ended.error, ended.status, ended.hooks) == (None, Status.COMMITTED, ["commit"])
    else:
        assert isinstance(ended.error, Disconnected)
        assert (ended.status, ended.hooks) == (Status.ROLLED_BACK, ["rollback"])
    assert took < 4 * LIMIT
    assert (after.error, after.status) == (None, Status.COMMITTED)


@pytest.mark.parametrize("action", REACHED)
def test_without_it_the_outcome_is_unknown_and_never_success(site: Site, action: Any) -> None:
    with site.open() as place:
        assert place.unit(insert(1)).status is Status.COMMITTED
        site.proxy.on_client(COMMIT, action)
        start = monotonic()
        ended = place.unit(insert(2))
        took = monotonic() - start
        after = place.unit(insert(3))
    assert isinstance(ended.error, CommitOutcomeUnknown)
    assert (ended.status, ended.hooks) == (Status.UNKNOWN, [])
    assert took < 4 * LIMIT
    assert (after.error, after.status) == (None, Status.COMMITTED)


@pytest.mark.parametrize(("action", "runs"), [("cut_before", 2), ("cut_after", 1), ("black_hole_after", 1)])
def test_a_verified_unit_is_run_again_only_if_it_was_rolled_back(site: Site, action: Any, runs: int) -> None:
    calls: list[int] = []
    with site.open(verify_commit=True) as place:
        assert place.unit(insert(1)).error is None
        site.proxy.on_client(COMMIT, action)
        assert place.call(body_of(calls), retry=Retry(attempts=5, base=0.01)) is None
    assert (len(calls), site.rows()) == (runs, [1, 2])


@pytest.mark.parametrize("action", ["cut_before", "cut_after"])
def test_a_unit_of_unknown_outcome_is_never_run_again(site: Site, action: Any) -> None:
    calls: list[int] = []
    with site.open() as place:
        assert place.unit(insert(1)).error is None
        site.proxy.on_client(COMMIT, action)
        error = place.call(body_of(calls), retry=Retry(attempts=5, base=0.01))
    assert isinstance(error, CommitOutcomeUnknown)
    assert (len(calls), site.rows()) == (1, [1, 2] if REACHED[action] else [1])


def body_of(calls: list[int]) -> Any:
    def body(session: Any) -> None:
        calls.append(1)
        session().execute(text("INSERT INTO item VALUES (2)"))

    return body


class Base(DeclarativeBase):
    """
    The models of this module.
    """


class Item(Base):
    """
    A row.
    """

    __tablename__ = "item"
    id: Mapped[int] = mapped_column(primary_key=True)


@pytest.mark.parametrize("commit", ["auto", "manual"])
def test_objects_stay_readable_when_the_settled_answer_is_committed(site: Site, commit: Any) -> None:
    execute(site.url, "INSERT INTO item VALUES (7)")
    with site.open(verify_commit=True) as place:
        assert place.unit(insert(1)).error is None
        site.proxy.on_client(COMMIT, "cut_after")

        def body(session: Any) -> list[Item]:
            old, new = session().get_one(Item, 7), Item(id=2)
            session().add(new)
            return [old, new]

        ended = place.unit(body) if commit == "auto" else place.unit_by_hand(body, insert(3))
    assert (ended.error, ended.status, ended.hooks) == (None, Status.COMMITTED, ["commit"])
    assert [item.id for item in ended.seen] == [7, 2]
    assert site.rows() == ([1, 2, 7] if commit == "auto" else [1, 2, 3, 7])


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("world", [PSYCOPG, PYMYSQL], ids=str)
def test_an_interrupt_from_the_keyboard_during_commit_tells_the_truth(
    world: World, verify: bool, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue(world.fixture)
    with Proxy(port=make_url(url).port or 0) as proxy:
        site = Site(world, url, proxy)
        with site.open(verify_commit=verify) as place:
            assert place.unit(insert(1)).error is None
            trigger = proxy.on_client(COMMIT, "black_hole_after")

            def interrupt() -> None:
                trigger.wait()
                os.kill(os.getpid(), signal.SIGINT)

            other = threading.Thread(target=interrupt)
            other.start()
            ended = place.unit(insert(2))
            other.join()
        assert isinstance(ended.error, KeyboardInterrupt)
        assert ended.status is (Status.COMMITTED if verify else Status.UNKNOWN)
        assert ended.hooks == (["commit"] if verify else [])
        assert site.rows() == [1, 2]


def test_after_a_failover_the_outcome_is_unknown(pg_pair: PostgresPair) -> None:
    with Proxy(port=pg_pair.primary.port) as proxy, pg_pair.database() as (url, _):
        site = Site(PSYCOPG, url, proxy)
        with site.open(verify_commit=True, commit_timeout=10) as place:
            assert place.unit(insert(1)).error is None
            pg_pair.wait_for_standby()
            trigger = proxy.on_client(COMMIT, "black_hole_after")

            def fail_over() -> None:
                trigger.wait()
                pg_pair.promote()
                proxy.redirect(pg_pair.standby_url)
                proxy.cut()

            other = threading.Thread(target=fail_over)
            other.start()
            ended = place.unit(insert(2))
            other.join()
    assert isinstance(ended.error, CommitOutcomeUnknown)
    assert (ended.status, ended.hooks) == (Status.UNKNOWN, [])


def test_a_unit_that_wrote_nothing_asks_for_nothing(postgresql_database: str) -> None:
    with Proxy(port=make_url(postgresql_database).port or 0) as proxy:
        site = Site(PSYCOPG, postgresql_database, proxy)
        with site.open(verify_commit=True) as place:
            for _ in range(2):
                proxy.reset()
                place.unit(lambda session: session().execute(select(Item)).all())
            assert proxy.trips == 2


@pytest.mark.parametrize("action", ["black_hole", "black_hole_after"])
def test_what_is_flushed_only_by_the_commit_is_bounded_as_well(site: Site, action: Any) -> None:
    with site.open(verify_commit=True) as place:
        assert place.unit(insert(1)).error is None
        site.proxy.on_client(COMMIT, action)
        start = monotonic()
        ended = place.unit(lambda session: session().add(Item(id=2)))
        assert monotonic() - start < 8 * LIMIT
    assert ended.status is (Status.COMMITTED if REACHED[action] else Status.ROLLED_BACK)
