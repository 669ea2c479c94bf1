"""One domain class and the mapped class it stands for: functions made once, no reflection for each row."""

from __future__ import annotations

import inspect
from functools import cached_property
from typing import TYPE_CHECKING, Any

from msgspec import UNSET
from sqlalchemy import Column
from sqlalchemy.orm import KeyFuncDict, RelationshipDirection, selectinload
from sqlalchemy.orm.attributes import flag_modified
from sqlalchemy.orm.exc import StaleDataError

from ...models import InvalidModel
from .derivation import Derivation

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sqlalchemy.orm import Mapper, Session

    from .derivation import Behind


class Pairing:
    """
    A domain class and the mapped class that it stands for.

    Args:
        class_: The domain class.
        mapper: Of the mapped class.
        renamed: Attributes of rows by field, or by path of fields ("lines.title"); None: not stored.
        path: Where this pairing is nested in another one: the path of fields with a dot behind.
        within: The domain classes that this one is nested in.

    Attributes:
        out: What makes an item of a row.

    Raises:
        UnknownColumn: The class has a field that the row has not.
        InvalidModel: The two do not fit together.
    """

    def __init__(
        self,
        class_: type[Any],
        mapper: Mapper[Any],
        renamed: Mapping[str, str | None],
        path: str = "",
        within: tuple[type[Any], ...] = (),
    ) -> None:
        self.class_ = class_
        self.mapper = mapper
        self.keys = tuple(mapper.get_property_by_column(column).key for column in mapper.primary_key)
        version = mapper.version_id_col
        self.version = None if version is None else mapper.get_property_by_column(version).key
        self._derived = derived = Derivation(class_, mapper, renamed, path)
        self.nested = [Nested(self, each, renamed, (*within, class_)) for each in derived.behind]
        self.out = _reader(derived.compiled("row, loaded", derived.item))
        stored = ", ".join(f"{name!r}: {value}" for name, value in derived.stored.items())
        self._values = derived.compiled("item", f"{{{stored}}}")
        self._key = self.part_of_key(self.keys)

    @cached_property
    def loading(self) -> tuple[Any, ...]:
        """
        The loader options for what is nested.
        """
        return tuple(
            selectinload(getattr(self.mapper.class_, each.attribute)).options(*each.pairing.loading)
            for each in self.nested
        )

    def compiled(self, expression: str) -> Any:
        """
        Return the function of an item that an expression is.
        """
        return self._derived.compiled("item", expression)

    def bind(self, name: str, value: Any) -> None:
        """
        Give a name in expressions its meaning.
        """
        self._derived.constants[name] = value

    def values(self, item: Any) -> dict[str, Any]:
        """
        Return the columns of an item by the attribute of the row.
        """
        values: dict[str, Any] = self._values(item)
        if self._derived.may_be_absent:
            return {name: value for name, value in values.items() if value is not UNSET}
        return values

    def key(self, item: Any) -> Any:
        """
        Return the primary key of an item, for a composite one a tuple; None where any part of it is missing.
        """
        key = self._key(item)
        return key[0] if key is not None and len(key) == 1 else key

    def part_of_key(self, names: tuple[str, ...]) -> Callable[[Any], tuple[Any, ...] | None]:
        """
        Return what takes these attributes of the key from an item: a tuple, or None where any is missing.
        """
        stored = self._derived.stored
        if not all(name in stored for name in names):
            return lambda _item: None
        values = self.compiled(f"({''.join(f'{stored[name]}, ' for name in names)})")

        def key(item: Any) -> tuple[Any, ...] | None:
            found: tuple[Any, ...] = values(item)
            return None if not found or any(value is None or value is UNSET for value in found) else found

        return key

    def into(self, item: Any, session: Session) -> Any:
        """
        Make a new row of an item.
        """
        values = self.values(item)
        for name in (*self.keys, self.version):
            if name is not None and values.get(name, UNSET) is None:
                del values[name]
        accepted = values.keys() if self._accepted is None else values.keys() & self._accepted
        row = self.mapper.class_(**{name: values[name] for name in accepted})
        for name in values.keys() - accepted:
            setattr(row, name, values[name])
        for each in self.nested:
            each.store(row, item, session)
        return row

    def update(self, row: Any, item: Any, session: Session) -> bool:
        """
        Set what differs in a row, and return whether anything did.

        Raises:
            StaleDataError: The item was made of another version of the row.
        """
        values = self.values(item)
        self._check_version(row, values)
        differing = [name for name in values if name not in self.keys and getattr(row, name) != values[name]]
        for name in differing:
            setattr(row, name, values[name])
        changed = [each.store(row, item, session) and each.is_owned for each in self.nested]
        if any(changed) and not differing and self._counted is not None:
            # What a row owns is part of it: of two writers who change different parts, one must learn of the other.
            getattr(row, self._counted)  # only what is loaded can be flagged
            flag_modified(row, self._counted)
        return bool(differing) or any(changed)

    def _check_version(self, row: Any, values: dict[str, Any]) -> None:
        if self.version is None or (given := values.pop(self.version, None)) is None:
            return
        if given != (stored := getattr(row, self.version)):
            key = ", ".join(repr(getattr(row, name)) for name in self.keys)
            raise StaleDataError(
                f"{self.class_.__name__} {key} was read as version {given!r}, but the {self.mapper.class_.__name__} "
                f"has version {stored!r}: somebody else changed it; read it again and repeat the change"
            )

    @cached_property
    def _counted(self) -> str | None:
        """
        A column that can be sent as it is, so that the version is counted; None where there is no version.
        """
        others = {self.version, *self.keys}
        columns = ((each.key, each.columns[0]) for each in self.mapper.column_attrs if each.key not in others)
        plain = (key for key, column in columns if isinstance(column, Column) and column.computed is None)
        return None if self.version is None else next(plain, None)

    @cached_property
    def _accepted(self) -> frozenset[str] | None:
        """
        What the constructor of the row takes; None where it takes everything, as SQLAlchemy's own does.
        """
        parameters = inspect.signature(self.mapper.class_).parameters.values()
        if any(each.kind is each.VAR_KEYWORD for each in parameters):
            return None
        return frozenset(each.name for each in parameters)


class Nested:
    """
    Domain objects behind a relationship.

    Args:
        outer: What they are nested in.
        behind: The field.
        renamed: As for `Pairing`.
        within: The domain classes that they are nested in.

    Raises:
        InvalidModel: The field and the relationship do not fit together.
    """

    def __init__(
        self, outer: Pairing, behind: Behind, renamed: Mapping[str, str | None], within: tuple[type[Any], ...]
    ) -> None:
        self.attribute = behind.attribute
        self._relationship = relationship = outer.mapper.relationships[behind.attribute]
        self._container = behind.shape.container
        where = f"{outer.class_.__name__}.{behind.path[:-1]} and {outer.mapper.class_.__name__}.{behind.attribute}"
        if behind.shape.item in within:
            raise InvalidModel(f"{where}: {behind.shape.item.__name__} leads back to itself; write from_row and to_row")
        if relationship.uselist != (self._container is not None):
            raise InvalidModel(f"{where}: one of them is a collection and the other is not; write from_row and to_row")
        make = relationship.collection_class or list
        self._empty: Any = make() if relationship.uselist else None
        if self._container is dict and not isinstance(self._empty, dict):
            raise InvalidModel(
                f"{where}: only the field is a dict; use attribute_keyed_dict, or write from_row and to_row"
            )
        self.pairing = Pairing(behind.shape.item, relationship.mapper, renamed, behind.path, within)
        self.is_owned = relationship.direction is RelationshipDirection.ONETOMANY
        outer.bind(behind.reader, self._read)
        self._value = outer.compiled(behind.value)
        # The part of its key that a row has from the one that owns it says nothing about which of them it is.
        theirs = set(relationship.remote_side) if self.is_owned else set()
        mapper = self.pairing.mapper
        self._names = tuple(
            mapper.get_property_by_column(column).key for column in mapper.primary_key if column not in theirs
        )
        self._key = self.pairing.part_of_key(self._names)

    def _read(self, value: Any) -> Any:
        out = self.pairing.out
        if self._container is None:
            return None if value is None else out(value)
        if not isinstance(value, dict):
            return self._container(map(out, value))
        if self._container is dict:
            return {key: out(row) for key, row in value.items()}
        return self._container(map(out, value.values()))

    def store(self, row: Any, item: Any, session: Session) -> bool:
        """
        Set the rows behind the relationship from what an item has there, and return whether anything differed.
        """
        value = self._value(item)
        if value is UNSET or self._relationship.viewonly:
            return False
        current = self._members(getattr(row, self.attribute))
        rows, changed = self._matched(current, self._members(value), session)
        if self._is_same(rows, current):
            return changed
        setattr(row, self.attribute, self._held(rows))
        return True

    def _matched(self, current: list[Any], items: list[Any], session: Session) -> tuple[list[Any], bool]:
        """
        Return a row for each item, one that was there or a new one, and whether anything differed.
        """
        rows, changed = [], False
        by_key = {tuple(getattr(row, name) for name in self._names): row for row in current}
        for item in items:
            key = self._key(item)
            row = self._without_key(item, by_key) if key is None else by_key.pop(key, None)
            if row is None and key is not None and not self.is_owned:
                row = session.get(self.pairing.mapper, key)
            if row is None:
                row, changed = self.pairing.into(item, session), True
            else:
                changed |= self.pairing.update(row, item, session)
            rows.append(row)
        return rows, changed

    def _without_key(self, item: Any, by_key: dict[tuple[Any, ...], Any]) -> Any:
        """
        Take the row of an item that says not which it is: the only one there can be, or an equal one.
        """
        only = self._container is None and self.is_owned
        key = next((key for key, row in by_key.items() if only or self.pairing.out(row) == item), None)
        return None if key is None else by_key.pop(key)

    def _members(self, value: Any) -> list[Any]:
        if self._container is None:
            return [] if value is None else [value]
        return list(value.values() if isinstance(value, dict) else value)

    def _is_same(self, rows: list[Any], current: list[Any]) -> bool:
        new, old = [id(row) for row in rows], [id(row) for row in current]
        has_order = isinstance(self._empty, list) and self._container in (list, tuple)
        return new == old if has_order else set(new) == set(old)

    def _held(self, rows: list[Any]) -> Any:
        if self._container is None:
            return rows[0] if rows else None
        if isinstance(self._empty, KeyFuncDict):
            return {self._empty.keyfunc(row): row for row in rows}
        return set(rows) if isinstance(self._empty, set) else rows


def _reader(make: Callable[[Any, Any], Any]) -> Callable[[Any], Any]:
    """
    Return what makes an item of a row.

    It looks into the row's dictionary, which has what is loaded; only where something is not it goes through the
    attributes, which costs several times as much.
    """

    def out(row: Any) -> Any:
        try:
            return make(row, row.__dict__)
        except KeyError:
            return make(row, _Attributes(row))

    return out


class _Attributes:
    """
    The attributes of a row, as items.
    """

    __slots__ = ("_row",)

    def __init__(self, row: Any) -> None:
        self._row = row

    def __getitem__(self, name: str) -> Any:
        return getattr(self._row, name)
