"""The schema as a file, from which a new database is made; and what an upgrade is going to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from stillroom.migrations import MigrationError, check, dump_schema, load_schema, plan, status, upgrade
from stillroom.migrations.risks import assess
from tests.migrations import shop
from tests.migrations.test_running import names

if TYPE_CHECKING:
    from pathlib import Path

    from stillroom import Databases

FOREIGN = "ALTER TABLE a ADD CONSTRAINT f FOREIGN KEY(x)"
FUNCTION = """
op.execute('''create function one() returns int language plpgsql as $$ begin return 100 % 99; end; $$''')
with op.get_context().autocommit_block():
    op.create_index("a_n", "a", ["n"], postgresql_concurrently=True)
op.execute("insert into a (id, n) values (one(), 7)")
"""


def write(directory: Path, backend: str) -> None:
    shop.write(directory, "a", 'op.create_table("a", sa.Column("id", sa.Integer), sa.Column("n", sa.Integer))')
    body = FUNCTION if backend == "postgresql" else 'op.execute("insert into a (id, n) values (1, 7)")'
    shop.write(directory, "b", body, down="a")
    column = 'batch.alter_column("n", existing_type=sa.Integer, nullable=False)'
    batch = f'with op.batch_alter_table("a") as batch:\n    {column}'
    shop.write(directory, "c", batch if backend == "sqlite" else 'op.execute("insert into a values (2, 8)")', down="b")


def test_a_loaded_schema_is_as_if_the_revisions_had_run(any_database: str, tmp_path: Path) -> None:
    directory = tmp_path / "migrations/main"
    backend = any_database.partition(":")[0]
    write(directory, backend)
    with shop.databases(tmp_path, any_database) as dbs:
        schema = dump_schema(dbs)["main"]
        assert names(dbs) == set()
        assert load_schema(dbs, "main", schema) == "c"
        (standing,) = status(dbs)
        assert (standing.current, standing.findings, standing.head) == (("c",), (), "c")
        assert standing.by
        with dbs.main.connect() as connection:
            assert connection.execute(text("select min(n) from a")).scalar() == 7
        with pytest.raises(MigrationError, match="has revision c; a schema is loaded into an empty one"):
            load_schema(dbs, "main", schema)
        shop.tables(directory, "d", down="c")
        assert upgrade(dbs)[0].revisions == ("d",)
        assert check(dbs) == []


def test_a_schema_of_another_backend_is_refused(sqlite_database: str, tmp_path: Path) -> None:
    shop.tables(tmp_path / "migrations/main", "a")
    with shop.databases(tmp_path, "postgresql://127.0.0.1:1/x") as dbs:
        schema = dump_schema(dbs)["main"]
    with shop.databases(tmp_path, sqlite_database) as dbs:
        for wrong in (schema, "create table a (id int)"):
            with pytest.raises(MigrationError, match="this is no schema for 'main' on sqlite"):
                load_schema(dbs, "main", wrong)


def test_a_schema_that_fails_leaves_nothing(postgresql_database: str, tmp_path: Path) -> None:
    write(tmp_path / "migrations/main", "")
    with shop.databases(tmp_path, postgresql_database) as dbs:
        broken = dump_schema(dbs)["main"].replace("(2, 8)", "(2, 'x')")
        with pytest.raises(MigrationError, match=r"failed at .*values \(2, 'x'\)"):
            load_schema(dbs, "main", broken)
        assert names(dbs) == set()


def of(dbs: Databases) -> dict[str, tuple[list[str], set[str], bool, bool]]:
    return {
        each.revision: (
            [step.lock for step in each.steps],
            {risk for step in each.steps for risk in step.risks},
            each.transactional,
            each.reversible,
        )
        for each in plan(dbs)
    }


def test_a_plan_tells_locks_risks_and_the_way_back(postgresql_database: str, tmp_path: Path) -> None:
    directory = tmp_path / "migrations/main"
    shop.tables(directory, "a")
    shop.write(directory, "b", 'op.drop_table("a")', down="a")
    concurrently = """
    with op.get_context().autocommit_block():
        op.create_index("a_id", "a", ["id"], postgresql_concurrently=True)
    """
    shop.write(directory, "c", concurrently, "raise NotImplementedError", down="b")
    shop.write(directory, "d", "op.get_bind().execute(sa.text('select 1')).scalar()", down="c")
    with shop.databases(tmp_path, postgresql_database) as dbs:
        found = of(dbs)
    assert found["a"] == ([""], set(), True, True)
    assert found["b"] == (["ACCESS EXCLUSIVE"], {"destroys data", "breaks code that runs now"}, True, False)
    assert found["c"] == (["SHARE UPDATE EXCLUSIVE"], {"reads the whole table"}, False, False)
    assert found["d"][0] == []


def test_two_statements_are_no_transaction_on_mariadb(mariadb_database: str, tmp_path: Path) -> None:
    shop.tables(tmp_path / "migrations/main", "a")
    shop.write(tmp_path / "migrations/main", "b", 'op.drop_table("a")\nop.execute("create table b (id int)")', down="a")
    with shop.databases(tmp_path, mariadb_database) as dbs:
        assert {name: (locks, whole) for name, (locks, _, whole, _) in of(dbs).items()} == {
            "a": ([""], True),
            "b": (["exclusive metadata lock", ""], False),
        }


@pytest.mark.parametrize(
    ("statement", "lock", "risk"),
    [
        ("ALTER TABLE a ADD COLUMN x INTEGER", "ACCESS EXCLUSIVE", None),
        ("ALTER TABLE a ALTER COLUMN x TYPE BIGINT", "ACCESS EXCLUSIVE", "may write the whole table anew"),
        ("ALTER TABLE a ALTER COLUMN x SET NOT NULL", "ACCESS EXCLUSIVE", "reads the whole table"),
        (f"{FOREIGN} REFERENCES b (id)", "SHARE ROW EXCLUSIVE", "reads the whole table"),
        (f"{FOREIGN} REFERENCES b (id) NOT VALID", "SHARE ROW EXCLUSIVE", None),
        ("ALTER TABLE a VALIDATE CONSTRAINT f", "SHARE UPDATE EXCLUSIVE", "reads the whole table"),
        ("ALTER TABLE a DROP COLUMN x", "ACCESS EXCLUSIVE", "destroys data"),
        ("ALTER TABLE a DROP CONSTRAINT x", "ACCESS EXCLUSIVE", None),
        ("CREATE INDEX i ON a (x)", "SHARE", "reads the whole table"),
        ("DROP INDEX i", "ACCESS EXCLUSIVE", None),
        ("CREATE TABLE b (a_id INTEGER REFERENCES a (id))", "SHARE ROW EXCLUSIVE", None),
        ("UPDATE a SET x = 1", "ROW EXCLUSIVE", "changes every row"),
        ("UPDATE a SET x = 1 WHERE id = 1", "ROW EXCLUSIVE", None),
        ("ALTER TYPE kind ADD VALUE 'x'", "", None),
        ("LOCK TABLE a", "ACCESS EXCLUSIVE", None),
    ],
)  # fmt: skip
def test_the_lock_and_the_risk_of_a_statement_on_postgresql(statement: str, lock: str, risk: str | None) -> None:
    step = assess(statement, "postgresql")
    assert step.lock == lock
    assert (risk is None and "reads the whole table" not in step.risks) or risk in step.risks
