"""Who uses the sandbox: a thread or an asyncio task, and the line of the application that it is at."""

from __future__ import annotations

import asyncio
import sys
import sysconfig
import threading
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any
from weakref import ref

if TYPE_CHECKING:
    from types import FrameType

_STANDARD_LIBRARY = sysconfig.get_paths()["stdlib"]
_LIBRARIES = frozenset({"stillroom", "sqlalchemy", "greenlet", "pytest", "_pytest", "pluggy"})


class Actor:
    """
    A thread, or an asyncio task in it.

    Attributes:
        thread: The thread.
        task: The task; None for code outside of one.
        name: The name of the task, or of the thread.
    """

    __slots__ = ("__weakref__", "loop", "name", "task", "thread")

    def __init__(self, task: asyncio.Task[Any] | None) -> None:
        self.thread = threading.current_thread()
        self.task = ref(task) if task is not None else None
        self.loop = ref(task.get_loop()) if task is not None else None
        self.name = task.get_name() if task is not None else self.thread.name

    def __str__(self) -> str:
        return f"the thread {self.name!r}" if self.task is None else f"the task {self.name!r}"

    def admits(self, other: Actor) -> bool:
        """
        Say whether `other` is the same, or runs inside of it: a task in the event loop that this thread has started.
        """
        if self is other:
            return True
        if self.task is None:
            return self.thread is other.thread
        return other.task is not None and self.task() is not None and self.task() is other.task()

    @property
    def has_ended(self) -> bool:
        """
        Whether the thread or task is no more, and so can end nothing.
        """
        if self.task is None:
            return not self.thread.is_alive()
        task = self.task()
        return task is None or task.done()


_acting: ContextVar[Actor | None] = ContextVar("stillroom_sandbox_actor", default=None)


def current_actor() -> Actor:
    """
    Return who is running now.
    """
    task = running_task()
    known = _acting.get()
    if task is None:
        # Contexts are handed to threads too; there the actor of a task means nothing.
        if known is None or known.task is not None or known.thread is not threading.current_thread():
            known = Actor(None)
        return known
    if known is not None and known.task is not None and known.loop is not None and known.loop() is task.get_loop():
        is_same = known.task() is task
        # A unit of work ends in a task of its own, which bears the name of the one that waits for it.
        if is_same or known.name == task.get_name():
            return known
    actor = Actor(task)
    _acting.set(actor)
    return actor


def running_task() -> asyncio.Task[Any] | None:
    """
    Return the asyncio task that is running; None outside of one.
    """
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None


class Place:
    """
    A line of the application.
    """

    __slots__ = ("file", "function", "line")

    def __init__(self, file: str, line: int, function: str) -> None:
        self.file = file
        self.line = line
        self.function = function

    def __str__(self) -> str:
        return f"{self.file}:{self.line} in {self.function}"


_NOWHERE = Place("?", 0, "code of libraries alone")


def current_place() -> Place:
    """
    Return the innermost line of the application, below the frames of libraries.
    """
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001  # documented, in spite of its name
    greenlet: Any = None
    while True:
        while frame is not None:
            if _is_application(frame):
                code = frame.f_code
                return Place(code.co_filename, frame.f_lineno, code.co_name)
            frame = frame.f_back
        module = sys.modules.get("greenlet")
        if module is None:
            return _NOWHERE
        # Inside SQLAlchemy's greenlets the frames of the coroutines are those of the parent.
        greenlet = module.getcurrent().parent if greenlet is None else greenlet.parent
        if greenlet is None:
            return _NOWHERE
        frame = greenlet.gr_frame


def _is_application(frame: FrameType) -> bool:
    file = frame.f_code.co_filename
    if "site-packages" in file or file.startswith((_STANDARD_LIBRARY, "<")):
        return False
    return str(frame.f_globals.get("__name__", "")).partition(".")[0] not in _LIBRARIES
