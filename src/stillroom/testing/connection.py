"""One connection on which each statement commits by itself, over whichever driver is installed."""

from __future__ import annotations

import asyncio
import queue
import threading
from concurrent.futures import Future, wait
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from sqlalchemy.exc import DBAPIError

from stillroom import Database, MissingDriver

from .errors import TestingError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from sqlalchemy import URL, Connection

    from stillroom import DatabaseSettings

__all__ = ["Line", "execute", "seeded"]

T = TypeVar("T")

_CLOSING = 5.0
"""Seconds that the end of a line waits for the thread of an asyncio driver."""


class Line:
    """
    One connection that stays the same while it is open, so that it can hold locks; for several threads in turn.

    With an asyncio driver alone it lives in an event loop of its own thread, whatever loop the caller is in.

    Args:
        database: The database; it is closed with the line.
        patience: Seconds that an answer over an asyncio driver may take; None for no limit.
    """

    def __init__(self, database: Database, patience: float | None = None) -> None:
        self.database = database
        self.patience = patience
        self._turn = threading.RLock()
        self._send: Callable[[Callable[[Connection], Any]], Any] | None = None
        self._hang_up: Callable[[], None] = database.close

    @classmethod
    def to(
        cls, settings: DatabaseSettings, url: URL, name: str, application: str, *, patience: float | None = None
    ) -> Line:
        """
        Make a line to a URL, with the other settings of a database but none of its time limits.
        """
        direct = msgspec.structs.replace(
            settings,
            url=url,
            replicas=(),
            migration_url=None,
            admin_url=None,
            pooler=False,
            models=(),
            statement_timeout=0.0,
            lock_timeout=None,
            idle_transaction_timeout=0.0,
        )
        return cls(Database(direct, name=name, application=application), patience)

    def run(self, work: Callable[[Connection], T]) -> T:
        """
        Call `work` with the connection, and return its result.

        Raises:
            TestingError: There is no answer in time.
        """
        with self._turn:
            if self._send is None:
                self._send = self._open()
            result: T = self._send(work)
            return result

    def execute(self, *statements: str) -> None:
        """
        Send statements as they are, one after the other.
        """

        def work(connection: Connection) -> None:
            for statement in statements:
                execute(connection, statement)

        self.run(work)

    def revive(self) -> None:
        """
        Connect anew if the connection was lost; its locks are lost then, too.
        """
        try:
            self.execute("SELECT 1")
        except DBAPIError as error:
            if not error.connection_invalidated:
                raise

    def _open(self) -> Callable[[Callable[[Connection], Any]], Any]:
        try:
            engine = self.database.engine_for("control")
        except MissingDriver:
            return self._open_in_thread()
        connection = engine.connect()

        def hang_up() -> None:
            connection.close()
            self.database.close()

        self._hang_up = hang_up
        return partial(_settled, connection)

    def _open_in_thread(self) -> Callable[[Callable[[Connection], Any]], Any]:
        jobs: queue.SimpleQueue[Any] = queue.SimpleQueue()
        opened: Future[None] = Future()
        thread = threading.Thread(target=self._in_thread, args=(jobs, opened), daemon=True)
        thread.start()
        opened.result()

        def hang_up() -> None:
            jobs.put(None)
            thread.join(_CLOSING)

        def send(work: Callable[[Connection], Any]) -> Any:
            done: Future[Any] = Future()
            jobs.put((work, done))
            wait([done], self.patience)
            if not done.done():
                raise TestingError(f"the server of the database {self.database.name!r} did not answer in time")
            return done.result()

        self._hang_up = hang_up
        return send

    def _in_thread(self, jobs: queue.SimpleQueue[Any], opened: Future[None]) -> None:
        try:
            asyncio.run(self._serve(jobs, opened))
        except BaseException as error:  # noqa: BLE001  # belongs to whoever waits for it
            if not opened.done():
                opened.set_exception(error)

    async def _serve(self, jobs: queue.SimpleQueue[Any], opened: Future[None]) -> None:
        engine = self.database.async_engine_for("control")
        try:
            async with engine.connect() as connection:
                opened.set_result(None)
                await connection.run_sync(_work_off, jobs)
        finally:
            await self.database.aclose()

    def close(self) -> None:
        """
        Close the connection, and with it give back its locks.
        """
        with self._turn:
            if self._send is not None:
                self._send = None
                self._hang_up()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _work_off(connection: Connection, jobs: queue.SimpleQueue[Any]) -> None:
    # The loop stands still meanwhile: it belongs to this one connection, which has nothing to say by itself.
    while (job := jobs.get()) is not None:
        work, done = job
        try:
            done.set_result(_settled(connection, work))
        except BaseException as error:  # noqa: BLE001  # belongs to whoever asked
            done.set_exception(error)


def _settled(connection: Connection, work: Callable[[Connection], T]) -> T:
    try:
        result = work(connection)
    except BaseException:
        connection.rollback()
        raise
    connection.commit()
    return result


def execute(connection: Connection, statement: str) -> Any:
    """
    Send a statement as it is: `%` and `:` in it stand for themselves.
    """
    return connection.exec_driver_sql(statement, execution_options={"no_parameters": True})


def seeded(database: Database, seeds: Any) -> None:
    """
    Call each function with a Session on the database, and commit after each.
    """
    try:
        database.engine_for("writer")
    except MissingDriver:
        _in_loop(lambda: _seeded_async(database, seeds))
        return
    for seed in seeds:
        with database.session() as session:
            seed(session)


async def _seeded_async(database: Database, seeds: Any) -> None:
    try:
        for seed in seeds:
            async with database.async_session() as session:
                await session.run_sync(seed)
    finally:
        await database.aclose()


def _in_loop(make: Callable[[], Any]) -> None:
    done: Future[None] = Future()

    def run() -> None:
        try:
            done.set_result(asyncio.run(make()))
        except BaseException as error:  # noqa: BLE001  # belongs to whoever waits for it
            done.set_exception(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    done.result()
