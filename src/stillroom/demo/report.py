"""What a run of the demo came to: as values, and as tables for people."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, select

from stillroom.demo.models import LogLine
from stillroom.demo.shop import dbs

if TYPE_CHECKING:
    from rich.console import Console

    from stillroom import ServerStatus
    from stillroom.demo.check import Finding
    from stillroom.demo.recorder import Sent
    from stillroom.demo.workers import Trade

__all__ = ["Report", "count", "show"]


@dataclass(frozen=True)
class Report:
    """
    What a run of the demo came to.

    Attributes:
        databases: Name, URL without secrets and version of each server.
        on_multiple_writes: How the two databases were committed together.
        loaded: How many rows of each table the data set had.
        processes: How many served.
        seconds: How long they did.
        orders: How many requests were ordered, committed, failed, died; attempts, rolled back, retried, logged.
        failed: How many requests failed for each reason.
        recovered: Transactions that a dead process had left prepared, and that recovery ended.
        released: Reservations that a dead process had left without an order, and that were given back.
        checks: What the check of the books found.
        unit: What one unit of work sent, in order.
    """

    databases: list[dict[str, str]]
    on_multiple_writes: str
    loaded: dict[str, int]
    processes: int
    seconds: float
    orders: dict[str, int]
    failed: dict[str, int]
    recovered: int
    released: int
    checks: list[Finding]
    unit: list[Sent]

    @property
    def ok(self) -> bool:
        """
        Whether every check found the books in order.
        """
        return all(check.ok for check in self.checks)

    def to_dict(self) -> dict[str, Any]:
        """
        Write it as plain values.
        """
        return {"ok": self.ok, **asdict(self)}


def describe_servers(servers: list[ServerStatus]) -> list[dict[str, str]]:
    """
    Say where the databases are.
    """
    return [
        {"name": each.database, "url": each.url, "version": each.version} for each in servers if each.role == "writer"
    ]


def count(trade: Trade) -> dict[str, int]:
    """
    Count what became of the requests, from the answers and from the log.
    """
    with dbs.unit_of_work(read_only=True) as uow:
        log = uow.session("log", role="reader")
        rows = log.execute(select(LogLine.event, func.count()).group_by(LogLine.event))
        lines: dict[str, int] = dict(rows.all())
        tried = log.scalar(select(func.count(LogLine.request.distinct())).where(LogLine.event == "attempt")) or 0
    attempts = lines.get("attempt", 0)
    return {
        "ordered": len(trade.requests),
        "committed": len(trade.receipts),
        "failed": len(trade.failures),
        "died": len(trade.died),
        "attempts": attempts,
        "retried": attempts - tried,
        "rolled back": lines.get("rolled back", 0),
        "logged": sum(lines.values()),
    }


def count_reasons(trade: Trade) -> dict[str, int]:
    """
    Count the failures by their reason, the most frequent one first.
    """
    return dict(Counter(failure.reason for failure in trade.failures).most_common())


def show(report: Report, console: Console) -> None:
    """
    Print the report as tables.
    """
    from rich.markup import escape
    from rich.table import Table

    where = Table(title="Databases", title_justify="left")
    for heading in ("name", "server", "where"):
        where.add_column(heading, overflow="fold")
    for each in report.databases:
        where.add_row(each["name"], each["version"], escape(each["url"]))
    console.print(where)

    orders = Table(title=f"{report.processes} processes, {report.seconds:.1f} s", title_justify="left")
    orders.add_column("requests")
    orders.add_column("", justify="right")
    for name, number in report.orders.items():
        orders.add_row(name, str(number))
        if name == "failed":
            for why, times in report.failed.items():
                orders.add_row(f"[dim]  {escape(why)}[/dim]", f"[dim]{times}[/dim]")
    orders.add_row("stock given back after a crash", str(report.released))
    orders.add_row("prepared transactions recovered", str(report.recovered))
    console.print(orders)

    unit = Table(title="One unit of work", title_justify="left", expand=True)
    unit.add_column("at ms", justify="right", min_width=6)
    unit.add_column("database", min_width=8)
    unit.add_column("sent", overflow="ellipsis", no_wrap=True, ratio=1)
    unit.add_column("took ms", justify="right", min_width=7)
    for sent in report.unit:
        took = "" if sent.took is None else f"{sent.took:.2f}"
        unit.add_row(f"{sent.at:.1f}", sent.database, escape(sent.text), took)
    console.print(unit)

    books = Table(title=f"Books (on_multiple_writes = {report.on_multiple_writes!r})", title_justify="left")
    for heading in ("", "what must be true", "found"):
        books.add_column(heading, overflow="fold")
    for check in report.checks:
        books.add_row("[green]ok[/green]" if check.ok else "[red]OFF[/red]", check.name, escape(check.detail))
    console.print(books)
    verdict = "[green]The books are in order.[/green]" if report.ok else "[red]Something is off: see above.[/red]"
    console.print(verdict)
