"""Runs the command `stillroom` as users do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

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
