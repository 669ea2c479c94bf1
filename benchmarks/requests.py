"""
How much process CPU does a request cost against one whose view handles a Session by hand, and how much elsewhere?
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Annotated, Any, TypeAlias
from wsgiref.util import setup_testing_defaults

from fastapi import Depends, FastAPI, Response
from flask import Flask
from pyramid.config import Configurator
from pyramid.response import Response as PyramidResponse
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session, sessionmaker

from stillroom import Databases
from stillroom.integrations import fastapi, flask, pyramid

from .measuring import AsyncWork, Measured, Work, compare, compare_async
from .report import Figure, Result, Scale, costs
from .workload import database, noting, with_driver, write, write_async

Maker: TypeAlias = Callable[[str, contextlib.ExitStack], Any]
AsyncMaker: TypeAlias = Callable[[str, contextlib.AsyncExitStack], Any]

BAR = 1.10
OURS = "Stillroom"


def run(scale: Scale) -> Result:
    """
    Measure a request that reads and writes, in this process and without a server, in each framework.
    """
    result = Result()
    with noting(result, "PostgreSQL"), database("postgresql") as plain:
        url = with_driver(plain, "postgresql+psycopg")
        for title, makers in _BLOCKING.items():
            _record(result, title, _blocking(result, makers, url, scale))
        measured = asyncio.run(_asynchronous(result, url, scale))
        _record(result, "FastAPI", measured)
    return result


def _record(result: Result, title: str, measured: list[Measured]) -> None:
    result.tables.append(costs(f"A request that reads and writes, {title}, PostgreSQL with psycopg", measured))
    ours = next(each for each in measured if each.name == OURS)
    others = [each for each in measured[1:] if not each.name.startswith(OURS)]
    result.figures.append(Figure(f"CPU of a request to a Session by hand, {title}", ours.cpu, BAR))
    if others:
        cpu, wall = ours.cpu / min(each.cpu for each in others), ours.wall / min(each.wall for each in others)
        result.figures.append(Figure(f"CPU of a request to the best other library, {title}", cpu, 1.0))
        result.figures.append(Figure(f"Time of a request to the best other library, {title}", wall, 1.0))


# --- WSGI


def _blocking(result: Result, makers: dict[str, Maker], url: str, scale: Scale) -> list[Measured]:
    measured: list[Measured] = []
    for pair in _pairs(makers):
        with contextlib.ExitStack() as stack, _noting_absence(result, pair):
            ways = [(name, _asking(make(url, stack))) for name, make in pair.items()]
            by_hand, other = compare(ways, rounds=scale.pick(60, 3), batch=scale.pick(30, 3))
            measured += [other] if measured else [by_hand, other]
    return measured


def _pairs(makers: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """
    Put the way by hand, the first one, alone beside each of the others; `unit` says why.
    """
    first, *others = makers
    for name in others:
        yield {first: makers[first], name: makers[name]}


def _asking(app: Any) -> Work:
    environ: dict[str, Any] = {"PATH_INFO": "/"}
    setup_testing_defaults(environ)

    def ask() -> None:
        statuses: list[str] = []
        body = app(dict(environ), lambda status, *_: statuses.append(status))
        b"".join(body)
        getattr(body, "close", lambda: None)()
        if statuses != ["200 OK"]:
            raise RuntimeError(f"the answer has the status {statuses!r}")

    return ask


def _flask_by_hand(url: str, stack: contextlib.ExitStack) -> Any:
    engine = create_engine(url)
    stack.callback(engine.dispose)
    app = Flask(__name__)

    @app.get("/")
    def view() -> str:
        with Session(engine) as session:
            write(session)
            session.commit()
        return "done"

    return app


def _flask_stillroom(url: str, stack: contextlib.ExitStack) -> Any:
    app = Flask(__name__)
    flask.install(app, stack.enter_context(Databases({"databases": {"main": {"url": url}}})))

    @app.get("/")
    def view() -> str:
        write(flask.current_uow.main)
        return "done"

    return app


def _flask_sqlalchemy(url: str, stack: contextlib.ExitStack) -> Any:
    from flask_sqlalchemy import SQLAlchemy

    app = Flask(__name__)
    app.config["SQLALCHEMY_DATABASE_URI"] = url
    return _flask_extension(app, SQLAlchemy(app), stack)


def _flask_sqlalchemy_lite(url: str, stack: contextlib.ExitStack) -> Any:
    from flask_sqlalchemy_lite import SQLAlchemy

    app = Flask(__name__)
    app.config["SQLALCHEMY_ENGINES"] = {"default": url}
    return _flask_extension(app, SQLAlchemy(app), stack)


def _flask_extension(app: Any, extension: Any, stack: contextlib.ExitStack) -> Any:
    with app.app_context():
        stack.callback(extension.engine.dispose)

    @app.get("/")
    def view() -> str:
        write(extension.session)
        extension.session.commit()
        return "done"

    return app


_TM = {"pyramid.includes": "pyramid_tm", "tm.manager_hook": "pyramid_tm.explicit_manager"}


def _pyramid(view: Callable[[Any], None], configure: Callable[[Any], None], **settings: str) -> Any:
    def answer(request: Any) -> Any:
        view(request)
        return PyramidResponse("done")

    with Configurator(settings=settings) as config:
        configure(config)
        config.add_route("all", "/")
        config.add_view(answer, route_name="all")
        return config.make_wsgi_app()


def _pyramid_by_hand(url: str, stack: contextlib.ExitStack) -> Any:
    engine = create_engine(url)
    stack.callback(engine.dispose)

    def view(request: Any) -> None:
        with Session(engine) as session:
            write(session)
            session.commit()

    return _pyramid(view, lambda _: None)


def _pyramid_stillroom(url: str, stack: contextlib.ExitStack, **settings: str) -> Any:
    databases = stack.enter_context(Databases({"databases": {"main": {"url": url}}}))
    return _pyramid(lambda request: write(request.main), lambda config: pyramid.install(config, databases), **settings)


def _pyramid_tm_stillroom(url: str, stack: contextlib.ExitStack) -> Any:
    return _pyramid_stillroom(url, stack, **_TM)


def _pyramid_tm_zope(url: str, stack: contextlib.ExitStack) -> Any:
    from zope.sqlalchemy import register

    engine = create_engine(url)
    stack.callback(engine.dispose)
    make = sessionmaker(engine)

    def session_of(request: Any) -> Session:
        session = make()
        register(session, transaction_manager=request.tm)
        return session

    return _pyramid(
        lambda request: write(request.dbsession),
        lambda config: config.add_request_method(session_of, "dbsession", reify=True),
        **_TM,
    )


_BLOCKING: dict[str, dict[str, Maker]] = {
    "Flask": {
        "by hand": _flask_by_hand,
        OURS: _flask_stillroom,
        "Flask-SQLAlchemy": _flask_sqlalchemy,
        "Flask-SQLAlchemy-Lite": _flask_sqlalchemy_lite,
    },
    "Pyramid": {
        "by hand": _pyramid_by_hand,
        OURS: _pyramid_stillroom,
        f"{OURS}, pyramid_tm": _pyramid_tm_stillroom,
        "zope.sqlalchemy, pyramid_tm": _pyramid_tm_zope,
    },
}


# --- ASGI


async def _asynchronous(result: Result, url: str, scale: Scale) -> list[Measured]:
    measured: list[Measured] = []
    for pair in _pairs(_ASYNCHRONOUS):
        async with contextlib.AsyncExitStack() as stack:
            with _noting_absence(result, pair):
                ways = [(name, _asking_async(make(url, stack))) for name, make in pair.items()]
                by_hand, other = await compare_async(ways, rounds=scale.pick(60, 3), batch=scale.pick(30, 3))
                measured += [other] if measured else [by_hand, other]
    return measured


def _asking_async(app: Any) -> AsyncWork:
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/",
        "raw_path": b"/",
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"localhost")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def ask() -> None:
        statuses: list[int] = []

        async def send(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        await app(dict(scope), receive, send)
        if statuses != [200]:
            raise RuntimeError(f"the answer has the status {statuses!r}")

    return ask


def _fastapi_by_hand(url: str, stack: contextlib.AsyncExitStack) -> Any:
    engine = create_async_engine(url)
    stack.push_async_callback(engine.dispose)
    app = FastAPI()

    async def get_session() -> AsyncIterator[AsyncSession]:  # as the documentation of FastAPI shows
        async with AsyncSession(engine) as session:
            yield session

    @app.get("/")
    async def endpoint(session: Annotated[AsyncSession, Depends(get_session)]) -> Response:
        await write_async(session)
        await session.commit()
        return Response("done")

    return app


def _fastapi_stillroom(url: str, stack: contextlib.AsyncExitStack) -> Any:
    databases = Databases({"databases": {"main": {"url": url}}})
    stack.push_async_callback(databases.aclose)
    app = FastAPI()
    fastapi.install(app, databases)

    @app.get("/")
    async def endpoint(uow: fastapi.AsyncUowDep) -> Response:
        await write_async(uow.main)
        return Response("done")

    return app


def _fastapi_advanced_alchemy(url: str, stack: contextlib.AsyncExitStack) -> Any:
    from advanced_alchemy.extensions.fastapi import AdvancedAlchemy, SQLAlchemyAsyncConfig

    app = FastAPI()
    config = SQLAlchemyAsyncConfig(connection_string=url, commit_mode="autocommit")
    stack.push_async_callback(config.get_engine().dispose)
    alchemy = AdvancedAlchemy(config=config, app=app)

    @app.get("/")
    async def endpoint(session: Annotated[AsyncSession, Depends(alchemy.provide_session())]) -> Response:
        await write_async(session)
        return Response("done")

    return app


_ASYNCHRONOUS: dict[str, AsyncMaker] = {
    "by hand": _fastapi_by_hand,
    OURS: _fastapi_stillroom,
    "Advanced Alchemy": _fastapi_advanced_alchemy,
}


@contextlib.contextmanager
def _noting_absence(result: Result, pair: dict[str, Any]) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        result.notes.append(f"{list(pair)[-1]}: not measured, {error}")
