"""What is in a database, so that two moments can be compared: tables and all that hangs on them, and what is beside."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from sqlalchemy import inspect, text
from sqlalchemy.exc import CompileError, SAWarning

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from sqlalchemy import Connection, Inspector

__all__ = ["Parts", "Snapshot", "differences", "snapshot"]

Snapshot = dict[tuple[str, str, str], str]
"""By kind, table (empty for what has none) and name: what it is."""

Parts = dict[tuple[str, str], list[tuple[str, str, str]]]
"""Kind, name and what it is of all that hangs on a table, by the table and the statements that made it."""

# Kind, table, name, what it is.
_BESIDE = {
    "postgresql": """
with o as (select oid, case when nspname = current_schema() then '' else nspname || '.' end as prefix, nspname
           from pg_namespace where nspname <> 'information_schema' and nspname !~ '^pg_'),
     t as (select c.oid, o.prefix || c.relname as name from pg_class c join o on o.oid = c.relnamespace)
select 'function', '', o.prefix || p.proname || '(' || pg_get_function_identity_arguments(p.oid) || ')', p.prosrc
from pg_proc p join o on o.oid = p.pronamespace
where not exists (select from pg_depend d where d.objid = p.oid and d.deptype = 'e')
union all
select 'sequence', '', t.name, '' from t join pg_class c on c.oid = t.oid
where c.relkind = 'S' and not exists (select from pg_depend d where d.objid = c.oid and d.deptype in ('a', 'i'))
union all
select 'trigger', t.name, g.tgname, pg_get_triggerdef(g.oid)
from pg_trigger g join t on t.oid = g.tgrelid where not g.tgisinternal
union all
select 'policy', t.name, p.polname, coalesce(pg_get_expr(p.polqual, p.polrelid), '')
from pg_policy p join t on t.oid = p.polrelid
union all
select 'extension', '', extname, extversion from pg_extension
""",
    "mysql": """
select lower(routine_type), '', routine_name, routine_definition from information_schema.routines
where routine_schema = database()
union all
select 'trigger', event_object_table, trigger_name, action_statement from information_schema.triggers
where trigger_schema = database()
""",
    "sqlite": """
select type, tbl_name, name, sql from sqlite_master where type in ('trigger', 'index') and sql is not null
""",
}


def snapshot(connection: Connection, without: Collection[str] = (), known: Parts | None = None) -> Snapshot:
    """
    Read what is in a database, and end the transaction.

    Args:
        connection: To the database.
        without: Names of tables that do not count.
        known: What was read before, so that it is not read again; filled here.
    """
    found: Snapshot = {}
    known = {} if known is None else known
    inspector = inspect(connection)
    default = inspector.default_schema_name
    several = connection.dialect.name == "postgresql"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SAWarning)  # an index on an expression is not read whole everywhere
        for schema in _schemas(inspector) if several else [None]:
            prefix = "" if schema in (None, default) else f"{schema}."
            if prefix:
                found["schema", "", str(schema)] = ""
            for table in inspector.get_table_names(schema):
                if table not in without:
                    found["table", f"{prefix}{table}", ""] = ""
            for table, parts in _parts(connection, inspector, schema, known):
                if table not in without:
                    found |= {(kind, f"{prefix}{table}", name): what for kind, name, what in parts}
            for view in inspector.get_view_names(schema):
                found["view", "", f"{prefix}{view}"] = _words(inspector.get_view_definition(view, schema))
        if several:
            found |= _types(inspector)
    for kind, table, name, what in connection.execute(text(_BESIDE[_family(connection)])):
        if table not in without:  # what is read in more detail stays as it is
            found.setdefault((kind, table, name), _words(what))
    connection.rollback()
    return found


def differences(before: Snapshot, after: Snapshot) -> list[str]:
    """
    Say what is in `after` that was not in `before`, what is not any more, and what is another.
    """
    found = []
    for key in sorted({*before, *after}):
        kind, table, name = key
        whole = ("table", table, "")
        if key != whole and table and (whole in before) != (whole in after):
            continue  # went or came with its table
        said = f"{kind} {table}.{name}" if table and name else f"{kind} {table or name}"
        if key not in before:
            found.append(f"{said} was not there before")
        elif key not in after:
            found.append(f"{said} is gone")
        elif before[key] != after[key]:
            found.append(f"{said} was {before[key]!r} and is {after[key]!r}")
    return found


def _family(connection: Connection) -> str:
    return "mysql" if connection.dialect.name in ("mysql", "mariadb") else connection.dialect.name


def _schemas(inspector: Inspector) -> list[str]:
    return [name for name in inspector.get_schema_names() if name != "information_schema" and name[:3] != "pg_"]


def _words(value: Any) -> str:
    return " ".join(str(value or "").split())


def _parts(
    connection: Connection, inspector: Inspector, schema: str | None, known: Parts
) -> Iterator[tuple[str, list[tuple[str, str, str]]]]:
    """
    Yield what hangs on each table: kind, name, what it is. The order of columns does not count.
    """
    texts = _texts(connection)
    if texts is not None:
        for table, text_ in texts.items():
            if (table, text_) not in known:
                known[table, text_] = next(_read(inspector, connection, None, [table]))[1]
            yield table, known[table, text_]
    else:
        yield from _read(inspector, connection, schema, None)


def _texts(connection: Connection) -> dict[str, str] | None:
    """
    Return the statements by which SQLite remembers each table and its indexes, for there reading more is slow.
    """
    if connection.dialect.name != "sqlite":
        return None
    rows = connection.exec_driver_sql(
        "select tbl_name, group_concat(coalesce(sql, name), char(10)) from (select * from sqlite_master order by name) "
        "where tbl_name in (select name from sqlite_master where type = 'table' and name not like 'sqlite\\_%' "
        "escape '\\') group by tbl_name"
    )
    return {row[0]: row[1] for row in rows}


def _read(
    inspector: Inspector, connection: Connection, schema: str | None, tables: list[str] | None
) -> Iterator[tuple[str, list[tuple[str, str, str]]]]:
    given: dict[str, Any] = {"schema": schema, "filter_names": tables}
    read: dict[str, Any] = {
        "column": inspector.get_multi_columns(**given),
        "primary key": inspector.get_multi_pk_constraint(**given),
        "foreign key": inspector.get_multi_foreign_keys(**given),
        "unique constraint": inspector.get_multi_unique_constraints(**given),
        "check constraint": inspector.get_multi_check_constraints(**given),
        "index": inspector.get_multi_indexes(**given),
    }
    for key in read["column"]:
        parts: list[tuple[str, str, str]] = []
        for kind, of_all in read.items():
            of = of_all.get(key) or []
            every = [of] if isinstance(of, dict) else of
            parts += [
                (kind, *_part(kind, dict(each), connection))
                for each in every
                if kind != "primary key" or each["constrained_columns"]
            ]
        yield key[1], parts


def _part(kind: str, of: dict[str, Any], connection: Connection) -> tuple[str, str]:
    """
    Return the name of a part, and what it is.
    """
    if kind == "column":
        try:
            type_ = of["type"].compile(connection.dialect)
        except CompileError:
            type_ = repr(of["type"])
        extra = {key: of[key] for key in ("default", "computed", "identity", "comment") if of.get(key)}
        return of["name"], f"{type_}{'' if of['nullable'] else ' not null'}{f' {extra}' if extra else ''}"
    what = str({key: of[key] for key in sorted(of) if of[key] and key not in ("name", "duplicates_index")})
    return str(of.get("name") or what), what


def _types(inspector: Inspector) -> Snapshot:
    """
    Read what PostgreSQL has beside tables and views.
    """
    known: Any = inspector
    found: Snapshot = {}
    for schema in _schemas(inspector):
        for view in inspector.get_materialized_view_names(schema):
            found["materialized view", "", f"{schema}.{view}"] = _words(inspector.get_view_definition(view, schema))
        for each in known.get_enums(schema):
            found["type", "", f"{schema}.{each['name']}"] = ", ".join(each["labels"])
        for each in known.get_domains(schema):
            found["type", "", f"{schema}.{each['name']}"] = str(
                {key: each[key] for key in ("type", "nullable", "default")}
            )
    return found
