"""Functions and blocks that run in a unit of work: they join the current one or open one, and may be tried again."""

from __future__ import annotations

import inspect
import time
from functools import wraps
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast, get_args, overload

from .errors import NoUnitOfWork, PropagationError
from .retry import Attempts, Retry
from .unit_of_work import UnitOfWork

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager, AbstractContextManager
    from types import TracebackType
    from typing import Concatenate, ParamSpec, TypeVar

    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm import Session

    from .aio import AsyncUnitOfWork
    from .databases import Databases
    from .status import UnitOptions

    P = ParamSpec("P")
    R = TypeVar("R")
    S = TypeVar("S")

    class Transactional(Protocol):
        """
        Takes the function whose first argument is the unit of work, and returns it without that argument.
        """

        @overload
        def __call__(
            self, function: Callable[Concatenate[AsyncUnitOfWork, P], Awaitable[R]], /
        ) -> Callable[P, Awaitable[R]]: ...

        @overload
        def __call__(self, function: Callable[Concatenate[UnitOfWork, P], R], /) -> Callable[P, R]: ...  # type: ignore[overload-overlap]  # no function takes both kinds of units

        @overload
        def __call__(
            self, function: Callable[Concatenate[S, AsyncUnitOfWork, P], Awaitable[R]], /
        ) -> Callable[Concatenate[S, P], Awaitable[R]]: ...

        @overload
        def __call__(
            self, function: Callable[Concatenate[S, UnitOfWork, P], R], /
        ) -> Callable[Concatenate[S, P], R]: ...

    class WithSession(Protocol):
        """
        Takes the function whose first argument is the session, and returns it without that argument.
        """

        @overload
        def __call__(
            self, function: Callable[Concatenate[AsyncSession, P], Awaitable[R]], /
        ) -> Callable[P, Awaitable[R]]: ...

        @overload
        def __call__(self, function: Callable[Concatenate[Session, P], R], /) -> Callable[P, R]: ...  # type: ignore[overload-overlap]  # nor both kinds of sessions

        @overload
        def __call__(
            self, function: Callable[Concatenate[S, AsyncSession, P], Awaitable[R]], /
        ) -> Callable[Concatenate[S, P], Awaitable[R]]: ...

        @overload
        def __call__(self, function: Callable[Concatenate[S, Session, P], R], /) -> Callable[Concatenate[S, P], R]: ...


Propagation = Literal["required", "new", "nested", "mandatory", "never"]


def _check(propagation: str) -> None:
    if propagation not in get_args(Propagation):
        known = ", ".join(map(repr, get_args(Propagation)))
        raise ValueError(f"propagation={propagation!r}: it is one of {known}")


def joined_unit(databases: Databases, propagation: Propagation, options: UnitOptions, kind: type) -> Any:
    """
    Return the unit of work to join, or None to open one.

    Raises:
        NoUnitOfWork: "mandatory", and none is open.
        PropagationError: The open one cannot be joined as asked.
    """
    unit = databases.current if databases.has_current else None
    if unit is None:
        if propagation == "mandatory":
            raise NoUnitOfWork(
                "propagation='mandatory': this needs an open unit of work, and there is none; open one around the call"
            )
        return None
    if propagation == "never":
        raise PropagationError(
            f"propagation='never': this must not run inside a unit of work, and {unit!r} is open; call it outside"
        )
    if propagation == "new":
        return None
    if not isinstance(unit, kind):
        raise PropagationError(
            f"this {'awaits' if kind is not UnitOfWork else 'blocks'}, and the open unit of work is {unit!r}: the two "
            "worlds cannot share one. Use propagation='new', or call the function of the same world"
        )
    if unit.options.read_only and not options.read_only:
        raise PropagationError(
            "the open unit of work is read only, and this may write. Open the outer one without read_only=True, mark "
            "this one read_only=True, or use propagation='new'"
        )
    if options.isolation is not None and options.isolation != unit.options.isolation:
        raise PropagationError(
            f"isolation={options.isolation!r} was asked for, and the open unit of work has "
            f"{unit.options.isolation or 'the default'!r}: it cannot change on the way. Use propagation='new', or open "
            "the outer one with that isolation"
        )
    return unit


class Transaction:
    """
    A block in a unit of work; see `Databases.transaction`.

    Args:
        databases: The databases.
        propagation: What happens if a unit of work is open already.
        options: For the unit of work that it opens.

    Raises:
        ValueError: There is no such propagation.
    """

    def __init__(self, databases: Databases, propagation: Propagation, options: UnitOptions) -> None:
        _check(propagation)
        self.databases = databases
        self.propagation = propagation
        self.options = options
        self._block: AbstractContextManager[Any] | None = None

    def __enter__(self) -> UnitOfWork:
        unit: UnitOfWork | None = joined_unit(self.databases, self.propagation, self.options, UnitOfWork)
        if unit is None:
            unit = UnitOfWork(self.databases.declared, self.options)
            self._block = unit
            unit.__enter__()
        elif self.propagation == "nested":
            self._block = unit.savepoint()
            self._block.__enter__()
        return unit

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._block is not None:
            block, self._block = self._block, None
            block.__exit__(kind, error, traceback)


class AsyncTransaction:
    """
    Same as `Transaction`, but for asyncio.
    """

    def __init__(self, databases: Databases, propagation: Propagation, options: UnitOptions) -> None:
        _check(propagation)
        self.databases = databases
        self.propagation = propagation
        self.options = options
        self._block: AbstractAsyncContextManager[Any] | None = None

    async def __aenter__(self) -> AsyncUnitOfWork:
        from .aio import AsyncUnitOfWork

        unit: AsyncUnitOfWork | None = joined_unit(self.databases, self.propagation, self.options, AsyncUnitOfWork)
        if unit is None:
            unit = AsyncUnitOfWork(self.databases.declared, self.options)
            self._block = unit
            await unit.__aenter__()
        elif self.propagation == "nested":
            self._block = unit.savepoint()
            await self._block.__aenter__()
        return unit

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._block is not None:
            block, self._block = self._block, None
            await block.__aexit__(kind, error, traceback)


def transactional(
    databases: Databases, propagation: Propagation, retry: Retry | None, options: UnitOptions
) -> Transactional:
    """
    Make the decorator; see `Databases.transactional`.
    """
    _check(propagation)

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        return _run_in_units(databases, function, propagation, retry, options)

    return cast("Transactional", decorate)


def with_session(databases: Databases, name: str | None, role: Any, retry: Retry | None) -> WithSession:
    """
    Make the decorator; see `Databases.with_session`.
    """
    from .status import UnitOptions

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        options = UnitOptions(read_only=role in ("reader", "any"))
        return _run_in_units(
            databases, function, "required", retry, options, argument=lambda unit: unit.session(name, role=role)
        )

    return cast("WithSession", decorate)


def _run_in_units(
    databases: Databases,
    function: Callable[..., Any],
    propagation: Propagation,
    retry: Retry | None,
    options: UnitOptions,
    argument: Callable[[Any], Any] = lambda unit: unit,
) -> Callable[..., Any]:
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(
            f"{function.__qualname__} is a generator: its body runs after the call, outside of the unit of work. Open "
            "one inside it: `with dbs.unit_of_work() as uow:`"
        )
    position = _position_of_first(function)

    def called(unit: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return function(*args[:position], argument(unit), *args[position:], **kwargs)

    if inspect.iscoroutinefunction(function):

        @wraps(function)
        async def run_async(*args: Any, **kwargs: Any) -> Any:
            attempts = Attempts(retry or _ONCE)
            while True:
                outermost = not databases.has_current
                try:
                    async with AsyncTransaction(databases, propagation, options) as unit:
                        return await called(unit, args, kwargs)
                except Exception as error:
                    pause = _pause(attempts, error, outermost=outermost, asked=retry is not None)
                    if pause is None:
                        raise
                await _sleep_async(pause)

        wrapper: Callable[..., Any] = run_async
    else:

        @wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            attempts = Attempts(retry or _ONCE)
            while True:
                outermost = not databases.has_current
                try:
                    with Transaction(databases, propagation, options) as unit:
                        result = called(unit, args, kwargs)
                        if inspect.isawaitable(result):
                            raise _would_run_later(function, result)
                        return result
                except Exception as error:
                    pause = _pause(attempts, error, outermost=outermost, asked=retry is not None)
                    if pause is None:
                        raise
                time.sleep(pause)

        wrapper = run
    wrapper.__signature__ = _without_parameter(function, position)  # type: ignore[attr-defined]
    return wrapper


def _would_run_later(function: Callable[..., Any], result: Any) -> TypeError:
    """
    Make the error for a function that returned what is to be awaited.
    """
    if inspect.iscoroutine(result):
        result.close()  # else Python would warn, besides, that it was never awaited
    return TypeError(
        f"{function!r} returned {result!r}, which would run after the end of its unit of work: decorate the coroutine "
        "function itself (`async def`)"
    )


_ONCE = Retry(attempts=1)


async def _sleep_async(seconds: float) -> None:
    import asyncio

    await asyncio.sleep(seconds)


def _pause(attempts: Attempts, error: BaseException, *, outermost: bool, asked: bool) -> float | None:
    if not asked:
        return None
    if not outermost:
        if attempts.retry.covers(error):
            # The work of the outer unit is gone or half done: only the one that opened it can start again.
            error.__dict__["stillroom_retryable"] = True
            error.add_note("stillroom: may be tried again, by whoever opened the outermost unit of work")
        return None
    return attempts.pause_after(error)


def _position_of_first(function: Callable[..., Any]) -> int:
    """
    Return where the unit of work goes: behind `self` or `cls`, else first.
    """
    names = list(inspect.signature(function).parameters)
    return 1 if names and names[0] in ("self", "cls") else 0


def _without_parameter(function: Callable[..., Any], position: int) -> inspect.Signature:
    signature = inspect.signature(function)
    parameters = list(signature.parameters.values())
    return signature.replace(parameters=[each for index, each in enumerate(parameters) if index != position])
