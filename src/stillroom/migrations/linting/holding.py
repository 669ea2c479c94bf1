"""Makes a statement that runs outside of transactions wait, so that its locks can be looked at."""

from __future__ import annotations

import threading
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any

from . import catalog

if TYPE_CHECKING:
    from sqlalchemy import Engine

__all__ = ["Holder"]

PATIENCE = 10.0
"""Seconds after which a statement that did not wait is let go."""

_TABLES = """
select oid::regclass::text from pg_class where relkind = 'r'
and relnamespace not in (select oid from pg_namespace where nspname ~ '^pg_' or nspname = 'information_schema')
order by oid
"""


class Holder:
    """
    Another session that writes to every table, as it were: CREATE INDEX CONCURRENTLY and its like wait for it.

    Args:
        engine: Of the throwaway database.
        pid: The server's process of the session that is to be looked at.
    """

    def __init__(self, engine: Engine, pid: int) -> None:
        self.engine = engine
        self.pid = pid
        self.seen: frozenset[tuple[int, str]] | None = None
        self._ready = threading.Event()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._hold, daemon=True)
        self._thread.start()
        self._ready.wait(PATIENCE)

    def end(self) -> frozenset[tuple[int, str]] | None:
        """
        Return the locks that the session held while it waited; None if it never did.
        """
        self._over.set()
        self._thread.join()
        return self.seen

    def _hold(self) -> None:
        try:
            with self.engine.connect() as connection:
                driver = connection.connection
                self._execute(driver, "BEGIN")
                try:
                    for (table,) in catalog.rows(driver, _TABLES):
                        self._execute(driver, f"LOCK TABLE ONLY {table} IN ROW EXCLUSIVE MODE")
                    self._ready.set()
                    self._look(driver)
                finally:
                    self._execute(driver, "ROLLBACK")
        finally:
            self._ready.set()

    def _look(self, driver: Any) -> None:
        end = monotonic() + PATIENCE
        waiting = f"select 1 from pg_locks where pid = {self.pid} and not granted"
        while monotonic() < end and not self._over.is_set():
            if catalog.rows(driver, waiting):
                self.seen = catalog.locks_of(driver, str(self.pid))
                return
            sleep(0.005)

    @staticmethod
    def _execute(driver: Any, sql: str) -> None:
        cursor = driver.cursor()
        try:
            cursor.execute(sql)
        finally:
            cursor.close()
