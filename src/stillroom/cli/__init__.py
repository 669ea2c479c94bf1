"""The command `stillroom`: it parses and prints; the work is done by functions that programs can call as well."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]

USAGE = 2


def main(arguments: Sequence[str] | None = None) -> None:
    """
    Run the command, and exit.

    Args:
        arguments: Of the command; None for those of this process.

    Raises:
        SystemExit: Always; 0 all is well, 1 something is off, 2 the usage or the settings are wrong.
    """
    try:
        from stillroom.cli.commands import stillroom
    except ImportError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in {"click", "rich"}:
            raise
        sys.stderr.write(f'The command line needs {missing}; install it with: pip install "stillroom[cli]"\n')
        sys.exit(USAGE)
    stillroom(args=None if arguments is None else list(arguments), prog_name="stillroom")
