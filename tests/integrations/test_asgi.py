"""
ASGI: what the contract does not say, above all where the unit of work meets Starlette's own handlers and threads.
"""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route

from stillroom import Databases, NoUnitOfWork, UnitOfWork, UnitOfWorkEnded
from stillroom.integrations.asgi import UnitOfWorkMiddleware
from stillroom.testing.servers import wait_until
from tests.integrations.web_servers import PATIENCE, asgi_server, ask, asking
from tests.unit_of_work.shop import Item, idle, listening, made, names

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from starlette.requests import Request

WAYS = ("added", "wrapped")


def installed(view: Any, dbs: Databases, way: str = "added", **options: Any) -> Any:
    """
    Return an application of Starlette with one view, and the middleware inside of it or around it.
    """
    app = Starlette(routes=[Route("/", view, methods=["GET", "POST"])], **options)
    if way == "wrapped":
        return UnitOfWorkMiddleware(app, dbs)
    app.add_middleware(UnitOfWorkMiddleware, databases=dbs)
    return app


def answer_to(app: Any, path: str = "/") -> tuple[int, str]:
    with asgi_server(app) as port:
        status, body = ask(port, path)
    return status, body.decode()


async def conflict(request: Request, error: Exception) -> Response:
    return PlainTextResponse(type(error).__name__, 409)


def blocking_conflict(request: Request, error: Exception) -> Response:
    asyncio.run(asyncio.sleep(0))  # it would fail in the event loop
    return PlainTextResponse(type(error).__name__, 409)


async def twice(request: Request) -> Response:
    """
    Write what COMMIT refuses, and answer well.
    """
    request.state.uow.main.add_all([Item(name="flute"), Item(name="flute")])
    return PlainTextResponse("a lie")


async def hand_on(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    return await call_next(request)


async def answer(send: Any, status: int = 200) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body"})


async def call(app: Any, dbs: Databases, scope: dict[str, Any] | None = None) -> list[int]:
    """
    Call an application without a server, and return the statuses of its answers.
    """
    sent: list[int] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            sent.append(message["status"])

    async with dbs:
        await app({"type": "http"} if scope is None else scope, receive, send)
    return sent


# --- bare applications


def test_an_application_without_a_framework_has_its_unit_of_work_in_the_state(dbs: Databases) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["state"]["uow"].main.add(Item(name="flute"))
        assert dbs.current is scope["state"]["uow"]
        await answer(send)

    assert asyncio.run(call(UnitOfWorkMiddleware(app, dbs), dbs)) == [200]
    assert names(dbs) == ["flute"]


def test_what_is_written_is_durable_before_the_answer_begins(dbs: Databases) -> None:
    durable: list[list[str]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def look(message: Any) -> None:
            durable.append(names(dbs))
            await send(message)

        await middleware(scope, receive, look)

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        scope["state"]["uow"].main.add(Item(name="flute"))
        await answer(send)

    middleware = UnitOfWorkMiddleware(inner, dbs)
    asyncio.run(call(app, dbs))
    assert durable == [["flute"], ["flute"]]


def test_an_error_that_is_answered_where_it_is_caught_is_rolled_back(dbs: Databases) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            scope["state"]["uow"].main.add(Item(name="flute"))
            raise LookupError
        except LookupError:
            await answer(send)

    assert asyncio.run(call(UnitOfWorkMiddleware(app, dbs), dbs)) == [200]
    assert names(dbs) == []


def test_an_error_around_the_application_is_not_its_own(dbs: Databases) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["state"]["uow"].main.add(Item(name="flute"))
        await answer(send)

    async def fall_back(scope: Any, receive: Any, send: Any) -> None:
        try:
            raise FileNotFoundError
        except FileNotFoundError:
            await UnitOfWorkMiddleware(app, dbs)(scope, receive, send)

    assert asyncio.run(call(fall_back, dbs)) == [200]
    assert names(dbs) == ["flute"]


def test_no_answer_is_a_rollback(dbs: Databases) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["state"]["uow"].main.add(Item(name="flute"))

    assert asyncio.run(call(UnitOfWorkMiddleware(app, dbs), dbs)) == []
    assert names(dbs) == []


def test_an_application_cannot_answer_well_after_a_failed_commit(dbs: Databases) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["state"]["uow"].main.add_all([Item(name="flute"), Item(name="flute")])
        try:
            await answer(send)
        except SQLAlchemyError:
            await answer(send)

    with pytest.raises(IntegrityError):
        asyncio.run(call(UnitOfWorkMiddleware(app, dbs), dbs))


def test_a_request_leaves_nothing_to_the_garbage_collector(dbs: Databases) -> None:
    units: list[weakref.ref[Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        units.append(weakref.ref(scope["state"]["uow"]))
        units.append(weakref.ref(await asyncio.to_thread(lambda: dbs.current)))
        await answer(send)

    scope: dict[str, Any] = {"type": "http"}
    gc.disable()
    try:
        asyncio.run(call(UnitOfWorkMiddleware(app, dbs), dbs, scope))
        assert [unit() for unit in units] == [None, None]
    finally:
        gc.enable()


def test_who_calls_an_application_that_answers_in_another_task_keeps_nothing_of_the_request(dbs: Databases) -> None:
    units: list[weakref.ref[Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        units.append(weakref.ref(scope["state"]["uow"]))
        await asyncio.create_task(answer(send))  # as Quart does

    async def main() -> None:
        assert await call(UnitOfWorkMiddleware(app, dbs), dbs) == [200]
        gc.collect()  # a task that is done is in a cycle
        assert units[0]() is None

    asyncio.run(main())


# --- Starlette


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("handler", [conflict, blocking_conflict])
@pytest.mark.parametrize("kind", [IntegrityError, SQLAlchemyError])
def test_an_exception_handler_answers_a_failed_commit(
    dbs: Databases, way: str, handler: Any, kind: type[Exception]
) -> None:
    assert answer_to(installed(twice, dbs, way, exception_handlers={kind: handler})) == (409, "IntegrityError")
    assert names(dbs) == []


@pytest.mark.parametrize("way", WAYS)
def test_a_failed_commit_that_nobody_handles_is_a_500(dbs: Databases, way: str) -> None:
    assert answer_to(installed(twice, dbs, way)) == (500, "Internal Server Error")


def test_a_handler_of_every_exception_answers_a_failed_commit(dbs: Databases) -> None:
    app = installed(twice, dbs, exception_handlers={Exception: conflict})
    assert answer_to(app) == (409, "IntegrityError")


@pytest.mark.parametrize("status", [302, 404])
def test_a_handler_s_good_answer_does_not_commit_what_the_view_left_behind(dbs: Databases, status: int) -> None:
    async def view(request: Request) -> Response:
        request.state.uow.main.add(Item(name="flute"))
        raise HTTPException(status)

    def well(request: Request, error: Exception) -> Response:
        return PlainTextResponse("never mind")

    assert answer_to(installed(view, dbs, exception_handlers={404: well}))[0] == (302 if status == 302 else 200)
    assert names(dbs) == []


def test_an_answer_that_is_streamed_by_an_exception_handler_is_rolled_back(dbs: Databases) -> None:
    async def view(request: Request) -> Response:
        request.state.uow.main.add(Item(name="flute"))
        raise LookupError

    async def body() -> AsyncIterator[str]:
        yield "never mind"

    async def well(request: Request, error: Exception) -> Response:
        return StreamingResponse(body())  # which is sent in another task

    app = installed(view, dbs, exception_handlers={LookupError: well})
    assert answer_to(app) == (200, "never mind")
    assert names(dbs) == []


def test_a_view_that_handles_an_exception_by_reading_on_is_committed(dbs: Databases) -> None:
    async def view(request: Request) -> Response:
        request.state.uow.main.add(Item(name="flute"))
        try:
            raise LookupError
        except LookupError:
            await request.body()
        return PlainTextResponse("well")

    assert answer_to(installed(view, dbs)) == (200, "well")
    assert names(dbs) == ["flute"]


@pytest.mark.parametrize("side", ["inside", "around"])
@pytest.mark.parametrize("case", ["well", "failed commit", "raised"])
def test_a_base_http_middleware_may_stand_on_either_side(dbs: Databases, side: str, case: str) -> None:
    async def view(request: Request) -> Response:
        request.state.uow.main.add(Item(name="drum"))
        if case == "raised":
            raise LookupError
        if case == "failed commit":
            return await twice(request)
        return PlainTextResponse("well")

    app = Starlette(routes=[Route("/", view)], exception_handlers={IntegrityError: conflict})
    if side == "inside":
        app.add_middleware(BaseHTTPMiddleware, dispatch=hand_on)
    app.add_middleware(UnitOfWorkMiddleware, databases=dbs)
    if side == "around":
        app.add_middleware(BaseHTTPMiddleware, dispatch=hand_on)
    expected = {"well": (200, ["drum"]), "failed commit": (409, []), "raised": (500, [])}
    assert (answer_to(app)[0], names(dbs)) == expected[case]


def test_behind_a_base_http_middleware_the_status_decides_about_an_exception(dbs: Databases) -> None:
    async def view(request: Request) -> Response:
        request.state.uow.main.add(Item(name=request.query_params["name"]))
        raise HTTPException(int(request.query_params["status"]))

    app = Starlette(routes=[Route("/", view)])
    app.add_middleware(BaseHTTPMiddleware, dispatch=hand_on)
    app.add_middleware(UnitOfWorkMiddleware, databases=dbs)
    with asgi_server(app) as port:
        assert ask(port, "/?name=flute&status=404")[0] == 404
        assert ask(port, "/?name=drum&status=303")[0] == 303
    assert names(dbs) == ["drum"]


def test_a_middleware_around_sees_what_the_view_left_in_the_state(dbs: Databases) -> None:
    async def view(request: Request) -> Response:
        request.state.user = "Ada"
        return PlainTextResponse("body")

    async def tell(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        response = await call_next(request)
        response.headers["X-User"] = request.state.user
        response.headers["X-Endpoint"] = request.scope["endpoint"].__name__
        return response

    seen: list[bytes] = []

    async def look(scope: Any, receive: Any, send: Any) -> None:
        async def note(message: Any) -> None:
            if message["type"] == "http.response.start":
                headers = dict(message["headers"])
                seen.extend([headers[b"x-user"], headers[b"x-endpoint"]])
            await send(message)

        await app(scope, receive, note)

    app = installed(view, dbs)
    app.add_middleware(BaseHTTPMiddleware, dispatch=tell)
    assert answer_to(look) == (200, "body")
    assert seen == [b"Ada", b"view"]


# --- threads


def test_a_view_in_a_thread_has_a_blocking_unit_of_work_that_functions_join(dbs: Databases) -> None:
    @dbs.transactional
    def add(uow: UnitOfWork, name: str) -> UnitOfWork:
        uow.main.add(Item(name=name))
        return uow

    def view(request: Request) -> Response:
        assert add("flute") is dbs.current is add("drum")
        return PlainTextResponse("a lie", 404 if "refused" in request.query_params else 200)

    app = installed(view, dbs)
    assert answer_to(app, "/?refused")[0] == 404
    assert names(dbs) == []
    assert answer_to(app)[0] == 200
    assert names(dbs) == ["flute", "drum"]


def test_a_blocking_commit_does_not_hold_up_the_event_loop(dbs: Databases) -> None:
    committing, go_on = threading.Event(), threading.Event()

    def wait(connection: Any) -> None:
        committing.set()
        assert go_on.wait(PATIENCE)

    def view(request: Request) -> Response:
        if "write" in request.query_params:
            dbs.current.session().add(Item(name="flute"))
        return PlainTextResponse("well")

    with asgi_server(installed(view, dbs)) as port, ThreadPoolExecutor(1) as threads:
        with listening(dbs.main.engine, "commit", wait):
            writing = threads.submit(ask, port, "/?write")
            assert committing.wait(PATIENCE)
            assert ask(port, "/")[0] == 200
            assert not writing.done()
            go_on.set()
            assert writing.result(PATIENCE)[0] == 200
    assert names(dbs) == ["flute"]


def test_a_cancellation_waits_for_a_blocking_commit(dbs: Databases) -> None:
    committing, go_on = threading.Event(), threading.Event()

    def wait(connection: Any) -> None:
        committing.set()
        assert go_on.wait(PATIENCE)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.to_thread(lambda: dbs.current.session().add(Item(name="flute")))
        await answer(send)

    async def main() -> None:
        task = asyncio.create_task(call(UnitOfWorkMiddleware(app, dbs), dbs))
        await asyncio.to_thread(committing.wait, PATIENCE)
        for _ in range(3):
            task.cancel()
            await asyncio.sleep(0)
        assert not task.done()
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not dbs.declared.open_units

    with listening(dbs.main.engine, "commit", wait):
        asyncio.run(main())
    assert names(dbs) == ["flute"]


def test_a_blocking_commit_that_fails_rolls_back_the_other_half_of_the_request(dbs: Databases) -> None:
    async def view(request: Request) -> Response:
        # The asynchronous half writes nothing before COMMIT: SQLite has one writer at a time.
        request.state.uow.main.add(Item(name="drum"))
        await asyncio.to_thread(lambda: dbs.current.session().add_all([Item(name="flute"), Item(name="flute")]))
        return PlainTextResponse("a lie")

    assert answer_to(installed(view, dbs, exception_handlers={IntegrityError: conflict}))[0] == 409
    assert names(dbs) == []


# --- after the end


@pytest.mark.parametrize("blocking", [True, False])
def test_a_callback_after_the_commit_finds_no_unit_of_work_and_may_open_one(dbs: Databases, blocking: bool) -> None:
    found: list[bool] = []

    @dbs.transactional
    def add(uow: UnitOfWork) -> None:
        uow.main.add(Item(name="drum"))

    def callback() -> None:
        found.append(dbs.has_current)
        add()

    def register() -> None:
        unit: Any = dbs.current
        unit.main.add(Item(name="flute"))
        unit.on_commit(callback)

    def blocks(request: Request) -> Response:
        register()
        return PlainTextResponse("well")

    async def awaits(request: Request) -> Response:
        register()
        return PlainTextResponse("well")

    assert answer_to(installed(blocks if blocking else awaits, dbs)) == (200, "well")
    assert (found, names(dbs)) == ([False], ["flute", "drum"])


@pytest.mark.parametrize("place", ["body", "task", "thread"])
def test_the_unit_of_work_says_that_it_has_ended_when_the_answer_has_begun(dbs: Databases, place: str) -> None:
    errors: list[type[Exception]] = []
    done = threading.Event()

    def use(request: Request) -> None:
        for attempt in (lambda: request.state.uow.main, lambda: dbs.current, dbs.session):
            try:
                attempt()
            except (NoUnitOfWork, UnitOfWorkEnded) as error:
                errors.append(type(error))
        done.set()

    async def use_async(request: Request) -> None:
        use(request)

    async def body(request: Request) -> AsyncIterator[str]:
        use(request)
        yield "well"

    async def view(request: Request) -> Response:
        request.state.uow.main.add(Item(name="flute"))
        if place == "body":
            return StreamingResponse(body(request))
        return PlainTextResponse("well", background=BackgroundTask(use if place == "thread" else use_async, request))

    with asgi_server(installed(view, dbs)) as port:
        assert ask(port, "/") == (200, b"well")
        assert done.wait(PATIENCE)
    assert errors == [UnitOfWorkEnded, NoUnitOfWork, NoUnitOfWork]


def test_a_client_that_leaves_a_streaming_body_ends_its_unit_of_work(dbs: Databases) -> None:
    holding, over = threading.Event(), threading.Event()

    async def body() -> AsyncIterator[bytes]:
        try:
            async with dbs.async_unit_of_work() as uow:
                uow.main.add(Item(name="flute"))
                await uow.main.flush()
                while True:
                    yield b"x" * 65536
                    holding.set()
                    await asyncio.sleep(0)  # what is sent to nobody takes no time
        finally:
            over.set()

    async def view(request: Request) -> Response:
        return StreamingResponse(body())

    with asgi_server(installed(view, dbs)) as port:
        with asking(port, "/"):
            assert holding.wait(PATIENCE)
        assert over.wait(PATIENCE)
        wait_until(lambda: idle(dbs) and not dbs.declared.open_units, "the connection is back")
    assert names(dbs) == []


# --- the lifespan


def test_the_databases_are_closed_after_the_application_s_own_lifespan(dbs: Databases) -> None:
    said: list[set[str]] = []

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[dict[str, str]]:
        async with dbs.async_unit_of_work() as uow:
            uow.main.add(Item(name="flute"))
        yield {"greeting": "hello"}
        async with dbs.async_unit_of_work() as uow:
            uow.main.add(Item(name="drum"))
        said.append(set(dbs.main.pools()))

    async def view(request: Request) -> Response:
        return PlainTextResponse(request.state.greeting)

    assert answer_to(installed(view, dbs, lifespan=lifespan)) == (200, "hello")
    assert said == [{"writer", "writer, asyncio"}]
    assert dbs.main.pools() == {}
    assert names(dbs) == ["flute", "drum"]


# --- applications in applications


def nested(inner: Any, dbs: Databases, *others: Databases) -> Any:
    """
    Return an application that writes a drum before another one answers, and has its own unit of work after that.
    """

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        for each in others:  # what is mounted has no lifespan
            await each.aclose()

    mounted = Starlette(routes=[Mount("/", inner)], lifespan=lifespan)

    async def outer(scope: Any, receive: Any, send: Any) -> None:
        before = None
        if scope["type"] == "http":
            before = scope["state"]["uow"]
            before.main.add(Item(name="drum"))
        await mounted(scope, receive, send)
        assert scope.get("state", {}).get("uow") is before

    return UnitOfWorkMiddleware(outer, dbs)


async def flute(request: Request) -> Response:
    request.state.uow.main.add(Item(name="flute"))
    return PlainTextResponse("inner", 404 if "refused" in request.query_params else 200)


@pytest.mark.parametrize(("path", "kept"), [("/", ["drum", "flute"]), ("/?refused", [])])
def test_an_application_in_another_shares_its_unit_of_work(dbs: Databases, path: str, kept: list[str]) -> None:
    app = nested(installed(flute, dbs), dbs)
    assert answer_to(app, path)[1] == "inner"
    assert names(dbs) == kept


def test_an_application_in_another_with_other_databases_has_a_unit_of_its_own(dbs: Databases, tmp_path: Any) -> None:
    with made({"main": f"sqlite:///{tmp_path / 'other.db'}"}) as others:
        app = nested(installed(flute, others), dbs, others)
        assert answer_to(app) == (200, "inner")
        assert (names(dbs), names(others)) == (["drum"], ["flute"])
