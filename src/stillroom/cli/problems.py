"""Errors as the command line shows them: one paragraph with the remedy, and the exit code."""

from __future__ import annotations

import sys
import traceback
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click
from sqlalchemy.exc import DBAPIError

from stillroom import BadRow, MissingDriver, SettingsError, StillroomError
from stillroom.data import DataFileError
from stillroom.demo import DemoError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["OFF", "WRONG", "explained", "paragraph"]

OFF = 1
"""Something is off: a server is down, a check failed, an error while at work."""
WRONG = 2
"""The usage, the settings or the data are wrong; nothing was done."""


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
        wrong = SettingsError | MissingDriver | DemoError | DataFileError | BadRow
        sys.exit(WRONG if isinstance(error, wrong) else OFF)


def paragraph(error: Exception) -> str:
    """
    Say what an error says, with the remedy and without a traceback.
    """
    if isinstance(error, DBAPIError):
        # The driver's own words; SQLAlchemy adds the statement, its parameters and a link.
        return f"the database says: {' '.join(str(error.orig or error.args[0]).split())}. --debug shows where"
    if isinstance(error, SettingsError | click.ClickException):
        return str(error)  # of several wrong settings each has a line
    if isinstance(error, StillroomError):
        return " ".join(str(error).split())
    return f"{type(error).__name__}: {' '.join(str(error).split())}. This was not expected; --debug shows where"
