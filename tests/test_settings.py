"""
Tests of the settings: sources and their order, profiles, variables, errors, secrets.
"""

from __future__ import annotations

import copy
import pickle
import traceback
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from sqlalchemy.engine import URL, make_url

from stillroom.errors import SettingsError, UnknownDatabase
from stillroom.settings import RESERVED_NAMES, DatabaseSettings, Settings
from stillroom.settings.schema import DATABASE_KEYS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

SECRET = "s3cr3t"
PG = "postgresql://shop@db/shop"


def made(
    databases: Mapping[str, Any], environ: Mapping[str, str] | None = None, profile: str | None = None, **top: Any
) -> Settings:
    return Settings.from_mapping({"databases": databases, **top}, environ=environ or {}, profile=profile)


def refused(
    databases: Mapping[str, Any], environ: Mapping[str, str] | None = None, profile: str | None = None, **top: Any
) -> str:
    with pytest.raises(SettingsError) as caught:
        made(databases, environ, profile, **top)
    return str(caught.value)


def main(environ: Mapping[str, str] | None = None, **keys: Any) -> DatabaseSettings:
    return made({"main": {"url": PG, **keys}}, environ)["main"]


def test_the_keys_are_the_fields() -> None:
    assert [*DATABASE_KEYS] == [field.name for field in msgspec.structs.fields(DatabaseSettings)]


# Sources


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_stillroom_toml_comes_before_pyproject(directory: Path) -> None:
    (directory / "stillroom.toml").write_text("[databases.main]\nurl = 'sqlite:///own.db'")
    (directory / "pyproject.toml").write_text("[tool.stillroom.databases.main]\nurl = 'sqlite:///project.db'")
    assert Settings.load(environ={})["main"].url.database == "own.db"


def test_pyproject_is_read_where_there_is_no_stillroom_toml(directory: Path) -> None:
    (directory / "pyproject.toml").write_text("[tool.stillroom.databases.main]\nurl = 'sqlite:///project.db'")
    assert Settings.load(environ={})["main"].url.database == "project.db"


def test_a_pyproject_of_something_else_says_nothing(directory: Path) -> None:
    (directory / "pyproject.toml").write_text("[tool.other]\nx = 1")
    assert Settings.load(environ={"DATABASE_URL": "sqlite:///x.db"}).default == "main"


def test_the_variable_names_the_file(directory: Path) -> None:
    (directory / "stillroom.toml").write_text("[databases.main]\nurl = 'sqlite:///own.db'")
    (directory / "other.toml").write_text("[databases.main]\nurl = 'sqlite:///other.db'")
    assert Settings.load(environ={"STILLROOM_CONFIG": "other.toml"})["main"].url.database == "other.db"


def test_the_argument_comes_before_the_variable(directory: Path) -> None:
    (directory / "own.toml").write_text("[databases.main]\nurl = 'sqlite:///own.db'")
    assert Settings.load("own.toml", environ={"STILLROOM_CONFIG": "missing.toml"})["main"].url.database == "own.db"


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("missing.toml", None, "cannot be read: No such file"),
        ("bad.toml", b"x = ", "not valid TOML"),
        ("bad.toml", b"\xff", "not UTF-8 at byte 0"),
        ("x.ini", b"", "Settings.from_ini"),
        ("pyproject.toml", b"[tool.x]\ny = 1", "no table [tool.stillroom]"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(directory: Path, name: str, content: bytes | None, reason: str) -> None:
    if content is not None:
        (directory / name).write_bytes(content)
    with pytest.raises(SettingsError) as caught:
        Settings.load(name, environ={})
    assert caught.value.path == name
    assert reason in str(caught.value)


def test_database_url_alone_is_enough(directory: Path) -> None:
    settings = Settings.load(environ={"DATABASE_URL": "postgres://u:p@h/d"})
    assert settings.default == "main"
    assert settings["main"].url == make_url("postgresql://u:p@h/d")


def test_the_process_environment_is_the_default(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "sqlite:///env.db")
    assert Settings.load()["main"].url.database == "env.db"


def test_database_url_supplies_the_default_database_without_a_url() -> None:
    settings = made({"shop": {"pool_size": 3}, "log": {"url": "sqlite:///l", "role": "logger"}}, {"DATABASE_URL": PG})
    assert settings["shop"].url == make_url(PG)
    assert settings["shop"].pool_size == 3


def test_a_url_in_the_file_wins_over_database_url() -> None:
    assert made({"main": {"url": PG}}, {"DATABASE_URL": "sqlite:///x"})["main"].url == make_url(PG)


def test_database_url_is_taken_as_it_is() -> None:
    url = made({}, {"DATABASE_URL": "postgresql://u:${x}@h/d"})["main"].url
    assert url.password == "${x}"


def test_database_url_makes_the_named_default() -> None:
    assert [*made({}, {"DATABASE_URL": PG}, default="shop")] == ["shop"]


def test_the_variable_of_a_database_overrides_its_url() -> None:
    settings = made({"main": {"url": "${NOT_SET}", "pool_size": 3}}, {"STILLROOM_MAIN_URL": PG})
    assert (settings["main"].url, settings["main"].pool_size) == (make_url(PG), 3)


def test_an_empty_variable_counts_as_not_set() -> None:
    environ = {"STILLROOM_MAIN_URL": "", "DATABASE_URL": "", "STILLROOM_PROFILE": ""}
    assert made({"main": {"url": PG}}, environ)["main"].url == make_url(PG)


def test_a_variable_of_an_unknown_database_is_refused_with_the_nearest() -> None:
    assert "did you mean 'STILLROOM_MAIN_URL'" in refused({"main": {"url": PG}}, {"STILLROOM_MIAN_URL": PG})


def test_a_variable_of_another_profiles_database_is_left_alone() -> None:
    profiles = {"prod": {"databases": {"extra": {"url": PG}}}}
    assert [*made({"main": {"url": PG}}, {"STILLROOM_EXTRA_URL": PG}, profiles=profiles)] == ["main"]


def test_variables_of_test_servers_are_left_alone() -> None:
    assert [*made({"main": {"url": PG}}, {"STILLROOM_TEST_REDIS_URL": "redis://h"})] == ["main"]


def test_flat_keys_are_read_as_text() -> None:
    flat = {
        "stillroom.default": "main",
        "stillroom.databases.main.url": PG,
        "stillroom.databases.main.replicas": "postgresql://a/d, postgresql://b/d\n postgresql://c/d",
        "stillroom.databases.main.pool_size": " 7 ",
        "stillroom.databases.main.disposable": "yes",
        "stillroom.databases.main.echo": "off",
        "stillroom.databases.main.statement_timeout": "2.5",
        "stillroom.databases.main.models": "shop.models, shop.more\nbooks",
        "stillroom.databases.main.server_settings.app.tenant": "5",
        "stillroom.databases.main.connect_args.keepalives": "5",
        "stillroom.databases.main.connect_args.password": "5",
        "pyramid.reload_templates": "true",
    }
    main = Settings.from_ini(flat, environ={})["main"]
    assert [url.host for url in main.replicas] == ["a", "b", "c"]
    assert (main.pool_size, main.disposable, main.echo, main.statement_timeout) == (7, True, False, 2.5)
    assert main.models == ("shop.models", "shop.more", "books")
    assert main.server_settings == {"app.tenant": "5"}
    assert main.connect_args == {"keepalives": 5, "password": "5"}


def test_free_tables_of_flat_keys_are_read_by_how_they_look() -> None:
    flat = {"a": "0.5", "b": "True", "c": "x y", "d": "07"}
    prefixed = {f"stillroom.databases.main.connect_args.{key}": value for key, value in flat.items()}
    settings = Settings.from_ini({"stillroom.databases.main.url": PG, **prefixed}, environ={})
    assert settings["main"].connect_args == {"a": 0.5, "b": True, "c": "x y", "d": 7}


def test_a_flat_key_that_is_value_and_table_is_refused() -> None:
    with pytest.raises(SettingsError, match="further keys below it"):
        Settings.from_ini({"stillroom.databases": "x", "stillroom.databases.main.url": PG}, environ={})


def test_flat_profiles_work() -> None:
    flat = {"x.databases.main.url": PG, "x.profiles.test.databases.main.url": "sqlite:///t.db"}
    assert Settings.from_ini(flat, "x", profile="test", environ={})["main"].backend == "sqlite"


# Profiles


def test_a_profile_is_merged_deeply() -> None:
    base = {"main": {"url": PG, "pool_size": 3, "server_settings": {"a": "1", "b": "2"}}, "audit": {"url": PG}}
    profiles = {"x": {"application": "y", "databases": {"main": {"server_settings": {"b": 3}}, "more": {"url": PG}}}}
    settings = made(base, {"STILLROOM_PROFILE": "x"}, profiles=profiles)
    assert [*settings] == ["main", "audit", "more"]
    assert settings["main"].server_settings == {"a": "1", "b": "3"}
    assert (settings["main"].pool_size, settings.application, settings.profile) == (3, "y", "x")


def test_the_argument_chooses_the_profile_before_the_variable() -> None:
    profiles: dict[str, Any] = {"a": {}, "b": {}}
    assert made({"main": {"url": PG}}, {"STILLROOM_PROFILE": "a"}, "b", profiles=profiles).profile == "b"
    assert made({"main": {"url": PG}}, {"STILLROOM_PROFILE": "a"}, "", profiles=profiles).profile is None


def test_an_unknown_profile_is_refused_with_the_nearest() -> None:
    assert "did you mean 'test'" in refused({"main": {"url": PG}}, profile="tset", profiles={"test": {}})


def test_a_slip_in_a_profile_that_is_not_chosen_is_found() -> None:
    text = refused({"main": {"url": PG}}, profiles={"prod": {"databases": {"main": {"pool_sise": 3}}}})
    assert "profiles.prod.databases.main.pool_sise: unknown key; did you mean 'pool_size'" in text


def test_the_test_profile_makes_the_databases_that_it_names_disposable_unless_they_say_otherwise() -> None:
    test = {"databases": {"a": {"url": "postgresql:///a_test"}, "b": {"url": PG, "disposable": False}}}
    settings = made({name: {"url": PG} for name in "abc"}, default="a", profile="test", profiles={"test": test})
    assert [settings[name].disposable for name in "abc"] == [True, False, False]


@pytest.mark.parametrize("by", ["profile", "variable", "replace"])
def test_another_url_does_not_keep_what_belongs_to_the_old_server(by: str) -> None:
    base = {"main": {"url": PG, "replicas": [PG], "admin_url": PG, "migration_url": PG, "server_settings": {"a": "1"}}}
    other = "postgresql:///shop_test"
    if by == "profile":
        settings = made(base, profile="test", profiles={"test": {"databases": {"main": {"url": other}}}})
    elif by == "variable":
        settings = made(base, {"STILLROOM_MAIN_URL": other})
    else:
        settings = made(base).replace("main", url=other)
    main = settings["main"]
    assert (main.replicas, main.admin_url, main.migration_url) == ((), None, None)
    assert main.server_settings == {"a": "1"}


def test_a_profile_on_another_backend_does_not_keep_what_that_lacks() -> None:
    base = {
        "main": {
            "url": PG,
            "pooler": True,
            "connect_timeout": 3,
            "isolation": "READ COMMITTED",
            "connect_args": {"x": 1},
        }
    }
    profiles = {"test": {"databases": {"main": {"url": "${T:-sqlite:///t.db}"}}}}
    main = made(base, profile="test", profiles=profiles)["main"]
    assert main.given() == {"url": make_url("sqlite:///t.db"), "disposable": True}


def test_an_unused_url_needs_no_variables() -> None:
    profiles = {"prod": {"databases": {"main": {"url": "${PROD_URL}"}}}, "test": {"databases": {"main": {"url": PG}}}}
    assert made({"main": {"url": "${DEV_URL}"}}, profile="test", profiles=profiles)["main"].url == make_url(PG)


# Variables in strings


@pytest.mark.parametrize(
    ("template", "value"),
    [
        ("${A}-x", "one-x"),
        ("${B:-two}", "two"),
        ("${EMPTY:-two}", "two"),
        ("${EMPTY}x", "x"),
        ("${B:-${A}}", "one"),
        ("$${A}", "${A}"),
        ("$A {A} $$", "$A {A} $$"),
    ],
)
def test_variables_are_put_in(template: str, value: str) -> None:
    assert main({"A": "one", "EMPTY": ""}, connect_args={"deep": [template]}).connect_args == {"deep": [value]}


def test_a_missing_variable_is_named_with_its_path() -> None:
    text = refused({"main": {"url": PG, "server_settings": {"x": "${NOPE}"}}})
    assert text == (
        "databases.main.server_settings.x: the environment has no variable 'NOPE'; "
        "set it, or give a default: ${NOPE:-default}"
    )


@pytest.mark.parametrize("template", ["${A", "${}", "${1}", "${A-b}"])
def test_a_malformed_variable_is_refused(template: str) -> None:
    assert "databases.main.migrations: " in refused({"main": {"url": PG, "migrations": template}}, {"A": "x"})


def test_a_variable_may_spell_a_number_and_text_may_not() -> None:
    assert main({"N": "7"}, pool_size="${N}").pool_size == 7
    assert "expected a number of connections, 1 or more, got '7' (str)" in refused(
        {"main": {"url": PG, "pool_size": "7"}}
    )


@pytest.mark.parametrize("password", ["p@:/%?#é &=+ ${x}", "p%40", "a:b"])
@pytest.mark.parametrize(
    "template",
    [
        "postgresql://u:${P}@h:5432/d?x=1",
        "postgresql://${U}:${P}@h:5432/d?x=1",
        "postgresql://h:5432/d?x=1&user=u&password=${P}",
    ],
)
def test_a_password_with_special_characters_arrives(template: str, password: str) -> None:
    url = made({"main": {"url": template}}, {"P": password, "U": "u"})["main"].url
    assert url == URL.create("postgresql", "u", password, "h", 5432, "d", query={"x": "1"})


def test_a_variable_with_user_and_password_is_split_at_the_first_colon() -> None:
    url = made({"main": {"url": "postgresql://${UP}@h/d"}}, {"UP": "u:a:b@c"})["main"].url
    assert (url.username, url.password, url.host) == ("u", "a:b@c", "h")


def test_a_variable_with_the_whole_url_is_not_encoded() -> None:
    assert made({"main": {"url": "${X}"}}, {"X": "postgresql://u:p%40@h/d"})["main"].url.password == "p@"


def test_a_variable_with_the_host_is_not_encoded() -> None:
    url = made({"main": {"url": "postgresql://u:p@${H}/${D:-d}"}}, {"H": "[::1]:5433"})["main"].url
    assert (url.host, url.port, url.database) == ("::1", 5433, "d")


# URLs


@pytest.mark.parametrize(
    ("written", "drivername"),
    [
        ("postgres://h/d", "postgresql"),
        ("postgres+asyncpg://h/d", "postgresql+asyncpg"),
        ("PostgreSQL://h/d", "postgresql"),
        ("postgresql+psycopg_async://h/d", "postgresql+psycopg"),
        ("mariadb+pymysql://h/d", "mariadb+pymysql"),
        (" sqlite+aiosqlite:///x.db\n", "sqlite+aiosqlite"),
    ],
)
def test_urls_are_brought_into_one_form(written: str, drivername: str) -> None:
    assert DatabaseSettings.from_url(written).url.drivername == drivername


@pytest.mark.parametrize(("url", "backend"), [("sqlite://", "sqlite"), (PG, "postgresql"), ("mariadb://h/d", "mysql")])
def test_the_backend_is_known(url: str, backend: str) -> None:
    assert DatabaseSettings.from_url(url).backend == backend


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        (f"postgresql://u:{SECRET}@h:port/d", "the port is a whole number"),
        (f"postgresql://u:{SECRET}@{SECRET}@h/d", "more than one '@'"),
        (f"postgresql://u:{SECRET}@h:99999/d", "a port is 1 to 65535"),
        (f"u:{SECRET}@h/d", "without '://'"),
        (SECRET, "without '://'"),
        ("", "the URL is empty"),
        ("shop.db", "'sqlite:///shop.db'"),
        ("sqlite://shop.db", "sqlite:///shop.db"),
        (f"oracle://u:{SECRET}@h/d", "known dialects: sqlite, postgresql, mysql, mariadb"),
        (f"postgresq://u:{SECRET}@h/d", "did you mean 'postgresql'"),
        (f"postgresql+pg8000://u:{SECRET}@h/d", 'psycopg (pip install "stillroom[postgresql]")'),
        (f"mysql+pymysq://u:{SECRET}@h/d", "did you mean 'pymysql'"),
        (5, "expected a URL"),
    ],
)
def test_a_wrong_url_is_refused_without_its_password(url: Any, reason: str) -> None:
    text = refused({"main": {"url": url}})
    assert text.startswith("databases.main.url: ")
    assert reason in text
    assert SECRET not in text


def test_a_url_from_a_variable_is_named_by_it() -> None:
    assert refused({}, {"DATABASE_URL": "x://"}).startswith("databases.main.url (DATABASE_URL): ")


# Errors


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"pool_size": True}, "databases.main.pool_size: expected a number of connections, 1 or more, got True (bool)"),
        ({"pool_size": 0}, "databases.main.pool_size: expected a number of connections, 1 or more, got 0 (int)"),
        (
            {"max_overflow": -1},
            "databases.main.max_overflow: expected a number of connections, 0 or more, got -1 (int)",
        ),
        (
            {"pool_timeout": -0.5},
            "databases.main.pool_timeout: expected a number of seconds, 0 or more, got -0.5 (float)",
        ),
        (
            {"pool_timeout": float("inf")},
            "databases.main.pool_timeout: expected a number of seconds, 0 or more, got inf",
        ),
        ({"metadata": "shop.models"}, "'package.module:attribute', got 'shop.models' (str)"),
        ({"models": ["shop/models"]}, "databases.main.models: expected a list of packages"),
        ({"models": "shop"}, "databases.main.models: expected a list of packages"),
        ({"replicas": PG}, "databases.main.replicas: expected a list of URLs, got str"),
        ({"role": "reader"}, "databases.main.role: expected 'logger', got 'reader' (str)"),
        ({"isolation": "SNAPSHOT"}, "databases.main.isolation: expected 'READ COMMITTED'"),
        ({"connect_args": SECRET}, "databases.main.connect_args: expected a table, got str"),
        (
            {"engine": {"pool_pre_ping": True}},
            "databases.main.engine.pool_pre_ping: this has a setting of its own: `ping_after`",
        ),
        (
            {"replicas": ["sqlite:///x"]},
            "databases.main.replicas[0]: 'sqlite:///x' is of SQLite, the database of PostgreSQL",
        ),
        ({"depends_on": ["mian"]}, "databases.main.depends_on: no database 'mian' is declared; did you mean 'main'?"),
        ({"depends_on": ["main"]}, "databases.main.depends_on: a circle: main -> main"),
    ],
)
def test_a_wrong_value_is_named_with_its_path(keys: dict[str, Any], text: str) -> None:
    found = refused({"main": {"url": PG, **keys}})
    assert text in found
    assert SECRET not in found


@pytest.mark.parametrize(
    ("url", "keys"),
    [
        ("sqlite://", {"replicas": ["sqlite:///x"]}),
        ("sqlite://", {"idle_transaction_timeout": 5}),
        ("sqlite://", {"pooler": True}),
        ("sqlite://", {"server_settings": {"a": "b"}}),
        ("sqlite://", {"connect_timeout": 10}),
        ("sqlite://", {"isolation": "READ COMMITTED"}),
        ("mariadb://h/d", {"pooler": True}),
    ],
)
def test_an_option_that_the_backend_lacks_is_refused(url: str, keys: dict[str, Any]) -> None:
    text = refused({"main": {"url": url, **keys}})
    assert text.startswith(f"databases.main.{next(iter(keys))}: ")
    assert text.endswith("; leave it out")


def test_an_option_that_asks_for_nothing_is_accepted_everywhere() -> None:
    keys = {"pooler": False, "replicas": [], "idle_transaction_timeout": 0, "server_settings": {}}
    assert made({"main": {"url": "sqlite://", **keys}})["main"].given() == {"url": make_url("sqlite://")}


@pytest.mark.parametrize("name", ["commit", "reader", "a-b", "1a", "_a", "class", ""])
def test_a_name_that_cannot_be_read_from_the_unit_is_refused(name: str) -> None:
    assert refused({name: {"url": PG}}).startswith(f"databases.{name}: ")


def test_the_words_of_the_unit_of_work_are_reserved() -> None:
    assert {"commit", "rollback", "reader", "writer", "logger", "any", "session", "status", "info"} <= RESERVED_NAMES


@pytest.mark.parametrize(
    ("databases", "top", "text"),
    [
        ({}, {}, "databases: no database is declared"),
        ({"a": {}}, {}, "databases.a.url: missing; give one, or set STILLROOM_A_URL"),
        ({"main": {"url": PG}, "Main": {"url": PG}}, {}, "databases.Main: 'main' and 'Main' differ by case alone"),
        ({"a": {"url": PG}, "b": {"url": PG}}, {}, "default: missing; say which database is the default one: 'a', 'b'"),
        ({"a": {"url": PG, "role": "logger"}}, {}, "default: every database is a logger"),
        ({"main": {"url": PG}}, {"default": "mian"}, "default: no database 'mian' is declared; did you mean 'main'?"),
        ({"a": {"url": PG, "role": "logger"}, "b": {"url": PG}}, {"default": "a"}, "default: 'a' is the logger"),
        (
            {"a": {"url": PG, "depends_on": ["b"]}, "b": {"url": PG, "depends_on": ["a"]}},
            {"default": "a"},
            "a circle: ",
        ),
        ({"main": PG}, {}, "databases.main: expected a table, got text; a URL is written databases.main.url"),
        ({"main": 5}, {}, "databases.main: expected a table, got int"),
        ({"main": {"url": PG}}, {"on_multiple_writes": "x"}, "on_multiple_writes: expected 'ordered', 'two_phase'"),
        ({"main": {"url": PG}}, {"profiles": 5}, "profiles: expected a table, got int"),
        ({"main": {"url": PG}}, {"defualt": "x"}, "defualt: unknown key; did you mean 'default'?"),
    ],
)
def test_wrong_settings_are_named(databases: dict[str, Any], top: dict[str, Any], text: str) -> None:
    assert text in refused(databases, **top)


def test_a_profile_is_not_chosen_by_a_key() -> None:
    with pytest.raises(SettingsError, match=r"^profile: a profile is chosen by the argument"):
        Settings.from_mapping({"databases": {"main": {"url": PG}}, "profile": "x"}, environ={})


def test_only_one_database_is_the_logger() -> None:
    logger = {"url": PG, "role": "logger"}
    assert "'a' and 'b' are" in refused({"main": {"url": PG}, "a": logger, "b": logger})


def test_the_only_database_that_is_no_logger_is_the_default() -> None:
    assert made({"log": {"url": PG, "role": "logger"}, "shop": {"url": PG}}).default == "shop"


def test_all_errors_are_reported_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        made({"main": {"url": "x://", "pool_size": 0}, "commit": {}})
    lines = str(caught.value).splitlines()
    assert lines[0] == "3 settings are wrong:"
    assert [line.split(":")[0] for line in lines[1:]] == [
        "- databases.commit", "- databases.main.url", "- databases.main.pool_size",
    ]  # fmt: skip
    assert caught.value.path == "databases.commit"


# The objects


def test_settings_are_a_mapping_of_databases() -> None:
    settings = made({"main": {"url": PG}, "audit": {"url": PG}})
    assert ([*settings], len(settings), "main" in settings) == (["main", "audit"], 2, True)
    with pytest.raises(UnknownDatabase, match="did you mean 'main'"):
        settings["mian"]


def test_settings_are_frozen_and_independent_of_what_they_were_made_from() -> None:
    source: dict[str, Any] = {"main": {"url": PG, "connect_args": {"a": {"b": 1}}}}
    settings = made(source)
    source["main"]["connect_args"]["a"]["b"] = 2
    assert settings["main"].connect_args == {"a": {"b": 1}}
    with pytest.raises(AttributeError):
        settings.default = "x"  # type: ignore[misc]
    with pytest.raises(TypeError):
        settings.databases["x"] = settings["main"]  # type: ignore[index]


def test_settings_pickle_and_copy() -> None:
    settings = made({"main": {"url": f"postgresql://u:{SECRET}@h/d", "pool_size": 3}})
    for other in (pickle.loads(pickle.dumps(settings)), copy.deepcopy(settings)):
        assert other == settings
        assert other["main"].url.password == SECRET


def test_objects_in_connect_args_are_passed_on() -> None:
    context = object()
    assert main(connect_args={"ssl": context}).connect_args["ssl"] is context


def test_replace_changes_one_database() -> None:
    settings = made({"main": {"url": PG, "pool_size": 3}, "audit": {"url": PG}})
    changed = settings.replace("main", pool_size=None, echo=True)
    assert (changed["main"].pool_size, changed["main"].echo, settings["main"].echo) == (5, True, False)
    assert changed["audit"] == settings["audit"]


@pytest.mark.parametrize("changes", [{"pool_size": 0}, {"pol_size": 3}, {"url": "x"}, {"role": "logger"}])
def test_replace_validates(changes: dict[str, Any]) -> None:
    with pytest.raises(SettingsError):
        made({"main": {"url": PG}}).replace("main", **changes)


def test_replace_of_an_unknown_database_is_refused() -> None:
    with pytest.raises(UnknownDatabase, match="'mian'"):
        made({"main": {"url": PG}}).replace("mian", pool_size=3)


def test_settings_made_directly_are_validated() -> None:
    database = DatabaseSettings(url=make_url(PG))
    assert Settings(databases={"main": database}, default="main")["main"] == database
    with pytest.raises(SettingsError, match="commit"):
        Settings(databases={"commit": database}, default="commit")
    with pytest.raises(SettingsError, match="SQLite has no pooler"):
        DatabaseSettings(url=make_url("sqlite://"), pooler=True)


def test_to_dict_makes_the_same_settings_again() -> None:
    settings = made(
        {"main": {"url": f"postgresql://u:{SECRET}@h/d", "replicas": [PG], "models": ["a.b"]}}, application="x"
    )
    written = settings.to_dict(masked=False)
    del written["profile"]
    assert Settings.from_mapping(written, environ={}) == settings


# Secrets


def secretive() -> dict[str, Any]:
    url = f"postgresql://u:{SECRET}@h/d?sslpassword={SECRET}"
    connect_args = {"password": SECRET, "passfile": SECRET, "nested": {"token": SECRET}, "dsn": f"password={SECRET}"}
    return {
        "url": url,
        "replicas": [url],
        "admin_url": url,
        "migration_url": url,
        "connect_args": connect_args,
        "server_settings": {"app.secret": SECRET},
        "engine": {"execution_options": {"api_token": SECRET}},
    }


def test_no_way_of_showing_settings_shows_a_secret() -> None:
    settings = made({"main": secretive()}, secret_key=SECRET * 3)
    main = settings["main"]
    shown = [
        repr(settings),
        str(settings),
        f"{settings}",
        repr(main),
        str(main),
        repr(settings.databases),
        repr([settings]),
    ]
    shown += [repr(settings.to_dict()), repr(main.__rich_repr__()), repr(settings.__rich_repr__())]
    assert [text for text in shown if SECRET in text] == []
    assert main.url.password == SECRET
    assert main.connect_args["password"] == SECRET
    assert settings.secret_key == SECRET * 3


@pytest.mark.parametrize("value", [SECRET, "", 7, [SECRET]])
def test_a_secret_key_that_is_too_short_is_refused_without_being_shown(value: Any) -> None:
    with pytest.raises(SettingsError, match="secret_key: expected a text of 16 characters or more") as caught:
        Settings.from_mapping({"databases": {"main": {"url": PG}}, "secret_key": value}, environ={})
    assert SECRET not in frames_of_ours(caught.value)


def test_the_secret_key_comes_from_the_environment_too() -> None:
    tables = {"databases": {"main": {"url": PG}}, "secret_key": "${SHOP_KEY}"}
    settings = Settings.from_mapping(tables, environ={"SHOP_KEY": "0123456789abcdef"})
    assert settings.secret_key == "0123456789abcdef"
    written = settings.to_dict(masked=False)
    del written["profile"]
    assert Settings.from_mapping(written, environ={}) == settings


def frames_of_ours(error: BaseException) -> str:
    """
    Show the traceback as error pages do: the local variables of every frame below the caller's, and what is chained.
    """
    assert error.__traceback__ is not None
    below = error.__traceback__.tb_next
    text = "".join(traceback.format_exception_only(error)) + repr(error.__context__)
    lines = traceback.StackSummary.extract(traceback.walk_tb(below), capture_locals=True).format()
    return text + "".join(lines)


@pytest.mark.parametrize("way", ["load", "mapping", "ini", "replace", "from_url", "direct"])
def test_no_traceback_shows_a_secret(way: str, tmp_path: Path) -> None:
    url = f"postgresql://u:{SECRET}@h:port/d"
    environ = {"DATABASE_URL": url}
    file = tmp_path / "x.toml"
    file.write_text(f"[databases.main]\nurl = '{url}'\npool_size = 'a'\nconnect_args.password = '{SECRET}'")
    settings = made({"main": secretive()})
    ways: dict[str, Callable[[], object]] = {
        "load": lambda: Settings.load(file, environ=environ),
        "mapping": lambda: Settings.from_mapping(
            {"databases": {"main": {**secretive(), "pool_size": 0}}}, environ=environ
        ),
        "ini": lambda: Settings.from_ini({"stillroom.databases.main.url": url}, environ=environ),
        "replace": lambda: settings.replace("main", url=url),
        "from_url": lambda: DatabaseSettings.from_url(url, connect_args={"password": SECRET}),
        "direct": lambda: DatabaseSettings(**{**secretive(), "pool_size": 0}),
    }
    with pytest.raises(SettingsError) as caught:
        ways[way]()
    error: BaseException = caught.value
    assert error.__traceback__ is not None
    error.__traceback__ = error.__traceback__.tb_next  # the frame of the lambda, which is the user's
    assert SECRET not in frames_of_ours(error)
