"""The tests of migrations that users inherit: what good histories pass, and what bad ones are told."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Integer, MetaData, Table, create_engine, make_url, text
from sqlalchemy.schema import Column, Index

from stillroom import Databases
from stillroom.testing import TestOptions, collect_garbage
from stillroom.testing.migration_walk import throwaway
from stillroom.testing.schema_snapshot import differences, snapshot
from tests.migrations import shop

Result = pytest.RunResult

# What a test inside of a test imports is forgotten after it, and these do not like to be imported twice.
for module in (
    *("sqlalchemy.dialects.postgresql.psycopg", "sqlalchemy.dialects.mysql.pymysql", "psycopg", "pymysql"),
    *("stillroom.testing.migration_tests", "stillroom.testing.servers.fixtures", "stillroom.testing.provisioning"),
):
    import_module(module)

# Given as it is: a module that is imported already is not wanted by its name.
PLUGIN = import_module("stillroom.testing.plugin")
IS_INSTALLED = any(each.value == PLUGIN.__name__ for each in entry_points(group="pytest11"))

MODELS = """
from sqlalchemy import Column, Integer, MetaData, Table
from stillroom import Databases
metadata = MetaData()
for name in {tables!r}:
    Table(name, metadata, Column("id", Integer, primary_key=True))
dbs = Databases()
"""
TESTS = """
from sqlalchemy import text
from stillroom.testing.migration_tests import MigrationTests
class TestMigrations(MigrationTests):
    {body}
"""


RAN = 'with open("ran", "a") as file: file.write("{} ")'
"""A line of a revision that notes that it ran."""


class Application:
    """
    An application with migrations, and its tests of them.
    """

    def __init__(self, pytester: pytest.Pytester) -> None:
        self.pytester = pytester
        self.path = pytester.path
        self.ini = "stillroom_databases = shop:dbs"
        self.settings = ""
        self.names: list[str] = []

    def declare(self, name: str, url: str, more: str = 'metadata = "shop:metadata"') -> Path:
        """
        Declare a database, and return the directory of its migrations.
        """
        self.names.append(name)
        directory = self.path / "migrations" / name
        (directory / "versions").mkdir(parents=True)
        self.settings += f'[databases.{name}]\nurl = "{url}"\nmigrations = "migrations/{name}"\n{more}\n'
        return directory

    def run(self, body: str = "pass", *arguments: str, tables: str = "a b c") -> Result:
        """
        Run the tests; the models are one table for each of `tables`.
        """
        (self.path / "stillroom.toml").write_text(f'default = "{self.names[0]}"\n{self.settings}', encoding="utf-8")
        (self.path / "shop.py").write_text(MODELS.format(tables=tables.split()), encoding="utf-8")
        self.pytester.makeini(f"[pytest]\npythonpath = .\n{self.ini}\n")
        self.pytester.makepyfile(test_shop=TESTS.format(body=body))
        plugins = [] if IS_INSTALLED else [PLUGIN]
        return self.pytester.runpytest_inprocess(
            "-p",
            "no:cacheprovider",
            "-p",
            "no:asyncio",
            "-p",
            "no:randomly",
            "-W",
            "error",
            "-rA",
            *arguments,
            plugins=plugins,
        )


@pytest.fixture
def application(pytester: pytest.Pytester) -> Application:
    """
    An application without a database yet.
    """
    return Application(pytester)


@pytest.fixture
def directory(application: Application) -> Path:
    """
    The migrations of its database "main", an SQLite file.
    """
    return application.declare("main", "sqlite:///shop.db")


def failed(result: Result) -> set[str]:
    """
    Return what failed.
    """
    lines = [line for line in result.outlines if line.startswith(("FAILED ", "ERROR "))]
    return {line.partition(" - ")[0].rpartition("::")[2] for line in lines}


def said(result: Result) -> str:
    return " ".join(" ".join(result.outlines).split())


# --- good histories


def test_a_good_history_passes_and_leaves_nothing(any_database: str, application: Application) -> None:
    directory = application.declare("main", any_database)
    shop.tables(directory, "a", "b", "c")
    result = application.run()
    result.assert_outcomes(passed=10)
    url = make_url(any_database)
    if url.get_backend_name() == "sqlite":
        assert not (application.path / "shop.db").exists()
    else:
        driver = {"postgresql": "postgresql+psycopg", "mysql": "mysql+pymysql", "mariadb": "mariadb+pymysql"}
        engine = create_engine(url.set(drivername=driver[url.get_backend_name()]))
        catalog = "select datname from pg_database" if "post" in url.drivername else "show databases"
        with engine.connect() as connection:
            names = [row[0] for row in connection.execute(text(catalog))]
        engine.dispose()
        assert url.database in names
        assert not [name for name in names if name.startswith(f"{url.database}_") and "migrations" in name]


KILLED = """
import os, sys
from pathlib import Path
from stillroom import Databases
from stillroom.testing import TestOptions
from stillroom.testing.migration_walk import throwaway
with Databases({{"databases": {{"main": {{"url": {url!r}}}}}}}) as dbs:
    with throwaway(dbs, "main", TestOptions(), Path()) as databases:
        print(databases["main"].settings.url.database, flush=True)
        os._exit(9)
"""


@pytest.mark.parametrize("backend", ["postgresql", "mariadb"])
def test_what_a_killed_run_leaves_is_garbage(backend: str, request: pytest.FixtureRequest) -> None:
    url = request.getfixturevalue(f"{backend}_database")
    with Databases({"databases": {"main": {"url": url}}}) as dbs:
        with throwaway(dbs, "main", TestOptions(), Path()) as databases:
            assert databases["main"].settings.url.database not in collect_garbage(dbs, TestOptions())
        assert collect_garbage(dbs, TestOptions()) == []
        killed = subprocess.run(
            [sys.executable, "-c", KILLED.format(url=url)], capture_output=True, text=True, timeout=60, check=False
        )
        assert killed.returncode == 9, killed.stderr
        assert collect_garbage(dbs, TestOptions()) == [killed.stdout.strip()]


def test_each_revision_runs_a_few_times_only(application: Application, directory: Path) -> None:
    names = [f"r{number}" for number in range(8)]
    down = None
    for name in names:
        create = f'op.create_table("{name}", sa.Column("id", sa.Integer, primary_key=True))'
        up = f"{RAN.format(name)}\n{create}"
        shop.write(directory, name, up, f'op.drop_table("{name}")', down=down)
        down = name
    result = application.run("skip = {'test_offline_sql': 'not now', 'test_lint': 'not now'}", tables=" ".join(names))
    assert not failed(result)
    ran = (application.path / "ran").read_text(encoding="utf-8").split()
    assert {name: ran.count(name) for name in names} == dict.fromkeys(names, 3)  # from empty, and twice on the walk


def test_a_revision_alone_is_reached_and_tested(application: Application, directory: Path) -> None:
    shop.tables(directory, "a", "b", "c")
    application.run("pass", "-k", "up_down_up and main-c").assert_outcomes(passed=1)


def test_revisions_may_be_tested_in_any_order(application: Application, directory: Path) -> None:
    shop.tables(directory, "a", "b", "c")
    tests = [f"test_shop.py::TestMigrations::test_up_down_up[main-{name}]" for name in "cab"]
    application.run("pass", *tests).assert_outcomes(passed=3)


def test_branches_and_what_joins_them_are_walked(application: Application, directory: Path) -> None:
    shop.tables(directory, "a")
    shop.tables(directory, "b", down="a")
    shop.tables(directory, "c", down="a")
    shop.write(directory, "joined", "pass", down=("b", "c"))
    application.run().assert_outcomes(passed=12)


def test_several_databases_are_tested_each_by_itself(application: Application, directory: Path) -> None:
    shop.tables(directory, "a", "b", "c")
    shop.tables(application.declare("audit", "sqlite:///audit.db", ""), "a")
    result = application.run()
    result.assert_outcomes(passed=15, skipped=1)
    assert "the database 'audit' names no models" in said(result)
    application.run("databases = ('audit',)").assert_outcomes(passed=5, skipped=1)


def test_what_runs_outside_of_a_transaction_is_walked(postgresql_database: str, application: Application) -> None:
    directory = application.declare("main", postgresql_database, "")
    shop.tables(directory, "a")
    within = "with op.get_context().autocommit_block():\n    "
    up = 'op.create_index("ix", "a", ["id"], postgresql_concurrently=True, if_not_exists=True)'
    down = 'op.drop_index("ix", postgresql_concurrently=True, if_exists=True)'
    shop.write(directory, "b", within + up, within + down, down="a")
    application.run("pass", "-k", "up_down_up or offline").assert_outcomes(passed=4)


# --- bad ones


def test_two_heads_are_named(application: Application, directory: Path) -> None:
    shop.tables(directory, "a")
    shop.tables(directory, "b", down="a")
    shop.tables(directory, "c", down="a")
    result = application.run("pass", "-k", "one_head or up_from_empty")
    assert failed(result) == {"test_one_head[main]", "test_up_from_empty[main]"}
    words = said(result)
    assert "_ TestMigrations.test_one_head[main] _" in words
    assert "_ the migrations of 'main' have 2 heads (b, c)" in words
    assert "was not brought from empty to its newest revision: the migrations of 'main' have 2 heads" in words


@pytest.mark.parametrize("backend", ["sqlite", "postgresql"])
def test_a_downgrade_that_fails_is_named_with_its_line(
    backend: str, application: Application, request: pytest.FixtureRequest
) -> None:
    directory = application.declare("main", request.getfixturevalue(f"{backend}_database"))
    shop.tables(directory, "a")
    create = 'op.create_table("b", sa.Column("id", sa.Integer, primary_key=True))'
    path = shop.write(directory, "b", create, 'op.drop_table("nowhere")', down="a")
    shop.tables(directory, "c", down="b")
    line = next(n for n, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1) if "nowhere" in text)
    chosen = "up_down_up" if backend == "sqlite" else "up_down_up and main-b"
    result = application.run("pass", "-k", chosen)
    result.assert_outcomes(passed=2 if backend == "sqlite" else 0, failed=1)
    assert failed(result) == {"test_up_down_up[main-b]"}
    assert "the downgrade of revision 'b' of the database 'main' failed" in said(result)
    assert f"versions/b.py:{line})" in said(result)
    assert "DROP TABLE nowhere" in said(result)


def test_an_upgrade_that_fails_is_named_and_those_above_are_not_reached(
    application: Application, directory: Path
) -> None:
    shop.tables(directory, "a")
    shop.write(directory, "b", f'{RAN.format("b")}\nop.drop_table("nowhere")', down="a")
    shop.tables(directory, "c", "d", "e", down="b")
    result = application.run("pass", "-k", "up_down_up or up_from_empty or models", tables="a c d e")
    assert failed(result) == {
        *("test_up_from_empty[main]", "test_models_equal_database[main]"),
        *(f"test_up_down_up[main-{name}]" for name in "bcde"),
    }
    words = said(result)
    assert "the upgrade of revision 'b' of the database 'main' failed" in words
    assert "revision 'd' of the database 'main' was not reached: the upgrade of revision 'b'" in words
    assert "was not brought from empty to its newest revision: revision 'b' of the database 'main' failed" in words
    assert len((application.path / "ran").read_text(encoding="utf-8").split()) == 3  # not for each of those above


def test_what_a_downgrade_leaves_is_named(application: Application, directory: Path) -> None:
    shop.tables(directory, "a")
    shop.write(
        directory,
        "b",
        'op.create_table("b", sa.Column("id", sa.Integer, primary_key=True))\n'
        'op.add_column("a", sa.Column("x", sa.Integer))\nop.create_index("ix_b", "b", ["id"])',
        'op.drop_table("b")',
        down="a",
    )
    result = application.run("pass", "-k", "up_down_up")
    assert failed(result) == {"test_up_down_up[main-b]"}
    assert (
        "revision 'b' of the database 'main': its downgrade leaves something else than its upgrade found: "
        "column a.x was not there before"
    ) in said(result)


def test_an_enum_that_a_downgrade_leaves_is_named(postgresql_database: str, application: Application) -> None:
    directory = application.declare("main", postgresql_database)
    create = 'op.create_table("a", sa.Column("id", sa.Enum("x", "y", name="letter"), primary_key=True))'
    shop.write(directory, "a", create, 'op.drop_table("a")')
    result = application.run("pass", "-k", "up_down_up")
    assert failed(result) == {"test_up_down_up[main-a]"}
    assert "revision 'a' of the database 'main'" in said(result)
    assert "type public.letter was not there before" in said(result)


def test_an_upgrade_that_makes_something_else_the_second_time_is_named(
    application: Application, directory: Path
) -> None:
    create = """
        import pathlib
        op.create_table("a", sa.Column("id", sa.Integer, primary_key=True), sa.Column("x", sa.Integer))
        if pathlib.Path("ran").exists():
            op.create_index("ix", "a", ["x"])
        pathlib.Path("ran").touch()
    """
    shop.write(directory, "a", create, 'op.drop_table("a")')
    result = application.run("pass", "-k", "up_down_up")
    assert "after a downgrade its upgrade makes something else than the first time: index a.ix" in said(result)


def test_tables_that_are_not_what_the_models_say_are_named(application: Application, directory: Path) -> None:
    shop.tables(directory, "a", "b")
    result = application.run("pass", "-k", "models", tables="a c")
    assert failed(result) == {"test_models_equal_database[main]"}
    words = said(result)
    assert "the database 'main' at its newest revision 'b'" in words
    assert "add_table c" in words
    assert "remove_table b" in words


def test_sql_that_needs_the_database_is_named(application: Application, directory: Path) -> None:
    shop.tables(directory, "a")
    shop.write(directory, "b", 'assert op.get_bind().execute(sa.text("select 1")).scalar() == 1', down="a")
    shop.tables(directory, "c", down="b")
    result = application.run("pass", "-k", "offline", tables="a c")
    assert failed(result) == {"test_offline_sql[main-b]"}
    assert "the SQL of revision 'b' of the database 'main' cannot be written without the database" in said(result)
    assert "versions/b.py:" in said(result)
    application.run("needs_database = {'b': 'it looks'}", "-k", "offline").assert_outcomes(passed=2, skipped=1)


def test_what_the_linter_calls_an_error_is_named(postgresql_database: str, application: Application) -> None:
    directory = application.declare("main", postgresql_database)
    shop.tables(directory, "a")
    shop.write(directory, "b", 'op.create_index("ix", "a", ["id"])', 'op.drop_index("ix")', down="a")
    result = application.run("pass", "-k", "lint")
    assert failed(result) == {"test_lint[main]"}
    assert "revision 'b' of the database 'main': index-not-concurrent at " in said(result)
    application.run("lint_after = {'main': 'b'}", "-k", "lint").assert_outcomes(passed=1)


# --- what is told to the tests


def test_a_revision_that_cannot_be_undone_is_only_run(application: Application, directory: Path) -> None:
    shop.tables(directory, "a")
    create = 'op.create_table("b", sa.Column("id", sa.Integer, primary_key=True))'
    shop.write(directory, "b", create, 'raise NotImplementedError("never")', down="a")
    shop.tables(directory, "c", down="b")
    body = "irreversible = {'b': 'the old numbers are gone'}\n    def before_upgrade_b(self, connection): pass"
    application.run(body, "-k", "up_down_up").assert_outcomes(passed=3)


def test_tests_are_left_out_with_a_reason(application: Application, directory: Path) -> None:
    shop.tables(directory, "a")
    result = application.run("skip = {'test_lint': 'on another day'}", tables="a")
    result.assert_outcomes(passed=5, skipped=1)
    assert "on another day" in said(result)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("skip = {'test_lnt': ''}", "skip names 'test_lnt', which is not there; there are test_lint,"),
        ("irreversible = {'z': ''}", "irreversible names 'z', which is not there; there are a, b.1"),
        ("needs_database = {'z': ''}", "needs_database names 'z'"),
        ("lint_after = {'z': 'a'}", "lint_after names 'z', which is not there; there are main"),
        ("databases = ('z',)", "no database is named 'z'"),
        ("def after_upgrade_z(self, connection): pass", "a hook names 'z'"),
    ],
)
def test_a_name_that_is_not_there_is_an_error(
    body: str, message: str, application: Application, directory: Path
) -> None:
    shop.tables(directory, "a", "b.1")
    result = application.run(body)
    result.assert_outcomes(errors=1)
    assert message in said(result)


def test_no_migrations_at_all_is_an_error(application: Application, directory: Path) -> None:
    (directory / "versions").rmdir()
    result = application.run()
    result.assert_outcomes(errors=1)
    assert "the database 'main' has no directory 'migrations/main/versions'" in said(result)


def test_the_databases_may_be_found_by_the_class(application: Application, directory: Path) -> None:
    shop.tables(directory, "a")
    application.ini = ""
    result = application.run(tables="a")
    result.assert_outcomes(errors=1)
    assert "stillroom does not know the application's databases" in said(result)
    body = """@classmethod
    def find_databases(cls, config):
        from shop import dbs
        dbs.configure()
        return dbs"""
    application.run(body, tables="a").assert_outcomes(passed=6)


def test_nothing_is_made_on_another_host(application: Application) -> None:
    shop.tables(application.declare("main", "postgresql://db.example.org/shop"), "a")
    result = application.run("pass", "-k", "up")
    assert failed(result) == {"test_up_from_empty[main]", "test_up_down_up[main-a]"}
    assert "NotATestDatabase" in said(result)


# --- rows

ROWS = """
    def before_upgrade_b(self, connection):
        connection.execute(text("insert into a (id) values (1), (2)"))
    def after_upgrade_b(self, connection):
        assert connection.execute(text("select id, half from a order by id")).all() == {expected}
"""
HALF = 'op.add_column("a", sa.Column("half", sa.Integer))\nop.execute("update a set half = id * 10")'


@pytest.mark.parametrize("backend", ["sqlite", "postgresql"])
def test_a_revision_is_tested_over_rows(backend: str, application: Application, request: pytest.FixtureRequest) -> None:
    directory = application.declare("main", request.getfixturevalue(f"{backend}_database"))
    shop.tables(directory, "a")
    shop.write(directory, "b", HALF, 'op.drop_column("a", "half")', down="a")
    body = ROWS.format(expected="[(1, 10), (2, 20)]").strip()
    application.run(body, "-k", "up_down_up and main-b").assert_outcomes(passed=1)


def test_rows_that_are_not_what_is_expected_fail(application: Application, directory: Path) -> None:
    shop.tables(directory, "a")
    shop.write(directory, "b", HALF, 'op.drop_column("a", "half")', down="a")
    shop.tables(directory, "c", down="b")
    result = application.run(ROWS.format(expected="[(1, 5), (2, 10)]").strip(), "-k", "up_down_up")
    assert failed(result) == {"test_up_down_up[main-b]"}
    assert "after_upgrade_b" in said(result)


def test_a_revision_that_fails_over_rows_is_named(application: Application, directory: Path) -> None:
    shop.tables(directory, "a")
    shop.write(directory, "b", 'op.execute("insert into a (id) values (1)")', 'op.execute("delete from a")', down="a")
    result = application.run(ROWS.format(expected="[]").strip(), "-k", "up_down_up")
    assert failed(result) == {"test_up_down_up[main-b]"}
    assert "the upgrade of revision 'b' of the database 'main' failed" in said(result)


def test_a_hook_may_name_its_database(application: Application, directory: Path) -> None:
    shop.tables(directory, "0.1")
    shop.tables(application.declare("audit", "sqlite:///audit.db", ""), "0.1")
    body = """def after_upgrade_audit_0_1(self, connection):
        with open("called", "a") as file:
            file.write(connection.engine.url.database.rpartition("/")[2][:5])"""
    application.run(body, "-k", "up_down_up").assert_outcomes(passed=2)
    assert (application.path / "called").read_text(encoding="utf-8") == "audit"


# --- what is compared


def test_a_snapshot_shows_what_another_statement_did(any_database: str) -> None:
    url = make_url(any_database)
    drivers = {"postgresql": "postgresql+psycopg", "mysql": "mysql+pymysql", "mariadb": "mariadb+pymysql"}
    engine = create_engine(url.set(drivername=drivers.get(url.get_backend_name(), url.drivername)))
    metadata = MetaData()
    table = Table("t", metadata, Column("id", Integer, primary_key=True), Column("x", Integer))
    metadata.create_all(engine)

    def changed(*statements: Any) -> list[str]:
        with engine.connect() as connection:
            before = snapshot(connection)
            for statement in statements:
                connection.execute(text(statement))
            connection.commit()
            return differences(before, snapshot(connection))

    with engine.connect() as connection:
        assert "table" in {kind for kind, _, _ in snapshot(connection)}
        assert "table" not in {kind for kind, _, _ in snapshot(connection, {"t"})}
    assert changed() == []
    assert changed("insert into t (id) values (1)") == []
    assert changed("create index ix on t (x)") == ["index t.ix was not there before"]
    assert changed("create view v as select id from t") == ["view v was not there before"]
    assert changed("alter table t add column y varchar(3) default 'a'")[0].startswith("column t.y was not")
    assert changed("drop view v", "drop table t") == ["table t is gone", "view v is gone"]
    assert Index("other", table.c.x).table is table
    engine.dispose()


def test_a_snapshot_of_postgresql_shows_what_is_beside_tables(postgresql_database: str) -> None:
    engine = create_engine(make_url(postgresql_database).set(drivername="postgresql+psycopg"))
    body = "returns trigger language plpgsql as 'begin return new; end'"
    with engine.connect() as connection:
        connection.execute(text("create table t (id int)"))
        connection.commit()
        before = snapshot(connection)
        for statement in (
            "create schema other",
            "create table other.u (id int)",
            "create sequence s",
            "create domain d as int",
            "create materialized view m as select id from t",
            f"create function f() {body}",
            "create trigger g before insert on t for each row execute function f()",
        ):
            connection.execute(text(statement))
        connection.commit()
        assert [each.removesuffix(" was not there before") for each in differences(before, snapshot(connection))] == [
            "function f()",
            "materialized view public.m",
            "schema other",
            "sequence s",
            "table other.u",
            "trigger t.g",
            "type public.d",
        ]
    engine.dispose()
