"""All databases of an application: declared once, used everywhere."""

from __future__ import annotations

from os import PathLike, fspath
from typing import TYPE_CHECKING, Any, cast, overload

from . import context
from .database import Database
from .declared import Declared
from .errors import AlreadyConfigured, NotConfigured, NoUnitOfWork
from .overriding import Override
from .propagation import Propagation, Transaction, transactional, with_session
from .secrets import mask_text
from .settings import Settings
from .status import unit_options
from .unit_of_work import UnitOfWork

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping
    from typing import Concatenate, ParamSpec, Self, TypeVar

    from sqlalchemy.engine import URL
    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm import Session, scoped_session

    from .aio import AsyncUnitOfWork
    from .database import ServerStatus
    from .overriding import Change
    from .propagation import AsyncTransaction, Transactional, WithSession
    from .retry import Retry
    from .two_phase import InDoubt

    P = ParamSpec("P")
    R = TypeVar("R")
    S = TypeVar("S")


class Databases:
    """
    All databases of an application; lives as long as the application.

    Made at import time, where it does nothing, and configured at the start::

        dbs = Databases()
        dbs.configure(Settings.load())

    Each declared database is an item and an attribute: `dbs["audit"]`, `dbs.audit`.

    Args:
        settings: Configure at once, for scripts.
    """

    def __init__(self, settings: Settings | Mapping[str, Any] | None = None) -> None:
        self._declared: Declared | None = None
        self._settings: Settings | None = None
        self._configured: Settings | None = None
        self._overrides: list[Override] = []
        self._parked: list[Database] = []
        self._watchers: list[Callable[[Database], None]] = []
        if settings is not None:
            self.configure(settings)

    # --- configuration

    def configure(self, settings: Settings | Mapping[str, Any] | None = None) -> None:
        """
        Declare the databases; no connection is made.

        Args:
            settings: The settings, or a mapping with the keys of `stillroom.toml`; None loads them from there.

        Raises:
            SettingsError: Something in them is wrong; the message names the full key.
            TypeError: They are a path or a URL.
            AlreadyConfigured: Units of work of the former configuration are still open.
        """
        if settings is None:
            settings = Settings.load()
        elif isinstance(settings, str | PathLike):
            raise TypeError(
                f"settings are a mapping or a Settings, not {mask_text(fspath(settings))!r}: read a file with "
                "Settings.load(path), and declare a URL as {'databases': {'main': {'url': ...}}}"
            )
        elif not isinstance(settings, Settings):
            settings = Settings.from_mapping(settings)
        changed = self._overridden(settings) or settings
        if self._overrides and changed == self._settings:
            self._configured = settings  # an application under test that is made again and again
            return
        if self._declared is not None:
            if self._declared.open_units:
                units = len(self._declared.open_units)
                raise AlreadyConfigured(
                    f"{units} unit(s) of work are open, so the databases cannot be configured anew; end them first"
                )
            self.close()
            self._declared = None
        self._configured = settings
        self._declare(changed)

    def override(self, change: Change | None = None, /, **databases: str | URL | Mapping[str, Any]) -> Override:
        """
        Put other settings in force for a block, a test or an application under test, and the former ones back.

        For example::

            with dbs.override(main="sqlite:///elsewhere.db"):
                ...
            with dbs.override(main={"pool_size": 1}, audit="sqlite://"):
                ...

        Everything that asks this object sees the change, in every thread; a unit of work that is open keeps the
        databases it has. A database whose settings stay the same keeps its engines; those of the others wait, and are
        there again afterwards. What was made for the block is closed. Blocks nest; `configure` inside one is
        overridden too.

        Args:
            change: The whole settings, or a function that gets the settings and returns others.
            **databases: For a database by name: its URL, or its changed keys as `Settings.replace` takes them.

        Returns:
            A context manager, for `with` and `async with`.

        Raises:
            TypeError: Both forms are used, or neither.
        """
        if (change is None) == (not databases):
            raise TypeError(
                "dbs.override() takes either settings (or a function from settings to settings), or databases by name: "
                'dbs.override(main="sqlite:///test.db")'
            )
        return Override(databases if change is None else change, self._enter_override, self._leave_override)

    def watch_databases(self, watch: Callable[[Database], None]) -> Callable[[], None]:
        """
        Call a function for each database: those declared now, and those that `configure` and `override` make later.

        Args:
            watch: Gets the database, before it is used.

        Returns:
            A function that ends it.
        """
        self._watchers.append(watch)
        for database in self._declared.databases.values() if self._declared is not None else ():
            watch(database)
        return lambda: self._watchers.remove(watch)

    def _enter_override(self, override: Override) -> None:
        self._overrides.append(override)
        try:
            self._redeclare()
        except BaseException:
            self._overrides.remove(override)
            raise

    def _leave_override(self, override: Override) -> list[Database]:
        self._overrides.remove(override)
        self._redeclare()
        used = list(self._declared.databases.values()) if self._declared is not None else []
        left = override.made if self._overrides else list(dict.fromkeys([*self._parked, *override.made]))
        left = [each for each in left if each not in used]
        self._parked = [each for each in self._parked if each not in left] if self._overrides else []
        return left

    def _overridden(self, settings: Settings | None) -> Settings | None:
        for override in self._overrides:
            settings = override.apply(settings)
        return settings

    def _redeclare(self) -> None:
        settings = self._overridden(self._configured)
        if settings is None:
            self._declared = self._settings = None
        elif settings != self._settings:
            self._declare(settings)

    def _declare(self, settings: Settings) -> None:
        """
        Make the databases of `settings`, as far as they are not there already.
        """
        former = list(self._declared.databases.values()) if self._declared is not None else []
        there = [each for each in (*former, *self._parked) if each.is_declared_by(settings)]
        databases = {}
        for name, each in settings.databases.items():
            database = next((known for known in there if known.name == name), None)
            if database is None:
                database = Database(each, name=name, application=settings.application, secret_key=settings.secret_key)
                if self._overrides:
                    self._overrides[-1].made.append(database)
                for watch in self._watchers:
                    watch(database)
            databases[name] = database
        if self._overrides:
            self._parked += [each for each in former if each not in self._parked]
        self._declared = Declared(self, databases, settings.default, settings.on_multiple_writes)
        self._settings = settings

    @property
    def is_configured(self) -> bool:
        """
        Whether `configure` was called.
        """
        return self._declared is not None

    @property
    def declared(self) -> Declared:
        """
        What was declared.

        Raises:
            NotConfigured: `configure` was not called.
        """
        if self._declared is None:
            raise NotConfigured(
                "the databases are not configured: call dbs.configure(Settings.load()) at the start of the application"
            )
        return self._declared

    @property
    def settings(self) -> Settings:
        """
        The settings in force.
        """
        _ = self.declared
        return cast("Settings", self._settings)

    def __getitem__(self, name: str) -> Database:
        return self.declared.database(name)

    def __getattr__(self, name: str) -> Database:
        declared = self.__dict__.get("_declared")
        if declared is not None and name in declared:
            return cast("Database", declared.database(name))
        if declared is None and not name.startswith("_"):
            raise NotConfigured(f"dbs.{name}: the databases are not configured yet; call dbs.configure() first")
        known = ", ".join(map(repr, declared)) if declared is not None else "none"
        raise AttributeError(f"no attribute and no database is named {name!r}; the databases are {known}")

    def __iter__(self) -> Iterator[str]:
        return iter(self.declared)

    def __len__(self) -> int:
        return len(self.declared.databases)

    def __contains__(self, name: object) -> bool:
        return self._declared is not None and name in self._declared

    @property
    def default(self) -> Database:
        """
        The default database.
        """
        return self[self.declared.default]

    def __repr__(self) -> str:
        if self._declared is None:
            return "<Databases, not configured>"
        return f"<Databases {', '.join(self._declared)}; {len(self._declared.open_units)} unit(s) of work open>"

    # --- units of work

    def unit_of_work(self, **options: Any) -> UnitOfWork:
        """
        Make a unit of work, to be entered with `with`.

        Args:
            **options: See `stillroom.status.UnitOptions`: `commit`, `read_only`, `isolation`, `timeout` (seconds),
                `on_multiple_writes`, `info`.

        Raises:
            NotConfigured: `configure` was not called.
            TypeError: There is no such option.
            ValueError: An option has no such value.
        """
        return UnitOfWork(self._declared or self.declared, unit_options(options))

    def async_unit_of_work(self, **options: Any) -> AsyncUnitOfWork:
        """
        Same as `unit_of_work`, but for asyncio: entered with `async with`.

        Raises:
            MissingDriver: greenlet, which SQLAlchemy needs for asyncio, is not installed.
        """
        from .aio import AsyncUnitOfWork

        return AsyncUnitOfWork(self.declared, unit_options(options))

    @property
    def current(self) -> UnitOfWork | AsyncUnitOfWork:
        """
        The innermost unit of work of this thread or asyncio task.

        Raises:
            NoUnitOfWork: None is open here.
        """
        unit = context.innermost(self)
        if unit is None:
            raise NoUnitOfWork(
                "no unit of work is open in this thread or task; open one: `with dbs.unit_of_work() as uow:`, or "
                "`async with dbs.async_unit_of_work() as uow:`"
            )
        if not unit.is_active:
            raise NoUnitOfWork(
                f"the unit of work that this task inherited is not usable any more ({unit!r}); open one of its own: "
                "`with dbs.unit_of_work() as uow:`, or `async with dbs.async_unit_of_work() as uow:`"
            )
        return cast("UnitOfWork | AsyncUnitOfWork", unit)

    @property
    def has_current(self) -> bool:
        """
        Whether a unit of work is open in this thread or asyncio task.
        """
        unit = context.innermost(self)
        return unit is not None and unit.is_active

    def session(self, name: str | None = None, *, role: Any = None) -> Session | AsyncSession:
        """
        Return a session of the current unit of work; see `UnitOfWork.session`.

        Raises:
            NoUnitOfWork: None is open here.
        """
        return self.current.session(name, role=role)

    def scoped(self, name: str | None = None) -> scoped_session[Session]:
        """
        Return a proxy with the interface of `sqlalchemy.orm.scoped_session` for the current unit's session.

        For code that imports one session object: each use finds the session of the unit of work that is open then.

        Args:
            name: The database; None for the default one.
        """
        from .scoped import CurrentSession

        return CurrentSession(self, name)

    # --- functions

    @overload
    def transactional(
        self, function: Callable[Concatenate[AsyncUnitOfWork, P], Awaitable[R]], /
    ) -> Callable[P, Awaitable[R]]: ...

    @overload
    def transactional(self, function: Callable[Concatenate[UnitOfWork, P], R], /) -> Callable[P, R]: ...  # type: ignore[overload-overlap]  # no function takes both kinds of units

    @overload
    def transactional(
        self, function: Callable[Concatenate[S, AsyncUnitOfWork, P], Awaitable[R]], /
    ) -> Callable[Concatenate[S, P], Awaitable[R]]: ...

    @overload
    def transactional(
        self, function: Callable[Concatenate[S, UnitOfWork, P], R], /
    ) -> Callable[Concatenate[S, P], R]: ...

    @overload
    def transactional(
        self,
        function: None = None,
        /,
        *,
        propagation: Propagation = "required",
        retry: Retry | None = None,
        **options: Any,
    ) -> Transactional: ...

    def transactional(
        self,
        function: Any = None,
        /,
        *,
        propagation: Propagation = "required",
        retry: Retry | None = None,
        **options: Any,
    ) -> Any:
        """
        Make a function run in a unit of work, which it gets as its first argument, after `self`.

        For example::

            @dbs.transactional(retry=Retry(attempts=5))
            def transfer(uow, source, target, amount): ...

            transfer(source, target, amount)

        A coroutine function gets an `AsyncUnitOfWork`.

        Args:
            function: The function, where the decorator is used without parentheses.
            propagation: What happens if a unit of work is open already: "required" joins it or opens one, "new" opens
                one of its own, "nested" is a savepoint in it (or opens one), "mandatory" needs one, "never" refuses.
            retry: Try again where nothing was committed; only where this call opens the outermost unit of work.
            **options: For the unit of work it opens; see `unit_of_work`.

        Raises:
            TypeError: The function is a generator.
        """
        decorate = transactional(self, propagation, retry, unit_options(options))
        return decorate if function is None else decorate(function)

    def transaction(self, *, propagation: Propagation = "required", **options: Any) -> Transaction:
        """
        Same as `transactional`, but as a context manager; it cannot retry.
        """
        return Transaction(self, propagation, unit_options(options))

    def async_transaction(self, *, propagation: Propagation = "required", **options: Any) -> AsyncTransaction:
        """
        Same as `transaction`, but for asyncio.
        """
        from .propagation import AsyncTransaction

        return AsyncTransaction(self, propagation, unit_options(options))

    def with_session(self, name: str | None = None, *, role: Any = None, retry: Retry | None = None) -> WithSession:
        """
        Make a function get a session as its first argument, in the current unit of work or one of its own.

        Args:
            name: The database; None for the default one.
            role: As for `UnitOfWork.session`.
            retry: As for `transactional`.
        """
        return with_session(self, name, role, retry)

    # --- servers

    def ping(self) -> list[ServerStatus]:
        """
        Ask each server for a sign of life.
        """
        return [status for database in self.declared.databases.values() for status in database.ping()]

    def recover(self, *, min_age: float = 60.0, dry_run: bool = False) -> list[InDoubt]:
        """
        Settle the transactions that a crash during a two-phase commit left prepared.

        Args:
            min_age: Younger ones are left alone, in seconds.
            dry_run: Only list them.
        """
        from . import two_phase

        return two_phase.recover(self.declared, min_age=min_age, dry_run=dry_run)

    def close(self) -> None:
        """
        Close every idle connection. The databases stay configured, and the next use opens new connections.
        """
        if self._declared is not None:
            for database in self._declared.databases.values():
                database.close()

    async def aclose(self) -> None:
        """
        Same as `close`, and for the connections of asyncio too.
        """
        if self._declared is not None:
            for database in self._declared.databases.values():
                await database.aclose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()
