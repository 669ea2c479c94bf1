"""The databases that a unit of work may use, with their order and their roles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .errors import UnknownDatabase

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from .database import Database
    from .status import OnMultipleWrites


class Declared:
    """
    What was declared, in the form that units of work need.

    Args:
        owner: The `Databases`, or the single `Database`, that units of work belong to.
        databases: By name, in the order of declaration.
        default: The name of the default database.
        on_multiple_writes: What happens when a unit of work wrote to more than one.
    """

    def __init__(
        self,
        owner: Any,
        databases: Mapping[str, Database],
        default: str,
        on_multiple_writes: OnMultipleWrites = "ordered",
    ) -> None:
        self.owner = owner
        self.databases = databases
        self.default = default
        self.on_multiple_writes = on_multiple_writes
        self.is_two_phase = on_multiple_writes == "two_phase"
        self.logger = next((name for name, each in databases.items() if each.settings.role == "logger"), None)
        self.open_units: set[int] = set()  # ids: a unit that is dropped must be collected
        others = [name for name in databases if name != default]
        self.commit_order = {name: position for position, name in enumerate([*others, default])}

    def __contains__(self, name: object) -> bool:
        return name in self.databases

    def __iter__(self) -> Iterator[str]:
        return iter(self.databases)

    def database(self, name: str) -> Database:
        """
        Return a database by name.

        Raises:
            UnknownDatabase: There is none of that name.
        """
        try:
            return self.databases[name]
        except KeyError:
            known = ", ".join(repr(each) for each in self.databases)
            raise UnknownDatabase(f"no database is named {name!r}; declared are {known}") from None
