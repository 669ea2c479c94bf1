"""
How long do many databases of many revisions take, one after another and several at a time, and when nothing is to do?

Each way is a command, run as a user runs it, in a process that has imported nothing yet.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from stillroom import Databases
from stillroom.migrations import upgrade
from stillroom.migrations.parallel import usual_count
from stillroom.testing.servers import wait_until
from tests.support import servers

from .report import Figure, Result, Scale, Table
from .workload import noting, with_driver

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Way = Callable[[dict[str, str], Path], object]

PARALLEL = (2, 4, 8)
"""Databases at a time, beside what `--parallel` chooses where it is given no number; the bar is for that."""
PARALLEL_BAR, IDLE_BAR, CONCURRENT_BAR = 0.5, 100.0, 5.0
"""Of the time of one after another, on two cores; milliseconds for each database that is up to date; seconds."""
ONE = "Stillroom, one after another"
HALVES = "Stillroom, two commands for half of them each, side by side"
"""What two cores give where nothing is handed out: beside it one sees what `--parallel` itself adds or saves."""
ALEMBIC = 4
"""Databases that the command `alembic` migrates, a process for each: more would only take longer."""
_PATIENCE = 600.0

_REVISION = """
import sqlalchemy as sa
from alembic import op
revision, down_revision = {name!r}, {down!r}


def upgrade():
    op.create_table("table_{name}", sa.Column("id", sa.Integer, primary_key=True), sa.Column("name", sa.String(50)))
    op.create_index("index_{name}", "table_{name}", ["name"])


def downgrade():
    op.drop_table("table_{name}")
"""
_CONCURRENTLY = """
from pathlib import Path
from time import sleep
from alembic import op
revision, down_revision = "index", None


def upgrade():
    op.execute("create table item as select id from generate_series(1, {rows}) id")
    Path({began!r}).touch()
    for _ in range(6000):
        if Path({go!r}).exists():
            break
        sleep(0.01)
    with op.get_context().autocommit_block():
        op.create_index("item_id", "item", ["id"], postgresql_concurrently=True)
"""
_ENV = """
from alembic import context
from sqlalchemy import create_engine, pool
engine = create_engine(context.get_x_argument(as_dictionary=True)["url"], poolclass=pool.NullPool)
with engine.connect() as connection:
    context.configure(connection=connection)
    with context.begin_transaction():
        context.run_migrations()
"""


def run(scale: Scale) -> Result:
    """
    Migrate many databases in three ways, on SQLite and on PostgreSQL.
    """
    result = Result()
    count, revisions = scale.pick(32, 2), scale.pick(50, 2)
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        _write(root, revisions)
        for name, way in {"ours": _command(), "alembic": _alembic}.items():  # leaves bytecode, as an installation does
            way({"db0": f"sqlite:///{root}/{name}.db"}, root)

        @contextlib.contextmanager
        def files() -> Iterator[dict[str, str]]:
            with tempfile.TemporaryDirectory(dir=root) as place:
                yield {f"db{number}": f"sqlite:///{place}/{number}.db" for number in range(count)}

        @contextlib.contextmanager
        def on_postgresql() -> Iterator[dict[str, str]]:
            with contextlib.ExitStack() as stack:
                making = servers.postgresql_database
                yield {f"db{number}": stack.enter_context(making(servers.postgresql_url())) for number in range(count)}

        _backend(result, "SQLite", files, root, scale.pick(3, 1), revisions)
        with noting(result, "PostgreSQL"):
            _backend(result, "PostgreSQL", on_postgresql, root, scale.pick(2, 1), revisions)
            _concurrently(result, root, scale.pick(200_000, 200))
    return result


def _concurrently(result: Result, root: Path, rows: int) -> None:
    """
    Measure how long a revision with CREATE INDEX CONCURRENTLY takes while a second process waits for the lock.
    """
    directory = root / "concurrently"
    versions = directory / "migrations/versions"
    versions.mkdir(parents=True)
    began, go = directory / "began", directory / "go"
    (versions / "index.py").write_text(_CONCURRENTLY.format(rows=rows, began=str(began), go=str(go)))
    with servers.postgresql_database(servers.postgresql_url()) as url:
        place = _configured({"db0": url}, directory)
        first, second = _begin(place), None
        try:
            wait_until(lambda: began.exists() or first.poll() is not None, "the revision runs", timeout=_PATIENCE)
            second = _begin(place)
            assert second.stderr is not None
            assert "waiting for another process" in second.stderr.readline()
            start = time.perf_counter()
            go.touch()
            _end(first)
            taken = time.perf_counter() - start
            _end(second)
        finally:
            for process in (first, second):
                if process is not None:
                    process.kill()
    result.figures.append(Figure("CREATE INDEX CONCURRENTLY while a second process waits, s", taken, CONCURRENT_BAR))


def _backend(
    result: Result,
    backend: str,
    making: Callable[[], contextlib.AbstractContextManager[dict[str, str]]],
    root: Path,
    rounds: int,
    revisions: int,
) -> None:
    usual = f"Stillroom, --parallel ({usual_count()} at a time)"
    ways: dict[str, Way] = {ONE: _command(), usual: _command("--parallel")}
    ways |= {
        f"Stillroom, {each} at a time": _command("--parallel", str(each)) for each in PARALLEL if each != usual_count()
    }
    ways |= {HALVES: _halves, "alembic, a process for each": _alembic}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    idle: list[float] = []
    count = 0
    for number in range(rounds):
        for name in ways if number % 2 else reversed(ways):
            with making() as urls:
                count = len(urls)
                start = time.perf_counter()
                ways[name](urls, root)
                taken = time.perf_counter() - start
                seconds[name].append(taken / (min(ALEMBIC, count) if name.startswith("alembic") else count))
                if name == ONE:
                    idle.append(_idle(urls, root))
    base = seconds[ONE]
    ratios = {
        name: statistics.median(mine / other for mine, other in zip(taken, base, strict=True))
        for name, taken in seconds.items()
    }
    rows: list[tuple[object, ...]] = [
        (name, ratios[name], round(statistics.median(taken) * 1000)) for name, taken in seconds.items()
    ]
    rows.append(("Stillroom, nothing to do", statistics.median(idle) / statistics.median(base), round(_ms(idle))))
    title = f"{count} databases of {revisions} revisions, {backend} (ratios to the first line)"
    result.tables.append(Table(title, ("way", "wall", "ms a database"), rows))
    name = f"{backend}, {usual.removeprefix('Stillroom, ')} to one after another"
    result.figures.append(Figure(name, ratios[usual], PARALLEL_BAR))
    result.figures.append(Figure(f"{backend}, ms a database with nothing to do", _ms(idle), IDLE_BAR))


def _ms(seconds: list[float]) -> float:
    return statistics.median(seconds) * 1000


def _databases(urls: dict[str, str], root: Path) -> Databases:
    given = {name: {"url": url, "migrations": str(root / "migrations")} for name, url in urls.items()}
    return Databases({"default": "db0", "databases": given})


def _command(*options: str) -> Way:
    def upgrade_all(urls: dict[str, str], root: Path) -> None:
        _run(_configured(urls, root), *options)

    return upgrade_all


def _halves(urls: dict[str, str], root: Path) -> None:
    names = list(urls)
    halves = [{name: urls[name] for name in names[first::2]} for first in range(2)]
    begun = [_begin(_configured(half, root)) for half in halves]
    try:
        for each in begun:
            _end(each)
    finally:
        for each in begun:
            each.kill()


def _configured(urls: dict[str, str], root: Path) -> Path:
    """
    Return a new directory in which the command finds these databases.
    """
    directory = Path(tempfile.mkdtemp(dir=root))
    tables = [
        f'[databases.{name}]\nurl = "{url}"\nmigrations = "{root / "migrations"}"\n' for name, url in urls.items()
    ]
    (directory / "stillroom.toml").write_text("\n".join([f'default = "{next(iter(urls))}"', *tables]))
    return directory


def _begin(directory: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "stillroom", "upgrade", *options]
    return subprocess.Popen(
        command,
        cwd=directory,
        env=_environment(directory.parent),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _environment(root: Path) -> dict[str, str]:
    """
    Return the environment of a program whose bytecode is kept, whatever this one's says.
    """
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return kept | {"PYTHONPYCACHEPREFIX": str(root / "bytecode")}


def _run(directory: Path, *options: str) -> None:
    _end(_begin(directory, *options))


def _end(process: subprocess.Popen[str]) -> None:
    _, said = process.communicate(timeout=_PATIENCE)
    if process.returncode:
        raise RuntimeError(said)


def _idle(urls: dict[str, str], root: Path) -> float:
    """
    Return the seconds for each database that is up to date.
    """
    with _databases(urls, root) as databases:
        start = time.perf_counter()
        outcomes = upgrade(databases)
        taken = time.perf_counter() - start
    assert {each.state for each in outcomes} == {"nothing to do"}
    return taken / len(urls)


def _alembic(urls: dict[str, str], root: Path) -> None:
    for url in list(urls.values())[:ALEMBIC]:
        driven = with_driver(url, "postgresql+psycopg") if url.startswith("postgresql") else url
        subprocess.run(
            [sys.executable, "-m", "alembic", "-x", f"url={driven}", "upgrade", "head"],
            cwd=root,
            env=_environment(root),
            capture_output=True,
            check=True,
            timeout=_PATIENCE,
        )


def _write(root: Path, revisions: int) -> None:
    versions = root / "migrations/versions"
    versions.mkdir(parents=True)
    (root / "alembic.ini").write_text("[alembic]\nscript_location = migrations\n")
    (root / "migrations/env.py").write_text(_ENV)
    down = None
    for number in range(revisions):
        name = f"{number:04}"
        (versions / f"{name}.py").write_text(_REVISION.format(name=name, down=down))
        down = name
