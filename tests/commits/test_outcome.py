"""
What a unit of work over several databases says when one of them fails at its commit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import IntegrityError

from stillroom.errors import CommitOutcomeUnknown, MultipleWritesRefused, PartialCommitError
from stillroom.status import Status
from stillroom.testing.servers import Proxy
from tests.commits.worlds import COMMIT, PSYCOPG, PSYCOPG_ASYNC, Place, column, databases, execute

if TYPE_CHECKING:
    from collections.abc import Iterator

LATE = "CREATE TABLE late (id INTEGER REFERENCES item DEFERRABLE INITIALLY DEFERRED)"


class Shop:
    """
    The databases "audit" (SQLite) and "main" (PostgreSQL, the default), each with an empty table `item`.
    """

    def __init__(self, urls: dict[str, str], world: Any, proxy: Proxy) -> None:
        self.urls = urls
        self.world = world
        self.proxy = proxy
        for url in urls.values():
            execute(url, "CREATE TABLE item (id INTEGER PRIMARY KEY)", LATE)

    def open(self, **top: Any) -> Place:
        """
        Declare them.
        """
        main = self.world.url(self.proxy.url(self.urls["main"]))
        settings = {"audit": {"url": self.urls["audit"]}, "main": {"url": main}}
        return Place(databases(settings, **top), is_async=self.world.is_async)

    def rows(self) -> list[list[int]]:
        """
        Return what is durable in "audit" and in "main".
        """
        return [column(self.urls[name], "SELECT id FROM item") for name in ("audit", "main")]


@pytest.fixture(params=[PSYCOPG, PSYCOPG_ASYNC], ids=str)
def shop(request: pytest.FixtureRequest, sqlite_database: str, postgresql_database: str) -> Iterator[Shop]:
    urls = {"audit": sqlite_database, "main": postgresql_database}
    with Proxy(port=make_url(postgresql_database).port or 0) as proxy:
        yield Shop(urls, request.param, proxy)


def write_both(session: Any) -> None:
    for name in ("main", "audit"):
        session(name).execute(text("INSERT INTO item VALUES (1)"))


def fail_late(name: str) -> Any:
    def body(session: Any) -> None:
        write_both(session)
        session(name).execute(text("INSERT INTO late VALUES (99)"))

    return body


def test_a_default_database_that_fails_last_is_a_partial_commit_that_says_what_is_durable(shop: Shop) -> None:
    with shop.open() as place:
        ended = place.unit(fail_late("main"))
    assert isinstance(ended.error, PartialCommitError)
    assert (ended.error.committed, ended.error.failed, ended.error.not_committed) == (("audit",), ("main",), ())
    assert isinstance(ended.error.errors["main"], IntegrityError)
    assert (ended.status, ended.hooks) == (Status.PARTLY_COMMITTED, [])
    assert shop.rows() == [[1], []]


def test_a_database_that_fails_first_leaves_nothing_durable(shop: Shop) -> None:
    with shop.open() as place:
        ended = place.unit(fail_late("audit"))
    assert isinstance(ended.error, IntegrityError)
    assert (ended.status, ended.hooks) == (Status.ROLLED_BACK, ["rollback"])
    assert shop.rows() == [[], []]


def test_a_last_answer_that_is_lost_is_a_partial_commit_of_unknown_rest(shop: Shop) -> None:
    with shop.open() as place:
        place.unit(lambda session: session().execute(text("SELECT 1")))
        shop.proxy.on_client(COMMIT, "cut_after")
        ended = place.unit(write_both)
    assert isinstance(ended.error, PartialCommitError)
    assert isinstance(ended.error.errors["main"], CommitOutcomeUnknown)
    assert "unknown" in str(ended.error)
    assert ended.status is Status.PARTLY_COMMITTED


def test_refuse_commits_nothing_when_two_were_written(shop: Shop) -> None:
    with shop.open(on_multiple_writes="refuse") as place:
        ended = place.unit(write_both)
        assert isinstance(ended.error, MultipleWritesRefused)
        assert ended.status is Status.ROLLED_BACK
        assert place.unit(lambda session: session("audit").execute(text("INSERT INTO item VALUES (5)"))).error is None
    assert shop.rows() == [[5], []]


def test_two_phase_turns_the_same_failure_into_nothing_at_all(shop: Shop, make_layout: Any) -> None:
    layout = make_layout(audit="sqlite", main="psycopg-async" if shop.world.is_async else "psycopg")
    for url in layout.urls.values():
        execute(url, LATE)
    with layout.open() as place:
        for name in ("audit", "main"):
            ended = place.unit(lambda session, name=name: write_two_and_fail(session, name))
            assert isinstance(ended.error, IntegrityError)
            assert ended.status is Status.ROLLED_BACK
    assert layout.rows() == {"audit": [1], "main": [1]}
    assert layout.in_doubt() == []


def write_two_and_fail(session: Any, where: str) -> None:
    for name in ("main", "audit"):
        session(name).execute(text("INSERT INTO item VALUES (2)"))
    session(where).execute(text("INSERT INTO late VALUES (99)"))
