"""The examples run as they stand."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "examples" / "shop_script" / "shop.py"


def test_the_shop_in_one_script_sells_what_it_has(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT)], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "'Counting the Ferry' is sold out\n2 orders, 0 left\n"
