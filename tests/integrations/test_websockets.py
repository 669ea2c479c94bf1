"""
Websockets: a unit of work for the handshake and for each message, and none where that was not asked for.
"""

import threading
from collections.abc import Callable
from socket import SHUT_RDWR
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, WebSocket, WebSocketDisconnect
from sqlalchemy import func, select
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from stillroom import CommitPolicy, Databases, NoUnitOfWork, UnitOfWorkEnded
from stillroom.integrations.asgi import UnitOfWorkMiddleware
from stillroom.integrations.fastapi import AsyncUowDep, install
from stillroom.testing.servers import wait_until
from tests.integrations.web_servers import PATIENCE, asgi_server
from tests.unit_of_work.shop import Item, idle, names


def talking(dbs: Databases, policy: CommitPolicy | None = None) -> tuple[FastAPI, Callable[[Any], Any]]:
    """
    Return an application, and what makes a function its websocket.
    """
    app = FastAPI()
    install(app, dbs, websocket="message", policy=policy)
    return app, app.websocket("/")


def test_there_is_only_none_and_message(dbs: Databases) -> None:
    with pytest.raises(ValueError, match="'none' or 'message'"):
        UnitOfWorkMiddleware(FastAPI(), dbs, websocket="always")  # type: ignore[arg-type]


def test_a_websocket_has_no_unit_of_work_unless_it_was_asked_for(dbs: Databases) -> None:
    app = FastAPI()
    install(app, dbs)

    @app.websocket("/")
    async def talk(socket: WebSocket) -> None:
        await socket.accept()
        try:
            _ = dbs.current
        except NoUnitOfWork as error:
            await socket.send_text(str(error))
        await socket.close()

    with asgi_server(app) as port, connect(f"ws://127.0.0.1:{port}/") as socket:
        assert "no unit of work is open" in str(socket.recv(PATIENCE))


def test_a_dependency_has_the_unit_of_work_of_the_handshake(dbs: Databases) -> None:
    app, websocket = talking(dbs)

    async def count(uow: AsyncUowDep) -> int:
        uow.main.add(Item(name="hello"))
        await uow.main.flush()
        return await uow.main.scalar(select(func.count()).select_from(Item)) or 0

    @websocket
    async def talk(socket: WebSocket, uow: AsyncUowDep, items: Annotated[int, Depends(count)]) -> None:
        await socket.accept()
        try:
            _ = uow.main
        except UnitOfWorkEnded:
            await socket.send_text(f"{items} {names(dbs)}")
        await socket.close()

    with asgi_server(app) as port, connect(f"ws://127.0.0.1:{port}/") as socket:
        assert socket.recv(PATIENCE) == "1 ['hello']"


def test_what_a_message_wrote_is_durable_before_its_answer_is_sent(dbs: Databases) -> None:
    app, websocket = talking(dbs)

    @websocket
    async def talk(socket: WebSocket) -> None:
        await socket.accept()
        async for text in socket.iter_text():
            socket.state.uow.main.add(Item(name=text))
            await socket.send_text("written")

    with asgi_server(app) as port, connect(f"ws://127.0.0.1:{port}/") as socket:
        for text in ("first", "second"):
            socket.send(text)
            assert socket.recv(PATIENCE) == "written"
            assert names(dbs)[-1] == text


def test_a_message_of_which_the_commit_fails_is_not_answered(dbs: Databases) -> None:
    app, websocket = talking(dbs)

    @websocket
    async def talk(socket: WebSocket) -> None:
        await socket.accept()
        async for text in socket.iter_text():
            socket.state.uow.main.add_all([Item(name=text), Item(name=text)])
            await socket.send_text("a lie")

    with asgi_server(app) as port, connect(f"ws://127.0.0.1:{port}/") as socket:
        socket.send("flute")
        with pytest.raises(ConnectionClosed):
            socket.recv(PATIENCE)
    assert names(dbs) == []


def test_an_endpoint_may_go_on_after_a_commit_that_failed(dbs: Databases) -> None:
    app, websocket = talking(dbs)

    @websocket
    async def talk(socket: WebSocket) -> None:
        await socket.accept()
        async for text in socket.iter_text():
            socket.state.uow.main.add(Item(name=text))
            try:
                await socket.send_text("written")
            except Exception as error:
                await socket.send_text(type(error).__name__)

    with asgi_server(app) as port, connect(f"ws://127.0.0.1:{port}/") as socket:
        said = []
        for text in ("flute", "flute", "drum"):
            socket.send(text)
            said.append(socket.recv(PATIENCE))
    assert said == ["written", "IntegrityError", "written"]
    assert names(dbs) == ["flute", "drum"]


def test_a_client_that_vanishes_ends_the_unit_of_work_of_its_last_message(dbs: Databases) -> None:
    app, websocket = talking(dbs)
    writing, over = threading.Event(), threading.Event()

    @websocket
    async def talk(socket: WebSocket) -> None:
        await socket.accept()
        try:
            while True:
                text = await socket.receive_text()
                socket.state.uow.main.add(Item(name=text))
                await socket.state.uow.main.flush()
                writing.set()
        except WebSocketDisconnect:
            over.set()

    with asgi_server(app) as port:
        with connect(f"ws://127.0.0.1:{port}/") as socket:
            socket.send("flute")
            assert writing.wait(PATIENCE)
            socket.socket.shutdown(SHUT_RDWR)
            assert over.wait(PATIENCE)
        wait_until(lambda: names(dbs) == ["flute"] and idle(dbs), "the message is committed")


def test_by_hand_only_what_was_committed_is_kept(dbs: Databases) -> None:
    app, websocket = talking(dbs, CommitPolicy(commit="manual"))

    @websocket
    async def talk(socket: WebSocket) -> None:
        await socket.accept()
        async for text in socket.iter_text():
            socket.state.uow.main.add(Item(name=text))
            if text == "keep":
                await socket.state.uow.commit()
            await socket.send_text("heard")

    with asgi_server(app) as port, connect(f"ws://127.0.0.1:{port}/") as socket:
        for text in ("forget", "keep"):
            socket.send(text)
            assert socket.recv(PATIENCE) == "heard"
    assert names(dbs) == ["keep"]


def test_a_long_conversation_keeps_none_of_its_units_of_work(dbs: Databases) -> None:
    app, websocket = talking(dbs)

    @websocket
    async def talk(socket: WebSocket) -> None:
        await socket.accept()
        async for _ in socket.iter_text():
            await socket.send_text(str(socket.state.uow.outer))

    with asgi_server(app) as port, connect(f"ws://127.0.0.1:{port}/") as socket:
        for _ in range(3):
            socket.send("hello")
            assert socket.recv(PATIENCE) == "None"
