"""The contract of a backend, with the answers that fit most of them."""

from __future__ import annotations

import contextlib
import os
import select
import time
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal
from uuid import uuid4

import msgspec

from ..errors import MissingDriver
from ..settings.urls import DRIVERS
from ..watchdog import hang_up

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy.engine import URL, Connection, Engine

    from ..settings import DatabaseSettings

LIMITED = "stillroom_limited"
"""The key in `Connection.info` of a limit that outlives its transaction."""

GID_PREFIX = "stillroom-"
"""How the global ids of our prepared transactions start; recovery touches no others."""


def new_gid() -> str:
    """
    Make a global id that tells recovery whose it is and how old.
    """
    return f"{GID_PREFIX}{int(time.time()):x}-{uuid4().hex}"


Role = Literal["writer", "reader", "control"]
"""How the connections of an engine are used. A logger's are a writer's; "control" is for our own questions: statements
that commit one by one, on a small pool of their own, so that they never wait for the application's connections."""


class Driver(msgspec.Struct, frozen=True):
    """
    A driver that Stillroom knows: its name in a URL, the module to import, and the extra that installs it.
    """

    name: str
    module: str
    extra: str
    is_async: bool = False


class Server(msgspec.Struct, frozen=True):
    """
    What one server answered to a ping.

    Attributes:
        version: The version of the server, as it writes it.
        recovering: It is a standby that replays another server's log.
        read_only: How far a write is stopped: "role" (the login has no right to write), "connection" (the server
            refuses, but a session can switch that off), "none".
        read_only_gaps: What the rung reached does not stop.
    """

    version: str
    recovering: bool = False
    read_only: Literal["role", "connection", "none"] = "none"
    read_only_gaps: tuple[str, ...] = ()


class Marker(msgspec.Struct, frozen=True):
    """
    What is kept of a transaction before its COMMIT, to ask for the outcome if the answer is lost.
    """

    key: str
    process: int = 0
    timeline: str = ""


class Begin(msgspec.Struct, frozen=True):
    """
    How the transactions of an engine begin.

    Attributes:
        isolation: The isolation, in SQL's words; None for the database's own.
        snapshot: All statements of a transaction see one state (a reader's engine).
        two_phase: Each transaction can be prepared (a writer's engine).
    """

    isolation: str | None = None
    snapshot: bool = False
    two_phase: bool = False


Outcome = Literal["committed", "rolled back", "running", "unknown"]


class Backend:
    """
    What differs between databases. Stateless: one instance serves every database of its kind.
    """

    name: str
    drivers: Sequence[Driver] = ()
    can_prepare = False
    """Two-phase commit: the backend can prepare a transaction and commit it later."""
    keeps_prepared = False
    """A prepared transaction stays with its connection for as long as that lives."""
    over_network = True
    names_applications = False
    """The server keeps a name for each connection, `application_name`."""

    # --- making an engine

    def driver_url(self, url: URL, *, is_async: bool) -> URL:
        """
        Return `url` with a driver for the wished world: the one named, or the first installed where it names no such.

        Raises:
            MissingDriver: The one named is not installed, or none is.
        """
        named = url.drivername.partition("+")[2]
        fitting = [driver for driver in self.drivers if driver.is_async == is_async]
        for driver in fitting:
            if driver.name == named:
                if find_spec(driver.module):
                    return url
                raise MissingDriver(
                    f"the URL names the driver {named!r}, which is not installed: {DRIVERS[self.name][named]}",
                    name=driver.module,
                )
        for driver in fitting:
            if find_spec(driver.module):
                return url.set(drivername=f"{url.get_backend_name()}+{driver.name}")
        names = ", ".join(driver.name for driver in fitting)
        world = "asyncio driver" if is_async else "driver"
        extras = ",".join(dict.fromkeys([fitting[0].extra, "async"] if is_async else [fitting[0].extra]))
        raise MissingDriver(
            f"no {world} for {url.get_backend_name()} is installed (looked for {names}): "
            f'pip install "stillroom[{extras}]"'
        )

    def engine_arguments(self, settings: DatabaseSettings, url: URL, role: Role, *, is_async: bool) -> dict[str, Any]:
        """
        Return the keywords for `create_engine` that this backend adds.
        """
        return {}

    def install(self, engine: Engine, settings: DatabaseSettings, role: Role) -> None:
        """
        Listen on a new engine for what the backend needs (connection settings, BEGIN).
        """

    def variant(self, engine: Engine, begin: Begin) -> Engine:
        """
        Return an engine on the same pool whose transactions begin as `begin` says.
        """
        return engine.execution_options(isolation_level=begin.isolation) if begin.isolation else engine

    def url_of(self, url: URL) -> URL:
        """
        Return where to connect to, where that is not what the settings say.
        """
        return url

    def keep_alive(self, url: URL) -> Any:
        """
        Return something to `close()` that keeps the database in being until then; None where it stays by itself.
        """
        return None

    # --- one connection

    def in_transaction(self, dbapi_connection: Any) -> bool:
        """
        Say, without a round trip, whether the connection is inside a transaction; True where the driver cannot tell.
        """
        return True

    def seems_dead(self, dbapi_connection: Any) -> bool:
        """
        Say, without a round trip, whether the server may have hung up; only then is it worth a ping.
        """
        return False

    def ping(self, engine: Engine, dbapi_connection: Any) -> bool:
        """
        Ask the server for a sign of life: one round trip.
        """
        try:
            return bool(engine.dialect.do_ping(dbapi_connection))
        except engine.dialect.loaded_dbapi.Error:
            return False

    def restore(self, dbapi_connection: Any) -> None:
        """
        Undo what the last user may have changed on the connection, without a round trip.
        """

    def aborts_transaction(self, error: BaseException, dbapi_connection: Any) -> bool:
        """
        Say whether `error` made the server give up the whole transaction.
        """
        return False

    def savepoint_heals(self, dbapi_connection: Any) -> bool:
        """
        Say whether ROLLBACK TO SAVEPOINT makes an aborted transaction usable again.
        """
        return False

    def socket(self, dbapi_connection: Any) -> int | None:
        """
        Return the file descriptor of the connection to the server, where there is one and the driver tells.
        """
        return None

    def hang_up(self, dbapi_connection: Any) -> None:
        """
        End the conversation with the server at once: whoever waits for an answer gets a connection error.
        """
        hang_up(partial(self.socket, dbapi_connection))

    def limit(self, connection: Connection, seconds: float) -> None:
        """
        Let the server end each statement of the open transaction after `seconds`, where it can.
        """

    def lift_limit(self, connection: Connection) -> None:
        """
        Undo `limit` before the transaction ends, which it must not cut short.
        """

    def restore_limit(self, dbapi_connection: Any) -> None:
        """
        Undo `limit` on a connection that goes back to the pool, if its info has `LIMITED`.
        """

    # --- forks

    def abandon(self, dbapi_connection: Any) -> None:
        """
        In a forked child: make sure that nothing said over an inherited connection reaches the server.
        """
        # The child's descriptor is turned into /dev/null; the parent's, which names the same socket, is untouched.
        descriptor = self.socket(dbapi_connection)
        if descriptor is not None and descriptor >= 0:
            null = os.open(os.devnull, os.O_RDWR)
            try:
                os.dup2(null, descriptor)
            finally:
                os.close(null)

    def closes_idle_before_fork(self, engine: Engine) -> bool:
        return False

    # --- the outcome of a COMMIT

    def prepare_marking(self, connection: Connection) -> None:
        """
        Make what `mark` needs (a table, where it needs one), on a connection of its own.
        """

    def mark(self, connection: Connection) -> Marker | None:
        """
        Leave or take a mark in the open transaction by which its outcome can be asked for; None if it wrote nothing.
        """
        return None

    def outcome(self, connection: Connection, marker: Marker) -> Outcome:
        """
        Ask, over another connection, what became of the transaction of `marker`.
        """
        return "unknown"

    # --- two-phase commit

    def prepare(self, connection: Connection, gid: str) -> None:
        raise NotImplementedError

    def commit_prepared(self, connection: Connection, gid: str) -> None:
        raise NotImplementedError

    def rollback_prepared(self, connection: Connection, gid: str) -> None:
        raise NotImplementedError

    def prepared(self, connection: Connection) -> list[str]:
        """
        List the gids of the transactions that are prepared on the server.
        """
        return []

    # --- databases on a server

    def exists(self, url: URL, admin_url: URL | None) -> bool:
        raise NotImplementedError

    def create(self, url: URL, admin_url: URL | None) -> None:
        raise NotImplementedError

    def drop(self, url: URL, admin_url: URL | None) -> None:
        raise NotImplementedError

    def server(self, connection: Connection) -> Server:
        """
        Ask the server who it is and how far a reader is kept from writing.
        """
        raise NotImplementedError


def readable(descriptor: int | None) -> bool:
    """
    Say whether a socket has something to read: on an idle connection, the server's farewell.
    """
    if descriptor is None or descriptor < 0:
        return False
    poll = _polls.get(descriptor)
    if poll is None:
        poll = _polls[descriptor] = select.poll()
        poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


_polls: dict[int, select.poll] = {}
"""One for each descriptor, whatever it stands for at the time; making one costs more than asking it."""


def descriptor_of(transport: Any) -> int | None:
    """
    Return the file descriptor of an asyncio transport; None where it is closed.
    """
    sock = transport.get_extra_info("socket")
    descriptor = -1 if sock is None or transport.is_closing() else int(sock.fileno())
    return descriptor if descriptor >= 0 else None


@contextlib.contextmanager
def autocommit_connection(url: URL) -> Iterator[Connection]:
    """
    Open one connection outside any pool, in AUTOCOMMIT, and close it: for CREATE DATABASE and its like.
    """
    from sqlalchemy import create_engine
    from sqlalchemy.pool import NullPool

    engine = create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()
