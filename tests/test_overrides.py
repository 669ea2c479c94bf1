"""
The same code on other databases, for a while: `dbs.override`.
"""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from stillroom import Databases, NotConfigured, Settings, SettingsError, UnknownDatabase

if TYPE_CHECKING:
    from pathlib import Path


def settings(path: Path, *names: str) -> Settings:
    databases = {name: {"url": f"sqlite:///{path}/{name}.db"} for name in names}
    return Settings.from_mapping({"default": names[0], "databases": databases}, environ={})


@pytest.fixture
def dbs(tmp_path: Path) -> Databases:
    databases = Databases(settings(tmp_path, "main", "audit"))
    for name in databases:
        note(databases, name, name)
    return databases


def note(dbs: Databases, name: str, value: str) -> None:
    with dbs.unit_of_work() as uow:
        uow.session(name).execute(text("create table note (value text)"))
        uow.session(name).execute(text("insert into note values (:value)"), {"value": value})


def read(dbs: Databases, name: str) -> str:
    with dbs.unit_of_work() as uow:
        return str(uow.session(name).scalar(text("select value from note")))


def test_a_block_uses_another_url_and_the_former_one_is_there_again(dbs: Databases, tmp_path: Path) -> None:
    with dbs.override(main=f"sqlite:///{tmp_path}/other.db"):
        note(dbs, "main", "other")
        assert read(dbs, "main") == "other"
    assert read(dbs, "main") == "main"


def test_a_database_that_is_not_named_keeps_its_engines(dbs: Databases, tmp_path: Path) -> None:
    engine, database = dbs["audit"].engine, dbs["audit"]
    with dbs.override(main="sqlite://"):
        assert dbs["audit"] is database
        assert dbs["audit"].engine is engine


def test_the_former_database_waits_with_its_engines(dbs: Databases) -> None:
    database, engine = dbs["main"], dbs["main"].engine
    with dbs.override(main="sqlite://"):
        assert dbs["main"] is not database
    assert dbs["main"] is database
    assert dbs["main"].engine is engine


def test_the_settings_come_back_after_an_exception(dbs: Databases) -> None:
    before = dbs.settings
    with pytest.raises(ZeroDivisionError), dbs.override(main="sqlite://"):
        assert dbs.settings != before
        raise ZeroDivisionError
    assert dbs.settings == before


def test_single_keys_are_changed(dbs: Databases) -> None:
    with dbs.override(main={"pool_size": 1, "statement_timeout": 2.5}):
        assert dbs["main"].settings.pool_size == 1
        assert dbs["main"].settings.statement_timeout == 2.5
        assert read(dbs, "main") == "main"
    assert dbs["main"].settings.pool_size == 5


def test_all_settings_are_replaced(dbs: Databases, tmp_path: Path) -> None:
    with dbs.override(settings(tmp_path, "third")):
        assert list(dbs) == ["third"]
    assert list(dbs) == ["main", "audit"]


def test_a_function_gets_the_settings(dbs: Databases) -> None:
    with dbs.override(lambda each: each.replace("audit", echo=True)):
        assert dbs["audit"].settings.echo
        assert not dbs["main"].settings.echo


def test_databases_that_are_not_configured_can_be_overridden_whole(tmp_path: Path) -> None:
    dbs = Databases()
    with dbs.override(settings(tmp_path, "main")):
        note(dbs, "main", "here")
        assert read(dbs, "main") == "here"
    with pytest.raises(NotConfigured):
        dbs.unit_of_work()


def test_a_change_waits_for_the_settings_that_it_changes(tmp_path: Path) -> None:
    dbs = Databases()
    with dbs.override(main="sqlite://"):
        dbs.configure(settings(tmp_path, "main"))
        assert str(dbs["main"].settings.url) == "sqlite://"
    assert str(dbs["main"].settings.url) == f"sqlite:///{tmp_path}/main.db"


def test_blocks_nest(dbs: Databases) -> None:
    with dbs.override(main={"pool_size": 1}):
        with dbs.override(main={"max_overflow": 2}):
            assert (dbs["main"].settings.pool_size, dbs["main"].settings.max_overflow) == (1, 2)
        assert (dbs["main"].settings.pool_size, dbs["main"].settings.max_overflow) == (1, 10)
    assert dbs["main"].settings.pool_size == 5


def test_blocks_that_overlap_take_back_each_its_own(dbs: Databases) -> None:
    first, second = dbs.override(main={"pool_size": 1}), dbs.override(audit={"pool_size": 2})
    first.__enter__()
    second.__enter__()
    first.__exit__()
    assert (dbs["main"].settings.pool_size, dbs["audit"].settings.pool_size) == (5, 2)
    second.__exit__()
    assert (dbs["main"].settings.pool_size, dbs["audit"].settings.pool_size) == (5, 5)


def test_an_application_that_configures_again_inside_is_overridden(dbs: Databases, tmp_path: Path) -> None:
    with dbs.override(main={"pool_size": 1}):
        database = dbs["main"]
        dbs.configure(settings(tmp_path, "main", "audit"))
        assert dbs["main"] is database
        dbs.configure(settings(tmp_path, "main"))
        assert dbs["main"].settings.pool_size == 1
        assert list(dbs) == ["main"]
    assert list(dbs) == ["main"]
    assert dbs["main"].settings.pool_size == 5


def test_what_was_made_for_the_block_is_closed(dbs: Databases) -> None:
    with dbs.override(main={"pool_size": 1}):
        inside = dbs["main"]
        with inside.connect():
            pass
        assert inside.pools()
    assert not inside.pools()


def test_asyncio_connections_of_the_block_are_closed(dbs: Databases) -> None:
    async def run() -> Databases:
        async with dbs.override(main={"pool_size": 1}):
            inside = dbs["main"]
            async with dbs.async_unit_of_work() as uow:
                await uow.main.execute(text("select 1"))
            assert inside.pools()
        assert not inside.pools()
        return dbs

    asyncio.run(run())


def test_every_thread_sees_the_change(dbs: Databases) -> None:
    seen: list[int] = []
    with dbs.override(main={"pool_size": 1}):
        thread = threading.Thread(target=lambda: seen.append(dbs["main"].settings.pool_size))
        thread.start()
        thread.join()
    assert seen == [1]


def test_an_open_unit_keeps_its_databases(dbs: Databases) -> None:
    with dbs.unit_of_work() as uow, dbs.override(main="sqlite://"):
        assert uow.session("main").scalar(text("select value from note")) == "main"


def test_an_unknown_database_is_refused_and_changes_nothing(dbs: Databases) -> None:
    before = dbs.settings
    with pytest.raises(UnknownDatabase, match="'mian'"), dbs.override(mian="sqlite://"):
        pass
    assert dbs.settings == before


def test_a_wrong_value_is_refused_and_changes_nothing(dbs: Databases) -> None:
    with pytest.raises(SettingsError, match=r"databases\.main\.pool_size"), dbs.override(main={"pool_size": "many"}):
        pass
    assert dbs["main"].settings.pool_size == 5


@pytest.mark.parametrize("named", [{}, {"main": "sqlite://"}])
def test_neither_or_both_forms_are_refused(dbs: Databases, named: dict[str, str]) -> None:
    with pytest.raises(TypeError, match="either settings"):
        dbs.override(dbs.settings if named else None, **named)


def test_engines_are_shown_to_who_watches_them(dbs: Databases) -> None:
    seen: list[tuple[str, object]] = []
    main = dbs["main"]
    first = main.engine
    stop = main.watch_engines(lambda engine, role: seen.append((role, engine)))
    reader = main.reader_engine
    main.engine_for("writer")
    asynchronous = main.async_engine
    assert seen == [("writer", first), ("reader", reader), ("writer", asynchronous.sync_engine)]
    stop()
    _ = main.async_reader_engine
    assert len(seen) == 3
