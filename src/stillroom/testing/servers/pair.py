"""A PostgreSQL primary and a standby that streams from it, for tests of lag, failover and lost servers."""

from __future__ import annotations

import contextlib
import shutil
import uuid
from typing import TYPE_CHECKING, Literal

from ..errors import TestingError
from .postgresql import PostgresServer, pg_server
from .processes import PATIENCE, run_program, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

__all__ = ["PostgresPair", "Side", "pg_pair"]

Side = Literal["primary", "standby"]
"""One of the two servers, by what it was at the start."""

# The name of the standby's replication slot, for which the primary keeps its log.
SLOT = "standby"

DELAY = "SELECT setting FROM pg_settings WHERE name = 'recovery_min_apply_delay'"


class PostgresPair:
    """
    A primary and a standby that streams from it; made by `pg_pair`.

    The two keep their names and addresses: after `promote()`, `standby` is the server that was the standby, and now
    takes writes.

    Attributes:
        primary: The server that takes writes at first.
        standby: The server that follows it and refuses writes.
    """

    def __init__(self, primary: PostgresServer, standby: PostgresServer) -> None:
        self.primary = primary
        self.standby = standby

    def __repr__(self) -> str:
        return f"<PostgresPair {self.primary!r} -> {self.standby!r}>"

    @property
    def primary_url(self) -> str:
        """
        The administrator's URL of the primary, without a driver.
        """
        return self.primary.url

    @property
    def standby_url(self) -> str:
        """
        The administrator's URL of the standby, without a driver.
        """
        return self.standby.url

    @property
    def promoted(self) -> bool:
        """
        Whether the standby has been promoted; it must run.
        """
        return self.standby.sql("SELECT pg_is_in_recovery()") == "f"

    @contextlib.contextmanager
    def database(self, name: str | None = None) -> Iterator[tuple[str, str]]:
        """
        Make an empty database on the primary, and yield its URLs, without a driver, on primary and standby.

        It is dropped at the end, whoever is connected to it, unless the primary is gone.

        Args:
            name: Its name; None for one that nobody else has. One that is there already is dropped before.

        Raises:
            TestingError: The primary refuses it.
            TimeoutError: The standby does not follow.
        """
        name = name or f"test_{uuid.uuid4().hex[:12]}"
        with self.primary.database(name) as url:
            self.wait_for_standby()
            yield url, self.standby.database_url(name)

    def lag(self, seconds: float) -> None:
        """
        Let the standby apply each commit this long after the primary made it; it goes on receiving the log.

        It holds for what is not applied yet, and until it is changed.

        Args:
            seconds: How long; 0 for no lag.

        Raises:
            ValueError: It is negative.
        """
        if seconds < 0:
            raise ValueError(f"a standby cannot be ahead of its primary: lag({seconds!r}); 0 is no lag")
        delay = str(round(seconds * 1000))
        self.standby.sql(f"ALTER SYSTEM SET recovery_min_apply_delay = '{delay}ms'", "SELECT pg_reload_conf()")
        # A new process has the new value only after the server has told it to all of its processes.
        wait_until(lambda: self.standby.sql(DELAY) == delay, f"the standby lags {seconds} s")

    def pause(self) -> None:
        """
        Let the standby apply nothing until `resume()`; it answers, with data that get older, and receives the log.

        Raises:
            TestingError: The standby was promoted, so that nothing is replayed.
        """
        self.standby.sql("SELECT pg_wal_replay_pause()")
        # A commit that waits for the end of its lag is not applied either, though the pause begins only after it.
        state = "SELECT pg_get_wal_replay_pause_state()"
        lags = self.standby.sql(DELAY) != "0"
        wait_until(lambda: self.standby.sql(state) == "paused" or lags, "the standby pauses its replay")

    def resume(self) -> None:
        """
        Let the standby go on after `pause()`.

        Raises:
            TestingError: The standby was promoted, so that nothing is replayed.
        """
        self.standby.sql("SELECT pg_wal_replay_resume()")

    def promote(self) -> None:
        """
        Make the standby a primary of its own: it applies what it has received, without lag, and takes writes.

        The old primary, if it runs, goes on and knows nothing of it, as in a failover without fencing; `kill()` it
        before to see what an application sees.

        Raises:
            TestingError: The standby was promoted before, or does not run.
        """
        if self.standby.sql(f"SELECT pg_promote(true, {int(PATIENCE)})") != "t":
            raise TestingError(
                f"the standby was not promoted within {int(PATIENCE)} s; its log says:\n{self.standby.log}"
            )

    def kill(self, side: Side = "primary") -> None:
        """
        Kill one of the two as a machine that fails does; `start()` brings it back with all that was committed.
        """
        self._server(side).kill()

    def start(self, side: Side = "primary") -> None:
        """
        Start one of the two, if it does not run, on the port that it had.

        Raises:
            TestingError: It does not start; says what is in its log.
        """
        self._server(side).start()

    def wait_for_standby(self, timeout: float | None = None) -> None:
        """
        Wait until the standby shows everything that the primary has committed by now.

        Args:
            timeout: Seconds; None for 30 s and the lag.

        Raises:
            TimeoutError: It does not in time; says whether replay is paused.
            TestingError: The standby was promoted, or one of the two does not run.
        """
        position = self.primary.sql("SELECT pg_current_wal_lsn()")
        if timeout is None:
            timeout = PATIENCE + int(self.standby.sql(DELAY)) / 1000
        query = f"""SELECT CASE WHEN NOT pg_is_in_recovery() THEN 'promoted'
            WHEN pg_last_wal_replay_lsn() >= '{position}' THEN 'there'
            WHEN pg_is_wal_replay_paused() THEN 'paused, resume() lets it go on' ELSE 'behind' END"""
        state = ""

        def is_there() -> bool:
            nonlocal state
            state = self.standby.sql(query)
            if state == "promoted":
                raise TestingError("the standby was promoted and follows nobody any more; restore() makes a new one")
            return state == "there"

        try:
            wait_until(is_there, f"the standby has applied the log up to {position}", timeout=timeout)
        except TimeoutError as error:
            raise TimeoutError(f"{error}; it is {state}") from None

    def restore(self) -> None:
        """
        Make it again what it was at the start: both run, the standby follows without lag or pause.

        Of a standby that was promoted a new one is made from the primary, on the same port; what was written to it
        is lost. What is committed on the primary stays.

        Raises:
            TestingError: One of the two does not start.
        """
        self.primary.start()
        self.standby.start()
        state = self.standby.sql(
            f"""SELECT CASE WHEN NOT pg_is_in_recovery() THEN 'promoted'
            WHEN pg_is_wal_replay_paused() OR ({DELAY}) <> '0' THEN 'behind' ELSE 'follows' END"""
        )
        if state == "promoted":
            self.standby.stop("immediate")
            shutil.rmtree(self.standby.directory)
            make_standby(self.primary, self.standby)
            self.standby.start()
        elif state == "behind":
            self.resume()
            self.lag(0)

    def _server(self, side: Side) -> PostgresServer:
        return self.primary if side == "primary" else self.standby


@contextlib.contextmanager
def pg_pair(settings: Mapping[str, str] | None = None, *, programs: Path | None = None) -> Iterator[PostgresPair]:
    """
    Run a throwaway PostgreSQL server and a streaming standby of it; takes about a second to start.

    Args:
        settings: Of both servers, above the ones that make them small and quick.
        programs: As of `pg_server`.

    Raises:
        ServerUnavailable: There is no PostgreSQL, or no user to run it as.
        TestingError: One of the two does not start; says what is in its log.
    """
    with pg_server(settings, programs=programs) as primary:
        directory = primary.directory.with_name("standby")
        standby = PostgresServer(primary.programs, directory, primary.user, primary.settings)
        primary.sql(f"SELECT pg_create_physical_replication_slot('{SLOT}')")
        make_standby(primary, standby)
        try:
            standby.start()
            yield PostgresPair(primary, standby)
        finally:
            standby.end()


def make_standby(primary: PostgresServer, standby: PostgresServer) -> None:
    """
    Fill the directory of a standby with a copy of its primary, which runs.
    """
    run_program(
        [
            *(primary.programs / "pg_basebackup", "-h", "127.0.0.1", "-p", str(primary.port), "-U", "postgres"),
            *("-D", standby.directory, "-R", "-X", "stream", "-c", "fast", "-S", SLOT, "--no-sync"),
        ],
        primary.user,
    )
