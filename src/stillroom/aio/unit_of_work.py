"""The unit of work for asyncio: the synchronous rules, run inside SQLAlchemy's greenlets."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from typing import TYPE_CHECKING, Any

from .. import context
from ..status import NO_OPTIONS, Status, UnitOptions
from ..unit_of_work import dropped, missing_attribute
from .completion import run_to_completion
from .core import AsyncUnitCore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine
    from types import TracebackType
    from typing import Self

    from sqlalchemy.ext.asyncio import AsyncSession

    from ..declared import Declared
    from ..status import SessionRole

_SLACK = 1.0
"""Seconds that the end may take beside its COMMITs."""


class AsyncUnitOfWork:
    """
    Same as `UnitOfWork`, but for asyncio: `async with`, and each database is a `sqlalchemy.ext.asyncio.AsyncSession`.

    A cancellation ends the body, never the COMMIT: the whole end runs shielded, at most `commit_timeout` seconds, and
    `status` is true before the cancellation is delivered.
    """

    outer: context.Unit | None = None
    in_threads: Callable[[], context.Unit] | None = None

    def __init__(self, declared: Declared, options: UnitOptions = NO_OPTIONS) -> None:
        self.core = AsyncUnitCore(declared, options, self)
        self._timer: asyncio.Timeout | None = None

    @property
    def status(self) -> Status:
        """
        Same as `UnitOfWork.status`.
        """
        return self.core.status

    @property
    def options(self) -> UnitOptions:
        """
        Same as `UnitOfWork.options`.
        """
        return self.core.options

    @property
    def info(self) -> dict[str, Any]:
        """
        Same as `UnitOfWork.info`.
        """
        return self.core.info

    @property
    def databases(self) -> Any:
        """
        Same as `UnitOfWork.databases`.
        """
        return self.core.declared.owner

    @property
    def is_active(self) -> bool:
        """
        Same as `UnitOfWork.is_active`.
        """
        return self.core.status is Status.ACTIVE

    async def __aenter__(self) -> Self:
        self.core.start()
        context.enter(self)
        if self.options.timeout is not None:
            self._timer = asyncio.timeout(self.options.timeout)
            await self._timer.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        core = self.core
        late: BaseException | None = None
        if self._timer is not None and await _has_expired(self._timer, kind, error, traceback):
            late = core.timeout_error()
        try:
            if core.sessions or core.hooks.registered:
                await self._complete(self._end(late or error))
            else:
                core.end(late or error)  # nothing in it waits
        finally:
            context.leave(self)
        if late is not None:
            raise late from error

    async def _end(self, error: BaseException | None) -> None:
        """
        End the unit of work and run its callbacks; the whole of it in one task.
        """
        core = self.core
        failure = error
        try:
            await core.in_greenlet(lambda: core.end(error))
        except BaseException as raised:
            failure = raised
            raise
        finally:
            context.leave(self)  # in this task's copy of the context: the callbacks see the outer unit of work
            if core.hooks.registered:
                await self._call(core.due_callbacks(), failure)

    async def _call(self, callbacks: list[Callable[[], Any]], error: BaseException | None = None) -> None:
        failures = []
        for callback in callbacks:
            try:
                result = callback()
                if inspect.isawaitable(result):
                    await result
            except Exception as failure:  # noqa: BLE001  # reported together, after all have run
                failures.append(failure)
            except asyncio.CancelledError:
                if not self.core.commit_timed_out:
                    raise
                failures.append(TimeoutError(f"{callback!r} did not return before the limit of the end was reached"))
        self.core.report(failures, error)

    async def _complete(self, work: Coroutine[Any, Any, None]) -> None:
        core = self.core
        every = [core.declared.database(name).settings for name, _ in core.sessions]
        # Each COMMIT has its limit itself, and so has the question for its outcome; this one is for all the rest.
        limits = [each.commit_timeout * (1 + each.verify_commit) for each in every]
        limit = max(limits) + _SLACK if limits and all(limits) else None
        await run_to_completion(work, limit, core.limit_reached, core.given_up)

    __del__ = dropped

    def __repr__(self) -> str:
        return repr(self.core)

    # --- sessions

    def __getattr__(self, name: str) -> AsyncSession:
        core = self.__dict__.get("core")
        if core is not None and name in core.declared.databases:
            return self.session(name)
        raise missing_attribute(core, name)

    def session(
        self, name: str | None = None, *, role: SessionRole | None = None, snapshot: bool = False
    ) -> AsyncSession:
        """
        Same as `UnitOfWork.session`, but for asyncio.
        """
        return self.core.outside(self.core.session(name, role, snapshot=snapshot))

    @property
    def writer(self) -> AsyncSession:
        """
        Same as `UnitOfWork.writer`, but for asyncio.
        """
        return self.session(role="writer")

    @property
    def reader(self) -> AsyncSession:
        """
        Same as `UnitOfWork.reader`, but for asyncio.
        """
        return self.session(role="reader")

    @property
    def any(self) -> AsyncSession:
        """
        Same as `UnitOfWork.any`, but for asyncio.
        """
        return self.session(role="any")

    @property
    def logger(self) -> AsyncSession:
        """
        Same as `UnitOfWork.logger`, but for asyncio.
        """
        return self.core.outside(self.core.logger_session())

    # --- ending by hand

    async def commit(self) -> None:
        """
        Same as `UnitOfWork.commit`, but for asyncio.
        """
        core = self.core
        core.require_manual()

        async def commit() -> None:
            await core.in_greenlet(core.commit_open)
            await self._call(core.hooks.take(committed=True))

        await self._complete(commit())

    async def rollback(self) -> None:
        """
        Same as `UnitOfWork.rollback`, but for asyncio.
        """
        core = self.core
        core.require_active()
        await core.in_greenlet(core.roll_back_open)
        await self._call(core.hooks.take(committed=False))

    def doom(self, reason: str = "the application asked for it") -> None:
        """
        Same as `UnitOfWork.doom`.
        """
        self.core.doom(reason)

    # --- savepoints and callbacks

    @contextlib.asynccontextmanager
    async def _savepoint(self, names: tuple[str, ...]) -> AsyncIterator[None]:
        core = self.core
        savepoint = core.savepoint(names)
        await core.in_greenlet(savepoint.begin)
        try:
            yield
        except BaseException as error:
            failure = error  # the name in the except clause is gone when the greenlet runs
            await core.in_greenlet(lambda: savepoint.end(failure))
            raise
        await core.in_greenlet(lambda: savepoint.end(None))

    def savepoint(self, *names: str) -> contextlib.AbstractAsyncContextManager[None]:
        """
        Same as `UnitOfWork.savepoint`, but for asyncio.
        """
        self.core.require_active()
        return self._savepoint(names)

    def on_commit(self, callback: Callable[[], Any]) -> None:
        """
        Same as `UnitOfWork.on_commit`; what the callback returns is awaited if it can be.
        """
        self.core.on_commit(callback)

    def on_rollback(self, callback: Callable[[], Any]) -> None:
        """
        Same as `UnitOfWork.on_rollback`; what the callback returns is awaited if it can be.
        """
        self.core.on_rollback(callback)


async def _has_expired(
    timer: asyncio.Timeout,
    kind: type[BaseException] | None,
    error: BaseException | None,
    traceback: TracebackType | None,
) -> bool:
    """
    End the time limit of the body before COMMIT, which it must not reach; say whether it had struck.
    """
    if not timer.expired():
        timer.reschedule(None)
    try:
        await timer.__aexit__(kind, error, traceback)
    except TimeoutError:
        return True
    return False
