"""What the fields of a dataclass, an attrs class, a msgspec Struct or a pydantic model are, whichever is installed."""

from __future__ import annotations

import dataclasses
import inspect
import sys
import types
import typing
from collections.abc import Collection, Iterable, Mapping, MutableMapping, Sequence
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, get_args, get_origin, get_type_hints

from msgspec import NODEFAULT, UnsetType

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Field(NamedTuple):
    """
    One field of a class.

    Attributes:
        name: Its attribute.
        parameter: What the constructor calls it; None where the constructor does not take it.
        annotation: Its type; `Any` where that names something which is imported for type checkers only.
        needed: It has no default.
    """

    name: str
    parameter: str | None
    annotation: Any
    needed: bool


class Shape(NamedTuple):
    """
    What an annotation says: an item, or a container of items.

    Attributes:
        item: The class of the item, or what else is written there.
        container: What makes the container of an iterable; None for an item alone.
        optional: It may be None.
        may_be_unset: It may be `msgspec.UNSET`.
    """

    item: Any
    container: Callable[[Iterable[Any]], Any] | None = None
    optional: bool = False
    may_be_unset: bool = False


_CONTAINERS: dict[Any, Callable[[Iterable[Any]], Any]] = {
    **dict.fromkeys((list, Iterable, Collection), list),
    **dict.fromkeys((tuple, Sequence), tuple),
    set: set,
    **dict.fromkeys((frozenset, AbstractSet), frozenset),
    **dict.fromkeys((dict, Mapping, MutableMapping), dict),
}


def fields_of(class_: Any) -> tuple[Field, ...] | None:
    """
    Return the fields of a class, or None where it is none of the four kinds.
    """
    for mark, read in _KINDS.items():
        if isinstance(class_, type) and hasattr(class_, mark):
            return tuple(read(class_))
    return None


def shape_of(annotation: Any) -> Shape:
    """
    Return what an annotation says of a value.
    """
    origin, arguments = get_origin(annotation), get_args(annotation)
    if hasattr(annotation, "__value__"):  # `type Lines = list[Line]`
        return shape_of(annotation.__value__)
    if origin is Annotated:
        return shape_of(arguments[0])
    if origin is typing.Union or origin is types.UnionType:
        rest = [each for each in arguments if each is not types.NoneType and each is not UnsetType]
        inner = shape_of(rest[0]) if len(rest) == 1 else Shape(annotation)
        return inner._replace(optional=types.NoneType in arguments, may_be_unset=UnsetType in arguments)
    container = _CONTAINERS.get(origin or annotation)
    if container is None:
        return Shape(annotation)
    items = [each for each in arguments if each is not ...]
    return Shape(items[-1] if items else Any, container)


def _of_dataclass(class_: Any) -> Iterator[Field]:
    hints = _hints(class_, {each.name: each.type for each in dataclasses.fields(class_)})
    for each in dataclasses.fields(class_):
        needed = each.default is dataclasses.MISSING and each.default_factory is dataclasses.MISSING
        yield Field(each.name, each.name if each.init else None, hints[each.name], needed)


def _of_attrs(class_: Any) -> Iterator[Field]:
    attributes = class_.__attrs_attrs__
    hints = _hints(class_, {each.name: each.type for each in attributes})
    nothing = sys.modules["attr"].NOTHING
    for each in attributes:
        yield Field(each.name, each.alias if each.init else None, hints[each.name], each.default is nothing)


def _of_struct(class_: Any) -> Iterator[Field]:
    names, defaults = class_.__struct_fields__, class_.__struct_defaults__
    annotations: dict[str, Any] = {}
    for owner in reversed(class_.__mro__):
        annotations |= inspect.get_annotations(owner)
    hints = _hints(class_, {name: annotations.get(name, Any) for name in names})
    all_defaults = (*(NODEFAULT,) * (len(names) - len(defaults)), *defaults)
    for name, default in zip(names, all_defaults, strict=True):
        yield Field(name, name, hints[name], default is NODEFAULT)


def _of_pydantic(class_: Any) -> Iterator[Field]:
    by_name = any(class_.model_config.get(each) for each in ("populate_by_name", "validate_by_name"))
    for name, info in class_.model_fields.items():
        alias = info.validation_alias
        alias = next((each for each in getattr(alias, "choices", [alias]) if isinstance(each, str)), name)
        yield Field(name, name if by_name else alias, info.annotation, info.is_required())


# The order counts: pydantic's own dataclasses have the marks of both, and are built as dataclasses.
_KINDS: dict[str, Callable[[Any], Iterator[Field]]] = {
    "__struct_fields__": _of_struct,
    "__attrs_attrs__": _of_attrs,
    "__dataclass_fields__": _of_dataclass,
    "__pydantic_fields__": _of_pydantic,
}


def _hints(class_: type[Any], raw: dict[str, Any]) -> dict[str, Any]:
    """
    Return the types of fields, resolved where they are text.
    """
    try:
        return raw | get_type_hints(class_, include_extras=True)
    except NameError:
        return {name: _hint(class_, annotation) for name, annotation in raw.items()}


def _hint(class_: type[Any], annotation: Any) -> Any:
    holder = types.SimpleNamespace(__annotations__={"it": annotation})
    for owner in class_.__mro__:  # an inherited field was written in the module of the class that it came from
        try:
            return get_type_hints(holder, vars(sys.modules[owner.__module__]), include_extras=True)["it"]
        except NameError:
            continue
    return Any
