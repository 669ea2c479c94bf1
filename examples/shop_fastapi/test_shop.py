"""Tests of the shop: run `pytest` here. Each begins with empty tables, and what it does is undone."""

import pytest
from httpx import ASGITransport, AsyncClient
from shop import LogLine, Order, Track, app
from sqlalchemy import select

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
async def client(databases):
    async with AsyncClient(transport=ASGITransport(app), base_url="http://shop") as client:
        yield client  # the lifespan, which opens the shop, does not run


@pytest.fixture
async def track(async_uow):
    track = Track(name="Low Tide", copies=2)
    async_uow.main.add(track)
    await async_uow.commit()  # for the application to see it
    return track


async def test_an_order_is_there_and_a_copy_is_gone(client, track, async_session):
    answer = await client.post("/orders", json={"number": "A-1", "track_id": track.id})

    assert answer.status_code == 201
    assert (await async_session.get(Order, "A-1")).track_id == track.id
    await async_session.refresh(track)
    assert track.copies == 1


async def test_an_order_of_what_is_sold_out_leaves_only_a_line_in_the_log(client, track, async_uow):
    track.copies = 0
    await async_uow.commit()

    answer = await client.post("/orders", json={"number": "A-1", "track_id": track.id})

    assert answer.status_code == 409
    assert answer.json() == {"error": "'Low Tide' is sold out"}
    assert await async_uow.main.get(Order, "A-1") is None
    assert (await async_uow.logger.scalars(select(LogLine.text))).all() == ["order A-1"]


async def test_an_order_that_is_sent_twice_takes_one_copy(client, track, async_session):
    order = {"number": "A-1", "track_id": track.id}

    assert [(await client.post("/orders", json=order)).status_code for _ in range(2)] == [201, 409]
    await async_session.refresh(track)
    assert track.copies == 1


async def test_the_list_takes_one_statement_however_long_it_is(client, uow, assert_queries):
    uow.main.add_all(Track(name=f"Etude {number}", copies=1) for number in range(50))
    uow.commit()  # the sandbox is the same for both worlds

    with assert_queries(1):
        answer = await client.get("/tracks")

    assert len(answer.json()) == 50
