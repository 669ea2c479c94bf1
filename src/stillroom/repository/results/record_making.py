"""From tuples to objects of a class: dataclass, attrs, msgspec Struct or pydantic model."""

from __future__ import annotations

import inspect
import types
from functools import lru_cache
from itertools import repeat, starmap
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple, cast, get_args

import msgspec

from ...errors import BadRow
from ...models import UnknownColumn
from ..domain.fields import fields_of, shape_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from ..domain.fields import Field
    from ..plan import Plan

    Make = Callable[[Sequence[Sequence[Any]]], list[Any]]


class _Chosen(NamedTuple):
    """
    A field and where its value is found.
    """

    field: Field
    column: str


def _choose(type_: type[Any], names: Collection[str], where: str) -> list[_Chosen]:
    """
    Find the column of each field: by its name, by what the constructor calls it, or by its name in JSON.

    Raises:
        TypeError: The class is none of the four kinds.
        UnknownColumn: A field that needs a value has no column.
    """
    fields = fields_of(type_)
    if fields is None:
        raise TypeError(f"{type_!r} is no dataclass, attrs class, msgspec Struct or pydantic model")
    struct_names = zip(
        getattr(type_, "__struct_fields__", ()), getattr(type_, "__struct_encode_fields__", ()), strict=True
    )
    encoded = dict(struct_names)
    chosen = []
    for field in fields:
        if field.parameter is None:
            continue
        candidates = (field.name, field.parameter, encoded.get(field.name))
        column = next((each for each in candidates if each in names), None)
        if column is not None:
            chosen.append(_Chosen(field, column))
        elif field.needed:
            raise UnknownColumn(
                f"the field {field.name!r} of {type_.__name__} has no column {where}; there are "
                f"{', '.join(map(repr, names))}. Give the field a default, or label a column with its name"
            )
    if not chosen:
        raise UnknownColumn(
            f"no field of {type_.__name__} has a column {where}; there are {', '.join(map(repr, names))}"
        )
    return chosen


def column_names(type_: type[Any], plan: Plan) -> list[str]:
    """
    Return the attributes of the model that the fields of a class stand for.
    """
    return [each.column for each in _choose(type_, plan.columns, f"in {plan.model.__name__}")]


@lru_cache(maxsize=1024)
def maker(type_: Any, names: tuple[str, ...], python_types: tuple[Any, ...]) -> Make:
    """
    Return what makes objects of rows.

    Args:
        type_: The class.
        names: The names of the columns.
        python_types: The type of each column's values, None where it is not known; empty where none is.
    """
    chosen = _choose(type_, names, "among those that are selected")
    positions = [names.index(each.column) for each in chosen]
    known = python_types or (None,) * len(names)
    # pydantic converts and checks by itself.
    converts_itself = hasattr(type_, "__pydantic_validator__")
    unsure = [
        (number, each)
        for number, (each, position) in enumerate(zip(chosen, positions, strict=True))
        if not converts_itself and not _fits(each.field.annotation, known[position])
    ]
    build = _builder(type_, tuple(each.field.parameter or "" for each in chosen))
    in_order = positions == list(range(len(names)))
    if not unsure and in_order:
        return build
    looks = [(itemgetter(positions[number]), _classes(each.field.annotation)) for number, each in unsure]

    def make(rows: Sequence[Sequence[Any]]) -> list[Any]:
        # To turn rows into columns and back costs as much as to make the objects: look whether any value needs it.
        if not rows or (in_order and all(all(map(isinstance, map(get, rows), repeat(kinds))) for get, kinds in looks)):
            return build(rows)
        columns: list[Sequence[Any]] = list(zip(*rows, strict=True))
        columns = [columns[position] for position in positions]
        for number, each in unsure:
            columns[number] = _converted(columns[number], each, type_)
        return build(list(zip(*columns, strict=True)))

    return make


def _builder(type_: type[Any], parameters: tuple[str, ...]) -> Make:
    """
    Return what calls the class for each row, by position where its constructor has this order.
    """
    taken = inspect.signature(type_).parameters.values()
    in_order = tuple(each.name for each in taken if each.kind is each.POSITIONAL_OR_KEYWORD)
    if in_order[: len(parameters)] == parameters:
        return lambda rows: list(starmap(type_, rows))
    return lambda rows: [type_(**values) for values in map(dict, map(zip, repeat(parameters), rows))]


def _fits(annotation: Any, python_type: Any) -> bool:
    """
    Say whether values of a column are what a field wants, without a look at them.
    """
    shape = shape_of(annotation)
    if shape.container is None:
        return shape.item in (Any, object, python_type)
    return python_type in (dict, list) and _is_plain(annotation)


_PLAIN = (Any, object, str, int, float, bool, None, type(None), dict, list)


def _is_plain(annotation: Any) -> bool:
    """
    Say whether an annotation is of what JSON itself holds.
    """
    shape = shape_of(annotation)
    return shape.item in _PLAIN if shape.container is None or shape.item is annotation else _is_plain(shape.item)


_ANY_DICT = (dict, dict[str, Any], dict[str, object])
_ANY_LIST = (list, list[Any], list[object])


def _classes(annotation: Any) -> tuple[type, ...]:
    """
    Return the classes whose objects a field takes as they are; none where only a conversion tells.
    """
    shape = shape_of(annotation)
    class_ = shape.item if isinstance(shape.item, type) else None
    if shape.container is not None:
        inner = get_args(annotation) if shape.optional else (annotation,)
        class_ = dict if any(each in _ANY_DICT for each in inner) else None
        class_ = list if any(each in _ANY_LIST for each in inner) else class_
    return () if class_ is None else (class_, types.NoneType) if shape.optional else (class_,)


def _converted(values: Sequence[Any], chosen: _Chosen, type_: type[Any]) -> Sequence[Any]:
    """
    Convert what is not yet of the field's type: all values of a column at once.
    """
    if all(map(isinstance, values, repeat(_classes(chosen.field.annotation)))):
        return values
    try:
        return cast(
            "list[Any]", msgspec.convert(values, types.GenericAlias(list, chosen.field.annotation), strict=False)
        )
    except msgspec.ValidationError as error:
        raise _bad_row(values, chosen, type_) from error


def _bad_row(values: Sequence[Any], chosen: _Chosen, type_: type[Any]) -> BadRow:
    """
    Make the error of the first value that cannot be converted.
    """
    field = chosen.field
    for number, value in enumerate(values, 1):
        try:
            msgspec.convert(value, field.annotation, strict=False)
        except msgspec.ValidationError as error:
            message = (
                f"row {number}: {value!r} in the column {chosen.column!r} does not fit {type_.__name__}.{field.name}"
            )
            return BadRow(f"{message}: {error}", number=number, column=chosen.column)
    raise AssertionError("a list that does not convert has an item that does not")
