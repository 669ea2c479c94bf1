"""The sessions of an asynchronous unit of work, which notice that two tasks use them at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from greenlet import getcurrent
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.util.concurrency import in_greenlet

from ..connections import overlap_error, refuse_overlap
from ..errors import UnitOfWorkEnded
from ..sessions import ReaderSession, UnitSession
from .engines import running_task

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

    from .core import AsyncUnitCore


class _Occupied(UnitSession):
    """
    Knows which operation is waiting for its first connection; a second one is refused.

    Each operation of an AsyncSession is a greenlet of SQLAlchemy's; a dead one has ended, with or without a
    connection. Once there is a connection, its `ConnectionState` watches over the statements.
    """

    _connecting: tuple[Any, Any] | None = None

    @property
    def is_connecting(self) -> bool:
        """
        Whether an operation is waiting for a connection now.
        """
        return self._connecting is not None and not self._connecting[0].dead

    def get_bind(self, *args: Any, **kwargs: Any) -> Any:
        """
        Note who is about to need a connection.

        Raises:
            ConcurrentUseError: Another task is waiting for the same connection.
        """
        if not in_greenlet():  # asked from outside of an operation, for the dialect perhaps: nothing will be sent
            return super().get_bind(*args, **kwargs)
        if self.unit.ender is not None and self.unit.ender is not getcurrent():
            raise UnitOfWorkEnded(
                "the unit of work is ending, or has ended, and another task still uses it: await that task inside the "
                "block"
            )
        self.require_quiet()
        if self.unit.savepoints:
            self.unit.require_own_savepoint()
        if self.began is None or self.began.closed:
            self._connecting = (getcurrent(), running_task())
        return super().get_bind(*args, **kwargs)

    def require_quiet(self) -> None:
        connecting = self._connecting
        if connecting is not None and connecting[0] is not getcurrent() and not connecting[0].dead:
            raise overlap_error(self.database_name, connecting[1], running_task())
        if self.state is not None and self.state.busy is not None:
            refuse_overlap(self.state, self.unit.who())

    def rollback(self) -> None:
        """
        Roll back, unless another task is in the middle of a statement.

        Raises:
            ConcurrentUseError: One is.
        """
        self.require_quiet()
        super().rollback()

    def connected(self, connection: Connection) -> None:
        """
        Take the connection, unless the unit of work has ended while it was waited for.

        Raises:
            UnitOfWorkEnded: It has; the connection is given back.
        """
        self._connecting = None
        if self.unit.has_ended:
            connection.invalidate()
            raise UnitOfWorkEnded(
                f"the unit of work ended while this task waited for a connection; {self.unit.story()}"
            )


@event.listens_for(_Occupied, "before_flush", propagate=True)
def _flushing(session: _Occupied, context: Any, instances: Any) -> None:
    session.require_quiet()


class CoreSession(_Occupied):
    """
    Same as `UnitSession`, inside an asynchronous one.
    """


class CoreReaderSession(_Occupied, ReaderSession):
    """
    Same as `ReaderSession`, inside an asynchronous one.
    """


class UnitAsyncSession(AsyncSession):
    """
    Same as `UnitSession`, but for asyncio.
    """

    sync_session_class = CoreSession


class ReaderAsyncSession(AsyncSession):
    """
    Same as `ReaderSession`, but for asyncio.
    """

    sync_session_class = CoreReaderSession

    def __call__(self, *, snapshot: bool = False) -> AsyncSession:
        """
        Same as `ReaderSession.__call__`, but for asyncio.
        """
        session = cast("UnitSession", self.sync_session)
        core = cast("AsyncUnitCore", session.unit)
        return core.outside(core.session(session.database_name, "reader", snapshot=snapshot))
