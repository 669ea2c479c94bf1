"""The shell: what it knows, what it keeps, and which settings it uses."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.cli.command import PACKAGE, run

if TYPE_CHECKING:
    from pathlib import Path

MODELS = """
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
class Base(DeclarativeBase): ...
class Item(Base):
    __tablename__ = "items"
    name: Mapped[str] = mapped_column(primary_key=True)
"""
SETTINGS = """
[databases.main]
url = "sqlite:///main.db"
metadata = "shop.models:Base"
"""
ADD = "Base.metadata.create_all(uow.main.connection()); uow.main.add(Item(name='lamp'))"
COUNT = "uow.main.query(Item).count()"


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """
    A directory with settings and models.
    """
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "__init__.py").touch()
    (tmp_path / "shop" / "models.py").write_text(MODELS)
    (tmp_path / "stillroom.toml").write_text(SETTINGS)
    return tmp_path


def line(shop: Path, text: str, **environ: str) -> str:
    done = run("shell", "-c", text, cwd=shop, environ=environ)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()


def test_only_what_is_committed_by_hand_is_kept(shop: Path) -> None:
    line(shop, f"from shop.models import Base; {ADD}; uow.commit(); uow.main.add(Item(name='not kept'))")
    assert line(shop, COUNT) == "1"


def test_lines_share_their_names(shop: Path) -> None:
    done = run("shell", "-c", "price = 4", "-c", "price + 1", cwd=shop)
    assert (done.returncode, done.stdout) == (0, "5\n"), done.stderr


def test_a_line_that_fails_is_told(shop: Path) -> None:
    done = run("shell", "-c", COUNT, cwd=shop)
    assert (done.returncode, done.stdout) == (1, "")
    assert "the database says: no such table: items" in done.stderr


def test_the_unit_of_work_is_the_current_one(shop: Path) -> None:
    assert line(shop, "dbs.current is uow") == "True"


def test_the_profile_shell_is_chosen_where_it_is_declared(shop: Path) -> None:
    assert line(shop, "dbs.settings.profile") == ""
    with (shop / "stillroom.toml").open("a") as file:
        file.write('[profiles.shell.databases.main]\nlock_timeout = 1.0\n[profiles.other]\ndefault = "main"\n')
    assert line(shop, "dbs.settings.profile, dbs.main.settings.lock_timeout") == "('shell', 1.0)"
    assert line(shop, "dbs.settings.profile", STILLROOM_PROFILE="other") == "'other'"
    assert run("--profile", "other", "shell", "-c", "dbs.settings.profile", cwd=shop).stdout == "'other'\n"


def test_a_profile_that_is_wrong_is_told(shop: Path) -> None:
    with (shop / "stillroom.toml").open("a") as file:
        file.write('[profiles.shell.databases.main]\nlock_timeout = "soon"\n')
    done = run("shell", "-c", "1", cwd=shop)
    assert done.returncode == 2
    assert "profiles.shell.databases.main.lock_timeout" in done.stderr


@pytest.mark.parametrize("missing", ["nothing", "IPython"])
def test_a_person_may_type(shop: Path, missing: str) -> None:
    program = f"import sys; sys.modules[{missing!r}] = None; from stillroom.cli import main; main(['shell'])"
    typed = ["from shop.models import Base", *ADD.split("; "), f"{COUNT} + 40", "uow.commit()", ""]
    environ = os.environ | {"PYTHONPATH": str(PACKAGE), "IPYTHONDIR": str(shop / "ipython")}
    done = subprocess.run(
        [sys.executable, "-c", program],
        input="\n".join(typed),
        cwd=shop,
        env=environ,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert ("In [" in done.stdout) == (missing != "IPython")
    assert "Models: Item." in done.stdout + done.stderr
    assert "41" in done.stdout
    assert line(shop, COUNT) == "1"
