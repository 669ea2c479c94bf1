"""One named database: a primary server, its replicas, and the engines for each way of using them."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from sqlalchemy import MetaData
from sqlalchemy.engine import URL
from sqlalchemy.exc import SQLAlchemyError

from .backends import Begin, Role, backend_for
from .declared import Declared
from .engines import make_engine
from .errors import NotDisposable, StillroomError
from .importing import import_models, load_metadata
from .secrets import mask_text, mask_url
from .sessions import ReaderSession, UnitSession
from .settings import DatabaseSettings, Settings
from .status import unit_options
from .unit_of_work import UnitOfWork

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping
    from typing import Self

    from sqlalchemy.engine import Connection, Engine
    from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
    from sqlalchemy.orm import Session

    from .core import UnitCore

    EngineWatcher = Callable[[Engine, Role], None]


_PLAIN = Begin()


@dataclass(frozen=True)
class ServerStatus:
    """
    What one server answered to a ping.

    Attributes:
        database: The name of the database.
        role: "writer" for the primary server, "reader" for where readers go.
        url: Where it is, without secrets.
        ok: It answered.
        seconds: How long the answer took.
        version: What it says it is.
        recovering: It is a standby.
        read_only: What keeps this role from writing: "role" (its login has no right to), "connection" (the server
            refuses, but the application can switch that off), "none".
        read_only_gaps: What is not stopped on that rung.
        error: Why it did not answer, without secrets.
    """

    database: str
    role: Literal["writer", "reader"]
    url: str
    ok: bool
    seconds: float
    version: str = ""
    recovering: bool = False
    read_only: Literal["role", "connection", "none"] = "none"
    read_only_gaps: tuple[str, ...] = ()
    error: str = ""


class Database:
    """
    One logical database. Making one does nothing; engines are made on first use.

    Part of a `Databases`, or alone in a script::

        with Database("sqlite:///x.db").session() as session:
            session.add(...)

    Args:
        settings: Its settings, or only its URL.
        name: Its name, for messages.
        application: The name that the server shows for our connections, where it shows one.
        secret_key: What cursors of pages are signed with; None for a key derived from the URL.

    Raises:
        SettingsError: The URL or a setting is not valid.
    """

    def __init__(
        self,
        settings: DatabaseSettings | URL | str,
        *,
        name: str = "main",
        application: str = "stillroom",
        secret_key: str | None = None,
    ) -> None:
        if not isinstance(settings, DatabaseSettings):
            url = settings.render_as_string(hide_password=False) if isinstance(settings, URL) else settings
            settings = Settings.from_mapping({"default": name, "databases": {name: {"url": url}}}, environ={})[name]
        self.name = name
        self.application = application
        self.secret_key = secret_key
        self.settings = settings
        self.backend = backend_for(settings.url)
        self.has_decisions = False
        self.finished_gids: deque[str] = deque(maxlen=10_000)
        self._lock = threading.RLock()
        self._engines: dict[tuple[Role, Begin], Engine] = {}
        self._async_engines: dict[tuple[Role, Begin], AsyncEngine] = {}
        self._writers_engine: Engine | None = None  # the one that most sessions want
        self._watchers: list[EngineWatcher] = []
        self._url = self.backend.url_of(settings.url)
        self._anchor: Any = None
        self._marking_prepared = False
        self._models_imported = False
        self._declared: Declared | None = None

    def __repr__(self) -> str:
        return f"<Database {self.name!r} {mask_url(self.settings.url)}>"

    # --- engines

    @property
    def engine(self) -> Engine:
        """
        The engine that writers and loggers use.
        """
        return self.engine_for("writer")

    @property
    def reader_engine(self) -> Engine:
        """
        The engine that readers use: read only, each statement by itself.
        """
        return self.engine_for("reader")

    @property
    def async_engine(self) -> AsyncEngine:
        """
        Same as `engine`, but for asyncio.
        """
        return self.async_engine_for("writer")

    @property
    def async_reader_engine(self) -> AsyncEngine:
        """
        Same as `reader_engine`, but for asyncio.
        """
        return self.async_engine_for("reader")

    def reader_url(self) -> URL:
        """
        Return where readers go: the first replica, or the primary server where there is none.
        """
        return self.settings.replicas[0] if self.settings.replicas else self._url

    def engine_for(self, role: Role, begin: Begin = _PLAIN) -> Engine:
        """
        Return the synchronous engine for a role, whose transactions begin as `begin` says.
        """
        engine = self._engines.get((role, begin))
        if engine is None:
            with self._lock:
                engine = self._engines.get((role, begin))
                if engine is None:
                    engine = self._engines[role, begin] = self._make(role, begin)
                    if role == "writer" and begin == _PLAIN:
                        self._writers_engine = engine
        return engine

    def _make(self, role: Role, begin: Begin) -> Engine:
        if begin != _PLAIN:
            return self.backend.variant(self.engine_for(role), begin)
        self._prepare()
        engine = make_engine(self._settings_for(role), self.backend, self._url_for(role), self.name, role)
        for watch in self._watchers:
            watch(engine, role)
        return engine

    def async_engine_for(self, role: Role, begin: Begin = _PLAIN) -> AsyncEngine:
        """
        Same as `engine_for`, but for asyncio.
        """
        engine = self._async_engines.get((role, begin))
        if engine is None:
            with self._lock:
                engine = self._async_engines.get((role, begin))
                if engine is None:
                    engine = self._async_engines[role, begin] = self._make_async(role, begin)
        return engine

    def _make_async(self, role: Role, begin: Begin) -> AsyncEngine:
        from .aio.engines import async_variant, make_async_engine

        if begin != _PLAIN:
            return async_variant(self.async_engine_for(role), self.backend, begin)
        self._prepare()
        engine = make_async_engine(self._settings_for(role), self.backend, self._url_for(role), self.name, role)
        for watch in self._watchers:
            watch(engine.sync_engine, role)
        return engine

    def watch_engines(self, watch: EngineWatcher) -> Callable[[], None]:
        """
        Call a function for each engine of this database: those that are there, and those that are made later.

        Engines that differ in how their transactions begin share a pool and its events; the function gets the first of
        them only. Of an asyncio engine it gets the `sync_engine`, which is where events are listened for.

        Args:
            watch: Gets the engine and its role: "writer", "reader", or "control" for Stillroom's own questions.

        Returns:
            A function that ends it for engines made later.
        """
        with self._lock:
            self._watchers.append(watch)
            engines = [(engine, role) for (role, begin), engine in self._engines.items() if begin == _PLAIN]
            engines += [(e.sync_engine, role) for (role, begin), e in self._async_engines.items() if begin == _PLAIN]
        for engine, role in engines:
            watch(engine, role)
        return lambda: self._watchers.remove(watch)

    def is_declared_by(self, settings: Settings) -> bool:
        """
        Say whether `settings` declare a database of this name just as this one is.
        """
        shared = (settings.application, settings.secret_key)
        return settings.databases.get(self.name) == self.settings and shared == (self.application, self.secret_key)

    def _url_for(self, role: Role) -> URL:
        return self.reader_url() if role == "reader" else self._url

    def _settings_for(self, role: Role) -> DatabaseSettings:
        settings = self.settings
        if self.backend.names_applications:
            names = {"application_name": self.application}
            settings = msgspec.structs.replace(settings, server_settings=names | settings.server_settings)
        if role == "control":
            settings = msgspec.structs.replace(settings, pool_size=1, max_overflow=4)
        return settings

    def _prepare(self) -> None:
        """
        Do what must be done before the first connection: import the models, keep a database in memory alive.
        """
        self._import_models()
        if self._anchor is None:
            self._anchor = self.backend.keep_alive(self._url)

    # --- sessions and connections

    def open_session(self, unit: UnitCore, role: str, *, snapshot: bool = False) -> UnitSession:
        """
        Open a session for a unit of work; users ask the unit of work for it.
        """
        engine, options = self._writers_engine, unit.options
        is_plain = options.isolation is None and options.on_multiple_writes is None and not unit.declared.is_two_phase
        if role == "reader" or engine is None or not is_plain:
            engine = self.engine_for(*self.how(unit, role, snapshot=snapshot))
        make = ReaderSession if role == "reader" else UnitSession
        session = make(engine, expire_on_commit=False)
        session.unit = unit
        session.database_name = self.name
        session.role = role
        return session

    def how(self, unit: UnitCore, role: str, *, snapshot: bool) -> tuple[Role, Begin]:
        """
        Return the engine's role and how transactions begin, for a session of `unit`.
        """
        if role == "reader":
            return "reader", Begin(snapshot=snapshot)
        isolation = unit.options.isolation
        policy = unit.options.on_multiple_writes or unit.declared.on_multiple_writes
        two_phase = role == "writer" and policy == "two_phase" and self.backend.keeps_prepared
        if isolation is None and not two_phase:
            return "writer", _PLAIN
        return "writer", Begin(isolation=isolation, two_phase=two_phase)

    def unit_of_work(self, **options: Any) -> UnitOfWork:
        """
        Open a unit of work over this database alone; see `stillroom.status.UnitOptions` for the options.
        """
        return UnitOfWork(self._alone(), unit_options(options))

    @contextlib.contextmanager
    def session(self, *, role: Literal["writer", "reader"] = "writer", **options: Any) -> Iterator[Session]:
        """
        Give a session in a unit of work of its own: committed at the end, rolled back after an exception.

        Args:
            role: "writer" or "reader".
            **options: As for `unit_of_work`.
        """
        with self.unit_of_work(**options) as unit:
            yield unit.session(self.name, role=role)

    @contextlib.asynccontextmanager
    async def async_session(
        self, *, role: Literal["writer", "reader"] = "writer", **options: Any
    ) -> AsyncIterator[AsyncSession]:
        """
        Same as `session`, but for asyncio.
        """
        from .aio import AsyncUnitOfWork

        async with AsyncUnitOfWork(self._alone(), unit_options(options)) as unit:
            yield unit.session(self.name, role=role)

    def _alone(self) -> Declared:
        if self._declared is None:
            self._declared = Declared(self, {self.name: self}, self.name)
        return self._declared

    def connect(self) -> Connection:
        """
        Check a Core connection out of the writers' engine.
        """
        return self.engine.connect()

    def begin(self) -> contextlib.AbstractContextManager[Connection]:
        """
        Give a Core connection in a transaction that is committed at the end of the block.
        """
        return self.engine.begin()

    @contextlib.contextmanager
    def control(self, *, is_async: bool = False) -> Iterator[Connection]:
        """
        Give a connection on which each statement commits by itself, apart from the application's pool.

        Args:
            is_async: Over the asyncio engine; only inside SQLAlchemy's greenlet.
        """
        engine = self.async_engine_for("control").sync_engine if is_async else self.engine_for("control")
        with engine.connect() as connection:
            yield connection
            connection.commit()

    def prepare_marking(self, *, is_async: bool) -> None:
        """
        Make what verified commits need on this database, once.
        """
        if not self._marking_prepared:
            with self.control(is_async=is_async) as connection:
                self.backend.prepare_marking(connection)
            self._marking_prepared = True

    # --- models

    @property
    def metadata(self) -> MetaData:
        """
        The MetaData that the settings name with `metadata`, complete, since all `models` are imported first.

        Raises:
            SettingsError: No metadata is named, or a module cannot be imported.
        """
        self._import_models()
        if self.settings.metadata is None:
            return MetaData()
        return load_metadata(self.settings.metadata, f"databases.{self.name}.metadata")

    def _import_models(self) -> None:
        if not self._models_imported:
            self._models_imported = True
            try:
                import_models(self.settings.models, f"databases.{self.name}.models")
            except BaseException:
                self._models_imported = False
                raise

    # --- the database itself

    def exists(self) -> bool:
        """
        Say whether the database exists on its server.
        """
        return self.backend.exists(self._url, self.settings.admin_url)

    def create(self) -> None:
        """
        Create the database on its server; a database that exists is left as it is.
        """
        if not self.exists():
            self.backend.create(self._url, self.settings.admin_url)

    def drop(self) -> None:
        """
        Drop the database and everything in it.

        Raises:
            NotDisposable: The settings do not say `disposable = true`.
        """
        self.require_disposable("drop")
        self.close()
        self.backend.drop(self._url, self.settings.admin_url)

    def recreate(self) -> None:
        """
        Drop the database and create it anew, empty.

        Raises:
            NotDisposable: The settings do not say `disposable = true`.
        """
        self.require_disposable("recreate")
        self.drop()
        self.backend.create(self._url, self.settings.admin_url)

    def require_disposable(self, what: str) -> None:
        """
        Refuse what would destroy the database, unless the settings allow it.

        Args:
            what: What it is, for the message.

        Raises:
            NotDisposable: They do not say `disposable = true`.
        """
        if not self.settings.disposable:
            raise NotDisposable(
                f"refusing to {what} the database {self.name!r} ({mask_url(self.settings.url)}): the settings do not "
                f"mark it disposable. If it may be lost, set databases.{self.name}.disposable = true; "
                "the profile 'test' does"
            )

    def ping(self) -> list[ServerStatus]:
        """
        Ask each server of this database for a sign of life; never raises for a server that is down.
        """
        found = [self._ping("writer")]
        if self.settings.role != "logger":
            found.append(self._ping("reader"))
        return found

    def _ping(self, role: Literal["writer", "reader"]) -> ServerStatus:
        url = mask_url(self._url_for(role) if self._anchor is None else self.settings.url)
        start = monotonic()
        try:
            with self.engine_for(role).connect() as connection:
                server = self.backend.server(connection)
        except (SQLAlchemyError, StillroomError, OSError) as error:
            text = mask_text(str(error).partition("\n(Background")[0])
            return ServerStatus(self.name, role, url, ok=False, seconds=monotonic() - start, error=text)
        return ServerStatus(
            self.name,
            role,
            url,
            ok=True,
            seconds=monotonic() - start,
            version=server.version,
            recovering=server.recovering,
            read_only=server.read_only,
            read_only_gaps=server.read_only_gaps,
        )

    def pools(self) -> Mapping[str, Any]:
        """
        Return the connection pools that exist now, by role and world ("writer", "reader, asyncio", ...).
        """
        found: dict[str, Any] = {}
        for (role, begin), engine in self._engines.items():
            if begin == _PLAIN:
                found[role] = engine.pool
        for (role, begin), async_engine in self._async_engines.items():
            if begin == _PLAIN:
                found[f"{role}, asyncio"] = async_engine.pool
        return found

    def close(self) -> None:
        """
        Close every idle connection; the next use opens new ones. Connections in use are closed on their return.

        A database in memory is gone after this. Connections of asyncio are closed by `aclose` only.
        """
        with self._lock:
            engines, self._engines = self._engines, {}
            self._writers_engine = None
            for (_, begin), engine in engines.items():
                if begin == _PLAIN:  # the variants share its pool
                    engine.dispose()
            if self._anchor is not None:
                self._anchor.close()
                self._anchor = None

    async def aclose(self) -> None:
        """
        Same as `close`, and for the connections of asyncio too.
        """
        engines, self._async_engines = self._async_engines, {}
        for (_, begin), engine in engines.items():
            if begin == _PLAIN:
                await engine.dispose()
        self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()
