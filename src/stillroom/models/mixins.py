"""
Columns that many models have: timestamps, a UUID key in the order of time, a version, a mark instead of a deletion.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import Column, Uuid
from sqlalchemy import inspect as sa_inspect
from sqlalchemy.orm import Mapped, Mapper, declared_attr, mapped_column

from stillroom.models.columns import UTCDateTime, UTCNow
from stillroom.models.problems import InvalidModel
from stillroom.models.uuid7 import uuid7

__all__ = ["SoftDelete", "Timestamps", "UUIDKey", "Version"]

# Mixins' columns stand in the table where people look for them: keys first, bookkeeping last.
_FIRST, _LAST = -100, 900


def _now() -> datetime:
    return datetime.now(UTC)


def _as_created(context: Any) -> datetime:
    """
    Begin ``updated_at`` with the time of creation, so that "never updated" is ``updated_at = created_at``.
    """
    try:
        created = context.get_current_parameters().get("created_at")
    except KeyError:
        # SQLAlchemy cannot tell the rows of insert(Model).values([…, …]) apart here.
        created = None
    return created if isinstance(created, datetime) else _now()


class Timestamps:
    """
    ``created_at`` and ``updated_at``, points in time in UTC.

    Both are set by Python in an ORM flush and in a Core ``insert()`` or ``update()``; a value that is given stays. The
    server sets them in an INSERT that names neither, such as one in a SQL file; an UPDATE in SQL text sets nothing.
    """

    created_at: Mapped[datetime] = mapped_column(UTCDateTime, default=_now, server_default=UTCNow(), sort_order=_LAST)
    updated_at: Mapped[datetime] = mapped_column(
        UTCDateTime, default=_as_created, onupdate=_now, server_default=UTCNow(), sort_order=_LAST + 1
    )


class SoftDelete:
    """
    ``deleted_at``, NULL while the row is there: a repository only marks a row that it deletes, and hides it.
    """

    deleted_at: Mapped[datetime | None] = mapped_column(UTCDateTime, default=None, sort_order=_LAST + 3)


class UUIDKey:
    """
    ``id``, a UUID of version 7: rows made later have greater keys, so that indexes grow at their end.

    The key is there after a flush, or before by ``User(id=uuid7())``.
    """

    id: Mapped[UUID] = mapped_column(Uuid[UUID](), primary_key=True, default=uuid7, sort_order=_FIRST)


def _versioned(model: type[Any]) -> bool:
    mapper = sa_inspect(model, raiseerr=False)
    return isinstance(mapper, Mapper) and isinstance(mapper.version_id_col, Column)


class Version:
    """
    ``version``, counted up by each flush, and compared: two sessions that change one row do not overwrite each other.

    The second flush raises ``sqlalchemy.orm.exc.StaleDataError``. A Core ``update()`` neither counts nor compares.
    """

    version: Mapped[int] = mapped_column(server_default="1", sort_order=_LAST + 2)

    if TYPE_CHECKING:
        __mapper_args__: Any
    else:

        @declared_attr.directive
        def __mapper_args__(cls) -> dict[str, Any]:  # noqa: N805 (SQLAlchemy passes the class)
            """
            Name the column to the mapper, once in a hierarchy.
            """
            inherited = any(_versioned(base) for base in cls.__mro__[1:])
            return {} if inherited else {"version_id_col": cls.version}

    def __init_subclass__(cls, **options: Any) -> None:
        """
        Add the version to mapper arguments of the model's own, which would replace ours without a word.

        Raises:
            InvalidModel: the model would be mapped without its version.
        """
        own = cls.__dict__.get("__mapper_args__")
        if isinstance(own, dict) and not any(_versioned(base) for base in cls.__mro__[1:]):
            cls.__mapper_args__ = {"version_id_col": Version.version, **own}
        super().__init_subclass__(**options)
        if isinstance(sa_inspect(cls, raiseerr=False), Mapper) and not _versioned(cls):
            msg = (
                f"{cls.__name__} is mapped without its version, so updates would be lost. Name Version before the base,"
                ' and add {"version_id_col": Version.version} to what its __mapper_args__ returns'
            )
            raise InvalidModel(msg)
