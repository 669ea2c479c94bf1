"""What a command costs beside the revisions: it loads what it needs, and leaves its modules out of every collection."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from tests.migrations import shop
from tests.migrations.test_many import many

if TYPE_CHECKING:
    from pathlib import Path

COMMAND = """
import atexit, gc, sys
sys.path.insert(0, {package!r})

def tell():
    needless = {{"stillroom.data", "stillroom.demo", "stillroom.repository"}} & set(sys.modules)
    print("told", *sorted(needless), gc.get_freeze_count() > 10 * len(gc.get_objects()))

atexit.register(tell)  # the last to be called
from stillroom.cli import main
sys.argv = ["stillroom", "upgrade"]
main()
"""

FORKING = """
import gc, os, sys
from pathlib import Path
sys.path.insert(0, {package!r})
from stillroom import Databases
from stillroom.migrations import upgrade
before = gc.get_freeze_count()
with Databases({given!r}) as dbs:
    upgrade(dbs, parallel=2)
counts = {{int(pid) == os.getpid(): int(count) - before for pid, count in (
    path.read_text().split() for path in Path({told!r}).iterdir()
)}}
print(counts[True], counts[False] > 10_000)
"""
TELLS = """
import gc, os
from pathlib import Path
from time import sleep
place = Path({told!r})
name = f"{{Path(op.get_bind().engine.url.database).stem}}"
(place.parent / name).write_text(f"{{os.getpid()}} {{gc.get_freeze_count()}}")
(place.parent / name).rename(place / name)
for _ in range(6000):  # so that each process has one of the databases
    if len(list(place.iterdir())) == 2:
        break
    sleep(0.01)
"""


def run(program: str, directory: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=directory, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_command_loads_what_it_needs_and_does_not_look_through_it_again(tmp_path: Path) -> None:
    shop.write(tmp_path / "migrations/main", "a", 'import gc\nprint("at work", gc.get_freeze_count() > 10_000)')
    (tmp_path / "stillroom.toml").write_text(
        '[databases.main]\nurl = "sqlite:///main.db"\nmigrations = "migrations/main"'
    )
    lines = run(COMMAND.format(package=str(shop.PACKAGE)), tmp_path).splitlines()
    assert (lines[0], lines[-1]) == ("at work True", "told True")


def test_a_forked_process_does_not_look_through_what_it_has_of_its_parent(tmp_path: Path) -> None:
    given = many(tmp_path, 2)
    told = tmp_path / "told"
    told.mkdir()
    for name in given["databases"]:
        shop.write(tmp_path / "migrations" / name, "a", TELLS.format(told=str(told)))
    program = FORKING.format(package=str(shop.PACKAGE), given=given, told=str(told))
    assert run(program, tmp_path).split() == ["0", "True"]
