"""
Web servers in threads of the test's process, and a client whose connection can be dropped.
"""

from __future__ import annotations

import contextlib
import http.client
import logging
import sys
import threading
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import ServerHandler, WSGIRequestHandler, WSGIServer

import uvicorn

from stillroom.testing.servers import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from wsgiref.types import WSGIApplication

PATIENCE = 30.0
"""Seconds that anything may take."""


class _Server(ThreadingMixIn, WSGIServer):
    """
    A thread for each request; its end waits for them.
    """

    daemon_threads = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        logging.getLogger(__name__).info("the client has gone: %r", sys.exception())


class _Quiet(ServerHandler):
    """
    Tells errors to the log.
    """

    request_handler: WSGIRequestHandler

    def log_exception(self, exc_info: Any) -> None:
        logging.getLogger(__name__).info("the application raised an error", exc_info=exc_info)


class _Handler(WSGIRequestHandler):
    """
    One request for each connection.
    """

    def handle(self) -> None:
        self.raw_requestline = self.rfile.readline(65537)
        if self.parse_request():
            quiet: Any = _Quiet  # the two of the standard library do not agree on the type of a stream
            handler = quiet(self.rfile, self.wfile, self.get_stderr(), self.get_environ(), multithread=True)
            handler.request_handler = self
            handler.run(self.server.get_app())  # type: ignore[attr-defined]  # the server is ours

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the name is the base class's
        pass


@contextlib.contextmanager
def wsgi_server(app: WSGIApplication) -> Iterator[int]:
    """
    Serve an application of WSGI, and yield the port.
    """
    with _Server(("127.0.0.1", 0), _Handler) as server:
        server.set_app(app)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), name="wsgi_server")
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join(PATIENCE)


@contextlib.contextmanager
def asgi_server(app: Any) -> Iterator[int]:
    """
    Serve an application of ASGI, and yield the port.
    """
    config = uvicorn.Config(app, port=0, log_config=None, timeout_graceful_shutdown=5, ws="websockets-sansio")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, name="asgi_server")
    thread.start()
    try:
        wait_until(lambda: server.started or not thread.is_alive(), "uvicorn has started")
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(PATIENCE)


def ask(port: int, path: str) -> tuple[int, bytes]:
    """
    Return the status and the body of an answer, as much of it as comes.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    with contextlib.closing(connection):
        connection.request("GET", path)
        answer = connection.getresponse()
        try:
            return answer.status, answer.read()
        except http.client.IncompleteRead as error:
            return answer.status, error.partial


@contextlib.contextmanager
def asking(port: int, path: str, *, announced: int = 0) -> Iterator[None]:
    """
    Ask, and drop the connection at the end of the block, without having read an answer.

    Args:
        port: The server's.
        path: What to ask for.
        announced: The length of the request's body, of which nothing is ever sent.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    with contextlib.closing(connection):
        connection.putrequest("POST", path)
        connection.putheader("Content-Length", str(announced))
        connection.endheaders()
        yield
