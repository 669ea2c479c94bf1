"""The sessions of a unit of work: plain SQLAlchemy sessions that report what happens to them."""

from __future__ import annotations

from functools import cached_property, partial
from time import monotonic
from typing import TYPE_CHECKING, Any, NoReturn
from weakref import ref

from sqlalchemy import event
from sqlalchemy.orm import Session

from .connections import STATE, ConnectionState, refuse_overlap, require_intact

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection
    from sqlalchemy.orm import SessionTransaction

    from .core import UnitCore


class UnitSession(Session):
    """
    A `sqlalchemy.orm.Session` that belongs to a unit of work.

    Attributes:
        unit: The unit of work.
        database_name: The name of the database.
        role: "writer", "reader" or "logger".
        state: What is known of the connection of the last transaction; None before the first.
        began: The connection of the last transaction; None before the first.
        commits: How many COMMITs of this session succeeded.
    """

    unit: UnitCore
    database_name: str
    role: str
    state: ConnectionState | None = None
    began: Connection | None = None
    commits: int = 0

    @cached_property
    def info(self) -> dict[Any, Any]:
        """
        What the unit of work and the integrations put there, and the user's own; made on first use.
        """
        return dict(self.unit.info)

    @property
    def autocommits(self) -> bool:
        """
        Whether the user has asked for AUTOCOMMIT on the connection of the last transaction.
        """
        return self.began is not None and self.began.get_execution_options().get("isolation_level") == "AUTOCOMMIT"

    @property
    def is_connecting(self) -> bool:
        """
        Whether another task waits for the connection of this session now.
        """
        return False

    def require_quiet(self) -> None:
        """
        Refuse to go on while another task uses this session.

        Raises:
            ConcurrentUseError: One does.
        """
        if self.state is not None and self.state.busy is not None:
            refuse_overlap(self.state, self.unit.who())

    def connected(self, connection: Connection) -> None:
        """
        Called with the connection of each new transaction.
        """

    def retire(self) -> None:
        """
        Refuse any further use: the unit of work has ended.

        A session that is closed would otherwise begin anew when it is used, and nobody would commit that.
        """
        self.autobegin = False
        # On the instance, since a method of the class would cost each statement; without the session in it, since a
        # session that refers to itself is not freed before the garbage collector comes.
        self.get_bind = partial(_no_bind, self.unit)  # type: ignore[method-assign]

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.role} of {self.database_name!r}>"


def _no_bind(unit: UnitCore, *_: Any, **__: Any) -> NoReturn:
    unit.require_active()
    raise AssertionError("only an ended unit of work retires its sessions")


class ReaderSession(UnitSession):
    """
    A session that reads: each statement sees the newest state, and writes are refused.
    """

    def __call__(self, *, snapshot: bool = False) -> Session:
        """
        Return the reader of the same database whose statements all see one state.

        Args:
            snapshot: True for one state (REPEATABLE READ, READ ONLY); False returns this session.
        """
        return self.unit.session(self.database_name, "reader", snapshot=snapshot)


# The events are registered once, on the class: an AsyncSession drives the same class, so they hold for both worlds.
@event.listens_for(UnitSession, "after_begin")
def _begun(session: UnitSession, transaction: SessionTransaction, connection: Connection) -> None:
    if transaction.nested:
        return
    if session.unit.is_async:
        session.connected(connection)
    info = connection.connection.info
    state: ConnectionState | None = info.get(STATE)
    if session.began is not None or state is None or state.database != session.database_name:
        state = _own(session, connection, state)
    session.state = state
    state.session = ref(session)
    session.began = connection
    deadline = session.unit.deadline
    if deadline is not None:
        state.deadline = deadline
        state.is_quiet = False
        state.backend.limit(connection, max(0.001, deadline - monotonic()))
        state.unlocked = False  # the words were ours


def _own(session: UnitSession, connection: Connection, state: ConnectionState | None) -> ConnectionState:
    """
    Refuse a connection to another database, and a second one in one transaction: nobody could say what became of it.

    Raises:
        ValueError: The statement came with a bind of its own.
    """
    first = session.began
    second = first is not None and first is not connection and not first.closed and first.in_transaction()
    if second or state is None or state.database != session.database_name:
        raise ValueError(
            f"the session on {session.database_name!r} was given another bind, {connection.engine!r}: a session of a "
            "unit of work has one connection, to its own database. Use the session of the other database: "
            "uow.session(name)"
        )
    return state


@event.listens_for(UnitSession, "before_commit")
def _committing(session: UnitSession) -> None:
    state = session.state
    is_async = session.unit.is_async
    if state is None or (state.failure is None and not is_async) or session.in_nested_transaction():
        return
    if is_async:
        session.require_quiet()
    require_intact(state)


@event.listens_for(UnitSession, "after_soft_rollback")
def _rolled_back(session: UnitSession, transaction: SessionTransaction) -> None:
    if transaction.nested:
        session.unit.hooks.savepoint_rolled_back(transaction)


ONLY_LOOKS = "stillroom_only_looks"
"""The mark of a listener to `do_orm_execute` that changes no statement."""


def may_narrow(session: Session) -> bool:
    """
    Say whether a listener to `do_orm_execute` may change the statements of a session.
    """
    listeners = session.dispatch.do_orm_execute
    return bool(listeners) and not all(getattr(each, ONLY_LOOKS, False) for each in listeners)
