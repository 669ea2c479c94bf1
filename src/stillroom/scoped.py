"""A proxy with the interface of `scoped_session` for the session of the current unit of work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy.orm import Session, scoped_session

if TYPE_CHECKING:
    from .databases import Databases


class _CurrentRegistry:
    """
    What `scoped_session` asks for its session.
    """

    def __init__(self, databases: Databases, name: str | None) -> None:
        self.databases = databases
        self.name = name

    def __call__(self) -> Any:
        return self.databases.session(self.name)

    def has(self) -> bool:
        return self.databases.has_current

    def set(self, session: object) -> None:
        raise RuntimeError("the session belongs to the unit of work; it cannot be replaced")

    def clear(self) -> None:
        """
        Forget nothing: the unit of work closes its sessions.
        """


class CurrentSession(scoped_session[Session]):
    """
    Finds the session of the unit of work that is open when it is used.

    Args:
        databases: The databases.
        name: The database; None for the default one.
    """

    def __init__(self, databases: Databases, name: str | None) -> None:
        super().__init__(Session)  # type: ignore[arg-type]  # never called: the registry below finds the session
        self.registry = _CurrentRegistry(databases, name)  # type: ignore[assignment]

    def __call__(self, **options: Any) -> Session:
        if options:
            raise TypeError(f"the session of the unit of work exists already; it takes no options: {options!r}")
        session: Session = self.registry()
        return session

    def remove(self) -> None:
        """
        Do nothing: the session ends with its unit of work.
        """
