"""Prints what commands found: as tables for people, as JSON for programs."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click
import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stillroom import InDoubt, ServerStatus, Settings

__all__ = ["console", "print_json", "show_recovered", "show_rows", "show_servers", "show_settings"]


def console(*, stderr: bool = False) -> Console:
    """
    Make a console; where the output is no terminal, lines are not cut at 80 columns.
    """
    made = Console(stderr=stderr, highlight=False)
    return made if made.is_terminal else Console(stderr=stderr, highlight=False, width=160)


def print_json(value: Any) -> None:
    """
    Print plain values or dataclasses.
    """
    click.echo(msgspec.json.format(msgspec.json.encode(value)).decode())


def show_servers(servers: Sequence[ServerStatus]) -> None:
    """
    Print what each server answered.
    """
    table = _table("database", "role", "ok", "ms", "server", "kept from writing by", "where")
    for server in servers:
        table.add_row(
            server.database,
            server.role,
            "[green]ok[/green]" if server.ok else "[red]down[/red]",
            f"{1000 * server.seconds:.1f}",
            server.version + (" (standby)" if server.recovering else ""),
            server.read_only if server.ok and server.role == "reader" else "",
            server.url,
        )
    printer = console()
    printer.print(table)
    for server in servers:
        if server.error:
            printer.print(f"{server.database} ({server.role}) is down: {escape(server.error)}", soft_wrap=True)
        for gap in server.read_only_gaps if server.role == "reader" else ():
            printer.print(f"{server.database} (reader) is not kept from: {escape(gap)}", soft_wrap=True)


def show_settings(settings: Settings) -> None:
    """
    Print the settings in force, without secrets.
    """
    values = settings.to_dict()
    databases: Mapping[str, Mapping[str, Any]] = values.pop("databases")
    table = _table("key", "value")
    for key, value in values.items():
        table.add_row(key, "" if value is None else escape(str(value)))
    for name, each in databases.items():
        for key, value in each.items():
            table.add_row(f"databases.{name}.{key}", escape(str(value)))
    console().print(table)


def show_recovered(found: Sequence[InDoubt]) -> None:
    """
    Print the transactions that were in doubt, and what became of them.
    """
    if not found:
        console().print("No transaction is in doubt.")
        return
    table = _table("database", "transaction", "age s", "outcome", "reason")
    for each in found:
        row = asdict(each)
        table.add_row(row["database"], row["gid"], f"{each.age:.0f}", row["outcome"], escape(row["reason"]))
    console().print(table)


def show_rows(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """
    Print rows of plain text under their headings.
    """
    table = _table(*headings)
    for row in rows:
        table.add_row(*map(escape, row))
    console().print(table)


def _table(*headings: str) -> Table:
    table = Table()
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table
