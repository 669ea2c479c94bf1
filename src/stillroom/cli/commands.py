"""The commands and their options."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stillroom import ServerStatus
from stillroom.cli import drawing, linting, loading, making, migrating, prompt, show
from stillroom.cli.base import Common, as_json, command, stillroom
from stillroom.cli.problems import OFF
from stillroom.secrets import mask_url

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stillroom import Database

__all__ = ["Common", "drawing", "linting", "loading", "making", "migrating", "prompt", "stillroom"]


@command(as_json)
def ping(common: Common, *, as_json: bool) -> None:
    """
    Ask each server for a sign of life. Exit with 1 if one is down.

    A file of SQLite that is missing is not made.
    """
    with common.databases() as databases:
        servers = [server for name in databases for server in _ping(databases[name])]
    if as_json:
        show.print_json(servers)
    else:
        show.show_servers(servers)
    if not all(server.ok for server in servers):
        sys.exit(OFF)


def _ping(database: Database) -> list[ServerStatus]:
    """
    Ask the servers of a database; SQLite would make a missing file to answer, and a misspelt path would pass.
    """
    if database.backend.name != "sqlite" or database.exists():
        return database.ping()
    error = f"there is no such file; `stillroom create {database.name}` makes it"
    return [ServerStatus(database.name, "writer", mask_url(database.settings.url), ok=False, seconds=0.0, error=error)]


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
    """Settle what a crash during a two-phase commit left in doubt. Exit with 1 if something stays so."""
    with common.databases() as databases:
        found = databases.recover(min_age=min_age, dry_run=dry_run)
    if as_json:
        show.print_json(found)
    else:
        show.show_recovered(found)
    if any(each.outcome == "left" for each in found):
        sys.exit(OFF)


@command(
    click.option(
        "-c",
        "lines",
        multiple=True,
        metavar="LINE",
        help="Run a line, and show what its expressions give. May be given several times.",
    )
)
def shell(common: Common, *, lines: Sequence[str]) -> None:
    """
    Open a Python shell with dbs, uow and the models.

    It is IPython where that is installed. The unit of work uow is committed by uow.commit(); the end rolls it back.
    The profile "shell" is chosen where it is declared and no other one is asked for.
    """
    from stillroom.cli import interactive

    with common.databases(preferred="shell") as databases:
        interactive.run(databases, lines)


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
    """Run a music shop over three databases, and check its books. Exit with 1 if they are off."""
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
