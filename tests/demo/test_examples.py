"""The examples run as they stand."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"
STALE = (
    "Order 1 was read as version 1, but the InvoiceRow has version 2: "
    "somebody else changed it; read it again and repeat the change"
)


def output(script: str, directory: Path) -> str:
    """
    Run an example, and return what it prints.
    """
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / script)], cwd=directory, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_the_shop_in_one_script_sells_what_it_has(tmp_path: Path) -> None:
    assert output("shop_script/shop.py", tmp_path) == "'Counting the Ferry' is sold out\n2 orders, 0 left\n"


def test_the_shop_with_repositories_stores_orders_that_know_nothing_of_it(tmp_path: Path) -> None:
    assert output("shop_repository/shop.py", tmp_path).splitlines() == [
        STALE,
        "[('Chile', '0.99'), ('Norway', '4.96')]",
        "Line(number=3, track='Harbour Lights', price=Decimal('1.49'), quantity=2)",
    ]
