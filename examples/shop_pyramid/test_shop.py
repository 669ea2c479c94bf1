"""Tests of the shop: run `pytest` here. Each begins with empty tables, and what it does is undone."""

from pathlib import Path

import pytest
from pyramid.paster import get_app
from shop import LogLine, Order, Track
from sqlalchemy import select
from webtest import TestApp

from stillroom.integrations.pyramid import databases_of


@pytest.fixture(scope="session")
def app():
    return get_app(str(Path(__file__).with_name("test.ini")))


@pytest.fixture(scope="session")
def application_databases(app):
    return databases_of(app.registry)


@pytest.fixture
def client(app, databases):
    return TestApp(app)


@pytest.fixture
def track(uow):
    track = Track(name="Low Tide", copies=2)
    uow.main.add(track)
    uow.commit()  # for the application to see it
    return track


def test_an_order_is_there_and_a_copy_is_gone(client, track, session):
    client.post_json("/orders", {"number": "A-1", "track_id": track.id}, status=201)

    assert session.get(Order, "A-1").track_id == track.id
    session.refresh(track)
    assert track.copies == 1


def test_an_order_of_what_is_sold_out_leaves_only_a_line_in_the_log(client, track, uow):
    track.copies = 0
    uow.commit()

    answer = client.post_json("/orders", {"number": "A-1", "track_id": track.id}, status=409)

    assert answer.json == {"error": "'Low Tide' is sold out"}
    assert uow.main.get(Order, "A-1") is None
    assert uow.logger.scalars(select(LogLine.text)).all() == ["order A-1"]


def test_an_order_that_is_sent_twice_takes_one_copy(client, track, session):
    order = {"number": "A-1", "track_id": track.id}

    client.post_json("/orders", order, status=201)
    client.post_json("/orders", order, status=409)
    session.refresh(track)
    assert track.copies == 1


def test_the_list_takes_one_statement_however_long_it_is(client, uow, assert_queries):
    uow.main.add_all(Track(name=f"Etude {number}", copies=1) for number in range(50))
    uow.commit()

    with assert_queries(1):
        answer = client.get("/tracks")

    assert len(answer.json) == 50
