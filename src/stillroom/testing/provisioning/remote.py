"""What test databases on servers have in common, which are reached over a connection."""

from __future__ import annotations

from abc import abstractmethod
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from ..connection import Line
from ..errors import TestingError
from .base import Record, Server
from .marker import read_mark

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import URL

__all__ = ["RemoteServer"]


class RemoteServer(Server):
    """
    A server, over one connection that does all but what must be done inside of a database, and that holds the locks.
    """

    administration: str
    """The database that the connection is in, unless `admin_url` names one; empty for none."""
    staying: str
    """What keeps the server from ending the connection when it is idle, and the locks with it."""
    existing: str
    """Asks for the database `:name`, if one can connect to it."""
    noted: str
    """Asks for the comment on the database `:name`."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._require_direct()
        self._direct = self.settings.migration_url or self.settings.url
        self._line = self._to(self.settings.admin_url or self._direct.set(database=self.administration))

    def _require_direct(self) -> None:
        """
        Refuse a pooler, over which no lock holds.
        """
        if self.settings.pooler and self.settings.migration_url is None:
            raise TestingError(
                f"the database {self.name!r} is behind a pooler, over which no lock keeps two test runs apart; name "
                f"the server itself: databases.{self.name}.migration_url"
            )

    def _to(self, url: URL) -> Line:
        return Line.to(self.settings, url, self.name, f"{self.application} tests")

    def _inside(self, name: str) -> Line:
        return self._to(self._direct.set(database=name))

    def _row(self, statement: str, **values: Any) -> Any:
        return self._line.run(lambda connection: connection.execute(text(statement), values).first())

    def close(self) -> None:
        self._line.close()

    def environment(self) -> str | None:
        self._line.execute(self.staying)
        name = self.settings.url.database or ""
        if self._row(self.existing, name=name) is None:
            return None
        with self._inside(name) as line:
            return line.run(read_mark)

    def url(self, name: str) -> URL:
        return self.settings.url.set(database=name)

    # --- templates

    def make_template(self, name: str, record: Record, build: Callable[[URL], None]) -> None:
        self.drop_template(name)
        self._create(name)
        try:
            build(self._direct.set(database=name))
            self._finish(name, record)
        except BaseException:
            with suppress(Exception):
                self.drop_template(name)
            raise

    @abstractmethod
    def _create(self, name: str) -> None:
        """
        Make an empty database.
        """

    @abstractmethod
    def _finish(self, name: str, record: Record) -> None:
        """
        Make a template of a database that is filled.
        """

    # --- databases

    def record(self, name: str) -> Record | None:
        row = self._row(self.noted, name=name)
        return Record.read(row[0]) if row is not None else None

    def is_foreign(self, name: str) -> bool:
        row = self._row(self.noted, name=name)
        return row is not None and Record.read(row[0]) is None
