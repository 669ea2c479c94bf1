"""The command itself, and what its commands have in common."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import stillroom as package
from stillroom import Databases, Settings, SettingsError
from stillroom.cli.problems import explained
from stillroom.cli.sections import Sections

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Common", "as_json", "command", "stillroom"]


@dataclass(frozen=True)
class Common:
    """
    The options that all commands have.
    """

    config: Path | None = None
    profile: str | None = None
    debug: bool = False
    application: Databases | None = None

    def settings(self, *, preferred: str | None = None) -> Settings:
        """
        Read the settings that the options name, or take those of the application.

        Args:
            preferred: A profile that is chosen where it is declared and no other one is asked for.
        """
        if self.application is not None:
            return self.application.settings
        if preferred is None or self.profile is not None or os.environ.get("STILLROOM_PROFILE"):
            return Settings.load(self.config, profile=self.profile)
        try:
            return Settings.load(self.config, profile=preferred)
        except SettingsError as error:
            plain = Settings.load(self.config)  # raises what is wrong without the profile
            if error.path != f"profiles.{preferred}":
                raise
            return plain

    @contextmanager
    def databases(self, *, preferred: str | None = None) -> Iterator[Databases]:
        """
        Give the databases that the options name, and close them afterwards; those of the application stay as they are.

        Args:
            preferred: As for `settings`.
        """
        if self.application is not None:
            yield self.application
            return
        databases = Databases(self.settings(preferred=preferred))
        try:
            yield databases
        finally:
            databases.close()


as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")


def command(*options: Callable[[Any], Any]) -> Callable[[Callable[..., None]], click.Command]:
    """
    Make a command of a function that takes the common options first; its errors are explained.

    Args:
        *options: click's decorators for the other parameters.
    """

    def decorate(function: Callable[..., None]) -> click.Command:
        def run(context: click.Context, /, **values: Any) -> None:
            common: Common = context.obj
            with explained(debug=common.debug):
                function(common, **values)

        run.__name__, run.__doc__ = function.__name__, function.__doc__
        decorated: Callable[..., None] = click.pass_context(run)
        for option in reversed(options):
            decorated = option(decorated)
        return stillroom.command(function.__name__.replace("_", "-"))(decorated)

    return decorate


@click.group(cls=Sections, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--config", metavar="FILE", type=click.Path(path_type=Path), help="The settings' file; by default stillroom.toml."
)
@click.option("--profile", metavar="NAME", help="The profile of the settings, such as test.")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.version_option(package.__version__, package_name="stillroom", prog_name="stillroom")
@click.pass_context
def stillroom(context: click.Context, /, **common: Any) -> None:
    """
    Look after the databases of an application.

    Exit codes: 0 all is well; 1 something is off; 2 the usage, the settings or the data are wrong.
    """
    context.obj = Common(**common)
