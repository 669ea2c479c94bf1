"""
The tests of the examples, run as their readers run them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
PATIENCE = 100

PYTEST = ["pytest", "-q", "-p", "no:cacheprovider", "-p", "no:asyncio", "-p", "no:randomly"]
WARNINGS = ["-W", "error", "-W", "ignore:'cgi' is deprecated:DeprecationWarning"]  # WebOb 1.8, below Pyramid


def run_tests(example: str, directory: Path, *arguments: str, **environ: str) -> str:
    """
    Run the tests of a copy of an example, and return what they say.
    """
    ignored = shutil.ignore_patterns("*.db*", "__pycache__", "messages")
    copy = shutil.copytree(EXAMPLES / example, directory / example, ignore=ignored)
    outside = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=copy,
        env=outside | environ,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(copy.glob("*.db*")) == []
    return done.stdout + done.stderr


def count_tests(example: str) -> int:
    return (EXAMPLES / example / "test_shop.py").read_text(encoding="utf-8").count("def test_")


@pytest.mark.parametrize("example", ["shop_celery", "shop_fastapi", "shop_flask", "shop_pyramid", "shop_repository"])
def test_the_tests_of_an_example_pass(example: str, tmp_path: Path) -> None:
    said = run_tests(example, tmp_path, *PYTEST, *WARNINGS)
    assert f"{count_tests(example)} passed in" in said


@pytest.mark.parametrize("example", ["shop_fastapi", "shop_flask"])
def test_the_tests_of_an_example_pass_on_postgresql(example: str, tmp_path: Path, postgresql_place: str) -> None:
    said = run_tests(example, tmp_path, *PYTEST, *WARNINGS, STILLROOM_MAIN_URL=postgresql_place)
    assert f"{count_tests(example)} passed in" in said


def test_the_tests_of_the_script_pass_without_pytest(tmp_path: Path) -> None:
    said = run_tests("shop_script", tmp_path, "unittest")
    assert f"Ran {count_tests('shop_script')} tests" in said
