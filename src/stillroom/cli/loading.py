"""The commands that bring data in and out."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stillroom.cli import show
from stillroom.cli.base import Common, as_json, command

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stillroom.data import Loaded

__all__ = ["dump", "load"]


def _columns(context: click.Context, parameter: click.Parameter, given: str | None) -> list[str] | None:
    return None if given is None else [each.strip() for each in given.split(",") if each.strip()]


@command(
    click.argument("files", nargs=-1, required=True, metavar="FILE...", type=click.Path(path_type=Path, exists=True)),
    click.option("--database", metavar="NAME", help="The database of all rows; by default as the files say."),
    click.option("--model", metavar="NAME", help="The model, or the table, of all rows; by default as the files say."),
    click.option("--key", metavar="COLUMNS", callback=_columns, help="What says whether a row is there: a,b."),
    click.option("--dry-run", is_flag=True, help="Do it, and roll it back."),
    click.option("--once", metavar="KEY", help="Only if nothing of this name was ever loaded here."),
    click.option("--wait", type=click.FloatRange(min=0), default=300.0, show_default=True, help="For another load, s."),
    as_json,
)
def load(common: Common, *, files: Sequence[Path], once: str | None, as_json: bool, **options: Any) -> None:
    """
    Load files of data or directories: all rows, or none.

    They are CSV, JSON, JSON lines, YAML, Parquet or Arrow. New rows are inserted, those that differ are updated, the
    others are left alone; loading twice is loading once. The name of a file tells its model: main.Artist.csv,
    Artist.csv, main/Artist.csv; or it has lists by such names.
    """
    from stillroom import data
    from stillroom.cli.progress import progress_bars

    if once is not None and options["dry_run"]:
        raise click.UsageError("--once writes down that it was done, and --dry-run does nothing: choose one")
    loaded: list[Loaded] = []
    ran = True
    with common.databases() as databases, progress_bars(show.console(stderr=True)) as progress:

        def work(_: object = None) -> None:
            loaded[:] = data.load(databases, *files, progress=progress, **options)

        if once is None:
            work()
        else:
            ran = data.once(databases, once, work, database=options["database"], wait=options["wait"])
    if as_json:
        show.print_json(loaded)
    elif not ran:
        click.echo(f"{once!r} was done before; nothing was loaded.")
    else:
        rows = [
            (each.database, each.model, *map(str, (each.rows, each.inserted, each.updated, each.unchanged)))
            for each in loaded
        ]
        show.show_rows(("database", "model", "rows", "inserted", "updated", "unchanged"), rows)
        if options["dry_run"]:
            click.echo("All of it was rolled back: this was a dry run.")


@command(
    click.argument("target", metavar="DIRECTORY|-", type=click.Path(path_type=Path, file_okay=False, allow_dash=True)),
    click.option("--database", metavar="NAME", help="One database; by default all."),
    click.option(
        "--model", "models", multiple=True, metavar="NAME", help="A model or table; by default all. May be given again."
    ),
    click.option(
        "--format",
        "format_",
        type=click.Choice(["csv", "json", "jsonl", "yaml", "parquet"]),
        help="By default csv, and json for the standard output.",
    ),
    as_json,
)
def dump(
    common: Common,
    *,
    target: Path,
    database: str | None,
    models: Sequence[str],
    format_: Any,
    as_json: bool,
) -> None:
    """Write the rows of databases to files that `load` takes. - is the standard output."""
    from stillroom import data
    from stillroom.cli.progress import progress_bars

    is_stream = str(target) == "-"
    with common.databases() as databases, progress_bars(show.console(stderr=True)) as progress:
        dumped = data.dump(
            databases,
            sys.stdout.buffer if is_stream else target,
            database=database,
            models=models or None,
            format=format_ or ("json" if is_stream else "csv"),
            progress=progress,
        )
    if is_stream:
        return
    if as_json:
        show.print_json(dumped)
    else:
        show.show_rows(("database", "model", "rows", "file"), [_described(each) for each in dumped])


def _described(dumped: Any) -> tuple[str, str, str, str]:
    return dumped.database, dumped.model, str(dumped.rows), dumped.path or ""
