"""
How much process CPU does `import stillroom` cost against `import sqlalchemy.orm`?
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec

from .measuring import FEWEST, LONGEST
from .report import Figure, Result, Scale, Table

MODULES = (
    *("sqlalchemy.orm", "stillroom", "flask_sqlalchemy", "flask_sqlalchemy_lite", "zope.sqlalchemy"),
    *("oslo_db.sqlalchemy.enginefacade", "advanced_alchemy.config"),
)
"""The first is the measure of the others."""
_BAR = 1.15
_PATIENCE = 60.0
_SCRIPT = """
import time
start = time.process_time()
import {module}
print(time.process_time() - start)
"""


def run(scale: Scale) -> Result:
    """
    Import each module in fresh interpreters that have its bytecode, turn by turn.
    """
    result = Result()
    modules = [name for name in MODULES[: scale.pick(len(MODULES), 2)] if _is_there(name)]
    rounds = scale.pick(20, 1)
    seconds: dict[str, list[float]] = {name: [] for name in modules}
    with tempfile.TemporaryDirectory() as cache:
        environment = dict(os.environ) | {"PYTHONPYCACHEPREFIX": cache}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        for name in modules:
            _import(name, environment)  # writes the bytecode
        end = time.monotonic() + LONGEST
        for number in range(rounds):
            if number >= FEWEST and time.monotonic() > end:
                break  # on a busy machine fewer rounds rather than a longer wait
            for name in modules if number % 2 else reversed(modules):
                seconds[name].append(_import(name, environment))
    base = seconds[modules[0]]
    ratios = {
        name: statistics.median(one / other for one, other in zip(mine, base, strict=True))
        for name, mine in seconds.items()
    }
    rows: list[tuple[object, ...]] = [
        (name, ratios[name], round(statistics.median(mine) * 1000)) for name, mine in seconds.items()
    ]
    result.tables.append(Table("Imports (ratios to the first line)", ("module", "CPU", "CPU ms"), rows))
    result.notes += [f"{name}: not measured, not installed" for name in MODULES if not _is_there(name)]
    result.figures.append(Figure("CPU of `import stillroom` to `import sqlalchemy.orm`", ratios["stillroom"], _BAR))
    return result


def _is_there(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ImportError:
        return False


def _import(module: str, environment: dict[str, str]) -> float:
    """
    Return the seconds of CPU that the import took in an interpreter of its own.
    """
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT.format(module=module)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=_PATIENCE,
    )
    return float(done.stdout)
