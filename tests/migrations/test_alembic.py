"""A directory with an `env.py` of its own: the command `alembic` and ours work on it in turn."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

from stillroom.migrations import check, downgrade
from tests.migrations import shop

if TYPE_CHECKING:
    from pathlib import Path

ENV = """
import sys
sys.path.insert(0, {package!r})
from stillroom import Databases
from stillroom.migrations import run_env

run_env(Databases(), "main")
"""


def test_alembic_runs_with_an_env_of_two_lines(postgresql_database: str, tmp_path: Path) -> None:
    directory = tmp_path / "migrations/main"
    shop.tables(directory, "a", "b")
    (directory / "env.py").write_text(ENV.format(package=str(shop.PACKAGE)), encoding="utf-8")
    (tmp_path / "alembic.ini").write_text("[alembic]\nscript_location = migrations/main\n", encoding="utf-8")
    text = f'[databases.main]\nurl = "{postgresql_database}"\nmigrations = "migrations/main"\n'
    (tmp_path / "stillroom.toml").write_text(text, encoding="utf-8")

    def alembic(*arguments: str) -> str:
        command = [sys.executable, "-m", "alembic", *arguments]
        environ = {**os.environ, "PYTHONWARNINGS": "error"}
        done = subprocess.run(
            command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    alembic("upgrade", "head")
    assert alembic("current").split() == ["b", "(head)"]
    assert "CREATE TABLE b" in alembic("upgrade", "a:b", "--sql")
    with shop.databases(tmp_path, postgresql_database) as dbs:
        assert check(dbs) == []
        assert downgrade(dbs, "a")[0].revisions == ("b",)
    assert alembic("current").split() == ["a"]
