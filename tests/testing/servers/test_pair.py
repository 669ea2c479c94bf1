"""
A primary and its standby: the standby follows, lags, pauses, is promoted, and both come back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

from stillroom.testing.errors import TestingError
from stillroom.testing.servers import Proxy, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stillroom.testing.servers import PostgresPair, Side

# Longer than any test here takes, in seconds: a standby with this lag shows nothing new.
FOREVER = 3600.0


class Table:
    """
    A table with numbers, as both sides show it.
    """

    def __init__(self, pair: PostgresPair, database: str) -> None:
        self.pair = pair
        self.database = database

    def insert(self, number: int, side: Side = "primary") -> None:
        """
        Insert and commit.
        """
        server = self.pair.primary if side == "primary" else self.pair.standby
        server.sql(f"INSERT INTO seen VALUES ({number})", database=self.database)

    def on(self, side: Side) -> list[int]:
        """
        Return the numbers that one of them shows.
        """
        server = self.pair.primary if side == "primary" else self.pair.standby
        return [int(line) for line in server.sql("SELECT n FROM seen ORDER BY n", database=self.database).split()]

    def received(self) -> bool:
        """
        Say whether the standby has received, applied or not, what the primary has written.
        """
        position = self.pair.primary.sql("SELECT pg_current_wal_flush_lsn()")
        return self.pair.standby.sql(f"SELECT pg_last_wal_receive_lsn() >= '{position}'") == "t"


@pytest.fixture
def seen(pg_pair: PostgresPair) -> Iterator[Table]:
    with pg_pair.database() as (url, _):
        name = url.rpartition("/")[2]
        pg_pair.primary.sql("CREATE TABLE seen (n int)", "INSERT INTO seen VALUES (1)", database=name)
        pg_pair.wait_for_standby()
        yield Table(pg_pair, name)


def test_the_standby_shows_what_the_primary_committed_and_refuses_writes(pg_pair: PostgresPair, seen: Table) -> None:
    seen.insert(2)
    pg_pair.wait_for_standby()
    assert seen.on("standby") == [1, 2]
    with pytest.raises(TestingError, match="read-only transaction"):
        seen.insert(3, "standby")
    assert not pg_pair.promoted


def test_the_urls_of_a_database_lead_to_both(pg_pair: PostgresPair) -> None:
    with pg_pair.database("shop_test") as (primary, standby):
        for url, is_standby in [(primary, False), (standby, True)]:
            with psycopg.connect(url) as connection:
                row = connection.execute("SELECT current_database(), pg_is_in_recovery()").fetchone()
                assert row == ("shop_test", is_standby)


def test_a_lagging_standby_has_received_what_it_does_not_show(pg_pair: PostgresPair, seen: Table) -> None:
    pg_pair.lag(FOREVER)
    seen.insert(2)
    wait_until(seen.received, "the standby has received the row")
    assert seen.on("standby") == [1]
    with pytest.raises(TimeoutError, match=r"has applied the log up to \w+/\w+; it is behind"):
        pg_pair.wait_for_standby(timeout=0.1)


def test_a_lag_ends_at_once_for_what_waits_already(pg_pair: PostgresPair, seen: Table) -> None:
    pg_pair.lag(FOREVER)
    seen.insert(2)
    wait_until(seen.received, "the standby has received the row")
    pg_pair.lag(0)
    pg_pair.wait_for_standby()
    assert seen.on("standby") == [1, 2]


def test_a_row_is_shown_no_earlier_than_the_lag_says(pg_pair: PostgresPair, seen: Table) -> None:
    pg_pair.lag(0.5)
    statement = "UPDATE seen SET n = 2 RETURNING extract(epoch FROM clock_timestamp())"
    written = float(pg_pair.primary.sql(statement, database=seen.database))
    pg_pair.wait_for_standby()  # whose patience has the lag in it
    shown = float(pg_pair.standby.sql("SELECT extract(epoch FROM clock_timestamp())"))
    assert seen.on("standby") == [2]
    assert shown - written >= 0.45  # the clocks of PostgreSQL and the commit itself are a little apart


def test_a_negative_lag_is_refused(pg_pair: PostgresPair) -> None:
    with pytest.raises(ValueError, match=r"ahead of its primary: lag\(-1\)"):
        pg_pair.lag(-1)


def test_a_paused_standby_shows_what_it_had_until_it_is_resumed(pg_pair: PostgresPair, seen: Table) -> None:
    pg_pair.pause()
    seen.insert(2)
    wait_until(seen.received, "the standby has received the row")
    assert seen.on("standby") == [1]
    with pytest.raises(TimeoutError, match=r"it is paused, resume\(\) lets it go on"):
        pg_pair.wait_for_standby(timeout=0.1)
    pg_pair.resume()
    pg_pair.wait_for_standby()
    assert seen.on("standby") == [1, 2]


def test_a_lagging_standby_can_be_paused(pg_pair: PostgresPair, seen: Table) -> None:
    pg_pair.lag(FOREVER)
    seen.insert(2)
    wait_until(seen.received, "the standby has received the row")
    pg_pair.pause()
    pg_pair.lag(0)
    assert seen.on("standby") == [1]


def test_a_promoted_standby_has_what_it_received_and_takes_writes(pg_pair: PostgresPair, seen: Table) -> None:
    pg_pair.lag(FOREVER)
    seen.insert(2)
    wait_until(seen.received, "the standby has received the row")
    pg_pair.kill()
    pg_pair.promote()
    assert pg_pair.promoted
    seen.insert(3, "standby")
    assert seen.on("standby") == [1, 2, 3]
    with pytest.raises(TestingError, match="Connection refused"):
        seen.on("primary")


def test_a_paused_standby_can_be_promoted(pg_pair: PostgresPair, seen: Table) -> None:
    pg_pair.pause()
    pg_pair.promote()
    seen.insert(2, "standby")
    assert (seen.on("primary"), seen.on("standby")) == ([1], [1, 2])


def test_what_follows_nobody_can_be_neither_awaited_nor_promoted_again(pg_pair: PostgresPair) -> None:
    pg_pair.promote()
    with pytest.raises(TestingError, match=r"was promoted and follows nobody any more; restore\(\)"):
        pg_pair.wait_for_standby()
    with pytest.raises(TestingError, match="recovery is not in progress"):
        pg_pair.promote()


def test_a_killed_primary_comes_back_with_what_was_committed(pg_pair: PostgresPair, seen: Table) -> None:
    seen.insert(2)
    pg_pair.kill()
    assert pg_pair.primary.pid is None
    wait_until(lambda: seen.on("standby") == [1, 2], "the standby goes on alone")
    pg_pair.start()
    seen.insert(3)
    pg_pair.wait_for_standby()
    assert seen.on("standby") == [1, 2, 3]


def test_a_killed_standby_catches_up_when_it_is_back(pg_pair: PostgresPair, seen: Table) -> None:
    pg_pair.kill("standby")
    seen.insert(2)
    with pytest.raises(TestingError, match="Connection refused"):
        pg_pair.wait_for_standby()
    pg_pair.start("standby")
    pg_pair.wait_for_standby()
    assert seen.on("standby") == [1, 2]


def test_restore_makes_a_new_standby_of_a_promoted_one(pg_pair: PostgresPair, seen: Table) -> None:
    url = pg_pair.standby_url
    pg_pair.lag(FOREVER)
    pg_pair.kill()
    pg_pair.promote()
    seen.insert(2, "standby")
    pg_pair.restore()
    assert (pg_pair.standby_url, pg_pair.promoted) == (url, False)
    assert (seen.on("primary"), seen.on("standby")) == ([1], [1])
    seen.insert(3)
    pg_pair.wait_for_standby()
    assert seen.on("standby") == [1, 3]


def test_restore_ends_lag_and_pause(pg_pair: PostgresPair, seen: Table) -> None:
    pg_pair.lag(FOREVER)
    pg_pair.pause()
    seen.insert(2)
    pg_pair.restore()
    pg_pair.wait_for_standby()
    assert seen.on("standby") == [1, 2]


def test_a_pair_says_where_it_is_and_whether_it_runs(pg_pair: PostgresPair) -> None:
    pg_pair.kill("standby")
    said = repr(pg_pair)
    assert f"{pg_pair.primary_url} in {pg_pair.primary.directory}: runs" in said
    assert f"{pg_pair.standby_url} in {pg_pair.standby.directory}: does not run" in said


def test_an_address_that_moves_leads_to_the_promoted_standby(pg_pair: PostgresPair, seen: Table) -> None:
    with Proxy(port=pg_pair.primary.port) as address:
        url = address.url(pg_pair.primary.database_url(seen.database))
        with psycopg.connect(url, autocommit=True) as connection:
            pg_pair.kill()
            with pytest.raises(psycopg.OperationalError):
                connection.execute("SELECT 1")
        pg_pair.promote()
        address.redirect(pg_pair.standby_url)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("INSERT INTO seen VALUES (2)")
    assert seen.on("standby") == [1, 2]
