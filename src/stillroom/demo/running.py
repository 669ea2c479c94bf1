"""Runs the demo from the first table to the last check."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

from sqlalchemy import make_url, select
from sqlalchemy.exc import ArgumentError

from stillroom import Settings
from stillroom.demo import data
from stillroom.demo.check import check_books
from stillroom.demo.customers import make_requests
from stillroom.demo.models import BASES, Customer, Track
from stillroom.demo.problems import DemoError
from stillroom.demo.recorder import Recording, record
from stillroom.demo.report import Report, count, count_reasons, describe_servers
from stillroom.demo.setup import can_prepare, provide_tables
from stillroom.demo.shop import Request, dbs, place_order, release_orphans
from stillroom.demo.workers import Trade, trade

__all__ = ["Options", "Progress", "run"]

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""

# How long an order waits for a lock, in seconds, before it gives way and tries again. Short, so that the demo shows it.
LOCK_TIMEOUT = {"sqlite": 0.05, "postgresql": 0.05, "mysql": 1.0}


@dataclass(frozen=True, kw_only=True)
class Options:
    """
    How to run the demo.

    Attributes:
        data: The data set; None for the small one that comes with the demo.
        urls: Databases on servers instead of files, by name: "catalog", "sales", "log".
        orders: How many requests to serve.
        processes: How many processes serve.
        keep: The directory for the files, which then stay; None for a temporary one.
    """

    data: Path | None = None
    urls: Mapping[str, str] = field(default_factory=dict)
    orders: int = 400
    processes: int = 4
    keep: Path | None = None


def nothing_shown(what: str, done: int, total: int) -> None:
    """
    Show no progress.
    """


def run(options: Options, progress: Progress = nothing_shown) -> Report:
    """
    Open the shop, trade, and check the books.

    Args:
        options: How.
        progress: Told how far it is.

    Returns:
        What it came to; `report.ok` says whether the books are in order.

    Raises:
        DemoError: The data set, an option or a database does not fit.
        SettingsError: A URL is not valid.
    """
    tables = data.rows(data.read(options.data))
    with _directory(options) as directory:
        settings = _settings(options, directory)
        dbs.configure(Settings.from_mapping(settings, environ={}))
        try:
            return _run(options, settings, tables, progress)
        finally:
            dbs.close()


def _run(options: Options, settings: dict[str, Any], tables: dict[str, list[data.Table]], progress: Progress) -> Report:
    servers = dbs.ping()
    for server in servers:
        if not server.ok:
            raise DemoError(
                f"the database {server.database!r} at {server.url} does not answer: {' '.join(server.error.split())}"
            )
    settings["on_multiple_writes"] = "two_phase" if can_prepare(dbs) else "ordered"
    dbs.configure(Settings.from_mapping(settings, environ={}))

    _open_shop(tables, progress)
    requests = _make_requests(options)
    started = monotonic()
    result = trade(settings, requests, options.processes, lambda done: progress("orders", done, len(requests)))
    seconds = monotonic() - started

    # After a crash: first what is in doubt, then what never came to be. Nobody trades now, so no age is too young.
    recovered = dbs.recover(min_age=0) if settings["on_multiple_writes"] == "two_phase" else []
    released = release_orphans(min_age=0)
    unit = _show_unit(result)
    progress("books", 0, 1)
    checks = check_books(result)
    progress("books", 1, 1)
    return Report(
        databases=describe_servers(servers),
        on_multiple_writes=settings["on_multiple_writes"],
        loaded={model.__tablename__: len(rows) for contents in tables.values() for model, rows in contents},
        processes=options.processes,
        seconds=seconds,
        orders=count(result),
        failed=count_reasons(result),
        recovered=len(recovered),
        released=released,
        checks=checks,
        unit=unit.sent,
    )


@contextmanager
def _directory(options: Options) -> Iterator[Path]:
    if options.keep is None:
        # On Windows a file that is still open cannot be removed; the system clears its directory later.
        with tempfile.TemporaryDirectory(prefix="stillroom-demo-", ignore_cleanup_errors=True) as name:
            yield Path(name)
        return
    try:
        options.keep.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DemoError(
            f"the directory {str(options.keep)!r} cannot be made: {error.strerror}. Name another one for --keep"
        ) from error
    yield options.keep


def _settings(options: Options, directory: Path) -> dict[str, Any]:
    """
    Write the shop's settings, as they would stand in `stillroom.toml`.
    """
    if strangers := sorted(set(options.urls) - set(BASES)):
        known = ", ".join(map(repr, BASES))
        raise DemoError(f"the shop has no database {strangers[0]!r}; its databases are {known}: --url catalog=…")
    urls = {name: options.urls.get(name, f"sqlite:///{directory / name}.db") for name in BASES}
    if len(set(urls.values())) < len(urls):
        raise DemoError("two of the shop's databases have the same URL; give each a database of its own")
    databases: dict[str, dict[str, Any]] = {name: {"url": url} for name, url in urls.items()}
    for name in ("catalog", "sales"):
        databases[name]["lock_timeout"] = _lock_timeout(urls[name])
    databases["log"]["role"] = "logger"
    # The default database is committed last. An order is valid because it is in `sales`: whatever a crash leaves, it
    # is never an order that somebody paid for and the catalog knows nothing of.
    return {"default": "sales", "databases": databases}


def _lock_timeout(url: str) -> float:
    try:
        backend = make_url(url).get_backend_name()
    except ArgumentError:
        return 1.0  # the settings say what is wrong with it
    return LOCK_TIMEOUT.get(backend, 1.0)


def _open_shop(tables: dict[str, list[data.Table]], progress: Progress) -> None:
    provide_tables(dbs)
    total = sum(len(rows) for contents in tables.values() for _, rows in contents)
    loaded = 0

    def loading(rows: int) -> None:
        nonlocal loaded
        loaded += rows
        progress("data", loaded, total)

    data.load(tables, loading)


def _make_requests(options: Options) -> list[Request]:
    with dbs.unit_of_work(read_only=True) as uow:
        tracks = uow.catalog.scalars(select(Track.id).where(Track.opening_stock > 0).order_by(Track.id)).all()
        rows = uow.sales.execute(select(Customer.id, Customer.balance).order_by(Customer.id))
        customers = [(id_, balance) for id_, balance in rows]
    return make_requests(tracks, customers, count=options.orders, processes=options.processes)


def _show_unit(result: Trade) -> Recording:
    """
    Place one more order, and record what it sends.
    """
    with dbs.unit_of_work(read_only=True) as uow:
        richest = uow.sales.scalars(select(Customer.id).order_by(Customer.balance.desc(), Customer.id).limit(1)).one()
        plenty = uow.catalog.scalars(select(Track.id).order_by(Track.stock.desc(), Track.id).limit(2)).all()
    number = len(result.requests) + 1
    request = Request(number, f"S-{number:06}", richest, tuple((track, 1) for track in plenty))
    with record(dbs) as recording:
        place_order(request, result.receipts.append)
    result.requests.append(request)
    return recording
