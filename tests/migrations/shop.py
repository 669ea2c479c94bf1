"""
Directories of revisions for the tests, and programs that run them.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from textwrap import dedent, indent
from typing import TYPE_CHECKING, Any

from stillroom import Databases

if TYPE_CHECKING:
    from collections.abc import Mapping

PACKAGE = Path(__file__).parents[2] / "src"

REVISION = '''"""{name}"""
import sqlalchemy as sa
from alembic import op
revision = {name!r}
down_revision = {down!r}


def upgrade():
{up}


def downgrade():
{undo}
'''


def write(directory: Path, name: str, up: str, undo: str = "pass", *, down: Any = None) -> Path:
    """
    Write a revision into the directory of a chain.
    """
    path = directory / "versions" / f"{name}.py"
    path.parent.mkdir(parents=True, exist_ok=True)
    bodies = {"up": indent(dedent(up).strip(), "    "), "undo": indent(dedent(undo).strip(), "    ")}
    path.write_text(REVISION.format(name=name, down=down, **bodies), encoding="utf-8")
    return path


def tables(directory: Path, *names: str, down: str | None = None) -> None:
    """
    Write a revision for each table.
    """
    for name in names:
        create = f'op.create_table("{name}", sa.Column("id", sa.Integer, primary_key=True))'
        write(directory, name, create, f'op.drop_table("{name}")', down=down)
        down = name


def settings(tmp_path: Path, urls: Mapping[str, str], **options: Any) -> dict[str, Any]:
    """
    Return settings of databases with migrations, by name and URL.
    """
    return {
        "databases": {
            name: {"url": url, "migrations": str(tmp_path / "migrations" / name), **options}
            for name, url in urls.items()
        }
    }


def databases(tmp_path: Path, url: str, **options: Any) -> Databases:
    """
    Declare one database, `main`.
    """
    return Databases(settings(tmp_path, {"main": url}, **options))


UPGRADE = """
import sys
sys.path.insert(0, {package!r})
from stillroom import Databases
from stillroom.migrations import Options, upgrade
with Databases({settings!r}) as dbs:
    print(*upgrade(dbs, options=Options(notice=lambda text: print(text, flush=True)))[0].revisions)
"""


def start_upgrade(given: Mapping[str, Any]) -> subprocess.Popen[str]:
    """
    Start a process that upgrades the databases of settings; it prints what it waits for, then the revisions that ran.
    """
    program = UPGRADE.format(package=str(PACKAGE), settings=given)
    return subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
