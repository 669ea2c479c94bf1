"""What the rules say of MariaDB is what the server says: it is asked for another algorithm, and refuses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy.exc import DBAPIError

from stillroom.migrations import lint, sql
from tests.migrations import shop

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Connection

TABLES = """
create table author (id int primary key);
create table book (id int, a int, b varchar(60), c varchar(300), d varchar(20), e enum('x', 'y'), f decimal(8, 2),
  g text, constraint x check (a > 0)) default charset utf8mb4
"""
# Operations, and whether nobody writes to the table meanwhile.
OPERATIONS = {
    'op.add_column("book", sa.Column("new", sa.Integer))': False,
    'op.add_column("book", sa.Column("new", sa.JSON))': False,
    'op.add_column("book", sa.Column("new", sa.Integer, nullable=False, server_default="1"))': False,
    'op.add_column("book", sa.Column("new", sa.Integer, sa.Computed("a + 1")))': False,
    'op.add_column("book", sa.Column("new", sa.Integer, sa.Computed("a + 1", persisted=True)))': True,
    'op.add_column("book", sa.Column("new", sa.String(36), server_default=sa.text("(uuid())")))': True,
    'op.execute("alter table book add new int auto_increment unique")': True,
    'op.create_foreign_key("fk", "book", "author", ["a"], ["id"])': True,
    'op.create_check_constraint("ck", "book", "a > 0")': True,
    'op.create_unique_constraint("uq", "book", ["a"])': False,
    'op.create_index("ix", "book", ["a"])': False,
    'op.create_index("ix", "book", ["g"], mysql_prefix="FULLTEXT")': True,
    'op.alter_column("book", "a", existing_type=sa.Integer, type_=sa.BigInteger)': True,
    'op.alter_column("book", "b", existing_type=sa.String(60), type_=sa.String(64))': True,
    'op.alter_column("book", "c", existing_type=sa.String(300), type_=sa.String(400))': False,
    'op.alter_column("book", "d", existing_type=sa.String(20), type_=sa.String(60))': False,
    'op.alter_column("book", "d", existing_type=sa.String(20), type_=sa.Text)': True,
    """op.alter_column("book", "e", existing_type=sa.Enum("x", "y"), type_=sa.Enum("x", "y", "z"))""": False,
    """op.alter_column("book", "e", existing_type=sa.Enum("x", "y"), type_=sa.Enum("z", "x", "y"))""": True,
    'op.alter_column("book", "f", existing_type=sa.Numeric(8, 2), type_=sa.Numeric(10, 2))': True,
    'op.execute("alter table book convert to character set utf8mb4 collate utf8mb4_unicode_ci")': True,
    'op.execute("alter table book drop constraint x")': False,
}


def sent(tmp_path: Path, operation: str) -> str:
    """
    Return the SQL of an operation.
    """
    shop.write(tmp_path / "migrations/main", "a", operation)
    with shop.databases(tmp_path, "mysql://127.0.0.1:1/x") as dbs:
        statements = sql(dbs)["main"].split(";")
    statement = next(each for each in statements if "book" in each)
    return " ".join(line for line in statement.splitlines() if not line.startswith("--")).strip()


def blocks(connection: Connection, statement: str) -> bool:
    """
    Ask the server to let others write meanwhile; say whether it refuses.
    """
    separator = " " if statement.startswith("CREATE") else ", "
    try:
        connection.exec_driver_sql(f"{statement}{separator}LOCK=NONE")
    except DBAPIError as error:
        if error.orig is None or error.orig.args[0] not in (1845, 1846):  # it names another lock or algorithm
            raise
        return True
    return False


def test_what_keeps_others_from_writing_is_what_the_server_says(mariadb_database: str, tmp_path: Path) -> None:
    refused, told = {}, {}
    with shop.databases(tmp_path, mariadb_database) as dbs, dbs.main.connect() as connection:
        for number, operation in enumerate(OPERATIONS):
            for each in ("drop table if exists book, author", *TABLES.split(";")):
                connection.exec_driver_sql(each)
            refused[operation] = blocks(connection, sent(tmp_path / str(number), operation))
    for number, operation in enumerate(OPERATIONS):
        with shop.databases(tmp_path / str(number), "mysql://127.0.0.1:1/x") as dbs:
            told[operation] = any("LOCK=SHARED" in each.reason for each in lint(dbs))
    assert refused == OPERATIONS
    assert told == OPERATIONS


def test_a_dropped_constraint_is_no_hazard(tmp_path: Path) -> None:
    shop.write(tmp_path / "migrations/main", "a", 'op.drop_constraint("x", "book", "check")', "raise RuntimeError")
    with shop.databases(tmp_path, "mysql://127.0.0.1:1/x") as dbs:
        assert lint(dbs) == []


@pytest.mark.parametrize("name", ["mysql", "mariadb"])
def test_both_names_of_the_backend_have_its_rules(name: str, tmp_path: Path) -> None:
    body = 'op.create_index("ix", "book", ["g"], mysql_prefix="FULLTEXT")\nop.drop_index("ix", "book")'
    shop.write(tmp_path / "migrations/main", "a", body, "raise RuntimeError")
    with shop.databases(tmp_path, f"{name}://127.0.0.1:1/x") as dbs:
        assert [each.rule for each in lint(dbs)] == ["index-blocks-writes", "several-ddl-in-revision"]
