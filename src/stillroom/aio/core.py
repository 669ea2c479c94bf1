"""The rules of a unit of work, with sessions that live inside asyncio's."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, cast

from greenlet import getcurrent
from sqlalchemy.util import await_only

from ..core import UnitCore
from ..errors import CommitOutcomeUnknown, UnitOfWorkTimeout
from ..status import Status
from .engines import running_task
from .sessions import ReaderAsyncSession, UnitAsyncSession

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy.ext.asyncio import AsyncSession

    from ..backends import Backend
    from ..database import Database
    from ..declared import Declared
    from ..sessions import UnitSession
    from ..status import UnitOptions


class AsyncUnitCore(UnitCore):
    """
    Same as `UnitCore`, but for asyncio: what waits runs inside SQLAlchemy's greenlets.
    """

    is_async = True

    def __init__(self, declared: Declared, options: UnitOptions, facade: object) -> None:
        super().__init__(declared, options, facade)
        self._outside: dict[int, AsyncSession] = {}

    def who(self) -> Any:
        return running_task()

    def sleep(self, seconds: float) -> None:
        await_only(asyncio.sleep(seconds))

    @contextlib.contextmanager
    def bound(self, backend: Backend, dbapi_connection: Any, seconds: float) -> Iterator[None]:
        # Cancelling the driver instead would have it talk to a server that does not answer, for seconds more.
        timer = asyncio.get_running_loop().call_later(seconds, backend.hang_up, dbapi_connection)
        try:
            yield
        finally:
            timer.cancel()

    def open(self, database: Database, role: str, *, snapshot: bool) -> UnitSession:
        make = ReaderAsyncSession if role == "reader" else UnitAsyncSession
        engine = database.async_engine_for(*database.how(self, role, snapshot=snapshot))
        outside = make(engine, expire_on_commit=False)
        session = cast("UnitSession", outside.sync_session)
        session.unit = self
        session.database_name = database.name
        session.role = role
        self._outside[id(session)] = outside
        return session

    def outside(self, session: UnitSession) -> AsyncSession:
        """
        Return the asynchronous session around one of ours.
        """
        return self._outside[id(session)]

    async def in_greenlet(self, work: Callable[[], Any]) -> Any:
        """
        Run what the rules do where its waiting does not block the event loop.
        """
        for session in self._outside.values():
            return await session.run_sync(lambda _: work())
        return work()  # no session is open: nothing in it waits

    def limit_reached(self) -> None:
        """
        Note that the end takes too long, and hang up on the servers that it may wait for.
        """
        self.commit_timed_out = True
        for session in self.sessions.values():
            if session.began is not None and not session.began.closed and session.state is not None:
                session.state.backend.hang_up(session.state.dbapi_connection)

    def given_up(self) -> Exception:
        """
        Note that the end was cut short, or that nobody waits for it any more; return the error that says so.
        """
        text = "the end of the unit of work took longer than commit_timeout allows, and was cut short"
        if self.status is not Status.COMMITTING:
            return UnitOfWorkTimeout(f"{text}: {self.status.value}")
        self.status = Status.UNKNOWN
        return CommitOutcomeUnknown(f"{text} in its COMMIT. Do not simply run the work again")

    def let_go(self) -> None:
        super().let_go()
        self._outside = {}

    def end(self, error: BaseException | None) -> None:
        self.ender = getcurrent()
        super().end(error)
