"""Views and PostgreSQL's enums, which Alembic compares as little as it does check constraints by itself."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from alembic.autogenerate import renderers
from alembic.operations.ops import MigrateOperation
from alembic.runtime.plugins import Plugin
from alembic.util import DispatchPriority, PriorityDispatchResult
from sqlalchemy import Enum, MetaData, inspect
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.types import ARRAY

from stillroom.models import view_sql, views_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from alembic.autogenerate.api import AutogenContext
    from alembic.operations.ops import UpgradeOps
    from sqlalchemy import Connection

    from stillroom.models import View

    from .owned import Owned

__all__ = ["PLUGINS", "Statement", "native_enum"]

PLUGINS = ["alembic.autogenerate.*", "alembic.ext.checkconstraint_byname", "stillroom.comparing"]
"""What Alembic compares with, as its option `autogenerate_plugins`."""

OWNED = "stillroom_owned"
"""The option that carries which objects are ours."""


_PARAMETER, _ESCAPED = re.compile(r"(?<![:\w\\]):(?=\w)"), r"\\:"
"""A colon before a word would be a parameter of the statement."""


class Statement(MigrateOperation):
    """
    A statement of a revision, and the one that undoes it.

    Args:
        kind: What it does, such as "add_view".
        name: What it does that with.
        up: The statements.
        down: Those that undo it.
        refused: Why it cannot be written without its author; empty where it can.
    """

    def __init__(self, kind: str, name: str, up: Sequence[str], down: Sequence[str], refused: str = "") -> None:
        self.kind = kind
        self.name = name
        self.up = tuple(up)
        self.down = tuple(down)
        self.refused = refused

    def reverse(self) -> Statement:
        return Statement(f"undo_{self.kind}", self.name, self.down, self.up)

    def to_diff_tuple(self) -> tuple[Any, ...]:
        return self.kind, self


@renderers.dispatch_for(Statement)
def _rendered(context: AutogenContext, operation: Statement) -> list[str]:
    return [f"op.execute({_PARAMETER.sub(_ESCAPED, each)!r})" for each in operation.up]


def _quoted(connection: Connection, schema: str | None, name: str) -> str:
    """
    Return a name as a revision has it.
    """
    # Drivers whose parameters are written with a percent sign would have each of them doubled, and twice in the end.
    make: Any = type(connection.dialect)
    quote = make(paramstyle="named").identifier_preparer.quote
    return ".".join(quote(each) for each in (schema, name) if each is not None)


# --- enums


def native_enum(kind: Any) -> Enum | None:
    """
    Return the enum that a column's type is, or is an array of, if the server has a type for it.
    """
    if isinstance(kind, ARRAY):
        kind = kind.item_type
    return kind if isinstance(kind, Enum) and kind.native_enum and kind.name else None


def _compare_enums(
    context: AutogenContext, operations: UpgradeOps, schemas: Sequence[str | None]
) -> PriorityDispatchResult:
    connection, metadata = context.connection, context.metadata
    if connection is None or not isinstance(metadata, MetaData):
        return PriorityDispatchResult.CONTINUE
    default = connection.dialect.default_schema_name
    wanted: dict[tuple[str | None, str], list[str]] = {}
    for each in _enums(metadata):
        wanted[each.schema or default, str(each.name)] = list(each.enums)
    inspector: Any = inspect(connection)
    there = {(each["schema"], each["name"]): list(each["labels"]) for each in inspector.get_enums(schema="*")}
    owned: Owned | None = context.opts.get(OWNED)
    for key, values in wanted.items():
        schema, name = key
        full = _quoted(connection, None if schema == default else schema, name)
        if key not in there:
            operations.ops.insert(0, _new_enum("add_enum", name, full, values))
        elif there[key] != values:
            operations.ops.insert(0, _changed_enum(name, full, there[key], values))
    for (schema, name), values in there.items():
        ours = owned is not None and name in owned.named and schema in {default, *schemas}
        if ours and (schema, name) not in wanted:
            full = _quoted(connection, None if schema == default else schema, name)
            operations.ops.append(_new_enum("", name, full, values).reversed_as("remove_enum"))
    return PriorityDispatchResult.CONTINUE


class _Made(Statement):
    """
    The making of something, which can be its removal too.
    """

    def reversed_as(self, kind: str) -> Statement:
        """
        Return the removal.
        """
        return Statement(kind, self.name, self.down, self.up)


def _new_enum(kind: str, name: str, full: str, values: Sequence[str]) -> _Made:
    listed = ", ".join(map(_literal, values))
    return _Made(kind, name, [f"CREATE TYPE {full} AS ENUM ({listed})"], [f"DROP TYPE {full}"])


def _changed_enum(name: str, full: str, there: Sequence[str], wanted: Sequence[str]) -> Statement:
    if gone := [each for each in there if each not in wanted]:
        reason = (
            f"the enum {name!r} would lose {', '.join(map(repr, gone))}, and what becomes of the rows that have it is "
            "for you to say: write that revision by hand (rename the type, make it anew, alter the columns with USING)"
        )
        return Statement("modify_enum", name, (), (), reason)
    up, before = [], ""
    for each in wanted:
        if each not in there:
            where = f" AFTER {_literal(before)}" if before else f" BEFORE {_literal(there[0])}" if there else ""
            up.append(f"ALTER TYPE {full} ADD VALUE IF NOT EXISTS {_literal(each)}{where}")
        before = each
    if not up:
        reason = f"the enum {name!r} has its values in another order, which PostgreSQL cannot change"
        return Statement("modify_enum", name, (), (), reason)
    return Statement("modify_enum", name, up, ())  # a value cannot be taken away again


def _enums(metadata: MetaData) -> Iterator[Enum]:
    for table in metadata.tables.values():
        for column in table.columns:
            found = native_enum(column.type)
            if found is not None:
                yield found


def _literal(value: str) -> str:
    doubled = value.replace("'", "''")
    return f"'{doubled}'"


# --- views


def _compare_views(
    context: AutogenContext, operations: UpgradeOps, schemas: Sequence[str | None]
) -> PriorityDispatchResult:
    connection, metadata = context.connection, context.metadata
    if connection is None or not isinstance(metadata, MetaData):
        return PriorityDispatchResult.CONTINUE
    owned: Owned | None = context.opts.get(OWNED)
    inspector: Any = inspect(connection)
    wanted = {(each.schema, each.name): each for each in views_of(metadata)}
    schemas = [*{*schemas, *(schema for schema, _ in wanted)}]
    there = {(schema, name) for schema in schemas for name in inspector.get_view_names(schema=schema)}
    for key, each in wanted.items():
        name, text = view_sql(each, connection.dialect)
        made = _Made("add_view", each.name, [f"CREATE VIEW {name} AS {text}"], [f"DROP VIEW {name}"])
        if key not in there:
            operations.ops.append(made)
        elif (old := _changed_view(connection, inspector, each, name, text)) is not None:
            up, down = [*made.down, *made.up], [*made.down, f"CREATE VIEW {name} AS {old}"]
            operations.ops.append(Statement("modify_view", each.name, up, down))
    for schema, view in there - wanted.keys():
        if owned is not None and view in owned.named:
            name = _quoted(connection, schema, view)
            old = _definition(inspector, schema, view)
            drop = Statement("remove_view", view, [f"DROP VIEW {name}"], [f"CREATE VIEW {name} AS {old}"])
            operations.ops.insert(0, drop)  # before the tables that it looks at
    return PriorityDispatchResult.CONTINUE


def _changed_view(connection: Connection, inspector: Any, view: View, name: str, text: str) -> str | None:
    """
    Return what a view shows now, if that is something else than it should.
    """
    old = _definition(inspector, view.schema, view.name)
    if connection.dialect.name == "postgresql":
        return None if _as_postgresql_writes(connection, text) == old else old
    if connection.dialect.name == "sqlite":
        return None if " ".join(text.split()) == " ".join(old.split()) else old
    return None  # MariaDB keeps a text of its own, and only a view of its own could tell


def _definition(inspector: Any, schema: str | None, name: str) -> str:
    text = str(inspector.get_view_definition(name, schema=schema)).strip().removesuffix(";")
    return re.sub(r"^\s*create\s+.*?\bview\s+\S+\s+as\s+", "", text, flags=re.IGNORECASE | re.DOTALL)


def _as_postgresql_writes(connection: Connection, text: str) -> str:
    """
    Let the server write a query as it writes that of a view; nothing where the query does not fit the tables yet.
    """
    with suppress(SQLAlchemyError), connection.engine.connect() as plain:
        other = plain.execution_options(isolation_level="AUTOCOMMIT", no_parameters=True)
        other.exec_driver_sql(f"CREATE TEMPORARY VIEW stillroom_compared AS {text}")
        try:
            found = other.exec_driver_sql("SELECT pg_get_viewdef('stillroom_compared'::regclass)").scalar()
        finally:
            other.exec_driver_sql("DROP VIEW stillroom_compared")
        return str(found).strip().removesuffix(";")
    return ""


_plugin = Plugin("stillroom.comparing")
_plugin.add_autogenerate_comparator(_compare_enums, "schema", qualifier="postgresql", priority=DispatchPriority.LAST)
for _dialect in ("postgresql", "sqlite", "mysql", "mariadb"):
    _plugin.add_autogenerate_comparator(_compare_views, "schema", qualifier=_dialect, priority=DispatchPriority.LAST)
