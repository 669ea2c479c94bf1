"""Stands in for connections of PyMySQL, aiomysql and asyncmy."""

from __future__ import annotations

from typing import Any

from .stand_in import AsyncDriver, AsyncStandIn, StandIn

_STATUS_IN_TRANSACTION = 1


class MySQLStandIn(StandIn):
    """
    Stands in for a connection to MariaDB or MySQL.
    """

    _autocommit = False
    # Nobody may look whether there is something to read: it would be the answer to another's statement.
    _sock = None
    _writer = None

    def opens_transaction(self, text: str) -> bool:
        # A transaction begins with the first statement that touches a table.
        return not self._autocommit and not self.logical.shared.parse(text).sets

    def cursor(self, *arguments: Any, **options: Any) -> Any:
        """
        Make a cursor; one that leaves rows at the server would keep the connection from others.
        """
        self.require_open()
        chosen = arguments[0] if arguments else None
        buffered = chosen is None or chosen is True or "SS" in getattr(chosen, "__name__", "SS")
        return self.cursor_class(self, {} if buffered or self.logical.is_async else {"cursor": chosen})

    @property
    def server_status(self) -> int:
        """
        The status flags of the server, as they would be for the logical transaction.
        """
        flags = int(getattr(self.real, "server_status", 0) or 0) & ~_STATUS_IN_TRANSACTION
        return flags | (_STATUS_IN_TRANSACTION if self.logical.in_transaction else 0)

    def get_transaction_status(self) -> bool:
        """
        Say whether a transaction is open, as the application sees it.
        """
        return self.logical.in_transaction

    def autocommit(self, value: Any) -> None:
        """
        Let each statement commit by itself, or not.
        """
        if value and not self._autocommit:
            self.logical.commit()
        self._autocommit = bool(value)

    def get_autocommit(self) -> bool:
        """
        Say whether each statement commits by itself.
        """
        return self._autocommit

    def begin(self) -> None:
        """
        Begin a transaction.
        """
        self.logical.commit()
        self.logical.open()

    def ping(self, reconnect: bool = False) -> None:  # noqa: FBT001, FBT002  # the driver's signature
        """
        Ask the server for a sign of life.
        """
        self.require_open()
        self.require_greenlet()
        self.logical.run(lambda: self.real.ping(reconnect=False))

    def query(self, sql: Any, *_: object) -> int:
        """
        Run a statement; its rows are not kept.
        """
        return int(self.cursor().execute(sql).rowcount)

    def select_db(self, db: str) -> None:
        """
        Refuse to use another database on a shared connection.
        """
        raise self.dbapi.NotSupportedError("the sandbox shares one connection, which stays on its database")

    @property
    def open(self) -> bool:
        """
        Whether the connection can be used.
        """
        return not self.is_closed_here and bool(getattr(self.real, "open", True))

    @property
    def closed(self) -> bool:
        """
        Whether the connection was closed.
        """
        return not self.open


class AiomysqlDriver(AsyncDriver):
    """
    Stands in for a connection of aiomysql or asyncmy.
    """

    awaited = AsyncDriver.awaited | {"ping", "autocommit", "begin", "query", "select_db"}

    async def ensure_closed(self) -> None:
        """
        Close.
        """
        await super().close()

    def close(self) -> None:  # type: ignore[override]  # a coroutine in other drivers
        """
        Same as the stand-in's.
        """
        self.stand_in.close()


class AiomysqlStandIn(AsyncStandIn, MySQLStandIn):
    """
    Stands in for the connection of aiomysql or asyncmy, as SQLAlchemy adapts it.
    """

    driver_class = AiomysqlDriver

    def translated(self, error: Exception) -> Exception:
        """
        Return an error of PyMySQL as one of asyncmy, which has classes of its own.
        """
        own = getattr(self.dbapi, type(error).__name__, None)
        if own is None or isinstance(error, own) or not type(error).__module__.startswith("pymysql"):
            return error
        made: Exception = own(*error.args)
        return made
