"""The unit of work of a request that is handled in one thread, and where its environ (PEP 3333) holds it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from ..errors import NoUnitOfWork, UnitOfWorkEnded

if TYPE_CHECKING:
    from collections.abc import MutableMapping
    from types import TracebackType

    from ..databases import Databases
    from ..unit_of_work import UnitOfWork
    from .policy import CommitPolicy

__all__ = ["ENVIRON_KEY", "open_unit", "shares_unit", "unit_of"]

ENVIRON_KEY = "stillroom.uow"
"""The key of the unit of work in the environ; None is there when it has ended."""


class open_unit:  # noqa: N801  # used like a function, as contextlib's own
    """
    Give the request a unit of work for the length of a `with` block.

    Args:
        environ: The request's.
        databases: The databases.
        policy: When to commit; whoever opens it calls its `settle` at the end of the block.
        request: What `session.info["request"]` is.
    """

    def __init__(
        self, environ: MutableMapping[str, Any], databases: Databases, policy: CommitPolicy, request: object
    ) -> None:
        self._environ = environ
        self._outer = environ.get(ENVIRON_KEY)
        self._unit = policy.new_unit(databases.unit_of_work, request)

    def __enter__(self) -> UnitOfWork:
        unit = self._environ[ENVIRON_KEY] = self._unit.__enter__()
        return unit

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # Not the one that has ended: it refers to the request, which would be a cycle.
        self._environ[ENVIRON_KEY] = self._outer
        self._unit.__exit__(kind, error, traceback)


def shares_unit(environ: MutableMapping[str, Any], databases: Databases) -> bool:
    """
    Say whether an application around this one has opened a unit of work of the same databases for the request.
    """
    unit = environ.get(ENVIRON_KEY)
    return unit is not None and unit.databases is databases and unit.is_active


def unit_of(environ: MutableMapping[str, Any]) -> UnitOfWork:
    """
    Return the unit of work of a request.

    Raises:
        NoUnitOfWork: Nobody has opened one.
        UnitOfWorkEnded: The answer was given already: this is the body of a stream, a callback or an error's answer.
    """
    unit = environ.get(ENVIRON_KEY)
    if unit is not None:
        return cast("UnitOfWork", unit)
    if ENVIRON_KEY in environ:
        raise UnitOfWorkEnded(
            "the unit of work of this request has ended, because its answer is known; a streaming body, a callback and "
            "the answer to a failed COMMIT open one of their own: `with dbs.unit_of_work() as uow:`"
        )
    raise NoUnitOfWork(
        "this request has no unit of work: install stillroom on its application, by "
        "stillroom.integrations.flask.install(app, dbs), .pyramid.install(config, dbs) or "
        ".wsgi.UnitOfWorkMiddleware(app, dbs)"
    )
