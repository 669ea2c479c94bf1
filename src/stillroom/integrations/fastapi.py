"""FastAPI: the unit of work, a session or a repository as annotated parameters, for endpoints of both kinds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, cast

from stillroom import (
    AsyncReadRepository,
    AsyncRepository,
    AsyncUnitOfWork,
    AsyncWriteRepository,
    CommitPolicy,
    MissingExtra,
    NoUnitOfWork,
    UnitOfWork,
)
from stillroom.web import KEY, RequestUnits, UnitOfWorkMiddleware

try:
    from fastapi import Depends, FastAPI
    from starlette.requests import HTTPConnection  # noqa: TC002  # FastAPI evaluates the annotations
except ImportError as error:  # pragma: no cover
    raise MissingExtra("FastAPI is not installed", extra="fastapi", name="fastapi") from error

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from typing import Literal

    from stillroom import Databases, SessionRole

__all__ = ["AsyncUowDep", "UowDep", "blocking_session", "install", "repository", "session"]


def install(
    app: FastAPI,
    databases: Databases,
    *,
    policy: CommitPolicy | None = None,
    websocket: Literal["none", "message"] = "none",
) -> None:
    """
    Give each request a unit of work, and close the databases at the end of the lifespan.

    It ends before the response starts; an error of its COMMIT goes to the application's exception handlers.

    Args:
        app: The application; its own lifespan stays as it is.
        databases: The databases.
        policy: When to commit; its veto gets the scope and the message `http.response.start`.
        websocket: As for `UnitOfWorkMiddleware`.
    """
    app.add_middleware(UnitOfWorkMiddleware, databases=databases, policy=policy, websocket=websocket)


def _units(connection: HTTPConnection) -> RequestUnits:
    units = connection.scope.get(KEY)
    if units is None:
        raise NoUnitOfWork(
            "there is no unit of work for this request: call install(app, dbs) at the start; for a websocket say "
            "websocket='message', or open one in the endpoint: `async with dbs.async_unit_of_work() as uow:`"
        )
    return cast("RequestUnits", units)


# Generators, because they see what the endpoint raises even where a middleware hides it; and asynchronous ones, which
# need no thread.


async def _async_unit(connection: HTTPConnection) -> AsyncIterator[AsyncUnitOfWork]:
    units = _units(connection)
    try:
        yield units.asynchronous()
    except BaseException as error:
        units.doom_for(error)
        raise


async def _blocking_unit(connection: HTTPConnection) -> AsyncIterator[UnitOfWork]:
    units = _units(connection)
    try:
        yield units.blocking()
    except BaseException as error:
        units.doom_for(error)
        raise


AsyncUowDep = Annotated[AsyncUnitOfWork, Depends(_async_unit)]
"""The unit of work, for `async def` endpoints."""
UowDep = Annotated[UnitOfWork, Depends(_blocking_unit)]
"""The unit of work, for `def` endpoints, which run in a thread; so does its COMMIT."""


def session(name: str | None = None, *, role: SessionRole | None = None) -> Any:
    """
    Return a dependency: a session of the unit of work, an `AsyncSession` for `async def`, for `Annotated`.

    ::

        MainSession = Annotated[AsyncSession, session("main")]

    Args:
        name: The database; None for the default one.
        role: As for `UnitOfWork.session`.
    """

    async def get(uow: AsyncUowDep) -> Any:
        return uow.session(name, role=role)

    return Depends(get)


def blocking_session(name: str | None = None, *, role: SessionRole | None = None) -> Any:
    """
    Same as `session`, but a `Session`, for `def` endpoints.
    """

    async def get(uow: UowDep) -> Any:
        return uow.session(name, role=role)

    return Depends(get)


def repository(kind: type[Any], *, role: SessionRole | None = None) -> Any:
    """
    Return a dependency: a repository on the unit of work, for `Annotated`; an `AsyncRepository` for `async def`.

    ::

        UsersDep = Annotated[Users, repository(Users)]

    Args:
        kind: The class of the repository, of either kind.
        role: As for the repository.
    """
    is_async = issubclass(kind, AsyncReadRepository | AsyncWriteRepository | AsyncRepository)
    unit = Depends(_async_unit if is_async else _blocking_unit)

    async def get(uow: Any = unit) -> Any:
        return kind(uow, role=role)

    return Depends(get)
