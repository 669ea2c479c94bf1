"""Stands in for connections of asyncpg."""

from __future__ import annotations

from functools import partial
from typing import Any

from sqlalchemy.util import greenlet_spawn

from ..errors import SandboxError
from .stand_in import AsyncDriver, AsyncStandIn

_STATEMENTS = frozenset({"execute", "executemany", "fetch", "fetchrow", "fetchval", "fetchmany", "copy_from_query"})
_COPIES = frozenset({"copy_records_to_table", "copy_to_table", "copy_from_table"})
_SETTINGS = frozenset({"reload_schema_state", "set_type_codec", "set_builtin_type_codec", "reset_type_codec"})
_IMPOSSIBLE = frozenset({"cursor", "prepare", "transaction", "add_listener", "reset"})


class AsyncpgDriver(AsyncDriver):
    """
    Stands in for an `asyncpg.Connection`; what it is asked runs in the event loop of the sandbox.
    """

    # Nobody may look whether there is something to read: it would be the answer to another's statement.
    _transport = None

    def __getattr__(self, name: str) -> Any:
        if name in _STATEMENTS or name in _COPIES:
            return partial(self._asked, name)
        if name in _SETTINGS:
            return partial(self._set, name)
        if name in _IMPOSSIBLE:
            raise SandboxError(
                f"asyncpg's {name}() would need the connection for itself, and in the sandbox all share one. Use "
                'isolation="clone" or isolation="committed" for this test'
            )
        return getattr(self.stand_in.real.driver_connection, name)

    def is_closed(self) -> bool:
        """
        Say whether the connection was closed.
        """
        return bool(self.stand_in.closed)

    def is_in_transaction(self) -> bool:
        """
        Say whether a transaction is open, as the application sees it.
        """
        return bool(self.stand_in.logical.in_transaction)

    def terminate(self) -> None:
        """
        Same as the stand-in's.
        """
        self.stand_in.close()

    async def close(self, **_: object) -> None:
        """
        Same as the stand-in's.
        """
        await super().close()

    def cursor(self, *arguments: Any, **options: Any) -> Any:
        return self.__getattr__("cursor")

    async def _asked(self, name: str, *arguments: Any, **options: Any) -> Any:
        stand_in = self.stand_in
        text = "COPY" if name in _COPIES else str(arguments[0])

        def ask() -> Any:
            return stand_in.real.run_async(lambda driver: getattr(driver, name)(*arguments, **options))

        # A statement of the driver's own begins no transaction.
        return await greenlet_spawn(stand_in.logical.execute, text, ask, opens=False)

    async def _set(self, name: str, *arguments: Any, **options: Any) -> None:
        """
        Change a setting of the real connection, once.
        """
        key = f"{name} {arguments[0] if arguments else ''} {options.get('schema', '')}"
        shared = self.stand_in.logical.shared

        def work() -> None:
            server = shared.real()
            done = vars(server).setdefault("settings_made", set())
            if key not in done or name == "reload_schema_state":
                done.add(key)
                server.connection.run_async(lambda driver: getattr(driver, name)(*arguments, **options))

        await greenlet_spawn(self.stand_in.logical.run, work)


class AsyncpgStandIn(AsyncStandIn):
    """
    Stands in for the connection of asyncpg, as SQLAlchemy adapts it.

    Attributes:
        isolation_level: As SQLAlchemy sets it; "autocommit": each statement commits by itself.
        readonly: Transactions are READ ONLY.
        deferrable: As SQLAlchemy sets it.
    """

    driver_class = AsyncpgDriver

    readonly = False
    deferrable = False
    isolation_level: str | None = None
    _isolation_setting: str | None = None

    def opens_transaction(self, text: str) -> bool:
        if self.isolation_level == "autocommit" or self.logical.in_transaction:
            return False
        if self.readonly:
            self.logical.open(read_only=True)
        return True

    def commit(self) -> None:
        if self.logical.in_transaction:  # else the driver is not asked, and nothing awaited
            super().commit()

    def rollback(self) -> None:
        if self.logical.in_transaction:
            super().rollback()

    def dispose_cursor(self, cursor: Any) -> None:
        """
        Do nothing: SQLAlchemy's cursors hold nothing at the server.
        """

    @property
    def autocommit(self) -> bool:
        """
        Whether each statement commits by itself.
        """
        return self.isolation_level == "autocommit"

    @autocommit.setter
    def autocommit(self, value: bool) -> None:
        self.isolation_level = "autocommit" if value else self._isolation_setting

    def set_isolation_level(self, level: str | None) -> None:
        """
        Set the isolation of transactions; only "autocommit" makes a difference here.
        """
        self.rollback()
        self.isolation_level = self._isolation_setting = level

    def ping(self) -> None:
        """
        Ask the server for a sign of life.
        """
        self.require_open()
        self.require_greenlet()
        shared = self.logical.shared
        self.logical.run(lambda: shared.read(lambda: shared.ready().send("SELECT 1"), []))

    @property
    def closed(self) -> bool:
        """
        Whether it was closed, or the real connection is gone.
        """
        if self.is_closed_here:
            return True
        server = self.logical.shared.server
        return server is not None and bool(server.connection.driver_connection.is_closed())
