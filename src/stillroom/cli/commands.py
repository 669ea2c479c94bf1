"""The commands and their options."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import stillroom as package
from stillroom import Databases, Settings
from stillroom.cli import show
from stillroom.cli.problems import OFF, explained

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["stillroom"]


@dataclass(frozen=True)
class Common:
    """
    The options that all commands have.
    """

    config: Path | None = None
    profile: str | None = None
    debug: bool = False

    def settings(self) -> Settings:
        """
        Read the settings that the options name.
        """
        return Settings.load(self.config, profile=self.profile)

    @contextmanager
    def databases(self) -> Iterator[Databases]:
        """
        Give the databases that the options name, and close them afterwards.
        """
        databases = Databases(self.settings())
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
        return stillroom.command(function.__name__)(decorated)

    return decorate


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--config", type=click.Path(path_type=Path), help="The settings' file; by default stillroom.toml.")
@click.option("--profile", help="The profile of the settings, such as test.")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.version_option(package.__version__, package_name="stillroom", prog_name="stillroom")
@click.pass_context
def stillroom(context: click.Context, /, **common: Any) -> None:
    """
    Look after the databases of an application.

    Exit codes: 0 all is well; 1 something is off; 2 the usage or the settings are wrong.
    """
    context.obj = Common(**common)


@command(as_json)
def ping(common: Common, *, as_json: bool) -> None:
    """Ask each server for a sign of life; exit with 1 if one is down."""
    with common.databases() as databases:
        servers = databases.ping()
    if as_json:
        show.print_json(servers)
    else:
        show.show_servers(servers)
    if not all(server.ok for server in servers):
        sys.exit(OFF)


@command(as_json)
def status(common: Common, *, as_json: bool) -> None:
    """Show the settings in force, without secrets. Nothing is connected to."""
    settings = common.settings()
    if as_json:
        show.print_json(settings.to_dict())
    else:
        show.show_settings(settings)


@command(
    click.option(
        "--min-age",
        type=click.FloatRange(min=0),
        default=60.0,
        show_default=True,
        help="Leave younger transactions alone, in seconds: their unit of work may still be at it.",
    ),
    click.option("--dry-run", is_flag=True, help="Only list them."),
    as_json,
)
def recover(common: Common, *, min_age: float, dry_run: bool, as_json: bool) -> None:
    """Settle what a crash during a two-phase commit left in doubt; exit with 1 if something stays so."""
    with common.databases() as databases:
        found = databases.recover(min_age=min_age, dry_run=dry_run)
    if as_json:
        show.print_json(found)
    else:
        show.show_recovered(found)
    if any(each.outcome == "left" for each in found):
        sys.exit(OFF)


def _urls(context: click.Context, parameter: click.Parameter, given: Sequence[str]) -> dict[str, str]:
    urls = {}
    for text in given:
        name, equals, url = text.partition("=")
        if not equals or not name or not url:
            # The text itself is not shown: it may hold a password.
            raise click.BadParameter("write NAME=URL, such as catalog=postgresql://user@host/name")
        urls[name] = url
    return urls


@command(
    click.option("--data", type=click.Path(path_type=Path), help="A data set in the form of the Chinook database."),
    click.option(
        "--url",
        "urls",
        multiple=True,
        metavar="NAME=URL",
        callback=_urls,
        help="Where catalog, sales or log is, instead of an SQLite file. An empty database, or one of an earlier run.",
    ),
    click.option("--orders", type=click.IntRange(min=1), default=400, show_default=True, help="How many to place."),
    click.option("--processes", type=click.IntRange(1, 64), default=4, show_default=True, help="How many at a time."),
    click.option("--keep", type=click.Path(path_type=Path), help="A directory for the SQLite files, which then stay."),
    as_json,
)
def demo(common: Common, *, as_json: bool, **options: Any) -> None:
    """Run a music shop over three databases, and check its books; exit with 1 if they are off."""
    from stillroom.cli.progress import progress_bars
    from stillroom.demo import Options, run
    from stillroom.demo.report import show as show_report

    with progress_bars(show.console(stderr=True)) as progress:
        report = run(Options(**options), progress)
    if as_json:
        show.print_json(report.to_dict())
    else:
        show_report(report, show.console())
    if not report.ok:
        sys.exit(OFF)
