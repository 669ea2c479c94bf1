"""
What is refused before anything is connected to.
"""

from __future__ import annotations

import re
import tempfile
from typing import TYPE_CHECKING, Any

import pytest

from stillroom import Databases, DatabaseSettings
from stillroom.testing.errors import NotATestDatabase
from stillroom.testing.guard import check
from stillroom.testing.options import TestOptions
from stillroom.testing.provisioning import collect_garbage, mark_environment, provide
from tests.testing.databases.support import Application, execute, exists, names_on

if TYPE_CHECKING:
    from pathlib import Path

    from pytest import MonkeyPatch  # noqa: PT013  # the name is short and only for types

PG = "postgresql://127.0.0.1:1"  # nobody listens there: a connection would be another error


def checked(url: str, *, environ: dict[str, str] | None = None, given: Any = None, **options: Any) -> list[str]:
    """
    Check one database, and return what was told.
    """
    told: list[str] = []
    settings = DatabaseSettings.from_url(url, **(given or {}))
    check({"main": settings}, TestOptions(notice=told.append, **options), environ or {})
    return told


def refused(url: str, **keywords: Any) -> str:
    with pytest.raises(NotATestDatabase) as caught:
        checked(url, **keywords)
    return str(caught.value)


@pytest.mark.parametrize("name", ["shop", "latest", "contest", "social", "postgres", "production"])
def test_a_name_without_a_word_for_tests_is_refused_and_named(name: str) -> None:
    said = refused(f"{PG}/{name}")
    assert repr(name) in said
    assert f"allowed_databases=({name!r},)" in said


@pytest.mark.parametrize("name", ["shop_test", "test-shop", "ci", "e2e_shop"])
def test_a_name_with_a_word_for_tests_is_taken(name: str) -> None:
    checked(f"{PG}/{name}")
    checked(f"mysql://root@localhost/{name}")


def test_the_exact_name_allows_a_database() -> None:
    told = checked(f"{PG}/shop", allowed_databases=("shop",))
    assert "exact name" in told[0]
    assert "'shop2'" in refused(f"{PG}/shop2", allowed_databases=("shop",))


def test_a_url_without_a_name_is_refused() -> None:
    assert "names no database" in refused("postgresql://127.0.0.1")


@pytest.mark.parametrize("argument", ["dbname", "database"])
def test_a_name_hidden_in_an_argument_is_refused(argument: str) -> None:
    assert "'shop'" in refused(f"{PG}/shop_test?{argument}=shop")
    assert "'shop'" in refused(f"{PG}/shop_test", given={"connect_args": {argument: "shop"}})


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST.", "127.0.0.1", "127.8.8.8", "[::1]", "db.localhost", "ip6-localhost", ""]
)
def test_a_local_host_is_taken(host: str) -> None:
    checked(f"postgresql://{host}/shop_test")


@pytest.mark.parametrize("host", ["db", "localhost.example.com", "10.0.0.1", "0.0.0.0", "128.0.0.1", "[::2]"])
def test_another_host_is_refused_and_named(host: str) -> None:
    bare = host.strip("[]")
    said = refused(f"postgresql://u:geheim@{host}/shop_test")
    assert f"allowed_hosts=({bare!r},)" in said
    assert "geheim" not in said


def test_a_mapped_address_is_what_it_maps_to() -> None:
    checked("postgresql://[::ffff:127.0.0.1]/shop_test")
    assert "10.0.0.1" in refused("postgresql://[::ffff:10.0.0.1]/shop_test")


def test_a_host_can_be_allowed_by_name_with_or_without_its_port() -> None:
    checked("postgresql://db/shop_test", allowed_hosts=("db",))
    checked("postgresql://DB:5433/shop_test", allowed_hosts=("db:5433",))
    refused("postgresql://db:5432/shop_test", allowed_hosts=("db:5433",))


def test_an_empty_name_such_as_that_of_an_unset_variable_allows_no_host() -> None:
    assert "'db'" in refused("postgresql://db/shop_test", allowed_hosts=("",))


@pytest.mark.parametrize("path", ["/var/run/postgresql", "%2Ftmp"])
def test_a_socket_is_local(path: str) -> None:
    checked(f"postgresql:///shop_test?host={path}")
    checked("mysql://root@/shop_test?unix_socket=/tmp/mysqld.sock")


@pytest.mark.parametrize("query", ["host=db", "host=localhost,db", "host=localhost:1&host=db:1", "hostaddr=10.0.0.1"])
def test_a_host_in_an_argument_counts(query: str) -> None:
    assert "is not this machine" in refused(f"postgresql://localhost/shop_test?{query}")


@pytest.mark.parametrize(
    ("url", "arguments", "named"),
    [
        ("postgresql:///shop_test", {"service": "big"}, "service=big"),
        ("postgresql:///shop_test", {"conninfo": "host=db"}, "conninfo=host=db"),
        ("mysql://root@localhost/shop_test", {"read_default_file": "/etc/my.cnf"}, "read_default_file=/etc/my.cnf"),
    ],
)
def test_a_file_that_may_lead_anywhere_is_allowed_by_name_only(url: str, arguments: Any, named: str) -> None:
    assert named in refused(url, given={"connect_args": arguments})
    checked(url, given={"connect_args": arguments}, allowed_hosts=(named,))


@pytest.mark.parametrize(("variable", "value"), [("PGHOST", "db"), ("PGHOSTADDR", "10.0.0.1"), ("PGSERVICE", "big")])
def test_what_libpq_takes_from_the_environment_counts(variable: str, value: str) -> None:
    assert variable in refused("postgresql:///shop_test", environ={variable: value})
    checked("mysql://root@/shop_test", environ={variable: value})


def test_only_an_address_in_the_environment_goes_before_the_host_of_the_url() -> None:
    checked("postgresql://localhost/shop_test", environ={"PGHOST": "db", "PGSERVICE": "big"})
    assert "PGHOSTADDR" in refused("postgresql://localhost/shop_test", environ={"PGHOSTADDR": "10.0.0.1"})
    checked("postgresql://localhost/shop_test", environ={"PGHOSTADDR": "127.0.0.1"})


@pytest.mark.parametrize("key", ["replicas", "admin_url", "migration_url"])
def test_every_url_of_a_database_is_looked_at(key: str) -> None:
    url = "postgresql://elsewhere/shop_test"
    said = refused("postgresql://localhost/shop_test", given={key: [url] if key == "replicas" else url})
    assert key in said
    assert "'elsewhere'" in said


@pytest.mark.parametrize("variable", ["ENV", "ENVIRONMENT", "FLASK_ENV", "APP_ENVIRONMENT", "STAGE", "APP_SETTINGS"])
@pytest.mark.parametrize("value", ["production", "Prod", "live", "eu-prod"])
def test_an_environment_of_production_is_refused_and_named(variable: str, value: str) -> None:
    said = refused(f"{PG}/shop_test", environ={variable: value})
    assert variable in said
    assert repr(value) in said
    assert "sqlite" in refused("sqlite://", environ={variable: value})


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("FLASK_ENV", "development"),
        ("ENV", "non-prod"),
        ("VIRTUAL_ENV", "/srv/production/.venv"),
        ("GREETING", "production"),
        ("INVENTORY", "live"),
    ],
)
def test_other_variables_say_nothing(variable: str, value: str) -> None:
    checked(f"{PG}/shop_test", environ={variable: value})


def test_the_exact_name_allows_a_database_in_an_environment_of_production() -> None:
    checked(f"{PG}/shop_test", environ={"ENV": "production"}, allowed_databases=("shop_test",))


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "sqlite:///file:x?mode=memory&uri=true"])
def test_a_database_in_memory_is_taken(url: str) -> None:
    checked(url)


@pytest.mark.parametrize("path", ["test.db", "shop.test.db", "tests/shop.db", "file:tests/shop.db?uri=true"])
def test_a_file_that_says_so_is_taken(path: str) -> None:
    checked(f"sqlite:///{path}")


@pytest.mark.parametrize("path", ["shop.db", "latest.db", "/srv/social/shop.db", "file:shop.db?uri=true"])
def test_a_file_that_does_not_is_refused(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")  # the project itself may be below the temporary directory
    assert "none of the words" in refused(f"sqlite:///{path}")
    name = path.partition("?")[0]
    checked(f"sqlite:///{path}", allowed_databases=(name,))


def test_a_file_below_the_temporary_directory_is_taken() -> None:
    inside = tempfile.gettempdir()
    checked(f"sqlite:///{inside}/x/shop.db")
    assert "none of the words" in refused(f"sqlite:///{inside}/../srv/shop.db")


def test_it_tells_what_was_resolved_without_secrets() -> None:
    (told,) = checked("postgresql://u:geheim@localhost/shop_test")
    assert "shop_test" in told
    assert "localhost" in told
    assert "geheim" not in told


@pytest.mark.parametrize("run", [provide, collect_garbage])
def test_nothing_is_connected_to_before_all_are_checked(run: Any) -> None:
    databases = Databases({"databases": {"a": {"url": f"{PG}/a_test"}, "b": {"url": f"{PG}/shop"}}, "default": "a"})
    with pytest.raises(NotATestDatabase, match=re.escape("'b'")):
        with run(databases, TestOptions()):
            pass


def test_the_environment_of_this_process_is_looked_at(monkeypatch: MonkeyPatch) -> None:
    monkeypatch.setenv("FLASK_ENV", "production")
    with pytest.raises(NotATestDatabase, match="FLASK_ENV"):
        with provide(Databases({"databases": {"main": {"url": "sqlite://"}}}), TestOptions()):
            pass


def test_a_database_that_is_marked_as_production_is_refused(any_database: str, tmp_path: Path) -> None:
    url = any_database
    if url.startswith("sqlite"):
        execute(url, "create table x (id integer)")
    application = Application(tmp_path, url)
    with application.databases() as dbs:
        mark_environment(dbs.main, "production")
        before = names_on(url)
        with pytest.raises(NotATestDatabase, match="marked 'production'"):
            with provide(dbs, TestOptions()):
                pass
        with pytest.raises(NotATestDatabase, match="marked 'production'"):
            collect_garbage(dbs, TestOptions())
        assert application.runs == 0
        assert names_on(url) == before


@pytest.mark.parametrize("allowed", [False, True])
def test_another_mark_or_the_exact_name_lets_it_pass(sqlite_database: str, tmp_path: Path, *, allowed: bool) -> None:
    application = Application(tmp_path, sqlite_database)
    name = sqlite_database.removeprefix("sqlite:///")
    with application.databases() as dbs:
        mark_environment(dbs.main, "production")
        if not allowed:
            mark_environment(dbs.main, "test")
        with provide(dbs, TestOptions(allowed_databases=(name,) if allowed else ())) as made:
            assert exists(made["main"].url)


@pytest.mark.parametrize("path", ["/srv/tests/../shop.db", "tests/../shop.db", "/srv/shop/e2e/./../shop.db"])
def test_a_directory_that_the_path_leaves_again_says_nothing(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    assert "the path" in refused(f"sqlite:///{path}")
