"""How a domain class and a mapped class fit together: found once for each pair, as expressions that are compiled."""

from __future__ import annotations

import copy
import enum
import inspect
from difflib import get_close_matches
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from msgspec import UNSET
from sqlalchemy import JSON, Column, Enum
from sqlalchemy.types import TypeDecorator

from ...models import InvalidModel, UnknownColumn
from .fields import Field, Shape, fields_of, shape_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sqlalchemy.orm import Mapper

    Wrap = Callable[[str], str]


class Behind(NamedTuple):
    """
    A field whose objects are behind a relationship.

    Attributes:
        attribute: The relationship.
        shape: What the field is annotated with.
        path: The path of fields that leads to it.
        reader: The name of the constant that `out` calls with the row, or rows.
        value: The expression for what an item has there.
    """

    attribute: str
    shape: Shape
    path: str
    reader: str
    value: str


class Derivation:
    """
    What is known of a domain class and a mapped class.

    The expressions are over `item` (the domain object), `row`, and `loaded` (what the row has loaded, a dictionary).

    Args:
        class_: The domain class.
        mapper: Of the mapped class.
        renamed: Attributes of rows by path of fields; None: not stored.
        path: Where the class is nested, with a dot behind.

    Attributes:
        constants: What the expressions refer to, by name.
        stored: The expressions for what goes into each attribute of the row.
        behind: The fields behind relationships.
        may_be_absent: A value may be `UNSET`.
        item: The expression that makes the item of a row.

    Raises:
        UnknownColumn: The class has a field that the row has not.
        InvalidModel: The two do not fit together.
    """

    def __init__(
        self, class_: type[Any], mapper: Mapper[Any], renamed: Mapping[str, str | None], path: str = ""
    ) -> None:
        self.class_ = class_
        self.mapper = mapper
        self.renamed = renamed
        self.constants: dict[str, Any] = {"UNSET": UNSET}
        self.stored: dict[str, str] = {}
        self.behind: list[Behind] = []
        self.may_be_absent = False
        self.item = self._record(class_, path, "", "item", lambda expression: expression)

    def compiled(self, parameters: str, expression: str) -> Any:
        """
        Return the function of an expression.
        """
        # In it are names of fields and attributes only, as identifiers or in quotes: nothing that comes from a user.
        return eval(f"lambda {parameters}: {expression}", self.constants)  # noqa: S307

    def _constant(self, value: Any) -> str:
        name = f"constant{len(self.constants)}"
        self.constants[name] = value
        return name

    def _called(self, function: Callable[..., Any] | None, value: str) -> str:
        return value if function is None else f"{self._constant(function)}({value})"

    def _record(self, class_: type[Any], path: str, prefix: str, held: str, wrap: Wrap) -> str:
        """
        Return the expression that makes an object of a row.

        Args:
            class_: Of the object.
            path: Of fields that leads to it, with a dot behind.
            prefix: Of the attributes that it is made of.
            held: The expression that finds it in the item.
            wrap: Guards an expression against a None on the way.
        """
        fields = fields_of(class_)
        if fields is None:
            where = f" (the field {path[:-1]!r})" if path else ""
            raise InvalidModel(
                f"{class_!r}{where} is no dataclass, attrs class, msgspec Struct or pydantic model that is known at "
                "run time; write from_row and to_row"
            )
        given: list[str] = []
        late: list[str] = []
        for field in fields:
            attribute = self.renamed.get(f"{path}{field.name}", f"{prefix}{field.name}")
            if attribute is None or (field.parameter is None and not self._is_known(attribute)):
                continue  # computed by the class itself, or not stored
            absent = field.parameter is None and field.needed
            value = f"getattr({held}, {field.name!r}, UNSET)" if absent else f"{held}.{field.name}"
            shape = shape_of(field.annotation)
            self.may_be_absent |= absent or shape.may_be_unset
            expression = self._field(class_, field, path, attribute, value, wrap)
            (late if field.parameter is None else given).append(f"{field.parameter or field.name}={expression}")
        made = f"{self._constant(class_)}({', '.join(given)})"
        return f"{self._constant(_completed)}({made}, {', '.join(late)})" if late else made

    def _field(self, class_: type[Any], field: Field, path: str, attribute: str, value: str, wrap: Wrap) -> str:
        """
        Note where a field goes, and return the expression that reads it.
        """
        shape = shape_of(field.annotation)
        column = self.mapper.column_attrs.get(attribute)
        if column is not None:
            stored = column.columns[0]
            decode, encode = _codec(stored, field.annotation, shape, class_)
            if isinstance(stored, Column) and stored.computed is None:
                self.stored[attribute] = wrap(self._called(encode, value))
            return self._called(decode, f"loaded[{attribute!r}]")
        if attribute in self.mapper.relationships:
            reader = f"reader{len(self.behind)}"
            self.behind.append(Behind(attribute, shape, f"{path}{field.name}.", reader, wrap(value)))
            return f"{reader}(loaded[{attribute!r}])"
        if attribute in self.mapper.composites or attribute in self.mapper.synonyms:
            self.stored[attribute] = wrap(value)
            return f"loaded[{attribute!r}]"
        if self._is_known(attribute):  # a hybrid, a proxy, a property: it follows from the rest
            return self._called(shape.container, f"row.{attribute}")
        if fields_of(shape.item) is None or shape.container is not None:
            raise self._unknown(class_, field, attribute)
        return self._value_object(shape, path + field.name, attribute, value, wrap)

    def _value_object(self, shape: Shape, path: str, attribute: str, value: str, wrap: Wrap) -> str:
        before = set(self.stored)

        def guarded(inner: str) -> str:
            inner = f"(None if {value} is None else {inner})" if shape.optional else inner
            return wrap(f"(UNSET if {value} is UNSET else {inner})" if shape.may_be_unset else inner)

        made = self._record(shape.item, f"{path}.", f"{attribute}_", value, guarded)
        present = " or ".join(f"loaded[{each!r}] is not None" for each in self.stored if each not in before)
        return f"({made} if {present} else None)" if shape.optional and present else made

    def _is_known(self, attribute: str) -> bool:
        found = inspect.getattr_static(self.mapper.class_, attribute, None)
        return attribute in self.mapper.all_orm_descriptors or isinstance(found, property | cached_property)

    def _unknown(self, class_: type[Any], field: Field, attribute: str) -> UnknownColumn:
        model = self.mapper.class_.__name__
        near = get_close_matches(attribute, self.mapper.attrs.keys(), n=1)
        remedy = f'renamed = {{"{field.name}": {near[0] if near else "…"!r}}}'
        return UnknownColumn(
            f"{class_.__name__} has a field {field.name!r}, but {model} has no attribute {attribute!r}; add it to "
            f"{model}, or say in the repository which one it is ({remedy}; None where it is not stored), or write "
            "from_row and to_row"
        )


def _completed(item: Any, /, **values: Any) -> Any:
    """
    Set the fields that a constructor does not take, on a frozen object too.
    """
    for name, value in values.items():
        object.__setattr__(item, name, value)
    return item


Codec = tuple["Callable[[Any], Any] | None", "Callable[[Any], Any] | None"]


def _codec(column: Any, annotation: Any, shape: Shape, class_: type[Any]) -> Codec:
    """
    Return what makes the value of a field from that of a column, and back; None where they are the same.
    """
    type_ = column.type
    if isinstance(type_, JSON):
        # What comes out of a JSON column can be changed in place, which nobody would notice if it were not a copy.
        validates = hasattr(class_, "__pydantic_validator__")
        return partial(_from_json, Any if validates else annotation), _to_json
    if isinstance(shape.item, type) and issubclass(shape.item, enum.Enum) and shape.container is None:
        return _enum_codec(type_, shape.item)
    if shape.container is not None or not type_.hashable:
        return copy.deepcopy, copy.deepcopy
    return None, None


def _enum_codec(type_: Any, class_: type[enum.Enum]) -> Codec:
    if isinstance(type_, TypeDecorator) or (isinstance(type_, Enum) and type_.enum_class is class_):
        return None, None
    stored = type_.enum_class if isinstance(type_, Enum) else None

    def decode(value: Any) -> Any:
        return None if value is None else class_(value.value if isinstance(value, enum.Enum) else value)

    def encode(value: Any) -> Any:
        if not isinstance(value, enum.Enum):
            return value
        return value.value if stored is None else stored(value.value)

    return decode, encode


def _from_json(annotation: Any, value: Any) -> Any:
    return msgspec.convert(_to_json(value), annotation)


def _to_json(value: Any) -> Any:
    return value if value is UNSET else msgspec.to_builtins(value, enc_hook=_of_pydantic)


def _of_pydantic(value: Any) -> Any:
    if hasattr(value, "model_dump"):
        return value.model_dump()
    raise NotImplementedError(f"{value!r} cannot be stored as JSON")
