"""
Each integration of a web framework keeps the contract that third parties are given.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import litestar
import pytest
from fastapi import FastAPI
from flask import Flask
from litestar.middleware import DefineMiddleware
from pyramid.config import Configurator
from pyramid.response import Response as PyramidResponse
from quart import Quart
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

from stillroom.integrations import asgi, fastapi, flask, pyramid, wsgi
from stillroom.testing.clients import asgi_client, wsgi_client
from stillroom.testing.contract import IntegrationContract

if TYPE_CHECKING:
    from collections.abc import Iterator
    from wsgiref.types import StartResponse, WSGIEnvironment

    from starlette.requests import Request

    from stillroom import CommitPolicy, Databases
    from stillroom.testing.contract import Call


class TestWSGI(IntegrationContract):
    """
    The middleware around a bare application.
    """

    def client(self, databases: Databases, policy: CommitPolicy) -> Iterator[Call]:
        def app(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
            status = self.act(wsgi.unit_of(environ), environ["PATH_INFO"].strip("/"))
            start_response(f"{status} As It Is", [])
            return [b"body"]

        yield wsgi_client(wsgi.UnitOfWorkMiddleware(app, databases, policy=policy))


class TestFlask(IntegrationContract):
    """
    The extension.
    """

    def client(self, databases: Databases, policy: CommitPolicy) -> Iterator[Call]:
        app = Flask(__name__)
        flask.install(app, databases, policy=policy)

        @app.get("/<case>")
        def view(case: str) -> tuple[str, int]:
            return "body", self.act(flask.current_uow, case)

        yield wsgi_client(app)


class TestPyramid(IntegrationContract):
    """
    The tween.
    """

    def client(self, databases: Databases, policy: CommitPolicy) -> Iterator[Call]:
        yield wsgi_client(self.application(databases, policy, {}))

    def application(self, databases: Databases, policy: CommitPolicy, settings: dict[str, Any]) -> Any:
        def view(request: Any) -> PyramidResponse:
            return PyramidResponse(status=self.act(request.uow, request.matchdict["case"]))

        with Configurator(settings=settings) as config:
            pyramid.install(config, databases, policy=policy)
            config.add_route("case", "/{case}")
            config.add_view(view, route_name="case")
            return config.make_wsgi_app()


class TestPyramidWithTransactions(TestPyramid):
    """
    With pyramid_tm, which decides alone; so the policy is its veto.
    """

    def client(self, databases: Databases, policy: CommitPolicy) -> Iterator[Call]:
        def veto(request: Any, response: Any) -> bool:
            return policy.commit == "auto" and policy.refusal(response.status_int, request, response) is not None

        settings = {
            "pyramid.includes": "pyramid_tm",
            "tm.commit_veto": veto,
            "tm.manager_hook": "pyramid_tm.explicit_manager",
        }
        yield wsgi_client(self.application(databases, policy, settings))


class TestASGI(IntegrationContract):
    """
    The middleware around Starlette.
    """

    def client(self, databases: Databases, policy: CommitPolicy) -> Iterator[Call]:
        async def view(request: Request) -> Response:
            return Response("body", await self.act_async(request.state.uow, request.path_params["case"]))

        app = Starlette(routes=[Route("/{case}", view)])
        with asgi_client(asgi.UnitOfWorkMiddleware(app, databases, policy=policy)) as call:
            yield call


class TestLitestar(IntegrationContract):
    """
    The middleware as one of Litestar's, which does not show it the lifespan.
    """

    def client(self, databases: Databases, policy: CommitPolicy) -> Iterator[Call]:
        @litestar.get("/{case:str}")
        async def view(request: litestar.Request[Any, Any, Any]) -> litestar.Response[str]:
            status = await self.act_async(request.state.uow, request.path_params["case"])
            return litestar.Response("body", status_code=status)

        middleware = DefineMiddleware(asgi.UnitOfWorkMiddleware, databases=databases, policy=policy)
        app = litestar.Litestar([view], middleware=[middleware], on_shutdown=[databases.aclose], logging_config=None)
        with asgi_client(app) as call:
            yield call


class TestLitestarWithThreads(IntegrationContract):
    """
    The middleware around Litestar, and a function that it runs in a thread.
    """

    def client(self, databases: Databases, policy: CommitPolicy) -> Iterator[Call]:
        @litestar.get("/{case:str}", sync_to_thread=True)
        def view(request: litestar.Request[Any, Any, Any]) -> litestar.Response[str]:
            uow: Any = databases.current
            status = self.act(uow, request.path_params["case"])
            return litestar.Response("body", status_code=status)

        app = litestar.Litestar([view], logging_config=None)
        with asgi_client(asgi.UnitOfWorkMiddleware(app, databases, policy=policy)) as call:
            yield call


class TestQuart(IntegrationContract):
    """
    The middleware around Quart's own application of ASGI.
    """

    def client(self, databases: Databases, policy: CommitPolicy) -> Iterator[Call]:
        app = Quart(__name__)

        @app.get("/<case>")
        async def view(case: str) -> tuple[str, int]:
            uow: Any = databases.current
            return "body", await self.act_async(uow, case)

        app.asgi_app = asgi.UnitOfWorkMiddleware(app.asgi_app, databases, policy=policy)  # type: ignore[method-assign]  # as Quart says
        with asgi_client(app) as call:
            yield call


class TestQuartWithThreads(IntegrationContract):
    """
    The same, and a function that Quart runs in a thread.
    """

    def client(self, databases: Databases, policy: CommitPolicy) -> Iterator[Call]:
        app = Quart(__name__)

        @app.get("/<case>")
        def view(case: str) -> tuple[str, int]:
            uow: Any = databases.current
            return "body", self.act(uow, case)

        app.asgi_app = asgi.UnitOfWorkMiddleware(app.asgi_app, databases, policy=policy)  # type: ignore[method-assign]  # as Quart says
        with asgi_client(app) as call:
            yield call


class TestFastAPI(IntegrationContract):
    """
    Coroutines as endpoints.
    """

    def client(self, databases: Databases, policy: CommitPolicy) -> Iterator[Call]:
        app = FastAPI()
        fastapi.install(app, databases, policy=policy)

        @app.get("/{case}")
        async def endpoint(case: str, uow: fastapi.AsyncUowDep) -> Response:
            return Response("body", await self.act_async(uow, case))

        with asgi_client(app) as call:
            yield call


class TestFastAPIWithThreads(IntegrationContract):
    """
    Functions as endpoints, which run in threads.
    """

    def client(self, databases: Databases, policy: CommitPolicy) -> Iterator[Call]:
        app = FastAPI()
        fastapi.install(app, databases, policy=policy)

        @app.get("/{case}")
        def endpoint(case: str, uow: fastapi.UowDep) -> Response:
            return Response("body", self.act(uow, case))

        with asgi_client(app) as call:
            yield call


BROKEN = """
from stillroom.testing.clients import wsgi_client
from stillroom.testing.contract import IntegrationContract


class TestBroken(IntegrationContract):
    def client(self, databases, policy):
        def app(environ, start_response):
            unit = policy.new_unit(databases.unit_of_work, environ)
            return answer(self, unit, policy, environ, start_response)

        yield wsgi_client(app)


def view(test, unit, environ, start_response):
    status = test.act(unit, environ["PATH_INFO"].strip("/"))
    start_response(f"{status} As It Is", [])
    return [b"body"]
"""
WITHOUT_POLICY = """
def answer(test, unit, policy, environ, start_response):
    with unit:
        return view(test, unit, environ, start_response)
"""
AFTER_THE_ANSWER = """
def answer(test, unit, policy, environ, start_response):
    with unit:
        yield from view(test, unit, environ, start_response)
"""
WITHOUT_END = """
def answer(test, unit, policy, environ, start_response):
    unit.__enter__()
    body = view(test, unit, environ, start_response)
    unit.commit() if policy.commit == "manual" else unit.rollback()
    return body
"""


@pytest.mark.parametrize(
    ("answer", "promise", "outcomes"),
    [
        (WITHOUT_POLICY, "test_an_answer_of_400_or_more_keeps_only_the_log", {"failed": 2}),
        (WITHOUT_POLICY, "test_a_veto_rolls_back_and_changes_nothing_about_the_answer", {"failed": 1}),
        (AFTER_THE_ANSWER, "test_a_commit_that_fails_is_an_error_for_the_client", {"failed": 1}),
        (WITHOUT_END, "test_the_unit_of_work_is_the_current_one_in_the_view", {"passed": 1, "errors": 1}),
    ],
)
def test_the_contract_notices_an_integration_that_breaks_it(
    answer: str, promise: str, outcomes: dict[str, int], pytester: pytest.Pytester
) -> None:
    pytester.makepyfile(BROKEN + answer)
    result = pytester.runpytest_inprocess("-q", "-p", "no:randomly", "-p", "no:asyncio", "-k", promise)
    result.assert_outcomes(**outcomes)
