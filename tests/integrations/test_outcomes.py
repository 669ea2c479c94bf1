"""
What becomes of a request, in each framework, over real HTTP; `docs/web-requests.md` has the same as a table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import delete, select
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from stillroom import Databases
from stillroom.testing.servers import wait_until
from tests.integrations.outcomes import ASGI, WSGI, Base, Desk, Written
from tests.integrations.web_servers import PATIENCE, asgi_server, ask, asking, wsgi_server

if TYPE_CHECKING:
    from collections.abc import Iterator

# case: the status of the answer, and who wrote what is kept
OUTCOMES = {
    "returned/200": (200, ["view"]),
    "returned/302": (302, ["view"]),
    "returned/404": (404, []),
    "returned/500": (500, []),
    "http/302": (302, []),
    "http/404": (404, []),
    "raised/0": (500, []),
    "handled/0": (200, []),
    "stream/200": (200, ["view"]),
    "background/200": (200, ["view"]),
}
OTHERWISE = {
    # An error that a bare application handles inside of itself never reaches the middleware: its answer decides.
    ("WSGI", "handled/0"): (200, ["view"]),
    # The veto of pyramid_tm looks at the answer alone, whoever made it.
    ("pyramid_tm", "handled/0"): (200, ["view"]),
    ("pyramid_tm", "http/302"): (302, ["view"]),
    # Quart makes the answer to an exception when it has left its `except` block: the status decides.
    ("Quart", "handled/0"): (200, ["view"]),
    ("Quart", "http/302"): (302, ["view"]),
}
FRAMEWORKS = [*WSGI, *ASGI]


def has(name: str, case: str) -> bool:
    """
    Say whether a framework has what the case is about.
    """
    if case.startswith("http"):
        return name != "WSGI"
    return name in ASGI or not case.startswith("background")


class Running:
    """
    A framework's application on a real server.
    """

    def __init__(self, name: str, desk: Desk, port: int) -> None:
        self.name = name
        self.desk = desk
        self.port = port

    def begin(self) -> None:
        """
        Forget what was before.
        """
        for event in (self.desk.entered, self.desk.go_on, self.desk.done):
            event.clear()
        with self.desk.databases.unit_of_work() as uow:
            uow.main.execute(delete(Written))

    def kept(self) -> list[str]:
        """
        Return who wrote what is durable.
        """
        with self.desk.databases.main.reader_engine.connect() as connection:
            return list(connection.scalars(select(Written.by).order_by(Written.id)))

    def is_over(self) -> bool:
        """
        Say whether no unit of work is open, and no connection in use.
        """
        databases = self.desk.databases
        in_use = sum(pool.checkedout() for pool in databases.main.pools().values())
        return not in_use and not databases.declared.open_units


@pytest.fixture(scope="module")
def framework(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """
    Each framework in turn.
    """
    url = f"sqlite:///{tmp_path_factory.mktemp('outcomes') / 'main.db'}"
    with Databases({"databases": {"main": {"url": url}}}) as databases:
        Base.metadata.create_all(databases.main.engine)
        desk = Desk(databases)
        name: str = request.param
        serving = wsgi_server(WSGI[name](desk)) if name in WSGI else asgi_server(ASGI[name](desk))
        with serving as port:
            yield Running(name, desk, port)


@pytest.fixture
def running(framework: Running) -> Iterator[Running]:
    """
    The same, with nothing written; at the end nothing may be left open.
    """
    framework.begin()
    yield framework
    wait_until(framework.is_over, "every unit of work has ended, and its connections are back")


@pytest.mark.parametrize(
    ("framework", "case"),
    [(name, case) for name in FRAMEWORKS for case in OUTCOMES if has(name, case)],
    indirect=["framework"],
)
def test_the_outcome_decides_what_is_kept(running: Running, case: str) -> None:
    expected, kept = OTHERWISE.get((running.name, case), OUTCOMES[case])
    status, body = ask(running.port, f"/{case}")
    if case.startswith(("stream", "background")):
        assert running.desk.done.wait(PATIENCE)
    assert (status, running.kept()) == (expected, kept)
    assert not case.startswith("stream") or body == b"half"


@pytest.mark.parametrize("framework", [each for each in FRAMEWORKS if each != "Quart"], indirect=True)
def test_a_client_that_leaves_before_the_answer_changes_nothing(running: Running) -> None:
    with asking(running.port, "/gone/200"):
        assert running.desk.entered.wait(PATIENCE)
    running.desk.go_on.set()
    wait_until(lambda: running.kept() == ["view"], "the request is committed")


@pytest.mark.parametrize("framework", ["Quart"], indirect=True)
def test_a_view_that_is_cancelled_because_its_client_has_left_is_rolled_back(running: Running) -> None:
    with asking(running.port, "/gone/200"):
        assert running.desk.entered.wait(PATIENCE)
    wait_until(running.is_over, "the request is over")
    running.desk.go_on.set()
    assert running.kept() == []


# A function of FastAPI runs when the whole request was read.
@pytest.mark.parametrize("framework", [each for each in FRAMEWORKS if each != "FastAPI, threads"], indirect=True)
def test_a_client_that_leaves_while_its_request_is_read_is_rolled_back(running: Running) -> None:
    with asking(running.port, "/upload/200", announced=100):
        assert running.desk.entered.wait(PATIENCE)
    wait_until(running.is_over, "the request is over")
    assert running.kept() == []


@pytest.mark.parametrize("framework", ["Starlette", "FastAPI", "Litestar"], indirect=True)
@pytest.mark.parametrize("by", ["client", "server"])
def test_a_websocket_keeps_what_its_messages_wrote_whoever_closes_it(running: Running, by: str) -> None:
    with connect(f"ws://127.0.0.1:{running.port}/talk") as socket:
        for text in ("first", "second"):
            socket.send(text)
            assert socket.recv(PATIENCE) == "written"
            assert running.kept()[-1] == text
        assert running.desk.databases.main.pools()["writer, asyncio"].checkedout() == 0
        if by == "server":
            socket.send("bye")
            with pytest.raises(ConnectionClosed):
                socket.recv(PATIENCE)
    assert running.desk.done.wait(PATIENCE)
    assert running.kept() == ["first", "second"]


@pytest.mark.parametrize("framework", ["Starlette", "FastAPI", "Litestar"], indirect=True)
def test_a_message_that_fails_is_rolled_back_alone(running: Running) -> None:
    with connect(f"ws://127.0.0.1:{running.port}/talk") as socket:
        socket.send("first")
        assert socket.recv(PATIENCE) == "written"
        socket.send("fail")
        with pytest.raises(ConnectionClosed):
            socket.recv(PATIENCE)
    assert running.kept() == ["first"]
