"""
Pyramid applications for tests, with and without pyramid_tm.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import transaction
from pyramid.config import Configurator
from pyramid.response import Response

from stillroom.integrations.pyramid import install
from tests.unit_of_work.shop import Item

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from stillroom import Databases

TWEEN: dict[str, Any] = {}
DEFAULT_TM: dict[str, Any] = {"pyramid.includes": "pyramid_tm"}
EXPLICIT: dict[str, Any] = DEFAULT_TM | {"tm.manager_hook": "pyramid_tm.explicit_manager"}
WAYS = [TWEEN, EXPLICIT]


def name_of_way(settings: dict[str, Any]) -> str:
    return "pyramid_tm" if settings else "tween"


def application(
    databases: Databases,
    settings: dict[str, Any],
    view: Callable[[Any], Any],
    configure: Callable[[Configurator], None] = lambda _: None,
    **options: Any,
) -> Any:
    """
    Make an application with one view at "/"; what it returns, if it is no response, is the body.
    """

    def answer(request: Any) -> Any:
        returned = view(request)
        return returned if isinstance(returned, Response) else Response(str(returned))

    with Configurator(settings=dict(settings)) as config:
        install(config, databases, **options)
        config.add_route("home", "/")
        config.add_view(answer, route_name="home")
        configure(config)
        return config.make_wsgi_app()


def catch_all(config: Configurator) -> None:
    """
    Answer every exception with 200, and the name of its class.
    """
    config.add_exception_view(lambda error, _: Response(type(error).__name__), Exception)


def add(request: Any, name: str | None = "flute") -> None:
    request.main.add(Item(name=name))


# --- as `.ini` files name them


def from_ini(_: dict[str, str], **settings: Any) -> Any:
    """
    Be the application of an `.ini` file; it adds the item that the query names.
    """
    with Configurator(settings=settings) as config:
        config.include("stillroom.integrations.pyramid")
        config.add_route("home", "/")
        config.add_view(_add_from_query, route_name="home")
        return config.make_wsgi_app()


def _add_from_query(request: Any) -> Response:
    add(request, request.params["name"])
    return Response("added", status=int(request.params.get("status", "200")))


def veto(request: Any, response: Any) -> bool:
    return bool(request.params["name"] == "vetoed")


def never(request: Any) -> bool:
    """
    Keep pyramid_tm out of every request.
    """
    return False


class Refusing:
    """
    A data manager that votes against every commit.
    """

    transaction_manager = None

    def _agree(self, _: Any) -> None:
        pass

    tpc_begin = commit = tpc_finish = tpc_abort = abort = _agree

    def tpc_vote(self, _: Any) -> None:
        raise ValueError("no")

    def sortKey(self) -> str:  # noqa: N802  # the interface says so
        return "~sqlalchemy"


def dooming_manager() -> Iterator[Any]:
    """
    Yield a manager whose transaction is begun and will never be committed, as the tests of an application use it.
    """
    manager = transaction.TransactionManager(explicit=True)
    manager.begin()
    manager.doom()
    yield manager
    manager.abort()
