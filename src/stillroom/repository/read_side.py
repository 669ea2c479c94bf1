"""The read side of a repository, synchronous: thin, every rule is elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Generic, cast

from typing_extensions import TypeVar

from . import paging, reading, results
from .binding import Bound, M, R
from .bulk import exporting
from .query import Query, as_conditions

if TYPE_CHECKING:
    import builtins
    from collections.abc import Iterable, Iterator, Sequence
    from os import PathLike
    from typing import IO

    from sqlalchemy.orm.interfaces import ORMOption

    from ..status import SessionRole
    from .bulk.exporting import Format
    from .paging.pages import CursorPage, Page, Total
    from .query import Lock, Where
    from .reading import Missing

    T = TypeVar("T")


class Reading(Bound[M, R], Generic[M, R]):
    """
    The methods that read.

    Conditions are the same everywhere: SQLAlchemy expressions, filter objects and keywords for equality, all of which
    hold. The first may be a `select()` of the user's own, to which the others are added, or a `text()`, whose
    parameters the keywords then are.
    """

    def get(self, key: Any, /, *, options: Sequence[ORMOption] = (), for_update: Lock = False) -> R | None:
        """
        Return the object with a primary key, or None. One that the session has loaded already costs no statement.

        Args:
            key: The primary key; for a composite one a tuple in the order of its columns, or a mapping by attribute.
            options: Loader options, such as `selectinload(User.orders)`.
            for_update: Lock the row; a mapping has the arguments of `Select.with_for_update`.
        """
        return cast("R | None", self._run(reading.get, key, options, for_update))

    def get_many(
        self, keys: Iterable[Any], /, *, options: Sequence[ORMOption] = (), missing: Missing = "raise"
    ) -> builtins.list[R]:
        """
        Return the objects with these primary keys, in the order of the keys.

        Args:
            keys: As for `get`; a key that is given twice is returned twice.
            options: As for `get`.
            missing: "raise", or "skip" those that are not there.

        Raises:
            NotFound: Some are not there; `keys` of the error has all of them.
        """
        return cast("list[R]", self._run(reading.get_many, [*keys], options, missing))

    def one(self, *where: Where, options: Sequence[ORMOption] = (), for_update: Lock = False, **equal: Any) -> R:
        """
        Return the only object that fits.

        Raises:
            NotFound: None fits.
            MultipleFound: More than one does.
        """
        return cast("R", self._run(reading.one, Query(where, equal, options=options, for_update=for_update)))

    def one_or_none(
        self, *where: Where, options: Sequence[ORMOption] = (), for_update: Lock = False, **equal: Any
    ) -> R | None:
        """
        Return the only object that fits, or None.

        Raises:
            MultipleFound: More than one does.
        """
        query = Query(where, equal, options=options, for_update=for_update)
        return cast("R | None", self._run(reading.one_or_none, query))

    def first(
        self,
        *where: Where,
        order_by: Any = None,
        options: Sequence[ORMOption] = (),
        for_update: Lock = False,
        **equal: Any,
    ) -> R | None:
        """
        Return the first object that fits, in the order asked for or else that of the primary key; None if none fits.
        """
        query = Query(where, equal, order_by, options=options, for_update=for_update)
        return cast("R | None", self._run(reading.first, query))

    def list(
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
        Return the objects that fit.

        Args:
            *where: Conditions; see the class.
            order_by: Columns, `desc(...)`, or names of attributes, "-name" for descending; several as a list.
            limit: The greatest number of objects.
            offset: How many to leave out first; for paging see `page` and `after`.
            options: Loader options.
            for_update: Lock the rows; as for `get`.
            **equal: Values by attribute; None is NULL, a list is IN.

        Raises:
            UnknownColumn: A keyword or a name in `order_by` is no attribute of the model.
        """
        query = Query(where, equal, order_by, limit, offset, options, for_update)
        return cast("list[R]", self._run(reading.find, query))

    def count(self, *where: Where, **equal: Any) -> int:
        """
        Return how many rows fit.
        """
        return cast("int", self._run(reading.count, Query(where, equal)))

    def exists(self, *where: Where, **equal: Any) -> bool:
        """
        Return whether a row fits; the database stops at the first one.
        """
        return cast("bool", self._run(reading.exists, Query(where, equal)))

    def stream(
        self, *where: Where, order_by: Any = None, options: Sequence[ORMOption] = (), batch: int = 1000, **equal: Any
    ) -> Iterator[R]:
        """
        Iterate over the objects that fit, in constant memory: a cursor on the server, `batch` rows at a time.

        Objects that were passed are forgotten by the session once nothing else refers to them.
        """
        return cast("Iterator[R]", self._stream(reading.stream, Query(where, equal, order_by, options=options), batch))

    # --- without mapped objects

    def rows(
        self,
        *columns: Any,
        where: Where | Sequence[Where] = (),
        order_by: Any = None,
        limit: int | None = None,
        offset: int | None = None,
        **equal: Any,
    ) -> builtins.list[dict[str, Any]]:
        """
        Return rows as dictionaries by column name, without mapped objects.

        Args:
            *columns: What to select: columns, labelled expressions, names of attributes; none: all columns of the
                model. Or one `select()` or `text()` of the user's own.
            where: A condition, or several.
            order_by: As for `list`.
            limit: The greatest number of rows.
            offset: How many to leave out first.
            **equal: Values by attribute; for a `text()` its parameters.
        """
        query = Query(as_conditions(where), equal, order_by, limit, offset, columns=columns)
        return cast("list[dict[str, Any]]", self._run(results.rows, query))

    def records(
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
        Return rows as objects of a class: dataclass, attrs, msgspec Struct or pydantic model, without mapped objects.

        Args:
            type_: The class; its fields say which columns are read where none are given.
            *columns: What to select, by the names of the fields; as for `rows`.
            where: A condition, or several.
            order_by: As for `list`.
            limit: The greatest number of rows.
            offset: How many to leave out first.
            **equal: As for `rows`.

        Raises:
            TypeError: The class is none of these.
            UnknownColumn: A field that needs a value has no column.
        """
        query = Query(as_conditions(where), equal, order_by, limit, offset, columns=columns)
        return cast("list[T]", self._run(results.records, type_, query))

    def json(
        self,
        *columns: Any,
        where: Where | Sequence[Where] = (),
        order_by: Any = None,
        limit: int | None = None,
        offset: int | None = None,
        **equal: Any,
    ) -> bytes:
        """
        Return rows as a JSON array of objects, in UTF-8, ready to be sent; built by the database where it can.

        The values are those of `rows` as msgspec writes them: times in ISO 8601, decimal numbers and UUIDs as strings,
        bytes in base 64.
        """
        query = Query(as_conditions(where), equal, order_by, limit, offset, columns=columns)
        return cast("bytes", self._run(results.json, query))

    # --- pages

    def page(
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
        Return a page by its number, counted from 1.

        Args:
            number: The page; one past the last has no items and the right total.
            size: How many items a page has.
            *where: Conditions.
            total: "exact" (a second statement), "capped" (exact up to 10,000), "estimate" (from the planner's
                statistics), "cached" (exact, and up to a minute old), or "none".
            order_by: As for `list`; the primary key is added, so that no row is seen twice or never.
            options: Loader options.
            **equal: Values by attribute.

        Raises:
            ValueError: The number or the size is less than 1.
        """
        query = Query(where, equal, order_by, options=options)
        return cast("Page[R]", self._run(paging.page, query, number, size, total))

    def after(
        self,
        cursor: str | None = None,
        size: int = 50,
        *where: Where,
        order_by: Any = None,
        options: Sequence[ORMOption] = (),
        **equal: Any,
    ) -> CursorPage[R]:
        """
        Return the page that follows a cursor; found by its key, it is as fast at row 900,000 as at the first.

        No row is seen twice or never, though others come and go between the pages.

        Args:
            cursor: `next_cursor` or `previous_cursor` of another page; None for the first page.
            size: How many items a page has.
            *where: Conditions; the same for all pages of one walk.
            order_by: As for `list`, by columns only; the primary key is added.
            options: Loader options.
            **equal: Values by attribute.

        Raises:
            InvalidCursor: The cursor was changed, or belongs to another question.
        """
        query = Query(where, equal, order_by, options=options)
        return cast("CursorPage[R]", self._run(paging.after, query, cursor, size))

    # --- in bulk

    def export(
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
        Write rows to a file, in constant memory, and return how many.

        Args:
            target: A path, or a file open for writing bytes.
            *columns: As for `rows`.
            format: "csv", "jsonl", "arrow" or "parquet" (these two need the extra `arrow`); None: by the path's ending.
            where: A condition, or several.
            order_by: As for `list`.
            limit: The greatest number of rows.
            **equal: As for `rows`.

        Raises:
            MissingExtra: pyarrow is not installed.
        """
        query = Query(as_conditions(where), equal, order_by, limit, columns=columns)
        return cast("int", self._run(exporting.export, target, query, format))


class ReadRepository(Reading[M, R], Generic[M, R]):
    """
    Reads one model; the read side of CQRS. It uses the reader: the server refuses what would write.

    ::

        class Users(ReadRepository[User]): ...

        Users(uow).get(1)
    """

    default_role: ClassVar[SessionRole | None] = "reader"
