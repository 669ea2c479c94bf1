"""Draws the tables of a database and their references, without a program that lays out graphs."""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING

from sqlalchemy.dialects import registry

if TYPE_CHECKING:
    from sqlalchemy import Column, MetaData, Table

__all__ = ["Box", "Diagram", "Field", "Line", "as_dot", "as_mermaid", "as_svg", "diagram"]

CHARACTER, ROW, HEAD, PADDING = 7.3, 20, 28, 10
"""Of a box, in pixels: the width of a character, the height of a row and of the title, the room at the sides."""
ACROSS, BETWEEN, MARGIN = 90, 28, 24
"""Between the columns of boxes, between the boxes of one, and around all, in pixels."""
WIDEST = 26
"""Characters of a type that are shown."""


@dataclass(frozen=True)
class Field:
    """
    A column of a table: its name and type, whether it is part of the key, refers to another table, and may be null.
    """

    name: str
    type: str
    primary: bool = False
    foreign: bool = False
    optional: bool = False


@dataclass
class Box:
    """
    A table, and where it is drawn.
    """

    name: str
    fields: tuple[Field, ...]
    x: float = 0.0
    y: float = 0.0
    width: float = 0.0
    height: float = 0.0

    def row(self, name: str) -> float:
        """
        Return the middle of a field's row.
        """
        position = next(at for at, each in enumerate(self.fields) if each.name == name)
        return self.y + HEAD + ROW * position + ROW / 2


@dataclass(frozen=True)
class Line:
    """
    A reference: rows of `child` refer to one of `parent`, or at most one where it may be null; `single`: only one does.
    """

    child: str
    field: str
    parent: str
    target: str
    optional: bool = False
    single: bool = False


@dataclass
class Diagram:
    """
    The tables of a database, and what refers to what.
    """

    title: str
    boxes: dict[str, Box] = field(default_factory=dict)
    lines: list[Line] = field(default_factory=list)


def diagram(title: str, metadata: MetaData, dialect: str = "postgresql") -> Diagram:
    """
    Collect the tables of a database's models.

    Args:
        title: The name of the database.
        metadata: Its models' metadata.
        dialect: In whose words types are written.
    """
    found = Diagram(title)
    for name, table in sorted((str(name), table) for name, table in metadata.tables.items()):
        fields = tuple(_field(column, dialect) for column in table.columns)
        found.boxes[name] = Box(name, fields)
        for column in table.columns:
            for key in sorted(column.foreign_keys, key=lambda each: each.target_fullname):
                parent, _, target = key.target_fullname.rpartition(".")
                if parent in metadata.tables:
                    found.lines.append(
                        Line(name, str(column.name), parent, target, bool(column.nullable), _is_single(table, column))
                    )
    return found


def _field(column: Column[object], dialect: str) -> Field:
    try:
        text = column.type.compile(registry.load(dialect)())
    except Exception:  # noqa: BLE001  # a type that another backend has is drawn all the same
        text = type(column.type).__name__
    short = text if len(text) <= WIDEST else f"{text[: WIDEST - 1]}…"
    return Field(str(column.name), short.lower(), column.primary_key, bool(column.foreign_keys), bool(column.nullable))


def _is_single(table: Table, column: Column[object]) -> bool:
    return bool(column.unique) or list(table.primary_key.columns) == [column]


# --- as text for other programs


def as_mermaid(found: Diagram) -> str:
    """
    Write a diagram in Mermaid's language, which GitHub and many editors draw.
    """
    lines = ["erDiagram"]
    for box in found.boxes.values():
        lines.append(f"    {_word(box.name)} {{")
        for each in box.fields:
            keys = ", ".join(key for key, has in (("PK", each.primary), ("FK", each.foreign)) if has)
            lines.append(f"        {_word(each.type)} {_word(each.name)}{f' {keys}' if keys else ''}")
        lines.append("    }")
    for line in found.lines:
        one, many = "|o" if line.optional else "||", "o|" if line.single else "o{"
        lines.append(f"    {_word(line.parent)} {one}--{many} {_word(line.child)} : {_word(line.field)}")
    return "\n".join(lines) + "\n"


def _word(text: str) -> str:
    return "".join(each if each.isalnum() else "_" for each in text).strip("_") or "_"


def as_dot(found: Diagram) -> str:
    """
    Write a diagram in the language of Graphviz.
    """
    lines = [f"digraph {_quoted(found.title)} {{", "  rankdir=RL; node [shape=plain, fontname=monospace];"]
    for box in found.boxes.values():
        rows = [f'<tr><td colspan="2" bgcolor="#dbe7f3"><b>{escape(box.name)}</b></td></tr>']
        for each in box.fields:
            name = f"<b>{escape(each.name)}</b>" if each.primary else escape(each.name)
            port = escape(each.name, quote=True)
            rows.append(f'<tr><td align="left" port="{port}">{name}</td><td align="left">{escape(each.type)}</td></tr>')
        table = f'<table border="0" cellborder="1" cellspacing="0" cellpadding="4">{"".join(rows)}</table>'
        lines.append(f"  {_quoted(box.name)} [label=<{table}>];")
    for line in found.lines:
        tail = "tee" if line.single else "crow"
        head = "teeodot" if line.optional else "tee"
        ends = f"{_quoted(line.child)}:{_quoted(line.field)} -> {_quoted(line.parent)}:{_quoted(line.target)}"
        lines.append(f"  {ends} [dir=both, arrowtail={tail}, arrowhead={head}];")
    return "\n".join([*lines, "}"]) + "\n"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


# --- as a picture

_STYLE = """
text { font: 12px ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; fill: #24292f }
.title { font-weight: 700; font-size: 13px } .type, .mark { fill: #6e7781 }
.mark { font-size: 9px } .key { font-weight: 700 }
.box { fill: #ffffff; stroke: #8c959f } .head { fill: #dbe7f3; stroke: #8c959f } .stripe { fill: #f6f8fa }
.line { fill: none; stroke: #57606a; stroke-width: 1.3 } .end { fill: #ffffff; stroke: #57606a; stroke-width: 1.3 }
"""


def as_svg(found: Diagram) -> str:
    """
    Draw a diagram: a table stands to the right of those that it refers to, with a crow's foot where there are many.
    """
    width, height = _lay_out(found)
    size = f'width="{width:.0f}" height="{height:.0f}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} viewBox="0 0 {width:.0f} {height:.0f}" role="img">',
        f"<title>{escape(found.title)}</title><style>{_STYLE}</style>",
        f'<rect {size} fill="#ffffff"/>',
    ]
    parts += [_drawn_line(found, line) for line in found.lines]
    parts += [_drawn_box(box) for box in found.boxes.values()]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _lay_out(found: Diagram) -> tuple[float, float]:
    """
    Give each box its place.

    Returns:
        Width and height of all.
    """
    for box in found.boxes.values():
        widest = max(len(each.name) + len(each.type) for each in box.fields) if box.fields else 0
        box.width = max(len(box.name) * (CHARACTER + 1), widest * CHARACTER + 50) + 2 * PADDING
        box.height = HEAD + ROW * len(box.fields) + 4
    columns = _ordered(found, _columns(found))
    tallest = max((sum(found.boxes[name].height + BETWEEN for name in names) for names in columns), default=0)
    x = float(MARGIN)
    for names in columns:
        y = MARGIN + (tallest - sum(found.boxes[name].height + BETWEEN for name in names)) / 2
        for name in names:
            found.boxes[name].x, found.boxes[name].y = x, y
            y += found.boxes[name].height + BETWEEN
        x += max(found.boxes[name].width for name in names) + ACROSS
    return max(x - ACROSS + 2 * MARGIN, 2 * MARGIN), tallest + 2 * MARGIN


def _columns(found: Diagram) -> list[list[str]]:
    """
    Put each table one column to the right of the farthest that it refers to; circles are cut where they close.
    """
    depth: dict[str, int] = {}

    def of(name: str, above: frozenset[str]) -> int:
        if name not in depth:
            parents = {line.parent for line in found.lines if line.child == name} - above - {name}
            depth[name] = max((of(each, above | {name}) + 1 for each in sorted(parents)), default=0)
        return depth[name]

    for name in found.boxes:
        of(name, frozenset())
    for name in sorted(depth, key=lambda each: -depth[each]):  # then as near as can be to those that refer to it
        children = [
            depth[line.child] for line in found.lines if line.parent == name and depth[line.child] > depth[name]
        ]
        depth[name] = max(depth[name], min(children) - 1) if children else depth[name]
    alone = {name for name in found.boxes if not any(name in (line.child, line.parent) for line in found.lines)}
    columns: list[list[str]] = [[] for _ in range(max(depth.values(), default=0) + 1)]
    for name in found.boxes:
        if name not in alone:
            columns[depth[name]].append(name)
    for name in sorted(alone):  # what refers to nothing fills up where there is room
        shortest = min(columns, key=lambda names: sum(found.boxes[each].height for each in names))
        shortest.append(name)
    return [names for names in columns if names]


def _ordered(found: Diagram, columns: list[list[str]]) -> list[list[str]]:
    """
    Order each column so that lines cross little: each table near the middle of those it is tied to.
    """
    place = {name: at / max(len(names), 1) for names in columns for at, name in enumerate(names)}
    tied: dict[str, list[str]] = {name: [] for name in found.boxes}
    for line in found.lines:
        tied[line.child].append(line.parent)
        tied[line.parent].append(line.child)
    for _ in range(8):
        for names in columns:
            middle = {
                name: sum(place[each] for each in tied[name]) / len(tied[name]) if tied[name] else place[name]
                for name in names
            }
            names.sort(key=lambda name: (middle[name], name))
            place |= {name: (at + 0.5) / len(names) for at, name in enumerate(names)}
    return columns


def _drawn_box(box: Box) -> str:
    size = f'width="{box.width:.1f}" height="{box.height:.1f}"'
    head = f"M{box.x:.1f},{box.y + HEAD:.1f} v-{HEAD - 5} q0,-5 5,-5 h{box.width - 10:.1f} q5,0 5,5 v{HEAD - 5} z"
    parts = [
        f'<g><rect class="box" x="{box.x:.1f}" y="{box.y:.1f}" {size} rx="5"/>',
        f'<path class="head" d="{head}"/>',
        f'<text class="title" x="{box.x + PADDING:.1f}" y="{box.y + 19:.1f}">{escape(box.name)}</text>',
    ]
    for at, each in enumerate(box.fields):
        top, right = box.y + HEAD + ROW * at, box.x + box.width - PADDING
        if at % 2:
            parts.append(
                f'<rect class="stripe" x="{box.x + 1:.1f}" y="{top:.1f}" width="{box.width - 2:.1f}" height="{ROW}"/>'
            )
        mark = "PK" if each.primary else "FK" if each.foreign else ""
        name = f'<tspan class="key">{escape(each.name)}</tspan>' if each.primary else escape(each.name)
        kind = f"{escape(each.type)}{'?' if each.optional else ''}"
        parts += [
            f'<text class="mark" x="{box.x + PADDING:.1f}" y="{top + 14:.1f}">{mark}</text>',
            f'<text x="{box.x + PADDING + 20:.1f}" y="{top + 14:.1f}">{name}</text>',
            f'<text class="type" text-anchor="end" x="{right:.1f}" y="{top + 14:.1f}">{kind}</text>',
        ]
    return "".join([*parts, "</g>"])


def _drawn_line(found: Diagram, line: Line) -> str:
    child, parent = found.boxes[line.child], found.boxes[line.parent]
    start, end = child.row(line.field), parent.row(line.target) if _has(parent, line.target) else parent.y + HEAD / 2
    if parent.x + parent.width < child.x:  # the parent is to the left
        left, right, to_left, to_right = child.x, parent.x + parent.width, -1, 1
    elif child.x + child.width < parent.x:
        left, right, to_left, to_right = child.x + child.width, parent.x, 1, -1
    else:  # in the same column, or itself: around the right side
        left, right, to_left, to_right = child.x + child.width, parent.x + parent.width, 1, 1
    bend = max(abs(left - right) / 2, 40.0)
    path = (
        f"M{left + 12 * to_left:.1f},{start:.1f} C{left + (12 + bend) * to_left:.1f},{start:.1f} "
        f"{right + (12 + bend) * to_right:.1f},{end:.1f} {right + 12 * to_right:.1f},{end:.1f}"
    )
    return f'<path class="line" d="{path}"/>{_many(left, start, to_left, line)}{_one(right, end, to_right, line)}'


def _has(box: Box, name: str) -> bool:
    return any(each.name == name for each in box.fields)


def _many(x: float, y: float, side: int, line: Line) -> str:
    """
    Draw the end at the table that refers: a crow's foot, or a bar where there is one row at most.
    """
    tip, far = x, x + 12 * side
    if line.single:
        return f'<path class="line" d="M{tip:.1f},{y:.1f} H{far:.1f} M{x + 7 * side:.1f},{y - 5:.1f} v10"/>'
    foot = f"M{tip:.1f},{y - 6:.1f} L{far:.1f},{y:.1f} L{tip:.1f},{y + 6:.1f} M{tip:.1f},{y:.1f} H{far:.1f}"
    return f'<path class="line" d="{foot}"/>'


def _one(x: float, y: float, side: int, line: Line) -> str:
    """
    Draw the end at the table that is referred to: a bar for one row, with a ring where there may be none.
    """
    bar = f'<path class="line" d="M{x:.1f},{y:.1f} H{x + 12 * side:.1f} M{x + 5 * side:.1f},{y - 5:.1f} v10"/>'
    ring = f'<circle class="end" cx="{x + 10 * side:.1f}" cy="{y:.1f}" r="3"/>' if line.optional else ""
    return bar + ring
