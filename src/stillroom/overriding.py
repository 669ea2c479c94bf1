"""The same code on other databases, for a while."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from sqlalchemy.engine import URL

from .settings import Settings

if TYPE_CHECKING:
    from typing import Self

    from .database import Database

Change: TypeAlias = "Settings | Mapping[str, Any] | Callable[[Settings], Settings]"
"""What an override says: all settings, what to change of some databases, or a function from settings to settings."""


class Override:
    """
    Other settings for a `Databases`, in force from `with` to its end; made by `Databases.override`.

    Args:
        change: What to change.
        enter: Puts it in force.
        leave: Takes it back; returns the databases that nobody uses any more.

    Attributes:
        made: The databases that were made while it was the innermost.
    """

    def __init__(
        self, change: Change, enter: Callable[[Override], None], leave: Callable[[Override], list[Database]]
    ) -> None:
        self.change = change
        self.made: list[Database] = []
        self._enter = enter
        self._leave = leave

    def apply(self, settings: Settings | None) -> Settings | None:
        """
        Return the settings with the change; None where there are none to change yet.

        Raises:
            UnknownDatabase: A database that is to be changed is not declared.
            SettingsError: A changed value is wrong.
        """
        if isinstance(self.change, Settings):
            return self.change
        if settings is None:
            return None
        if not isinstance(self.change, Mapping):
            return self.change(settings)
        for name, changes in self.change.items():
            changes = {"url": changes} if isinstance(changes, str | URL) else changes  # noqa: PLW2901
            settings = settings.replace(name, **changes)
        return settings

    def __enter__(self) -> Self:
        self._enter(self)
        return self

    def __exit__(self, *_: object) -> None:
        for database in self._leave(self):
            database.close()

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(self, *_: object) -> None:
        for database in self._leave(self):
            await database.aclose()
