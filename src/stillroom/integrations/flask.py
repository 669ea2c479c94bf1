"""Flask: a unit of work for each request, ended before the response leaves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from stillroom import CommitPolicy, MissingExtra, NoUnitOfWork, UnitOfWork
from stillroom.cli import commands_for
from stillroom.web import open_unit, shares_unit, unit_of

try:
    from flask import request
    from werkzeug.local import LocalProxy
except ImportError as error:  # pragma: no cover
    raise MissingExtra("Flask is not installed", extra="flask", name="flask") from error

if TYPE_CHECKING:
    from collections.abc import Callable

    from flask import Flask, Request, Response

    from stillroom import Databases

__all__ = ["Stillroom", "current_uow", "install"]

_EXTENSION = "stillroom"
# Each attribute that is asked for through a proxy costs three times what it costs on the object.
_request: Callable[[], Request] = cast("Any", request)._get_current_object  # noqa: SLF001  # documented by Werkzeug


class Stillroom:
    """
    The extension, for application factories.

    ::

        stillroom = Stillroom(dbs)

        def create_app():
            app = Flask(__name__)
            stillroom.init_app(app)
            return app

    Args:
        databases: The databases.
        policy: When to commit.
    """

    def __init__(self, databases: Databases, *, policy: CommitPolicy | None = None) -> None:
        self.databases = databases
        self.policy = policy

    def init_app(self, app: Flask) -> None:
        """
        Give each request of an application a unit of work; see `install`.
        """
        install(app, self.databases, policy=self.policy)


def install(app: Flask, databases: Databases, *, policy: CommitPolicy | None = None) -> None:
    """
    Give each request of an application a unit of work: `current_uow`.

    It ends after all functions of `after_request`, and before a byte of the answer is sent. An error of its COMMIT goes
    to the application's error handlers, as one of the view does. The shell has `dbs`, and there are the commands
    `flask stillroom …`. The databases are `app.extensions["stillroom"].databases`.

    Args:
        app: The application.
        databases: The databases; they may be configured later.
        policy: When to commit; its veto gets Flask's request and response.

    Raises:
        RuntimeError: It was installed already.
    """
    if _EXTENSION in app.extensions:
        raise RuntimeError(f"stillroom is installed on {app!r} already: call install, or init_app, once")
    requests = app.extensions[_EXTENSION] = _Requests(app, databases, policy or CommitPolicy())
    # As a subclass would override them, but for an application that exists already.
    app.__dict__.update(full_dispatch_request=requests.dispatch, handle_user_exception=requests.fail)
    app.shell_context_processor(lambda: {"dbs": databases})
    app.cli.add_command(commands_for(databases))


class _Requests:
    """
    What happens to the requests of one application.

    Newer versions of Flask pass a context to the methods that are wrapped here; it is passed on.
    """

    def __init__(self, app: Flask, databases: Databases, policy: CommitPolicy) -> None:
        self.app = app
        self.databases = databases
        self.policy = policy
        self._dispatch: Callable[..., Response] = app.full_dispatch_request
        self._fail: Any = app.handle_user_exception

    def dispatch(self, *context: Any) -> Response:
        """
        Answer a request as Flask does, and end the unit of work when the answer is complete.
        """
        real = _request()
        environ = real.environ
        if shares_unit(environ, self.databases):
            return self._dispatch(*context)
        response: Response | None = None
        try:
            with open_unit(environ, self.databases, self.policy, real) as unit:
                response = self._dispatch(*context)
                self.policy.settle(unit, response.status_code, real, response)
        except Exception as error:
            if response is None:
                raise
            # what a view may raise, COMMIT may raise
            response.close()
            finalize: Any = self.app.finalize_request
            response = finalize(*context, self.fail(*context, error))
        return response

    def fail(self, *context_and_error: Any) -> Any:
        """
        Handle an error as Flask does, but never commit what was written before it.
        """
        environ = _request().environ
        if shares_unit(environ, self.databases):
            unit_of(environ).doom(f"the view raised {type(context_and_error[-1]).__name__}")
        return self._fail(*context_and_error)


def _current() -> UnitOfWork:
    try:
        environ = _request().environ
    except RuntimeError:
        raise NoUnitOfWork(
            "current_uow: this is no request. In a script, a command or a thread open a unit of work: "
            "`with dbs.unit_of_work() as uow:`"
        ) from None
    return unit_of(environ)


class _CurrentUnit(LocalProxy[UnitOfWork]):
    """
    Finds the unit of work in one step, where Werkzeug's proxies take five.
    """

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        return getattr(_current(), name)


current_uow = cast("UnitOfWork", _CurrentUnit(_current))
"""The unit of work of the current request."""
