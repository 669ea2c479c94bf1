"""
For each rule and server: what must break it, and what must not.
"""

from __future__ import annotations

from typing import NamedTuple

POSTGRESQL, MARIADB, SQLITE = "postgresql", "mysql", "sqlite"

CONCURRENTLY = "postgresql_concurrently=True"
OUTSIDE = "with op.get_context().autocommit_block():\n    "
NEW = 'op.create_table("book", sa.Column("id", sa.BigInteger, primary_key=True), sa.Column("a", sa.Integer))\n'


class Case(NamedTuple):
    """
    A rule, a server, bodies of which each breaks the rule, and bodies of which none does.
    """

    rule: str
    backend: str
    fire: tuple[str, ...]
    quiet: tuple[str, ...]


def add(column: str) -> str:
    return f'op.add_column("book", sa.Column("new", {column}))'


def sql(text: str) -> str:
    return f"op.execute({text!r})"


def retype(new: str, old: str | None = None, **more: str) -> str:
    rest = "".join(f", {name}={value!r}" for name, value in more.items())
    return f'op.alter_column("book", "a", type_={new}, existing_type={old}{rest})'


INDEX = 'op.create_index("ix", "book", ["a"])'
DROP_BESIDE = f'op.drop_index("ix", if_exists=True, {CONCURRENTLY})'
BUILD_BESIDE = f'op.create_index("ix", "book", ["a"], {CONCURRENTLY})'
INDEX_BESIDE = f'op.create_index("ix", "book", ["a"], {CONCURRENTLY}, if_not_exists=True)'
FK = 'op.create_foreign_key("fk", "book", "author", ["a"], ["id"])'
CHECK = 'op.create_check_constraint("ck", "book", "a > 0")'
EXCLUDE = 'op.create_exclude_constraint("ex", "book", ("a", "="))'
VALIDATE = sql("ALTER TABLE book VALIDATE CONSTRAINT fk")
NULL = "op.alter_column('book', 'a', nullable=True, existing_type=sa.Integer())"
NOT_NULL = "op.alter_column('book', 'a', nullable=False, existing_type=sa.Integer())"

CASES = [
    Case(
        "index-not-concurrent",
        POSTGRESQL,
        (
            INDEX,
            add("sa.Integer, index=True"),
            sql("create unique index ix on book (a)"),
            'with op.batch_alter_table("book") as book:\n    book.create_index("ix", ["a"])',
        ),
        (
            OUTSIDE + INDEX_BESIDE,
            NEW + INDEX,
            NEW + 'with op.batch_alter_table("book") as book:\n    book.create_index("ix", ["a"])',
            sql('create table if not exists public."book" (a int)') + "\n" + INDEX,
        ),
    ),
    Case("index-not-concurrent", MARIADB, (), (INDEX,)),
    Case(
        "concurrently-in-transaction",
        POSTGRESQL,
        (INDEX_BESIDE, f'op.drop_index("ix", {CONCURRENTLY})', sql("CREATE INDEX CONCURRENTLY ix ON book (a)")),
        (OUTSIDE + INDEX_BESIDE, INDEX, OUTSIDE + f'op.drop_index("ix", {CONCURRENTLY})'),
    ),
    Case(
        "concurrent-without-if-not-exists",
        POSTGRESQL,
        (OUTSIDE + BUILD_BESIDE,),
        (
            OUTSIDE + INDEX_BESIDE,
            OUTSIDE + DROP_BESIDE + "\n    " + BUILD_BESIDE,
        ),
    ),
    Case(
        "drop-index-not-concurrent",
        POSTGRESQL,
        ('op.drop_index("ix", "book")', sql("drop index if exists shop.ix")),
        (OUTSIDE + f'op.drop_index("ix", {CONCURRENTLY})', NEW + INDEX + '\nop.drop_index("ix")'),
    ),
    Case(
        "index-too-wide",
        POSTGRESQL,
        ('op.create_index("ix", "book", ["a", "b", "c", "d"])', sql("create index on book (a, lower(b, c), d, e)")),
        (
            'op.create_index("ix", "book", ["a", "b", "c"])',
            'op.create_index("ix", "book", ["a", "b", "c", "d"], unique=True)',
            sql("create index on book (a, coalesce(b, c, d))"),
        ),
    ),
    Case(
        "index-blocks-writes",
        MARIADB,
        (
            'op.create_index("ix", "book", ["a"], mysql_prefix="FULLTEXT")',
            sql("alter table book add fulltext index ix (a)"),
            sql("create spatial index ix on book (a)"),
        ),
        (INDEX, sql("alter table book add index ix (a)")),
    ),
    Case(
        "change-column-type",
        POSTGRESQL,
        (
            retype("sa.BigInteger()", "sa.Integer()"),
            retype("sa.String(40)"),
            retype("sa.String(10)", "sa.String(20)"),
            retype("sa.Text()", "sa.String(20)", postgresql_using="upper(a)"),
            retype("sa.String(20)", "sa.Text()"),
            retype('sa.String(40, collation="C")', "sa.String(20)"),
            retype("sa.Numeric(12, 3)", "sa.Numeric(10, 2)"),
            retype("sa.Numeric(8, 2)", "sa.Numeric(10, 2)"),
            retype("sa.DateTime(timezone=True)", "sa.DateTime()"),
            sql("alter table book alter column a set data type bigint, alter b drop default"),
        ),
        (
            retype("sa.String(40)", "sa.String(20)"),
            retype("sa.String", "sa.String(20)"),
            retype("sa.Text()", "sa.String(20)"),
            retype("sa.Numeric(12, 2)", "sa.Numeric(10, 2)"),
            retype("sa.Numeric()", "sa.Numeric(10, 2)"),
            retype("sa.Integer()", "sa.Integer()"),
            retype("postgresql.TIMESTAMP(precision=6)", "postgresql.TIMESTAMP(precision=3)"),
            retype("postgresql.BIT(9, varying=True)", "postgresql.BIT(8, varying=True)"),
            retype("postgresql.INET()", "postgresql.CIDR()"),
            'op.alter_column("book", "a", server_default="1")',
        ),
    ),
    Case(
        "change-column-type",
        MARIADB,
        (
            retype("sa.BigInteger()", "sa.Integer()"),
            retype("sa.Text()", "sa.String(20)"),
            retype("sa.String(64)", "sa.String(60)"),
            retype("sa.Numeric(12, 2)", "sa.Numeric(10, 2)"),
            retype('sa.Enum("z", "x", "y")', 'sa.Enum("x", "y")'),
            sql("alter table book modify a bigint"),
        ),
        (
            retype("sa.String(60)", "sa.String(20)"),
            retype("sa.String(400)", "sa.String(300)"),
            retype('sa.Enum("x", "y", "z")', 'sa.Enum("x", "y")'),
        ),
    ),
    Case(
        "set-not-null",
        POSTGRESQL,
        (NOT_NULL, sql("alter table book alter column a set not null")),
        (NOT_NULL[:-1] + ", existing_nullable=False)", NEW + NOT_NULL),
    ),
    Case("set-not-null", MARIADB, (NOT_NULL,), (NULL,)),
    Case(
        "drop-not-null",
        POSTGRESQL,
        (NULL, sql("alter table book alter a drop not null")),
        (NULL[:-1] + ", existing_nullable=True)",),
    ),
    Case(
        "add-required-column",
        SQLITE,
        (add("sa.Integer, nullable=False"), sql("alter table book add new int not null, drop old")),
        (
            add('sa.Integer, nullable=False, server_default="0"'),
            add("sa.Integer"),
            add('sa.Integer, sa.Computed("a + 1"), nullable=False'),
            NEW + add("sa.Integer, nullable=False"),
            sql("alter table book add new int not null default 1"),
            sql("alter table book add new int default 1 -- not null"),
        ),
    ),
    Case(
        "add-column-volatile-default",
        POSTGRESQL,
        (
            add("sa.Uuid, server_default=sa.func.gen_random_uuid()"),
            add("sa.DateTime, server_default=sa.text('clock_timestamp()')"),
            add("sa.Integer, server_default=sa.Sequence('numbers').next_value()"),
            sql("alter table book add new float default random() not null"),
        ),
        (
            add("sa.DateTime, server_default=sa.func.now()"),
            add('sa.String, server_default="random()"'),
            sql("alter table book add new text default 'random()'"),
        ),
    ),
    Case(
        "add-column-volatile-default",
        MARIADB,
        (add("sa.String(36), server_default=sa.text('(uuid())')"),),
        (add("sa.DateTime, server_default=sa.func.now()"),),
    ),
    Case(
        "python-default-ignored-by-ddl",
        SQLITE,
        (add("sa.Integer, default=1"),),
        (add('sa.Integer, default=1, server_default="1"'), NEW + add("sa.Integer, default=1")),
    ),
    Case(
        "add-stored-generated",
        POSTGRESQL,
        (
            add('sa.Integer, sa.Computed("a + 1", persisted=True)'),
            sql("alter table book add new int generated always as (a + 1) stored"),
        ),
        (add("sa.Integer"), NEW + add('sa.Integer, sa.Computed("a + 1", persisted=True)')),
    ),
    Case(
        "add-stored-generated",
        MARIADB,
        (
            add('sa.Integer, sa.Computed("a + 1", persisted=True)'),
            sql("alter table book add new int as (a + 1) persistent"),
        ),
        (add('sa.Integer, sa.Computed("a + 1", persisted=False)'), add('sa.Integer, sa.Computed("a + 1")')),
    ),
    Case(
        "add-autoincrement",
        POSTGRESQL,
        (
            add("sa.BigInteger, sa.Identity()"),
            sql("alter table book add new bigserial"),
            sql("alter table book add new int generated by default as identity"),
        ),
        (add("sa.BigInteger"), NEW + add("sa.BigInteger, sa.Identity()")),
    ),
    Case(
        "add-autoincrement",
        MARIADB,
        (
            add("sa.BigInteger, autoincrement=True, primary_key=True"),
            sql("alter table book add new int auto_increment unique"),
        ),
        (add("sa.BigInteger"),),
    ),
    Case(
        "json-not-jsonb",
        POSTGRESQL,
        (
            add("sa.JSON"),
            'op.create_table("other", sa.Column("a", sa.JSON))',
            sql("create table other (a json not null)"),
            sql("alter table book add new json"),
        ),
        (
            add("postgresql.JSONB"),
            add('sa.JSON().with_variant(postgresql.JSONB(), "postgresql")'),
            sql("create table other (a jsonb)"),
        ),
    ),
    Case("json-not-jsonb", MARIADB, (), (add("sa.JSON"),)),
    Case(
        "add-column-with-fk",
        POSTGRESQL,
        (
            add('sa.Integer, sa.ForeignKey("author.id")'),
            sql("alter table book add new int references author (id)"),
        ),
        (add("sa.Integer"), NEW + add('sa.Integer, sa.ForeignKey("author.id")')),
    ),
    Case("add-column-with-fk", MARIADB, (add('sa.Integer, sa.ForeignKey("author.id")'),), (add("sa.Integer"),)),
    Case(
        "add-column-unique",
        POSTGRESQL,
        (add("sa.Integer, unique=True"), sql("alter table book add new int unique")),
        (add("sa.Integer"), NEW + add("sa.Integer, unique=True")),
    ),
    Case(
        "fk-without-not-valid",
        POSTGRESQL,
        (FK, sql("alter table only book add constraint fk foreign key (a) references author")),
        (
            FK[:-1] + ", postgresql_not_valid=True)",
            NEW + FK,
            sql('alter table "book" add constraint fk foreign key (a) references author not valid'),
        ),
    ),
    Case("fk-without-not-valid", MARIADB, (FK,), (NEW + FK,)),
    Case(
        "check-without-not-valid",
        POSTGRESQL,
        (
            CHECK,
            sql("alter table book add check (a in (1, 2)), drop column b"),
            sql("alter table book add new int check (new > 0)"),
            add('sa.Integer, sa.CheckConstraint("new > 0")'),
        ),
        (CHECK[:-1] + ", postgresql_not_valid=True)", NEW + CHECK),
    ),
    Case("check-without-not-valid", MARIADB, (CHECK,), (NEW + CHECK,)),
    Case(
        "unique-constraint-builds-index",
        POSTGRESQL,
        ('op.create_unique_constraint("uq", "book", ["a"])', sql("alter table book add unique (a)")),
        (
            sql("alter table book add constraint uq unique using index ix"),
            NEW + 'op.create_unique_constraint("uq", "book", ["a"])',
        ),
    ),
    Case(
        "primary-key-builds-index",
        POSTGRESQL,
        ('op.create_primary_key("pk", "book", ["a"])', sql("alter table book add primary key (a)")),
        (
            sql("alter table book add constraint pk primary key using index ix"),
            NEW + 'op.create_primary_key("pk", "book", ["a"])',
        ),
    ),
    Case(
        "exclusion-constraint",
        POSTGRESQL,
        (EXCLUDE, sql("alter table book add constraint ex exclude using gist (a with =)")),
        (NEW + EXCLUDE,),
    ),
    Case(
        "validate-in-same-transaction",
        POSTGRESQL,
        (f"{FK[:-1]}, postgresql_not_valid=True)\n{VALIDATE}",),
        (VALIDATE, f"{OUTSIDE}{FK[:-1]}, postgresql_not_valid=True)\n{VALIDATE}"),
    ),
    Case(
        "rewriting-sql",
        POSTGRESQL,
        (
            sql("vacuum (full) book"),
            sql("CLUSTER book"),
            sql("reindex table book"),
            sql("alter table book set unlogged"),
            sql("alter table book set tablespace fast"),
        ),
        (sql("vacuum book"), sql("reindex table concurrently book"), sql("alter table book set (fillfactor = 70)")),
    ),
    Case(
        "rewriting-sql",
        MARIADB,
        (
            sql("alter table book convert to character set utf8mb4"),
            'op.drop_constraint("pk", "book", type_="primary")',
        ),
        (sql("alter table book comment = 'x'"), 'op.drop_constraint("ck", "book", type_="check")'),
    ),
    Case(
        "drop-table",
        SQLITE,
        ('op.drop_table("book")', sql("drop table if exists book, author")),
        (NEW + 'op.drop_table("book")', sql("drop view book")),
    ),
    Case(
        "drop-column",
        SQLITE,
        (
            'op.drop_column("book", "a")',
            'with op.batch_alter_table("book") as book:\n    book.drop_column("a")',
            sql('alter table "Book" drop "a"'),
        ),
        (NEW + 'op.drop_column("book", "a")', sql("alter table book drop constraint a")),
    ),
    Case(
        "rename-table",
        SQLITE,
        ('op.rename_table("book", "volume")', sql("alter table book rename to volume")),
        (NEW + 'op.rename_table("book", "volume")', sql("alter index ix rename to xi")),
    ),
    Case("rename-table", MARIADB, (sql("rename table book to volume"),), ()),
    Case(
        "rename-column",
        SQLITE,
        ('op.alter_column("book", "a", new_column_name="b")', sql("alter table book rename a to b")),
        (
            NEW + 'op.alter_column("book", "a", new_column_name="b")',
            sql("alter table book rename constraint a to b"),
        ),
    ),
    Case(
        "rename-column", MARIADB, (sql("alter table book change a b int"),), (sql("alter table book change a a int"),)
    ),
    Case("rename-schema", POSTGRESQL, (sql("alter schema shop rename to store"),), (sql("create schema store"),)),
    Case(
        "truncate",
        POSTGRESQL,
        (sql("truncate book restart identity"), sql("TRUNCATE TABLE ONLY book, author")),
        (sql("delete from book where a = 1"), NEW + sql("truncate book")),
    ),
    Case(
        "drop-cascade",
        POSTGRESQL,
        (
            sql("drop table book cascade"),
            sql("truncate book cascade"),
            sql("drop type mood cascade"),
            sql("alter table book drop column a cascade"),
        ),
        (sql("drop table book"), sql("alter table book drop column a"), FK[:-1] + ', ondelete="CASCADE")'),
    ),
    Case(
        "destructive-sql",
        SQLITE,
        (
            sql("drop schema shop"),
            sql("drop database if exists shop"),
            sql("delete from book"),
            sql("delete from book;"),
        ),
        (sql("delete from book where a = 1"), NEW + sql("delete from book")),
    ),
    Case(
        "identifier-too-long",
        POSTGRESQL,
        (
            f'op.create_index("{"x" * 64}", "book", ["a"])',
            f'op.create_table("{"é" * 32}", sa.Column("a", sa.Integer))',
            f'op.add_column("book", sa.Column("{"x" * 64}", sa.Integer))',
        ),
        (f'op.create_index("{"x" * 63}", "book", ["a"])',),
    ),
    Case(
        "identifier-too-long",
        MARIADB,
        (f'op.rename_table("book", "{"x" * 65}")',),
        (f'op.rename_table("book", "{"é" * 64}")',),
    ),
    Case(
        "data-change-in-ddl-revision",
        POSTGRESQL,
        (
            f"{add('sa.Integer')}\n{sql('update book set new = 1')}",
            f"{INDEX}\n{sql('with old as (select 1) delete from author where id in (select * from old)')}",
            f'{INDEX}\nop.bulk_insert(sa.table("author", sa.column("id")), [{{"id": 1}}])',
            f'{INDEX}\nop.execute(sa.table("author", sa.column("id")).update().values(id=1))',
            f"{INDEX}\nop.get_bind().execute(sa.text('insert into author values (1)'))",
        ),
        (
            sql("update book set a = 1"),
            INDEX,
            f"{NEW}{sql('insert into book values (1, 1)')}",
            f"{NEW}{sql('insert into author select id from book')}",
        ),
    ),
    Case("data-change-in-ddl-revision", SQLITE, (), (f"{add('sa.Integer')}\n{sql('update book set new = 1')}",)),
    Case(
        "enum-add-value-in-tx",
        POSTGRESQL,
        (sql("alter type mood add value if not exists 'calm'"),),
        (OUTSIDE + sql("alter type mood add value 'calm'"), sql("alter type mood rename value 'a' to 'b'")),
    ),
    Case(
        "mixed-transactional",
        POSTGRESQL,
        (f"{add('sa.Integer')}\n{OUTSIDE}{INDEX_BESIDE}",),
        (OUTSIDE + INDEX_BESIDE, f"{sql('set lock_timeout = 100')}\n{OUTSIDE}{INDEX_BESIDE}", INDEX),
    ),
    Case(
        "several-ddl-in-revision",
        MARIADB,
        (
            f"{add('sa.Integer')}\n{INDEX}",
            add("sa.Integer, index=True"),
            sql("create table a (id int); create table b (id int)"),
        ),
        (
            INDEX,
            f"{sql('update book set a = 1')}\n{INDEX}",
            sql("alter table book add new int, drop column old"),
            retype("sa.BigInteger()", "sa.Integer()", new_column_name="b"),
        ),
    ),
    Case("several-ddl-in-revision", POSTGRESQL, (), (f"{add('sa.Integer')}\n{INDEX}",)),
    Case(
        "unlintable",
        SQLITE,
        (
            "op.get_bind().execute(sa.text('select 1')).scalar()",
            "if op.get_bind().scalar(sa.text('select 1')) > 0: pass",
            "if op.get_bind().scalar(sa.text('select 1')) == 0: pass",
            "if op.get_bind().scalar(sa.text('select 1')): pass",
            "for row in op.get_bind().execute(sa.text('select 1')): pass",
            "sa.inspect(op.get_bind()).get_table_names()",
            "raise RuntimeError('not today')",
        ),
        (
            "op.get_bind().execute(sa.text('drop view old'))",
            'with op.batch_alter_table("t") as t: t.drop_constraint("c")',
        ),
    ),
    Case(
        "naive-timestamp",
        POSTGRESQL,
        (add("sa.DateTime"), sql("create table other (a timestamp(3))"), sql("alter table book add a timestamp")),
        (add("sa.DateTime(timezone=True)"), add("sa.Date"), sql("create table other (a timestamp with time zone)")),
    ),
    Case("naive-timestamp", MARIADB, (), (add("sa.DateTime"),)),
    Case(
        "int-primary-key",
        POSTGRESQL,
        (
            'op.create_table("other", sa.Column("id", sa.Integer, primary_key=True))',
            'op.create_table("other", sa.Column("id", sa.Integer), sa.PrimaryKeyConstraint("id"))',
            sql("create table other (id serial primary key)"),
        ),
        (NEW, 'op.create_table("other", sa.Column("id", sa.Uuid, primary_key=True))'),
    ),
    Case("int-primary-key", SQLITE, (), ('op.create_table("other", sa.Column("id", sa.Integer, primary_key=True))',)),
    Case(
        "utf8mb3",
        MARIADB,
        (
            'op.create_table("other", sa.Column("a", sa.Text), mysql_charset="utf8")',
            sql("create table other (a text) default charset=utf8mb3"),
        ),
        ('op.create_table("other", sa.Column("a", sa.Text), mysql_charset="utf8mb4")',),
    ),
]
