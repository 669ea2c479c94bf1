"""Test databases of SQLite: copies of a template's file, beside the file of the settings or in memory."""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
from functools import cached_property
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from ..errors import TestingError
from ..guard import sqlite_path
from .base import TEMPLATE, Record, Server
from .files import LockedFile, cache_directory
from .marker import TABLE

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import URL

__all__ = ["SQLite"]

_BESIDE = ("-wal", "-shm", "-journal", "-migrating")
"""What SQLite, and the lock of migrations, put beside a file."""
_NOTE = "-stillroom"
"""The end of the name of the file that holds the note on a database, and its lock."""
_BUSY = 5.0
"""Seconds that a copy waits for those who use what it replaces."""
_PAUSE = 0.01
_TEMPLATE_FILE = re.compile(rf"({TEMPLATE.pattern})\.db.*")


class SQLite(Server):
    """
    Files, or databases in the memory of this process.
    """

    limit = 120
    """Of the 255 bytes that file systems allow: the ends of names, and copies of copies, need room."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        file = sqlite_path(self.settings.url)
        self._file = file.absolute() if file is not None else None  # a test may change the directory
        self._locks: dict[str, LockedFile] = {}
        self._memory: dict[str, tuple[URL, sqlite3.Connection, Record]] = {}

    def close(self) -> None:
        for name in list(self._memory):
            self.drop(name)
        for lock in self._locks.values():
            lock.release()

    # --- the files

    def _path(self, name: str) -> Path:
        if self._file is None:
            raise TestingError(f"the database {name!r} is in memory")
        return self._file.with_name(f"{name}{self._file.suffix}")

    @cached_property
    def _cache(self) -> Path:
        return cache_directory()

    def _template(self, name: str) -> Path:
        return self._cache / f"{name}.db"

    # --- the "server"

    def facts(self) -> list[str]:
        return [sqlite3.sqlite_version]

    def environment(self) -> str | None:
        if self._file is None or not self._file.is_file():
            return None
        # Not read only: the last one to close a file in WAL mode tidies up, if it may write.
        with contextlib.closing(sqlite3.connect(f"{self._file.as_uri()}?mode=rw", uri=True)) as connection:
            names = connection.execute("select 1 from sqlite_master where type = 'table' and name = ?", (TABLE,))
            if names.fetchone() is None:
                return None
            rows = connection.execute(f"select environment from {TABLE} order by 1").fetchall()
        return ", ".join(row[0] for row in rows) or None

    def url(self, name: str) -> URL:
        if self._file is None:
            return self._memory[name][0]
        database = self.settings.url.database or ""
        path = str(self._path(name))
        if database.startswith("file:"):
            path = f"{self._path(name).as_uri()}{database[len(database.partition('?')[0]) :]}"
        return self.settings.url.set(database=path)

    def name_at(self, url: URL) -> str:
        if self._file is None:
            return next((name for name, (each, _, _) in self._memory.items() if each == url), "")
        path = sqlite_path(url)
        return path.stem if path is not None else ""

    # --- locks

    def _lock(self, name: str) -> LockedFile:
        if name not in self._locks:
            path = self._template(name) if TEMPLATE.fullmatch(name) else self._path(name)
            path = path.with_name(f"{path.name}{_NOTE}")
            self._locks[name] = LockedFile(path)
        return self._locks[name]

    def try_lock(self, name: str) -> bool:
        is_template = TEMPLATE.fullmatch(name) is not None
        if self._file is None and not is_template:
            return True  # nobody else can see it
        if not self._lock(name).acquire():
            return False
        if is_template:
            self._lock(name).write(f"process {os.getpid()}")
        return True

    def unlock(self, name: str) -> None:
        is_template = TEMPLATE.fullmatch(name) is not None
        if is_template or self._file is not None:
            # The note stays as long as the database does.
            stays = not is_template and self.record(name) is not None and self._path(name).exists()
            self._lock(name).release(remove=not stays)

    def holder(self, name: str) -> str:
        return self._lock(name).read()

    # --- templates

    def template(self, name: str) -> Record | None:
        path = self._template(name)
        try:
            words = Path(f"{path}.note").read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        return Record.read(words) if path.is_file() else None

    def make_template(self, name: str, record: Record, build: Callable[[URL], None]) -> None:
        self.drop_template(name)
        path = self._template(name)
        making = path.with_name(f"{path.name}.{os.getpid()}.making")
        try:
            build(self.settings.url.set(drivername=self.settings.url.drivername, database=str(making), query={}))
            with contextlib.closing(sqlite3.connect(making, isolation_level=None)) as connection:
                connection.execute("ANALYZE")
                # One file with all of it, which nobody has to recover before it is read.
                connection.execute("PRAGMA journal_mode=DELETE")
            Path(f"{path}.note").write_text(record.text(), encoding="utf-8")
            making.replace(path)
        except BaseException:
            _remove(making)
            self.drop_template(name)
            raise
        _remove(making)

    def drop_template(self, name: str) -> None:
        path = self._template(name)
        path.unlink(missing_ok=True)
        for each in self._cache.glob(f"{_escaped(path.name)}.*"):
            each.unlink(missing_ok=True)  # the note, and what processes that were killed have left

    # --- databases

    def record(self, name: str) -> Record | None:
        if self._file is None:
            return self._memory[name][2] if name in self._memory else None
        return self._noted(name) if self._path(name).exists() else None

    def _noted(self, name: str) -> Record | None:
        return Record.read(self._lock(name).read())

    def is_foreign(self, name: str) -> bool:
        return self._file is not None and self._path(name).exists() and self.record(name) is None

    def note(self, name: str, record: Record) -> None:
        if self._file is None:
            url, connection, _ = self._memory[name]
            self._memory[name] = url, connection, record
        else:
            self._lock(name).write(record.text())

    def copy(self, template: str, name: str, record: Record) -> None:
        if self._file is None:
            self._copy_to_memory(template, name, record)
            return
        self.drop(name)
        path = self._path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        self.note(name, record)
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as target:
            self._fill(target, template, name)
            target.execute("PRAGMA journal_mode=WAL")

    def _copy_to_memory(self, template: str, name: str, record: Record) -> None:
        """
        Fill a database that all connections of this process share, and that lives as long as one of them.
        """
        if name not in self._memory:
            database = f"file:/stillroom-{uuid4().hex}"
            url = self.settings.url.set(database=database).update_query_dict({"vfs": "memdb", "uri": "true"})
            made = sqlite3.connect(f"{database}?vfs=memdb", uri=True, check_same_thread=False, isolation_level=None)
            self._memory[name] = url, made, record
        url, target, _ = self._memory[name]
        self._fill(target, template, name)
        self._memory[name] = url, target, record

    def _fill(self, target: sqlite3.Connection, template: str, name: str) -> None:
        end = monotonic() + _BUSY

        def within_time(*_: int) -> None:
            if monotonic() > end:
                raise TestingError(
                    f"a connection to {name!r} did not end its transaction in {_BUSY:g} s, so it cannot be made anew; "
                    "end the sessions on it first"
                )

        with contextlib.closing(_open_read_only(self._template(template))) as source:
            source.backup(target, progress=within_time, sleep=_PAUSE)

    def drop(self, name: str) -> None:
        if self._file is None:
            if name in self._memory:
                self._memory.pop(name)[1].close()
            return
        if self._noted(name) is not None:
            _remove(self._path(name))
            if not self._lock(name).is_held:
                self._lock(name).path.unlink(missing_ok=True)

    def ours(self) -> dict[str, Record | None]:
        found: dict[str, Record | None] = {}
        for each in self._cache.iterdir():
            if match := _TEMPLATE_FILE.fullmatch(each.name):
                found[match[1]] = self.template(match[1])
        if self._file is not None and self._file.parent.is_dir():
            end = f"{self._file.suffix}{_NOTE}"
            for each in self._file.parent.iterdir():
                if each.name.endswith(end) and (record := Record.read(LockedFile(each).read())) is not None:
                    found[each.name.removesuffix(end)] = record
        return found


def _open_read_only(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)


def _remove(path: Path) -> None:
    for end in ("", *_BESIDE):
        Path(f"{path}{end}").unlink(missing_ok=True)


def _escaped(name: str) -> str:
    return re.sub(r"([\[*?])", r"[\1]", name)
