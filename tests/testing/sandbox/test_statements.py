"""
What a statement means is told from its text: what reads, what writes, what is interpreted, what is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text

from stillroom.testing.errors import SandboxError
from stillroom.testing.sandbox.statements import parse

if TYPE_CHECKING:
    from tests.testing.sandbox.support import Setting


@pytest.mark.parametrize(
    "statement",
    [
        "select 1",
        "  -- a comment\n/* another */ SELECT * from t",
        "(select 1) union (select 2)",
        "with a as (select 1) select * from a",
        "values (1)",
        "show server_version",
        "explain select 1",
        "select 'insert into t'",
        "select 1; -- done",
        "select ';' /* of the shop; */;",
        'select "delete" from t',
        "select updated_at, insert_count from t",
        "pragma table_info(t)",
        "",
        ";",
    ],
)
def test_what_only_reads(statement: str) -> None:
    assert not parse(statement, "sqlite").writes


@pytest.mark.parametrize(
    "statement",
    [
        "insert into t values (1)",
        "update t set a = 1",
        "with a as (delete from t returning *) select * from a",
        "select * from t for update",
        "select * from t for no key update of t",
        "select * into u from t",
        "explain analyze delete from t",
        "create table t (a integer)",
        "call work()",
        "pragma user_version = 3",
        "copy t from stdin",
    ],
)
def test_what_writes(statement: str) -> None:
    assert parse(statement, "sqlite").writes


@pytest.mark.parametrize(
    ("statement", "action", "name"),
    [
        ("BEGIN", "begin", ""),
        ("BEGIN IMMEDIATE", "begin", "immediate"),
        ("BEGIN DEFERRED", "begin", ""),
        ("begin isolation level repeatable read, read only", "begin", "read only"),
        ("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY", "begin", "read only"),
        ("COMMIT;", "commit", ""),
        ("end", "commit", ""),
        ("rollback work", "rollback", ""),
        ("SAVEPOINT a", "savepoint", "a"),
        ('rollback to savepoint "b"', "rollback to", "b"),
        ("ROLLBACK TO c", "rollback to", "c"),
        ("RELEASE SAVEPOINT `d`", "release", "d"),
        ("SET LOCAL statement_timeout = 5", "set local", "statement_timeout"),
        ("SET SESSION TRANSACTION READ ONLY", "read only", "on"),
        ("PRAGMA query_only=ON", "read only", "on"),
        ("PRAGMA journal_mode=WAL", "ignore", ""),
    ],
)
def test_what_is_interpreted(statement: str, action: str, name: str) -> None:
    found = parse(statement, "sqlite")
    assert (found.action, found.name) == (action, name)


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE INDEX CONCURRENTLY i ON items (name)",
        "VACUUM",
        "CREATE DATABASE other",
        "LISTEN news",
        "PREPARE TRANSACTION 'x'",
    ],
)
def test_postgresql_what_cannot_share_a_transaction_is_refused(postgresql: Setting, statement: str) -> None:
    with postgresql.engine.connect() as connection:
        with pytest.raises(SandboxError, match=r'isolation="clone"'):
            connection.execute(text(statement))


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE t (a INTEGER)",
        "TRUNCATE TABLE items",
        "LOCK TABLES items WRITE",
        "ALTER TABLE items ADD COLUMN b INTEGER",
        "XA START 'x'",
    ],
)
def test_mariadb_what_commits_by_itself_is_refused(mariadb: Setting, statement: str) -> None:
    with mariadb.engine.begin() as connection:
        connection.execute(text("insert into items (name) values ('a')"))
        with pytest.raises(SandboxError, match="would commit the transaction"):
            connection.execute(text(statement))
    assert mariadb.count() == 1


def test_mariadb_temporary_tables_are_made(mariadb: Setting) -> None:
    with mariadb.engine.begin() as connection:
        connection.execute(text("create temporary table t (a integer)"))
        connection.execute(text("insert into t values (1)"))
        assert connection.scalar(text("select a from t")) == 1
        connection.execute(text("drop temporary table t"))


def test_sqlite_cannot_attach(sqlite: Setting) -> None:
    with sqlite.engine.connect() as connection, pytest.raises(SandboxError, match="ATTACH"):
        connection.execute(text("attach ':memory:' as other"))


@pytest.mark.parametrize(
    "statement",
    [
        "insert into items (name) values ('a'); commit",
        "commit; insert into items (name) values ('a')",
        "begin; insert into items (name) values ('a'); commit",
        "savepoint x; insert into items (name) values ('a')",
        "set local lock_timeout = 1; insert into items (name) values ('a'); commit",
        "COMMIT AND CHAIN",
        "rollback and chain",
    ],
)
def test_postgresql_no_text_ends_the_transaction_of_the_test(postgresql: Setting, statement: str) -> None:
    with postgresql.engine.connect() as connection:
        connection.execute(text("insert into items (name) values ('b')"))
        with pytest.raises(SandboxError, match="cannot run in the sandbox"):
            connection.execute(text(statement))
        connection.commit()
    assert (postgresql.count(), postgresql.durable()) == (1, 0)


def test_postgresql_several_statements_run_at_once(postgresql: Setting) -> None:
    with postgresql.engine.begin() as connection:
        connection.exec_driver_sql("select 1; insert into items (name) values ('a;b'); do $$ begin null; end; $$")
    assert postgresql.count() == 1


@pytest.mark.parametrize("statement", ["COMMIT -- done", "commit /* of the shop */", "-- now\nCOMMIT;"])
def test_a_commit_with_a_remark_is_one(setting: Setting, statement: str) -> None:
    with setting.engine.connect() as connection:
        connection.execute(text("insert into items (name) values ('a')"))
        connection.execute(text(statement))
    assert (setting.count(), setting.durable()) == (1, 0)


def test_mariadb_a_block_runs_whole(mariadb: Setting) -> None:
    with mariadb.engine.begin() as connection:
        connection.exec_driver_sql(
            "begin not atomic insert into items (name) values ('a'); insert into items (name) values ('b'); end"
        )
    assert mariadb.count() == 2


@pytest.mark.parametrize("statement", ["commit release", "begin not atomic commit; end", "rollback and chain"])
def test_mariadb_no_text_ends_the_transaction_of_the_test(mariadb: Setting, statement: str) -> None:
    with mariadb.engine.connect() as connection:
        with pytest.raises(SandboxError, match="cannot run in the sandbox"):
            connection.execute(text(statement))


def test_sqlite_a_trigger_is_one_statement(sqlite: Setting) -> None:
    with sqlite.engine.begin() as connection:
        connection.exec_driver_sql(
            "create temp trigger twice after insert on items when new.name = 'a' begin "
            "insert into items (name) values ('b'); end"
        )
        connection.exec_driver_sql("insert into items (name) values ('a')")
    assert sqlite.count() == 2


def test_postgresql_a_copy_into_a_table_that_is_called_like_the_output_is_none_to_it(postgresql: Setting) -> None:
    with postgresql.engine.begin() as connection:
        connection.exec_driver_sql("create table stdout_log (line integer)")
        raw: Any = connection.connection
        with raw.cursor() as cursor:
            with cursor.copy("copy stdout_log from stdin") as copy:
                copy.write_row((7,))
            with cursor.copy("copy stdout_log\nTO STDOUT") as copy:
                assert list(copy.rows()) == [("7",)]
