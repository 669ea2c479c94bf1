"""
The same views in each framework: what can become of a request whose unit of work has written a row.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from functools import partial
from typing import Any
from wsgiref.types import StartResponse, WSGIEnvironment

import litestar
import quart
from fastapi import BackgroundTasks, FastAPI, HTTPException, Response, WebSocket
from fastapi.requests import Request
from fastapi.responses import PlainTextResponse, StreamingResponse
from flask import Flask, abort, redirect, request
from flask import Response as FlaskResponse
from litestar import exceptions as litestar_exceptions
from litestar.background_tasks import BackgroundTask as LitestarTask
from litestar.response import Stream
from pyramid.config import Configurator
from pyramid.httpexceptions import exception_response
from pyramid.response import Response as PyramidResponse
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.routing import Route, WebSocketRoute

from stillroom import Databases
from stillroom.integrations import asgi, fastapi, flask, pyramid, wsgi

PATIENCE = 30.0
"""Seconds that a view waits for the test."""


class Base(DeclarativeBase):
    """
    The base of the model.
    """


class Written(Base):
    """
    A row that says who wrote it.
    """

    __tablename__ = "written"
    id: Mapped[int] = mapped_column(primary_key=True)
    by: Mapped[str]


class Unhandled(Exception):
    """
    An error for which there is no handler.
    """


class Handled(Exception):
    """
    An error that a handler of the application answers with 200.
    """


class Desk:
    """
    Where a test and the view that it has called meet.

    Attributes:
        databases: The databases.
        entered: The view has written.
        go_on: The view may go on.
        done: What comes after the answer is over.
    """

    def __init__(self, databases: Databases) -> None:
        self.databases = databases
        self.entered = threading.Event()
        self.go_on = threading.Event()
        self.done = threading.Event()

    def write(self, uow: Any, case: str, number: int = 200) -> int:
        """
        Write a row, and do what the case asks of every view alike; return the status of the answer.
        """
        uow.main.add(Written(by="view"))
        self.entered.set()
        if case == "raised":
            raise Unhandled
        if case == "handled":
            raise Handled
        return number

    def wait(self, case: str) -> None:
        """
        Wait, where the client is to be gone before the answer.
        """
        if case == "gone" and not self.go_on.wait(PATIENCE):
            raise TimeoutError

    def body(self) -> Iterator[bytes]:
        """
        Be a streaming body that has a unit of work of its own, and fails half-way.
        """
        try:
            yield b"half"
            with self.databases.unit_of_work() as uow:
                uow.main.add(Written(by="body"))
                uow.main.flush()
                raise Unhandled
        finally:
            self.done.set()

    async def body_async(self) -> AsyncIterator[bytes]:
        """
        Same as `body`, but for asyncio.
        """
        try:
            yield b"half"
            await self.later("body")
        finally:
            self.done.set()

    async def later(self, by: str = "task") -> None:
        """
        Be a background task that has a unit of work of its own, and fails.
        """
        try:
            async with self.databases.async_unit_of_work() as uow:
                uow.main.add(Written(by=by))
                await uow.main.flush()
                raise Unhandled
        finally:
            self.done.set()


def wsgi_app(desk: Desk) -> Any:
    """
    A bare application of WSGI, which handles its errors itself.
    """

    def view(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        _, case, number = environ["PATH_INFO"].split("/")
        uow = wsgi.unit_of(environ)
        try:
            status = desk.write(uow, case, int(number))
        except Handled:
            status = 200
        desk.wait(case)
        if case == "upload":
            environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
            uow.doom("the request is not complete")
        start_response(f"{status} As It Is", [("Content-Type", "text/plain")])
        return desk.body() if case == "stream" else [b"body"]

    return wsgi.UnitOfWorkMiddleware(view, desk.databases)


def flask_app(desk: Desk) -> Any:
    """
    An application of Flask.
    """
    app = Flask(__name__)
    flask.install(app, desk.databases)
    app.register_error_handler(Handled, lambda _: "handled")

    @app.route("/<case>/<int:number>", methods=["GET", "POST"])
    def view(case: str, number: int) -> Any:
        status = desk.write(flask.current_uow, case, number)
        desk.wait(case)
        if case == "upload":
            request.get_data()
        if case == "http":
            if number < 400:
                abort(redirect("/elsewhere", number))
            abort(number)
        return FlaskResponse(desk.body() if case == "stream" else "body", status)

    return app


def pyramid_app(desk: Desk, settings: dict[str, Any] | None = None) -> Any:
    """
    An application of Pyramid.
    """

    def view(request: Any) -> PyramidResponse:
        case, number = request.matchdict["case"], int(request.matchdict["number"])
        status = desk.write(request.uow, case, number)
        desk.wait(case)
        if case == "upload":
            _ = request.body
        if case == "http":
            raise exception_response(number)
        if case == "stream":
            return PyramidResponse(app_iter=desk.body())
        return PyramidResponse("body", status=status)

    with Configurator(settings=settings or {}) as config:
        pyramid.install(config, desk.databases)
        config.add_route("case", "/{case}/{number}")
        config.add_view(view, route_name="case")
        config.add_exception_view(lambda *_: PyramidResponse("handled"), context=Handled)
        return config.make_wsgi_app()


def pyramid_tm_app(desk: Desk) -> Any:
    """
    The same with pyramid_tm and its own rule for answers.
    """
    settings = {
        "pyramid.includes": "pyramid_tm",
        "tm.commit_veto": "pyramid_tm.default_commit_veto",
        "tm.manager_hook": "pyramid_tm.explicit_manager",
    }
    return pyramid_app(desk, settings)


async def _answer(desk: Desk, uow: Any, request: Request, case: str, number: int) -> Response:
    status = desk.write(uow, case, number)
    await asyncio.to_thread(desk.wait, case)
    if case == "upload":
        await request.body()
    if case == "http":
        raise HTTPException(number, headers={"Location": "/elsewhere"})
    if case == "stream":
        return StreamingResponse(desk.body_async())
    return PlainTextResponse("body", status, background=BackgroundTask(desk.later) if case == "background" else None)


async def _handle(request: Any, error: Exception) -> Response:
    return PlainTextResponse("handled")


async def _converse(desk: Desk, socket: Any) -> None:
    await socket.accept()
    try:
        while (text := await socket.receive_text()) != "bye":
            desk.databases.current.session().add(Written(by=text))
            if text == "fail":
                raise Unhandled
            await socket.send_text("written")
        await socket.close()
    finally:
        desk.done.set()


def starlette_app(desk: Desk) -> Any:
    """
    An application of Starlette.
    """

    async def view(request: Request) -> Response:
        case, number = request.path_params["case"], int(request.path_params["number"])
        return await _answer(desk, request.state.uow, request, case, number)

    async def talk(socket: WebSocket) -> None:
        await _converse(desk, socket)

    routes = [Route("/{case}/{number}", view, methods=["GET", "POST"]), WebSocketRoute("/talk", talk)]
    app = Starlette(routes=routes, exception_handlers={Handled: _handle})
    return asgi.UnitOfWorkMiddleware(app, desk.databases, websocket="message")


def litestar_app(desk: Desk) -> Any:
    """
    An application of Litestar.
    """

    @litestar.route("/{case:str}/{number:int}", http_method=["GET", "POST"])
    async def view(request: litestar.Request[Any, Any, Any]) -> litestar.Response[Any]:
        case, number = request.path_params["case"], request.path_params["number"]
        status = desk.write(request.state.uow, case, number)
        await asyncio.to_thread(desk.wait, case)
        if case == "upload":
            await request.body()
        if case == "http":
            raise litestar_exceptions.HTTPException(status_code=number, headers={"Location": "/elsewhere"})
        if case == "stream":
            return Stream(desk.body_async(), status_code=status)
        background = LitestarTask(desk.later) if case == "background" else None
        return litestar.Response("body", status_code=status, background=background)

    @litestar.websocket("/talk")
    async def talk(socket: litestar.WebSocket[Any, Any, Any]) -> None:
        await _converse(desk, socket)

    def handle(request: Any, error: Exception) -> litestar.Response[str]:
        return litestar.Response("handled", status_code=200)

    app = litestar.Litestar([view, talk], exception_handlers={Handled: handle}, logging_config=None)
    return asgi.UnitOfWorkMiddleware(app, desk.databases, websocket="message")


def quart_app(desk: Desk) -> Any:
    """
    An application of Quart.
    """
    app = quart.Quart(__name__)
    app.asgi_app = asgi.UnitOfWorkMiddleware(app.asgi_app, desk.databases)  # type: ignore[method-assign]  # as Quart says
    app.register_error_handler(Handled, lambda _: "handled")

    @app.route("/<case>/<int:number>", methods=["GET", "POST"])
    async def view(case: str, number: int) -> Any:
        uow: Any = desk.databases.current
        status = desk.write(uow, case, number)
        await asyncio.to_thread(desk.wait, case)
        if case == "upload":
            await quart.request.get_data()
        if case == "http":
            elsewhere: Any = quart.redirect("/elsewhere", number) if number < 400 else number
            quart.abort(elsewhere)
        if case == "background":
            uow.on_commit(partial(app.add_background_task, desk.later))
        return quart.Response(desk.body_async() if case == "stream" else "body", status)

    return app


def fastapi_app(desk: Desk) -> Any:
    """
    An application of FastAPI with coroutines.
    """
    app = FastAPI()
    fastapi.install(app, desk.databases, websocket="message")
    app.add_exception_handler(Handled, _handle)

    @app.api_route("/{case}/{number}", methods=["GET", "POST"])
    async def endpoint(request: Request, case: str, number: int, uow: fastapi.AsyncUowDep) -> Response:
        return await _answer(desk, uow, request, case, number)

    @app.websocket("/talk")
    async def talk(socket: WebSocket) -> None:
        await _converse(desk, socket)

    return app


def threaded_app(desk: Desk) -> Any:
    """
    An application of FastAPI with functions, which run in threads.
    """
    app = FastAPI()
    fastapi.install(app, desk.databases)
    app.add_exception_handler(Handled, _handle)

    def later() -> None:
        try:
            with desk.databases.unit_of_work() as uow:
                uow.main.add(Written(by="task"))
                uow.main.flush()
                raise Unhandled
        finally:
            desk.done.set()

    @app.api_route("/{case}/{number}", methods=["GET", "POST"])
    def endpoint(case: str, number: int, uow: fastapi.UowDep, tasks: BackgroundTasks) -> Response:
        status = desk.write(uow, case, number)
        desk.wait(case)
        if case == "http":
            raise HTTPException(number, headers={"Location": "/elsewhere"})
        if case == "stream":
            return StreamingResponse(desk.body())
        if case == "background":
            tasks.add_task(later)
        return PlainTextResponse("body", status)

    return app


WSGI: dict[str, Callable[[Desk], Any]] = {
    "WSGI": wsgi_app,
    "Flask": flask_app,
    "Pyramid": pyramid_app,
    "pyramid_tm": pyramid_tm_app,
}
ASGI: dict[str, Callable[[Desk], Any]] = {
    "Starlette": starlette_app,
    "Litestar": litestar_app,
    "Quart": quart_app,
    "FastAPI": fastapi_app,
    "FastAPI, threads": threaded_app,
}
