"""Reads what Alembic's operations do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from alembic.ddl.postgresql import CreateExcludeConstraintOp
from alembic.operations import ops
from sqlalchemy import CheckConstraint
from sqlalchemy.exc import SQLAlchemyError

from .actions import Action, key
from .statements import read_sql, volatile
from .types import is_safe, written

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from alembic.operations.ops import MigrateOperation
    from sqlalchemy import Column
    from sqlalchemy.engine import Dialect

__all__ = ["read"]

WIDE = 3
"""More columns than this make an index that is seldom used as a whole."""

_NAMED = ("table_name", "index_name", "constraint_name", "new_table_name", "modify_name")


def read(operation: MigrateOperation | None, dialect: Dialect, sql: str) -> Iterator[Action]:
    """
    Say what an operation does.

    Args:
        operation: Alembic's, or one that somebody added to it; None where SQL was sent without one.
        dialect: Of the database.
        sql: What the operation would send; only operations that nobody knows are read from it.
    """
    if isinstance(operation, ops.ExecuteSQLOp):
        yield from read_sql(_sql(operation.sqltext, dialect), dialect.name)
        return
    if isinstance(operation, ops.BulkInsertOp):
        table = key(operation.table.name, getattr(operation.table, "schema", None))
        yield Action("data", table, "insert", text=f"bulk insert into {table}")
        return
    reader = next((reader for kind, reader in _READERS if isinstance(operation, kind)), None)
    if reader is not None:
        yield from reader(operation, dialect)
    elif sql.strip():
        yield from read_sql(sql, dialect.name)


def _sql(sql: Any, dialect: Dialect) -> str:
    if isinstance(sql, str):
        return sql
    try:
        return str(sql.compile(dialect=dialect))
    except SQLAlchemyError:
        return str(sql)


def _options(operation: Any, dialect: Dialect, **names: str) -> set[str]:
    """
    Return the flags whose option is set, by flag and the option's name without the dialect's.
    """
    prefixes = ("mysql", "mariadb") if dialect.name in ("mysql", "mariadb") else (dialect.name,)
    given = operation.kw or {}
    return {flag for flag, name in names.items() if any(given.get(f"{prefix}_{name}") for prefix in prefixes)}


def _action(operation: Any, kind: str, name: str = "", other: str = "", **more: Any) -> Action:
    table = key(
        getattr(operation, "table_name", None) or getattr(operation, "source_table", None),
        getattr(operation, "schema", None) or (getattr(operation, "kw", None) or {}).get("source_schema"),
    )
    names = [getattr(operation, each, None) for each in _NAMED] + list(more.pop("names", ()))
    text = " ".join(filter(None, [kind.replace("_", " "), name, table and f"on {table}" if name else table]))
    flags = frozenset(more.pop("flags", ()))
    given = tuple(str(each) for each in names if each)
    return Action(kind, table, str(name or ""), other, flags, names=given, text=text, **more)


def _create_table(operation: ops.CreateTableOp, dialect: Dialect) -> Iterator[Action]:
    table = operation.to_table()
    flags = {flag for column in table.columns for flag in _of_type(column, dialect)}
    if any(_is_narrow(column, dialect) for column in table.primary_key.columns):
        flags.add("int_key")
    charset = next((str(value) for name, value in operation.kw.items() if name.endswith("_charset")), "")
    if charset.lower() in ("utf8", "utf8mb3"):
        flags.add("utf8mb3")
    names = [each.name for each in (*table.columns, *table.constraints, *table.indexes) if isinstance(each.name, str)]
    yield _action(operation, "create_table", flags=flags, names=names, columns=tuple(table.columns.keys()))


def _of_type(column: Column[Any], dialect: Dialect) -> set[str]:
    kind = written(column.type, dialect).upper()
    flags = set()
    if kind == "JSON":
        flags.add("json")
    if dialect.name == "postgresql" and kind.startswith("TIMESTAMP") and "WITH TIME ZONE" not in kind:
        flags.add("naive")
    return flags


def _is_narrow(column: Column[Any], dialect: Dialect) -> bool:
    return written(column.type, dialect).upper().split("(")[0] in ("INTEGER", "SMALLINT", "SERIAL", "SMALLSERIAL")


def _add_column(operation: ops.AddColumnOp, dialect: Dialect) -> Iterator[Action]:
    column = operation.column
    flags = _of_type(column, dialect)
    default = _default(column, dialect)
    if column.identity is not None or column.autoincrement is True or "SERIAL" in written(column.type, dialect):
        flags.add("autoincrement")
    if not column.nullable and not default and column.computed is None and "autoincrement" not in flags:
        flags.add("required")
    if default and volatile(default, dialect.name):
        flags.add("volatile")
    if column.default is not None and not default:
        flags.add("python_default")
    # Where the revision does not say, PostgreSQL's are stored up to version 17, and MariaDB's are virtual.
    computed = column.computed
    if computed is not None and (computed.persisted or (computed.persisted is None and dialect.name == "postgresql")):
        flags.add("stored")
    if column.foreign_keys:
        flags.add("fk")
    if column.unique:
        flags.add("unique")
    yield _action(operation, "add_column", str(column.name), flags=flags, names=[column.name])
    for _ in (each for each in column.constraints if isinstance(each, CheckConstraint)):
        yield _action(operation, "add_check", f"of {column.name}")
    if column.index and not column.unique:
        yield _action(operation, "create_index", f"of {column.name}", statement="index")


def _default(column: Column[Any], dialect: Dialect) -> str:
    default = column.server_default
    if default is None or column.computed is not None or column.identity is not None:
        return ""
    argument = getattr(default, "arg", default)
    return "''" if isinstance(argument, str) else _sql(argument, dialect)  # a text is a value, not SQL


def _alter_column(operation: ops.AlterColumnOp, dialect: Dialect) -> Iterator[Action]:
    name = operation.column_name
    found = []
    if operation.modify_type is not None:
        old, new = written(operation.existing_type, dialect), written(operation.modify_type, dialect)
        backend = "postgresql" if dialect.name == "postgresql" else "mysql"
        using = _options(operation, dialect, using="using")
        flags = {"safe"} if is_safe(old, new, backend) and not using else set()
        what = f"from {old or 'a type that existing_type does not tell'} to {new}"
        found.append(_action(operation, "alter_type", name, what, flags=flags))
    if operation.modify_nullable is not None and operation.modify_nullable != operation.existing_nullable:
        found.append(_action(operation, "drop_not_null" if operation.modify_nullable else "set_not_null", name))
    if operation.modify_name:
        found.append(_action(operation, "rename_column", name, operation.modify_name))
    yield from found or [_action(operation, "alter_column", name)]


def _create_index(operation: ops.CreateIndexOp, dialect: Dialect) -> Iterator[Action]:
    flags = _options(operation, dialect, concurrently="concurrently")
    if operation.if_not_exists:
        flags.add("if_exists")
    if operation.unique:
        flags.add("unique")
    if len(operation.columns) > WIDE:
        flags.add("wide")
    prefix = (operation.kw or {}).get("mysql_prefix") or (operation.kw or {}).get("mariadb_prefix") or ""
    if prefix.upper() in ("FULLTEXT", "SPATIAL"):
        flags.add("blocking")
    yield _action(operation, "create_index", str(operation.index_name or ""), flags=flags)


def _drop_index(operation: ops.DropIndexOp, dialect: Dialect) -> Iterator[Action]:
    flags = _options(operation, dialect, concurrently="concurrently")
    yield _action(operation, "drop_index", str(operation.index_name), flags=flags)


def _add_constraint(operation: Any, dialect: Dialect) -> Iterator[Action]:
    kinds = {
        ops.CreateForeignKeyOp: "add_fk",
        ops.CreateCheckConstraintOp: "add_check",
        ops.CreateUniqueConstraintOp: "add_unique",
        ops.CreatePrimaryKeyOp: "add_primary_key",
        CreateExcludeConstraintOp: "add_exclusion",
    }
    kind = next((name for each, name in kinds.items() if isinstance(operation, each)), "add_constraint")
    condition = getattr(operation, "condition", "")
    flags = _options(operation, dialect, not_valid="not_valid")
    name = str(operation.constraint_name or "")
    yield _action(operation, kind, name, _sql(condition, dialect), flags=flags)


def _drop_constraint(operation: ops.DropConstraintOp, dialect: Dialect) -> Iterator[Action]:
    copies = operation.constraint_type == "primary" and dialect.name in ("mysql", "mariadb")
    yield _action(operation, "rewrite" if copies else "drop_constraint", str(operation.constraint_name or ""))


def _simple(kind: str, name: str = "", other: str = "") -> Callable[[Any, Dialect], Iterator[Action]]:
    def reader(operation: Any, dialect: Dialect) -> Iterator[Action]:
        schema = getattr(operation, "schema", None)
        yield _action(operation, kind, str(getattr(operation, name, "")), key(getattr(operation, other, ""), schema))

    return reader


_READERS: list[tuple[type, Callable[[Any, Dialect], Iterator[Action]]]] = [
    (ops.CreateTableOp, _create_table),
    (ops.DropTableOp, _simple("drop_table")),
    (ops.RenameTableOp, _simple("rename_table", other="new_table_name")),
    (ops.AddColumnOp, _add_column),
    (ops.AlterColumnOp, _alter_column),
    (ops.DropColumnOp, _simple("drop_column", "column_name")),
    (ops.CreateIndexOp, _create_index),
    (ops.DropIndexOp, _drop_index),
    (ops.DropConstraintOp, _drop_constraint),
    (ops.AddConstraintOp, _add_constraint),
    (ops.CreateTableCommentOp, _simple("comment")),
    (ops.DropTableCommentOp, _simple("comment")),
]
