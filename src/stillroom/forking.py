"""What happens to database connections when the process forks, without a call by the user."""

from __future__ import annotations

import contextlib
import os
import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

    from .backends import Backend
    from .connections import ConnectionState


class _Process:
    """
    The generation of this process: a fork makes a new one, so an integer comparison tells a connection of the parent.

    A pid would do as well, but costs a system call for each statement.
    """

    generation = 0


process = _Process()
_engines: weakref.WeakKeyDictionary[Engine, Backend] = weakref.WeakKeyDictionary()
_connections: weakref.WeakSet[ConnectionState] = weakref.WeakSet()


def watch_engine(engine: Engine, backend: Backend) -> None:
    """
    Make `engine` start afresh in each forked child.
    """
    _engines[engine] = backend


def watch_connection(state: ConnectionState) -> None:
    """
    Keep a child from reaching the server over the connection of `state`.
    """
    _connections.add(state)


def _before_fork() -> None:
    for engine, backend in list(_engines.items()):
        if backend.closes_idle_before_fork(engine):
            engine.dispose()


def _after_fork_in_child() -> None:
    process.generation += 1
    for state in list(_connections):
        state.is_quiet = False
        # An inherited connection must not be spoken over, and not be closed politely either: both reach the
        # server and end the parent's transaction. A failure here leaves the generation check as the guard.
        with contextlib.suppress(Exception):
            state.backend.abandon(state.dbapi_connection)
    for engine in list(_engines):
        engine.dispose(close=False)


if hasattr(os, "register_at_fork"):  # not on Windows, which cannot fork
    os.register_at_fork(before=_before_fork, after_in_child=_after_fork_in_child)
