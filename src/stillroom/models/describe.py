"""
What is known of an instance without asking the database: its ``repr``, its columns as a dict, its secrets.
"""

from __future__ import annotations

import datetime as dt
import enum
import re
from decimal import Decimal
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import Column
from sqlalchemy import inspect as sa_inspect
from sqlalchemy.orm import InstanceState, Mapper
from sqlalchemy.util.concurrency import in_greenlet

from stillroom.models.problems import ColumnsNotLoaded, UnknownColumn
from stillroom.secrets import is_secret

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

__all__ = ["column_names", "describe", "known_column", "mapper_of", "secret_columns", "to_dict"]

# Columns hold more kinds of secrets than settings do: hashes of passwords, one-time codes, numbers of cards.
_SECRET = re.compile(
    r"passw|passphrase|secret|token|credential|(private|api|access|encryption)_?key|(^|_)(otp|pin|cvv|cvc)(_|$)",
    re.IGNORECASE,
)
_SHORT_TYPES = (str, bool, int, float, Decimal, UUID, enum.Enum, dt.date, dt.time, dt.timedelta)
_SHOWN_COLUMNS = 5
_SHOWN_CHARACTERS = 40


def mapper_of(model: type[Any]) -> Mapper[Any]:
    """
    Find the mapper of a model.

    Raises:
        sqlalchemy.exc.NoInspectionAvailable: the class is not mapped.
    """
    mapper: Mapper[Any] = sa_inspect(model)
    return mapper


def _columns(mapper: Mapper[Any]) -> dict[str, Column[Any]]:
    """
    List the columns of a model by the names of their attributes; SQL expressions (``column_property``) are none.
    """
    firsts = ((attr.key, attr.columns[0]) for attr in mapper.column_attrs)
    return {key: column for key, column in firsts if isinstance(column, Column)}


def column_names(model: type[Any]) -> tuple[str, ...]:
    """
    List the attributes of a model that are columns, in the order of the table.
    """
    return tuple(_columns(mapper_of(model)))


def known_column(model: type[Any], name: str) -> str:
    """
    Check that a model has a column.

    Args:
        model: a mapped class.
        name: the name of an attribute.

    Returns:
        The name.

    Raises:
        UnknownColumn: it has none of that name; names the nearest one.
    """
    names = column_names(model)
    if name in names:
        return name
    near = get_close_matches(name, names, n=1)
    remedy = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(map(repr, names))}"
    msg = f"{model.__name__} has no column {name!r}; {remedy}"
    raise UnknownColumn(msg)


def _is_secret(key: str, column: Column[Any]) -> bool:
    marked = column.info.get("secret")
    if marked is not None:
        return bool(marked)
    return any(is_secret(name) or _SECRET.search(name) is not None for name in (key, column.name))


def secret_columns(model: type[Any]) -> tuple[str, ...]:
    """
    List the attributes of a model that a ``repr`` does not show.

    Args:
        model: a mapped class.

    Returns:
        The columns whose name looks like a secret (password, token, …) or whose ``info`` says ``{"secret": True}``,
        without those whose ``info`` says ``{"secret": False}``.
    """
    return tuple(key for key, column in _columns(mapper_of(model)).items() if _is_secret(key, column))


def _short(value: object) -> str:
    """
    Write a value in one short piece.
    """
    if isinstance(value, enum.Enum):
        return f"{type(value).__name__}.{value.name}"
    if isinstance(value, dt.date | dt.time | UUID | Decimal):
        return str(value)
    if isinstance(value, str) and len(value) > _SHOWN_CHARACTERS:
        value = value[: _SHOWN_CHARACTERS - 1] + "…"
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS + 2 else text[:_SHOWN_CHARACTERS] + "…"


def describe(instance: object) -> str:
    """
    Write an instance for people: its primary key and up to five short columns, those that are loaded.

    Nothing is loaded or refreshed for it, so it works on any instance: new, expired, deleted, detached, of an async
    session. Secrets are left out (in a primary key: masked), so are long binary and JSON values.

    Returns:
        Such as ``<User id=1 name='Ada'>`` or ``<User new name='Ada'>``.
    """
    state = sa_inspect(instance, raiseerr=False)
    if not isinstance(state, InstanceState):
        return object.__repr__(instance)
    mapper, loaded = state.mapper, state.dict
    columns = _columns(mapper)
    keys = [mapper.get_property_by_column(column).key for column in mapper.primary_key]
    known = dict(zip(keys, state.identity or (), strict=False))
    parts = [type(instance).__name__]
    if state.transient or state.pending:
        parts.append("new")
    for key in keys:
        value = loaded.get(key, known.get(key))
        if value is not None:
            parts.append(f"{key}={'***' if key in columns and _is_secret(key, columns[key]) else _short(value)}")
    rest = (key for key in columns if key in loaded and key not in keys and not _is_secret(key, columns[key]))
    shown = [key for key in rest if loaded[key] is None or isinstance(loaded[key], _SHORT_TYPES)]
    parts += (f"{key}={_short(loaded[key])}" for key in shown[:_SHOWN_COLUMNS])
    return f"<{' '.join(parts)}>"


def to_dict(
    instance: object,
    *,
    include: Iterable[str] | None = None,
    exclude: Collection[str] = (),
    loaded_only: bool = False,
) -> dict[str, Any]:
    """
    Copy the columns of an instance into a dict.

    Columns that are not loaded are loaded, except with ``loaded_only``. Secrets are columns like all others here:
    ``exclude=secret_columns(User)`` leaves them out.

    Args:
        instance: an instance of a mapped class.
        include: the attributes wanted; None: all columns.
        exclude: attributes to leave out.
        loaded_only: leave out what is not loaded, and send no statement.

    Returns:
        Values by the names of attributes, in the order of the table or of ``include``.

    Raises:
        UnknownColumn: ``include`` or ``exclude`` names what is no column.
        ColumnsNotLoaded: columns are not loaded and cannot be; names them.
    """
    model = type(instance)
    state: InstanceState[Any] = sa_inspect(instance)
    left_out = {exclude} if isinstance(exclude, str) else set(exclude)
    for name in left_out:
        known_column(model, name)
    if isinstance(include, str):
        include = (include,)
    wanted = column_names(model) if include is None else tuple(known_column(model, name) for name in include)
    names = [name for name in wanted if name not in left_out]
    if loaded_only:
        return {name: state.dict[name] for name in names if name in state.dict}
    missing = tuple(name for name in names if name not in state.dict)
    if missing and state.detached:
        raise _not_loaded(instance, missing, "it belongs to no session")
    if missing and state.persistent and state.async_session is not None and not in_greenlet():
        raise _not_loaded(instance, missing, "its session is an AsyncSession, which loads only under await")
    return {name: getattr(instance, name) for name in names}


def _not_loaded(instance: object, missing: tuple[str, ...], reason: str) -> ColumnsNotLoaded:
    msg = (
        f"{describe(instance)}: columns {', '.join(map(repr, missing))} are not loaded and cannot be, because {reason}."
        " Load or refresh them before, or ask for to_dict(loaded_only=True)"
    )
    return ColumnsNotLoaded(msg, columns=missing)
