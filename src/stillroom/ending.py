"""How a unit of work ends: what is committed in which order, and what is said when that fails."""

from __future__ import annotations

import logging
from contextlib import nullcontext
from time import monotonic
from typing import TYPE_CHECKING, NoReturn

from sqlalchemy.exc import DBAPIError

from .connections import require_intact
from .errors import CommitOutcomeUnknown, Disconnected, MultipleWritesRefused, PartialCommitError
from .status import Status

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from sqlalchemy.engine import Connection

    from .backends import Marker
    from .connections import ConnectionState
    from .core import UnitCore
    from .database import Database
    from .sessions import UnitSession

logger = logging.getLogger("stillroom")
_LONGEST_WAIT = 30.0
_QUIET_INTERVAL = 0.002
_MOST_FLUSHES = 100  # as many as SQLAlchemy's commit makes before it says that there is no end to them


def end(unit: UnitCore, error: BaseException | None) -> None:
    """
    Commit or roll back everything, close every session, and set the status to what is true.

    Args:
        unit: The unit of work, active.
        error: The exception that left its body; None if there was none.

    Raises:
        PartialCommitError: Some databases are durable and others are not.
        CommitOutcomeUnknown: The answer to a COMMIT was lost.
        sqlalchemy.exc.SQLAlchemyError: A COMMIT failed; nothing is durable.
    """
    failed = True
    try:
        if error is not None or unit.doomed is not None:
            _set_rolled_back(unit)
        elif unit.options.commit == "manual":
            _end_manual(unit)
        else:
            commit(unit)
        failed = error is not None
    except BaseException:
        if unit.status in (Status.ACTIVE, Status.COMMITTING):  # an interrupt came between two steps
            _set_rolled_back(unit)
        raise
    finally:
        if unit.has_logger:
            close_all(unit, failed=failed)
        else:
            close(unit)


def close_all(unit: UnitCore, *, failed: bool = True) -> None:
    """
    Close every session; what was logged is committed.

    Args:
        unit: The unit of work.
        failed: An error is on its way, which must not be hidden.
    """
    try:
        close(unit)
    finally:
        if unit.has_logger:
            _commit_loggers(unit, failed=failed)


def _set_rolled_back(unit: UnitCore) -> None:
    # A session that the user committed by hand on the way is durable; that is said, not hidden.
    writers = [session for session in unit.sessions.values() if session.role == "writer"]
    if any(_waits_for_answer(each) for each in writers):
        unit.status = Status.UNKNOWN
    elif any(each.commits or (each.autocommits and _may_have_written(each)) for each in writers):
        unit.status = Status.PARTLY_COMMITTED
    else:
        unit.status = Status.ROLLED_BACK


def _end_manual(unit: UnitCore) -> None:
    writers = [session for session in unit.sessions.values() if session.role == "writer"]
    if any(_holds_work(session) for session in writers):
        _set_rolled_back(unit)
    else:
        unit.status = Status.COMMITTED
        unit.hooks.take(committed=True)  # they wait for a `commit()` that never came


def _holds_work(session: UnitSession) -> bool:
    if session.new or session.dirty or session.deleted:
        return True
    return session.in_transaction() and session.state is not None and _may_have_written(session)


def _may_have_written(session: UnitSession) -> bool:
    state = session.state
    return state is not None and (state.wrote or state.may_have_written)


def commit(unit: UnitCore) -> None:
    """
    Commit every writer of `unit` as `on_multiple_writes` says, and set the status.
    """
    if unit.deadline is not None:
        _lift_limit(unit)
    try:
        writers = _flush(unit)
    except BaseException:
        _set_rolled_back(unit)
        raise
    unit.status = Status.COMMITTING
    if len(writers) == 1:
        try:
            commit_session(unit, writers[0])
        except BaseException as error:
            unit.status = status_after(error, writers[0])
            raise
    elif writers:
        written = [session for session in writers if _may_have_written(session)]
        policy = unit.options.on_multiple_writes or unit.declared.on_multiple_writes
        if len(written) > 1 and policy == "refuse":
            _set_rolled_back(unit)
            names = ", ".join(repr(session.database_name) for session in written)
            raise MultipleWritesRefused(
                f"this unit of work wrote to {names}, and on_multiple_writes is 'refuse': nothing was committed. "
                "Use a unit of work for each, or on_multiple_writes='ordered' or 'two_phase'"
            )
        if len(written) > 1 and policy == "two_phase":
            from . import two_phase  # imported when it is needed, as few are

            # Who can prepare does: functions and raw cursors write without a word that we could see.
            able = [each for each in writers if unit.declared.databases[each.database_name].backend.can_prepare]
            taking_part = [each for each in writers if each in written or each in able]
            two_phase.commit(unit, taking_part, [each for each in writers if each not in taking_part])
        else:
            _commit_in_order(unit, writers)
    unit.status = Status.COMMITTED


def _lift_limit(unit: UnitCore) -> None:
    """
    Let the end take its time: the limit is the body's.
    """
    unit.deadline = None
    for session in unit.sessions.values():
        state, connection = session.state, session.began
        if state is None or connection is None or session.role == "reader":
            continue
        state.deadline = None
        if state.failure is None and not connection.closed and connection.in_transaction():
            state.backend.lift_limit(connection)


def _flush(unit: UnitCore) -> list[UnitSession]:
    """
    Flush all, so that ordinary errors come while everything can be undone; return who commits, in order.

    What was written comes first, in the declared order with the default database last. The unit is still active: a
    listener of a flush may write to another session, opened already or not.
    """
    sessions = unit.sessions
    writers: list[UnitSession] = []
    for _ in range(_MOST_FLUSHES):
        writers = [session for session in sessions.values() if session.role == "writer"]
        for session in writers:
            state = session.state
            if unit.is_async:
                session.require_quiet()
            if state is not None and state.failure is not None and session.in_transaction():
                require_intact(state)
            session.flush()
        if len(sessions) == 1:
            return writers
        later = [session for session in sessions.values() if session.role == "writer"]
        if not any(session.new or session.dirty or session.deleted for session in later):
            writers = later
            break
    position = unit.declared.commit_order
    return sorted(
        (session for session in writers if session.in_transaction()),
        key=lambda session: (not _may_have_written(session), position[session.database_name]),
    )


def status_after(error: BaseException, session: UnitSession) -> Status:
    """
    Say what is true of the only database after its `commit_session` raised `error`.
    """
    if is_unknown(error):
        return Status.UNKNOWN
    if is_durable(error):
        return Status.COMMITTED
    writers = [each for each in session.unit.sessions.values() if each.role == "writer"]
    return Status.PARTLY_COMMITTED if any(each.commits for each in writers) else Status.ROLLED_BACK


def _commit_in_order(unit: UnitCore, sessions: list[UnitSession]) -> None:
    done: list[str] = []
    for position, session in enumerate(sessions):
        try:
            commit_session(unit, session)
        except BaseException as error:
            remaining = [each.database_name for each in sessions[position + 1 :]]
            if is_durable(error):
                done.append(session.database_name)
            if not done or (is_durable(error) and not remaining):
                unit.status = status_after(error, session)
                raise
            unit.status = Status.PARTLY_COMMITTED
            if not isinstance(error, Exception):
                raise
            raise partial_commit(done, session.database_name, remaining, error) from error
        done.append(session.database_name)


def partial_commit(done: list[str], failed: str, remaining: list[str], error: BaseException) -> PartialCommitError:
    """
    Make the error that says which databases are durable and which are not.
    """
    what = "the outcome on {0!r} is unknown" if is_unknown(error) else "the COMMIT on {0!r} failed"
    rest = f"; rolled back: {', '.join(map(repr, remaining))}" if remaining else ""
    return PartialCommitError(
        f"committed and durable: {', '.join(map(repr, done))}; {what.format(failed)}{rest}. Repair by hand what must "
        "agree; on_multiple_writes = 'two_phase' prevents this",
        committed=tuple(done),
        failed=(failed,),
        not_committed=tuple(remaining),
        errors={failed: error},
    )


def commit_session(unit: UnitCore, session: UnitSession) -> None:
    """
    Commit one session, and find out what became of it when the answer is lost.

    Raises:
        CommitOutcomeUnknown: The answer to COMMIT was lost, and it could not be settled.
        BaseException: Anything else means that the transaction was rolled back, unless `is_durable` says otherwise.
    """
    database = unit.declared.databases[session.database_name]
    over_network = database.backend.over_network
    if unit.is_async:
        session.require_quiet()
    before = session.commits
    marker: Marker | None = None
    if over_network and database.settings.verify_commit:
        marker = _mark(unit, database, session)
    try:
        if unit.is_async and over_network:
            with bounded(unit, database, session.began):
                session.commit()
        else:
            session.commit()  # bounded in connections.py
    except BaseException as error:
        if session.commits > before:
            _set(error, _DURABLE)  # COMMIT succeeded; what failed came after it (a listener of the user)
            raise
        if not _answer_lost(error, session):
            raise
        if marker is None:
            raise_unknown(unit, database, error)
        _settle(unit, database, session, marker, error)


def _settle(unit: UnitCore, database: Database, session: UnitSession, marker: Marker, error: BaseException) -> None:
    """
    Ask the server about a COMMIT without an answer; return if it succeeded, and raise what is true otherwise.
    """
    try:
        from . import verification

        outcome = verification.settle(database, marker, unit.sleep, is_async=unit.is_async)
    except BaseException as interrupt:  # noqa: BLE001  # goes on, with what is known of it
        raise_unknown(unit, database, interrupt)  # the question was cut short, so there is no answer
    if outcome == "unknown":
        raise_unknown(unit, database, error)
    if outcome == "committed":
        session.commits += 1
        close_transaction(session)
        if isinstance(error, Exception) or unit.commit_timed_out:
            return
        _set(error, _DURABLE)
        raise error
    text = f"the answer to COMMIT on {database.name!r} was lost, and the server says that it was rolled back"
    if isinstance(error, Exception) or unit.commit_timed_out:
        source = error if isinstance(error, DBAPIError) else None
        raise Disconnected(text, source=source, database=database.name) from error
    error.add_note(f"stillroom: {text}")
    raise error


def close_transaction(session: UnitSession) -> None:
    """
    End a transaction whose connection is lost: objects stay as they are, and the session can begin another one.
    """
    if (transaction := session.get_transaction()) is not None:
        transaction.close(invalidate=True)


def raise_unknown(unit: UnitCore, database: Database, error: BaseException) -> NoReturn:
    """
    Say that nobody knows: as an error of our own, or as a note on an interrupt that must go on.
    """
    remedy = "The server could not say, even when asked"
    if not database.settings.verify_commit:
        remedy = "With verify_commit = true the server would be asked"
    text = (
        f"the answer to COMMIT on {database.name!r} was lost: it is committed or rolled back, and it is not known "
        f"which. {remedy}. Do not simply run the work again"
    )
    if isinstance(error, Exception) or unit.commit_timed_out:
        source = error if isinstance(error, DBAPIError) else None
        raise CommitOutcomeUnknown(text, source=source, database=database.name) from error
    error.add_note(f"stillroom: {text}")
    _set(error, _UNKNOWN)
    raise error


def check_commit(session: UnitSession) -> None:
    """
    Refuse to commit what cannot be committed, as `session.commit()` would.
    """
    session.require_quiet()
    if session.state is not None:
        require_intact(session.state)


def bounded(unit: UnitCore, database: Database, connection: Connection | None) -> AbstractContextManager[None]:
    """
    Hang up on the server if the block takes longer than `commit_timeout`.
    """
    seconds = database.settings.commit_timeout
    if connection is None or connection.closed or connection.invalidated or not seconds:
        return nullcontext()
    return unit.bound(database.backend, connection.connection.dbapi_connection, seconds)


def _mark(unit: UnitCore, database: Database, session: UnitSession) -> Marker | None:
    if not session.in_transaction() or not _may_have_written(session):
        return None
    database.prepare_marking(is_async=unit.is_async)
    return database.backend.mark(session.connection())


def _waits_for_answer(session: UnitSession) -> bool:
    state = session.state
    if state is None or not state.committing or not state.backend.over_network:
        return False
    # Else the connection went back to the pool, and the COMMIT is that of who has it now.
    return state.session is not None and state.session() is session


def _answer_lost(error: BaseException, session: UnitSession) -> bool:
    if not _waits_for_answer(session):
        return False
    if not isinstance(error, Exception):
        return True  # cancelled or interrupted between the COMMIT and its answer
    # An error that the server sent is an answer.
    # Another error than the driver's was raised inside of it, while it waited: asyncpg's limit, a broken socket.
    return bool(getattr(error, "connection_invalidated", False)) if isinstance(error, DBAPIError) else True


_DURABLE = "stillroom_durable"
_UNKNOWN = "stillroom_unknown"


def _set(error: BaseException, fact: str) -> None:
    error.__dict__[fact] = True
    error.__dict__["stillroom_retry"] = False


def is_durable(error: BaseException) -> bool:
    """
    Say whether the COMMIT had succeeded when `error` was raised.
    """
    return bool(getattr(error, _DURABLE, False))


def is_unknown(error: BaseException) -> bool:
    """
    Say whether `error` means that the outcome of the COMMIT is unknown.
    """
    return isinstance(error, CommitOutcomeUnknown) or bool(getattr(error, _UNKNOWN, False))


def roll_back(unit: UnitCore) -> None:
    """
    Roll back every session but the loggers, and leave them open.
    """
    for session in unit.sessions.values():
        if session.role != "logger":
            session.rollback()


def close(unit: UnitCore) -> None:
    """
    Close the writers and readers, which rolls back what is still open.

    A failure is logged, not raised: what was committed is committed, what was not will be rolled back by the server,
    and an error that is on its way must not be hidden. The connection is not used again.
    """
    interrupt: BaseException | None = None
    for session in reversed(list(unit.sessions.values())):
        if session.role == "logger" or (unit.is_async and session.is_connecting):
            continue  # a task that still waits for a connection gives it back when it comes
        try:
            _close_session(unit, session)
        except BaseException as error:  # noqa: BLE001  # raised when no connection is held any more
            interrupt = interrupt or error
    if interrupt is not None:
        raise interrupt


def _close_session(unit: UnitCore, session: UnitSession) -> None:
    try:
        if session.state is not None and session.state.busy is not None:
            _wait_until_quiet(unit, session, session.state)
        session.close()
    except BaseException as error:
        logger.warning("closing the session on %r failed", session.database_name, exc_info=error)
        discard(session)
        if not isinstance(error, Exception) and not unit.commit_timed_out:
            raise


def _wait_until_quiet(unit: UnitCore, session: UnitSession, state: ConnectionState) -> None:
    """
    Wait until another task's statement on this connection has ended, at most `commit_timeout`.

    The unit of work has failed by then, and the session starts nothing new. Closing the socket under a driver that
    waits for an answer would leave the event loop with a descriptor that may soon be another connection's.
    """
    end = monotonic() + (unit.declared.database(session.database_name).settings.commit_timeout or _LONGEST_WAIT)
    while state.busy is not None and monotonic() < end:
        unit.sleep(_QUIET_INTERVAL)
    if state.busy is not None:
        session.invalidate()


def discard(session: UnitSession) -> None:
    """
    Drop a session with its connection, without a word to the server.
    """
    try:
        session.invalidate()
        connection = session.began
        if connection is not None and not connection.closed and not connection.invalidated:
            connection.invalidate()  # the session had already let go of it, without returning it to the pool
    except Exception as error:
        logger.warning("a connection to %r could not be discarded", session.database_name, exc_info=error)


def _commit_loggers(unit: UnitCore, *, failed: bool) -> None:
    """
    Commit what was logged, whatever became of the rest.
    """
    problem: Exception | None = None
    lost = ""
    for session in unit.sessions.values():
        if session.role != "logger":
            continue
        try:
            commit_session(unit, session)
        except Exception as error:
            if failed or problem is not None:
                logger.error("what the unit of work logged to %r is lost", session.database_name, exc_info=error)
            else:
                problem, lost = error, session.database_name
        _close_session(unit, session)
    if problem is None:
        return
    done = [each.database_name for each in unit.sessions.values() if each.role == "writer" and each.commits]
    if unit.status is Status.COMMITTED and done:
        unit.status = Status.PARTLY_COMMITTED
        raise partial_commit(done, lost, [], problem) from problem
    if unit.status is Status.COMMITTED:
        unit.status = Status.UNKNOWN if is_unknown(problem) else Status.ROLLED_BACK
    raise problem
