"""Repositories for asyncio: thin, every rule is the synchronous one, run inside SQLAlchemy's greenlets."""

from __future__ import annotations

from contextlib import AsyncExitStack
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar, Generic, cast

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session
from typing_extensions import TypeVar

from ..databases import Databases
from ..repository import paging, reading, results, upserting, writing
from ..repository.binding import Binding, M, R
from ..repository.bulk import exporting, loading
from ..repository.bulk.batches import once
from ..repository.bulk.upserting import upsert_many
from ..repository.problems import raise_translated
from ..repository.query import Query, as_conditions
from ..retry import Retry
from .unit_of_work import AsyncUnitOfWork

if TYPE_CHECKING:
    import builtins
    from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
    from os import PathLike
    from typing import IO, Self, TypeAlias

    from sqlalchemy.orm.interfaces import ORMOption

    from ..repository.bulk.exporting import Format
    from ..repository.paging.pages import CursorPage, Page, Total
    from ..repository.plan import Plan
    from ..repository.query import Lock, Where
    from ..repository.reading import Missing
    from ..status import SessionRole

    AsyncSource: TypeAlias = "AsyncUnitOfWork | AsyncSession | async_scoped_session[AsyncSession] | Databases"

T = TypeVar("T")


class AsyncBound(Binding[M, R]):
    """
    Same as `Bound`, but for asyncio.
    """

    def __init__(self, source: AsyncSource, *, role: SessionRole | None = None) -> None:
        super().__init__(source, role)
        self._check_source(role, AsyncUnitOfWork, (AsyncSession, async_scoped_session))

    @classmethod
    def autocommit(cls, databases: Databases, *, retry: Retry | None = None) -> Self:
        """
        Same as `Bound.autocommit`, but for asyncio.
        """
        self = cls(databases)
        role = self._role

        @databases.transactional(propagation="new", retry=retry or Retry(), read_only=role == "reader")
        async def units(unit: AsyncUnitOfWork, function: Callable[..., Any], plan: Plan, args: tuple[Any, ...]) -> Any:
            return await unit.session(plan.database, role=role).run_sync(function, plan, *args)

        self._units = units
        return self

    @property
    def session(self) -> AsyncSession:
        """
        Same as `Bound.session`, but for asyncio.
        """
        source = self._source
        if self._session is None:
            if isinstance(source, Databases):
                return cast("AsyncSession", self._current_session(AsyncUnitOfWork))
            if isinstance(source, async_scoped_session):
                return cast("AsyncSession", source())
            is_session = isinstance(source, AsyncSession)
            self._session = source if is_session else source.session(self.plan.database, role=self._role)
        return cast("AsyncSession", self._session)

    async def _run(self, function: Callable[..., Any], *args: Any) -> Any:
        try:
            if self._units is not None:
                return await self._units(function, self.plan, args)
            return await (self._session or self.session).run_sync(function, self.plan, *args)
        except DBAPIError as error:
            raise_translated(error, self.plan)

    async def _stream(self, function: Callable[..., Iterator[Any]], query: Query, batch: int) -> AsyncIterator[Any]:
        try:
            async with AsyncExitStack() as stack:
                session = self._session_until(stack)
                items = function(session.sync_session, self.plan, query, batch)
                stack.push_async_callback(session.run_sync, lambda _: items.close())  # type: ignore[attr-defined]
                while found := await session.run_sync(lambda _: list(islice(items, batch))):
                    for item in found:
                        yield item
        except DBAPIError as error:
            raise_translated(error, self.plan)

    def _session_until(self, stack: AsyncExitStack) -> AsyncSession:
        if self._units is None:
            return self.session
        unit = cast("Databases", self._source).async_unit_of_work(read_only=self._role == "reader")
        unit.core.start()  # as in the synchronous form: it is not to be the current one
        stack.push_async_exit(unit)
        return unit.session(self.plan.database, role=self._role)


class AsyncReading(AsyncBound[M, R], Generic[M, R]):
    """
    Same as `Reading`, but for asyncio.
    """

    async def get(self, key: Any, /, *, options: Sequence[ORMOption] = (), for_update: Lock = False) -> R | None:
        """
        Same as `Reading.get`, but for asyncio.
        """
        return cast("R | None", await self._run(reading.get, key, options, for_update))

    async def get_many(
        self, keys: Iterable[Any], /, *, options: Sequence[ORMOption] = (), missing: Missing = "raise"
    ) -> builtins.list[R]:
        """
        Same as `Reading.get_many`, but for asyncio.
        """
        return cast("list[R]", await self._run(reading.get_many, [*keys], options, missing))

    async def one(self, *where: Where, options: Sequence[ORMOption] = (), for_update: Lock = False, **equal: Any) -> R:
        """
        Same as `Reading.one`, but for asyncio.
        """
        return cast("R", await self._run(reading.one, Query(where, equal, options=options, for_update=for_update)))

    async def one_or_none(
        self, *where: Where, options: Sequence[ORMOption] = (), for_update: Lock = False, **equal: Any
    ) -> R | None:
        """
        Same as `Reading.one_or_none`, but for asyncio.
        """
        query = Query(where, equal, options=options, for_update=for_update)
        return cast("R | None", await self._run(reading.one_or_none, query))

    async def first(
        self,
        *where: Where,
        order_by: Any = None,
        options: Sequence[ORMOption] = (),
        for_update: Lock = False,
        **equal: Any,
    ) -> R | None:
        """
        Same as `Reading.first`, but for asyncio.
        """
        query = Query(where, equal, order_by, options=options, for_update=for_update)
        return cast("R | None", await self._run(reading.first, query))

    async def list(
        self,
        *where: Where,
        order_by: Any = None,
        limit: int | None = None,
        offset: int | None = None,
        options: Sequence[ORMOption] = (),
        for_update: Lock = False,
        **equal: Any,
    ) -> builtins.list[R]:
        """
        Same as `Reading.list`, but for asyncio.
        """
        query = Query(where, equal, order_by, limit, offset, options, for_update)
        return cast("list[R]", await self._run(reading.find, query))

    async def count(self, *where: Where, **equal: Any) -> int:
        """
        Same as `Reading.count`, but for asyncio.
        """
        return cast("int", await self._run(reading.count, Query(where, equal)))

    async def exists(self, *where: Where, **equal: Any) -> bool:
        """
        Same as `Reading.exists`, but for asyncio.
        """
        return cast("bool", await self._run(reading.exists, Query(where, equal)))

    def stream(
        self, *where: Where, order_by: Any = None, options: Sequence[ORMOption] = (), batch: int = 1000, **equal: Any
    ) -> AsyncIterator[R]:
        """
        Same as `Reading.stream`, but for asyncio.
        """
        return cast(
            "AsyncIterator[R]", self._stream(reading.stream, Query(where, equal, order_by, options=options), batch)
        )

    # --- without mapped objects

    async def rows(
        self,
        *columns: Any,
        where: Where | Sequence[Where] = (),
        order_by: Any = None,
        limit: int | None = None,
        offset: int | None = None,
        **equal: Any,
    ) -> builtins.list[dict[str, Any]]:
        """
        Same as `Reading.rows`, but for asyncio.
        """
        query = Query(as_conditions(where), equal, order_by, limit, offset, columns=columns)
        return cast("list[dict[str, Any]]", await self._run(results.rows, query))

    async def records(
        self,
        type_: type[T],
        /,
        *columns: Any,
        where: Where | Sequence[Where] = (),
        order_by: Any = None,
        limit: int | None = None,
        offset: int | None = None,
        **equal: Any,
    ) -> builtins.list[T]:
        """
        Same as `Reading.records`, but for asyncio.
        """
        query = Query(as_conditions(where), equal, order_by, limit, offset, columns=columns)
        return cast("list[T]", await self._run(results.records, type_, query))

    async def json(
        self,
        *columns: Any,
        where: Where | Sequence[Where] = (),
        order_by: Any = None,
        limit: int | None = None,
        offset: int | None = None,
        **equal: Any,
    ) -> bytes:
        """
        Same as `Reading.json`, but for asyncio.
        """
        query = Query(as_conditions(where), equal, order_by, limit, offset, columns=columns)
        return cast("bytes", await self._run(results.json, query))

    # --- pages

    async def page(
        self,
        number: int = 1,
        size: int = 50,
        *where: Where,
        total: Total = "exact",
        order_by: Any = None,
        options: Sequence[ORMOption] = (),
        **equal: Any,
    ) -> Page[R]:
        """
        Same as `Reading.page`, but for asyncio.
        """
        query = Query(where, equal, order_by, options=options)
        return cast("Page[R]", await self._run(paging.page, query, number, size, total))

    async def after(
        self,
        cursor: str | None = None,
        size: int = 50,
        *where: Where,
        order_by: Any = None,
        options: Sequence[ORMOption] = (),
        **equal: Any,
    ) -> CursorPage[R]:
        """
        Same as `Reading.after`, but for asyncio.
        """
        query = Query(where, equal, order_by, options=options)
        return cast("CursorPage[R]", await self._run(paging.after, query, cursor, size))

    # --- in bulk

    async def export(
        self,
        target: str | PathLike[str] | IO[bytes],
        *columns: Any,
        format: Format | None = None,  # noqa: A002  # the word of the field
        where: Where | Sequence[Where] = (),
        order_by: Any = None,
        limit: int | None = None,
        **equal: Any,
    ) -> int:
        """
        Same as `Reading.export`, but for asyncio.
        """
        query = Query(as_conditions(where), equal, order_by, limit, columns=columns)
        return cast("int", await self._run(exporting.export, target, query, format))


class AsyncWriting(AsyncBound[M, R], Generic[M, R]):
    """
    Same as `Writing`, but for asyncio.
    """

    async def add(self, item: R, /) -> R:
        """
        Same as `Writing.add`, but for asyncio.
        """
        return cast("R", await self._run(writing.add, item))

    async def add_all(self, items: Iterable[R], /) -> builtins.list[R]:
        """
        Same as `Writing.add_all`, but for asyncio.
        """
        return cast("list[R]", await self._run(writing.add_all, [*items]))

    async def create(self, **values: Any) -> R:
        """
        Same as `Writing.create`, but for asyncio.
        """
        return cast("R", await self._run(writing.create, values))

    async def save(self, item: R, /) -> R:
        """
        Same as `Writing.save`, but for asyncio.
        """
        return cast("R", await self._run(writing.save, item))

    async def update(self, key: Any, /, **values: Any) -> R:
        """
        Same as `Writing.update`, but for asyncio.
        """
        return cast("R", await self._run(writing.update, key, values))

    async def update_where(self, *where: Where, values: Mapping[str, Any], all_rows: bool = False, **equal: Any) -> int:
        """
        Same as `Writing.update_where`, but for asyncio.
        """
        return cast("int", await self._run(writing.update_where, Query(where, equal), values, all_rows))

    async def delete(self, key: Any, /) -> None:
        """
        Same as `Writing.delete`, but for asyncio.
        """
        await self._run(writing.delete, key)

    async def delete_many(self, keys: Iterable[Any], /) -> int:
        """
        Same as `Writing.delete_many`, but for asyncio.
        """
        return cast("int", await self._run(writing.delete_many, [*keys]))

    async def delete_where(self, *where: Where, all_rows: bool = False, **equal: Any) -> int:
        """
        Same as `Writing.delete_where`, but for asyncio.
        """
        return cast("int", await self._run(writing.delete_where, Query(where, equal), all_rows))

    async def restore(self, key: Any, /) -> R:
        """
        Same as `Writing.restore`, but for asyncio.
        """
        return cast("R", await self._run(writing.restore, key))

    async def get_or_create(self, defaults: Mapping[str, Any] | None = None, /, **equal: Any) -> tuple[R, bool]:
        """
        Same as `Writing.get_or_create`, but for asyncio.
        """
        return cast("tuple[R, bool]", await self._run(upserting.get_or_create, equal, defaults or {}))

    async def upsert(
        self, values: Mapping[str, Any], /, *, match: Sequence[str] | None = None, update: Sequence[str] | None = None
    ) -> R:
        """
        Same as `Writing.upsert`, but for asyncio.
        """
        return cast("R", await self._run(upserting.upsert, values, match, update))

    async def upsert_many(
        self,
        rows: Iterable[Mapping[str, Any]],
        /,
        *,
        match: Sequence[str] | None = None,
        update: Sequence[str] | None = None,
    ) -> int:
        """
        Same as `Writing.upsert_many`, but for asyncio.
        """
        return cast("int", await self._run(upsert_many, once(rows), match, update))

    async def create_many(self, rows: Iterable[Mapping[str, Any] | Any] | AsyncIterable[Any], /) -> int:
        """
        Same as `Writing.create_many`, but for asyncio; the rows may come from an asynchronous generator.
        """
        return cast("int", await self._run(loading.create_many, once(rows)))

    async def load(
        self,
        rows: Iterable[Mapping[str, Any] | Any] | AsyncIterable[Any] | str | PathLike[str] | IO[bytes],
        /,
        *,
        format: Format | None = None,  # noqa: A002  # the word of the field
    ) -> int:
        """
        Same as `Writing.load`, but for asyncio; the rows may come from an asynchronous generator.
        """
        return cast("int", await self._run(loading.load, once(rows), format))


class AsyncReadRepository(AsyncReading[M, R], Generic[M, R]):
    """
    Same as `ReadRepository`, but for asyncio.
    """

    default_role: ClassVar[SessionRole | None] = "reader"


class AsyncWriteRepository(AsyncWriting[M, R], Generic[M, R]):
    """
    Same as `WriteRepository`, but for asyncio.
    """

    async def get(self, key: Any, /, *, options: Sequence[ORMOption] = (), for_update: Lock = False) -> R | None:
        """
        Same as `WriteRepository.get`, but for asyncio.
        """
        return cast("R | None", await self._run(reading.get, key, options, for_update))


class AsyncRepository(AsyncReading[M, R], AsyncWriting[M, R], Generic[M, R]):
    """
    Same as `Repository`, but for asyncio.
    """
