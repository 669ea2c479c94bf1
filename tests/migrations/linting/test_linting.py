"""Which revisions are looked at, where a hazard is, and what a waiver waives."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from stillroom.migrations import MigrationError, NoMigrations, lint, upgrade
from tests.migrations import shop

if TYPE_CHECKING:
    from stillroom import Databases

NOWHERE = "postgresql://127.0.0.1:1/x"
DROP = 'op.drop_table("old_{}")'


def write(tmp_path: Path, *bodies: str, head: str = "") -> None:
    down = None
    for name, body in zip("abc", bodies, strict=False):
        path = shop.write(tmp_path / "migrations/main", name, body, "raise RuntimeError", down=down)
        path.write_text(head + path.read_text(encoding="utf-8"), encoding="utf-8")
        down = name


def found(dbs: Databases, **options: str) -> list[str]:
    return [f"{each.revision} {each.rule}" for each in lint(dbs, **options)]  # type: ignore[arg-type]  # any options


def test_only_what_the_database_does_not_have_is_looked_at(any_database: str, tmp_path: Path) -> None:
    write(tmp_path, 'op.execute("drop table if exists old_a")', 'op.execute("drop table if exists old_b")')
    with shop.databases(tmp_path, any_database) as dbs:
        upgrade(dbs, revision="a")
        assert found(dbs) == ["b drop-table"]
        assert found(dbs, revisions="all") == ["a drop-table", "b drop-table"]
        upgrade(dbs)
        assert found(dbs) == []
        assert found(dbs, since="a") == ["b drop-table"]
        assert found(dbs, since="b") == []


def test_all_are_looked_at_where_the_database_does_not_answer(tmp_path: Path) -> None:
    write(tmp_path, DROP.format(1), DROP.format(2))
    with shop.databases(tmp_path, NOWHERE) as dbs:
        assert found(dbs) == ["a drop-table", "b drop-table"]
        with pytest.raises(MigrationError, match="Can't locate revision identified by 'nowhere'"):
            lint(dbs, since="nowhere")


def test_a_directory_that_is_not_there_is_told(tmp_path: Path) -> None:
    with shop.databases(tmp_path, NOWHERE) as dbs, pytest.raises(NoMigrations, match="stillroom init"):
        lint(dbs)


def test_a_hazard_is_where_the_operation_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = """
    def gone(name):
        op.drop_table(
            name
        )
    gone("old")
    with op.batch_alter_table("book") as book:
        book.drop_column("a")
    [op.execute("drop table even_older")]
    """
    write(tmp_path, body)
    path = Path("migrations/main/versions/a.py")
    lines = (tmp_path / path).read_text(encoding="utf-8").splitlines()
    monkeypatch.chdir(tmp_path)
    with shop.databases(tmp_path, NOWHERE) as dbs:
        hazards = lint(dbs)
    assert {each.path for each in hazards} == {str(path)}
    assert [lines[each.line - 1].strip() for each in hazards] == [
        "op.drop_table(",
        'book.drop_column("a")',
        '[op.execute("drop table even_older")]',
    ]
    assert hazards[0].what == "drop table old"
    assert hazards[2].what == "drop table even_older"


def test_no_password_of_a_statement_is_shown(tmp_path: Path) -> None:
    write(
        tmp_path,
        """op.execute("drop database x -- 'tiger'"); op.execute("drop schema y; alter role z password 'lion'")""",
    )
    with shop.databases(tmp_path, NOWHERE) as dbs:
        shown = str(lint(dbs))
    assert "tiger" not in shown
    assert "lion" not in shown


WAIVED = [
    'op.drop_table("old")  # stillroom: allow drop-table -- nobody reads it since version 7',
    '# stillroom: allow drop-table -- nobody reads it\n# since version 7\nop.drop_table("old")',
    'op.drop_table(\n    "old",  # stillroom: allow drop-table -- nobody reads it\n)',
    'op.execute("drop table old cascade")  # stillroom: allow drop-table, drop-cascade -- nobody reads it',
    'if True:  # stillroom: allow drop-table -- nobody reads them\n    op.drop_table("a")\n    op.drop_table("b")',
]


@pytest.mark.parametrize("body", WAIVED)
def test_a_waiver_with_a_reason_waives_the_rule_for_its_statement(body: str, tmp_path: Path) -> None:
    write(tmp_path, body)
    with shop.databases(tmp_path, NOWHERE) as dbs:
        assert found(dbs) == []


def test_a_waiver_outside_of_functions_is_for_the_whole_revision(tmp_path: Path) -> None:
    write(tmp_path, 'op.drop_table("a")\nop.drop_table("b")', head="# stillroom: allow drop-table -- never released\n")
    with shop.databases(tmp_path, NOWHERE) as dbs:
        assert found(dbs) == []


def test_a_waiver_is_for_its_own_statement_and_rule_alone(tmp_path: Path) -> None:
    waiver = "  # stillroom: allow drop-table -- nobody reads it"
    write(tmp_path, f'op.drop_table("old"){waiver}\nop.drop_table("older")\nop.drop_column("book", "a"){waiver}')
    with shop.databases(tmp_path, NOWHERE) as dbs:
        assert found(dbs) == ["a drop-table", "a drop-column", "a waiver"]


@pytest.mark.parametrize(
    "body",
    [
        '# stillroom: allow drop-table -- nobody reads it\nop.drop_column("book", "a")\nop.drop_table("old")',
        '# stillroom: allow drop-table -- nobody reads it\n\nop.drop_table("old")\nop.drop_column("book", "a")',
        'op.drop_table("old")\n# stillroom: allow drop-table -- nobody reads it\nop.drop_column("book", "a")',
        'op.drop_table("old")\nop.drop_column("book", "a")\n# stillroom: allow drop-table -- nobody reads it',
    ],
)
def test_a_waiver_that_stands_alone_is_for_the_statement_right_below(body: str, tmp_path: Path) -> None:
    write(tmp_path, body)
    with shop.databases(tmp_path, NOWHERE) as dbs:
        assert sorted(found(dbs)) == ["a drop-column", "a drop-table", "a waiver"]


@pytest.mark.parametrize(
    ("comment", "says"),
    [
        ("stillroom: allow drop-table", "the waiver of 'drop-table' has no reason, so it does not count"),
        ("stillroom: allow drop-table --", "the waiver of 'drop-table' has no reason, so it does not count"),
        ("stillroom: allow drop-tables -- old", "there is no rule 'drop-tables'"),
        ("stillroom: ignore drop-table", "'ignore drop-table' is not a waiver"),
        ("stillroom: allow drop-column -- old", "nothing here breaks the rule 'drop-column', so its waiver is to go"),
    ],
)
def test_a_waiver_that_is_not_right_does_not_count_and_is_told(comment: str, says: str, tmp_path: Path) -> None:
    write(tmp_path, f'op.drop_table("old")  # {comment}')
    with shop.databases(tmp_path, NOWHERE) as dbs:
        assert [(each.rule, each.what) for each in lint(dbs)] == [("drop-table", "drop table old"), ("waiver", says)]


def test_every_database_is_looked_at(tmp_path: Path) -> None:
    for name in ("one", "two"):
        shop.write(tmp_path / "migrations" / name, "a", DROP.format(name), "raise RuntimeError")
    from stillroom import Databases

    given = shop.settings(tmp_path, {"one": NOWHERE, "two": "mysql://127.0.0.1:1/x"}) | {"default": "one"}
    with Databases(given) as dbs:
        assert sorted((each.database, each.what) for each in lint(dbs)) == [
            ("one", "drop table old_one"),
            ("two", "drop table old_two"),
        ]
        assert [each.database for each in lint(dbs, "two")] == ["two"]
