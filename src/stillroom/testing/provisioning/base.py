"""What a server must be able to do to hold test databases and the templates that they are copied from."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from contextlib import contextmanager
from time import monotonic, sleep
from typing import TYPE_CHECKING, Literal

import msgspec

from ..errors import TestingError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import URL

    from stillroom import DatabaseSettings

    from ..options import TestOptions

__all__ = ["MARK", "POLL", "TEMPLATE", "Record", "Server"]

MARK = "stillroom testing "
"""What the note on each database of ours begins with; one without it is not ours, and is never dropped."""
TEMPLATE = re.compile(r"tpl_.+_[0-9a-f]{12}")
"""What the names of templates look like; one of such a name without a note was not finished."""
POLL = 0.05
"""Seconds between two questions for a lock."""


class Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """
    The note on a database of ours: a comment on it, or a small file beside it.

    Attributes:
        kind: A template; a test database in use; one that is kept for the next run; a copy beside a test database.
        base: What the names of this application's test databases begin with.
        key: The fingerprint of the template that it is, or was copied from.
        run: The run that made it; only of templates.
        slot: The test database that a clone belongs to, or a copy that has another name while it is made.
    """

    kind: Literal["template", "used", "kept", "clone"]
    base: str
    key: str
    run: str = ""
    slot: str = ""

    def text(self) -> str:
        """
        Write it.
        """
        return MARK + msgspec.json.encode(self).decode()

    @classmethod
    def read(cls, text: str | None) -> Record | None:
        """
        Read it; None where it is not one of ours.
        """
        if text is None or not text.startswith(MARK):
            return None
        try:
            return msgspec.json.decode(text.removeprefix(MARK), type=cls)
        except msgspec.DecodeError:
            return None


class Server(ABC):
    """
    Where the test databases of one database of the settings are made. Names are those of databases on it.

    Args:
        name: The name in the settings.
        settings: Its settings.
        application: The name that the server shows for our connections.
        options: How patient to be, and who is told.
    """

    limit: int
    """How many bytes a name may have."""

    def __init__(self, name: str, settings: DatabaseSettings, application: str, options: TestOptions) -> None:
        self.name = name
        self.settings = settings
        self.application = application
        self.options = options

    # --- the server

    @abstractmethod
    def facts(self) -> list[str]:
        """
        Return what of the server a template depends on: its version, encoding, collation.
        """

    @abstractmethod
    def environment(self) -> str | None:
        """
        Return what `mark_environment` wrote into the database of the settings; None if it did not, or none exists.
        """

    @abstractmethod
    def url(self, name: str) -> URL:
        """
        Return where a test database is.
        """

    def name_at(self, url: URL) -> str:
        """
        Return the name of the database that `url` made a URL of.
        """
        return url.database or ""

    @abstractmethod
    def close(self) -> None:
        """
        Let go of everything, locks included.
        """

    # --- locks, which end with their holder

    @abstractmethod
    def try_lock(self, name: str) -> bool:
        """
        Take the lock of a database or template; True also where it is held already.
        """

    @abstractmethod
    def unlock(self, name: str) -> None:
        """
        Give a lock back.
        """

    @abstractmethod
    def holder(self, name: str) -> str:
        """
        Say who holds a lock; empty where nobody does any more.
        """

    @contextmanager
    def locked(self, name: str) -> Iterator[None]:
        """
        Hold the lock of a template inside the block.

        Raises:
            TestingError: Another holds it for longer than `options.wait`.
        """
        end = monotonic() + self.options.wait
        told = False
        while not self.try_lock(name):
            holder = self.holder(name) or "somebody who ends just now"
            if monotonic() > end:
                raise TestingError(
                    f"the template {name!r} of the database {self.name!r} is being made by another process ({holder}) "
                    f"that did not end in {self.options.wait:g} s; raise `wait`, or end that process, then try again"
                )
            if not told:
                self.options.notice(f"{self.name}: waiting for another process that makes the template ({holder})")
                told = True
            sleep(POLL)
        try:
            yield
        finally:
            self.unlock(name)

    # --- templates

    @abstractmethod
    def template(self, name: str) -> Record | None:
        """
        Return the note on a template; None where it is not there, or not finished.
        """

    @abstractmethod
    def make_template(self, name: str, record: Record, build: Callable[[URL], None]) -> None:
        """
        Make a template anew in place of any other of that name; it is one when all is done, not before.

        Args:
            name: Its name.
            record: The note on it.
            build: Fills the empty database at a URL.
        """

    @abstractmethod
    def drop_template(self, name: str) -> None:
        """
        Drop a template, or what was left of one.
        """

    # --- databases

    @abstractmethod
    def record(self, name: str) -> Record | None:
        """
        Return the note on a database; None where there is no database, or it is not ours.
        """

    @abstractmethod
    def is_foreign(self, name: str) -> bool:
        """
        Say whether there is a database of that name that we did not make.
        """

    @abstractmethod
    def note(self, name: str, record: Record) -> None:
        """
        Write the note on a database.
        """

    @abstractmethod
    def copy(self, template: str, name: str, record: Record) -> None:
        """
        Make a database of ours from a template, in place of any other of that name that is ours.
        """

    @abstractmethod
    def drop(self, name: str) -> None:
        """
        Drop a database of ours, connections or not; never waits without a limit.
        """

    @abstractmethod
    def ours(self) -> dict[str, Record | None]:
        """
        List the templates and databases of ours, of every application; None for a template that was not finished.
        """
