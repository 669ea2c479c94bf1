"""
How long does a test take that is kept from the others, in Stillroom's ways and in those of other libraries?
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import make_url

from stillroom.testing.servers import Proxy
from tests.support import servers

from . import isolation
from .isolation_peers import ISOLATING
from .measuring import compare
from .report import Figure, Result, Scale, Table, costs
from .workload import noting

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .isolation import Place
    from .measuring import Measured, Work

BARE_BAR, ANEW_BAR = 1.3, 40.0
"""Of a bare outer transaction with savepoints; how often the sandbox goes into drop, create and migrate."""
_WARM = 8
"""Tests before round trips are counted: the driver prepares a statement that comes again and again."""
_TOGETHER = 20
"""Tests in the sandbox for one that makes a database: a single one would be measured too roughly."""


def run(scale: Scale) -> Result:
    """
    Run the same test, 3 inserts, a commit and a select with 30 tables, in every way.
    """
    result = Result()
    with tempfile.TemporaryDirectory() as directory, _cache(Path(directory)):
        root = Path(directory)
        migrations = isolation.write_revisions(root, scale.pick(30, 3), scale.pick(50, 4))
        with _on_sqlite(root, migrations) as place:
            _backend(result, place, scale)
        with noting(result, "PostgreSQL"), _on_postgresql(migrations) as place:
            _backend(result, place, scale)
        with noting(result, "Round trips"):
            _trips(result, migrations, scale)
    return result


@contextlib.contextmanager
def _cache(directory: Path) -> Iterator[None]:
    """
    Keep templates of SQLite where they are removed.
    """
    before = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = str(directory / "cache")
    try:
        yield
    finally:
        del os.environ["XDG_CACHE_HOME"]
        if before is not None:
            os.environ["XDG_CACHE_HOME"] = before


@contextlib.contextmanager
def _on_sqlite(root: Path, migrations: Path) -> Iterator[Place]:
    plain, ours, anew = (f"sqlite:///{root}/{name}_test.db" for name in ("plain", "ours", "anew"))
    isolation.migrate(plain, migrations)
    yield isolation.Place("SQLite", plain, ours, anew, migrations)


@contextlib.contextmanager
def _on_postgresql(migrations: Path, proxy: Proxy | None = None) -> Iterator[Place]:
    with servers.postgresql_database(servers.postgresql_url()) as direct:
        isolation.migrate(direct, migrations)
        url = make_url(direct if proxy is None else proxy.url(direct))
        plain, ours, anew = (
            url.set(database=f"{before}{url.database}").render_as_string(hide_password=False)
            for before in ("", "ours_", "anew_")
        )
        try:
            yield isolation.Place("PostgreSQL", plain, ours, anew, migrations)
        finally:
            isolation.drop(ours)


def _backend(result: Result, place: Place, scale: Scale) -> None:
    with contextlib.ExitStack() as stack:
        ours = stack.enter_context(isolation.stillroom(place))
        ways = _ways(stack, place, ours, result.notes)
        measured = compare(ways, rounds=scale.pick(40, 2), batch=scale.pick(20, 2))
        result.tables.append(costs(f"A test, {place.backend}", measured))
        for each in measured[1:3]:
            name = f"{each.name} to a bare outer transaction, {place.backend}"
            result.figures.append(Figure(name, each.wall, BARE_BAR))
        slow = _with_databases(stack, place, ours, scale)
        result.tables.append(costs(f"A test with a database of its own, {place.backend}", slow))
        name = f"drop, create and migrate to a test in the sandbox, {place.backend}"
        result.figures.append(Figure(name, slow[-1].wall, ANEW_BAR, "at least"))


def _trips(result: Result, migrations: Path, scale: Scale) -> None:
    """
    Count the round trips of a test in each way.
    """
    server = make_url(servers.postgresql_url())
    rows: list[tuple[object, ...]] = []
    with (
        Proxy(server.host or "127.0.0.1", server.port or 5432) as proxy,
        _on_postgresql(migrations, proxy) as place,
        isolation.stillroom(place) as ours,
        contextlib.ExitStack() as stack,
    ):
        tests = scale.pick(10, 2)
        for name, test in _ways(stack, place, ours, []):
            for _ in range(_WARM):
                test()
            before = proxy.trips
            for _ in range(tests):
                test()
            rows.append((name, (proxy.trips - before) / tests))
    result.tables.append(Table("Round trips of a test, PostgreSQL with psycopg", ("way", "trips"), rows))


def _ways(
    stack: contextlib.ExitStack, place: Place, ours: isolation.Stillroom, notes: list[str]
) -> list[tuple[str, Work]]:
    """
    Return those ways that do what they are measured for, the bare one first; of the others `notes` says why not.
    """
    bare = stack.enter_context(isolation.bare(place))
    isolation.require_isolated(bare, place.url)
    found: list[tuple[str, Work]] = [
        ("Stillroom, sandbox, Session", ours.session),
        ("Stillroom, sandbox, unit of work", ours.unit),
        ("Stillroom, committed", ours.committed),
    ]
    for _, test in found:
        isolation.require_isolated(test, ours.url)
    for name, way in ISOLATING:
        try:
            test = stack.enter_context(way(place))
            isolation.require_isolated(test, place.url)
        except (ImportError, isolation.NotIsolated) as error:
            notes.append(f"{place.backend}, {name}: not measured, {error}")
        else:
            found.append((name, test))
    return [("bare outer transaction, savepoints", bare), *found]


def _with_databases(
    stack: contextlib.ExitStack, place: Place, ours: isolation.Stillroom, scale: Scale
) -> list[Measured]:
    anew = stack.enter_context(isolation.anew(place))

    def sandbox() -> None:
        for _ in range(_TOGETHER):
            ours.unit()

    ways: list[tuple[str, Work]] = [
        ("Stillroom, sandbox, unit of work", sandbox),
        ("Stillroom, clone", ours.clone),
        ("drop, create, migrate", anew),
    ]
    together, *others = compare(ways, rounds=scale.pick(7, 2), batch=1)
    each = replace(
        together,
        cpu_microseconds=together.cpu_microseconds / _TOGETHER,
        wall_microseconds=together.wall_microseconds / _TOGETHER,
    )
    return [each, *(_of_one(other) for other in others)]


def _of_one(measured: Measured) -> Measured:
    return replace(
        measured,
        cpu=measured.cpu * _TOGETHER,
        wall=measured.wall * _TOGETHER,
        spread=measured.spread * _TOGETHER,
    )
