"""
What a benchmark answers: plain tables for people, and figures with the bar that each has to meet.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .measuring import Measured


@dataclass(frozen=True)
class Scale:
    """
    How much to run: everything, or just enough to see that it runs.
    """

    quick: bool = False

    def pick(self, full: int, quick: int) -> int:
        """
        Return `full`, or `quick` in a quick run.
        """
        return quick if self.quick else full


@dataclass(frozen=True)
class Figure:
    """
    One figure that has a bar.

    Attributes:
        name: what was measured, against what.
        value: the figure.
        bar: what it is compared with.
        sense: the figure is to be "at most" or "at least" the bar.
    """

    name: str
    value: float
    bar: float
    sense: Literal["at most", "at least"] = "at most"

    @property
    def met(self) -> bool:
        """
        Whether the figure, as printed with two decimals, meets its bar.
        """
        value = round(self.value, 2)
        return value <= self.bar if self.sense == "at most" else value >= self.bar

    def __str__(self) -> str:
        return f"{self.name}: {self.value:.2f} ({self.sense} {self.bar:g}) {'met' if self.met else 'missed'}"


@dataclass(frozen=True)
class Table:
    """
    Rows of the same columns under a title.
    """

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[object, ...]]

    def __str__(self) -> str:
        cells = [self.columns, *(tuple(_text(value) for value in row) for row in self.rows)]
        widths = [max(len(row[position]) for row in cells) for position in range(len(self.columns))]
        lines = [
            "  ".join(
                # Names to the left, figures to the right.
                cell.ljust(width) if position == 0 else cell.rjust(width)
                for position, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in cells
        ]
        return "\n".join([self.title, lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


@dataclass
class Result:
    """
    All that one benchmark found out.

    Attributes:
        tables: for people.
        figures: with bars.
        notes: what could not be measured, and why.
    """

    tables: list[Table] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        parts = [*map(str, self.tables), "\n".join([*map(str, self.figures), *self.notes])]
        return "\n\n".join(part for part in parts if part)

    def as_json(self) -> dict[str, Any]:
        """
        Return everything in terms of JSON.
        """
        return {
            "tables": [asdict(table) for table in self.tables],
            "figures": [asdict(figure) | {"met": figure.met} for figure in self.figures],
            "notes": self.notes,
        }


def costs(title: str, measured: Sequence[Measured]) -> Table:
    """
    Make the table of what each way cost in CPU and on the clock.
    """
    return Table(
        f"{title} (ratios to the first line; +-: half of the rounds lie within)",
        ("way", "CPU", "+-", "wall", "CPU us", "wall us"),
        [
            (
                each.name,
                each.cpu,
                each.spread / 2,
                each.wall,
                round(each.cpu_microseconds),
                round(each.wall_microseconds),
            )
            for each in measured
        ],
    )


def _text(value: object) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)
