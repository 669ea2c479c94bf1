"""What can be chosen for a run of tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import msgspec

__all__ = ["Isolation", "Schema", "Seeds", "TestOptions"]

Isolation = Literal["sandbox", "committed", "clone"]
"""How a test is kept from others: on one connection that is rolled back, by cleaning, or in its own database."""

Schema = Literal["migrations", "create_all", "none"]
"""Where the tables of a test database come from."""

Seeds = Sequence[Callable[[Any], None]]
"""Functions that put rows into a new test database; each gets a `sqlalchemy.orm.Session`, committed after it."""


def _silent(text: str) -> None:
    """
    Say nothing.
    """


class TestOptions(msgspec.Struct, frozen=True, kw_only=True):
    """
    What can be chosen for a run of tests.

    Attributes:
        worker: Who among several processes this is, such as "gw0" of pytest-xdist; part of the databases' names.
        run: Which run of tests this is; the same for all its workers, so that `fresh` makes each template once.
        keep: Leave the test databases where they are at the end, and take them as they are at the next start.
        fresh: Make templates anew, whatever is kept of earlier runs.
        prefix: What the names of test databases begin with; None for the names in the settings.
        seeds: For a database by name: what puts rows into it, once per template.
        schema: For a database by name: where its tables come from. Default: its migrations if its settings name a
            directory with revisions, else `create_all`.
        allowed_hosts: Hosts beside the local one on which test databases may be made.
        allowed_databases: Exact names of databases that may be used although they do not look like test databases.
        wait: How long to wait for other runs that make the same template, in seconds.
        sandbox_timeout: How long a statement in the sandbox waits for another thread's or task's writes, in seconds.
        notice: Is told what takes time, and what is refused.
    """

    __test__ = False

    worker: str = ""
    run: str = ""
    keep: bool = False
    fresh: bool = False
    prefix: str | None = None
    seeds: Mapping[str, Seeds] = {}
    schema: Mapping[str, Schema] = {}
    allowed_hosts: tuple[str, ...] = ()
    allowed_databases: tuple[str, ...] = ()
    wait: float = 60.0
    sandbox_timeout: float = 5.0
    notice: Callable[[str], None] = _silent
