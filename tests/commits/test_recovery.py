"""
What is left of a two-phase commit that died on the way, and how recovery settles it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from stillroom.testing.servers import wait_until

if TYPE_CHECKING:
    from tests.commits.layouts import Layout

ROOT = Path(__file__).parents[2]

THREE = {"one": "psycopg", "two": "psycopg", "main": "psycopg"}
MARIADB_PREPARES = {"shop": "pymysql", "main": "psycopg"}
MARIADB_DECIDES = {"shop": "psycopg", "main": "pymysql"}
SQLITE_DECIDES = {"shop": "psycopg", "main": "sqlite"}
PSYCOPG_ASYNC = {"one": "psycopg-async", "two": "psycopg-async", "main": "psycopg-async"}
ASYNCPG = {"one": "asyncpg", "two": "asyncpg", "main": "asyncpg"}
AIOMYSQL = {"shop": "aiomysql", "main": "asyncpg"}
AIOSQLITE = {"shop": "asyncpg", "main": "aiosqlite"}

EVERY = ("prepare:1", "prepare:2", "decide:0", "decide:1", "commit:1", "finish:1", "finish:2")
SOME = ("prepare:1", "decide:1", "commit:1", "finish:1")
FEW = ("decide:1", "commit:1")
DECIDED = ("commit:1", "finish:1", "finish:2")

CASES = [
    *[(THREE, step) for step in EVERY],
    *[(drivers, step) for drivers in (MARIADB_PREPARES, MARIADB_DECIDES, SQLITE_DECIDES) for step in SOME],
    *[(drivers, step) for drivers in (PSYCOPG_ASYNC, ASYNCPG, AIOMYSQL, AIOSQLITE) for step in FEW],
]


def kill_at(place: Layout, step: str) -> None:
    order = json.dumps({"settings": place.settings(), "step": step, "is_async": place.is_async})
    done = subprocess.run(
        [sys.executable, "-m", "tests.commits.dying", order], cwd=ROOT, timeout=60, check=False, capture_output=True
    )
    assert done.returncode == -9, done.stderr.decode()


@pytest.mark.parametrize(
    ("drivers", "step"), CASES, ids=[f"{'-'.join(drivers.values())}-{step}" for drivers, step in CASES]
)
def test_recovery_makes_all_databases_agree_after_a_kill(drivers: Any, step: str, make_layout: Any) -> None:
    place = make_layout(**drivers)
    kill_at(place, step)
    with place.open() as opened:
        settled = lambda: all(each.outcome != "left" for each in opened.dbs.recover(min_age=0))  # noqa: E731
        wait_until(settled, "the server has noticed that the process is gone")
        assert opened.dbs.recover(min_age=0) == []
    assert place.in_doubt() == []
    assert place.rows() == dict.fromkeys(drivers, [1, 2] if step in DECIDED else [1])
