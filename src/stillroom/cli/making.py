"""The commands that create and drop databases themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from stillroom.cli import show
from stillroom.cli.base import Common, as_json, command
from stillroom.secrets import mask_url

if TYPE_CHECKING:
    from stillroom import Database, Databases

__all__: list[str] = []

one_or_all = click.argument("database", required=False)
yes = click.option("--yes", is_flag=True, help="Do not ask.")


@command(one_or_all, as_json)
def create(common: Common, *, database: str | None, as_json: bool) -> None:
    """Create one database, or all. One that is there is left as it is."""
    done = []
    with common.databases() as databases:
        for each in _chosen(databases, database):
            there = each.exists()
            each.create()
            done.append((each, "was there" if there else "created"))
    _tell(done, as_json=as_json)


@command(one_or_all, yes, as_json)
def drop(common: Common, *, database: str | None, yes: bool, as_json: bool) -> None:
    """Drop one database, or all, with everything in it. Only where the settings say `disposable = true`."""
    done = []
    with common.databases() as databases:
        chosen = _chosen(databases, database)
        _ask(chosen, "drop", yes=yes)
        for each in reversed(chosen):
            there = each.exists()
            each.drop()
            done.append((each, "dropped" if there else "was not there"))
    _tell(done, as_json=as_json)


@command(one_or_all, yes, as_json)
def recreate(common: Common, *, database: str | None, yes: bool, as_json: bool) -> None:
    """Drop one database, or all, and create it anew, empty. Only where the settings say `disposable = true`."""
    done = []
    with common.databases() as databases:
        chosen = _chosen(databases, database)
        _ask(chosen, "drop and create anew", yes=yes)
        for each in chosen:
            each.recreate()
            done.append((each, "created anew"))
    _tell(done, as_json=as_json)


def _chosen(databases: Databases, name: str | None) -> list[Database]:
    return [databases[each] for each in ([name] if name is not None else databases)]


def _ask(chosen: list[Database], what: str, *, yes: bool) -> None:
    for each in chosen:
        each.require_disposable(what)
    if not yes:
        targets = "\n".join(f"  {each.name}: {mask_url(each.settings.url)}" for each in chosen)
        click.confirm(f"This is going to {what}:\n{targets}\nIs that what you want?", abort=True, err=True)


def _tell(done: list[tuple[Database, str]], *, as_json: bool) -> None:
    rows: list[dict[str, Any]] = [
        {"database": each.name, "url": mask_url(each.settings.url), "outcome": outcome} for each, outcome in done
    ]
    if as_json:
        show.print_json(rows)
    else:
        show.show_rows(
            ("database", "where", "outcome"), [(row["database"], row["url"], row["outcome"]) for row in rows]
        )
