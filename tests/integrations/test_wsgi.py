"""
The WSGI middleware, called as a server would call it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import pytest

from stillroom import CommitPolicy, NoUnitOfWork, UnitOfWorkEnded
from stillroom.integrations.wsgi import UnitOfWorkMiddleware, unit_of
from tests.unit_of_work.shop import Item, made, names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from stillroom import Databases

PLAIN = [("Content-Type", "text/plain")]


class Server:
    """
    Asks an application for one answer, and keeps what it would send.
    """

    def __init__(self, before_start: Callable[[], Any] = lambda: None) -> None:
        self.before_start = before_start
        self.seen: Any = None
        self.statuses: list[str] = []
        self.errors: list[Any] = []
        self.body = b""

    def start(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None, /) -> Callable[[bytes], object]:
        self.seen = self.before_start()
        self.statuses.append(status)
        self.errors.append(exc_info)
        return self.write

    def write(self, data: bytes) -> None:
        self.body += data

    def ask(self, app: WSGIApplication) -> None:
        environ: dict[str, Any] = {"QUERY_STRING": ""}
        setup_testing_defaults(environ)
        pieces = app(environ, self.start)
        try:
            for piece in pieces:
                self.body += piece
        finally:
            getattr(pieces, "close", lambda: None)()


class Body:
    """
    Yields pieces, and counts how often it is closed.
    """

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = pieces
        self.closed = 0

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.pieces)

    def close(self) -> None:
        self.closed += 1


def add(environ: WSGIEnvironment, name: str) -> None:
    unit_of(environ).main.add(Item(name=name))


def test_what_is_written_is_durable_before_the_answer_starts(dbs: Databases) -> None:
    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", PLAIN)
        add(environ, "flute")  # also after the application has called it
        return [b"done"]

    server = Server(lambda: names(dbs))
    server.ask(UnitOfWorkMiddleware(app, dbs))
    assert (server.seen, server.statuses, server.body) == (["flute"], ["200 OK"], b"done")


def test_a_generator_is_committed_before_its_first_piece_is_sent(dbs: Databases) -> None:
    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
        add(environ, "flute")
        start_response("200 OK", PLAIN)
        yield b"one, "
        yield b"two"

    server = Server(lambda: names(dbs))
    server.ask(UnitOfWorkMiddleware(app, dbs))
    assert (server.seen, server.body) == (["flute"], b"one, two")


def test_the_server_and_the_application_keep_the_rules_of_wsgi(dbs: Databases) -> None:
    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", PLAIN)
        yield b"piece"

    server = Server()
    server.ask(validator(UnitOfWorkMiddleware(validator(app), dbs)))
    assert server.body == b"piece"


def test_a_list_reaches_the_server_as_a_list_so_that_it_knows_the_length(dbs: Databases) -> None:
    pieces = [b"known"]

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", PLAIN)
        return pieces

    assert UnitOfWorkMiddleware(app, dbs)({}, Server().start) is pieces


def test_a_body_that_comes_late_is_told_that_the_unit_of_work_has_ended(dbs: Databases) -> None:
    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", PLAIN)
        session = unit_of(environ).main
        yield b"first"
        with pytest.raises(UnitOfWorkEnded, match="its answer is known"):
            unit_of(environ)
        with pytest.raises(UnitOfWorkEnded, match="it ended at"):
            session.connection()
        with pytest.raises(NoUnitOfWork):
            _ = dbs.current
        with dbs.unit_of_work() as uow:
            uow.main.add(Item(name="from the body"))
        yield b" and last"

    server = Server()
    server.ask(UnitOfWorkMiddleware(app, dbs))
    assert (server.body, names(dbs)) == (b"first and last", ["from the body"])


def test_a_body_that_fails_half_way_undoes_nothing_that_was_answered(dbs: Databases) -> None:
    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
        add(environ, "flute")
        start_response("200 OK", PLAIN)
        yield b"half"
        raise LookupError("the other half")

    server = Server()
    with pytest.raises(LookupError):
        server.ask(UnitOfWorkMiddleware(app, dbs))
    assert (server.body, names(dbs)) == (b"half", ["flute"])


@pytest.mark.parametrize("begins_late", [False, True])
def test_a_failed_commit_starts_no_answer_and_closes_the_body(dbs: Databases, begins_late: bool) -> None:
    body = Body(b"lie")

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        unit_of(environ).main.add(Item())  # without its name, which only COMMIT will notice
        start_response("200 OK", PLAIN)
        return body

    def late(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        try:
            yield from app(environ, start_response)
        finally:
            body.close()

    server = Server()
    with pytest.raises(Exception, match="NOT NULL"):
        server.ask(UnitOfWorkMiddleware(late if begins_late else app, dbs))
    assert (server.statuses, body.closed) == ([], 1)


def test_what_was_written_by_hand_is_sent_after_the_commit(dbs: Databases) -> None:
    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        write = start_response("200 OK", PLAIN)
        write(b"by ")
        add(environ, "flute")
        write(b"hand")
        return []

    server = Server(lambda: names(dbs))
    server.ask(UnitOfWorkMiddleware(app, dbs))
    assert (server.seen, server.body) == (["flute"], b"by hand")


def test_an_error_page_that_replaces_the_answer_decides(dbs: Databases) -> None:
    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        add(environ, "flute")
        start_response("200 OK", PLAIN)(b"never sent")
        start_response("500 Sorry", PLAIN, (LookupError, LookupError(), None))  # type: ignore[arg-type]  # not raised
        return [b"sorry"]

    server = Server()
    server.ask(UnitOfWorkMiddleware(app, dbs))
    assert (server.statuses, server.body, names(dbs)) == (["500 Sorry"], b"sorry", [])


def test_the_server_hears_of_an_error_in_the_middle_of_the_body(dbs: Databases) -> None:
    problem: Any = (LookupError, LookupError(), None)

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", PLAIN)
        yield b"half"
        start_response("500 Sorry", PLAIN, problem)

    server = Server()
    server.ask(UnitOfWorkMiddleware(app, dbs))
    assert server.errors == [None, problem]


def test_a_body_without_an_answer_is_an_error_and_rolls_back(dbs: Databases) -> None:
    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        add(environ, "flute")
        return [b"and the status?"]

    with pytest.raises(RuntimeError, match="never called start_response"):
        Server().ask(UnitOfWorkMiddleware(app, dbs))
    assert names(dbs) == []


def test_an_application_inside_another_shares_its_unit_of_work(dbs: Databases) -> None:
    def inner(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        add(environ, "inner")
        start_response("200 OK", PLAIN)
        return [b""]

    wrapped = UnitOfWorkMiddleware(inner, dbs)

    def outer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        add(environ, "outer")
        unit = unit_of(environ)
        wrapped(environ, lambda *_: print)
        assert unit_of(environ) is unit
        start_response("503 No", PLAIN)
        return [b""]

    Server().ask(UnitOfWorkMiddleware(outer, dbs))
    assert names(dbs) == []


def test_applications_with_other_databases_do_not_meet(dbs: Databases, tmp_path: Path) -> None:
    with made({"main": f"sqlite:///{tmp_path / 'other.db'}"}) as others:

        def inner(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            add(environ, "inner")
            start_response("200 OK", PLAIN)
            return [b""]

        wrapped = UnitOfWorkMiddleware(inner, others)

        def outer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            wrapped(environ, lambda *_: print)
            add(environ, "outer")
            start_response("200 OK", PLAIN)
            return [b""]

        Server().ask(UnitOfWorkMiddleware(outer, dbs))
        assert (names(dbs), names(others)) == (["outer"], ["inner"])


def test_the_veto_gets_the_environ_and_what_the_application_said(dbs: Databases) -> None:
    said: list[Any] = []

    def veto(environ: WSGIEnvironment, answer: Any) -> bool:
        said.append((environ["PATH_INFO"], answer.status, dict(answer.headers)))
        return True

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        add(environ, "flute")
        start_response("201 Created", PLAIN)
        return [b""]

    Server().ask(UnitOfWorkMiddleware(app, dbs, policy=CommitPolicy(veto=veto)))
    assert (said, names(dbs)) == ([("/", 201, dict(PLAIN))], [])


def test_a_request_that_came_another_way_has_no_unit_of_work() -> None:
    with pytest.raises(NoUnitOfWork, match=r"wsgi\.UnitOfWorkMiddleware"):
        unit_of({})
