"""Clients that call an application in this process, and see what the client of a real server would see."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any
from wsgiref.util import setup_testing_defaults

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, MutableMapping
    from typing import TypeAlias
    from wsgiref.types import WSGIApplication

    Call: TypeAlias = Callable[[str], int]
    Message: TypeAlias = MutableMapping[str, Any]
    ASGIApplication: TypeAlias = Callable[[Any, Any, Any], Awaitable[None]]  # each framework has types of its own

__all__ = ["asgi_client", "wsgi_client"]

PATIENCE = 60.0
"""Seconds that an application may take for one thing."""
_FAILED = 500
_logger = logging.getLogger(__name__)


def wsgi_client(app: WSGIApplication) -> Call:
    """
    Return a function that asks an application for a path, and returns the status of its answer.

    An error before the answer begins is a 500, as with a real server; a later one changes nothing about the status.
    Threads may call it at the same time.

    Args:
        app: The application.
    """

    def call(path: str) -> int:
        environ: dict[str, Any] = {"PATH_INFO": path}
        setup_testing_defaults(environ)
        said: list[str] = []
        begun: list[str] = []

        def start(status: str, headers: list[tuple[str, str]], exc_info: object = None, /) -> Callable[[bytes], object]:
            said[:] = [status]
            return lambda _: begun.extend(said)

        try:
            body = app(environ, start)
            try:
                for _ in body:
                    begun.extend(said)
                begun.extend(said)  # an answer without a body begins here
            finally:
                getattr(body, "close", lambda: None)()
        except Exception:
            _logger.exception("the application raised an error")
        return int(begun[0][:3]) if begun else _FAILED

    return call


@contextlib.contextmanager
def asgi_client(app: ASGIApplication) -> Iterator[Call]:
    """
    Same as `wsgi_client`, but for ASGI: the application lives, with its lifespan, in an event loop of its own thread.

    Args:
        app: The application.
    """
    ready: Future[_Home] = Future()
    thread = threading.Thread(target=lambda: _run(app, ready), name="asgi_client")
    thread.start()
    home = ready.result(PATIENCE)

    def call(path: str) -> int:
        return asyncio.run_coroutine_threadsafe(_ask(app, path, home.state), home.loop).result(PATIENCE)

    try:
        yield call
    finally:
        home.loop.call_soon_threadsafe(home.stopping.set)
        thread.join(PATIENCE)
    if home.failure is not None:
        raise home.failure


class _Home:
    """
    Where an application lives.
    """

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.started = asyncio.Event()
        self.stopping = asyncio.Event()
        self.state: dict[str, Any] = {}
        self.failure: Exception | None = None
        self._asked = False

    async def receive(self) -> Message:
        if not self._asked:
            self._asked = True
            return {"type": "lifespan.startup"}
        await self.stopping.wait()
        return {"type": "lifespan.shutdown"}

    async def send(self, message: Message) -> None:
        if message["type"].endswith(".failed"):
            raise RuntimeError(f"{message['type']}: {message.get('message', '')}")
        self.started.set()

    async def live(self, app: ASGIApplication) -> None:
        try:
            scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self.state}
            await app(scope, self.receive, self.send)
        except Exception as error:
            _logger.exception("the lifespan of the application ended with an error")
            if self.started.is_set():  # before that it means that there is no lifespan
                self.failure = error
        finally:
            self.started.set()


def _run(app: ASGIApplication, ready: Future[_Home]) -> None:
    async def main() -> None:
        home = _Home()
        life = asyncio.create_task(home.live(app))
        await home.started.wait()
        ready.set_result(home)
        await home.stopping.wait()
        await life

    asyncio.run(main())


async def _ask(app: ASGIApplication, path: str, state: dict[str, Any]) -> int:
    messages = [{"type": "http.request", "body": b"", "more_body": False}]
    begun: list[int] = []

    async def receive() -> Message:
        if messages:
            return messages.pop()
        await asyncio.Event().wait()  # the client stays
        raise AssertionError

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            begun.append(message["status"])

    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"127.0.0.1")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
        "state": dict(state),
    }
    try:
        await app(scope, receive, send)
    except Exception:
        _logger.exception("the application raised an error")
    return begun[0] if begun else _FAILED
