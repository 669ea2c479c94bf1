"""Which unit of work is current in this thread or asyncio task."""

from __future__ import annotations

import os
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable


class Unit(Protocol):
    """
    What the context needs of a unit of work, synchronous or not.

    Attributes:
        outer: The one that was current when it was entered.
        in_threads: Returns the blocking one that stands for it in threads that run in a copy of its context.
    """

    outer: Unit | None
    in_threads: Callable[[], Unit] | None

    @property
    def databases(self) -> Any: ...

    @property
    def is_active(self) -> bool: ...


# One variable for all: a ContextVar that an object makes for itself is never collected.
_current: ContextVar[Unit | None] = ContextVar("stillroom_unit_of_work", default=None)


def enter(unit: Unit) -> None:
    """
    Make `unit` the innermost one.
    """
    outer = _current.get()
    while outer is not None and not outer.is_active:
        outer = outer.outer  # it ended in another task, which could not leave it here
    unit.outer = outer
    _current.set(unit)


def leave(unit: Unit) -> None:
    """
    Make the outer unit current again, if `unit` is the innermost one here.

    No token: `ContextVar.reset` fails where the frame that leaves runs in a copy of the context that entered.
    """
    if _current.get() is unit:
        outer = unit.outer
        while outer is not None and not outer.is_active:
            outer = outer.outer  # it was left before this one
        _current.set(outer)


def innermost(databases: object) -> Unit | None:
    """
    Return the innermost unit of work of `databases` that is entered here, ended or not.
    """
    unit = _current.get()
    while unit is not None and unit.databases is not databases:
        unit = unit.outer
    if unit is not None and unit.in_threads is not None and not _in_event_loop():
        return unit.in_threads()
    return unit


def _in_event_loop() -> bool:
    import asyncio

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _forget_parent() -> None:
    _current.set(None)


if hasattr(os, "register_at_fork"):  # a forked child starts with none, as a thread does
    os.register_at_fork(after_in_child=_forget_parent)
