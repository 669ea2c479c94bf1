"""
Flask: what the contract does not say, above all where Flask's own hooks and handlers meet the end of a unit of work.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from flask import Blueprint, Flask, Response, abort, redirect, session, stream_with_context
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from stillroom import CommitPolicy, Databases, NotConfigured, NoUnitOfWork, UnitOfWorkEnded, classify
from stillroom.integrations.flask import Stillroom, current_uow, install
from stillroom.integrations.wsgi import UnitOfWorkMiddleware
from tests.unit_of_work.shop import Item, names

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def app(dbs: Databases) -> Flask:
    """
    An application that answers errors as it would in production.
    """
    app = Flask(__name__)
    app.secret_key = "test"
    install(app, dbs)
    return app


def add(name: str | None = "flute") -> None:
    current_uow.main.add(Item(name=name))


def conflict(error: IntegrityError) -> tuple[str, int]:
    kind = classify(error)
    return kind.value if kind is not None else "?", 409


# --- errors


@pytest.mark.parametrize("raised", [LookupError("not here"), None, 404])
def test_an_exception_that_is_answered_well_is_rolled_back_all_the_same(
    app: Flask, dbs: Databases, raised: Exception | int | None
) -> None:
    @app.get("/")
    def view() -> str:
        add()
        if isinstance(raised, Exception):
            raise raised
        return abort(raised or redirect("/elsewhere"))

    @app.errorhandler(LookupError)
    @app.errorhandler(404)
    def well(error: Exception) -> str:
        return "never mind"

    assert app.test_client().get("/").status_code < 400
    assert names(dbs) == []


def test_a_redirect_that_is_returned_is_committed(app: Flask, dbs: Databases) -> None:
    @app.get("/")
    def view() -> Any:
        add()
        return redirect("/elsewhere")

    assert app.test_client().get("/").status_code == 302
    assert names(dbs) == ["flute"]


def test_a_blueprints_handler_is_a_handler_too(app: Flask, dbs: Databases) -> None:
    part = Blueprint("part", __name__)

    @part.get("/")
    def view() -> str:
        add()
        raise LookupError

    @part.errorhandler(LookupError)
    def well(error: Exception) -> str:
        return "never mind"

    app.register_blueprint(part)
    assert app.test_client().get("/").status_code == 200
    assert names(dbs) == []


def test_an_error_handler_answers_a_failed_commit_as_an_answer_of_its_own(app: Flask, dbs: Databases) -> None:
    part = Blueprint("part", __name__)

    @part.get("/")
    def view() -> str:
        session["who"] = "Ada"
        add()
        add()
        return "a lie"

    @part.after_request
    def allow(response: Response) -> Response:
        response.headers.add("X-Answer", "1")
        return response

    part.register_error_handler(IntegrityError, conflict)
    app.register_blueprint(part)
    answer = app.test_client().get("/")
    assert (answer.status_code, answer.text, names(dbs)) == (409, "unique_violation", [])
    assert [len(answer.headers.getlist(name)) for name in ("X-Answer", "Set-Cookie")] == [1, 1]


def test_an_error_handler_answers_a_failed_commit_by_hand(dbs: Databases) -> None:
    app = Flask(__name__)
    install(app, dbs, policy=CommitPolicy(commit="manual"))
    app.register_error_handler(IntegrityError, conflict)

    @app.get("/")
    def view() -> str:
        add()
        add()
        current_uow.commit()
        return "a lie"

    answer = app.test_client().get("/")
    assert (answer.status_code, answer.text) == (409, "unique_violation")


def test_a_failed_commit_that_nobody_handles_is_a_500(app: Flask, dbs: Databases) -> None:
    @app.get("/")
    def view() -> str:
        add(None)
        return "a lie"

    assert app.test_client().get("/").status_code == 500
    app.testing = True
    with pytest.raises(IntegrityError):
        app.test_client().get("/")


def test_a_page_for_500_reads_in_a_unit_of_work_of_its_own(app: Flask, dbs: Databases) -> None:
    @app.get("/")
    def view() -> str:
        add()
        current_uow.main.flush()
        raise LookupError

    @app.errorhandler(500)
    def page(error: Exception) -> tuple[str, int]:
        with pytest.raises(UnitOfWorkEnded, match="its answer is known"):
            _ = current_uow.main
        with dbs.unit_of_work() as uow:
            return str(uow.main.scalar(text("SELECT count(*) FROM item"))), 500

    answer = app.test_client().get("/")
    assert (answer.status_code, answer.text) == (500, "0")


def test_a_response_that_is_dropped_is_closed(app: Flask) -> None:
    closed: list[bool] = []

    @app.get("/")
    def view() -> Response:
        add(None)
        response = Response("a lie")
        response.call_on_close(lambda: closed.append(True))
        return response

    assert app.test_client().get("/").status_code == 500
    assert closed == [True]


# --- hooks


def test_every_hook_of_the_request_has_the_unit_of_work_and_is_committed(app: Flask, dbs: Databases) -> None:
    @app.url_value_preprocessor
    def values(endpoint: str | None, values: Any) -> None:
        add("values")

    @app.before_request
    def before() -> None:
        add("before")

    @app.after_request
    def after(response: Response) -> Response:
        add("after")
        return response

    @app.get("/")
    def view() -> str:
        add("view")
        return "done"

    assert app.test_client().get("/").status_code == 200
    assert names(dbs) == ["values", "before", "view", "after"]


def test_the_answer_as_the_hooks_leave_it_decides(app: Flask, dbs: Databases) -> None:
    @app.after_request
    def refuse(response: Response) -> Response:
        response.status_code = 503
        return response

    @app.get("/")
    def view() -> str:
        add()
        return "done"

    assert app.test_client().get("/").status_code == 503
    assert names(dbs) == []


def test_a_hook_that_fails_after_the_view_rolls_back(app: Flask, dbs: Databases) -> None:
    @app.after_request
    def fail(response: Response) -> Response:
        raise LookupError

    @app.get("/")
    def view() -> str:
        add()
        return "done"

    assert app.test_client().get("/").status_code == 500
    assert names(dbs) == []


def test_at_the_teardown_it_has_ended(app: Flask, dbs: Databases) -> None:
    seen: list[list[str]] = []
    app.teardown_request(lambda _: seen.append(names(dbs)))

    @app.get("/")
    def view() -> str:
        add()
        return "done"

    assert app.test_client().get("/").status_code == 200
    assert seen == [["flute"]]


def test_the_veto_gets_request_and_response_of_flask(dbs: Databases) -> None:
    def veto(request: Any, response: Response) -> bool:
        return request.args["dry"] == "1" and response.status_code == 200

    app = Flask(__name__)
    install(app, dbs, policy=CommitPolicy(veto=veto))

    @app.get("/")
    def view() -> str:
        add()
        return "done"

    assert app.test_client().get("/?dry=1").status_code == 200
    assert names(dbs) == []
    assert app.test_client().get("/?dry=0").status_code == 200
    assert names(dbs) == ["flute"]


# --- bodies and coroutines


def test_a_stream_is_told_that_the_unit_of_work_has_ended(app: Flask, dbs: Databases) -> None:
    @app.get("/")
    def view() -> Response:
        add("view")

        def pieces() -> Iterator[str]:
            with pytest.raises(UnitOfWorkEnded, match="its answer is known"):
                _ = current_uow.main
            with dbs.unit_of_work() as uow:
                uow.main.add(Item(name="stream"))
                yield "half"
                raise ConnectionError("the client has gone")

        return Response(stream_with_context(pieces()))

    with pytest.raises(ConnectionError):
        _ = app.test_client().get("/").data
    assert names(dbs) == ["view"]


def test_a_coroutine_may_be_a_view(app: Flask, dbs: Databases) -> None:
    pytest.importorskip("asgiref", reason="Flask needs it for coroutines")

    @app.get("/<int:status>")
    async def view(status: int) -> tuple[str, int]:
        await asyncio.sleep(0)
        add(f"blocking {status}")
        assert dbs.current == current_uow
        return "done", status

    assert [app.test_client().get(f"/{status}").status_code for status in (200, 500)] == [200, 500]
    assert names(dbs) == ["blocking 200"]


# --- applications


def test_one_extension_serves_the_applications_that_a_factory_makes(dbs: Databases) -> None:
    stillroom = Stillroom(dbs)

    def create_app(name: str) -> Flask:
        app = Flask(name)
        stillroom.init_app(app)

        @app.get("/")
        def view() -> str:
            add(name)
            return "done"

        return app

    assert [create_app(name).test_client().get("/").status_code for name in ("one", "two")] == [200, 200]
    assert names(dbs) == ["one", "two"]


def test_the_databases_may_be_configured_after_the_application_is_made(sqlite_database: str) -> None:
    dbs = Databases()
    app = Flask(__name__)
    app.testing = True
    install(app, dbs)

    @app.get("/")
    def view() -> str:
        return str(current_uow.main.scalar(text("SELECT 1")))

    with pytest.raises(NotConfigured):
        app.test_client().get("/")
    with dbs:
        dbs.configure({"databases": {"main": {"url": sqlite_database}}})
        assert app.test_client().get("/").text == "1"


def test_it_is_installed_once(app: Flask, dbs: Databases) -> None:
    with pytest.raises(RuntimeError, match=r"installed on <Flask .*> already"):
        install(app, dbs)


@pytest.mark.parametrize("fails", [False, True])
def test_inside_the_middleware_it_shares_the_unit_of_work(app: Flask, dbs: Databases, fails: bool) -> None:
    app.wsgi_app = UnitOfWorkMiddleware(app.wsgi_app, dbs)  # type: ignore[method-assign]  # Flask's documented way

    @app.get("/")
    def view() -> str:
        add()
        if fails:
            raise LookupError
        return "done"

    app.register_error_handler(LookupError, lambda _: "never mind")
    assert app.test_client().get("/").status_code == 200
    assert names(dbs) == ([] if fails else ["flute"])


def test_outside_of_a_request_it_says_what_to_do(app: Flask) -> None:
    with pytest.raises(NoUnitOfWork, match="this is no request"), app.app_context():
        _ = current_uow.main


def test_in_an_application_without_it_it_says_what_to_do() -> None:
    with Flask(__name__).test_request_context(), pytest.raises(NoUnitOfWork, match=r"flask\.install"):
        _ = current_uow.main


# --- command line and shell


def test_the_commands_are_for_the_databases_of_the_application(app: Flask, tmp_path: Path) -> None:
    done = app.test_cli_runner().invoke(args=["stillroom", "ping"])
    assert (done.exit_code, "main" in done.output) == (0, True)
    listed = app.test_cli_runner().invoke(args=["stillroom", "--help"]).output
    assert "ping" in listed
    assert "demo" not in listed


def test_the_shell_has_the_databases(app: Flask, dbs: Databases) -> None:
    assert app.make_shell_context()["dbs"] is dbs


def test_making_an_application_connects_to_nothing_and_loads_no_command() -> None:
    # The development server's reloader imports the application in two processes.
    program = """
import sys, threading
from flask import Flask
from stillroom import Databases
from stillroom.integrations.flask import install
dbs = Databases({"databases": {"main": {"url": "sqlite:///there/is/no/such/place.db"}}})
install(Flask("app"), dbs)
print({"rich", "alembic", "stillroom.cli.commands"} & set(sys.modules), threading.active_count(), dbs.main.pools())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "set() 1 {}\n"


def test_without_the_extra_for_the_command_line_the_commands_say_what_to_install() -> None:
    program = """
import sys
sys.modules["rich"] = None  # as if it were not installed
from flask import Flask
from stillroom import Databases
from stillroom.integrations.flask import install
app = Flask("app")
install(app, Databases())
print(app.test_cli_runner().invoke(args=["stillroom", "ping"]).output)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert 'pip install "stillroom[cli]"' in done.stdout
