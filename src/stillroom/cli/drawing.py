"""The command that draws the models."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from stillroom import SettingsError
from stillroom.cli import show
from stillroom.cli.base import Common, as_json, command
from stillroom.cli.diagram import Diagram, as_dot, as_mermaid, as_svg, diagram

__all__: list[str] = []

FORMATS = {"svg": as_svg, "mermaid": as_mermaid, "dot": as_dot}
ENDINGS = {".svg": "svg", ".mmd": "mermaid", ".mermaid": "mermaid", ".dot": "dot", ".gv": "dot"}


@command(
    click.argument("database", required=False),
    click.option("--format", "kind", type=click.Choice([*FORMATS]), help="By default as FILE ends, else svg."),
    click.option(
        "-o",
        "--output",
        metavar="FILE",
        type=click.Path(path_type=Path, dir_okay=False),
        help="A file, instead of printing it.",
    ),
    as_json,
)
def erd(common: Common, *, database: str | None, kind: str | None, output: Path | None, as_json: bool) -> None:
    """
    Draw the models of a database. Where none is named, it is the default one.

    A picture of tables, keys and references needs no other program. Mermaid is text that GitHub draws, dot is the
    language of Graphviz.
    """
    drawn = FORMATS[kind or _ending(output)]
    with common.databases() as databases:
        chosen = databases.default if database is None else databases[database]
        if not chosen.metadata.tables:
            raise SettingsError(
                f"databases.{chosen.name}.metadata: the database has no models to draw; name them, such as "
                '"shop.models:Base"',
                path=f"databases.{chosen.name}.metadata",
            )
        found = diagram(chosen.name, chosen.metadata, chosen.settings.url.get_backend_name())
    if as_json:
        show.print_json(_plain(found))
        return
    text = drawn(found)
    if output is None:
        click.echo(text, nl=False)
    else:
        output.write_text(text, encoding="utf-8")
        click.echo(f"wrote {output}")


def _ending(output: Path | None) -> str:
    if output is None:
        return "svg"
    if (kind := ENDINGS.get(output.suffix.lower())) is None:
        raise click.UsageError(f"{output.name!r} does not tell the format: name it, --format {', '.join(FORMATS)}")
    return kind


def _plain(found: Diagram) -> dict[str, object]:
    return {
        "database": found.title,
        "tables": [
            {"name": box.name, "columns": [asdict(each) for each in box.fields]} for box in found.boxes.values()
        ],
        "references": [asdict(line) for line in found.lines],
    }
