"""
Pyramid: what the contract does not say, with the tween alone and with pyramid_tm.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest
from pyramid.config import Configurator
from pyramid.exceptions import ConfigurationConflictError, ConfigurationError
from pyramid.httpexceptions import HTTPFound
from pyramid.paster import bootstrap, get_app
from pyramid.request import Request
from pyramid.response import Response
from pyramid.scripting import prepare
from pyramid.scripts.pshell import PShellCommand
from pyramid.wsgi import wsgiapp2
from sqlalchemy import insert, text
from sqlalchemy.exc import IntegrityError
from webtest import TestApp as Client

from stillroom import CommitPolicy, Databases, NoUnitOfWork, SettingsError, UnitOfWorkEnded
from stillroom.integrations.pyramid import databases_of, install
from stillroom.integrations.wsgi import UnitOfWorkMiddleware
from tests.integrations.pyramid_apps import (
    EXPLICIT,
    TWEEN,
    WAYS,
    Refusing,
    add,
    application,
    catch_all,
    dooming_manager,
    name_of_way,
)
from tests.unit_of_work.shop import Base, Item, idle, made, names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sqlalchemy.orm import Session

HERE = "tests.integrations.pyramid_apps"

each_way = pytest.mark.parametrize("way", WAYS, ids=name_of_way)


@pytest.fixture
def three(tmp_path: Path) -> Iterator[Databases]:
    """
    "main", "audit" and the logger "log".
    """
    urls: dict[str, dict[str, Any]] = {
        name: {"url": f"sqlite:///{tmp_path / name}.db"} for name in ("main", "audit", "log")
    }
    urls["log"]["role"] = "logger"
    with made(urls) as databases:
        yield databases
        assert idle(databases)


# --- what is committed


def by_raw_cursor(session: Session) -> None:
    cursor = session.connection().connection.cursor()
    cursor.execute("INSERT INTO item (name, amount) VALUES ('flute', 0)")
    cursor.close()


WRITES: dict[str, Callable[[Session], Any]] = {
    "add": lambda session: session.add(Item(name="flute")),
    "bulk_save_objects": lambda session: session.bulk_save_objects([Item(name="flute")]),
    "bulk_insert_mappings": lambda session: session.bulk_insert_mappings(Item.__mapper__, [{"name": "flute"}]),
    "insert": lambda session: session.execute(insert(Item).values(name="flute")),
    "core": lambda session: session.connection().execute(insert(Item).values(name="flute", amount=0)),
    "text": lambda session: session.execute(text("INSERT INTO item (name, amount) VALUES ('flute', 0)")),
    "ddl": lambda session: session.execute(text("CREATE TABLE flute (n INTEGER)")),
    "raw": by_raw_cursor,
}


@each_way
@pytest.mark.parametrize("how", WRITES)
def test_every_way_to_write_is_a_write(dbs: Databases, way: dict[str, Any], how: str) -> None:
    app = Client(application(dbs, way, lambda request: WRITES[how](request.main)))
    app.get("/")
    with dbs.main.begin() as connection:
        found = connection.scalar(text("SELECT count(*) FROM item"))
        assert found or connection.dialect.has_table(connection, "flute")


@each_way
@pytest.mark.parametrize("raised", [HTTPFound("/elsewhere"), LookupError()], ids=["redirect", "error"])
def test_an_exception_that_a_view_answers_well_is_rolled_back_all_the_same(
    dbs: Databases, way: dict[str, Any], raised: Exception
) -> None:
    def view(request: Any) -> None:
        add(request)
        raise raised

    Client(application(dbs, way, view, catch_all)).get("/")
    assert names(dbs) == []


@each_way
def test_a_redirect_that_is_returned_is_committed(dbs: Databases, way: dict[str, Any]) -> None:
    def view(request: Any) -> Any:
        add(request)
        return HTTPFound("/elsewhere")

    Client(application(dbs, way, view)).get("/", status=302)
    assert names(dbs) == ["flute"]


@each_way
def test_an_exception_view_answers_a_failed_commit(dbs: Databases, way: dict[str, Any]) -> None:
    def conflict(error: Exception, request: Any) -> Response:
        with pytest.raises(UnitOfWorkEnded, match="its answer is known"):
            _ = request.main
        return Response("conflict", status=409)

    app = application(
        dbs, way, lambda request: add(request, None), lambda config: config.add_exception_view(conflict, IntegrityError)
    )
    assert Client(app).get("/", status=409).text == "conflict"


@each_way
def test_an_exception_view_answers_a_failed_commit_by_hand(dbs: Databases, way: dict[str, Any]) -> None:
    def view(request: Any) -> None:
        add(request, None)
        request.uow.commit()

    app = application(dbs, way, view, catch_all, policy=CommitPolicy(commit="manual"))
    assert Client(app).get("/").text == "IntegrityError"


@each_way
def test_a_failed_commit_that_no_view_answers_goes_up(dbs: Databases, way: dict[str, Any]) -> None:
    app = application(dbs, way, lambda request: add(request, None))
    with pytest.raises(IntegrityError):
        Client(app).get("/")


@each_way
@pytest.mark.parametrize("fails", [False, True])
def test_two_databases_and_a_logger(three: Databases, way: dict[str, Any], fails: bool) -> None:
    def view(request: Any) -> None:
        for session in (request.main, request.audit, request.uow.logger):
            session.add(Item(name="flute"))
        if fails:
            raise LookupError

    Client(application(three, way, view, catch_all)).get("/")
    kept = [] if fails else ["flute"]
    assert {name: names(three, name) for name in three} == {"main": kept, "audit": kept, "log": ["flute"]}


@each_way
def test_a_unit_of_work_that_is_not_used_opens_nothing(dbs: Databases, way: dict[str, Any]) -> None:
    seen: list[str] = []
    Client(application(dbs, way, lambda _: seen.append(repr(dbs.current)))).get("/")
    assert seen == ["<UnitOfWork active>"]


def test_the_veto_gets_request_and_response_of_pyramid(dbs: Databases) -> None:
    def veto(request: Any, response: Any) -> bool:
        return bool(request.params["dry"] == "1" and response.text == "None")

    app = Client(application(dbs, TWEEN, add, policy=CommitPolicy(veto=veto)))
    app.get("/?dry=1")
    assert names(dbs) == []
    app.get("/?dry=0")
    assert names(dbs) == ["flute"]


# --- before, after and beside the request


@each_way
def test_what_comes_after_the_answer_is_told_that_the_unit_of_work_has_ended(
    dbs: Databases, way: dict[str, Any]
) -> None:
    late: list[str] = []

    def use_late(request: Any, _: Any = None) -> None:
        with pytest.raises(UnitOfWorkEnded, match="its answer is known"):
            _ = request.main
        late.append("told")

    def view(request: Any) -> Response:
        def pieces() -> Iterator[bytes]:
            use_late(request)
            yield b"done"

        request.add_response_callback(use_late)
        return Response(app_iter=pieces())

    assert Client(application(dbs, way, view)).get("/").text == "done"
    assert late == ["told", "told"]


def outermost_tween_factory(handler: Any, registry: Any) -> Any:
    def tween(request: Any) -> Any:
        with pytest.raises(NoUnitOfWork):
            _ = request.main
        return handler(request)

    return tween


def test_a_tween_around_it_is_told_that_there_is_none_yet(dbs: Databases) -> None:
    app = application(dbs, TWEEN, add, lambda config: config.add_tween(f"{__name__}.outermost_tween_factory"))
    Client(app).get("/")
    assert names(dbs) == ["flute"]


@each_way
def test_an_application_inside_another_shares_the_unit_of_work(dbs: Databases, way: dict[str, Any]) -> None:
    inner = application(dbs, TWEEN, add)

    def configure(config: Configurator) -> None:
        config.add_route("inner", "/inner/*subpath")
        config.add_view(wsgiapp2(inner), route_name="inner")
        config.add_tween(f"{__name__}.failing_tween_factory", under="pyramid.tweens.excview_tween_factory")

    Client(application(dbs, way, add, configure)).get("/inner/", expect_errors=True)
    assert names(dbs) == (["flute"] if way else [])


def test_inside_the_middleware_an_exception_that_a_view_answers_well_is_rolled_back_too(dbs: Databases) -> None:
    def view(request: Any) -> None:
        add(request)
        raise LookupError

    Client(UnitOfWorkMiddleware(application(dbs, TWEEN, view, catch_all), dbs)).get("/", status=200)
    assert names(dbs) == []


def failing_tween_factory(handler: Any, registry: Any) -> Any:
    def tween(request: Any) -> Any:
        response = handler(request)
        response.status_int = 503
        return response

    return tween


@each_way
@pytest.mark.parametrize("use_tweens", [False, True])
def test_a_subrequest_shares_the_unit_of_work_unless_it_goes_through_the_tweens(
    dbs: Databases, way: dict[str, Any], use_tweens: bool
) -> None:
    seen: list[Any] = []

    def view(request: Any) -> None:
        seen.append(request.uow)
        if len(seen) == 1:
            request.invoke_subrequest(Request.blank("/"), use_tweens=use_tweens)

    Client(application(dbs, way, view)).get("/")
    assert (seen[0] is seen[1]) is not use_tweens


# --- pyramid_tm


@pytest.mark.parametrize("end", ["commit", "abort"])
def test_a_transaction_that_the_view_ends_has_a_unit_of_work_of_its_own(dbs: Databases, end: str) -> None:
    def view(request: Any) -> None:
        add(request, "first")
        getattr(request.tm, end)()
        request.tm.begin()
        add(request, "second")

    Client(application(dbs, EXPLICIT, view)).get("/")
    assert names(dbs) == (["first", "second"] if end == "commit" else ["second"])


def test_savepoints_of_the_transaction_are_savepoints_of_all_databases(three: Databases) -> None:
    def view(request: Any) -> None:
        add(request, "kept")
        outer = request.tm.savepoint()
        add(request, "lost with the outer one")
        request.audit.add(Item(name="lost: opened after the savepoint"))
        request.tm.savepoint()
        add(request, "lost with the inner one")
        outer.rollback()
        add(request, "lost too")
        outer.rollback()
        inner = request.tm.savepoint()
        request.main.execute(insert(Item).values(name="lost: by Core"))
        inner.rollback()
        add(request, "also kept")
        request.tm.savepoint()
        request.audit.add(Item(name="kept"))

    Client(application(three, EXPLICIT, view)).get("/")
    assert (names(three), names(three, "audit")) == (["kept", "also kept"], ["kept"])


def test_a_savepoint_made_before_the_first_use_takes_all_of_it_back(dbs: Databases) -> None:
    with prepare(registry=application(dbs, EXPLICIT, add).registry) as env:
        request = env["request"]
        with request.tm:
            savepoint = request.tm.savepoint()
            add(request, "lost")
            savepoint.rollback()
            add(request, "kept")
    assert names(dbs) == ["kept"]


def test_nothing_is_committed_when_another_member_of_the_transaction_refuses(dbs: Databases) -> None:
    def view(request: Any) -> None:
        add(request)
        request.tm.get().join(Refusing())

    with pytest.raises(ValueError, match="no"):
        Client(application(dbs, EXPLICIT, view)).get("/")
    assert names(dbs) == []


def test_a_doomed_transaction_is_rolled_back(dbs: Databases) -> None:
    def view(request: Any) -> None:
        add(request)
        request.tm.doom()

    Client(application(dbs, EXPLICIT, view)).get("/")
    assert names(dbs) == []


def test_where_the_hook_keeps_pyramid_tm_out_the_tween_ends_it(dbs: Databases) -> None:
    app = application(dbs, EXPLICIT | {"tm.activate_hook": f"{HERE}.never"}, add)
    Client(app).get("/")
    assert names(dbs) == ["flute"]


def test_requests_share_the_transaction_that_a_test_gives_them(dbs: Databases) -> None:
    def view(request: Any) -> int:
        add(request)
        return len(request.main.query(Item).all())

    app = application(dbs, EXPLICIT, view)
    manager = contextlib.contextmanager(dooming_manager)
    with manager() as tm:
        client = Client(app, extra_environ={"tm.active": "yes", "tm.manager": tm})
        assert client.get("/").text == "1"
        with pytest.raises(IntegrityError):
            client.get("/")
    assert names(dbs) == []


def test_requests_share_the_unit_of_work_that_a_test_gives_them(dbs: Databases) -> None:
    app = application(dbs, TWEEN, lambda request: add(request, request.params["name"]))
    with dbs.unit_of_work() as uow:
        client = Client(app, extra_environ={"stillroom.uow": uow})
        client.get("/?name=one")
        client.get("/?name=two")
        assert len(uow.main.query(Item).all()) == 2
        uow.doom()
    assert names(dbs) == []


# --- settings


INI = """
[app:main]
use = call:tests.integrations.pyramid_apps:from_ini
stillroom.databases.main.url = sqlite:///%(here)s/main.db
stillroom.databases.audit.url = sqlite:///%(here)s/audit.db
stillroom.default = main
{more}
[pshell]
setup = stillroom.integrations.pyramid.pshell
[loggers]
keys = root
[handlers]
keys =
[formatters]
keys =
[logger_root]
level = WARNING
handlers =
"""


def ini(directory: Path, more: str = "") -> str:
    path = directory / "app.ini"
    path.write_text(INI.format(more=more), encoding="utf-8")
    return str(path)


@pytest.fixture
def from_ini(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """
    A function that makes the application of an `.ini` file with further keys, and its tables.
    """
    made: list[Databases] = []

    def make(more: str = "") -> Any:
        app = get_app(ini(tmp_path, more))
        made.append(databases_of(app.registry))
        Base.metadata.create_all(made[-1].main.engine)
        return app

    yield make
    for databases in made:
        databases.close()


def test_the_ini_file_declares_the_databases(from_ini: Callable[..., Any], tmp_path: Path) -> None:
    app = from_ini()
    Client(app).get("/?name=flute")
    assert list(databases_of(app.registry)) == ["main", "audit"]
    assert names(databases_of(app.registry)) == ["flute"]
    assert (tmp_path / "main.db").exists()


def test_the_ini_file_says_when_to_commit(from_ini: Callable[..., Any]) -> None:
    app = from_ini(f"stillroom.pyramid.below = 500\nstillroom.pyramid.veto = {HERE}.veto")
    Client(app).get("/?name=wrong&status=404", status=404)
    Client(app).get("/?name=failed&status=500", status=500)
    Client(app).get("/?name=vetoed")
    assert names(databases_of(app.registry)) == ["wrong"]


@pytest.mark.parametrize(
    ("line", "error", "message"),
    [
        ("stillroom.pyramid.bellow = 500", ConfigurationError, r"stillroom\.pyramid\.bellow: there is no such key"),
        ("stillroom.pyramid.below = much", ConfigurationError, r"stillroom\.pyramid: .*'much'"),
        ("stillroom.pyramid.commit = never", ConfigurationError, r"stillroom\.pyramid: commit='never'"),
        ("stillroom.databases.main.pool_sise = 3", SettingsError, r"databases\.main\.pool_sise"),
        ("stillroom.pyramid.name = session", ConfigurationError, r"request\.session is Pyramid's own"),
        ("stillroom.databases.body.url = sqlite://", ConfigurationError, "per_database=False"),
    ],
)
def test_a_wrong_key_of_the_ini_file_is_named(tmp_path: Path, line: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        get_app(ini(tmp_path, line))


def test_the_attributes_of_the_request_have_the_names_that_are_asked_for(dbs: Databases) -> None:
    def view(request: Any) -> str:
        request.work.main.add(Item(name="flute"))
        return f"{hasattr(request, 'uow')} {hasattr(request, 'main')}"

    app = application(dbs, TWEEN, view, name="work", per_database=False)
    assert Client(app).get("/").text == "False False"
    assert names(dbs) == ["flute"]


def test_an_attribute_of_the_request_can_be_replaced_by_a_test(dbs: Databases) -> None:
    with prepare(registry=application(dbs, TWEEN, add).registry) as env:
        env["request"].main = "of the test"
        assert env["request"].main == "of the test"


def test_an_attribute_that_somebody_else_has_added_is_a_conflict(dbs: Databases) -> None:
    config = Configurator()
    install(config, dbs)
    config.add_request_method(lambda _: None, "main", property=True)
    with pytest.raises(ConfigurationConflictError):
        config.commit()


def test_attributes_of_others_stay(dbs: Databases) -> None:
    def configure(config: Configurator) -> None:
        config.add_request_method(lambda request: repr(request.uow.databases), "told", property=True)

    answer = Client(application(dbs, TWEEN, lambda request: request.told, configure)).get("/")
    assert answer.text.startswith("<Databases main;")


def test_it_is_installed_once(dbs: Databases) -> None:
    with Configurator() as config, pytest.raises(ConfigurationError, match="installed on this application already"):
        install(config, dbs)
        install(config, dbs)


# --- scripts and shells


def test_an_application_without_it_says_so() -> None:
    with Configurator() as config, pytest.raises(LookupError, match="not installed on this application"):
        databases_of(config.registry)


def test_a_script_has_the_databases_and_its_request_shares_the_current_unit_of_work(
    from_ini: Callable[..., Any], tmp_path: Path
) -> None:
    from_ini()
    with bootstrap(str(tmp_path / "app.ini")) as env:
        dbs = databases_of(env["registry"])
        with pytest.raises(NoUnitOfWork):
            _ = env["request"].main
        with dbs, dbs.unit_of_work():
            add(env["request"])
        assert names(dbs) == ["flute"]
        dbs.close()


def test_a_script_may_use_the_transaction_of_its_request(dbs: Databases) -> None:
    with prepare(registry=application(dbs, EXPLICIT, add).registry) as env:
        with env["request"].tm:
            add(env["request"])
        with pytest.raises(LookupError), env["request"].tm:
            add(env["request"], "lost")
            raise LookupError
    assert names(dbs) == ["flute"]


def test_the_shell_has_the_databases_and_a_unit_of_work_that_is_committed_by_hand(
    from_ini: Callable[..., Any], tmp_path: Path
) -> None:
    from_ini()
    opened: list[Databases] = []

    def shell(env: dict[str, Any], help: str) -> None:  # noqa: A002  # pshell's own name
        opened.append(env["dbs"])
        add(env["request"])
        env["uow"].commit()
        env["uow"].main.add(Item(name="lost"))

    PShellCommand(["pshell", str(tmp_path / "app.ini")], quiet=True).run(shell)
    assert names(opened[0]) == ["flute"]
    opened[0].close()
