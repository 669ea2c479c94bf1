"""What runs after a unit of work: callbacks that a rolled-back savepoint takes with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from sqlalchemy.orm import Session, SessionTransaction


class Hook:
    """
    A callback, and the savepoints that it was registered in.
    """

    __slots__ = ("callback", "savepoints")

    def __init__(self, callback: Callable[[], Any], savepoints: tuple[object, ...]) -> None:
        self.callback = callback
        self.savepoints = savepoints


class Hooks:
    """
    The callbacks of one unit of work, in the order in which they were registered.
    """

    # Most units of work have none: an instance gets its own when they are needed.
    _commit: Sequence[Hook] = ()
    _rollback: Sequence[Hook] = ()
    _undone: Sequence[Hook] = ()
    """What belongs to a savepoint that was rolled back; due whatever becomes of the unit of work."""
    registered = False

    def on_commit(self, callback: Callable[[], Any], savepoints: tuple[object, ...]) -> None:
        self.registered = True
        self._commit = [*self._commit, Hook(_callable(callback), savepoints)]

    def on_rollback(self, callback: Callable[[], Any], savepoints: tuple[object, ...]) -> None:
        self.registered = True
        self._rollback = [*self._rollback, Hook(_callable(callback), savepoints)]

    def savepoint_rolled_back(self, savepoint: object) -> None:
        """
        Decide the callbacks that were registered inside a savepoint which is rolled back now.
        """
        inside = {id(hook) for hook in (*self._commit, *self._rollback) if _within(hook, savepoint)}
        self._undone = [*self._undone, *(hook for hook in self._rollback if id(hook) in inside)]
        self._commit = [hook for hook in self._commit if id(hook) not in inside]
        self._rollback = [hook for hook in self._rollback if id(hook) not in inside]

    def take(self, *, committed: bool | None) -> list[Callable[[], Any]]:
        """
        Return the callbacks of this outcome, and forget all of them.

        Args:
            committed: Everything is durable, or everything was rolled back; None for neither.
        """
        outcome = {True: self._commit, False: self._rollback, None: ()}[committed]
        hooks = [*self._undone, *outcome]
        self._commit = self._rollback = self._undone = ()
        return [hook.callback for hook in hooks]


def _within(hook: Hook, savepoint: object) -> bool:
    return any(each is savepoint for each in hook.savepoints)


def _callable(callback: Callable[[], Any]) -> Callable[[], Any]:
    if not callable(callback):
        raise TypeError(f"a callback must be callable without arguments, not {callback!r}; use a lambda to pass some")
    return callback


def open_savepoints(sessions: Iterable[Session]) -> tuple[object, ...]:
    """
    Return the savepoints that are open now in `sessions`, also those that the user opened on a session.
    """
    found: list[object] = []
    for session in sessions:
        transaction: SessionTransaction | None = session.get_nested_transaction()
        while transaction is not None and transaction.nested:
            found.append(transaction)
            transaction = transaction.parent
    return tuple(found)
