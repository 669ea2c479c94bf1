"""
FastAPI: what the contract does not say, above all its dependencies, for endpoints of both kinds.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from stillroom import (
    AsyncReadRepository,
    AsyncRepository,
    AsyncUnitOfWork,
    AsyncWriteRepository,
    CommitPolicy,
    Databases,
    NoUnitOfWork,
    ReadOnlyError,
    ReadRepository,
    Repository,
    UnitOfWork,
    UnitOfWorkEnded,
    WriteRepository,
)
from stillroom.integrations.fastapi import AsyncUowDep, UowDep, blocking_session, install, repository, session
from tests.integrations.web_servers import asgi_server, ask
from tests.unit_of_work.shop import Item, names


class Items(Repository[Item]):
    """
    Items, for threads.
    """


class AsyncItems(AsyncRepository[Item]):
    """
    Items, for asyncio.
    """


@pytest.fixture
def urls(sqlite_database: str, tmp_path: Path) -> dict[str, str]:
    return {"main": sqlite_database, "audit": f"sqlite:///{tmp_path / 'audit.db'}"}


@pytest.fixture
def app(dbs: Databases) -> FastAPI:
    app = FastAPI()
    install(app, dbs)
    return app


def answers(app: FastAPI, *paths: str) -> list[tuple[int, str]]:
    with asgi_server(app) as port:
        return [(status, body.decode()) for status, body in (ask(port, path) for path in paths)]


def conflict(request: Request, error: Exception) -> Response:
    return PlainTextResponse("taken", 409)


# --- the unit of work


def test_endpoints_of_both_kinds_live_in_one_application(app: FastAPI, dbs: Databases) -> None:
    @app.get("/awaits/{name}")
    async def awaits(name: str, uow: AsyncUowDep) -> bool:
        uow.main.add(Item(name=name))
        await uow.main.flush()
        return dbs.current is uow and isinstance(uow, AsyncUnitOfWork)

    @app.get("/blocks/{name}")
    def blocks(name: str, uow: UowDep) -> bool:
        uow.main.add(Item(name=name))
        uow.main.flush()
        return dbs.current is uow and isinstance(uow, UnitOfWork)

    assert answers(app, "/awaits/flute", "/blocks/drum") == [(200, "true")] * 2
    assert names(dbs) == ["flute", "drum"]


@pytest.mark.parametrize("blocks", [True, False])
def test_the_current_unit_of_work_is_of_the_kind_of_the_endpoint_without_a_dependency(
    app: FastAPI, dbs: Databases, blocks: bool
) -> None:
    def add() -> str:
        dbs.current.session().add(Item(name="flute"))
        return type(dbs.current).__name__

    async def add_async() -> str:
        return add()

    app.get("/")(add if blocks else add_async)
    assert answers(app, "/") == [(200, '"UnitOfWork"' if blocks else '"AsyncUnitOfWork"')]
    assert names(dbs) == ["flute"]


def test_a_dependency_in_a_thread_and_an_endpoint_that_awaits_share_a_request(app: FastAPI, dbs: Databases) -> None:
    def user(uow: UowDep) -> str:
        assert dbs.current is uow
        return str(uow.reader.scalar(text("select 'Ada'")))

    @app.get("/")
    async def endpoint(name: Annotated[str, Depends(user)], uow: AsyncUowDep) -> None:
        assert dbs.current is uow
        uow.main.add(Item(name=name))

    assert answers(app, "/")[0][0] == 200
    assert names(dbs) == ["Ada"]


def test_all_dependencies_of_a_request_have_the_same_unit_of_work(app: FastAPI) -> None:
    def other(uow: UowDep) -> UnitOfWork:
        return uow

    @app.get("/")
    def endpoint(uow: UowDep, same: Annotated[Any, Depends(other, use_cache=False)]) -> bool:
        return uow is same

    assert answers(app, "/") == [(200, "true")]


def test_a_dependency_is_no_parameter_of_the_request(app: FastAPI) -> None:
    @app.get("/")
    def endpoint(
        uow: UowDep,
        main: Annotated[Session, blocking_session("main")],
        items: Annotated[Items, repository(Items)],
    ) -> None: ...

    assert "parameters" not in app.openapi()["paths"]["/"]["get"]


def test_without_install_a_dependency_names_the_remedy() -> None:
    app = FastAPI()
    said: list[str] = []

    @app.exception_handler(NoUnitOfWork)
    def hear(request: Request, error: Exception) -> Response:
        said.append(str(error))
        return Response(status_code=503)

    @app.get("/")
    async def endpoint(uow: AsyncUowDep) -> None: ...

    assert answers(app, "/")[0][0] == 503
    assert "install(app, dbs)" in said[0]


# --- sessions and repositories


def test_a_session_is_a_dependency(app: FastAPI, dbs: Databases) -> None:
    @app.get("/awaits")
    async def awaits(
        main: Annotated[AsyncSession, session()], audit: Annotated[AsyncSession, session("audit")], uow: AsyncUowDep
    ) -> bool:
        audit.add(Item(name="flute"))
        return (uow.main, uow.audit) == (main, audit)

    @app.get("/blocks")
    def blocks(
        main: Annotated[Session, blocking_session()], audit: Annotated[Session, blocking_session("audit")], uow: UowDep
    ) -> bool:
        audit.add(Item(name="drum"))
        return (uow.main, uow.audit) == (main, audit)

    assert answers(app, "/awaits", "/blocks") == [(200, "true")] * 2
    assert names(dbs, "audit") == ["flute", "drum"]


def test_a_session_may_be_a_reader(app: FastAPI) -> None:
    @app.exception_handler(ReadOnlyError)
    def refuse(request: Request, error: Exception) -> Response:
        return Response(status_code=405)

    @app.get("/awaits")
    async def awaits(reader: Annotated[AsyncSession, session(role="reader")]) -> None:
        await reader.execute(text("delete from item"))

    @app.get("/blocks")
    def blocks(reader: Annotated[Session, blocking_session(role="reader")]) -> None:
        reader.execute(text("delete from item"))

    assert [status for status, _ in answers(app, "/awaits", "/blocks")] == [405, 405]


def test_a_repository_is_a_dependency(app: FastAPI, dbs: Databases) -> None:
    @app.get("/awaits")
    async def awaits(items: Annotated[AsyncItems, repository(AsyncItems)]) -> None:
        await items.add(Item(name="flute"))

    @app.get("/blocks")
    def blocks(items: Annotated[Items, repository(Items)]) -> None:
        items.add(Item(name="drum"))

    assert [status for status, _ in answers(app, "/awaits", "/blocks")] == [200, 200]
    assert names(dbs) == ["flute", "drum"]


@pytest.mark.parametrize(
    "kind", [ReadRepository, WriteRepository, AsyncReadRepository, AsyncWriteRepository], ids=lambda kind: kind.__name__
)
def test_a_repository_of_any_kind_is_made_on_the_unit_of_its_world(app: FastAPI, kind: Any) -> None:
    made_from = kind[Item]

    @app.get("/")
    async def endpoint(items: Annotated[Any, repository(made_from)]) -> str:
        return type(items.session).__name__

    asynchronous = kind.__name__.startswith("Async")
    ((status, name),) = answers(app, "/")
    assert (status, "Async" in name) == (200, asynchronous)


# --- errors


@pytest.mark.parametrize("hidden", [True, False])
@pytest.mark.parametrize("blocks", [True, False])
def test_an_exception_below_400_is_a_rollback_even_where_a_middleware_hides_it(
    dbs: Databases, blocks: bool, hidden: bool
) -> None:
    app = FastAPI()

    def add(uow: UowDep) -> None:
        uow.main.add(Item(name="flute"))
        raise HTTPException(303, headers={"Location": "/elsewhere"})

    async def add_async(uow: AsyncUowDep) -> None:
        uow.main.add(Item(name="flute"))
        raise HTTPException(303, headers={"Location": "/elsewhere"})

    if hidden:

        @app.middleware("http")
        async def hand_on(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
            return await call_next(request)

    install(app, dbs)
    app.get("/")(add if blocks else add_async)
    assert answers(app, "/")[0][0] == 303
    assert names(dbs) == []


@pytest.mark.parametrize("blocks", [True, False])
@pytest.mark.parametrize("wait", [True, False])
def test_an_exception_handler_answers_a_failed_commit(app: FastAPI, dbs: Databases, blocks: bool, wait: bool) -> None:
    async def conflict_async(request: Request, error: Exception) -> Response:
        return conflict(request, error)

    router = APIRouter(prefix="/items")

    def add(uow: UowDep) -> dict[str, str]:
        uow.main.add_all([Item(name="flute"), Item(name="flute")])
        return {"a": "lie"}

    async def add_async(uow: AsyncUowDep) -> dict[str, str]:
        uow.main.add_all([Item(name="flute"), Item(name="flute")])
        return {"a": "lie"}

    router.get("/")(add if blocks else add_async)
    app.include_router(router)
    app.add_exception_handler(IntegrityError, conflict_async if wait else conflict)
    assert answers(app, "/items/") == [(409, "taken")]
    assert names(dbs) == []


def test_a_handler_may_use_a_unit_of_work_of_its_own(app: FastAPI, dbs: Databases) -> None:
    @app.get("/")
    async def add(uow: AsyncUowDep) -> None:
        uow.main.add_all([Item(name="flute"), Item(name="flute")])

    @app.exception_handler(IntegrityError)
    async def note(request: Request, error: Exception) -> Response:
        async with dbs.async_unit_of_work() as uow:
            uow.main.add(Item(name="a failure"))
        return JSONResponse("taken", 409)

    assert answers(app, "/") == [(409, '"taken"')]
    assert names(dbs) == ["a failure"]


def test_an_answer_that_does_not_fit_its_model_is_rolled_back(app: FastAPI, dbs: Databases) -> None:
    @app.get("/", response_model=int)
    async def add(uow: AsyncUowDep) -> Any:
        uow.main.add(Item(name="flute"))
        return "not a number"

    assert answers(app, "/")[0][0] == 500
    assert names(dbs) == []


def test_a_veto_sees_the_scope_and_the_beginning_of_the_answer(dbs: Databases) -> None:
    app = FastAPI()

    def veto(scope: Any, message: Any) -> bool:
        return scope["path"] == "/flute" and (b"x-keep", b"no") in message["headers"]

    install(app, dbs, policy=CommitPolicy(veto=veto))

    @app.get("/{name}")
    async def add(name: str, uow: AsyncUowDep, response: Response) -> None:
        uow.main.add(Item(name=name))
        response.headers["X-Keep"] = "no"

    assert [status for status, _ in answers(app, "/flute", "/drum")] == [200, 200]
    assert names(dbs) == ["drum"]


# --- after the answer


def test_a_background_task_has_a_unit_of_its_own_and_sees_what_was_committed(app: FastAPI, dbs: Databases) -> None:
    seen: list[Any] = []

    async def later(uow: AsyncUnitOfWork) -> None:
        seen.append(names(dbs))
        with pytest.raises(UnitOfWorkEnded, match="committed"):
            _ = uow.main
        async with dbs.async_unit_of_work() as own:
            own.main.add(Item(name="drum"))

    @app.get("/")
    async def endpoint(uow: AsyncUowDep, tasks: BackgroundTasks) -> None:
        uow.main.add(Item(name="flute"))
        tasks.add_task(later, uow)

    assert answers(app, "/")[0][0] == 200
    assert (seen, names(dbs)) == ([["flute"]], ["flute", "drum"])


def test_many_requests_at_once_do_not_wait_for_each_other_forever(app: FastAPI, dbs: Databases) -> None:
    @app.get("/blocks/{name}")
    def blocks(name: str, uow: UowDep) -> None:
        uow.main.add(Item(name=name))

    @app.get("/awaits/{name}")
    async def awaits(name: str, uow: AsyncUowDep) -> None:
        uow.main.add(Item(name=name))

    paths = [f"/{kind}/{kind}{number}" for number in range(30) for kind in ("blocks", "awaits")]

    async def all_at_once(port: int) -> list[tuple[int, bytes]]:
        return await asyncio.gather(*(asyncio.to_thread(ask, port, path) for path in paths))

    with asgi_server(app) as port:
        assert {status for status, _ in asyncio.run(all_at_once(port))} == {200}
    assert len(names(dbs)) == 60


# --- the lifespan


def test_the_lifespan_of_the_application_stays_its_own(dbs: Databases) -> None:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, str]]:
        async with dbs.async_unit_of_work() as uow:
            uow.main.add(Item(name="flute"))
        yield {"greeting": "hello"}
        async with dbs.async_unit_of_work() as uow:
            uow.main.add(Item(name="drum"))

    app = FastAPI(lifespan=lifespan)
    install(app, dbs)

    @app.get("/")
    def endpoint(request: Request) -> str:
        return str(request.state.greeting)

    assert answers(app, "/") == [(200, '"hello"')]
    assert dbs.main.pools() == {}
    assert names(dbs) == ["flute", "drum"]
