"""Runs the command `stillroom` as users do."""

from __future__ import annotations

import contextlib
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from click.testing import CliRunner, Result

if TYPE_CHECKING:
    from collections.abc import Mapping

PACKAGE = Path(__file__).parents[2] / "src"


def run(
    *arguments: str, cwd: Path, environ: Mapping[str, str] | None = None, timeout: float = 100.0
) -> subprocess.CompletedProcess[str]:
    """
    Run `python -m stillroom` in a directory, with this package, and wait for its end.
    """
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE), "PYTHONWARNINGS": "error", **(environ or {})}
    return subprocess.run(
        [sys.executable, "-m", "stillroom", *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def at_a_terminal(*arguments: str, cwd: Path, typed: str, timeout: float = 100.0) -> tuple[int, str]:
    """
    Same as `run`, but its input is a terminal at which a line is typed; return the exit code, and what it said.
    """
    screen, terminal = pty.openpty()
    try:
        os.write(screen, f"{typed}\n".encode())
        done = subprocess.run(
            [sys.executable, "-m", "stillroom", *arguments],
            cwd=cwd,
            env={**os.environ, "PYTHONPATH": str(PACKAGE), "PYTHONWARNINGS": "error"},
            stdin=terminal,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            check=False,
        )
    finally:
        os.close(screen)
        os.close(terminal)
    return done.returncode, done.stdout


def invoke(*arguments: str, cwd: Path, typed: str | None = None) -> Result:
    """
    Same as `run`, but in this process, where no interpreter has to start; for settings without models.
    """
    from stillroom.cli.commands import stillroom

    with contextlib.chdir(cwd):
        return CliRunner().invoke(stillroom, [*arguments], input=typed, prog_name="stillroom")
