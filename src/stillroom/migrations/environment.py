"""What takes the place of `env.py`: it tells Alembic about one database, from the settings alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from alembic import context
from sqlalchemy.types import TypeEngine

from stillroom import models

from .chain import TASK, Chain
from .comparing import OWNED, PLUGINS, native_enum
from .connecting import exclusive, with_engine
from .errors import MigrationError
from .options import Options
from .owned import Owned

if TYPE_CHECKING:
    from collections.abc import Callable

    from alembic.autogenerate.api import AutogenContext
    from alembic.runtime.migration import MigrationInfo
    from sqlalchemy import Connection, Engine

    from stillroom import Databases

__all__ = ["Task", "comparing", "run_env", "run_task"]


def _nothing(revision: str) -> None:
    """
    Do nothing about a revision that ran.
    """


@dataclass
class Task:
    """
    What Alembic's environment is to do.

    Attributes:
        chain: The revisions of which database.
        connection: The connection that migrates; None writes SQL instead.
        compares: The models are needed.
        revision_done: Is called inside the transaction of each revision, after it.
    """

    chain: Chain
    connection: Connection | None = None
    compares: bool = False
    revision_done: Callable[[str], None] = field(default=_nothing)


def run_task() -> None:
    """
    Do the task that Alembic's configuration carries; called from the environment.
    """
    _run(context.config.attributes[TASK])


def run_env(databases: Databases, name: str) -> None:
    """
    Be the `env.py` of a directory that is used with the command `alembic` as well.

    The file is then two lines long: the import of the databases, and this call.

    Args:
        databases: The application's; configured from its files if they are not yet.
        name: The database that the directory is for.
    """
    if not databases.is_configured:
        databases.configure()
    chain = Chain(databases[name])
    if context.is_offline_mode():
        _run(Task(chain))
        return
    options = Options()

    def work(engine: Engine) -> None:
        with exclusive(engine, chain, options) as connection:
            chain.log.prepare(connection)
            _run(Task(chain, connection, compares=True))

    with_engine(chain.database, options.lock_timeout, work)


def _run(task: Task) -> None:
    database, connection = task.chain.database, task.connection
    broken = _broken_references(connection)

    def note(*, ctx: Any, step: MigrationInfo, **_: Any) -> None:
        if connection is None:
            return
        new = _broken_references(connection) - broken
        if new:
            raise MigrationError(f"rows would refer to rows that do not exist: {', '.join(sorted(new))}")
        task.chain.log.record(connection, context.script, step)
        task.revision_done(", ".join(step.up_revision_ids))

    keywords: dict[str, Any] = {"transaction_per_migration": True, "on_version_apply": note, **task.chain.tables}
    if database.backend.name == "sqlite":
        keywords["transactional_ddl"] = True  # unlike the driver's own transactions, ours are real
    if task.compares:
        keywords |= {"target_metadata": database.metadata} | comparing(task.chain)
    if connection is None:
        # A percent sign would be doubled for drivers that write parameters with one.
        keywords |= {"dialect_opts": {"paramstyle": "named"}, "literal_binds": True}
        context.configure(dialect_name=database.settings.url.get_backend_name(), **keywords)
    else:
        connection.commit()  # Alembic leaves a transaction that it finds open to its owner, and commits nothing
        context.configure(connection=connection, **keywords)
    with context.begin_transaction():
        context.run_migrations()


def comparing(chain: Chain) -> dict[str, Any]:
    """
    Return the options with which Alembic compares the models of a database with its tables.
    """
    owned = Owned(chain)
    return {
        **chain.tables,
        "autogenerate_plugins": PLUGINS,
        OWNED: owned,
        "include_object": owned.include_object,
        "include_name": owned.include_name,
        "include_schemas": owned.schemas - {None} != set(),
        "render_item": _render,
        "render_as_batch": chain.database.backend.name == "sqlite",  # which alters little in place
    }


def _render(kind: str, thing: Any, autogenerate: AutogenContext) -> str | bool:
    """
    Let the revision import the module of a type that is not SQLAlchemy's; Alembic writes its name alone.

    Of our own types the public name is written: a revision lives for ever, and the modules below it may be moved.

    PostgreSQL's enums are made by a statement of their own: made with a table, one that two tables have would be made
    twice, one of a new column not at all, and one of a dropped table would stay.
    """
    module = type(thing).__module__
    public = kind == "type" and getattr(models, type(thing).__name__, None) is type(thing)
    autogenerate.opts["user_module_prefix"] = f"{models.__name__}." if public else None  # asked for after this
    if kind == "type" and getattr(autogenerate.dialect, "name", "") == "postgresql":
        enum = native_enum(thing) if module.startswith("sqlalchemy.") and not hasattr(thing, "item_type") else None
        if enum is not None:
            autogenerate.imports.add("from sqlalchemy.dialects import postgresql")
            schema = f", schema={enum.schema!r}" if enum.schema else ""
            return f"postgresql.ENUM({', '.join(map(repr, enum.enums))}, name={enum.name!r}{schema}, create_type=False)"
    if isinstance(thing, TypeEngine) and module.partition(".")[0] != "sqlalchemy":
        autogenerate.imports.add(f"import {models.__name__ if public else module}")
    return False


def _broken_references(connection: Connection | None) -> set[str]:
    """
    Find the rows of an SQLite database that refer to nothing: nobody else checks while tables are made anew.
    """
    if connection is None or connection.dialect.name != "sqlite":
        return set()
    rows = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
    return {f"row {row[1]} of {row[0]!r} to {row[2]!r}" for row in rows}
