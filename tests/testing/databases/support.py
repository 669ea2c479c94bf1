"""
An application with one database, its counted revisions, and processes that run its tests.
"""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING, Any

import psycopg
import pymysql
from sqlalchemy import make_url, text

from stillroom import Databases
from stillroom.testing.guard import sqlite_path
from stillroom.testing.options import TestOptions
from tests.migrations import shop

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import URL
    from sqlalchemy.orm import Session

PACKAGE = Path(__file__).parents[3]
PATIENCE = 60


class Application:
    """
    An application with a database `main`, whose first revision counts how often it runs.
    """

    def __init__(self, directory: Path, url: str, **options: Any) -> None:
        self.directory = directory
        self.log = directory / "ran"
        self.settings = shop.settings(directory, {"main": url}, **options)
        self.revision()

    def revision(self, more: str = "") -> None:
        """
        Write the revision, or another version of it.
        """
        counts = f"with open({str(self.log)!r}, 'a') as log: log.write('x')"
        table = "op.create_table('book', sa.Column('id', sa.Integer, primary_key=True), sa.Column('title', sa.Text))"
        shop.write(self.directory / "migrations" / "main", "a", "\n".join([counts, table, dedent(more)]))

    @property
    def runs(self) -> int:
        """
        How often the revision ran.
        """
        return len(self.log.read_text()) if self.log.exists() else 0

    def databases(self) -> Databases:
        """
        Declare the databases.
        """
        return Databases(self.settings)


PROGRAM = """
import sys
sys.path.insert(0, {package!r})
from stillroom import Databases
from stillroom.testing.options import TestOptions
from stillroom.testing.provisioning import provide
from tests.testing.databases.support import seed
if __name__ == "__main__":
    with Databases({settings!r}) as dbs, provide(dbs, TestOptions(seeds={{"main": [seed]}}, **{options!r})) as made:
        print(made["main"].url.render_as_string(hide_password=False), flush=True)
        sys.stdin.readline()
"""


def seed(session: Session) -> None:
    session.execute(text("insert into book (id, title) values (1, 'seed')"))


def start(settings: Mapping[str, Any], **options: Any) -> subprocess.Popen[str]:
    """
    Start a process that has test databases until a line is written to it; it prints where `main` is.
    """
    program = PROGRAM.format(package=str(PACKAGE), settings=settings, options=options)
    return subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def url_of(process: subprocess.Popen[str]) -> str:
    """
    Wait until a process has its databases, and return where.
    """
    assert process.stdout is not None
    assert process.stderr is not None
    line = process.stdout.readline().strip()
    if not line:
        process.wait(PATIENCE)
        raise AssertionError(process.stderr.read())
    return line


def finish(process: subprocess.Popen[str]) -> None:
    """
    Let a process end.
    """
    _, errors = process.communicate("\n", timeout=PATIENCE)
    assert process.returncode == 0, errors


def kill(process: subprocess.Popen[str]) -> None:
    """
    End a process without a word to it.
    """
    process.kill()
    process.communicate(timeout=PATIENCE)


def seeded(**options: Any) -> TestOptions:
    """
    Return options with one row in each new database.
    """
    return TestOptions(seeds={"main": [seed]}, **options)


def rows(url: URL | str, statement: str = "select title from book order by id") -> list[Any]:
    """
    Ask a database, past everything of ours but its URL.
    """
    return execute(url, statement)


def execute(url: URL | str, *statements: str) -> list[Any]:
    """
    Run statements, each by itself, and return the rows of the last one.
    """
    asked = make_url(url).render_as_string(hide_password=False)
    with Databases({"databases": {"main": {"url": asked}}}) as databases, databases.unit_of_work() as unit:
        found: Sequence[Any] = []
        for statement in statements:
            result: Any = unit.main.execute(text(statement))
            found = result.all() if result.returns_rows else []
    return [row[0] if len(row) == 1 else tuple(row) for row in found]


def names_on(url: URL | str) -> list[str]:
    """
    List the databases of a server whose names have the name of `url` in them; of SQLite, the files.
    """
    parsed = make_url(url)
    name = parsed.database or ""
    if parsed.get_backend_name() == "sqlite":
        path = sqlite_path(parsed)
        return sorted(each.name for each in path.parent.iterdir()) if path is not None and path.parent.is_dir() else []
    if parsed.get_backend_name() == "postgresql":
        admin = parsed.set(database="postgres").render_as_string(hide_password=False)
        with psycopg.connect(admin) as connection:
            names = connection.execute("select datname from pg_database where strpos(datname, %s) > 0", [name])
            return sorted(row[0] for row in names)
    query = "select schema_name from information_schema.schemata where instr(schema_name, %s) > 0 order by 1"
    return [str(each) for each in _ask_mariadb(parsed, query, name)]


def mariadb_sessions(url: str, name: str) -> list[int]:
    """
    List the sessions that are in a database.
    """
    found = _ask_mariadb(make_url(url), "select id from information_schema.processlist where db = %s", name)
    return [int(each) for each in found]


def _ask_mariadb(url: URL, query: str, value: str) -> list[Any]:
    user, password = url.username or "root", url.password or ""
    with closing(pymysql.connect(host=url.host, port=url.port or 3306, user=user, password=password)) as connection:
        cursor = connection.cursor()
        cursor.execute(query, [value])
        return [row[0] for row in cursor.fetchall()]


def exists(url: URL | str) -> bool:
    """
    Say whether a database, or the file of one, is there.
    """
    parsed = make_url(url)
    path = sqlite_path(parsed) if parsed.get_backend_name() == "sqlite" else None
    return path.exists() if path is not None else str(parsed.database) in names_on(parsed)
