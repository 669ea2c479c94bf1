"""What holds for every command: help, JSON, and errors that are one paragraph with an exit code."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import click
import pytest

from stillroom.cli.commands import stillroom
from stillroom.cli.sections import OTHER, SECTIONS
from tests.cli.command import invoke

if TYPE_CHECKING:
    from pathlib import Path

COMMANDS = sorted(stillroom.commands)
DOWN = "postgresql://ada:tiger@127.0.0.1:1/shop"
INTERACTIVE = {"shell"}
WITH_DATABASES = [name for name in COMMANDS if name != "demo"]
"""The demo has databases of its own."""


def arguments(command: click.Command) -> list[str]:
    """
    Return values for what the command demands.
    """
    found: list[str] = []
    for each in command.params:
        if each.required:
            value = "main" if each.name == "database" else "x"
            found += [value] if isinstance(each, click.Argument) else [each.opts[-1], value]
    if any(each.name == "yes" for each in command.params):
        found.append("--yes")
    if any(each.name == "timeout" for each in command.params):
        found += ["--timeout", "0"]
    return found


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """
    A directory whose database is a server that is down.
    """
    (tmp_path / "migrations/versions").mkdir(parents=True)
    (tmp_path / "stillroom.toml").write_text(
        f'[databases.main]\nurl = "{DOWN}"\nmigrations = "migrations"\nconnect_timeout = 1\n', encoding="utf-8"
    )
    return tmp_path


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_has_help_and_json(name: str) -> None:
    command = stillroom.commands[name]
    assert (command.help or "").strip().endswith((".", ")"))
    options = {option for each in command.params for option in each.opts}
    assert options & {"--json", "--format"} or name in INTERACTIVE


def test_the_help_lists_every_command_in_a_section_with_a_whole_sentence(tmp_path: Path) -> None:
    said = invoke("--help", cwd=tmp_path).stdout.partition("Databases:")
    assert re.findall(r"^(\w+):$", "".join(said[1:]), re.MULTILINE) == [*SECTIONS, OTHER]
    listed = re.findall(r"^  ([a-z-]+) +\S.*(?<!\.)\.$", said[2], re.MULTILINE)  # one that is cut ends with three dots
    assert sorted(listed) == COMMANDS
    assert {name for names in SECTIONS.values() for name in names} <= set(COMMANDS)


@pytest.mark.parametrize("name", WITH_DATABASES)
def test_an_error_is_a_paragraph_and_an_exit_code(name: str, project: Path) -> None:
    command = stillroom.commands[name]
    done = invoke(name, *arguments(command), cwd=project, typed="")
    assert isinstance(done.exception, SystemExit | type(None)), done.exception
    assert done.exit_code in {0, 1, 2}
    assert "Traceback" not in done.output
    assert "tiger" not in done.output
    if done.exit_code and "Usage:" not in done.stderr and done.stderr:
        (error,) = [each for each in done.stderr.splitlines() if not each.startswith(("  ", "asking "))]
        assert re.match(r"Error: .*\S", error)


@pytest.mark.parametrize("name", WITH_DATABASES)
def test_wrong_settings_are_told_before_anything_is_done(name: str, tmp_path: Path) -> None:
    (tmp_path / "stillroom.toml").write_text('[databases.main]\nurll = "sqlite://"\n', encoding="utf-8")
    done = invoke(name, *arguments(stillroom.commands[name]), cwd=tmp_path, typed="")
    assert done.exit_code == 2
    if "Usage:" not in done.stderr:
        assert "databases.main.urll: unknown key; did you mean 'url'?" in done.stderr
    assert [each.name for each in tmp_path.iterdir()] == ["stillroom.toml"]


def test_debug_shows_the_traceback_as_well(project: Path) -> None:
    done = invoke("--debug", "check", cwd=project)
    assert "Traceback" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("Error: ")
