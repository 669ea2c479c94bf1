"""Units of work that only one process at a time runs on a database."""

from __future__ import annotations

import contextlib
import random
from hashlib import sha256
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from stillroom import Retry
from stillroom.data.errors import DataLocked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from stillroom import Database, UnitOfWork

    T = TypeVar("T")

__all__ = ["alone", "hold"]

POLL = 0.05
"""Seconds between two questions."""


def alone(
    databases: Sequence[Database],
    open_unit: Callable[[], Any],
    name: str,
    work: Callable[[UnitOfWork], T],
    *,
    wait: float,
    attempts: int,
) -> T:
    """
    Run something in a unit of work, while no other process runs what has the same name.

    Args:
        databases: The databases where it is to be alone, always in the same order.
        open_unit: Makes the unit of work, as a context manager.
        name: What is locked.
        work: Gets the unit of work.
        wait: How long another process is waited for, in seconds.
        attempts: How often the work is tried, where an error says that it may be.

    Raises:
        DataLocked: The other did not end in time.
    """
    end = monotonic() + wait
    retry = Retry()
    made = 0
    while True:
        has_begun = False
        try:
            with contextlib.ExitStack() as stack:
                for database in databases:
                    stack.enter_context(_named_lock(database, name, end))
                with open_unit() as uow:
                    for database in databases:
                        hold(uow, database, name, end)
                    has_begun = True
                    return work(uow)
        except Exception as error:
            made += has_begun
            if not retry.covers(error) or made >= attempts:
                raise
            if monotonic() > end:
                if has_begun:
                    raise
                raise _locked(databases[0], name) from error
        sleep(random.uniform(0, 2 * POLL))  # noqa: S311  # no secret


def hold(uow: UnitOfWork, database: Database, name: str, end: float) -> None:
    """
    Take the lock that ends with the transaction of a unit of work; on MariaDB there is none.

    On SQLite that is the beginning of the transaction itself, which waits for its turn.
    """
    connection = uow.session(database.name, role="writer").connection()
    if database.settings.backend != "postgresql":
        return
    # Asked for, not waited in: a lock timeout, or a time limit of statements, is not about this.
    statement = text("select pg_try_advisory_xact_lock(:key)")
    key = int.from_bytes(sha256(name.encode()).digest()[:8], signed=True)
    while not connection.execute(statement, {"key": key}).scalar():
        if monotonic() > end:
            raise _locked(database, name)
        sleep(POLL)


@contextlib.contextmanager
def _named_lock(database: Database, name: str, end: float) -> Iterator[None]:
    """
    Hold a lock of MariaDB's, which belongs to a session: one beside the transaction, until that is committed.
    """
    if database.settings.backend != "mysql":
        yield
        return
    # The names are the server's, so this one has the database in it; they are short.
    key = {"name": f"stillroom.{sha256(f'{database.engine.url.database}.{name}'.encode()).hexdigest()[:40]}"}
    with database.control() as connection:
        while connection.execute(text("select get_lock(:name, 0)"), key).scalar() != 1:
            if monotonic() > end:
                raise _locked(database, name)
            sleep(POLL)
        try:
            yield
        finally:
            # A lost connection took the lock along, and its error must not hide what went wrong.
            with contextlib.suppress(SQLAlchemyError):
                connection.execute(text("select release_lock(:name)"), key)


def _locked(database: Database, name: str) -> DataLocked:
    return DataLocked(
        f"{name}: another process is at it in the database {database.name!r}, and did not end in time; wait for it, or "
        "end it, then try again. wait= (--wait) says how long is waited"
    )
