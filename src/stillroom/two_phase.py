"""
Two-phase commit over several databases, and the recovery of what a crash left in doubt.

All databases but one are prepared. The last one, the coordinator, commits in one phase, together with a row for each
prepared transaction: the decision. Recovery looks for that row. Where there is none it writes one that says "rolled
back", which a coordinator that is only late then collides with; so the two can never decide differently. The method
is known as last-resource commit with a decision log; see Gray and Reuter, "Transaction Processing", chapter 10.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast

from sqlalchemy import Column, Double, MetaData, String, Table, delete, insert, inspect, select
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError

from . import ending
from .backends import GID_PREFIX, new_gid
from .errors import MultipleWritesRefused, PartialCommitError
from .status import Status

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy.engine import Connection

    from .connections import ConnectionState
    from .core import UnitCore
    from .database import Database
    from .declared import Declared
    from .sessions import UnitSession

logger = logging.getLogger("stillroom")

DECISIONS = Table(
    "stillroom_decisions",
    MetaData(),
    Column("gid", String(64), primary_key=True),
    Column("outcome", String(12), nullable=False),
    Column("decided_at", Double, nullable=False, comment="seconds since 1970-01-01, UTC"),
)
_FORGOTTEN_AT_ONCE = 100
_KEPT = 7 * 24 * 3600.0
"""Seconds that a decision is kept at least, where the process that made it did not see it done."""


@dataclass(frozen=True)
class InDoubt:
    """
    A prepared transaction that recovery found.

    Attributes:
        database: The database that holds it.
        gid: Its global id.
        age: Seconds since it was begun or prepared.
        outcome: What recovery did: "committed", "rolled back", or "left" where it could not or should not decide.
        reason: Why it was left.
    """

    database: str
    gid: str
    age: float
    outcome: Literal["committed", "rolled back", "left"]
    reason: str = ""


def commit(unit: UnitCore, written: list[UnitSession], others: list[UnitSession]) -> None:
    """
    Commit all of `written` or none of them.

    Args:
        unit: The unit of work.
        written: The sessions that wrote.
        others: Those that wrote nothing; they are committed first, while everything can be undone.

    Raises:
        MultipleWritesRefused: More than one of the databases cannot prepare.
        PartialCommitError: The decision to commit is durable, but a prepared database did not confirm it; recovery
            will complete it.
    """
    coordinator, participants = _parts(unit, written)
    prepared: list[tuple[UnitSession, str]] = []
    try:
        for session in others:
            session.commit()
        _provide_decisions(unit, coordinator)
        for session in participants:
            _prepare(unit, session, prepared)
        gids = [gid for _, gid in prepared]
        _decide(coordinator, gids)
    except BaseException:
        _roll_back(unit, prepared)
        unit.status = Status.ROLLED_BACK
        raise
    try:
        ending.commit_session(unit, coordinator)
    except BaseException as error:
        unit.status = ending.status_after(error, coordinator)
        if unit.status is Status.UNKNOWN:
            error.add_note(f"stillroom: prepared and in doubt: {', '.join(gids)}; `stillroom recover` settles them")
            _leave_in_doubt(prepared)
        elif unit.status is Status.COMMITTED:
            _confirm(unit, coordinator, prepared)
        else:
            _roll_back(unit, prepared)
        raise
    _confirm(unit, coordinator, prepared)


def _parts(unit: UnitCore, written: list[UnitSession]) -> tuple[UnitSession, list[UnitSession]]:
    cannot = [each for each in written if not unit.declared.database(each.database_name).backend.can_prepare]
    if len(cannot) > 1:
        names = ", ".join(repr(each.database_name) for each in cannot)
        unit.status = Status.ROLLED_BACK
        raise MultipleWritesRefused(
            f"two-phase commit can include one database that cannot prepare a transaction, and {names} cannot: "
            "nothing was committed. Use on_multiple_writes='ordered', or write them in units of their own"
        )
    coordinator = cannot[0] if cannot else written[-1]  # the declared order puts the default database last
    return coordinator, [each for each in written if each is not coordinator]


def _prepare(unit: UnitCore, session: UnitSession, prepared: list[tuple[UnitSession, str]]) -> None:
    database = unit.declared.database(session.database_name)
    ending.check_commit(session)
    state = cast("ConnectionState", session.state)  # it has written, so it has one
    gid = state.xa or new_gid()
    while (nested := session.get_nested_transaction()) is not None:
        nested.commit()  # left open by the user: after PREPARE there is nothing to release
    connection = session.connection()
    reported, state.session = state.session, None  # it ends the transaction on the connection, and commits nothing
    try:
        with ending.bounded(unit, database, connection):
            database.backend.prepare(connection, gid)
    except BaseException as error:
        if not isinstance(error, Exception) or getattr(error, "connection_invalidated", False):
            state.xa = None
            prepared.append((session, gid))  # it may be prepared: nobody heard the answer
        raise
    finally:
        state.session = reported
    state.xa = None
    prepared.append((session, gid))


def _provide_decisions(unit: UnitCore, coordinator: UnitSession) -> None:
    """
    Make the table of decisions where the coordinator has none yet.
    """
    database = unit.declared.database(coordinator.database_name)
    if database.has_decisions:
        return
    if database.backend.over_network:
        with database.control(is_async=unit.is_async) as connection:
            _make_decisions(connection)
        database.has_decisions = True
    else:  # SQLite has one writer: the table is made inside the unit's own transaction, and may go with it
        DECISIONS.create(coordinator.connection(), checkfirst=True)


def _make_decisions(connection: Connection) -> None:
    try:
        DECISIONS.create(connection, checkfirst=True)
    except DBAPIError:
        if not inspect(connection).has_table(DECISIONS.name):  # it is there if another process made it meanwhile
            raise


def _decide(coordinator: UnitSession, gids: list[str]) -> None:
    now = time.time()
    rows = [{"gid": gid, "outcome": "committed", "decided_at": now} for gid in gids]
    coordinator.connection().execute(insert(DECISIONS), rows)


def _finish(unit: UnitCore, session: UnitSession, gid: str, *, commit: bool) -> None:
    """
    End a prepared transaction, and with it the transaction of its session.
    """
    database = unit.declared.database(session.database_name)
    if database.backend.keeps_prepared:  # the server lets nobody else end it while this connection lives
        connection = session.connection()
        with ending.bounded(unit, database, connection):
            _end_prepared(connection, database, gid, commit=commit)
    else:
        with database.control(is_async=unit.is_async) as connection, ending.bounded(unit, database, connection):
            _end_prepared(connection, database, gid, commit=commit)
    if not commit:
        session.rollback()
        return
    try:
        session.commit()  # there is nothing left to commit on its connection; the session itself goes on
    except DBAPIError as error:
        if not error.connection_invalidated:
            raise
        ending.close_transaction(session)


def _end_prepared(connection: Connection, database: Database, gid: str, *, commit: bool) -> None:
    if commit:
        database.backend.commit_prepared(connection, gid)
    else:
        database.backend.rollback_prepared(connection, gid)


def _roll_back(unit: UnitCore, prepared: list[tuple[UnitSession, str]]) -> None:
    for session, gid in prepared:
        try:
            _finish(unit, session, gid, commit=False)
        except Exception as error:  # the error that led here is on its way
            logger.warning(
                "%s on %r may be in doubt; `stillroom recover` settles it", gid, session.database_name, exc_info=error
            )
            session.invalidate()


def _leave_in_doubt(prepared: list[tuple[UnitSession, str]]) -> None:
    for session, _ in prepared:
        session.invalidate()  # where a prepared transaction is tied to its connection, recovery needs that closed


def _confirm(unit: UnitCore, coordinator: UnitSession, prepared: list[tuple[UnitSession, str]]) -> None:
    unit.status = Status.PARTLY_COMMITTED  # until all have confirmed
    errors: dict[str, BaseException] = {}
    database = unit.declared.database(coordinator.database_name)
    for session, gid in prepared:
        try:
            _finish(unit, session, gid, commit=True)
        except Exception as error:  # noqa: BLE001  # reported together
            errors[session.database_name] = error
            session.invalidate()
        else:
            database.finished_gids.append(gid)
    if errors:
        names = ", ".join(map(repr, errors))
        done = [coordinator.database_name, *(each.database_name for each, _ in prepared)]
        raise PartialCommitError(
            f"the decision to commit is durable, but {names} did not confirm it yet: prepared there, not lost. "
            "`stillroom recover` completes it",
            committed=tuple(name for name in done if name not in errors),
            failed=tuple(errors),
            not_committed=(),
            errors=errors,
        )
    unit.status = Status.COMMITTED
    if len(database.finished_gids) >= _FORGOTTEN_AT_ONCE:
        _forget_finished(unit, database)


def _forget_finished(unit: UnitCore, database: Database) -> None:
    """
    Delete the decisions that nobody will ask for any more; apart from the units' transactions, which it must not slow.
    """
    finished = [database.finished_gids.popleft() for _ in range(min(_FORGOTTEN_AT_ONCE, len(database.finished_gids)))]
    try:
        with database.control(is_async=unit.is_async) as connection:
            connection.execute(delete(DECISIONS).where(DECISIONS.c.gid.in_(finished)))
    except SQLAlchemyError as error:  # recovery deletes them later
        logger.warning("old decisions on %r could not be deleted", database.name, exc_info=error)


# --- recovery


def recover(declared: Declared, *, min_age: float = 60.0, dry_run: bool = False) -> list[InDoubt]:
    """
    Settle the transactions that a crash left prepared: commit those that were decided, roll back the others.

    Args:
        declared: The databases.
        min_age: Transactions younger than this many seconds are left: their unit of work may still be at it.
        dry_run: Only list them.

    Returns:
        What was found and done, for each transaction. Only transactions of Stillroom are touched.
    """
    databases = [each for each in declared.databases.values() if each.settings.role != "logger"]
    found = [
        _settle_one(each, gid, databases, min_age=min_age, dry_run=dry_run)
        for each in databases
        if each.backend.can_prepare
        for gid in _listed(each)
    ]
    if not dry_run:
        _forget_old(databases)
    return found


def _listed(database: Database) -> list[str]:
    with database.control() as connection:
        return [gid for gid in database.backend.prepared(connection) if gid.startswith(GID_PREFIX)]


def _settle_one(
    database: Database, gid: str, databases: Iterable[Database], *, min_age: float, dry_run: bool
) -> InDoubt:
    age = max(0.0, time.time() - _begun_at(gid))
    if age < min_age:
        return InDoubt(database.name, gid, age, "left", f"younger than {min_age:g} s")
    if dry_run:
        return InDoubt(database.name, gid, age, "left", "only listed")
    try:
        outcome = _decision(gid, [each for each in databases if each is not database])
    except DBAPIError as error:
        return InDoubt(database.name, gid, age, "left", f"{type(error).__name__}: {error.orig}")
    try:
        with database.control() as connection:
            _end_prepared(connection, database, gid, commit=outcome == "committed")
    except DBAPIError as error:
        if gid in _listed(database):
            return InDoubt(database.name, gid, age, "left", f"{type(error).__name__}: {error.orig}")
        # Whoever else settled it meanwhile found the same decision.
    return InDoubt(database.name, gid, age, outcome)


def _begun_at(gid: str) -> int:
    try:
        return int(gid.removeprefix(GID_PREFIX).partition("-")[0], 16)
    except ValueError:
        return 0


def _decision(gid: str, databases: list[Database]) -> Literal["committed", "rolled back"]:
    """
    Return what was decided; where nothing was, decide to roll back, in every database that may have coordinated.
    """
    for database in databases:
        with database.control() as connection:
            _make_decisions(connection)
            try:
                row = {"gid": gid, "outcome": "rolled back", "decided_at": time.time()}
                connection.execute(insert(DECISIONS), row)
            except IntegrityError:
                connection.rollback()
                found = connection.execute(select(DECISIONS.c.outcome).where(DECISIONS.c.gid == gid)).scalar()
                if found == "committed":
                    return "committed"
    return "rolled back"


def _forget_old(databases: list[Database]) -> None:
    """
    Delete decisions of long ago whose transactions are not prepared anywhere.
    """
    end = time.time() - _KEPT
    try:
        prepared = {gid for each in databases if each.backend.can_prepare for gid in _listed(each)}
        for database in databases:
            with database.control() as connection:
                if inspect(connection).has_table(DECISIONS.name):
                    old = connection.execute(select(DECISIONS.c.gid).where(DECISIONS.c.decided_at < end)).scalars()
                    gone = [gid for gid in old if gid not in prepared]
                    for start in range(0, len(gone), _FORGOTTEN_AT_ONCE):
                        some = gone[start : start + _FORGOTTEN_AT_ONCE]
                        connection.execute(delete(DECISIONS).where(DECISIONS.c.gid.in_(some)))
    except SQLAlchemyError as error:  # the next recovery does it
        logger.warning("old decisions could not be deleted", exc_info=error)
