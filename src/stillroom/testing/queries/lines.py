"""Which line of the application is behind what is running now."""

from __future__ import annotations

import asyncio
import inspect
import os
import re
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import FrameType

__all__ = ["Line", "Origin", "application_line", "origin"]

_STANDARD_LIBRARY = tuple(sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib"))
_INSTALLED = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")
_GENERATED = ("<frozen ", "<sqlalchemy ")
_PLUMBING = ("stillroom.backends", "stillroom.verification")
"""Where Stillroom asks its own questions over the application's connections."""
_CATALOGUE = ("sqlalchemy.dialects", "sqlalchemy.engine.reflection")
_DEFAULTS = {"fire_sequence", "get_insert_default"}
"""What in SQLAlchemy's dialects sends statements for the application's rows."""
_FLUSHING = "sqlalchemy.orm.unitofwork"
_COMPREHENSION = re.compile(r"(\.<locals>\.|^)<(listcomp|setcomp|dictcomp|genexpr)>.*")
"""Some are functions of their own, which differs between versions of Python."""


@dataclass(frozen=True)
class Line:
    """
    A line of code.

    Attributes:
        file: The path, relative to the working directory where it lies below that.
        number: The number of the line.
        module: The name of the module.
        function: The function's qualified name.
    """

    file: str
    number: int
    module: str
    function: str

    def __str__(self) -> str:
        return f"{self.file}:{self.number} in {self.function}"


@dataclass(frozen=True)
class Origin:
    """
    Where a statement comes from.

    Attributes:
        line: The nearest line of the application; None where there is none, as in a thread that runs a library alone.
        is_plumbing: It is a look-up of the dialect in the catalogue, or one of Stillroom's own questions.
        is_flush: The session sends it while it flushes.
    """

    line: Line | None
    is_plumbing: bool = False
    is_flush: bool = False


def application_line() -> Line | None:
    """
    Return the nearest line that runs now and belongs neither to a library nor to Stillroom.

    Where there is none, the nearest one of a library that is neither Stillroom nor SQLAlchemy, for the application may
    be installed like a library.
    """
    return _line(_running())


def origin() -> Origin:
    """
    Say where the statement comes from that SQLAlchemy is about to send.
    """
    is_flush = False
    for frame in _running():
        module = _module(frame)
        if _is_of(module, "sqlalchemy"):
            is_flush = is_flush or module == _FLUSHING
            if module.startswith(_CATALOGUE) and frame.f_code.co_name not in _DEFAULTS:
                return Origin(None, is_plumbing=True)
        elif module.startswith(_PLUMBING):
            return Origin(None, is_plumbing=True)
        elif module != __name__ and not module.startswith(__package__ or __name__):
            break
    return Origin(application_line(), is_flush=is_flush)


def _line(frames: Iterable[FrameType]) -> Line | None:
    nearest: FrameType | None = None
    for frame in frames:
        module, file = _module(frame), frame.f_code.co_filename
        if _is_of(module, "sqlalchemy", "stillroom", "greenlet") or file.startswith(_GENERATED):
            continue
        is_installed = any(part in file for part in _INSTALLED)
        if not is_installed and file.startswith(_STANDARD_LIBRARY):
            continue
        if not is_installed and not file.startswith("<"):
            return _made(frame)
        nearest = nearest or frame
    return _made(nearest) if nearest is not None else None


def _made(frame: FrameType) -> Line:
    path = Path(frame.f_code.co_filename)
    if path.is_relative_to(here := Path.cwd()):
        path = path.relative_to(here)
    function = _COMPREHENSION.sub("", frame.f_code.co_qualname) or "<module>"
    return Line(str(path), frame.f_lineno, _module(frame), function)


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))


def _is_of(module: str, *packages: str) -> bool:
    return module.partition(".")[0] in packages


def _running() -> Iterator[FrameType]:
    """
    Go through the frames that run now, the innermost first, and on through whoever waits for them.

    SQLAlchemy's asyncio runs its code in greenlets, each with a stack of its own; and the end of an asynchronous unit
    of work is a task for which the task of the application waits.
    """
    waiting: Iterator[FrameType] | None = _waiting()
    for frame in _stacked():
        # Below this frame is what runs the event loop, which is not what the task was made for.
        if waiting is not None and _is_of(_module(frame), "asyncio", "uvloop"):
            yield from waiting
            waiting = None
        yield frame


def _stacked() -> Iterator[FrameType]:
    frame = inspect.currentframe()
    greenlets = sys.modules.get("greenlet")
    greenlet = greenlets.getcurrent() if greenlets is not None else None
    while True:
        while frame is not None:
            yield frame
            frame = frame.f_back
        greenlet = greenlet.parent if greenlet is not None else None
        if greenlet is None:
            return
        frame = greenlet.gr_frame


def _waiting() -> Iterator[FrameType]:
    try:
        running = asyncio.current_task()
    except RuntimeError:
        return
    if running is None:
        return
    for task in asyncio.all_tasks():
        if task is not running and task.get_name() == running.get_name():
            yield from reversed(list(_awaiting(task.get_coro())))


def _awaiting(awaitable: Any) -> Iterator[FrameType]:
    """
    Go through the frames of a task that waits, the outermost first.
    """
    while awaitable is not None:
        for kind in ("cr", "gi", "ag"):
            frame = getattr(awaitable, f"{kind}_frame", None)
            if frame is not None:
                yield frame
                break
        else:
            return
        awaitable = getattr(awaitable, "gi_yieldfrom" if kind == "gi" else f"{kind}_await", None)
