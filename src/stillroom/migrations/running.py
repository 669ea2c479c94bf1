"""Runs revisions: one database after another, each revision once however many processes begin."""

from __future__ import annotations

import random
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from time import monotonic, sleep
from typing import TYPE_CHECKING, Literal

from alembic import command
from alembic.script.revision import RevisionError
from alembic.util import CommandError
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from stillroom import Databases, StillroomError, is_retryable
from stillroom.secrets import mask_text

from .chain import Chain, chains, require
from .connecting import exclusive, in_memory, reading, with_engine
from .environment import Task
from .errors import MigrationError, MigrationsFailed, RevisionFailed, UnfinishedRevision
from .options import Options
from .parallel import Workers, usual_count
from .watch import Watch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from alembic.script import Script
    from sqlalchemy import Connection, Engine

    from stillroom import Settings

__all__ = ["Outcome", "downgrade", "in_words", "stamp", "upgrade", "wait"]

State = Literal["done", "nothing to do", "failed", "not started"]


@dataclass(frozen=True)
class Outcome:
    """
    What became of one database.

    Attributes:
        database: Its name.
        state: "done", "nothing to do", "failed" or "not started".
        revisions: Those that ran, in order; they stay, even where a later one failed.
        seconds: How long it took.
    """

    database: str
    state: State
    revisions: tuple[str, ...] = ()
    seconds: float = 0.0


def upgrade(
    databases: Databases,
    database: str | None = None,
    revision: str = "head",
    *,
    options: Options | None = None,
    parallel: int | None = 1,
    canary: str | None = None,
) -> list[Outcome]:
    """
    Bring databases to a revision, those that others depend on first.

    A database that has it already is only asked for its revision. The first failure stops; call it again to resume.

    Args:
        databases: The application's.
        database: One of them; None for all that have migrations.
        revision: The revision; "heads" where a chain has several on purpose.
        options: How patient it is.
        parallel: How many databases at a time, each in a process of its own; None for two for each CPU. A script that
            uses it needs `if __name__ == "__main__":`, and `options` can tell only how many databases are done.
            Databases in memory, which no other process reaches, are upgraded one after another.
        canary: The database that is upgraded first, after those that it depends on and before all others: if it
            fails, they stay as they are. "*" is the first one in order.

    Raises:
        MigrationsFailed: A database could not be migrated; chained from the cause.
        MigrationError: There is no such canary, or `parallel` is less than 1.
        UnknownRevision: A database's directory does not have the revision; no database was touched.
        NoMigrations: There are none, or a directory is not there.
    """
    if parallel is not None and parallel < 1:
        raise MigrationError(f"parallel={parallel!r}: at least one database at a time is to be upgraded")
    settled = options or Options()
    first, rest = _split(databases, chains(databases, database), canary)
    require([*first, *rest], revision)

    def work(chain: Chain, ran: list[str]) -> None:
        def migrate(engine: Engine) -> None:
            with reading(chain.database, engine) as connection:
                if not chain.pending(chain.current(connection), revision):
                    return
            with exclusive(engine, chain, settled) as connection:
                _Run(chain, connection, settled, ran).up(revision)

        with_engine(chain.database, settled.lock_timeout, migrate)

    count = min(parallel or usual_count(), len(rest))
    if count < 2 or any(in_memory(chain.database) for chain in rest):
        return _each([*first, *rest], work)
    with _workers(databases, revision, settled, count) as workers:  # before the canary opens what a fork would share
        return _each(first, work, rest) + _side_by_side(databases, rest, settled, workers)


def downgrade(
    databases: Databases, revision: str, database: str | None = None, *, options: Options | None = None
) -> list[Outcome]:
    """
    Take databases back to a revision, those that depend on others first.

    Args:
        databases: The application's.
        revision: The revision to go back to: an id, "base", or "-1" for one step.
        database: One of them; None for all that have migrations.
        options: How patient it is.

    Raises:
        MigrationsFailed: A database could not be migrated; chained from the cause.
        UnknownRevision: A database's directory does not have the revision; no database was touched.
        NoMigrations: There are none, or a directory is not there.
    """
    settled = options or Options()
    found = chains(databases, database, newest_first=True)
    require(found, revision, replaced=True)

    def work(chain: Chain, ran: list[str]) -> None:
        def migrate(engine: Engine) -> None:
            with exclusive(engine, chain, settled) as connection:
                _Run(chain, connection, settled, ran).down(revision)

        with_engine(chain.database, settled.lock_timeout, migrate)

    return _each(found, work)


def stamp(databases: Databases, revision: str, database: str | None = None, *, purge: bool = False) -> None:
    """
    Write down that databases have a revision, without running anything.

    Args:
        databases: The application's.
        revision: The revision, or "head".
        database: One of them; None for all that have migrations.
        purge: Forget first what was written down; needed where that is a revision that no longer exists.

    Raises:
        UnknownRevision: A database's directory does not have the revision; no database was touched.
        NoMigrations: There are none, or a directory is not there.
    """
    options = Options()
    found = chains(databases, database)
    require(found, revision)
    for chain in found:

        def work(engine: Engine, chain: Chain = chain) -> None:
            with exclusive(engine, chain, options) as connection:
                chain.log.prepare(connection)
                chain.command(command.stamp, Task(chain, connection), revision, purge=purge)
                chain.log.forget(connection)  # last: there may be no such revision

        with_engine(chain.database, options.lock_timeout, work)


def wait(databases: Databases, database: str | None = None, *, timeout: float = 60.0) -> None:
    """
    Wait until databases answer, for containers that start together.

    Args:
        databases: The application's.
        database: One of them; None for all.
        timeout: How long, in seconds.

    Raises:
        MigrationError: One does not answer in time; says why.
    """
    end = monotonic() + timeout
    for name in [database] if database is not None else list(databases):
        while not (writer := databases[name].ping()[0]).ok:
            if monotonic() > end:
                raise MigrationError(f"the database {name!r} did not answer in {timeout:g} s: {writer.error}")
            sleep(0.25)


class _Run:
    """
    The migration of one database by the holder of its lock.

    Args:
        chain: Its revisions.
        connection: The one that holds the lock.
        options: How patient it is.
        ran: Grows by each revision that ran.
    """

    def __init__(self, chain: Chain, connection: Connection, options: Options, ran: list[str]) -> None:
        self.chain = chain
        self.connection = connection
        self.options = options
        self.ran = ran
        self.revisions: list[str] = []

    def up(self, target: str) -> None:
        """
        Run the revisions up to `target`.
        """
        current = self.chain.current(self.connection)
        for part in self.chain.parts(current):
            goal = target if part is self.chain else "heads"
            self._run(part, command.upgrade, goal, part.pending(current, goal))
            current = self.chain.current(self.connection)

    def down(self, target: str) -> None:
        """
        Undo the revisions above `target`.
        """
        current = self.chain.current(self.connection)
        part = self.chain.parts(current)[0]
        self._run(part, command.downgrade, target, part.undone(current, target))

    def _run(self, chain: Chain, what: Callable[..., None], target: str, scripts: list[Script]) -> None:
        if not scripts:
            return
        self.revisions += [script.revision for script in scripts]
        self.options.progress(chain.name, len(self.ran), len(self.revisions))
        chain.log.prepare(self.connection)
        chain.command(command.ensure_version, Task(chain, self.connection))
        pauses = _pauses(self.options.retry_for)
        while True:
            before = len(self.ran)
            left, up = self.revisions[before:], what is command.upgrade
            with Watch(self.connection, chain.log, left, self._committed, up=up) as watch:
                failed = self._attempt(chain, what, target, watch)
            if failed is None:
                return
            if len(self.ran) > before:  # another revision: its patience begins anew
                pauses = _pauses(self.options.retry_for)
            pause = next(pauses, None) if self._may_retry(failed, watch) else None
            if pause is None:
                self._raise(failed, watch)
                return
            if not watch.resumes:
                self._forgotten()
            self.options.notice(f"{chain.name}: something else holds a lock that the revision needs; trying again")
            sleep(pause)

    def _attempt(self, chain: Chain, what: Callable[..., None], target: str, watch: Watch) -> Exception | None:
        try:
            chain.command(what, Task(chain, self.connection, revision_done=watch.revision_done), target)
        except Exception as error:  # noqa: BLE001  # a revision may raise anything
            with suppress(SQLAlchemyError):
                self.connection.rollback()
            return error
        watch.confirm()
        return None

    def _committed(self, revision: str) -> None:
        self.ran.append(revision)
        self.options.progress(self.chain.name, len(self.ran), len(self.revisions))

    def _may_retry(self, error: Exception, watch: Watch) -> bool:
        """
        Say whether the revision can run again: nothing of it stayed, or it is known what; and the lock is still ours.
        """
        return is_retryable(error) and (watch.can_retry or watch.resumes) and not self.connection.invalidated

    def _raise(self, error: Exception, watch: Watch) -> None:
        alembic_refused = isinstance(error.__cause__, CommandError | RevisionError)
        if alembic_refused or isinstance(error, UnfinishedRevision) or len(self.ran) >= len(self.revisions):
            raise error
        revision, name = self.revisions[len(self.ran)], self.chain.name
        where = f" at {watch.failing!r}" if watch.failing else ""
        forgotten = self._forgotten()
        if watch.kept:
            statements = "; ".join(watch.kept)
            left = (
                f"{len(watch.kept)} statement(s) before that took effect and stay, for they were committed one by one: "
                f"{statements}. "
            )
            left += (
                "Undo them by hand, or take them out of the revision, then run it again"
                if forgotten
                else "Run the same again: it goes on behind them"
            )
        else:
            left = "Nothing of it stayed; mend it and run it again"
        if watch.in_autocommit:
            left += ". The statement ran outside a transaction: see what it left, such as an index that is not valid"
        raise RevisionFailed(
            f"revision {revision!r} of the database {name!r} failed{where}: {in_words(error)}. {left}",
            database=name,
            revision=revision,
            kept=watch.kept,
        ) from error

    def _forgotten(self) -> bool:
        """
        Let the next run begin the revision anew, for its author is told what stays; over a lost connection it cannot.
        """
        try:
            self.chain.log.forget(self.connection)
        except SQLAlchemyError:
            return False
        return True


def _pauses(seconds: float) -> Iterator[float]:
    """
    Yield how long to wait before each attempt, for as long as attempts are made.
    """
    end = monotonic() + seconds
    pause = 0.1
    while monotonic() < end:
        yield pause * random.uniform(0.5, 1.5)  # noqa: S311  # spreads the attempts
        pause = min(2 * pause, 1.0)


def in_words(error: BaseException) -> str:
    """
    Say what an error says, without SQLAlchemy's additions.
    """
    said = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    text = mask_text(" ".join(str(said).split())).rstrip(".")
    return text if isinstance(error, StillroomError) else f"{type(said).__name__}: {text}"


def _split(databases: Databases, found: list[Chain], canary: str | None) -> tuple[list[Chain], list[Chain]]:
    """
    Take the canary and what it depends on from the others.
    """
    if canary is None:
        return [], found
    if canary == "*":
        canary = found[0].name
    if canary not in {chain.name for chain in found}:
        names = ", ".join(repr(chain.name) for chain in found)
        raise MigrationError(f"the canary {canary!r} is not one of the databases to be upgraded ({names})")
    needed, left = {canary}, [canary]
    while left:
        more = set(databases[left.pop()].settings.depends_on) - needed
        needed |= more
        left += more
    return [each for each in found if each.name in needed], [each for each in found if each.name not in needed]


def _each(
    found: Sequence[Chain], work: Callable[[Chain, list[str]], None], rest: Sequence[Chain] = ()
) -> list[Outcome]:
    outcomes: list[Outcome] = []
    for position, chain in enumerate(found):
        ran: list[str] = []
        start = monotonic()
        try:
            work(chain, ran)
        except Exception as error:
            outcomes.append(Outcome(chain.name, "failed", tuple(ran), monotonic() - start))
            outcomes += [Outcome(other.name, "not started") for other in (*found[position + 1 :], *rest)]
            raise MigrationsFailed(_summary(outcomes, error), outcomes=outcomes) from error
        outcomes.append(Outcome(chain.name, "done" if ran else "nothing to do", tuple(ran), monotonic() - start))
    return outcomes


def _workers(databases: Databases, revision: str, options: Options, count: int) -> Workers[Outcome]:
    silent = Options(wait=options.wait, lock_timeout=options.lock_timeout, retry_for=options.retry_for)
    may_fork = not any(databases[name].pools() for name in databases)
    return Workers(partial(_upgrade_one, databases.settings, revision, silent), count, may_fork=may_fork)


def _side_by_side(
    databases: Databases, found: Sequence[Chain], options: Options, workers: Workers[Outcome]
) -> list[Outcome]:
    results = workers.run(
        [chain.name for chain in found],
        {name: databases[name].settings.depends_on for name in databases},
        lambda count: options.progress("databases", count, len(found)),
    )
    outcomes: list[Outcome] = []
    first: Exception | None = None
    for chain in found:
        result = results.get(chain.name)
        if isinstance(result, Exception):
            first = first or result
            its = result.outcomes if isinstance(result, MigrationsFailed) else (Outcome(chain.name, "failed"),)
            outcomes += its
        else:
            outcomes.append(result or Outcome(chain.name, "not started"))
    if first is not None:
        raise MigrationsFailed(_summary(outcomes, first), outcomes=outcomes) from first
    return outcomes


def _upgrade_one(settings: Settings, revision: str, options: Options, name: str) -> Outcome:
    with Databases(settings) as databases:
        return upgrade(databases, name, revision, options=options)[0]


def _summary(outcomes: Sequence[Outcome], error: Exception) -> str:
    text = in_words(error)
    failed = next(each.database for each in outcomes if each.state == "failed")
    if repr(failed) not in text:
        text = f"the database {failed!r} could not be migrated: {text}"
    if len(outcomes) > 1:
        states = ", ".join(f"{each.database} {each.state}" for each in outcomes)
        text += f". Of {len(outcomes)} databases: {states}. Run the same again to resume"
    return text
