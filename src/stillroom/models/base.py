"""
The base class of a database's models: its own metadata, the naming convention, column types, ``repr`` and ``to_dict``.
"""

from __future__ import annotations

import types
from typing import TYPE_CHECKING, Any, ClassVar, cast

from sqlalchemy import MetaData
from sqlalchemy.orm import DeclarativeBase, DeclarativeBaseNoMeta, MappedAsDataclass

from stillroom.models.columns import annotation_types
from stillroom.models.describe import describe, to_dict
from stillroom.models.naming import NAMING_CONVENTION
from stillroom.models.problems import InvalidModel

__all__ = ["DATABASE_KEY", "ModelBase", "database_of", "make_base"]

DATABASE_KEY = "stillroom_database"
"""
The key in ``MetaData.info`` under which the name of the database stands.
"""


class ModelBase:
    """
    What a declarative base inherits beside SQLAlchemy's own class.

    ::

        class Base(ModelBase, DeclarativeBase, database="main"):
            pass

    ``Base.metadata`` is new, carries the naming convention and names its database in ``info``. A ``metadata`` or
    ``type_annotation_map`` in the class body is respected: the metadata is used as it is, the types are added to ours.
    With ``MappedAsDataclass`` among the bases, models are dataclasses; the ``repr`` stays ours unless ``repr=True``.
    """

    metadata: ClassVar[MetaData]
    type_annotation_map: ClassVar[Any]

    def __init_subclass__(cls, *, database: str | None = None, schema: str | None = None, **options: Any) -> None:
        """
        Set up a base; models of a base pass through unchanged.

        Args:
            database: the name of the database, as in the settings. Only for a base, and necessary there.
            schema: the schema of its tables, where they name none.
            options: passed on to the next class, such as the options of ``MappedAsDataclass``.

        Raises:
            InvalidModel: no database, a database that is no base's, or ``ModelBase`` not the first of the bases.
        """
        declarative = {DeclarativeBase, DeclarativeBaseNoMeta}.intersection(cls.__bases__)
        if not declarative:
            if database is not None or schema is not None:
                msg = (
                    f"{cls.__name__} is no base, so it cannot set database={database!r}. Set it where its base is made"
                )
                raise InvalidModel(msg)
            super().__init_subclass__(**options)
            return
        if database is None:
            msg = f'{cls.__name__} names no database. Write class {cls.__name__}(ModelBase, …, database="main")'
            raise InvalidModel(msg)
        if cls.__mro__.index(ModelBase) > min(map(cls.__mro__.index, declarative)):
            msg = f"{cls.__name__} would be set up without ModelBase. Name it before {declarative.pop().__name__}"
            raise InvalidModel(msg)
        _prepare(cls, database, schema)
        if issubclass(cls, MappedAsDataclass):
            # The one that dataclasses write shows secrets and loads what is not loaded.
            options.setdefault("repr", False)
        super().__init_subclass__(**options)

    def __repr__(self) -> str:
        return describe(self)

    def to_dict(
        self, *, include: Iterable[str] | None = None, exclude: Collection[str] = (), loaded_only: bool = False
    ) -> dict[str, Any]:
        """
        Copy the columns into a dict; columns that are not loaded are loaded, except with ``loaded_only``.

        Args:
            include: the attributes wanted; None: all columns.
            exclude: attributes to leave out, such as ``secret_columns(User)``.
            loaded_only: leave out what is not loaded, and send no statement.

        Returns:
            Values by the names of attributes, in the order of the table or of ``include``.

        Raises:
            UnknownColumn: ``include`` or ``exclude`` names what is no column.
            ColumnsNotLoaded: columns are not loaded and cannot be; names them.
        """
        return to_dict(self, include=include, exclude=exclude, loaded_only=loaded_only)


def _prepare(base: type[ModelBase], database: str, schema: str | None) -> None:
    """
    Give a base its metadata and its types, before SQLAlchemy looks for them.
    """
    registry = base.__dict__.get("registry")
    metadata = base.__dict__.get("metadata", registry.metadata if registry is not None else None)
    if metadata is None:
        metadata = MetaData(naming_convention=dict(NAMING_CONVENTION), schema=schema)
    elif schema is not None:
        msg = f"{base.__name__} has both schema={schema!r} and a metadata of its own. Write MetaData(schema={schema!r})"
        raise InvalidModel(msg)
    named = metadata.info.setdefault(DATABASE_KEY, database)
    if named != database:
        msg = f"{base.__name__} is declared for the database {database!r}, but its metadata belongs to {named!r}"
        raise InvalidModel(msg)
    if registry is None:
        base.metadata = metadata
        base.type_annotation_map = {**annotation_types(), **base.__dict__.get("type_annotation_map", {})}


if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    class _Base(ModelBase, DeclarativeBase): ...


def make_base(database: str, *, schema: str | None = None, name: str = "Base") -> type[_Base]:
    """
    Make a base class by a call, for bases whose names are not known before.

    pyright takes the result as a base class, mypy takes no variable as one: where mypy is used, write the class
    statement (see ``ModelBase``), which does the same.

    Args:
        database: the name of the database, as in the settings.
        schema: the schema of its tables, where they name none.
        name: the name of the class.

    Returns:
        A new base class with a ``MetaData`` of its own.
    """
    made = types.new_class(name, (ModelBase, DeclarativeBase), {"database": database, "schema": schema})
    return cast("type[_Base]", made)


def database_of(model: type[Any]) -> str | None:
    """
    Tell which database a model's table is in.

    Args:
        model: a mapped class or its base.

    Returns:
        The name that was given to its base, or None if it was made without ``ModelBase``.
    """
    metadata = getattr(model, "metadata", None)
    return metadata.info.get(DATABASE_KEY) if isinstance(metadata, MetaData) else None
