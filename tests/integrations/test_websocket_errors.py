"""
Websockets that are closed because of an exception: what the message at hand wrote is rolled back, whoever hangs up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from fastapi import FastAPI, HTTPException, WebSocket, WebSocketException
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from stillroom.integrations.fastapi import install
from tests.integrations.web_servers import PATIENCE, asgi_server
from tests.unit_of_work.shop import Item, names

if TYPE_CHECKING:
    from stillroom import Databases


@pytest.fixture
def app(dbs: Databases) -> FastAPI:
    app = FastAPI()
    install(app, dbs, websocket="message")
    return app


def ask(app: FastAPI, *messages: str) -> list[str | bytes]:
    """
    Send messages to the websocket of an application until it hangs up, and return the answers.
    """
    answers: list[str | bytes] = []
    with asgi_server(app) as port, connect(f"ws://127.0.0.1:{port}/") as socket:
        try:
            for message in messages:
                socket.send(message)
                answers.append(socket.recv(PATIENCE))
        except ConnectionClosed:
            pass
    return answers


@pytest.mark.parametrize("closes", ["handler", "framework", "endpoint"])
def test_a_message_that_raises_is_rolled_back_whoever_closes(app: FastAPI, dbs: Databases, closes: str) -> None:
    @app.exception_handler(LookupError)
    async def close(socket: WebSocket, error: Exception) -> None:
        await socket.close(1011)

    @app.websocket("/")
    async def talk(socket: WebSocket) -> None:
        await socket.accept()
        try:
            async for text in socket.iter_text():
                socket.state.uow.main.add(Item(name=text))
                if text == "fail":
                    raise WebSocketException(1008) if closes == "framework" else LookupError
                await socket.send_text("written")
        finally:
            if closes == "endpoint":
                await socket.close()

    assert ask(app, "kept", "fail") == ["written"]
    assert names(dbs) == ["kept"]


def test_a_handshake_that_is_denied_by_an_exception_is_rolled_back(app: FastAPI, dbs: Databases) -> None:
    @app.websocket("/")
    async def talk(socket: WebSocket) -> None:
        socket.state.uow.main.add(Item(name="lost"))
        raise HTTPException(403)

    with pytest.raises(InvalidStatus, match="403"):
        ask(app)
    assert names(dbs) == []


def test_an_endpoint_that_answers_an_error_itself_has_handled_it(app: FastAPI, dbs: Databases) -> None:
    @app.websocket("/")
    async def talk(socket: WebSocket) -> None:
        await socket.accept()
        async for text in socket.iter_text():
            uow: Any = socket.state.uow
            try:
                uow.main.add(Item(name=text, amount=int(text)))
            except ValueError:
                uow.main.add(Item(name="not a number"))
                await socket.send_text("sorry")

    assert ask(app, "three") == ["sorry"]
    assert names(dbs) == ["not a number"]
