"""
How long do many databases of many revisions take, one after another and several at a time, and when nothing is to do?
"""

from __future__ import annotations

import contextlib
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from stillroom import Databases
from stillroom.migrations import upgrade
from tests.support import servers

from .report import Figure, Result, Scale, Table
from .workload import noting, with_driver

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Way = Callable[[dict[str, str], Path], object]

PARALLEL = 2
PARALLEL_BAR, IDLE_BAR = 0.5, 100.0
"""Of the time of one after another, on two cores; milliseconds for each database that is up to date."""
ALEMBIC = 4
"""Databases that the command `alembic` migrates, a process for each: more would only take longer."""
_PATIENCE = 120.0

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
    return result


def _backend(
    result: Result,
    backend: str,
    making: Callable[[], contextlib.AbstractContextManager[dict[str, str]]],
    root: Path,
    rounds: int,
    revisions: int,
) -> None:
    ways: dict[str, Way] = {
        "Stillroom, one after another": lambda urls, root: _upgrade(urls, root, 1),
        f"Stillroom, {PARALLEL} at a time": lambda urls, root: _upgrade(urls, root, PARALLEL),
        "alembic, a process for each": _alembic,
    }
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
                if name == "Stillroom, one after another":
                    idle.append(_idle(urls, root))
    base = seconds["Stillroom, one after another"]
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
    parallel = ratios[f"Stillroom, {PARALLEL} at a time"]
    result.figures.append(Figure(f"{backend}, {PARALLEL} at a time to one after another", parallel, PARALLEL_BAR))
    result.figures.append(Figure(f"{backend}, ms a database with nothing to do", _ms(idle), IDLE_BAR))


def _ms(seconds: list[float]) -> float:
    return statistics.median(seconds) * 1000


def _databases(urls: dict[str, str], root: Path) -> Databases:
    given = {name: {"url": url, "migrations": str(root / "migrations")} for name, url in urls.items()}
    return Databases({"default": "db0", "databases": given})


def _upgrade(urls: dict[str, str], root: Path, parallel: int) -> None:
    with _databases(urls, root) as databases:
        upgrade(databases, parallel=parallel)


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
