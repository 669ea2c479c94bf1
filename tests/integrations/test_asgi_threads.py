"""
Blocking units of work of an ASGI application: their ends never wait for threads that wait for them.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from fastapi import FastAPI
from sqlalchemy import event

from stillroom.integrations.asgi import UnitOfWorkMiddleware
from stillroom.integrations.fastapi import UowDep, install
from tests.integrations.web_servers import PATIENCE, asgi_server, ask
from tests.unit_of_work.shop import Item, names

if TYPE_CHECKING:
    from stillroom import Databases


def test_a_unit_that_holds_a_lock_ends_though_every_common_thread_waits_for_that_lock(dbs: Databases) -> None:
    app = FastAPI()
    install(app, dbs)
    locked, waiting = threading.Event(), threading.Event()

    @app.get("/thread")
    async def leave_one_thread() -> None:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))

    @app.get("/holder")
    def hold(uow: UowDep) -> None:
        uow.main.add(Item(name="holder"))
        uow.main.flush()
        locked.set()
        assert waiting.wait(PATIENCE)

    @app.get("/waiter")
    def wait(uow: UowDep) -> None:
        uow.main.add(Item(name="waiter"))
        event.listen(uow.main, "before_flush", lambda *_: waiting.set())  # its first statement is sent at its end

    with asgi_server(app) as port, ThreadPoolExecutor(2) as clients:
        ask(port, "/thread")
        holder = clients.submit(ask, port, "/holder")
        assert locked.wait(PATIENCE)
        waiter = clients.submit(ask, port, "/waiter")
        assert [each.result(PATIENCE)[0] for each in (holder, waiter)] == [200, 200]
    assert names(dbs) == ["holder", "waiter"]


def test_two_threads_of_a_request_that_ask_at_the_same_time_have_one_unit(
    dbs: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = threading.Barrier(2)
    units: list[Any] = []
    make = dbs.unit_of_work

    def make_slowly(**options: Any) -> Any:
        with contextlib.suppress(threading.BrokenBarrierError):  # the other one is not let in
            both.wait(0.2)
        return make(**options)

    monkeypatch.setattr(dbs, "unit_of_work", make_slowly)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        units.extend(await asyncio.gather(*(asyncio.to_thread(lambda: dbs.current) for _ in range(2))))
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    with asgi_server(UnitOfWorkMiddleware(app, dbs)) as port:
        assert ask(port, "/")[0] == 204
    assert units[0] is units[1]


def add_in_thread(dbs: Databases, name: str) -> None:
    """
    Answer a request whose unit of work is a blocking one.
    """
    app = FastAPI()
    install(app, dbs)

    @app.get("/")
    def view(uow: UowDep) -> None:
        uow.main.add(Item(name=name))

    with asgi_server(app) as port:
        assert ask(port, "/")[0] == 200


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this platform cannot fork")
def test_a_process_that_is_forked_after_requests_answers_its_own(dbs: Databases) -> None:
    add_in_thread(dbs, "parent")
    child: Any = multiprocessing.get_context("fork").Process(target=partial(add_in_thread, dbs, "child"))
    child.start()
    child.join(PATIENCE)
    if child.exitcode is None:
        child.kill()
        child.join()
    assert child.exitcode == 0
    assert names(dbs) == ["parent", "child"]
