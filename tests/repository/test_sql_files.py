"""
Files of SQL: named queries that stand where a `text()` does.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest

from stillroom.errors import InvalidSQLFile, MissingExtra, UnknownQuery
from stillroom.repository.results.sql import load_sql
from tests.repository.models import User
from tests.repository.test_records import PlainUser

if TYPE_CHECKING:
    from pathlib import Path

    from tests.repository.worlds import Place

FILE = """
-- name: grown_ups(age)
-- Everybody who is at least that old.
-- The oldest come first.
select id, name, email, age from users where age >= :age order by age desc;

-- name: everybody
/* nothing to say */
select id, name, email, age, ':no' || '12:30' as quoted from users order by id

-- name: rename!
update users set name = :name where id = :id
"""


@pytest.fixture
def queries(tmp_path: Path) -> Any:
    file = tmp_path / "users.sql"
    file.write_text(FILE, encoding="utf-8")
    return load_sql(file)


def test_a_query_stands_wherever_plain_sql_does(shop: Place, queries: Any) -> None:
    with shop.unit() as uow:
        users = shop.repository(User, uow)
        assert [each["name"] for each in users.rows(queries.grown_ups, age=70)] == ["Grace", "Edsger"]
        assert users.records(PlainUser, queries.grown_ups, age=80) == [PlainUser("Grace", 2)]
        assert (
            users.json(queries.grown_ups, age=80) == b'[{"id":2,"name":"Grace","email":"grace@example.org","age":85}]'
        )
        assert [each.name for each in users.list(queries.grown_ups, age=80)] == ["Grace"]
        assert users.count(queries.grown_ups, age=70) == 2


def test_a_query_runs_on_a_session_too(sqlite_shop: Place, queries: Any) -> None:
    with sqlite_shop.unit() as uow:
        uow.main.execute(queries.rename, {"name": "Lovelace", "id": 1})
        assert uow.main.get(User, 1).name == "Lovelace"


def test_a_query_says_what_it_is(queries: Any) -> None:
    assert list(queries) == ["grown_ups", "everybody", "rename"]
    assert queries.grown_ups.__doc__ == "Everybody who is at least that old.\nThe oldest come first."
    assert queries["rename"].parameters == ("name", "id")
    assert repr(queries.grown_ups) == "<NamedQuery grown_ups(age)>"
    assert "grown_ups" in dir(queries)


def test_a_colon_in_quotes_is_no_parameter(sqlite_shop: Place, queries: Any) -> None:
    assert queries.everybody.parameters == ()
    with sqlite_shop.unit() as uow:
        found = sqlite_shop.repository(User, uow).rows(queries.everybody)
    assert found[0]["quoted"] == ":no12:30"


@pytest.mark.parametrize(
    ("values", "message"),
    [({}, "lacks 'age'; its parameters are 'age'"), ({"age": 1, "agee": 2}, "has no 'agee'; its parameters are 'age'")],
)
def test_wrong_parameters_are_named(sqlite_shop: Place, queries: Any, values: dict[str, int], message: str) -> None:
    with sqlite_shop.unit() as uow, pytest.raises(TypeError, match=message):
        sqlite_shop.repository(User, uow).rows(queries.grown_ups, **values)


def test_an_unknown_query_names_the_nearest(queries: Any) -> None:
    with pytest.raises(UnknownQuery, match=r"no query 'grown_up'; did you mean 'grown_ups'\?"):
        queries.grown_up  # noqa: B018  # asking is what fails
    with pytest.raises(UnknownQuery, match="it has 'grown_ups', 'everybody', 'rename'"):
        queries["zzz"]
    assert not hasattr(queries, "zzz")
    assert queries.get("zzz") is None


def test_a_directory_gives_names_with_dots(tmp_path: Path) -> None:
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / "daily.sql").write_text("-- name: sums\nselect 1 as one", encoding="utf-8")
    (tmp_path / "users.sql").write_text(FILE, encoding="utf-8")
    queries = load_sql(tmp_path)
    assert [*queries] == ["reports.daily.sums", "users.grown_ups", "users.everybody", "users.rename"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("-- name: two words\nselect 1", "two words"),
        ("-- name: nothing\n", "empty query"),
        ("-- name: a\nselect 1\n-- name: a\nselect 2", "two queries with the name 'a'"),
        ("-- name: a(x)\nselect :y", "undeclared parameter"),
    ],
)
def test_a_wrong_file_is_refused_with_its_path(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "wrong.sql"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(InvalidSQLFile, match=message) as caught:
        load_sql(file)
    assert "wrong.sql" in str(caught.value)


def test_a_missing_file_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_sql(tmp_path / "none.sql")


def test_without_aiosql_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "users.sql"
    file.write_text(FILE, encoding="utf-8")
    for name in ("aiosql", "aiosql.query_loader"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtra, match=r"stillroom\[sql\]"):
        load_sql(file)
