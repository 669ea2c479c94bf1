"""What is measured agrees with PostgreSQL's own catalog, and nothing is left behind."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import psycopg
import pytest
from psycopg import sql
from sqlalchemy.engine import make_url

from stillroom import Databases
from stillroom.migrations import Hazard, MigrationError, TracedStatement, lint, trace, upgrade
from tests.migrations import shop

if TYPE_CHECKING:
    from pathlib import Path

TABLES = [
    "create table author (id bigint primary key, name varchar(20))",
    "create table book (id bigint not null, author bigint, title varchar(40), price numeric(8, 2), pages int)",
    "alter table book add old int",
    "create index by_title on book (title)",
    "create type mood as enum ('calm')",
    "create view titles as select title from book",
    "create table shelf (id int) partition by range (id)",
    "create table low_shelf partition of shelf for values from (0) to (10)",
]
OPERATIONS = [
    'op.create_index("by_author", "book", ["author"])',
    'op.execute("drop view titles")',
    'op.drop_index("by_author", "book")',
    'op.add_column("book", sa.Column("a", sa.Integer))',
    'op.add_column("book", sa.Column("b", sa.Integer, server_default="1", nullable=False))',
    'op.add_column("book", sa.Column("c", sa.Uuid, server_default=sa.func.gen_random_uuid()))',
    'op.add_column("book", sa.Column("d", sa.BigInteger, sa.Identity()))',
    'op.add_column("book", sa.Column("e", sa.BigInteger, sa.Computed("author + 1", persisted=True)))',
    'op.drop_column("book", "old")',
    'op.alter_column("book", "title", existing_type=sa.String(40), type_=sa.Text())',
    'op.alter_column("book", "price", existing_type=sa.Numeric(8, 2), type_=sa.Numeric(10, 2))',
    'op.alter_column("book", "pages", existing_type=sa.Integer(), type_=sa.BigInteger())',
    'op.alter_column("book", "author", existing_type=sa.BigInteger(), nullable=False)',
    'op.alter_column("book", "author", existing_type=sa.BigInteger(), nullable=True)',
    'op.create_foreign_key("written", "book", "author", ["author"], ["id"])',
    'op.create_foreign_key("again", "book", "author", ["author"], ["id"], postgresql_not_valid=True)',
    'op.execute("alter table book validate constraint again")',
    'op.create_check_constraint("positive", "book", "price > 0")',
    'op.create_check_constraint("later", "book", "price > 1", postgresql_not_valid=True)',
    'op.create_unique_constraint("once", "book", ["title", "author"])',
    'op.alter_column("book", "price", new_column_name="cost")',
    'op.execute("alter table shelf add column x int default 1")',
    'op.execute("truncate book")',
    'op.execute("update book set pages = 1")',
    'op.drop_constraint("written", "book", type_="foreignkey")',
    'op.execute("cluster book using by_title")',
    'op.execute("alter table book add primary key (id)")',
    'op.execute("alter table author add exclude using btree (id with =)")',
    'op.rename_table("author", "writer")',
    'op.drop_table("book")',
]


class Measured(NamedTuple):
    """
    What a statement did, as the test itself asks.
    """

    locks: set[tuple[str, str]]
    rewritten: set[str]
    scanned: set[str]
    indexes: set[str]


def files(connection: psycopg.Connection) -> dict[str, tuple[str, str]]:
    rows = connection.execute(
        "select oid::text, relname, relkind::text, relfilenode::text from pg_class where oid > 16383"
    )
    return {oid: (name, file) for oid, name, kind, file in rows if kind in "rpvi" and "toast" not in name}


def scans(connection: psycopg.Connection) -> dict[str, int]:
    return dict(connection.execute("select relid::text, seq_scan from pg_stat_xact_user_tables").fetchall())


def measured(connection: psycopg.Connection, other: psycopg.Connection, statement: str) -> Measured:
    """
    Run a statement in a transaction of its own, and ask another session what this one holds.
    """
    before, read = files(connection), scans(connection)
    connection.execute(statement.encode())
    held = other.execute(
        "select relation::text, mode from pg_locks where pid = %s and locktype = 'relation' and granted",
        [connection.info.backend_pid],
    ).fetchall()
    after, now = files(connection), scans(connection)
    tables = {oid for (oid,) in connection.execute("select oid::text from pg_class where relkind in ('r', 'p')")}
    names = {oid: name for oid, (name, _) in before.items()} | {"": ""}
    there = {file for _, file in before.values()} | {"0"}
    changed = {oid for oid, (_, file) in after.items() if file not in there}
    connection.commit()
    return Measured(
        {(names[oid], mode) for oid, mode in held if oid in names},
        {names[oid] for oid in changed & tables},
        {names[oid] for oid, count in now.items() if count > read.get(oid, 0)},
        {after[oid][0] for oid in changed - tables},
    )


def chain(tmp_path: Path, *bodies: str) -> None:
    """
    Write a revision that makes the tables, and one for each body.
    """
    shop.write(tmp_path / "migrations/main", "r0", "\n".join(f"op.execute({each!r})" for each in TABLES))
    for number, body in enumerate(bodies, 1):
        shop.write(tmp_path / "migrations/main", f"r{number}", body, down=f"r{number - 1}")


def absent(url: str) -> str:
    """
    Name a database that nobody made.
    """
    return make_url(url).set(database="stillroom_test_that_nobody_made").render_as_string(hide_password=False)


def left_behind(url: str) -> list[str]:
    """
    List the throwaway databases of a database that are still there.
    """
    with psycopg.connect(url) as connection:
        pattern = f"{make_url(url).database}%lint%"
        rows = connection.execute("select datname from pg_database where datname like %s", [pattern])
        return [name for (name,) in rows]


class Report(NamedTuple):
    """
    What was traced and what was found offline in the revisions of OPERATIONS.
    """

    statements: list[TracedStatement]
    hazards: list[Hazard]


@pytest.fixture(scope="module")
def report(postgresql_url: str, tmp_path_factory: pytest.TempPathFactory) -> Report:
    """
    Look at all operations once.
    """
    directory = tmp_path_factory.mktemp("operations")
    chain(directory, *OPERATIONS)
    with shop.databases(directory, absent(postgresql_url)) as dbs:
        return Report(trace(dbs, since="r0"), lint(dbs, since="r0"))


def test_the_report_agrees_with_the_catalog(report: Report, postgresql_database: str) -> None:
    found = report.statements
    assert len(found) == len(OPERATIONS) >= 20
    with psycopg.connect(postgresql_database) as connection, psycopg.connect(postgresql_database) as other:
        other.autocommit = True
        for table in TABLES:
            connection.execute(table.encode())
        connection.commit()
        for each in found:
            assert reported(each) == measured(connection, other, each.sql), each.sql


def reported(each: TracedStatement) -> Measured:
    assert each.locks is not None
    assert each.scanned is not None
    return Measured(
        {(lock.relation, lock.mode) for lock in each.locks},
        set(each.rewritten),
        set(each.scanned),
        set(each.indexes),
    )


# What a rule says that an operation takes, and does to the table.
CLAIMS = {
    "index-not-concurrent": ("ShareLock", "scanned"),
    "drop-index-not-concurrent": ("AccessExclusiveLock", ""),
    "add-column-volatile-default": ("AccessExclusiveLock", "rewritten"),
    "add-autoincrement": ("AccessExclusiveLock", "rewritten"),
    "add-stored-generated": ("AccessExclusiveLock", "rewritten"),
    "change-column-type": ("AccessExclusiveLock", "rewritten"),
    "set-not-null": ("AccessExclusiveLock", "scanned"),
    "fk-without-not-valid": ("ShareRowExclusiveLock", "scanned"),
    "check-without-not-valid": ("AccessExclusiveLock", "scanned"),
    "unique-constraint-builds-index": ("AccessExclusiveLock", "indexes"),
    "primary-key-builds-index": ("AccessExclusiveLock", "indexes"),
    "exclusion-constraint": ("AccessExclusiveLock", "indexes"),
    "rewriting-sql": ("AccessExclusiveLock", "rewritten"),
    "truncate": ("AccessExclusiveLock", ""),
}


def test_what_the_rules_say_of_locks_is_what_was_measured(report: Report) -> None:
    checked = set()
    for each in report.hazards:
        if each.rule in CLAIMS:
            mode, did = CLAIMS[each.rule]
            (statement,) = [other for other in report.statements if other.revision == each.revision]
            assert statement.locks is not None
            assert statement.locks[0].mode == mode, each
            assert not did or getattr(statement, did), each
            checked.add(each.rule)
    assert checked == set(CLAIMS)


def test_no_operation_that_keeps_others_out_for_long_is_passed_over(report: Report) -> None:
    errors = {each.revision for each in report.hazards if each.severity == "error"}
    long = {
        each.revision
        for each in report.statements
        if each.locks and each.locks[0].strength > 3 and (each.rewritten or each.scanned or each.indexes)
    }
    assert long
    assert long <= errors


TYPES = [
    ("sa.String(20)", "sa.String(40)"),
    ("sa.String(20)", "sa.String()"),
    ("sa.String(20)", "sa.Text()"),
    ("sa.String(20)", "sa.String(10)"),
    ("sa.Text()", "sa.String()"),
    ("sa.Text()", "sa.String(20)"),
    ("sa.CHAR(5)", "sa.Text()"),
    ("sa.String(20)", 'sa.String(20, collation="C")'),
    ("sa.Numeric(8, 2)", "sa.Numeric(10, 2)"),
    ("sa.Numeric(8, 2)", "sa.Numeric()"),
    ("sa.Numeric(8, 2)", "sa.Numeric(10, 3)"),
    ("sa.Numeric(8, 2)", "sa.Numeric(6, 2)"),
    ("sa.Integer()", "sa.BigInteger()"),
    ("sa.Integer()", "sa.Numeric()"),
    ("postgresql.TIMESTAMP(precision=3)", "postgresql.TIMESTAMP(precision=6)"),
    ("postgresql.TIMESTAMP(precision=6)", "postgresql.TIMESTAMP(precision=3)"),
    ("postgresql.TIMESTAMP(timezone=True, precision=3)", "postgresql.TIMESTAMP(timezone=True)"),
    ("postgresql.INTERVAL(precision=3)", "postgresql.INTERVAL(precision=6)"),
    ("postgresql.TIME(precision=3)", "postgresql.TIME(precision=6)"),
    ("postgresql.BIT(8, varying=True)", "postgresql.BIT(9, varying=True)"),
    ("postgresql.CIDR()", "postgresql.INET()"),
    ("sa.JSON()", "postgresql.JSONB()"),
    ("sa.Float()", "sa.Double()"),
]


def test_the_types_that_are_called_safe_are_those_whose_rows_stay(postgresql_url: str, tmp_path: Path) -> None:
    dialect = "from sqlalchemy.dialects import postgresql\n"
    columns = [f'sa.Column("c{number}", {old})' for number, (old, _) in enumerate(TYPES)]
    shop.write(tmp_path / "migrations/main", "r0", f'{dialect}op.create_table("t", {", ".join(columns)})')
    for number, (old, new) in enumerate(TYPES):
        change = f'op.alter_column("t", "c{number}", existing_type={old}, type_={new})'
        shop.write(tmp_path / "migrations/main", f"r{number + 1}", dialect + change, down=f"r{number}")
    with shop.databases(tmp_path, absent(postgresql_url)) as dbs:
        written = [bool(each.rewritten or each.scanned) for each in trace(dbs, since="r0")]
        told = {each.revision for each in lint(dbs, since="r0") if each.rule == "change-column-type"}
    known = [f"r{number + 1}" in told for number in range(len(TYPES))]
    # To take another collation keeps the rows, but builds every index on the column anew.
    collation = TYPES.index(("sa.String(20)", 'sa.String(20, collation="C")'))
    assert (known.pop(collation), written.pop(collation)) == (True, False)
    assert known == written


BESIDE = """
with op.get_context().autocommit_block():
    op.create_index("by_author", "book", ["author"], postgresql_concurrently=True)
    op.execute("reindex index concurrently by_title")
    op.drop_index("by_author", postgresql_concurrently=True)
    op.execute("alter type mood add value 'angry'")
    op.execute("alter table author add column x int")
    op.execute("vacuum author")
"""


def test_what_runs_outside_of_transactions_is_measured_as_well(postgresql_database: str, tmp_path: Path) -> None:
    chain(tmp_path, BESIDE)
    with shop.databases(tmp_path, postgresql_database, pool_size=1, max_overflow=0) as dbs:
        create, reindex, drop, value, add, vacuum = trace(dbs, since="r0")
    share_update = ("book", "ShareUpdateExclusiveLock")
    for each in (create, reindex, drop):  # the lock that the documentation of PostgreSQL names for CONCURRENTLY
        assert each.locks is not None
        assert share_update in {(lock.relation, lock.mode) for lock in each.locks}, each.sql
        assert max(lock.strength for lock in each.locks) == 3, each.sql
    assert (create.indexes, create.rewritten) == (("by_author",), ())
    assert all(each.autocommit for each in (create, reindex, drop, value, add, vacuum))
    assert (value.locks, vacuum.locks) == ((), None)
    assert add.locks is not None
    assert [(lock.relation, lock.mode) for lock in add.locks] == [("author", "AccessExclusiveLock")]


def test_a_lock_that_is_held_already_is_not_taken_again(postgresql_database: str, tmp_path: Path) -> None:
    chain(tmp_path, f"{OPERATIONS[3]}\n{OPERATIONS[4]}\n{OPERATIONS[0]}")
    with shop.databases(tmp_path, postgresql_database) as dbs:
        first, second, index = (reported(each).locks for each in trace(dbs, since="r0"))
    assert first == {("book", "AccessExclusiveLock")}
    assert second == set()
    assert index == {("book", "ShareLock")}


def test_a_statement_whose_failure_the_revision_survives_is_passed_over(
    postgresql_database: str, tmp_path: Path
) -> None:
    body = """
    from contextlib import suppress
    with suppress(sa.exc.DBAPIError), op.get_bind().begin_nested():
        op.execute("alter table book add pages int")
    op.execute("alter table book add more int")
    """
    chain(tmp_path, body)
    with shop.databases(tmp_path, postgresql_database) as dbs:
        (statement,) = trace(dbs, since="r0")
    assert reported(statement).locks == {("book", "AccessExclusiveLock")}


def test_tables_of_the_same_revision_are_left_out(postgresql_database: str, tmp_path: Path) -> None:
    body = """
    op.create_table("new", sa.Column("id", sa.BigInteger, primary_key=True), sa.Column("a", sa.Integer))
    op.create_index("ix", "new", ["a"])
    op.alter_column("new", "a", type_=sa.Text())
    op.get_bind().execute(sa.text("select * from book")).all()
    """
    chain(tmp_path, body)
    with shop.databases(tmp_path, postgresql_database) as dbs:
        *new, read = trace(dbs, since="r0")
    assert [reported(each) for each in new] == [Measured(set(), set(), set(), set())] * 3
    assert read.scanned == ("book",)
    assert read.line == 12


def test_only_what_is_pending_is_measured_and_the_database_stays_as_it_is(
    postgresql_database: str, tmp_path: Path
) -> None:
    chain(tmp_path, OPERATIONS[0], OPERATIONS[3])
    with shop.databases(tmp_path, postgresql_database) as dbs:
        upgrade(dbs, revision="r1")
        assert [(each.revision, each.line) for each in trace(dbs)] == [("r2", 9)]
        assert [each.revision for each in trace(dbs, revisions="all")][-2:] == ["r1", "r2"]
        upgrade(dbs)
        assert trace(dbs) == []
    assert left_behind(postgresql_database) == []


def test_the_database_need_not_be_there(postgresql_url: str, tmp_path: Path) -> None:
    chain(tmp_path, OPERATIONS[0])
    with shop.databases(tmp_path, absent(postgresql_url)) as dbs:
        assert trace(dbs)[-1].indexes == ("by_author",)
        assert not dbs.main.exists()


def test_branches_that_join_are_run_in_order(postgresql_database: str, tmp_path: Path) -> None:
    directory = tmp_path / "migrations/main"
    chain(tmp_path)
    shop.write(directory, "left", OPERATIONS[0], down="r0")
    shop.write(directory, "right", OPERATIONS[3], down="r0")
    shop.write(directory, "both", "pass", down=("left", "right"))
    shop.write(directory, "last", 'op.drop_column("book", "old")', down="both")
    with shop.databases(tmp_path, postgresql_database) as dbs:
        assert [each.revision for each in trace(dbs, since="both")] == ["last"]


@pytest.mark.parametrize(
    "failing",
    ["op.drop_table('nowhere')", f"{BESIDE}    op.drop_index('nowhere', postgresql_concurrently=True)"],
    ids=["inside", "outside"],
)
def test_a_revision_that_fails_is_told_and_nothing_is_left(
    failing: str, postgresql_database: str, tmp_path: Path
) -> None:
    chain(tmp_path, failing)
    with shop.databases(tmp_path, postgresql_database) as dbs:
        with pytest.raises(MigrationError, match=r"'r1' of 'main' failed in the throwaway database: .*nowhere"):
            trace(dbs)
    assert left_behind(postgresql_database) == []


def test_a_user_who_may_not_create_databases_is_told_what_helps(postgresql_database: str, tmp_path: Path) -> None:
    chain(tmp_path, OPERATIONS[0])
    url = make_url(postgresql_database)
    role = sql.Identifier(f"{url.database}_plain")
    with psycopg.connect(postgresql_database, autocommit=True) as admin:
        admin.execute(sql.SQL("create role {} login").format(role))
        try:
            plain = url.set(username=f"{url.database}_plain").render_as_string(hide_password=False)
            with shop.databases(tmp_path, plain) as dbs:
                with pytest.raises(
                    MigrationError, match=r"may not create databases.* CREATEDB.*databases\.main\.admin_url"
                ):
                    trace(dbs)
            with shop.databases(tmp_path, plain, admin_url=postgresql_database) as dbs:
                assert trace(dbs)[-1].indexes == ("by_author",)
        finally:
            admin.execute(sql.SQL("drop role {}").format(role))


def test_other_servers_are_refused_by_name_and_passed_over_otherwise(
    postgresql_database: str, sqlite_database: str, tmp_path: Path
) -> None:
    chain(tmp_path, OPERATIONS[0])
    shop.tables(tmp_path / "migrations/files", "a")
    given = shop.settings(tmp_path, {"main": postgresql_database, "files": sqlite_database}) | {"default": "main"}
    with Databases(given) as dbs:
        assert {each.database for each in trace(dbs)} == {"main"}
        with pytest.raises(MigrationError, match="'files' is not on PostgreSQL"):
            trace(dbs, "files")
