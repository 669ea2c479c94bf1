"""`stillroom recover` settles what a crash between PREPARE and COMMIT left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

from tests.cli.command import PACKAGE, run
from tests.support import servers

if TYPE_CHECKING:
    from pathlib import Path

    from stillroom.testing.servers import PostgresServer

PROGRAM = """
import os
from sqlalchemy import event, text
from stillroom import Databases
dbs = Databases()
dbs.configure()
with dbs.unit_of_work() as uow:
    uow.other.execute(text("create table t (x int)"))
with dbs.unit_of_work() as uow:
    uow.main.execute(text("create table t (x int)"))
with dbs.unit_of_work() as uow:
    uow.other.execute(text("insert into t values (1)"))
    uow.main.execute(text("insert into t values (1)"))
    event.listen(uow.main, "before_commit", lambda session: os._exit(7))
"""


def test_recover_settles_what_a_crash_left_prepared(pg_server: PostgresServer, tmp_path: Path) -> None:
    with (
        servers.postgresql_database(pg_server.url) as main,
        servers.postgresql_database(pg_server.url) as other,
    ):
        text = (
            f'on_multiple_writes = "two_phase"\n[databases.other]\nurl = "{other}"\n[databases.main]\nurl = "{main}"\n'
        )
        (tmp_path / "stillroom.toml").write_text(f'default = "main"\n{text}', encoding="utf-8")
        environ = {**os.environ, "PYTHONPATH": str(PACKAGE)}
        crash = subprocess.run([sys.executable, "-c", PROGRAM], cwd=tmp_path, env=environ, timeout=60, check=False)
        assert crash.returncode == 7

        young = run("recover", "--json", cwd=tmp_path)
        assert young.returncode == 1
        assert [each["outcome"] for each in json.loads(young.stdout)] == ["left"]

        listed = run("recover", "--min-age", "0", "--dry-run", cwd=tmp_path)
        assert listed.returncode == 1
        assert "only listed" in listed.stdout

        settled = run("recover", "--min-age", "0", "--json", cwd=tmp_path)
        assert settled.returncode == 0, settled.stderr
        (found,) = json.loads(settled.stdout)
        assert (found["database"], found["outcome"]) == ("other", "rolled back")
        assert "No transaction" in run("recover", "--min-age", "0", cwd=tmp_path).stdout
