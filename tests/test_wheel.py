"""
The wheel works on its own, with the source out of the way.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

PROGRAM = """
import importlib.metadata, pathlib, stillroom
package = pathlib.Path(stillroom.__file__).parent
print(package)
print((package / "py.typed").exists())
print(importlib.metadata.version("stillroom"))
for name in stillroom.__all__:
    getattr(stillroom, name)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(directory)]
    subprocess.run(build, check=True, cwd=ROOT, capture_output=True, timeout=100)
    (built,) = directory.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """
    A fresh virtualenv's interpreter: the wheel is unpacked there, its dependencies come from the present environment.
    """
    directory = tmp_path_factory.mktemp("fresh")
    venv.create(directory, with_pip=False)
    scheme = {"base": str(directory), "platbase": str(directory)}
    library = Path(sysconfig.get_path("purelib", "venv", scheme))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(library)
    # A path inside a .pth file is not searched for further .pth files, so the editable install stays out.
    (library / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return Path(sysconfig.get_path("scripts", "venv", scheme)) / Path(sys.executable).name


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.split("/")[0] for name in archive.namelist()}
    assert tops == {"stillroom", wheel.name.split("-py3")[0] + ".dist-info"}


def test_the_installed_wheel_imports_with_all_public_names(python: Path, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [str(python), "-c", PROGRAM],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    package, typed, version = done.stdout.split()
    assert ROOT not in Path(package).parents
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert (typed, version) == ("True", declared)
