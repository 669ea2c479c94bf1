"""
What a unit of work costs on the wire, counted by a proxy between warm pools and the server.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.engine import make_url
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from stillroom.testing.servers import Proxy
from tests.commits.worlds import AIOMYSQL, ASYNCPG, PSYCOPG, PSYCOPG_ASYNC, PYMYSQL, WORLDS, Place, databases, execute

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


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
    amount: Mapped[int]


class Wire:
    """
    A database behind a counting proxy.
    """

    def __init__(self, world: Any, url: str, proxy: Proxy) -> None:
        self.world = world
        self.url = url
        self.proxy = proxy

    def open(self, **settings: Any) -> Place:
        """
        Declare the database; `settings` are added.
        """
        url = self.world.url(self.proxy.url(self.url))
        return Place(databases({"main": {"url": url, **settings}}), is_async=self.world.is_async)

    def trips(self, place: Place, body: Callable[[Any], Any], **options: Any) -> int:
        """
        Return what a unit of work costs, once connections and prepared statements are settled.
        """
        counts = []
        for _ in range(9):
            self.proxy.reset()
            ended = place.unit(body, **options)
            assert ended.error is None
            counts.append(self.proxy.trips)
        assert len(set(counts[-3:])) == 1, counts
        return counts[-1]


@pytest.fixture(params=WORLDS, ids=str)
def wire(request: pytest.FixtureRequest) -> Iterator[Wire]:
    world = request.param
    url = request.getfixturevalue(world.fixture)
    execute(url, "CREATE TABLE item (id INTEGER PRIMARY KEY, amount INTEGER)", "INSERT INTO item VALUES (1, 0)")
    with Proxy(port=make_url(url).port or 0) as proxy:
        yield Wire(world, url, proxy)


def read(session: Any) -> None:
    session(role="reader").execute(text("SELECT amount FROM item")).all()


def update(session: Any) -> Any:
    session().execute(text("UPDATE item SET amount = amount + 1"))


def get_and_change(session: Any) -> None:
    session().get_one(Item, 1).amount += 1


def two_reads(session: Any) -> None:
    reader = session(role="reader", snapshot=True)
    for _ in range(2):
        reader.execute(text("SELECT amount FROM item")).all()


def test_a_unit_that_reads_once_costs_one_round_trip(wire: Wire) -> None:
    with wire.open() as place:
        assert wire.trips(place, read) == 1
        assert wire.trips(place, read, read_only=True) == 1


WRITING = {PSYCOPG: 2, PSYCOPG_ASYNC: 2, ASYNCPG: 3, PYMYSQL: 2, AIOMYSQL: 2}


def test_a_unit_that_writes_once_costs_two_and_where_begin_is_sent_alone_three(wire: Wire) -> None:
    with wire.open() as place:
        assert wire.trips(place, update) == WRITING[wire.world]


def test_a_unit_that_gets_an_object_and_changes_it_costs_one_more(wire: Wire) -> None:
    with wire.open() as place:
        assert wire.trips(place, get_and_change) == WRITING[wire.world] + 1


def test_a_unit_that_is_rolled_back_costs_no_more_than_one_that_is_committed(wire: Wire) -> None:
    with wire.open() as place:
        for _ in range(2):  # from the fifth on, psycopg prepares statements, and after a ROLLBACK it forgets them
            assert place.unit(update).error is None
        wire.proxy.reset()
        ended = place.unit(lambda session: (update(session), 1 / 0))
        assert isinstance(ended.error, ZeroDivisionError)
        assert wire.proxy.trips == WRITING[wire.world]


def test_a_unit_that_opens_a_session_and_sends_nothing_costs_nothing(wire: Wire) -> None:
    with wire.open() as place:
        assert wire.trips(place, lambda session: session()) == 0


SNAPSHOT = {PSYCOPG: 3, PSYCOPG_ASYNC: 3, ASYNCPG: 4, PYMYSQL: 5, AIOMYSQL: 5}
"""Two statements each; psycopg sends BEGIN with the first, MariaDB needs two statements to begin."""


def test_a_snapshot_of_two_statements_costs_what_is_documented(wire: Wire) -> None:
    with wire.open() as place:
        assert wire.trips(place, two_reads) == SNAPSHOT[wire.world]


def test_a_verified_commit_costs_one_more(wire: Wire) -> None:
    with wire.open(verify_commit=True) as place:
        assert wire.trips(place, update) == WRITING[wire.world] + 1
        assert wire.trips(place, read) == 1


def test_a_time_limit_of_a_unit_costs_one_on_psycopg_to_lift_it_before_commit(wire: Wire) -> None:
    if wire.world.driver != "psycopg":
        pytest.skip("elsewhere setting the limit is a statement of its own too")
    with wire.open() as place:
        assert wire.trips(place, update, timeout=30) == WRITING[wire.world] + 1


def test_isolation_costs_nothing_on_psycopg(wire: Wire) -> None:
    if wire.world.driver != "psycopg":
        pytest.skip("elsewhere it is a statement of its own")
    with wire.open() as place:
        assert wire.trips(place, update, isolation="SERIALIZABLE") == WRITING[wire.world]


def test_a_busy_connection_is_not_pinged_and_one_that_was_idle_once(wire: Wire) -> None:
    with wire.open(ping_after=60) as place:
        expected = wire.trips(place, update)
        make_idle(place, 59)
        assert wire.trips(place, update) == expected
        make_idle(place, 61)
        wire.proxy.reset()
        assert place.unit(update).error is None
        assert wire.proxy.trips == expected + 1
        assert wire.trips(place, update) == expected


def make_idle(place: Place, seconds: float) -> None:
    """
    Make the pooled connection believe that it was returned `seconds` ago.
    """
    main = place.dbs["main"]
    engine = main.engine if place.runner is None else main.async_engine.sync_engine

    def age(dbapi_connection: Any, record: Any, proxy: Any) -> None:
        record.info["stillroom"].used_at -= seconds

    event.listen(engine, "checkout", age, insert=True, once=True)
