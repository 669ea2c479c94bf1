"""The write side of a repository, synchronous: thin, every rule is elsewhere."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, Any, Generic, cast

from . import reading, upserting, writing
from .binding import Bound, M, R
from .bulk import loading
from .bulk.batches import once
from .bulk.upserting import upsert_many
from .query import Query
from .read_side import Reading

if TYPE_CHECKING:
    import builtins
    from collections.abc import Iterable, Mapping, Sequence
    from os import PathLike

    from sqlalchemy.orm.interfaces import ORMOption

    from .bulk.exporting import Format
    from .query import Lock, Where


class Writing(Bound[M, R], Generic[M, R]):
    """
    The methods that write. None of them commits: the unit of work does, or nobody.
    """

    def add(self, item: R, /) -> R:
        """
        Add an object and send it, so that its key is there and an error is raised here.

        Raises:
            UniqueViolation: A value is taken; and the other errors of constraints.
        """
        return cast("R", self._run(writing.add, item))

    def add_all(self, items: Iterable[R], /) -> builtins.list[R]:
        """
        Same as `add`, but for many, in as few statements as can be.
        """
        return cast("list[R]", self._run(writing.add_all, [*items]))

    def create(self, **values: Any) -> R:
        """
        Make an object of these values, add it, and return it.

        Raises:
            UnknownColumn: A name is no attribute of the model.
        """
        return cast("R", self._run(writing.create, values))

    def save(self, item: R, /) -> R:
        """
        Store an object as it is: the row with its key is updated, or made if there is none.
        """
        return cast("R", self._run(writing.save, item))

    def update(self, key: Any, /, **values: Any) -> R:
        """
        Change what is given of the row with a primary key, and nothing else.

        A value for the version column is the version that the change was made on.

        Raises:
            NotFound: There is no such row.
            StaleDataError: The row has another version: somebody else changed it (SQLAlchemy's class).
            UnknownColumn: A name is no attribute of the model.
        """
        return cast("R", self._run(writing.update, key, values))

    def update_where(self, *where: Where, values: Mapping[str, Any], all_rows: bool = False, **equal: Any) -> int:
        """
        Change all rows that fit, in one statement, and return how many. A version column is counted up.

        Args:
            *where: Conditions, at least one.
            values: Values or SQL expressions, by attribute.
            all_rows: Mean it, where there is no condition.
            **equal: Values by attribute.

        Raises:
            ValueError: There is no condition, and `all_rows` is not set.
        """
        return cast("int", self._run(writing.update_where, Query(where, equal), values, all_rows))

    def delete(self, key: Any, /) -> None:
        """
        Delete the row with a primary key; a model with `SoftDelete` is marked only.

        Raises:
            NotFound: There is no such row.
        """
        self._run(writing.delete, key)

    def delete_many(self, keys: Iterable[Any], /) -> int:
        """
        Delete the rows with these primary keys, and return how many there were.
        """
        return cast("int", self._run(writing.delete_many, [*keys]))

    def delete_where(self, *where: Where, all_rows: bool = False, **equal: Any) -> int:
        """
        Delete all rows that fit, in one statement, and return how many.

        Raises:
            ValueError: There is no condition, and `all_rows` is not set.
        """
        return cast("int", self._run(writing.delete_where, Query(where, equal), all_rows))

    def restore(self, key: Any, /) -> R:
        """
        Take back a soft deletion.

        Raises:
            NotFound: There is no such row.
            InvalidModel: The model has no `SoftDelete`.
        """
        return cast("R", self._run(writing.restore, key))

    def get_or_create(self, defaults: Mapping[str, Any] | None = None, /, **equal: Any) -> tuple[R, bool]:
        """
        Return the row with these values, made now if there was none, and whether it was made; safe under concurrency.

        Args:
            defaults: Further values for a row that is made.
            **equal: Values by attribute; a unique constraint must cover them, or it could not be safe.

        Raises:
            ValueError: No unique constraint covers them.
        """
        return cast("tuple[R, bool]", self._run(upserting.get_or_create, equal, defaults or {}))

    def upsert(
        self, values: Mapping[str, Any], /, *, match: Sequence[str] | None = None, update: Sequence[str] | None = None
    ) -> R:
        """
        Insert a row, or update the one that is there, in one statement without a race; return it.

        Args:
            values: By attribute.
            match: The attributes of a unique constraint that say whether it is there; None for the primary key.
            update: The attributes to update; None for all that are given and neither in `match` nor in the primary key.

        Raises:
            ValueError: No unique constraint covers `match`.
        """
        return cast("R", self._run(upserting.upsert, values, match, update))

    def upsert_many(
        self,
        rows: Iterable[Mapping[str, Any]],
        /,
        *,
        match: Sequence[str] | None = None,
        update: Sequence[str] | None = None,
    ) -> int:
        """
        Same as `upsert`, but for many rows, the fastest way of the database; return how many were given.

        Of several rows with one key, the later ones update the first. Objects that the session has are refreshed.

        Raises:
            BadRow: A row has an unknown name, or a value that cannot be converted.
        """
        return cast("int", self._run(upsert_many, once(rows), match, update))

    def create_many(self, rows: Iterable[Mapping[str, Any] | Any], /) -> int:
        """
        Insert rows without mapped objects, all of them or none, and return how many.

        Args:
            rows: As for `load`.

        Raises:
            BadRow: A row has an unknown name, or a value that cannot be converted.
            UniqueViolation: A value is taken; and the other errors of constraints.
        """
        return cast("int", self._run(loading.create_many, once(rows)))

    def load(
        self,
        rows: Iterable[Mapping[str, Any] | Any] | str | PathLike[str] | IO[bytes],
        /,
        *,
        format: Format | None = None,  # noqa: A002  # the word of the field
    ) -> int:
        """
        Load any number of rows in constant memory, the fastest way of the database (COPY), and return how many.

        Args:
            rows: Mappings by attribute, or objects with these attributes; a generator is consumed as it is sent. Or a
                file that `export` wrote: its path, or the file open for reading bytes.
            format: As for `export`, for a file.

        Raises:
            BadRow: A row does not fit; `number` counts from 1. Nothing of the load stays.
            MissingExtra: pyarrow is not installed.
        """
        return cast("int", self._run(loading.load, once(rows), format))


class WriteRepository(Writing[M, R], Generic[M, R]):
    """
    Writes one model; the write side of CQRS.
    """

    def get(self, key: Any, /, *, options: Sequence[ORMOption] = (), for_update: Lock = False) -> R | None:
        """
        Return the object with a primary key, to change it, or None.
        """
        return cast("R | None", self._run(reading.get, key, options, for_update))


class Repository(Reading[M, R], Writing[M, R], Generic[M, R]):
    """
    Reads and writes one model through a session; never commits.

    ::

        class Users(Repository[User]): ...

        users = Users(uow)
        users.create(name="Ada")
        users.list(User.name.startswith("A"), order_by="name")
    """
