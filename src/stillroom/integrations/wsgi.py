"""WSGI: a unit of work for each request, ended before the response starts."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any

from stillroom import CommitPolicy
from stillroom.web import open_unit, shares_unit, unit_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import TracebackType
    from typing import TypeAlias
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from stillroom import Databases

    ExcInfo: TypeAlias = "tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]"

__all__ = ["Answer", "UnitOfWorkMiddleware", "unit_of"]


class UnitOfWorkMiddleware:
    """
    Gives each request a unit of work: `unit_of(environ)`, and `dbs.current` in its thread.

    It ends when the application has said what it answers and before a byte of it is sent, so that a failed COMMIT is
    an error for the client. The body may come later: code in it that needs a database opens a unit of its own.

    Args:
        app: The application.
        databases: The databases.
        policy: When to commit; its veto gets the environ and an `Answer`.
    """

    def __init__(self, app: WSGIApplication, databases: Databases, *, policy: CommitPolicy | None = None) -> None:
        self.app = app
        self.databases = databases
        self.policy = policy or CommitPolicy()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if shares_unit(environ, self.databases):
            return self.app(environ, start_response)
        answer = Answer()
        body: Iterable[bytes] = ()
        try:
            with open_unit(environ, self.databases, self.policy, environ) as unit:
                body = self.app(environ, answer.start)
                if not answer.status_line:
                    body = _Begun(body)
                self.policy.settle(unit, answer.status, environ, answer)
            answer.send(start_response)
        except BaseException:
            _close(body)
            raise
        return body


class Answer:
    """
    What an application has said that it answers.

    Attributes:
        status_line: As in "200 OK".
        headers: The headers, in order.
    """

    def __init__(self) -> None:
        self.status_line = ""
        self.headers: list[tuple[str, str]] = []
        self._written: list[bytes] = []
        self._server: StartResponse | None = None

    @property
    def status(self) -> int:
        """
        The status of HTTP.

        Raises:
            RuntimeError: The application has not called `start_response`.
        """
        if not self.status_line:
            raise RuntimeError("the application returned a body and never called start_response")
        return int(self.status_line[:3])

    def start(
        self, status: str, headers: list[tuple[str, str]], exc_info: ExcInfo | None = None, /
    ) -> Callable[[bytes], object]:
        """
        Be the `start_response` of the application: keep what it says, until it is sent.
        """
        if self._server is not None:  # an error in the middle of the body, which the server must hear of
            return self._server(status, headers, exc_info)
        self.status_line, self.headers = status, headers
        self._written.clear()
        return self._written.append

    def send(self, start_response: StartResponse) -> None:
        """
        Tell the server what was kept.
        """
        self._server = start_response
        write = start_response(self.status_line, self.headers)
        for data in self._written:
            write(data)


class _Begun:
    """
    The body of an application that says what it answers only when its first piece is asked for, as a generator does.
    """

    def __init__(self, body: Iterable[bytes]) -> None:
        self._body = body
        rest = iter(body)
        self._pieces = chain([next(rest, b"")], rest)

    def __iter__(self) -> Iterator[bytes]:
        return self._pieces

    def close(self) -> None:
        _close(self._body)


def _close(body: Any) -> None:
    close = getattr(body, "close", None)
    if close is not None:
        close()
