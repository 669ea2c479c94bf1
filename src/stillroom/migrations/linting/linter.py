"""Finds what is dangerous in revisions before they run."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from sqlalchemy.exc import SQLAlchemyError

from stillroom import StillroomError

from ..chain import Chain, chains, explained
from ..connecting import ask
from .checks import Found, Validated, check, still_mapped
from .recording import record
from .rules import RULES, Severity
from .waivers import Waivers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from alembic.script import Script

    from stillroom import Databases

    from .recording import Recording

__all__ = ["Hazard", "Which", "chosen", "lint", "shown_path"]

Which = Literal["pending", "all"]


@dataclass(frozen=True)
class Hazard:
    """
    Something that a revision does and that may do harm.

    Attributes:
        database: The database it is for.
        revision: The revision's id.
        rule: The rule's id.
        severity: "error", "warning" or "style".
        path: The revision's file, relative to the working directory where it is below it.
        line: Where.
        what: What does it, in short.
        reason: What happens: the lock that is taken, the loss.
        remedy: The safe way.
    """

    database: str
    revision: str
    rule: str
    severity: Severity
    path: str
    line: int
    what: str
    reason: str
    remedy: str


def lint(
    databases: Databases, database: str | None = None, *, revisions: Which = "pending", since: str | None = None
) -> list[Hazard]:
    """
    Find what may do harm in revisions, from what they would do; their `upgrade()` runs without a database.

    Args:
        databases: The application's.
        database: One of them; None for all that have migrations.
        revisions: "pending" are those that the database does not have, or all where it cannot be asked; "all".
        since: Only revisions after this one, whatever the database has.

    Raises:
        NoMigrations: There are none.
        MigrationError: There is no revision `since`.
        SettingsError: The models cannot be imported.
    """
    return [
        hazard
        for chain in chains(databases, database)
        for hazard in _Linter(chain, chosen(chain, revisions, since)).hazards()
    ]


def chosen(chain: Chain, revisions: Which, since: str | None) -> list[Script]:
    """
    Return the revisions that are asked for, in the order in which they run.
    """
    if since is not None:
        with explained(chain.name):
            found = chain.script().get_revision(since)  # may be the begin of an id
        return chain.pending((found.revision,), "heads")
    chain.script()
    if revisions == "pending":
        try:
            return chain.pending(ask(chain.database, chain.current), "heads")
        except (StillroomError, SQLAlchemyError, OSError):
            pass  # no server here, as in CI: then all of them
    return chain.pending((), "heads")


def shown_path(path: str | Path) -> str:
    """
    Return a path as it is shown: below the working directory it is relative, as annotations want it.
    """
    absolute, here = Path(path).absolute(), Path.cwd()
    return str(absolute.relative_to(here)) if absolute.is_relative_to(here) else str(absolute)


class _Linter:
    """
    Lints the revisions of one database.
    """

    def __init__(self, chain: Chain, scripts: Sequence[Script]) -> None:
        self.chain = chain
        self.backend = chain.database.backend.name
        self.recordings = record(chain, scripts)
        self.known: dict[str, Recording] = {each.script.revision: each for each in self.recordings}

    def hazards(self) -> list[Hazard]:
        """
        Return them in the order in which the revisions run.
        """
        mapped = list(still_mapped(self.recordings, self.chain.database.metadata))
        return [
            hazard
            for each in self.recordings
            for hazard in self._of(each, [found for recording, found in mapped if recording is each])
        ]

    def _of(self, recording: Recording, mapped: Sequence[Found]) -> list[Hazard]:
        script = recording.script
        waivers = Waivers(Path(script.path).read_text(encoding="utf-8"))
        found = {*check(recording, self.backend, self._validated_before(recording)), *mapped}
        kept = [each for each in found if not waivers.allows(each.rule, each.line)]
        problems = [Found("waiver", line, text) for line, text in waivers.all_problems()]
        kept += [each for each in problems if not waivers.allows(each.rule, each.line)]
        return [self._hazard(script, each) for each in sorted(kept, key=lambda each: (each.line, each.rule, each.what))]

    def _hazard(self, script: Script, found: Found) -> Hazard:
        rule = RULES[found.rule]
        reason = rule.reason(self.backend) or ""
        return Hazard(
            database=self.chain.name,
            revision=script.revision,
            rule=rule.id,
            severity=rule.severity,
            path=shown_path(script.path),
            line=max(found.line, 1),
            what=found.what,
            reason=reason,
            remedy=rule.remedy,
        )

    def _validated_before(self, recording: Recording) -> Validated:
        """
        Read the revisions below one, where it matters what they made sure of.
        """
        if not any(each.kind == "set_not_null" for each in recording.actions):
            return Validated()
        below = list(takewhile(lambda each: each.revision != recording.script.revision, self._in_order))
        missing = [each for each in below if each.revision not in self.known]
        self.known |= {each.script.revision: each for each in record(self.chain, missing)}
        return Validated.after(self.known[each.revision] for each in below)

    @cached_property
    def _in_order(self) -> list[Script]:
        return self.chain.pending((), "heads")
