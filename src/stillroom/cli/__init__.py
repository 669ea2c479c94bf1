"""The command `stillroom`: it parses and prints; the work is done by functions that programs can call as well."""

from __future__ import annotations

import atexit
import gc
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    import click

    from stillroom import Databases

__all__ = ["commands_for", "main"]

USAGE = 2


def main(arguments: Sequence[str] | None = None) -> None:
    """
    Run the command, and exit.

    Args:
        arguments: Of the command; None for those of this process.

    Raises:
        SystemExit: Always; 0 all is well, 1 something is off, 2 the usage, the settings or the data are wrong.
    """
    try:
        from stillroom.cli.commands import stillroom
    except ImportError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in {"click", "rich"}:
            raise
        sys.stderr.write(f'The command line needs {missing}; install it with: pip install "stillroom[cli]"\n')
        sys.exit(USAGE)
    # As `python -m stillroom` has it: the modules of the models are found where the command is run.
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    if arguments is None:
        # Modules stay for as long as the process, so Python need not look through them for what nobody refers to any
        # more: neither at work nor, which takes longer than many a command, at its end.
        gc.freeze()
        atexit.register(gc.freeze)
    stillroom(args=None if arguments is None else list(arguments), prog_name="stillroom")


def commands_for(databases: Databases) -> click.Group:
    """
    Return the commands for the databases of an application, to be added to a command line of its own.

    Raises:
        ImportError: click is not installed.
    """
    from stillroom.cli.embedded import Commands

    return Commands(databases)
