"""A throwaway database that is walked through its revisions, one at a time, in one process."""

from __future__ import annotations

import io
import traceback
from contextlib import ExitStack, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, NoReturn
from uuid import uuid4

from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationStep
from sqlalchemy import URL
from sqlalchemy.exc import DBAPIError

from stillroom import Databases
from stillroom.migrations.chain import Chain, explained
from stillroom.migrations.connecting import exclusive, with_engine
from stillroom.migrations.environment import Task, run_task
from stillroom.migrations.options import Options
from stillroom.migrations.running import in_words
from stillroom.secrets import mask_text

from . import guard, naming
from .errors import TestingError
from .provisioning.providing import noted
from .schema_snapshot import Parts, Snapshot, differences, snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from alembic.config import Config
    from alembic.script import Script, ScriptDirectory
    from sqlalchemy import Connection, Engine

    from .options import TestOptions

    Hook = Callable[[Connection], None]

__all__ = ["History", "MigrationTestFailed", "Walk", "throwaway"]

LONGEST_NAME = 63
"""Bytes of a database's name that PostgreSQL allows; MariaDB allows one more."""
LONGEST_STATEMENT = 160
"""Characters of a statement that are shown."""


class MigrationTestFailed(TestingError, AssertionError):
    """
    A revision does not do what it should; the message names it and the database.
    """


@contextmanager
def throwaway(application: Databases, name: str, options: TestOptions, directory: Path) -> Iterator[Databases]:
    """
    Make an empty database beside the one of the settings, or a file, and drop it at the end.

    Args:
        application: The application's databases; only their settings are used.
        name: The database that it stands for.
        options: Which hosts are allowed.
        directory: Where files are put.

    Yields:
        Databases of which this one is the empty one.

    Raises:
        NotATestDatabase: It would be made where no tests may run.
    """
    settings = application.settings
    of = settings[name]
    url = of.migration_url or of.url
    if of.backend == "sqlite":
        url = URL.create(url.drivername, database=str(directory / f"{name}_test_{uuid4().hex[:8]}.db"))
    else:
        base = naming.base_name(name, options.prefix, url.database or name)
        url = url.set(database=naming.clone_name(base, f"migrations {uuid4().hex[:8]}", LONGEST_NAME))
    changed = settings.replace(
        name, url=url, admin_url=of.admin_url, replicas=None, migration_url=None, pooler=None, disposable=True
    )
    guard.check({name: changed[name]}, options)
    is_file = of.backend == "sqlite"
    made = nullcontext() if is_file else noted(application, name, options, str(url.database))
    with made as note, Databases(changed) as databases:
        databases[name].create()
        try:
            if note is not None:
                note()
            yield databases
        finally:
            databases[name].drop()


class History:
    """
    The revisions of one database, read once.

    Args:
        chain: The revisions, of the application's database.

    Attributes:
        scripts: The revisions, each after those that it stands on.
        known: What was read of tables; see `snapshot`.

    Raises:
        MigrationError: They do not hang together.
    """

    def __init__(self, chain: Chain) -> None:
        self.chain = chain
        self.directory = chain.script()
        self.known: Parts = {}
        with explained(chain.name):
            self.scripts: list[Script] = list(self.directory.walk_revisions())[::-1]
        self.positions = {script.revision: position for position, script in enumerate(self.scripts)}

    def offline(self, revision: str) -> str:
        """
        Return the SQL of a revision, written without a database.

        Raises:
            MigrationTestFailed: The revision asks the database.
        """
        script = self.scripts[self.positions[revision]]
        below = script.down_revision
        start = list(below) if isinstance(below, tuple | list) else below or "base"
        output = io.StringIO()

        def write(config: Config) -> None:
            _run(config, self.directory, script, up=True, as_sql=True, starting_rev=start)

        try:
            self.chain.command(write, Task(self.chain), output=output)
        except Exception as error:
            raise MigrationTestFailed(
                f"the SQL of revision {revision!r} of the database {self.chain.name!r} cannot be written without the "
                f"database{_where(error, script)}: {_said(error)}. It asks for something that only the database can "
                f"tell; if it must, say why: needs_database = {{{revision!r}: ...}}"
            ) from error
        return output.getvalue()


class Walk:
    """
    Brings a throwaway database from revision to revision, always forward, so each runs a few times only.

    Args:
        history: The revisions.
        make: Makes an empty database; see `throwaway`.
    """

    def __init__(self, history: History, make: Callable[[], AbstractContextManager[Databases]]) -> None:
        self.history = history
        self._name = history.chain.name
        self._make = make
        self._stack = ExitStack()
        self._databases: Databases | None = None
        self._done = 0
        self._impassable: dict[str, str] = {}

    def __repr__(self) -> str:
        return f"<Walk through {len(self.history.scripts)} revisions of {self._name!r}, {self._done} done>"

    def close(self) -> None:
        """
        Drop the database.
        """
        self._databases = None
        self._done = 0
        self._stack.close()

    def up_down_up(self, revision: str, *, reversible: bool = True) -> None:
        """
        Run a revision, undo it, and run it again; those before it are run where they are not yet.

        Args:
            revision: The revision.
            reversible: It can be undone; otherwise it is only run.

        Raises:
            MigrationTestFailed: It fails, or leaves something else than it found.
        """
        self._visit(revision, lambda visit: visit.up_down_up(reversible=reversible))

    def with_rows(self, revision: str, before: Hook | None, after: Hook | None, *, reversible: bool = True) -> None:
        """
        Run a revision over rows: what `before` does, up, what `after` does, down and up again.

        Args:
            revision: The revision.
            before: Puts rows into the tables as they are before it.
            after: Looks at what became of them.
            reversible: It can be undone; otherwise it is only run.

        Raises:
            MigrationTestFailed: It fails.
        """
        self._visit(revision, lambda visit: visit.with_rows(before, after, reversible=reversible))

    def _visit(self, revision: str, work: Callable[[_Visit], None]) -> None:
        position = self.history.positions[revision]
        for script in self.history.scripts[:position]:
            if script.revision in self._impassable:
                self._unreached(revision, self._impassable[script.revision])
        if self._done > position:
            self.close()
        if self._databases is None:
            self._databases = self._stack.enter_context(self._make())
        chain = Chain(self._databases[self._name])

        def visit(engine: Engine) -> None:
            visiting = _Visit(chain, self.history, revision, engine)
            for script in self.history.scripts[self._done : position]:
                try:
                    visiting.run(script, up=True)
                except MigrationTestFailed as error:
                    self._impassable[script.revision] = str(error)
                    self._unreached(revision, str(error))
            work(visiting)

        try:
            with_engine(chain.database, Options().lock_timeout, visit)
        except BaseException:
            self.close()  # whatever it left there
            raise
        self._done = position + 1

    def _unreached(self, revision: str, why: str) -> NoReturn:
        raise MigrationTestFailed(f"revision {revision!r} of the database {self._name!r} was not reached: {why}")


class _Visit:
    """
    One revision and the database below it.
    """

    def __init__(self, chain: Chain, history: History, revision: str, engine: Engine) -> None:
        self.chain = chain
        self.known = history.known
        self.directory = history.directory
        self.script = history.scripts[history.positions[revision]]
        self.engine = engine

    def up_down_up(self, *, reversible: bool) -> None:
        """
        Run, undo, run; compare what is there.
        """
        before = self.look()
        self.run(self.script, up=True)
        if not reversible:
            return
        there = self.look()
        self.run(self.script, up=False)
        self._compare(before, self.look(), "its downgrade leaves something else than its upgrade found")
        self.run(self.script, up=True, again=True)
        self._compare(there, self.look(), "after a downgrade its upgrade makes something else than the first time")

    def with_rows(self, before: Hook | None, after: Hook | None, *, reversible: bool) -> None:
        """
        Run with rows in the tables.
        """
        self._call(before)
        self.run(self.script, up=True)
        self._call(after)
        if reversible:
            self.run(self.script, up=False)
            self.run(self.script, up=True, again=True)

    def run(self, script: Script, *, up: bool, again: bool = False) -> None:
        """
        Run or undo one revision.

        Raises:
            MigrationTestFailed: It fails.
        """
        options = Options()
        try:
            with exclusive(self.engine, self.chain, options) as connection:
                self.chain.log.prepare(connection)
                self.chain.command(_run, Task(self.chain, connection), self.directory, script, up=up)
        except Exception as error:
            what = "upgrade" if up else "downgrade"
            raise MigrationTestFailed(
                f"the {what} of revision {script.revision!r} of the database {self.chain.name!r} failed"
                f"{' after its downgrade' if again else ''}{_where(error, script)}: {_said(error)}"
            ) from error

    def look(self) -> Snapshot:
        """
        Read what is there.
        """
        version_table = self.chain.database.settings.version_table or "alembic_version"
        with self.engine.connect() as connection:
            return snapshot(connection, {version_table, self.chain.log.table.name}, self.known)

    def _call(self, hook: Hook | None) -> None:
        if hook is None:
            return
        with self.engine.connect() as connection:
            if connection.dialect.name != "sqlite":
                connection.execution_options(isolation_level="READ COMMITTED")  # the engine's own is autocommit
            hook(connection)
            connection.commit()

    def _compare(self, before: Snapshot, after: Snapshot, what: str) -> None:
        found = differences(before, after)
        if found:
            raise MigrationTestFailed(
                f"revision {self.script.revision!r} of the database {self.chain.name!r}: {what}: {'; '.join(found)}"
            )


def _run(config: Config, directory: ScriptDirectory, script: Script, *, up: bool, **options: Any) -> None:
    """
    Run one revision with the revisions' files read already, and without a file of configuration.
    """
    make = MigrationStep.upgrade_from_script if up else MigrationStep.downgrade_from_script

    def steps(heads: Any, context: Any) -> list[Any]:
        return [make(directory.revision_map, script)]

    with EnvironmentContext(config, directory, fn=steps, **options):
        run_task()


def _said(error: BaseException) -> str:
    said = in_words(error)
    statement = " ".join((error.statement or "").split()) if isinstance(error, DBAPIError) else ""
    return f"{said} (at {mask_text(statement[:LONGEST_STATEMENT])!r})" if statement else said


def _where(error: BaseException, script: Script) -> str:
    """
    Return the line of the revision's file that an error comes from.
    """
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == script.path]
    return f" ({script.path}:{lines[-1]})" if lines else f" ({script.path})"
