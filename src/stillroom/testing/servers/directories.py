"""Directories of throwaway servers: they go with the server, or before the next one where the tests were killed."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from .processes import alive, family, kill, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PREFIX = "stillroom-server-"

# Whoever holds the lock on this file uses the directory; the system releases it however the holder ends.
LOCK = "in-use"

# The programs that run in such directories.
SERVERS = frozenset({"postgres", "mariadbd", "mysqld", "pgbouncer"})


@contextlib.contextmanager
def server_directory(user: str | None) -> Iterator[Path]:
    """
    Make a directory for a server, and remove it at the end; remove what tests that were killed left behind.

    Args:
        user: Whom it belongs to; None for the present user.
    """
    sweep()
    root = Path(tempfile.mkdtemp(prefix=PREFIX))
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, root, ignore_errors=True)
        stack.enter_context(_in_use(root))
        if user is not None:
            shutil.chown(root, user)
        yield root


def sweep() -> None:
    """
    End the servers whose tests were killed before they could end them, and remove their directories.
    """
    for lock in Path(tempfile.gettempdir()).glob(f"{PREFIX}*/{LOCK}"):
        with contextlib.suppress(OSError), lock.open() as file:
            if _locked(file):
                _end_processes(lock.parent)
                shutil.rmtree(lock.parent, ignore_errors=True)


@contextlib.contextmanager
def _in_use(root: Path) -> Iterator[None]:
    # Locked before it has its name: nobody sees the file without its lock.
    with tempfile.NamedTemporaryFile(dir=root, delete=False) as file:
        _locked(file)
        Path(file.name).rename(root / LOCK)
        yield


def _locked(file: IO[bytes] | IO[str]) -> bool:
    try:
        import fcntl
    except ImportError:  # a system without such locks: nothing is ever left to sweep
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _end_processes(root: Path) -> None:
    import psutil

    servers = [each for each in psutil.process_iter(["name", "cmdline"]) if _serves(root, each.info)]
    started = [child for each in servers for child in family(each.pid)]
    for each in servers:
        with contextlib.suppress(psutil.NoSuchProcess):
            each.terminate()  # in order, so that a PostgreSQL gives its shared memory back
    with contextlib.suppress(TimeoutError):
        wait_until(lambda: not any(map(alive, servers)), "the servers of killed tests have ended", timeout=5)
    kill([*servers, *started])


def _serves(root: Path, process: Mapping[str, Any]) -> bool:
    command = process["cmdline"] or ()
    return process["name"] in SERVERS and any(str(root) + os.sep in argument for argument in command)
