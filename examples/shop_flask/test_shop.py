"""Tests of the shop: run `pytest` here. Each begins with the shop as it opens, and what it does is undone."""

import threading
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from json import dumps

import pytest
from shop import LogLine, Order, Track, create_app
from sqlalchemy import select
from werkzeug.serving import make_server


@pytest.fixture
def app(databases):
    return create_app()


@pytest.fixture
def client(app):
    return app.test_client()


@pytest.fixture
def track(uow):
    track = Track(name="Low Tide", copies=2)
    uow.main.add(track)
    uow.commit()  # for the application to see it
    return track


def test_an_order_is_there_and_a_copy_is_gone(client, track, session):
    answer = client.post("/orders", json={"number": "A-1", "track_id": track.id})

    assert answer.status_code == 201
    assert session.get(Order, "A-1").track_id == track.id
    session.refresh(track)
    assert track.copies == 1


def test_an_order_of_what_is_sold_out_leaves_only_a_line_in_the_log(client, track, uow):
    track.copies = 0
    uow.commit()

    answer = client.post("/orders", json={"number": "A-1", "track_id": track.id})

    assert answer.status_code == 409
    assert answer.json == {"error": "'Low Tide' is sold out"}
    assert uow.main.get(Order, "A-1") is None
    assert uow.logger.scalars(select(LogLine.text)).all() == ["order A-1"]


def test_an_order_that_is_sent_twice_takes_one_copy(client, track, session):
    order = {"number": "A-1", "track_id": track.id}

    assert [client.post("/orders", json=order).status_code for _ in range(2)] == [201, 409]
    session.refresh(track)
    assert track.copies == 1


def test_the_list_takes_one_statement_however_long_it_is(client, uow, assert_queries):
    uow.main.add_all(Track(name=f"Etude {number}", copies=1) for number in range(50))
    uow.commit()

    with assert_queries(1):
        answer = client.get("/tracks")

    assert len(answer.json) == 52


@pytest.fixture
def order(app):
    """Send orders to a real server, which runs in a thread; return the status of its answer."""
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()

    def order(number, track):
        connection = HTTPConnection("127.0.0.1", server.server_port)
        body = dumps({"number": number, "track_id": track.id})
        connection.request("POST", "/orders", body, {"Content-Type": "application/json"})
        status = connection.getresponse().status
        connection.close()
        return status

    yield order
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_order_at_a_real_server_is_undone_as_well(order, track, session):
    assert order("A-1", track) == 201
    assert session.get(Order, "A-1") is not None


@pytest.mark.databases(isolation="committed")  # real transactions, which wait for each other
def test_of_many_customers_at_once_two_get_the_two_copies(order, track, session):
    with ThreadPoolExecutor(4) as customers:
        answers = list(customers.map(lambda number: order(f"A-{number}", track), range(8)))

    assert sorted(answers) == [201, 201, *[409] * 6]
    session.refresh(track)
    assert track.copies == 0
