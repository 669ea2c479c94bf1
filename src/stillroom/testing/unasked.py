"""Refuses the application's databases to tests that did not ask for them, until there are test databases."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import event

from .errors import UndeclaredDatabase
from .run import BETWEEN

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

    from stillroom import Database, Databases

__all__ = ["Unasked"]


class Unasked:
    """
    Refuses connections to the application's databases, wherever they lead.

    The test databases are made when a test first asks for them. A test before that one, which forgot to ask, would use
    the databases of the settings.

    Attributes:
        refuses: Whether it still does; a run of tests that has begun sees to it by itself.
    """

    def __init__(self, databases: Databases) -> None:
        self.refuses = True
        databases.watch_databases(self._watch)

    def _watch(self, database: Database) -> None:
        name = database.name

        def refuse(*_: Any) -> None:
            if self.refuses:
                raise UndeclaredDatabase(f"the database {name!r} was used, {BETWEEN}")

        def equip(engine: Engine, role: str) -> None:
            event.listen(engine, "do_connect", refuse)
            event.listen(engine, "checkout", refuse)  # of what was connected while modules were imported

        database.watch_engines(equip)
