"""Factories of factory_boy and polyfactory whose rows go into the current unit of work, each into its own database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, cast

from sqlalchemy import inspect, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session
from sqlalchemy.util.concurrency import in_greenlet

from stillroom import MissingExtra, NoUnitOfWork

from .errors import TestingError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from factory.alchemy import SQLAlchemyModelFactory
    from polyfactory.factories.sqlalchemy_factory import SQLAlchemyFactory

    from stillroom import Databases

    class FactoryBoyBase(SQLAlchemyModelFactory):
        """
        What `factory_boy_base` adds, for type checkers.
        """

        @classmethod
        async def create_async(cls, **kwargs: Any) -> Any: ...

        @classmethod
        async def create_batch_async(cls, size: int, **kwargs: Any) -> list[Any]: ...

        @classmethod
        def reset_sequences(cls) -> None: ...


__all__ = ["factory_boy_base", "polyfactory_base"]

T = TypeVar("T")

_NOTE = (
    "a factory puts its rows into the current unit of work: let the test ask for the fixture `uow` (`async_uow` with "
    "asyncio), or use `with dbs.unit_of_work():`; what needs no database is made with build()"
)


def factory_boy_base(databases: Databases, name: str | None = None) -> type[FactoryBoyBase]:
    """
    Return what factories of factory_boy for one database inherit from; they name their model only.

    For example::

        Main = factory_boy_base(dbs, "main")

        class UserFactory(Main):
            class Meta:
                model = User

    `create` adds to the session of the unit of work that is current at that moment, and flushes; it never commits.
    With asyncio, `create_async` and `create_batch_async` do. `Main.reset_sequences()` begins all sequences anew.

    Args:
        databases: The application's; need not be configured yet.
        name: The database; None for the default one.

    Raises:
        MissingExtra: factory_boy is not installed.
    """
    try:
        from factory.alchemy import SQLAlchemyModelFactory
    except ImportError as error:
        raise MissingExtra("factory_boy is not installed: pip install factory_boy", name="factory") from error
    rows = _Rows(databases, name)

    class DatabaseFactory(SQLAlchemyModelFactory):
        """
        Puts rows into one database.
        """

        class Meta:
            abstract = True

        @classmethod
        def _create(cls, model_class: type[Any], *args: Any, **kwargs: Any) -> Any:
            meta: Any = cls._meta
            _refuse_session(cls.__name__, meta)
            if not meta.sqlalchemy_get_or_create:
                return rows.save([model_class(*args, **kwargs)])[0]
            missing = [key for key in meta.sqlalchemy_get_or_create if key not in kwargs]
            if missing:
                raise TestingError(f"{cls.__name__} has no value for {missing[0]!r} of its sqlalchemy_get_or_create")
            keys = {key: kwargs.pop(key) for key in meta.sqlalchemy_get_or_create}
            # What the caller said, without what was made up; so factory_boy itself keeps it between the two.
            said = cls._original_params or {}
            return rows.get_or_create(
                model_class,
                keys,
                {key: said[key] for key in keys if key in said},
                lambda: model_class(*args, **keys, **kwargs),
            )

        @classmethod
        async def create_async(cls, **kwargs: Any) -> Any:
            """
            Same as `create`, but for asyncio.
            """
            return await rows.run(lambda: cls.create(**kwargs))

        @classmethod
        async def create_batch_async(cls, size: int, **kwargs: Any) -> list[Any]:
            """
            Same as `create_batch`, but for asyncio.
            """
            return await rows.run(lambda: cls.create_batch(size, **kwargs))

        @classmethod
        def reset_sequences(cls) -> None:
            """
            Begin the sequences of this factory and of all that inherit from it anew.
            """
            meta: Any = cls._meta
            meta.reset_sequence(force=True)
            for each in cls.__subclasses__():
                each.reset_sequences()

    return cast("type[FactoryBoyBase]", DatabaseFactory)


def polyfactory_base(databases: Databases, name: str | None = None) -> type[SQLAlchemyFactory[Any]]:
    """
    Return what factories of polyfactory for one database inherit from; they name their model only.

    For example::

        Main = polyfactory_base(dbs, "main")

        class UserFactory(Main[User]): ...

        Users = Main.create_factory(User)  # the same; typed

    `create_sync` and `create_batch_sync` add to the session of the unit of work that is current at that moment, and
    flush; they never commit. So do `create_async` and `create_batch_async` with asyncio. Keys that the database or the
    model makes by itself are left to them.

    Args:
        databases: The application's; need not be configured yet.
        name: The database; None for the default one.

    Raises:
        MissingExtra: polyfactory is not installed.
    """
    try:
        from polyfactory.factories.base import BaseFactory
        from polyfactory.factories.sqlalchemy_factory import SQLAlchemyFactory
    except ImportError as error:
        raise MissingExtra("polyfactory is not installed: pip install polyfactory", name="polyfactory") from error
    rows = _Rows(databases, name)

    class Unregistered:
        """
        Keeps bases out of polyfactory's list, which is the process's: the last one would serve all other factories too.
        """

        def __init_subclass__(cls, **kwargs: Any) -> None:
            is_base = cls.__dict__.get("__is_base_factory__", False)
            # What BaseFactory does is to register a base, or to look for the model of another class.
            (super(BaseFactory, cls) if is_base else super()).__init_subclass__(**kwargs)

    class DatabaseFactory(Unregistered, SQLAlchemyFactory[T]):
        """
        Puts rows into one database.
        """

        __is_base_factory__ = True
        __sync_persistence__ = rows

        @classmethod
        def should_column_be_set(cls, column: Any) -> bool:
            # A made-up number of four digits is there twice soon.
            return super().should_column_be_set(column) and not _makes_itself(column)

        @classmethod
        async def create_async(cls, **kwargs: Any) -> T:
            return await rows.run(lambda: cls.create_sync(**kwargs))

        @classmethod
        async def create_batch_async(cls, size: int, **kwargs: Any) -> list[T]:
            return await rows.run(lambda: cls.create_batch_sync(size, **kwargs))

    class MadeHere(dict[Any, Any]):
        """
        Says that related objects are made by this base too.
        """

        def get(self, model: Any, default: Any = None) -> Any:
            return DatabaseFactory if DatabaseFactory.is_supported_type(model) else default

    DatabaseFactory.__base_factory_overrides__ = MadeHere({None: None})  # an empty one is not asked
    return DatabaseFactory


class _Rows:
    """
    Puts objects into the session of the current unit of work; nothing is kept from one to the next.

    Args:
        databases: The application's.
        name: The database; None for the default one.
    """

    def __init__(self, databases: Databases, name: str | None) -> None:
        self.databases = databases
        self.name = name

    def _session(self) -> Any:
        try:
            return self.databases.session(self.name)
        except NoUnitOfWork as error:
            error.add_note(_NOTE)
            raise

    def session(self) -> Session:
        """
        Return the session; in a unit of work of asyncio only inside of `run`.

        Raises:
            NoUnitOfWork: None is open here.
            TestingError: The unit of work is one of asyncio, and nobody awaits.
        """
        session = self._session()
        if isinstance(session, Session):
            return session
        if not in_greenlet():
            raise TestingError(
                "the current unit of work is one of asyncio, so its rows are made with `await Factory.create_async()` "
                "or `await Factory.create_batch_async(n)`"
            )
        found: Session = session.sync_session
        return found

    async def run(self, make: Callable[[], T]) -> T:
        """
        Call what makes rows where `session` may be used.

        Raises:
            NoUnitOfWork: None is open here.
            TestingError: The unit of work is not one of asyncio.
        """
        session = self._session()
        if isinstance(session, Session):
            raise TestingError(
                "create_async() needs a unit of work of asyncio, `async with dbs.async_unit_of_work()` or the fixture "
                "`async_uow`; the current one is synchronous, so its rows are made without _async and await"
            )

        def call(_: Session) -> T:
            return make()

        made: T = await session.run_sync(call)
        return made

    def save(self, data: Any) -> Any:
        """
        Add objects, or one, and flush; called by polyfactory too.
        """
        objects = data if isinstance(data, list) else [data]
        session = self.session()
        session.add_all(objects)
        session.flush()
        if in_greenlet():  # later nobody could load them on first use
            for each in objects:
                unknown = inspect(each).expired_attributes
                if unknown:
                    session.refresh(each, unknown)
        return data

    save_many = save

    def get_or_create(
        self, model: type[Any], keys: Mapping[str, Any], said: Mapping[str, Any], make: Callable[[], Any]
    ) -> Any:
        """
        Return the row that has all of `keys`, a new one, or the one in its way that has all of `said`.
        """
        session = self.session()
        found = session.scalars(select(model).filter_by(**keys)).one_or_none()
        if found is not None:
            return found
        try:
            with session.begin_nested():  # the rows made before are kept
                return self.save(make())
        except IntegrityError:
            found = session.scalars(select(model).filter_by(**said)).one_or_none() if said else None
            if found is None:
                raise
            return found


def _refuse_session(factory: str, meta: Any) -> None:
    """
    Refuse what would lead rows elsewhere, or commit them.
    """
    options = ("sqlalchemy_session", "sqlalchemy_session_factory")
    wrong: Sequence[str] = [each for each in options if getattr(meta, each) is not None]
    if meta.sqlalchemy_session_persistence == "commit":
        wrong = [*wrong, "sqlalchemy_session_persistence"]
    if wrong:
        raise TestingError(
            f"{factory}.Meta.{wrong[0]} is set, but its base puts rows into the current unit of work, which whoever "
            "opened it commits; take the option out"
        )


def _makes_itself(column: Any) -> bool:
    if not column.primary_key or column.foreign_keys:
        return False
    table = column.table
    return column is table.autoincrement_column or column.default is not None or column.server_default is not None
