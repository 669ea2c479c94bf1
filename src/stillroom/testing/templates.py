"""Templates: a database at its newest revision and with its seeds, made once and copied from then on."""

from __future__ import annotations

from dataclasses import dataclass
from graphlib import TopologicalSorter
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy.schema import CreateSchema

from stillroom import Databases

from .connection import Line, seeded
from .errors import TestingError
from .fingerprint import fingerprint
from .guard import sqlite_path
from .naming import base_name, template_name
from .provisioning.base import Record

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import URL, Connection

    from stillroom import Database, DatabaseSettings, Settings

    from .options import Schema, TestOptions
    from .provisioning.base import Server

__all__ = ["Target", "Template", "has_revisions", "schema_of", "targets"]

_ATTEMPTS = 5
"""How often a template may be taken away, by somebody who cleans up or wants a fresh one, while it is copied."""


@dataclass(frozen=True)
class Target:
    """
    One test database: for one database of the settings, or for several that are one and the same on the server.

    Attributes:
        members: Their names, each after those that it depends on.
        base: What the names of its test databases begin with.
    """

    members: tuple[str, ...]
    base: str

    @property
    def name(self) -> str:
        """
        The name of the first.
        """
        return self.members[0]


def targets(settings: Settings, options: TestOptions) -> list[Target]:
    """
    Return the test databases that settings need, each after those that it depends on.
    """
    graph = {name: each.depends_on for name, each in settings.databases.items()}
    order = [str(name) for name in TopologicalSorter(graph).static_order()]
    groups: dict[Any, list[str]] = {}
    for name in order:
        groups.setdefault(_place(name, settings[name]), []).append(name)
    return [Target(tuple(members), _base(members[0], settings[members[0]], options)) for members in groups.values()]


def _place(name: str, settings: DatabaseSettings) -> Any:
    """
    Say where a database is; a database in memory is a place of its own.
    """
    url = settings.url
    if settings.backend == "sqlite":
        path = sqlite_path(url)
        return name if path is None else path.resolve()
    return settings.backend, url.host, url.port, url.database, tuple(sorted(url.query.items()))


def _base(name: str, settings: DatabaseSettings, options: TestOptions) -> str:
    path = sqlite_path(settings.url) if settings.backend == "sqlite" else None
    database = settings.url.database if settings.backend != "sqlite" else name if path is None else path.stem
    return base_name(name, options.prefix, str(database))


def has_revisions(settings: DatabaseSettings) -> bool:
    """
    Say whether the settings name a directory with a revision in it.
    """
    return settings.migrations is not None and any(Path(settings.migrations, "versions").rglob("*.py"))


def schema_of(name: str, settings: DatabaseSettings, options: TestOptions) -> Schema:
    """
    Return where the tables of a database come from.
    """
    return options.schema.get(name) or ("migrations" if has_revisions(settings) else "create_all")


class Template:
    """
    The template of one target, found or made on a server.

    Args:
        databases: The application's.
        target: Which of them.
        server: Where.
        options: The run's.
        made: The test databases of this run that there are already, and the keys of their templates, by name.
    """

    def __init__(
        self,
        databases: Databases,
        target: Target,
        server: Server,
        options: TestOptions,
        made: Mapping[str, tuple[URL, str]],
    ) -> None:
        # As they are now: the application's are led to the test databases later.
        self.settings = databases.settings
        self.target = target
        self.server = server
        self.options = options
        self.made = made
        facts = [*server.facts(), *(made[name][1] for name in self._dependencies() if name in made)]
        keys = [fingerprint(databases[name], self._schema(name), self._seeds(name), facts) for name in target.members]
        self.key = keys[0] if len(keys) == 1 else _joined(keys)
        self.name = template_name(target.base, self.key, server.limit)

    def _schema(self, name: str) -> Schema:
        return schema_of(name, self.settings[name], self.options)

    def _seeds(self, name: str) -> Any:
        return tuple(self.options.seeds.get(name, ()))

    def _dependencies(self) -> list[str]:
        """
        List all that the members depend on, in order.
        """
        found: dict[str, None] = {}
        left = list(self.target.members)
        while left:
            name = left.pop()
            for each in self.settings[name].depends_on:
                if each not in found and each not in self.target.members:
                    found[each] = None
                    left.append(each)
        return sorted(found)

    def copy_to(self, name: str, record: Record) -> None:
        """
        Make a database from the template, which is made first where it is missing.

        Raises:
            TestingError: Somebody takes the template away, or makes it anew, again and again.
        """
        for _ in range(_ATTEMPTS):
            source = self.ensure()
            try:
                self.server.copy(self.name, name, record)
            except Exception:
                if self.server.template(self.name) == source:
                    raise
            else:  # MariaDB copies table by table, and some may be those of a template that is being made anew
                if self.server.template(self.name) == source:
                    return
        raise TestingError(
            f"the template {self.name!r} of the database {self.target.name!r} was dropped or made anew "
            f"{_ATTEMPTS} times while it was copied; let whoever cleans up the test databases end, then try again"
        )

    def ensure(self) -> Record:
        """
        Make the template if it is missing, not finished, or of another run where this one wants fresh ones.

        Returns:
            The note on it.
        """
        if (found := self._found()) is not None:
            return found
        with self.server.locked(self.name):
            if (found := self._found()) is not None:
                return found
            self.options.notice(f"{self.target.name}: making the template {self.name!r}")
            record = Record("template", self.target.base, self.key, run=self.options.run)
            self.server.make_template(self.name, record, self._build)
            return record

    def _found(self) -> Record | None:
        record = self.server.template(self.name)
        if record is None or record.key != self.key or (self.options.fresh and record.run != self.options.run):
            return None
        return record

    def _build(self, url: URL) -> None:
        with Databases(self._redirected(url)) as databases:
            for name in self.target.members:
                self._make_schema(databases, name)
            for name in self.target.members:
                seeded(databases[name], self._seeds(name))

    def _redirected(self, url: URL) -> Settings:
        """
        Return settings in which there is nothing but the database being made, and those of this run it depends on.
        """
        settings = self.settings
        for name in self._dependencies():
            if name in self.made:
                settings = settings.replace(name, url=self.made[name][0])
        for name in self.target.members:
            # Not as a logger: one cannot be the default, and alone it is.
            settings = settings.replace(name, url=url, pooler=False, verify_commit=False, role=None)
        known = {*self._dependencies(), *self.target.members}
        kept = {name: each for name, each in settings.databases.items() if name in known}
        return msgspec.structs.replace(settings, databases=kept, default=self.target.name)

    def _make_schema(self, databases: Databases, name: str) -> None:
        schema = self._schema(name)
        if schema == "migrations":
            from stillroom import migrations

            silent = migrations.Options(wait=self.options.wait, notice=self.options.notice)
            migrations.upgrade(databases, name, "heads", options=silent)
        elif schema == "create_all":
            _create_all(databases[name])


def _create_all(database: Database) -> None:
    metadata = database.metadata

    def work(connection: Connection) -> None:
        if connection.dialect.name == "postgresql":  # elsewhere a schema is another database
            for schema in sorted({table.schema for table in metadata.tables.values() if table.schema}):
                connection.execute(CreateSchema(schema, if_not_exists=True))
        metadata.create_all(connection)

    if metadata.tables:
        with Line.to(database.settings, database.settings.url, database.name, database.application) as line:
            line.run(work)


def _joined(keys: list[str]) -> str:
    return sha256("".join(keys).encode()).hexdigest()
