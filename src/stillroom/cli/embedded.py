"""The commands as a part of an application's own command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from stillroom.cli.sections import Sections

if TYPE_CHECKING:
    from stillroom import Databases


class Commands(Sections):
    """
    The commands for the databases of an application.

    They are imported when one is asked for: a server has them on its command line too, and runs without them.

    Args:
        databases: The databases.
    """

    def __init__(self, databases: Databases) -> None:
        debug = click.Option(["--debug"], is_flag=True, help="Show the traceback of an error.")
        super().__init__(
            "stillroom",
            params=[debug],
            callback=click.pass_context(self._use),
            help="Look after the databases of this application.",
        )
        self.databases = databases

    def _use(self, context: click.Context, *, debug: bool) -> None:
        from stillroom.cli.commands import Common

        context.obj = Common(application=self.databases, debug=debug)

    def list_commands(self, context: click.Context) -> list[str]:
        return sorted(self._commands())

    def get_command(self, context: click.Context, cmd_name: str) -> click.Command | None:
        return self._commands().get(cmd_name)

    def _commands(self) -> dict[str, click.Command]:
        try:
            from stillroom.cli.commands import stillroom
        except ImportError as error:
            if (error.name or "").partition(".")[0] != "rich":
                raise
            raise click.UsageError('these commands need rich: pip install "stillroom[cli]"') from error
        of_settings = {"demo"}  # has databases of its own
        return {name: each for name, each in stillroom.commands.items() if name not in of_settings}
