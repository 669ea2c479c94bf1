"""
The benchmarks run, so that they do not rot; how fast anything is, is not asserted here.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from benchmarks import isolation
from benchmarks.__main__ import NAMES
from benchmarks.measuring import compare, percentile
from benchmarks.report import Figure, Table

ROOT = Path(__file__).parents[1]
LIMIT = 110  # seconds


@pytest.mark.parametrize("name", NAMES)
def test_a_benchmark_runs_and_leaves_its_figures_in_a_file(name: str, tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", name, "--quick", "--json", str(file)],
        cwd=ROOT,
        env=dict(os.environ) | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])},
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Summary: " in done.stdout
    assert json.loads(file.read_text())[name]["tables"]


def test_the_first_way_is_the_measure_of_the_others() -> None:
    measured = compare([("once", lambda: sum(range(2000))), ("again", lambda: sum(range(2000)))], rounds=2, batch=20)
    assert [each.name for each in measured] == ["once", "again"]
    assert (measured[0].cpu, measured[0].wall) == (1.0, 1.0)


@pytest.mark.parametrize(
    ("figure", "met"),
    [
        (Figure("cost", 1.104, 1.10), True),
        (Figure("cost", 1.106, 1.10), False),
        (Figure("gain", 1.5, 1.5, "at least"), True),
        (Figure("gain", 1.4, 1.5, "at least"), False),
    ],
)
def test_a_figure_is_held_against_its_bar_as_it_is_printed(figure: Figure, met: bool) -> None:
    assert figure.met is met


def test_a_percentile_is_one_of_the_values() -> None:
    assert percentile([3.0, 1.0, 2.0, 4.0], 0.5) == 3.0
    assert percentile([1.0], 0.99) == 1.0


def test_a_table_is_plain_text_in_columns() -> None:
    assert str(Table("Title", ("way", "n"), [("a", 1.0), ("long", 10)])).splitlines() == [
        "Title",
        "way      n",
        "----  ----",
        "a     1.00",
        "long    10",
    ]


def test_a_way_whose_tests_leave_their_rows_is_not_measured(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/rows.db")
    isolation.Base.metadata.create_all(engine)

    def committing() -> None:
        with Session(engine) as session:
            isolation.body(session)

    with pytest.raises(isolation.NotIsolated, match="3 rows that a test committed are there after it"):
        isolation.require_isolated(committing, str(engine.url))
    engine.dispose()
