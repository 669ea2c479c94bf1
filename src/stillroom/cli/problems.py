"""Errors as the command line shows them: one paragraph with the remedy, and the exit code."""

from __future__ import annotations

import sys
import traceback
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click
from sqlalchemy.exc import DBAPIError

from stillroom import BadRow, MissingDriver, NotDisposable, SettingsError, StillroomError
from stillroom.classification import Kind, classify

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["OFF", "WRONG", "explained", "paragraph"]

OFF = 1
"""Something is off: a server is down, a check failed, an error while at work."""
WRONG = 2
"""The usage, the settings or the data are wrong; nothing was done."""

_WHERE = "`stillroom --debug …` shows where"
_REMEDIES: dict[Kind | None, str] = {
    Kind.DISCONNECTED: "`stillroom ping` tells which servers answer, and `stillroom create` makes a missing database",
    Kind.READ_ONLY: "the connection or its server only reads; `stillroom sql --write` uses one that writes",
    Kind.UNDEFINED_TABLE: "`stillroom migrations` tells whether revisions are to be run",
    Kind.UNDEFINED_COLUMN: "`stillroom migrations` tells whether revisions are to be run",
}


@contextmanager
def explained(*, debug: bool) -> Iterator[None]:
    """
    Turn any error inside the block into a paragraph and an exit code.

    Args:
        debug: Show the traceback too.
    """
    try:
        yield
    except (click.ClickException, click.exceptions.Exit, click.Abort):
        raise  # click's own
    except Exception as error:  # noqa: BLE001  # whoever runs a command is not to read a traceback
        if debug:
            traceback.print_exc()
        sys.stderr.write(f"Error: {paragraph(error)}\n")
        sys.exit(WRONG if _is_wrong(error) else OFF)


def _is_wrong(error: Exception) -> bool:
    from stillroom.data import DataFileError  # here, for most commands need neither: they take a fifth of the start
    from stillroom.demo import DemoError

    if isinstance(error, BadRow | DataFileError | DemoError | MissingDriver | NotDisposable | SettingsError):
        return True
    # A name that nothing has: of a database, a revision, a directory of revisions.
    return isinstance(error, StillroomError) and isinstance(error, LookupError)


def paragraph(error: Exception) -> str:
    """
    Say what an error says, with the remedy and without a traceback.
    """
    if isinstance(error, DBAPIError):
        # The driver's own words; SQLAlchemy adds the statement, its parameters and a link.
        says = " ".join(str(error.orig or error.args[0]).split()).removesuffix(".")
        return f"the database says: {says}. {_REMEDIES.get(classify(error), _WHERE)}"
    if isinstance(error, SettingsError | click.ClickException):
        return str(error)  # of several wrong settings each has a line
    if isinstance(error, StillroomError):
        return " ".join(str(error).split())
    return f"{type(error).__name__}: {' '.join(str(error).split())}. This was not expected; {_WHERE}"
