"""
Celery's workers in processes of their own, and what they leave at brokers.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import redis

from tests.integrations.celery_app import VARIABLE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import TracebackType

ROOT = Path(__file__).parents[2]
PATIENCE = 60.0
"""Seconds that anything may take."""


class Worker:
    """
    A worker; ended with its children, whatever happened.

    Args:
        settings: Of the application that it loads.
        pool: The kind of its pool.
        log: The file that it writes to.
        concurrency: How many tasks it runs at a time.
    """

    def __init__(self, settings: Mapping[str, Any], pool: str, log: Path, concurrency: int = 2) -> None:
        self.log = log
        environ = os.environ | {VARIABLE: json.dumps(settings), "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
        command = [sys.executable, "-m", "celery", "-A", "tests.integrations.celery_app", "worker", "-P", pool]
        quiet = ["-c", str(concurrency), "-l", "WARNING", "--without-gossip", "--without-mingle"]
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                command + quiet, env=environ, stdout=output, stderr=output, cwd=log.parent, start_new_session=True
            )

    def stop(self) -> int:
        """
        Let it end what it is at, and return its exit code.
        """
        self.process.terminate()
        return self.process.wait(PATIENCE)

    def kill(self) -> None:
        """
        End it with all of its children, as a machine that fails does.
        """
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(PATIENCE)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill()
        if error is not None:
            error.add_note(f"the worker says: {self.log.read_text(errors='replace')[-3000:]}")


@contextlib.contextmanager
def forgotten(app: Any, queue: str, redis_url: str) -> Iterator[None]:
    """
    Delete the queue with its exchange, and the keys in Redis that begin with its name, at the end of the block.
    """
    try:
        yield
    finally:
        app.close()
        with app.connection_for_write() as connection:
            connection.default_channel.queue_delete(queue)
            connection.default_channel.exchange_delete(queue)
        with redis.Redis.from_url(redis_url) as server:
            for key in server.scan_iter(match=f"{queue}:*"):
                server.delete(key)
