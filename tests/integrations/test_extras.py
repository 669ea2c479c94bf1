"""
Each integration with nothing but its own framework installed, and the core with none.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

# What the extras bring, by the name to import.
FRAMEWORKS = {
    "flask": {"flask"},
    "fastapi": {"fastapi", "starlette", "greenlet", "anyio"},
    "pyramid": {"pyramid", "transaction", "zope"},
    "celery": {"celery", "kombu"},
    "asgi": {"greenlet"},
    "wsgi": set[str](),
}
OTHERS = {
    *(name for names in FRAMEWORKS.values() for name in names),
    *("rich", "alembic", "psycopg", "asyncpg", "aiosqlite", "pymysql", "pyramid_tm", "pyramid_retry", "uvicorn"),
    *("pydantic", "attrs", "aiosql", "pyarrow", "pytest", "webtest", "IPython"),
}
# What a framework itself needs of these.
NEEDS = {"fastapi": {"pydantic"}}

REFUSE = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Refuse())
"""
WORK = """
from stillroom import Databases
from sqlalchemy import text

dbs = Databases({"databases": {"main": {"url": "sqlite:///:memory:"}}})
with dbs.unit_of_work() as uow:
    assert uow.main.scalar(text("SELECT 42")) == 42
dbs.close()
"""


def run(program: str, refused: set[str]) -> subprocess.CompletedProcess[str]:
    script = REFUSE.format(names=sorted(refused)) + program
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_an_integration_needs_no_extra_but_its_own(name: str) -> None:
    refused = OTHERS - FRAMEWORKS[name] - NEEDS.get(name, set())
    done = run(f"import stillroom.integrations.{name}\n{WORK}", refused)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["flask", "fastapi", "pyramid", "celery"])
def test_a_framework_that_is_missing_is_named_with_its_extra(name: str) -> None:
    done = run(f"import stillroom.integrations.{name}", {name})
    assert done.returncode == 1
    assert f'pip install "stillroom[{name}]"' in done.stderr


def test_the_core_needs_none() -> None:
    done = run(WORK, OTHERS - {"greenlet"})  # which SQLAlchemy 2.0 loads itself
    assert done.returncode == 0, done.stderr
