"""
Applications inside others under pyramid_tm: none may take the work of another with it without a word.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import transaction
from pyramid.config import Configurator
from pyramid.exceptions import ConfigurationError
from pyramid.request import Request
from pyramid.response import Response
from pyramid.scripting import prepare
from transaction.interfaces import AlreadyInTransaction
from webtest import TestApp as Client

from tests.integrations.pyramid_apps import DEFAULT_TM, EXPLICIT, add, application, catch_all
from tests.unit_of_work.shop import names

if TYPE_CHECKING:
    from collections.abc import Callable

    from stillroom import Databases


def around(inner: Any) -> Callable[[Any], None]:
    """
    Return a view that writes before and after it asks another application.
    """

    def view(request: Any) -> None:
        add(request, "before")
        Request.blank("/").get_response(inner)
        add(request, "after")

    return view


def foreign(settings: dict[str, Any]) -> Any:
    """
    Make an application that knows pyramid_tm and nothing of Stillroom.
    """
    with Configurator(settings=dict(settings)) as config:
        config.add_route("home", "/")
        config.add_view(lambda _: Response("done"), route_name="home")
        return config.make_wsgi_app()


def test_the_default_manager_is_refused_and_the_remedy_is_named(dbs: Databases) -> None:
    reached: list[Any] = []
    app = application(dbs, DEFAULT_TM, reached.append, catch_all)
    with pytest.raises(ConfigurationError, match=r"tm\.manager_hook = pyramid_tm\.explicit_manager"):
        Client(app).get("/")
    assert reached == []


def test_a_script_is_refused_the_default_manager_too(dbs: Databases) -> None:
    app = application(dbs, DEFAULT_TM, add)
    with prepare(registry=app.registry) as env, pytest.raises(ConfigurationError, match=r"tm\.manager_hook"):
        with env["request"].tm:
            add(env["request"])


def test_where_pyramid_tm_keeps_out_its_manager_does_not_matter(dbs: Databases) -> None:
    never = {"tm.activate_hook": "tests.integrations.pyramid_apps.never"}
    Client(application(dbs, DEFAULT_TM | never, add)).get("/", status=200)
    assert names(dbs) == ["flute"]


def test_each_of_two_applications_commits_its_own_transaction(dbs: Databases) -> None:
    inner = application(dbs, EXPLICIT, lambda request: add(request, "inside"))
    Client(application(dbs, EXPLICIT, around(inner))).get("/", status=200)
    assert names(dbs) == ["inside", "before", "after"]


def test_an_application_with_the_default_manager_takes_nothing_from_the_one_around_it(dbs: Databases) -> None:
    Client(application(dbs, EXPLICIT, around(foreign(DEFAULT_TM)))).get("/", status=200)
    assert names(dbs) == ["before", "after"]


@pytest.mark.parametrize("known", [True, False], ids=["stillroom inside", "a stranger inside"])
def test_where_two_applications_have_one_manager_the_second_transaction_is_an_error_of_the_view(
    dbs: Databases, known: bool
) -> None:
    manager = transaction.TransactionManager(explicit=True)
    shared = EXPLICIT | {"tm.manager_hook": lambda _: manager}
    inner = application(dbs, shared, lambda request: add(request, "inside")) if known else foreign(shared)
    with pytest.raises(AlreadyInTransaction):
        Client(application(dbs, shared, around(inner))).get("/")
    assert names(dbs) == []
