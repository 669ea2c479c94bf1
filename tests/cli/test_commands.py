"""The commands: what they print, and their exit codes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import stillroom
from tests.cli.command import PACKAGE, invoke, run

if TYPE_CHECKING:
    from pathlib import Path

DOWN = "postgresql://ada:tiger@127.0.0.1:1/shop"


def write(directory: Path, text: str) -> Path:
    path = directory / "stillroom.toml"
    path.write_text(text, encoding="utf-8")
    return path


def configure(directory: Path, **urls: str) -> None:
    write(directory, "\n".join(f'[databases.{name}]\nurl = "{url}"' for name, url in urls.items()))


def test_the_version_is_the_package_s(tmp_path: Path) -> None:
    done = run("--version", cwd=tmp_path)
    assert (done.returncode, done.stdout.split()[-1]) == (0, stillroom.__version__)


def test_ping_says_how_each_server_is(any_database: str, tmp_path: Path) -> None:
    configure(tmp_path, main=any_database)
    invoke("create", cwd=tmp_path)
    done = run("ping", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    writer, reader = json.loads(done.stdout)
    assert (writer["database"], writer["role"], writer["ok"]) == ("main", "writer", True)
    assert writer["version"]
    assert (reader["role"], reader["ok"]) == ("reader", True)
    assert reader["read_only"] in {"connection", "role"}


def test_ping_shows_what_a_reader_is_not_kept_from(tmp_path: Path) -> None:
    configure(tmp_path, main="sqlite:///here.db")
    invoke("create", cwd=tmp_path)
    done = invoke("ping", cwd=tmp_path)
    assert done.exit_code == 0, done.stderr
    assert "main (reader) is not kept from:" in done.stdout
    assert "query_only" in done.stdout


def test_ping_exits_with_1_if_a_server_is_down(tmp_path: Path) -> None:
    configure(tmp_path, main="sqlite://", far=DOWN)
    done = invoke("ping", cwd=tmp_path)
    assert done.exit_code == 1
    assert "far (writer) is down:" in done.stdout
    assert "tiger" not in done.stdout + done.stderr


def test_a_file_that_is_missing_is_told_and_not_made(tmp_path: Path) -> None:
    configure(tmp_path, main="sqlite:///heer.db")
    done = invoke("ping", cwd=tmp_path)
    assert done.exit_code == 1
    assert "main (writer) is down: there is no such file; `stillroom create main` makes it" in done.stdout
    assert invoke("status", cwd=tmp_path).exit_code == 0
    assert not (tmp_path / "heer.db").exists()
    invoke("create", "main", cwd=tmp_path)
    assert invoke("ping", cwd=tmp_path).exit_code == 0


def test_status_shows_the_settings_without_secrets(tmp_path: Path) -> None:
    configure(tmp_path, main=DOWN)
    table, plain = invoke("status", cwd=tmp_path), invoke("status", "--json", cwd=tmp_path)
    assert (table.exit_code, plain.exit_code) == (0, 0)
    assert "ada:***@" in table.stdout
    assert json.loads(plain.stdout)["databases"]["main"]["url"] == DOWN.replace("tiger", "***")
    assert "tiger" not in table.stdout + plain.stdout


def test_config_and_profile_choose_the_settings(tmp_path: Path) -> None:
    text = '[databases.main]\nurl = "sqlite:///a.db"\n[profiles.test.databases.main]\nurl = "sqlite:///b.db"\n'
    path = write(tmp_path, text).rename(tmp_path / "other.toml")
    done = invoke("--config", str(path), "--profile", "test", "status", "--json", cwd=tmp_path)
    found = json.loads(done.stdout)
    assert (found["profile"], found["databases"]["main"]["url"]) == ("test", "sqlite:///b.db")


def test_wrong_settings_are_a_paragraph_and_exit_code_2(tmp_path: Path) -> None:
    write(tmp_path, '[databases.main]\nurl = "sqlite:///a.db"\npool_sise = 3\n')
    done = run("ping", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "Error: databases.main.pool_sise: unknown key; did you mean 'pool_size'?\n"


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    write(tmp_path, '[databases.main]\nurl = "sqlite:///a.db"\npool_sise = 3\n')
    assert "Traceback" in invoke("--debug", "ping", cwd=tmp_path).stderr


def test_an_unknown_option_exits_with_2(tmp_path: Path) -> None:
    assert invoke("ping", "--jason", cwd=tmp_path).exit_code == 2


def test_recover_finds_nothing_in_doubt_where_nothing_is(tmp_path: Path) -> None:
    configure(tmp_path, main="sqlite:///here.db")
    table, plain = invoke("recover", cwd=tmp_path), invoke("recover", "--json", cwd=tmp_path)
    assert (table.exit_code, table.stdout) == (0, "No transaction is in doubt.\n")
    assert json.loads(plain.stdout) == []


def test_recover_reports_a_server_that_is_down_in_one_paragraph(tmp_path: Path) -> None:
    configure(tmp_path, main=DOWN)
    done = invoke("recover", cwd=tmp_path)
    assert done.exit_code == 1
    assert re.fullmatch(r"Error: [^\n]+\n", done.stderr)
    assert "tiger" not in done.stderr


@pytest.mark.parametrize("missing", ["click", "rich"])
def test_without_the_extra_it_says_what_to_install(missing: str) -> None:
    program = f"import sys; sys.modules[{missing!r}] = None; from stillroom.cli import main; main(['ping'])"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(PACKAGE)!r}); {program}"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == f'The command line needs {missing}; install it with: pip install "stillroom[cli]"\n'
