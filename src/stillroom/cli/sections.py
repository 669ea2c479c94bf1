"""The list of commands in the help, by what they are about."""

from __future__ import annotations

import click

__all__ = ["OTHER", "SECTIONS", "Sections"]

SECTIONS = {
    "Databases": ("ping", "status", "create", "drop", "recreate", "wait", "sql", "erd", "recover"),
    "Migrations": (
        "init", "revision", "upgrade", "downgrade", "plan", "lint", "migrations", "check", "history",
        "merge", "squash", "stamp", "upgrade-sql", "schema-dump", "schema-load",
    ),
    "Data": ("load", "dump"),
}  # fmt: skip
"""The commands, in the order in which they are listed."""
OTHER = "Other"
"""The section of those that are in no other."""


class Sections(click.Group):
    """
    A group whose help lists its commands in sections.
    """

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        found = {name: self.get_command(ctx, name) for name in self.list_commands(ctx)}
        commands = {name: each for name, each in found.items() if each is not None and not each.hidden}
        widest = max(map(len, commands), default=0)
        placed = {name for names in SECTIONS.values() for name in names}
        others = tuple(name for name in commands if name not in placed)
        for title, names in {**SECTIONS, OTHER: others}.items():
            # Padded: each section would have columns of its own.
            rows = [
                (name.ljust(widest), commands[name].get_short_help_str(formatter.width - widest - 6))
                for name in names
                if name in commands
            ]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)
