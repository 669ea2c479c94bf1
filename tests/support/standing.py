"""
Test databases that the suite's own tests stand on: made once a process by the toolkit, each test isolated by it.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy.engine import make_url

from stillroom import Databases
from stillroom.testing import TestOptions, TestRun
from stillroom.testing.provisioning import collect_garbage

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import pytest

    from stillroom.testing import Seeds

AT_ONCE = 8
"""How many runs stay open: each holds two or three connections, and a server has a hundred for all workers."""


@dataclass(frozen=True)
class Content:
    """
    What a test finds in its database.

    Attributes:
        name: Part of the names of databases that have it; not two contents with one name.
        metadata: Where its tables are declared, as in the settings; None for no tables.
        seeds: What puts rows into it.
        beside: Further databases, SQLite files, by name; and where their tables are declared.
    """

    name: str
    metadata: str | None = None
    seeds: Seeds = ()
    beside: tuple[tuple[str, str], ...] = ()


class Standing:
    """
    The runs of this process, one for each content and driver, made when they are first asked for.

    Args:
        options: Who this process is, among others.
        directory: Where SQLite files are put.
    """

    def __init__(self, options: TestOptions, directory: Path) -> None:
        self.options = options
        self.directory = directory
        self._runs: dict[tuple[Content, str, str], TestRun] = {}
        self._used: dict[tuple[str, str], tuple[Databases, TestOptions]] = {}

    def __repr__(self) -> str:
        return f"<Standing: {len(self._runs)} runs>"

    def run(self, content: Content, backend: str, driver: str, server: str) -> TestRun:
        """
        Return the run on databases with a content.

        Args:
            content: What is in them.
            backend: "sqlite", "postgresql" or "mariadb".
            driver: The driver that its URL names.
            server: The administrator's URL; of no meaning for SQLite.
        """
        key = content, backend, driver
        run = self._runs.pop(key, None) or self._opened(content, backend, driver, server)
        self._runs[key] = run  # the last is the one that was used last
        while len(self._runs) > AT_ONCE:
            self._close(next(iter(self._runs)))
        return run

    def _opened(self, content: Content, backend: str, driver: str, server: str) -> TestRun:
        database = f"stillroom_test_{content.name}"
        url = make_url(f"sqlite+{driver}:///{self.directory}/{database}.db")
        if backend != "sqlite":
            url = make_url(server)
            url = url.set(drivername=f"{url.get_backend_name()}+{driver}", database=database)
        settings = {"main": {"url": url.render_as_string(hide_password=False), "metadata": content.metadata}}
        for name, metadata in content.beside:
            settings[name] = {"url": f"sqlite:///{self.directory}/{database}_{name}.db", "metadata": metadata}
        options = msgspec.structs.replace(
            self.options,
            allowed_hosts=(url.host,) if url.host else (),
            seeds={"main": content.seeds},
            schema={} if content.metadata else {"main": "none"},
        )
        made = {"default": "main", "databases": settings}
        self._used[content.name, backend] = Databases(made), _unlike(options, settings)
        return TestRun(Databases(made), options).__enter__()

    def _close(self, key: tuple[Content, str, str]) -> None:
        run = self._runs.pop(key)
        run.__exit__(None, None, None)
        run.databases.close()

    def close(self) -> None:
        """
        Drop the databases, and the templates that no other process uses.
        """
        with contextlib.ExitStack() as stack:
            for databases, options in self._used.values():
                stack.callback(databases.close)
                stack.callback(collect_garbage, databases, options)
            for key in list(self._runs):
                stack.callback(self._close, key)


def _unlike(options: TestOptions, names: Iterable[str]) -> TestOptions:
    """
    Return options for which there is no template: so a clean-up with them keeps none for the next run.
    """
    return msgspec.structs.replace(
        options, schema=dict.fromkeys(names, "none"), seeds=dict.fromkeys(names, (_nothing,))
    )


def _nothing(session: object) -> None:
    """
    Put no rows in.
    """


def options_for(config: pytest.Config) -> TestOptions:
    """
    Say who this process is among the workers of pytest-xdist.
    """
    worker: dict[str, Any] = getattr(config, "workerinput", {})
    return TestOptions(worker=worker.get("workerid", ""), run=worker.get("testrunuid", ""))
