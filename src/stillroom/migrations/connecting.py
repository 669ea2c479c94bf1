"""Connections that migrate: past a pooler, without the application's timeouts, over whichever driver there is."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import msgspec

from stillroom import Database, MissingDriver, SettingsError

from .lock import locked
from .options import Options

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Connection, Engine

    from .chain import Chain

__all__ = ["ask", "exclusive", "in_memory", "reading", "with_engine"]

T = TypeVar("T")


def with_engine(database: Database, lock_timeout: float, work: Callable[[Engine], T]) -> T:
    """
    Call `work` with an engine that migrates the database, and return its result.

    Args:
        database: The application's database.
        lock_timeout: How long a statement waits for a lock, in seconds; SQLite keeps the application's.
        work: Gets the engine; called in a thread of its own where only an asyncio driver is installed.

    Raises:
        SettingsError: The URL leads to a pooler.
    """
    if database.backend.name == "sqlite":
        return work(database.engine)  # has no timeouts that could stop a migration, and may be in memory
    direct = _direct(database, lock_timeout)
    try:
        engine = direct.engine_for("control")
    except MissingDriver:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(asyncio.run, _over_asyncio(direct, work)).result()
    try:
        return work(engine)
    finally:
        direct.close()


@contextmanager
def reading(database: Database, engine: Engine) -> Iterator[Connection]:
    """
    Give a connection that only reads, and waits for nobody who migrates.

    Args:
        database: The application's database.
        engine: As `with_engine` gives it.
    """
    if database.backend.name == "sqlite":
        engine = database.reader_engine  # a writer's transaction would wait for another writer's
    with engine.connect() as connection:
        yield connection


def ask(database: Database, question: Callable[[Connection], T]) -> T:
    """
    Call `question` with a connection that only reads, and return its answer.
    """

    def work(engine: Engine) -> T:
        with reading(database, engine) as connection:
            return question(connection)

    return with_engine(database, Options().lock_timeout, work)


def in_memory(database: Database) -> bool:
    """
    Say whether no other process reaches a database.
    """
    url = database.settings.url
    if url.get_backend_name() != "sqlite":
        return False
    return url.database in (None, "", ":memory:") or "memory" in url.query.get("mode", "") or "vfs" in url.query


async def _over_asyncio(direct: Database, work: Callable[[Engine], T]) -> T:
    from sqlalchemy.ext.asyncio import AsyncSession

    engine = direct.async_engine_for("control")
    try:
        async with AsyncSession(engine) as session:
            return await session.run_sync(lambda _: work(engine.sync_engine))
    finally:
        await direct.aclose()


def _direct(database: Database, lock_timeout: float) -> Database:
    settings = database.settings
    if settings.pooler and settings.migration_url is None:
        raise SettingsError(
            f"databases.{database.name}.migration_url: the database is behind a pooler, which would lose the lock that "
            "keeps two processes from migrating at once; name the server itself here",
            path=f"databases.{database.name}.migration_url",
        )
    settings = msgspec.structs.replace(
        settings,
        url=settings.migration_url or settings.url,
        replicas=(),
        pooler=False,
        models=(),
        statement_timeout=0.0,
        idle_transaction_timeout=0.0,
        lock_timeout=lock_timeout,
    )
    return Database(settings, name=database.name, application=f"{database.application} migrations")


@contextmanager
def exclusive(engine: Engine, chain: Chain, options: Options, *, autocommit: bool = False) -> Iterator[Connection]:
    """
    Give a connection that may migrate, while no other process does.

    Args:
        engine: As `with_engine` gives it.
        chain: The database's revisions.
        options: How patient it is.
        autocommit: Statements commit by themselves, unless they say BEGIN.

    Raises:
        MigrationLocked: Another process does, for too long.
    """
    with engine.connect() as connection, locked(connection, chain, wait=options.wait, notice=options.notice):
        if engine.dialect.name == "sqlite":
            with _foreign_keys_off(connection):
                yield connection
        else:
            # The engine's own is autocommit, which suits the lock: its session is in no transaction while it waits.
            if autocommit:
                yield connection
                return
            connection.execution_options(isolation_level="READ COMMITTED")
            yield connection


@contextmanager
def _foreign_keys_off(connection: Connection) -> Iterator[None]:
    """
    Let tables be made anew, which is how SQLite's are altered: to drop the old one would delete what refers to it.

    See https://www.sqlite.org/lang_altertable.html#otheralter. The pragma does nothing inside a transaction.
    """
    driver = connection.connection
    connection.rollback()
    driver.cursor().execute("PRAGMA foreign_keys=OFF")
    try:
        yield
    finally:
        connection.rollback()
        driver.cursor().execute("PRAGMA foreign_keys=ON")
