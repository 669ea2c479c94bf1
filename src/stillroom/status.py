"""How a unit of work stands, and how it was asked to behave."""

from __future__ import annotations

import enum
from collections.abc import Mapping  # noqa: TC003  # whoever reads the annotations of a struct needs the name
from typing import Any, Literal

import msgspec

CommitMode = Literal["auto", "manual"]
SessionRole = Literal["writer", "reader", "logger", "any"]
OnMultipleWrites = Literal["ordered", "two_phase", "refuse"]


class Status(enum.Enum):
    """
    How a unit of work stands.

    PARTLY_COMMITTED: some databases are durable, others are not. UNKNOWN: the answer to a COMMIT was lost.
    """

    NEW = "new"
    ACTIVE = "active"
    COMMITTING = "committing"
    COMMITTED = "committed"
    ROLLED_BACK = "rolled back"
    PARTLY_COMMITTED = "partly committed"
    UNKNOWN = "unknown"


class UnitOptions(msgspec.Struct, frozen=True, kw_only=True):
    """
    How a unit of work behaves.

    Args:
        commit: "auto" commits at the end of the block; "manual" only by `uow.commit()`.
        read_only: Every session is a reader.
        isolation: The isolation of the writers' transactions, in SQL's words ("SERIALIZABLE"); None for the setting.
        timeout: The longest time that the body may take, in seconds; COMMIT is never cut short by it. None: no limit.
        on_multiple_writes: What to do when more than one database was written; None for the setting.
        info: Goes into `session.info` of each session, beside "unit_of_work".

    Raises:
        ValueError: A value is not one of those.
    """

    commit: CommitMode = "auto"
    read_only: bool = False
    isolation: str | None = None
    timeout: float | None = None
    on_multiple_writes: OnMultipleWrites | None = None
    info: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.commit != "auto":
            _one_of("commit", self.commit, ("auto", "manual"))
        if self.on_multiple_writes is not None:
            _one_of("on_multiple_writes", self.on_multiple_writes, (None, "ordered", "two_phase", "refuse"))
        if self.isolation is not None:
            _one_of("isolation", self.isolation, (None, *ISOLATIONS))
        if self.timeout is not None and self.timeout <= 0:
            raise ValueError(f"timeout={self.timeout!r}: a time limit is a positive number of seconds")


ISOLATIONS = ("READ UNCOMMITTED", "READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE")


def _one_of(name: str, value: object, allowed: tuple[object, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name}={value!r}: it is one of {', '.join(repr(each) for each in allowed)}")


NO_OPTIONS = UnitOptions()
"""How a unit of work behaves where nothing else is asked for."""


def unit_options(given: Mapping[str, Any]) -> UnitOptions:
    """
    Return the options that were given by name.

    Raises:
        TypeError: There is no such option.
        ValueError: An option has no such value.
    """
    if not given:
        return NO_OPTIONS
    known = UnitOptions.__struct_fields__
    for name in given:
        if name not in known:
            from difflib import get_close_matches

            near = get_close_matches(name, known, n=1)
            remedy = f"did you mean {near[0]!r}?" if near else f"its options are {', '.join(known)}"
            raise TypeError(f"a unit of work has no option {name!r}; {remedy}")
    return UnitOptions(**given)
