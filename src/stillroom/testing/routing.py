"""Where the connections of a database's engines lead while tests run."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from sqlalchemy import event

from .errors import UndeclaredDatabase

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.engine import URL, Engine

    from stillroom import Database

    from .committed import Committed
    from .sandbox import Sandbox

__all__ = ["Router"]

Way: TypeAlias = Literal["nowhere", "sandbox", "committed", "clone"]


class Router:
    """
    Leads the new connections of one database's engines to where a test wants them.

    The engines stay the same for the whole run, whoever holds them; what a pool holds is given up when the way changes.

    Args:
        name: The database's name in the settings.
        url: The run's own test database.
        sandbox: Serves connections of tests in the sandbox.
        committed: Is told of engines, to know which tables are touched.
    """

    def __init__(self, name: str, url: URL, sandbox: Sandbox, committed: Committed) -> None:
        self.name = name
        self.url = url
        self.sandbox = sandbox
        self.committed = committed
        self.way: Way = "nowhere"
        self.refusal = ""
        self._target = url
        self._pooled: tuple[Way, URL] | None = None
        self._attached: list[Database] = []
        self._engines: list[Engine] = []
        self._stops: list[Callable[[], None]] = []
        self._lock = threading.RLock()

    def __repr__(self) -> str:
        return f"<Router {self.name!r}: {self.way}>"

    def attach(self, database: Database) -> None:
        """
        Lead the engines of a database, those that are there and those made later.
        """
        if database not in self._attached:
            self._attached.append(database)
            self._stops.append(database.watch_engines(self._equip))

    def detach(self) -> None:
        """
        Let engines made from now on lead where their settings say; those that were led are given up.
        """
        for stop in self._stops:
            stop()
        self._stops.clear()
        self.lead("nowhere", refusal="but the run of tests has ended")
        self._give_up(None)

    def lead(self, way: Way, *, url: URL | None = None, refusal: str = "") -> None:
        """
        Change where new connections lead.

        Args:
            way: "nowhere" refuses them.
            url: For a clone: where it is.
            refusal: Why they are refused, with the remedy.
        """
        with self._lock:
            self.refusal = refusal
            self.way = way
            if self._pooled is not None and self._pooled[0] == "clone":
                self._give_up(None)  # a clone lives for one test, and the next one may have its name
            if way == "nowhere":  # asked for at each checkout
                return
            self._target = url or self.url
            if self._pooled != (way, self._target):
                self._give_up((way, self._target))

    def give_up(self) -> None:
        """
        Close what the pools hold: the database is made anew, and on SQLite an open connection keeps the old file.
        """
        with self._lock:
            self._give_up(None)

    def _give_up(self, pooled: tuple[Way, URL] | None) -> None:
        """
        Close what the pools hold, and note what they will hold.
        """
        self._pooled = pooled
        for engine in self._engines:
            engine.dispose()

    def _equip(self, engine: Engine, role: str) -> None:
        # Some listeners connect by themselves, and SQLAlchemy lets nobody be the first: they are called from here.
        others: list[Any] = []
        for other in list(engine.dialect.dispatch.do_connect):
            event.remove(engine, "do_connect", other)
            # An engine from before a former run is refused since the end of that; this one leads it again.
            others += other.stillroom_give_back() if hasattr(other, "stillroom_give_back") else [other]

        def really(dialect: Any, record: Any, arguments: list[Any], keywords: dict[str, Any]) -> Any:
            for listener in others:
                connection = listener(dialect, record, arguments, keywords)
                if connection is not None:
                    return connection
            return dialect.connect(*arguments, **keywords)

        def connect(dialect: Any, record: Any, arguments: list[Any], keywords: dict[str, Any]) -> Any:
            if self.way == "nowhere":
                raise self._undeclared()
            arguments, keywords = list(arguments), dict(keywords)  # SQLAlchemy 2.0 hands out its own
            self._redirect(engine, dialect, arguments, keywords)
            if self.way != "sandbox":
                return really(dialect, record, arguments, keywords)
            return self.sandbox.connect(dialect, role, lambda: really(dialect, record, arguments, keywords))

        def give_back() -> list[Any]:
            event.remove(engine, "checkout", self._checked_out)
            return others

        connect.stillroom_give_back = give_back  # type: ignore[attr-defined]  # for the next run's router
        with self._lock:
            self._engines.append(engine)
        event.listen(engine, "do_connect", connect)
        event.listen(engine, "checkout", self._checked_out, insert=True)
        if engine.dialect.is_async:
            event.listen(engine, "checkin", self._checked_in_from_loop)
        self.committed.watch(engine)

    def _redirect(self, engine: Engine, dialect: Any, arguments: list[Any], keywords: dict[str, Any]) -> None:
        if (engine.url.host, engine.url.port, engine.url.database) == (
            self._target.host,
            self._target.port,
            self._target.database,
        ):
            return
        positional, named = dialect.create_connect_args(self._target.set(drivername=engine.url.drivername))
        arguments[:] = positional
        keywords.update(named)
        if "uri" not in named:  # of an SQLite database in memory
            keywords.pop("uri", None)

    def _checked_out(self, dbapi_connection: Any, record: Any, proxy: Any) -> None:
        if self.way == "nowhere":
            raise self._undeclared()

    def _checked_in_from_loop(self, dbapi_connection: Any, record: Any) -> None:
        """
        Give up a real connection of asyncio: the next test may run in another event loop, where it is of no use.
        """
        if self._pooled is not None and self._pooled[0] != "sandbox" and dbapi_connection is not None:
            record.invalidate()

    def _undeclared(self) -> UndeclaredDatabase:
        return UndeclaredDatabase(f"the database {self.name!r} was used, {self.refusal}")
