"""
The shops among the examples, as their users start them: real servers, real HTTP, real databases.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stillroom.testing.servers import free_port, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

EXAMPLES = Path(__file__).parents[2] / "examples"
PATIENCE = 60.0


class Shop:
    """
    A copy of an example, to be run in a directory of its own.
    """

    def __init__(self, example: str, directory: Path, url: str) -> None:
        self.directory = directory / example
        shutil.copytree(EXAMPLES / example, self.directory, ignore=shutil.ignore_patterns("*.db*", "__pycache__"))
        self.port = free_port()
        self.environ = os.environ | {"SHOP_URL": url, "PYTHONPATH": str(self.directory)}
        self.log = self.directory / "server.log"

    def command(self) -> list[str]:
        """
        Return how the shop is started.
        """
        if self.directory.name == "shop_pyramid":
            ini = self.directory / "shop.ini"
            ini.write_text(ini.read_text(encoding="utf-8").replace(":6543", f":{self.port}"), encoding="utf-8")
            return ["-m", "pyramid.scripts.pserve", "shop.ini"]
        if self.directory.name == "shop_fastapi":
            return ["-m", "uvicorn", "--port", str(self.port), "shop:app"]
        workers = ["--preload", "--workers", "3"]
        return ["-m", "gunicorn", *workers, "--bind", f"127.0.0.1:{self.port}", "shop:create_app()"]

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        """
        Run it until the end of the block.
        """
        with self.log.open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, *self.command()], cwd=self.directory, env=self.environ, stdout=log, stderr=log
            )
        try:
            wait_until(lambda: process.poll() is not None or self.answers(), "the shop is open", timeout=PATIENCE)
            assert process.poll() is None, self.log.read_text(encoding="utf-8")
            yield
        finally:
            process.terminate()
            process.wait(PATIENCE)

    def answers(self) -> bool:
        """
        Say whether somebody listens.
        """
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True
        return False

    def ask(self, path: str, order: dict[str, Any] | None = None) -> tuple[int, Any]:
        """
        Ask for a path, or send an order there; return the status and the answer.
        """
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        with contextlib.closing(connection):
            body = None if order is None else json.dumps(order)
            connection.request("GET" if body is None else "POST", path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())

    def lines(self) -> int:
        """
        Count the lines of the shop's own log.
        """
        with contextlib.closing(sqlite3.connect(self.directory / "log.db")) as connection:
            return int(connection.execute("SELECT count(*) FROM log").fetchone()[0])
