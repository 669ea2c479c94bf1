"""Each rule is broken by what it is about, and by nothing else."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from stillroom.migrations import RULES, lint
from tests.migrations import shop
from tests.migrations.linting.revisions import CASES, CHECK, INDEX, NOT_NULL, Case, add, sql

# Nothing listens there: the rules need no database.
URLS = {
    "postgresql": "postgresql://127.0.0.1:1/x",
    "mysql": "mysql://127.0.0.1:1/x",
    "sqlite": "sqlite:////nowhere/x.db",
}
UNDO = "raise NotImplementedError('the data are gone')"
DIALECT = "from sqlalchemy.dialects import postgresql\n"


def rules(tmp_path: Path, *bodies: str, backend: str = "postgresql", undo: str = UNDO, **options: Any) -> list[str]:
    """
    Return what is found in revisions, one on the other, in order; each as revision and rule.
    """
    down = None
    for name, body in zip("abcdef", bodies, strict=False):
        path = shop.write(tmp_path / "migrations/main", name, body, undo, down=down)
        path.write_text(
            path.read_text(encoding="utf-8").replace("import sq", f"{DIALECT}import sq", 1), encoding="utf-8"
        )
        down = name
    with shop.databases(tmp_path, URLS[backend], **options) as dbs:
        return [f"{each.revision} {each.rule}" for each in lint(dbs, revisions="all")]


def case_name(case: Case) -> str:
    return f"{case.rule}-{case.backend}"


@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_a_rule_fires_where_it_must_and_only_there(case: Case, tmp_path: Path) -> None:
    found: dict[str, bool] = {}
    for number, body in enumerate([*case.fire, *case.quiet]):
        found[body] = f"a {case.rule}" in rules(tmp_path / str(number), body, backend=case.backend)
    assert found == {**dict.fromkeys(case.fire, True), **dict.fromkeys(case.quiet, False)}


def test_every_rule_has_a_revision_that_fires_and_one_that_does_not() -> None:
    elsewhere = {"still-mapped", "no-downgrade", "waiver"}
    assert {case.rule for case in CASES if case.fire} | elsewhere == set(RULES)
    assert {case.rule for case in CASES if case.quiet} | elsewhere == set(RULES)


@pytest.mark.parametrize("name", sorted(RULES))
def test_a_rule_says_what_happens_and_what_to_do_instead(name: str) -> None:
    rule = RULES[name]
    assert rule.remedy
    assert all(rule.reasons.values())
    assert set(rule.reasons) <= {"any", "postgresql", "mysql", "sqlite"}


@pytest.mark.parametrize(
    ("undo", "fires"),
    [("pass", True), ('"""Nothing."""', True), ("...", True), ("raise RuntimeError", False), (sql("select 1"), False)],
)
def test_a_downgrade_that_does_nothing_is_told(undo: str, fires: bool, tmp_path: Path) -> None:
    assert ("a no-downgrade" in rules(tmp_path, add("sa.Integer"), undo=undo)) is fires


def test_a_missing_downgrade_is_told_and_an_empty_revision_needs_none(tmp_path: Path) -> None:
    path = shop.write(tmp_path / "migrations/main", "a", add("sa.Integer"))
    path.write_text(path.read_text(encoding="utf-8").partition("\n\ndef downgrade")[0], encoding="utf-8")
    with shop.databases(tmp_path, URLS["postgresql"]) as dbs:
        assert [each.rule for each in lint(dbs)] == ["no-downgrade"]
    path.unlink()
    assert rules(tmp_path, "pass", undo="pass") == []


MODELS = {"metadata": "tests.migrations.kinds:models"}  # the table "a" with "id" and "name"


@pytest.mark.parametrize(
    ("body", "fires"),
    [
        ('op.drop_table("a")', True),
        ('op.rename_table("a", "b")', True),
        ('op.drop_column("a", "name")', True),
        ('op.alter_column("a", "name", new_column_name="title")', True),
        (sql('ALTER TABLE "a" DROP COLUMN name'), True),
        ('op.drop_table("a", schema="other")', False),
        ('op.drop_table("b")', False),
        ('op.drop_column("a", "old")', False),
        ('op.alter_column("a", "old", new_column_name="name")', False),
        ('op.rename_table("b", "a")', False),
        ('op.drop_table("a")\nop.create_table("a", sa.Column("id", sa.BigInteger))', False),
        ('op.drop_table("a")\nop.rename_table("new_a", "a")', False),
        ('op.drop_column("a", "name")\nop.add_column("a", sa.Column("name", sa.Text))', False),
    ],
)
def test_what_goes_although_the_models_have_it_is_told(body: str, fires: bool, tmp_path: Path) -> None:
    assert ("a still-mapped" in rules(tmp_path, body, **MODELS)) is fires


def test_what_a_later_revision_makes_again_is_not_lost(tmp_path: Path) -> None:
    back = 'op.add_column("a", sa.Column("name", sa.Text))'
    assert "a still-mapped" not in rules(tmp_path, 'op.drop_column("a", "name")', back, **MODELS)


IS_CHECKED = 'op.create_check_constraint("ck", "book", "a IS NOT NULL", postgresql_not_valid=True)'
VALIDATE = sql("alter table book validate constraint ck")


@pytest.mark.parametrize(
    ("bodies", "fires"),
    [
        ((IS_CHECKED, VALIDATE, NOT_NULL), False),
        ((IS_CHECKED, "pass", NOT_NULL), True),
        ((CHECK, "pass", NOT_NULL), True),
        ((IS_CHECKED, f'{VALIDATE}\nop.drop_constraint("ck", "book", "check")', NOT_NULL), True),
    ],
)
def test_not_null_is_safe_after_a_validated_check(bodies: tuple[str, ...], fires: bool, tmp_path: Path) -> None:
    assert ("c set-not-null" in rules(tmp_path, *bodies)) is fires


def test_an_operation_of_another_package_is_read_from_its_sql(tmp_path: Path) -> None:
    body = """
    from alembic.operations import MigrateOperation, Operations
    class Cluster(MigrateOperation):
        pass
    Operations.implementation_for(Cluster)(lambda operations, operation: operations.execute("CLUSTER book"))
    op.invoke(Cluster())
    """
    assert rules(tmp_path, body) == ["a rewriting-sql"]


@pytest.mark.parametrize("backend", ["postgresql", "sqlite"])
def test_what_a_batch_does_is_told_once(backend: str, tmp_path: Path) -> None:
    body = 'with op.batch_alter_table("book") as book:\n    book.drop_column("a")\n    book.drop_column("b")'
    assert rules(tmp_path, body, backend=backend) == ["a drop-column", "a drop-column"]


def test_what_bypasses_the_operations_is_read_from_its_sql(tmp_path: Path) -> None:
    body = """
    new = sa.Table("new", sa.MetaData(), sa.Column("id", sa.BigInteger, primary_key=True))
    sa.schema.DropTable(sa.Table("old", sa.MetaData()))
    new.create(op.get_bind())
    op.create_index("ix", "new", ["id"])
    """
    assert rules(tmp_path, body) == []


def test_what_stands_before_an_error_is_told_as_well(tmp_path: Path) -> None:
    assert rules(tmp_path, f"{INDEX}\nraise RuntimeError") == ["a index-not-concurrent", "a unlintable"]


def test_the_page_has_every_rule() -> None:
    page = (Path(__file__).parents[3] / "docs/migration-lint.md").read_text(encoding="utf-8")
    assert set(re.findall(r"`([a-z0-9-]+)`", page.partition("## The rules")[2])) >= set(RULES)
