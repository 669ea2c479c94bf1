"""
Runs the benchmarks: `python -m benchmarks [NAME…] [--quick] [--check] [--json FILE]`.
"""

from __future__ import annotations

import argparse
import importlib
import json
import platform
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from .report import Result, Scale

NAMES = (
    "unit",
    "asynchronous",
    "wire",
    "trips",
    "pool",
    "sqlite",
    "reading",
    "results",
    "paging",
    "bulk",
    "domain",
    "requests",
    "migrations",
    "testing",
    "imports",
)
"""The modules, each with a question in its docstring and a function `run`."""

_PACKAGES = (
    *("SQLAlchemy", "alembic", "psycopg", "asyncpg", "aiosqlite", "PyMySQL"),
    *(
        "Flask-SQLAlchemy",
        "Flask-SQLAlchemy-Lite",
        "oslo.db",
        "zope.sqlalchemy",
        "advanced-alchemy",
        "Django",
        "sqlmodel",
        "pydantic",
    ),
)


def main(arguments: list[str] | None = None) -> int:
    """
    Run what the command line names.

    Args:
        arguments: of the command line; None for those of the process.

    Returns:
        1 if `--check` was given and a bar was missed, else 0.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure Stillroom beside its peers.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(NAMES)}; none for all")
    parser.add_argument("--quick", action="store_true", help="only see that they run; the figures mean little")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a bar was missed")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there too")
    options = parser.parse_args(arguments)
    if unknown := sorted(set(options.names) - set(NAMES)):
        parser.error(f"no benchmark is named {', '.join(map(repr, unknown))}; there are {', '.join(NAMES)}")
    print(_versions(), end="\n\n", flush=True)
    results = {name: _run(name, Scale(quick=options.quick)) for name in options.names or NAMES}
    figures = [figure for result in results.values() for figure in result.figures]
    missed = [figure for figure in figures if not figure.met]
    print(f"Summary: {len(figures) - len(missed)} of {len(figures)} bars met")
    for figure in figures:
        print(f"  {figure}")
    if options.json is not None:
        options.json.write_text(json.dumps({name: result.as_json() for name, result in results.items()}, indent=1))
    return 1 if options.check and missed else 0


def _run(name: str, scale: Scale) -> Result:
    module = importlib.import_module(f".{name}", __package__)
    print(f"== {name}: {(module.__doc__ or '').strip()}\n", flush=True)
    start = time.perf_counter()
    result: Result = module.run(scale)
    print(f"{result}\n({time.perf_counter() - start:.0f} s)\n", flush=True)
    return result


def _versions() -> str:
    found = []
    for name in _PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return f"Python {platform.python_version()}, {', '.join(found)}"


if __name__ == "__main__":
    sys.exit(main())
