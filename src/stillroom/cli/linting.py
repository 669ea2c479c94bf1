"""The command that finds what is dangerous in revisions; the work is done by `stillroom.migrations`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Literal

import click

from stillroom.cli import show
from stillroom.cli.base import Common, command
from stillroom.cli.problems import OFF

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stillroom.migrations import Hazard, TracedStatement

__all__: list[str] = []

_LEVELS = {"error": "error", "warning": "warning", "style": "notice"}
"""What GitHub calls our severities."""


@command(
    click.argument("database", required=False),
    click.option("--all", "every", is_flag=True, help="All revisions, not only those that the database does not have."),
    click.option("--since", metavar="ID", help="Only revisions after this one, whatever the database has."),
    click.option(
        "--format",
        "form",
        type=click.Choice(["text", "json", "github"]),
        default="text",
        show_default=True,
        help="github writes annotations of a pull request.",
    ),
    click.option("--strict", is_flag=True, help="Exit with 1 on warnings too."),
    click.option(
        "--trace", "traced", is_flag=True, help="Also run them in a throwaway database, and measure (PostgreSQL)."
    ),
)
def lint(
    common: Common,
    *,
    database: str | None,
    every: bool,
    since: str | None,
    form: Literal["text", "json", "github"],
    strict: bool,
    traced: bool,
) -> None:
    """
    Find locks, rewrites, scans and losses in revisions. Exit with 1 if there are errors.

    upgrade() of each runs without a database, which is only asked what it has; if it does not answer, all revisions are
    looked at. Waive a rule by the comment `# stillroom: allow RULE -- reason` at the operation.
    """
    from stillroom import migrations as run

    with common.databases() as databases:
        which: Literal["all", "pending"] = "all" if every else "pending"
        hazards = run.lint(databases, database, revisions=which, since=since)
        statements = run.trace(databases, database, revisions=which, since=since) if traced else None
    if form == "json":
        show.print_json({"hazards": hazards, "statements": statements})
    elif form == "github":
        for line in _annotations(hazards, statements or ()):
            click.echo(line)
    else:
        _show_text(hazards)
        if statements is not None:
            _show_statements(statements)
    failing = {"error", "warning"} if strict else {"error"}
    if any(each.severity in failing for each in hazards):
        sys.exit(OFF)


def _show_text(hazards: Sequence[Hazard]) -> None:
    for each in hazards:
        click.echo(f"{each.path}:{each.line}: {each.severity}: {each.rule}: {each.what}")
        click.echo(f"    {each.reason}.\n    Instead: {each.remedy}.")
    counts = {name: sum(each.severity == name for each in hazards) for name in _LEVELS}
    click.echo(f"{counts['error']} error(s), {counts['warning']} warning(s), {counts['style']} of style")


def _show_statements(statements: Sequence[TracedStatement]) -> None:
    rows = [
        (
            f"{each.path}:{each.line}",
            each.sql,
            "not known" if each.locks is None else "\n".join(f"{lock.mode} {lock.relation}" for lock in each.locks),
            "\n".join(each.rewritten),
            "not known" if each.scanned is None else "\n".join(each.scanned),
            "\n".join(each.indexes),
        )
        for each in statements
    ]
    show.show_rows(("where", "statement", "locks", "written anew", "scanned", "indexes built"), rows)


def _annotations(hazards: Sequence[Hazard], statements: Sequence[TracedStatement]) -> list[str]:
    found = [
        _annotation(_LEVELS[each.severity], each, each.rule, f"{each.what}: {each.reason}. Instead: {each.remedy}")
        for each in hazards
    ]
    for statement in statements:
        did = [
            *(f"{lock.mode} on {lock.relation}" for lock in statement.locks or () if lock.strength > 1),
            *(f"wrote {name} anew" for name in statement.rewritten),
            *(f"scanned {name}" for name in statement.scanned or ()),
        ]
        if did:
            found.append(_annotation("notice", statement, "measured", f"{statement.sql}: {', '.join(did)}"))
    return found


def _annotation(level: str, at: Hazard | TracedStatement, title: str, text: str) -> str:
    """
    Write a workflow command: see "Setting a warning message" in GitHub's reference of workflow commands.
    """
    return f"::{level} file={_escaped(at.path, ':,')},line={at.line},title={_escaped(title, ':,')}::{_escaped(text)}"


def _escaped(text: str, more: str = "") -> str:
    text = text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    for letter in more:
        text = text.replace(letter, f"%{ord(letter):02X}")
    return text
