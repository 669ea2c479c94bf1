"""
The shops on Flask and on Pyramid, as their users start them: real servers, real HTTP, real databases.
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
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

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
        workers = ["--preload", "--workers", "3"]
        return ["-m", "gunicorn", *workers, "--bind", f"127.0.0.1:{self.port}", "shop:create_app()"]

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
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


@pytest.mark.parametrize("example", ["shop_flask", "shop_pyramid"])
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_a_shop_sells_to_a_crowd_what_it_has_and_not_more(
    example: str, database: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    shop = Shop(example, tmp_path, request.getfixturevalue(f"{database}_database"))
    with shop.open():
        orders = [{"number": f"A-{number}", "track_id": 1} for number in range(12)]
        with ThreadPoolExecutor(6) as crowd:
            answers = list(crowd.map(lambda order: shop.ask("/orders", order), orders))
        sold = [answer["number"] for status, answer in answers if status == 201]
        refused = [answer["error"] for status, answer in answers if status == 409]
        assert (len(sold), refused) == (5, ["'Counting the Ferry' is sold out"] * 7)

        twice = {"number": sold[0], "track_id": 2}
        assert shop.ask("/orders", twice) == (409, {"error": "there is an order with this number already"})
        assert shop.ask("/tracks") == (
            200,
            [
                {"id": 1, "name": "Counting the Ferry", "copies": 0},
                {"id": 2, "name": "Harbour Lights", "copies": 100},
            ],
        )
    assert shop.lines() == 13
