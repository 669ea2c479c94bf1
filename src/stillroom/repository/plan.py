"""What a repository knows of its model: keys, version, what is hidden, and what goes in and out."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import exists, inspect
from sqlalchemy.orm import Mapper

from ..models import InvalidModel, SoftDelete, UnknownColumn, database_of
from .keys import UniqueKey, unique_keys

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import ColumnElement, Exists
    from sqlalchemy.orm import InstrumentedAttribute
    from sqlalchemy.orm.interfaces import ORMOption

    from .domain.converter import Converter


class Plan:
    """
    One model, and how a repository class reads and writes it. Made once for each class; nothing in it changes.

    Args:
        model: The mapped class, or an alias of it.
        returns: The class of the domain objects that go in and out; None for the mapped class itself.
        hooks: What has `to_row` and `from_row`, where they are given by hand; None: derived.
        database: The name of the database; None: where the model's base says, else the default one.
        show_deleted: Rows that are softly deleted are seen.

    Attributes:
        hides: What a statement of the user's own hides if its conditions make it read the table; None: nothing.

    Raises:
        InvalidModel: The class is not mapped.
    """

    def __init__(
        self,
        model: type[Any],
        *,
        returns: type[Any] | None = None,
        hooks: Any = None,
        database: str | None = None,
        show_deleted: bool = False,
    ) -> None:
        mapper = getattr(inspect(model, raiseerr=False), "mapper", None)
        if not isinstance(mapper, Mapper):
            raise InvalidModel(
                f"{model!r} is not a mapped class; write `class Users(Repository[User])` with one that is"
            )
        self.model = model
        self.mapper: Mapper[Any] = mapper
        self.returns = returns if returns is not model else None
        self.hooks = hooks
        self.database = database if database is not None else database_of(model)
        self.show_deleted = show_deleted
        self.hides: ColumnElement[bool] | None = None

    def __repr__(self) -> str:
        return f"<Plan of {self.model.__name__}>"

    def with_deleted(self) -> Plan:
        """
        Return the same plan, but rows that are softly deleted are seen.
        """
        return self._showing_deleted

    @cached_property
    def _showing_deleted(self) -> Plan:
        return self._like(self.model, show_deleted=True)

    @cached_property
    def where_read(self) -> Plan:
        """
        The same plan, but for a statement that may not read the model's table: only one that does hides rows.
        """
        plan = self._like(self.model, show_deleted=True)
        plan.hides = self.visible
        return plan

    def of_alias(self, alias: Any) -> Plan:
        """
        Return the same plan for an alias of the model, as a `select()` of the user's own may have one.
        """
        return self._like(alias, show_deleted=self.show_deleted)

    def _like(self, model: Any, *, show_deleted: bool) -> Plan:
        plan = Plan(model, returns=self.returns, hooks=self.hooks, database=self.database, show_deleted=show_deleted)
        plan.converter = self.converter
        return plan

    # --- columns and keys

    @cached_property
    def columns(self) -> dict[str, InstrumentedAttribute[Any]]:
        """
        The mapped columns, by the name of the attribute, in the order of the table.
        """
        return {each.key: getattr(self.model, each.key) for each in self.mapper.column_attrs}

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """
        The attributes of the primary key.
        """
        return tuple(self.mapper.get_property_by_column(column).key for column in self.mapper.primary_key)

    @cached_property
    def version(self) -> str | None:
        """
        The attribute that counts the versions of a row, where there is one.
        """
        column = self.mapper.version_id_col
        return None if column is None else self.mapper.get_property_by_column(column).key

    @cached_property
    def key_columns(self) -> tuple[InstrumentedAttribute[Any], ...]:
        """
        The columns of the primary key.
        """
        return tuple(self.columns[name] for name in self.keys)

    @cached_property
    def unique_keys(self) -> tuple[UniqueKey, ...]:
        """
        The primary key, and what else is unique.
        """
        return unique_keys(self.mapper)

    def column(self, name: str) -> InstrumentedAttribute[Any]:
        """
        Return a mapped attribute by name: a column, a relationship, a synonym, a hybrid.

        Raises:
            UnknownColumn: There is none of that name.
        """
        found = self.columns.get(name)
        return attribute_of(self.model, name) if found is None else found

    def identity(self, key: Any) -> tuple[Any, ...]:
        """
        Return the values of the primary key in the order of its columns.

        Args:
            key: The value; for a composite key a tuple or list in that order, or a mapping by attribute.

        Raises:
            ValueError: The key has not the values that it needs.
        """
        if isinstance(key, Mapping):
            if set(key) != set(self.keys):
                raise ValueError(f"{key!r} is no key of {self.model.__name__}; its attributes are {self.keys!r}")
            return tuple(key[name] for name in self.keys)
        values = tuple(key) if isinstance(key, tuple | list) else (key,)
        if len(values) != len(self.keys):
            raise ValueError(
                f"{key!r} is no key of {self.model.__name__}, which is {self.keys!r}: it has {len(values)} value(s)"
            )
        return values

    def key_of(self, entity: Any) -> Any:
        """
        Return the primary key of an object: the value, or for a composite key a tuple.
        """
        values = tuple(getattr(entity, name) for name in self.keys)
        return values[0] if len(values) == 1 else values

    @cached_property
    def existence(self) -> Exists:
        """
        `EXISTS (SELECT * FROM …)`, to be narrowed: it is made once, for making it costs as much as all the rest.
        """
        return exists().select_from(self.model)

    # --- what is hidden

    @cached_property
    def visible(self) -> ColumnElement[bool] | None:
        """
        The condition that hides rows that are softly deleted; None where nothing is hidden.
        """
        if self.show_deleted or not self.deletes_softly:
            return None
        condition: ColumnElement[bool] = self.model.deleted_at.is_(None)
        return condition

    def sees(self, entity: Any) -> bool:
        """
        Say whether a loaded object is not hidden.
        """
        return self.visible is None or entity.deleted_at is None

    @cached_property
    def deletes_softly(self) -> bool:
        """
        Whether `delete` only marks a row.
        """
        return issubclass(self.mapper.class_, SoftDelete)

    # --- what goes in and out

    @cached_property
    def is_plain(self) -> bool:
        """
        Whether mapped objects go in and out, and none is hidden: `Session.get` alone is all that `get` needs.
        """
        return self.returns is None and self.visible is None

    @cached_property
    def converter(self) -> Converter | None:
        """
        How domain objects are made of rows and back; None where the mapped objects themselves go in and out.
        """
        if self.returns is None:
            return None
        from .domain.converter import Converter

        return Converter(self)

    @cached_property
    def loading(self) -> tuple[ORMOption, ...]:
        """
        The loader options that every select needs, because domain objects hold what is behind relationships.
        """
        return () if self.converter is None else self.converter.loading

    def out(self, entity: Any) -> Any:
        """
        Return what the user gets for a mapped object, or for None.
        """
        return entity if entity is None or self.converter is None else self.converter.out(entity)

    def out_all(self, entities: Iterable[Any]) -> list[Any]:
        """
        Return what the user gets for mapped objects.
        """
        if self.converter is None:
            return entities if isinstance(entities, list) else list(entities)
        return list(map(self.converter.out, entities))


def attribute_of(model: type[Any], name: str) -> InstrumentedAttribute[Any]:
    """
    Return a mapped attribute by name: a column, a relationship, a synonym, a hybrid.

    Args:
        model: The mapped class, or an alias of it.
        name: The name of the attribute.

    Raises:
        UnknownColumn: There is none of that name.
    """
    mapper: Mapper[Any] = inspect(model).mapper
    if name not in mapper.all_orm_descriptors:
        columns = ", ".join(repr(each.key) for each in mapper.column_attrs)
        raise UnknownColumn(f"{model.__name__} has no column {name!r}; it has {columns}")
    return cast("InstrumentedAttribute[Any]", getattr(model, name))
