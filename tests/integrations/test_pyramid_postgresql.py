"""
Pyramid on PostgreSQL: errors that are worth another try under pyramid_retry, and two-phase commit.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from pyramid.response import Response
from pyramid_retry import is_error_retryable
from sqlalchemy import insert, select, text
from webtest import TestApp as Client

from stillroom import Databases, SerializationFailure, classify
from tests.integrations.pyramid_apps import WAYS, application, name_of_way
from tests.support import servers
from tests.unit_of_work.shop import Item, made, names

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyramid.config import Configurator

    from stillroom.testing.servers import PostgresServer

each_way = pytest.mark.parametrize("way", WAYS, ids=name_of_way)


@pytest.fixture
def dbs(postgresql_database: str) -> Iterator[Databases]:
    main = {"url": postgresql_database, "isolation": "SERIALIZABLE"}
    with made({"main": main}) as databases:
        yield databases


@contextmanager
def rival(dbs: Databases) -> Iterator[None]:
    """
    Read and write what the block does, and commit after it: one of the two cannot be serialized.
    """
    with dbs.main.begin() as connection:
        connection.execute(select(Item.__table__)).all()
        connection.execute(insert(Item).values(name="rival", amount=0))
        yield


def retrying(way: dict[str, Any]) -> dict[str, Any]:
    return way | {"pyramid.includes": f"{way.get('pyramid.includes', '')} pyramid_retry"}


class Shown:
    """
    An exception view that catches everything, and notes what it is told of it.
    """

    def __init__(self) -> None:
        self.errors: list[tuple[str, bool]] = []

    def configure(self, config: Configurator) -> None:
        config.add_exception_view(self.answer, Exception)

    def answer(self, error: Exception, request: Any) -> Response:
        kind = classify(error)
        self.errors.append((kind.value if kind is not None else "?", is_error_retryable(request, error)))
        return Response("sorry", status=500)


@each_way
def test_a_serialization_failure_at_commit_is_tried_again_although_a_view_catches_everything(
    dbs: Databases, way: dict[str, Any]
) -> None:
    attempts: list[int] = []

    def view(request: Any) -> str:
        attempts.append(request.environ["retry.attempt"])
        request.main.scalars(select(Item)).all()
        if len(attempts) > 1:
            request.main.add(Item(name=f"attempt {len(attempts)}"))
            return "done"
        with rival(dbs):
            request.main.add(Item(name="attempt 1"))
            request.main.flush()
        return "not yet"

    shown = Shown()
    answer = Client(application(dbs, retrying(way), view, shown.configure)).get("/")
    assert (answer.status_int, answer.text, attempts) == (200, "done", [0, 1])
    assert shown.errors == [("serialization_failure", True)]
    assert names(dbs) == ["rival", "attempt 2"]


@each_way
def test_the_last_attempt_is_answered_by_the_view_that_catches_everything(dbs: Databases, way: dict[str, Any]) -> None:
    def view(request: Any) -> str:
        request.main.add(Item(name="never"))
        request.main.flush()
        raise SerializationFailure("another was faster")

    shown = Shown()
    Client(application(dbs, retrying(way), view, shown.configure)).get("/", status=500)
    kind = "serialization_failure"
    assert shown.errors == [(kind, True), (kind, True), (kind, False)]
    assert names(dbs) == []


def test_an_error_that_would_come_again_is_not_tried_again(dbs: Databases) -> None:
    def view(request: Any) -> None:
        request.main.add_all([Item(name="twice"), Item(name="twice")])

    shown = Shown()
    Client(application(dbs, retrying(WAYS[0]), view, shown.configure)).get("/", status=500)
    assert shown.errors == [("unique_violation", False)]


@each_way
def test_two_phase_commit_is_a_setting(pg_server: PostgresServer, way: dict[str, Any]) -> None:
    with (
        servers.postgresql_database(pg_server.url) as one,
        servers.postgresql_database(pg_server.url) as two,
        made({"one": one, "two": two}, default="one", on_multiple_writes="two_phase") as dbs,
    ):
        with dbs.one.begin() as connection:  # what the coordinator does last
            connection.execute(text("ALTER TABLE item DROP CONSTRAINT item_name_key"))
            connection.execute(text("ALTER TABLE item ADD UNIQUE (name) DEFERRABLE INITIALLY DEFERRED"))

        def view(request: Any) -> None:
            request.one.add(Item(name="flute"))
            request.two.add(Item(name=f"after {len(request.two.scalars(select(Item)).all())}"))

        shown = Shown()
        client = Client(application(dbs, way, view, shown.configure))
        client.get("/")
        client.get("/", status=500)
        assert (names(dbs, "one"), names(dbs, "two")) == (["flute"], ["after 0"])
        assert dbs.recover(min_age=0) == []
