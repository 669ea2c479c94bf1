"""What a run of tests calls: its databases are made at the start, dropped or kept at the end, cleaned up on request."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from importlib import import_module
from typing import TYPE_CHECKING
from uuid import uuid4

import msgspec

from .. import guard, naming

# The module, not its names: it imports from this package in its turn, and either may be imported first.
from .. import templates as _templates
from ..errors import TestingError
from .base import Record, Server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from sqlalchemy import URL

    from stillroom import Databases

    from ..options import TestOptions
    from ..templates import Target, Template

__all__ = ["TestDatabase", "collect_garbage", "noted", "provide"]

SLOTS = 1000
"""How many runs at once may have a database of the same name and worker."""
_SERVERS = {"sqlite": "SQLite", "postgresql": "PostgreSQL", "mysql": "MariaDB"}


@contextmanager
def provide(databases: Databases, options: TestOptions) -> Iterator[Mapping[str, TestDatabase]]:
    """
    Make the test databases of a run, and drop or keep them at its end.

    Databases of the settings that are one and the same on their server share a test database.

    Args:
        databases: The application's, configured; nothing is connected to through them.
        options: What was chosen for the run.

    Yields:
        The test databases by the names in the settings.

    Raises:
        NotATestDatabase: One is not recognisable as a test database; nothing was made.
        TestingError: A template could not be had in time.
    """
    if not options.run:
        options = msgspec.structs.replace(options, run=uuid4().hex)
    settings = databases.settings
    guard.check(settings.databases, options)
    with ExitStack() as stack:
        found = [
            (target, stack.enter_context(_serving(databases, target, options)))
            for target in _templates.targets(settings, options)
        ]
        made: dict[str, TestDatabase] = {}
        for target, server in found:
            known = {name: (each.url, each.template.key) for name, each in made.items()}
            template = _templates.Template(databases, target, server, options, known)
            slot = stack.enter_context(_slot(server, target, options))
            kept = server.record(slot)
            try:
                if kept is None or kept.kind != "kept" or kept.key != template.key or options.fresh:
                    template.copy_to(slot, _used(template))
                else:
                    server.note(slot, _used(template))  # a run that dies from here on leaves no "kept" behind
            except BaseException:
                _leave(server, slot, template, keep=False)
                raise
            stack.callback(_leave, server, slot, template, keep=options.keep)
            options.notice(f"{target.name}: the test database is {slot!r}")
            made |= {name: TestDatabase(name, server, slot, template) for name in target.members}
        yield {name: made[name] for name in settings.databases}


@contextmanager
def _serving(databases: Databases, target: Target, options: TestOptions) -> Iterator[Server]:
    """
    Open the server of a target, and see to it that none of its databases is marked as one of production.
    """
    settings = databases.settings
    of = settings[target.name]
    kind = _SERVERS[of.backend]
    made: Server = getattr(import_module(f".{kind.lower()}", __package__), kind)(
        target.name, of, settings.application, options
    )
    try:
        environment = made.environment()
        for name in target.members:
            guard.refuse_marked(name, settings[name], options, environment)
        yield made
    finally:
        made.close()


@contextmanager
def noted(databases: Databases, name: str, options: TestOptions, made: str) -> Iterator[Callable[[], None]]:
    """
    Hold the name of a database that somebody makes and drops inside the block.

    If this process is killed, `collect_garbage` finds the database by its note.

    Args:
        databases: The application's.
        name: The database beside which it is made.
        options: The same as for `provide`.
        made: What it is called on the server.

    Yields:
        What writes the note on it; to be called when it is there.
    """
    target = next(each for each in _templates.targets(databases.settings, options) if name in each.members)
    with _serving(databases, target, options) as server:
        server.try_lock(made)
        try:
            yield lambda: server.note(made, Record("used", target.base, "", slot=made))
        finally:
            server.unlock(made)


@contextmanager
def _slot(server: Server, target: Target, options: TestOptions) -> Iterator[str]:
    """
    Hold the first name that no other run holds, and that is not somebody else's database.

    Raises:
        TestingError: There is none.
    """
    for number in range(1, SLOTS):
        name = naming.slot_name(target.base, options.worker, number, server.limit)
        if not server.try_lock(name):
            continue
        if server.is_foreign(name):
            options.notice(f"{target.name}: {name!r} is not a test database of ours, so it is left alone")
            server.unlock(name)
            continue
        try:
            yield name
        finally:
            server.unlock(name)
        return
    raise TestingError(
        f"no name is left for the test database of {target.name!r}: {SLOTS - 1} from {target.base!r} on are in use; "
        "let other runs end, or clean up what they left"
    )


def _used(template: Template) -> Record:
    return Record("used", template.target.base, template.key)


def _leave(server: Server, slot: str, template: Template, *, keep: bool) -> None:
    """
    Drop the database of a run at its end, or note that it may be taken again.

    What goes wrong is told and left to the next run, which takes the name over: the tests have their result already.
    """
    options = template.options
    try:
        if not server.try_lock(slot):
            options.notice(f"{template.target.name}: another run took {slot!r} while the connection was lost")
        elif keep:
            server.note(slot, Record("kept", template.target.base, template.key))
        else:
            server.drop(slot)
    except Exception as error:  # noqa: BLE001  # of any driver
        options.notice(f"{template.target.name}: {slot!r} could not be dropped, the next run will do it: {error}")


class TestDatabase:
    """
    A test database of this run and worker.

    Attributes:
        name: Its name in the settings.
        template: What it was copied from.
    """

    __test__ = False

    def __init__(self, name: str, server: Server, slot: str, template: Template) -> None:
        self.name = name
        self.template = template
        self._server = server
        self._slot = slot

    def __repr__(self) -> str:
        return f"<TestDatabase {self.name!r} {self._slot!r}>"

    @property
    def url(self) -> URL:
        """
        Where it is: at the newest revision, with its seeds.
        """
        return self._server.url(self._slot)

    def remake(self) -> None:
        """
        Make it anew from the template.

        Close the connections to it first: PostgreSQL and MariaDB end them, SQLite's would go on with the old file.

        Raises:
            TestingError: Its name was lost to another run, or a connection to a database in memory is in a transaction.
        """
        self._require_slot()
        self.template.copy_to(self._slot, _used(self.template))

    def clone(self, label: str) -> URL:
        """
        Make another database from the template; one with the same label is dropped first.

        It stays until `drop_clone`, a clone with its label, or `collect_garbage`; in memory, as long as the run.

        Args:
            label: Ends its name: letters and digits are kept, a long one is cut.

        Raises:
            TestingError: Somebody else's database has that name, or ours was lost to another run.
        """
        self._require_slot()
        name = naming.clone_name(self._slot, label, self._server.limit)
        record = self._server.record(name)
        if self._server.is_foreign(name) or (record is not None and not self._has_clone(record)):
            raise TestingError(
                f"the database {name!r} is not a clone of {self._slot!r}; give the clone another label than {label!r}"
            )
        template = self.template
        self.template.copy_to(name, Record("clone", template.target.base, template.key, slot=self._slot))
        return self._server.url(name)

    def drop_clone(self, url: URL) -> None:
        """
        Drop a clone, connections or not.

        Args:
            url: What `clone` returned.

        Raises:
            TestingError: It is not a clone of this database.
        """
        name = self._server.name_at(url)
        record = self._server.record(name)
        if record is None:
            return  # it is gone already
        if not self._has_clone(record):
            raise TestingError(f"the database {name!r} is not a clone of {self._slot!r}; pass what clone() returned")
        self._server.drop(name)

    def _has_clone(self, record: Record) -> bool:
        return record.kind == "clone" and record.slot == self._slot

    def _require_slot(self) -> None:
        if not self._server.try_lock(self._slot):
            raise TestingError(
                f"the connection that kept the name {self._slot!r} for this run was lost, and another run has it now; "
                "run the tests again"
            )


def collect_garbage(databases: Databases, options: TestOptions) -> list[str]:
    """
    Remove the templates and test databases of an application that no run uses any more.

    What is in use stays, and so do the templates that the next run needs, and kept databases that fit them.

    Args:
        databases: The application's.
        options: The same as for `provide`.

    Returns:
        The names of what was removed.

    Raises:
        NotATestDatabase: One is not recognisable as a test database; nothing was removed.
    """
    settings = databases.settings
    guard.check(settings.databases, options)
    removed: list[str] = []
    keys: dict[str, str] = {}
    for target in _templates.targets(settings, options):
        with _serving(databases, target, options) as server:
            known = {name: (settings[name].url, key) for name, key in keys.items()}
            template = _templates.Template(databases, target, server, options, known)
            keys |= dict.fromkeys(target.members, template.key)
            removed += _collect(server, template)
    return removed


def _collect(server: Server, template: Template) -> Iterator[str]:
    base = template.target.base
    ours = server.ours()
    needed = {template.key}
    for name, record in sorted(ours.items()):
        if record is None or record.kind == "template" or record.base != base:
            continue
        slot = record.slot or name
        if not server.try_lock(slot):
            needed.add(record.key)
            continue
        try:
            if record.kind != "kept" or record.key != template.key:
                server.drop(name)
                yield name
        finally:
            server.unlock(slot)
    for name, record in sorted(ours.items()):
        if _is_template_of(base, name, record, server) and (record is None or record.key not in needed):
            if not server.try_lock(name):
                continue  # it is being made
            try:
                server.drop_template(name)
            finally:
                server.unlock(name)
            yield name


def _is_template_of(base: str, name: str, record: Record | None, server: Server) -> bool:
    if record is not None:
        return record.kind == "template" and record.base == base
    return name == naming.template_name(base, name.rpartition("_")[2], server.limit)
