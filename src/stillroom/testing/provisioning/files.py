"""Locks on files, which the operating system gives back when their holder dies, and where templates are kept."""

from __future__ import annotations

import os
import sys
import tempfile
from io import FileIO
from pathlib import Path

__all__ = ["LockedFile", "cache_directory"]

_BYTES = 4096
"""How much of a lock's file is read."""
_LOCKED_BYTE = 1 << 30
"""Windows locks bytes, and lets nobody read those: one far behind what is written."""


class LockedFile:
    """
    A file that at most one process holds, with a few words in it that all can read.

    Args:
        path: The file; it is made where it is missing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: FileIO | None = None

    @property
    def is_held(self) -> bool:
        """
        Whether this object holds it.
        """
        return self._file is not None

    def acquire(self) -> bool:
        """
        Take it if nobody else holds it; True also where this object holds it already.
        """
        if self._file is not None:
            return True
        self.path.parent.mkdir(parents=True, exist_ok=True)
        file = FileIO(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666), "r+")
        if _lock(file) and self._is_at_path(file):
            self._file = file
            return True
        file.close()
        return False

    def _is_at_path(self, file: FileIO) -> bool:
        """
        Say whether the file that was locked is still the one of that name: its last holder may have removed it.
        """
        try:
            return os.path.samestat(os.fstat(file.fileno()), self.path.stat())
        except FileNotFoundError:
            return False

    def read(self) -> str:
        """
        Read the words; empty where there is no file.
        """
        try:
            with self.path.open("rb") as file:
                return file.read(_BYTES).decode(errors="replace")
        except FileNotFoundError:
            return ""

    def write(self, words: str) -> None:
        """
        Put other words into it.
        """
        file = self._file
        if file is None:
            self.path.write_text(words, encoding="utf-8")
            return
        file.seek(0)
        file.truncate()
        file.write(words.encode())

    def release(self, *, remove: bool = False) -> None:
        """
        Give it back.

        Args:
            remove: The file goes, too.
        """
        file, self._file = self._file, None
        if file is None:
            return
        if remove and sys.platform != "win32":
            self.path.unlink(missing_ok=True)  # while it is held: a later holder finds out that it is gone
        _unlock(file)
        file.close()
        if remove and sys.platform == "win32":
            _try_unlink(self.path)


def _try_unlink(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except PermissionError:
        return  # somebody else opened it meanwhile: it is theirs now


if sys.platform == "win32":
    import msvcrt

    def _lock(file: FileIO) -> bool:
        file.seek(_LOCKED_BYTE)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        file.seek(0)
        return True

    def _unlock(file: FileIO) -> None:
        file.seek(_LOCKED_BYTE)
        msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _lock(file: FileIO) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _unlock(file: FileIO) -> None:
        fcntl.flock(file, fcntl.LOCK_UN)  # a process that was forked off has the file open too, and would keep the lock


def cache_directory() -> Path:
    """
    Return the directory of templates: `stillroom` where this platform keeps what can be made anew.

    That is `$XDG_CACHE_HOME` or `~/.cache`, `~/Library/Caches` on macOS, `%LOCALAPPDATA%` on Windows; where none of
    these can be written to, the system's temporary directory.
    """
    for root in _roots():
        directory = root / "stillroom" / "templates"
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(directory, os.W_OK):
            return directory
    user = os.getuid() if hasattr(os, "getuid") else "user"
    directory = Path(tempfile.gettempdir()) / f"stillroom-templates-{user}"
    directory.mkdir(mode=0o700, exist_ok=True)
    return directory


def _roots() -> list[Path]:
    found = [os.environ.get("XDG_CACHE_HOME")]
    if sys.platform == "win32":
        found.append(os.environ.get("LOCALAPPDATA"))
    roots = [Path(each) for each in found if each]
    try:
        home = Path.home()
    except RuntimeError:  # a container's user may have none
        return roots
    return [*roots, home / "Library" / "Caches" if sys.platform == "darwin" else home / ".cache"]
