"""
A history of nine revisions as projects have it, and the models that it leads to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import Boolean, Column, DateTime, ForeignKey, Index, Integer, MetaData, String, Table, Text, false

from tests.migrations import shop

if TYPE_CHECKING:
    from pathlib import Path

ENV = """
from alembic import context
from sqlalchemy import engine_from_config, pool

section = context.config.get_section(context.config.config_ini_section, {})
engine = engine_from_config(section, prefix="sqlalchemy.", poolclass=pool.NullPool)
with engine.connect() as connection:
    context.configure(connection=connection, target_metadata=None)
    with context.begin_transaction():
        context.run_migrations()
"""
SETTINGS_ENV = """
from stillroom import Databases
from stillroom.migrations import run_env

run_env(Databases(), "main")
"""

models = MetaData()
Table(
    "account",
    models,
    Column("id", Integer, primary_key=True),
    Column("email", String(120), nullable=False),
    Column("name", String(80)),
    Column("active", Boolean, server_default=false(), nullable=False),
    Index("ix_account_email", "email", unique=True),
)
Table(
    "post",
    models,
    Column("id", Integer, primary_key=True),
    Column("account_id", Integer, ForeignKey("account.id", name="fk_post_account"), nullable=False),
    Column("title", String(200), nullable=False),
    Column("slug", String(200), nullable=False),
    Column("body", Text),
    Column("published_at", DateTime),
    Index("ix_post_slug", "slug"),
)
Table("tag", models, Column("id", Integer, primary_key=True), Column("label", String(40), nullable=False))

CREATE_USER = """
op.create_table(
    "user",
    sa.Column("id", sa.Integer(), nullable=False),
    sa.Column("email", sa.String(length=120), nullable=True),
    sa.Column("password", sa.String(length=60), nullable=True),
    sa.PrimaryKeyConstraint("id"),
)
"""
CREATE_POST = """
op.create_table(
    "post",
    sa.Column("id", sa.Integer(), nullable=False),
    sa.Column("account_id", sa.Integer(), nullable=False),
    sa.Column("title", sa.String(length=100), nullable=False),
    sa.ForeignKeyConstraint(["account_id"], ["account.id"], name="fk_post_account"),
    sa.PrimaryKeyConstraint("id"),
)
op.execute("insert into account (id, email) values (1, 'ada@example.org')")
op.execute("insert into post (id, account_id, title) values (1, 1, 'First post')")
"""
EMAIL = """
with op.batch_alter_table("account") as batch:
    batch.alter_column("email", existing_type=sa.String(length=120), nullable=False)
    batch.create_index("ix_account_email", ["email"], unique=True)
    batch.drop_column("password")
"""
NO_EMAIL = """
with op.batch_alter_table("account") as batch:
    batch.drop_index("ix_account_email")
    batch.alter_column("email", existing_type=sa.String(length=120), nullable=True)
    batch.add_column(sa.Column("password", sa.String(length=60), nullable=True))
"""
SLUG = """
op.add_column("post", sa.Column("slug", sa.String(length=200), nullable=True))
post = sa.table("post", sa.column("id", sa.Integer), sa.column("title", sa.String), sa.column("slug", sa.String))
connection = op.get_bind()
for row in connection.execute(sa.select(post.c.id, post.c.title)).all():
    slug = row.title.lower().replace(" ", "-")
    connection.execute(post.update().where(post.c.id == row.id).values(slug=slug))
with op.batch_alter_table("post") as batch:
    batch.alter_column("slug", existing_type=sa.String(length=200), nullable=False)
    batch.create_index("ix_post_slug", ["slug"])
"""
NO_SLUG = """
with op.batch_alter_table("post") as batch:
    batch.drop_index("ix_post_slug")
    batch.drop_column("slug")
"""
BODY = """
with op.batch_alter_table("post") as batch:
    batch.add_column(sa.Column("body", sa.Text(), nullable=True))
    batch.alter_column("title", existing_type=sa.String(length=100), type_=sa.String(200), existing_nullable=False)
"""
NO_BODY = """
with op.batch_alter_table("post") as batch:
    batch.alter_column("title", existing_type=sa.String(length=200), type_=sa.String(100), existing_nullable=False)
    batch.drop_column("body")
"""
TAG = """
op.create_table(
    "tag",
    sa.Column("id", sa.Integer(), nullable=False),
    sa.Column("label", sa.String(length=40), nullable=False),
    sa.PrimaryKeyConstraint("id"),
)
"""


def write_history(versions: Path) -> None:
    """
    Write nine revisions: tables, a rename, batches, a change of data, two branches and what joins them.
    """
    active = 'op.add_column("account", sa.Column("active", sa.Boolean(), server_default=sa.false(), nullable=False))'
    steps = [
        ("0001", None, CREATE_USER, 'op.drop_table("user")'),
        ("0002", "0001", 'op.rename_table("user", "account")', 'op.rename_table("account", "user")'),
        ("0003", "0002", CREATE_POST, 'op.drop_table("post")\nop.execute("delete from account")'),
        ("0004", "0003", EMAIL, NO_EMAIL),
        ("0005", "0004", BODY, NO_BODY),
        ("0006", "0005", SLUG, NO_SLUG),
        ("0007a", "0006", f'{active}\nop.add_column("account", sa.Column("name", sa.String(80)))', DROP),
        (
            *("0007b", "0006"),
            f'op.add_column("post", sa.Column("published_at", sa.DateTime()))\n{TAG}',
            'op.drop_table("tag")\nwith op.batch_alter_table("post") as batch:\n    batch.drop_column("published_at")',
        ),
        ("0008", ("0007a", "0007b"), "pass", "pass"),
    ]
    for name, down, up, undo in steps:
        shop.write(versions.parent, str(name), str(up), str(undo), down=down)


DROP = """
with op.batch_alter_table("account") as batch:
    batch.drop_column("name")
    batch.drop_column("active")
"""
