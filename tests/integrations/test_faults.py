"""
Requests whose COMMIT fails, over real HTTP: gunicorn with preload and four workers, uvicorn, and PostgreSQL.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from stillroom.testing.servers import wait_until
from tests.integrations.faulty import GATE, TAKEN, URL
from tests.integrations.web_servers import PATIENCE, ask
from tests.support.servers import postgresql_database

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
WORKERS = 4
GUNICORN = ("wsgi", "flask", "pyramid", "pyramid_tm")
UVICORN = ("starlette", "fastapi", "threaded")
REQUESTS = 2000
KINDS = ("good", "good", "good", "missing", "raised", "unique", "orphan", "skew", "good", "good")


def command(framework: str, listener: int) -> list[str]:
    """
    Return what serves a framework's application on a socket that listens already.
    """
    target = f"tests.integrations.faulty:{framework}"
    if framework in UVICORN:
        return ["uvicorn", "--factory", target, "--fd", str(listener), "--log-level", "critical"]
    workers = ["--workers", str(WORKERS), "--threads", "4", "--preload", "--log-level", "critical"]
    return ["gunicorn", f"{target}()", "--bind", f"fd://{listener}", *workers]


@dataclass
class Service:
    """
    A server that runs, and its database.
    """

    framework: str
    port: int
    url: str
    numbers: Iterator[int]

    def ask(self, kind: str) -> tuple[int, int]:
        """
        Return the number of a new request, and the status of its answer; 0 where the connection was lost.
        """
        number = next(self.numbers)
        try:
            return number, ask(self.port, f"/{kind}/{number}")[0]
        except (ConnectionError, http.client.HTTPException):
            return number, 0

    def query(self, statement: str) -> list[Any]:
        """
        Return the rows of a query.
        """
        with psycopg.connect(self.url) as connection:
            return connection.execute(statement.encode()).fetchall()

    def kept(self) -> set[int]:
        """
        Return the numbers of the requests that are durable.
        """
        return {number for (number,) in self.query(f"SELECT number FROM asked WHERE number <> {TAKEN}")}


@pytest.fixture(scope="module")
def service(request: pytest.FixtureRequest, postgresql_url: str) -> Iterator[Service]:
    """
    A framework's application on a real server, with a database of its own.
    """
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(postgresql_database(postgresql_url))
        with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
            port = listener.getsockname()[1]
            process = subprocess.Popen(
                [sys.executable, "-W", "ignore", "-m", *command(request.param, listener.fileno())],
                cwd=ROOT,
                env=dict(os.environ) | {URL: url, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])},
                pass_fds=[listener.fileno()],
            )
        stack.callback(end, process)
        yield Service(request.param, port, url, count(TAKEN + 1))


def end(process: subprocess.Popen[bytes]) -> None:
    """
    End a server, with its workers.
    """
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(PATIENCE)
        raise


every = pytest.mark.parametrize("service", [*GUNICORN, *UVICORN], indirect=True)
preloaded = pytest.mark.parametrize("service", GUNICORN, indirect=True)


@every
@pytest.mark.parametrize("kind", ["unique", "orphan", "kill"])
def test_a_commit_that_fails_is_never_a_success(service: Service, kind: str) -> None:
    number, status = service.ask(kind)
    assert status == 500
    assert number not in service.kept()
    number, status = service.ask("good")
    assert status == 200
    assert number in service.kept()


@every
def test_a_serialization_failure_at_commit_is_never_a_success(service: Service) -> None:
    waiting = f"SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND objid = {GATE} AND NOT granted"
    with psycopg.connect(service.url, autocommit=True) as gate, ThreadPoolExecutor(1) as thread:
        gate.execute(b"SELECT pg_advisory_lock(%d)" % GATE)
        answer = thread.submit(service.ask, "skew")
        wait_until(lambda: bool(service.query(waiting)), "the request waits in its COMMIT")
        with psycopg.connect(service.url) as other:
            other.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
            other.execute("SELECT count(*) FROM asked")
            other.execute(f"INSERT INTO asked VALUES ({next(service.numbers)}, 'other', NULL, 0, 0, 0)".encode())
        gate.execute(b"SELECT pg_advisory_unlock(%d)" % GATE)
        number, status = answer.result(PATIENCE)
    assert status == 500
    assert number not in service.kept()


@every
def test_the_rows_agree_with_the_answers_of_2000_requests(service: Service) -> None:
    before = service.kept()
    kinds = [KINDS[number % len(KINDS)] if number % 40 else "kill" for number in range(REQUESTS)]
    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(service.ask, kinds))
    assert {number for number, status in answers if status == 200} == service.kept() - before
    asked_well = [status for kind, (_, status) in zip(kinds, answers, strict=True) if kind == "good"]
    assert asked_well.count(200) > 0.9 * len(asked_well)
    failed = {status for kind, (_, status) in zip(kinds, answers, strict=True) if kind in {"unique", "orphan", "kill"}}
    assert failed == {500}
    check_idle(service)


def check_idle(service: Service) -> None:
    """
    Check that no worker has kept a connection, nor a transaction.
    """
    first = reach_every_worker(service)
    # What a worker has lost is in use for ever; what another of its requests has, is not.
    lost = service.query(f"SELECT worker FROM asked WHERE number > {first} GROUP BY worker HAVING min(in_use) > 0")
    assert lost == []
    open_transactions = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in%'"
    assert service.query(open_transactions) == []


def reach_every_worker(service: Service) -> int:
    """
    Send requests until each worker has answered one; return the number after which they begin.
    """
    first = next(service.numbers)
    answered = f"SELECT DISTINCT worker FROM asked WHERE number > {first}"

    def all_answered() -> bool:
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(service.ask, ["good"] * 16))
        return len(service.query(answered)) >= (WORKERS if service.framework in GUNICORN else 1)

    wait_until(all_answered, "each worker has answered")
    return first


@preloaded
def test_workers_never_share_a_connection(service: Service) -> None:
    reach_every_worker(service)
    pairs = service.query("SELECT DISTINCT worker, backend FROM asked WHERE kind <> 'other'")
    assert len({worker for worker, _ in pairs}) > WORKERS  # and the one that has loaded the application
    assert len({backend for _, backend in pairs}) == len(pairs)


@preloaded
def test_a_worker_that_is_killed_in_a_request_leaves_no_lock(service: Service) -> None:
    number, status = service.ask("die")
    assert status == 0
    assert service.ask("touch")[1] == 200
    assert number not in service.kept()
    assert service.query(f"SELECT in_use FROM asked WHERE number = {TAKEN}") == [(0,)]
