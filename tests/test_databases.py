"""
Tests of all databases of an application together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from stillroom import (
    AlreadyConfigured,
    Database,
    Databases,
    NotConfigured,
    Settings,
    SettingsError,
    UnknownDatabase,
)
from stillroom.testing.servers import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy.orm import Session


@pytest.fixture
def dbs(tmp_path: Path) -> Iterator[Databases]:
    """
    "main" and "audit", on SQLite.
    """
    urls = {name: {"url": f"sqlite:///{tmp_path / name}.db"} for name in ("main", "audit")}
    with Databases({"databases": urls}) as databases:
        yield databases


def test_unconfigured_databases_say_what_to_do() -> None:
    dbs = Databases()
    assert not dbs.is_configured
    assert repr(dbs) == "<Databases, not configured>"
    assert "main" not in dbs
    uses = (
        dbs.unit_of_work,
        dbs.async_unit_of_work,
        lambda: dbs["main"],
        lambda: dbs.main,
        lambda: dbs.settings,
        lambda: list(dbs),
        dbs.ping,
    )
    for use in uses:
        with pytest.raises(NotConfigured, match=r"call dbs\.configure\("):
            use()
    dbs.close()


def test_a_decorator_may_be_applied_before_configure(tmp_path: Path) -> None:
    dbs = Databases()

    @dbs.with_session()
    def one(session: Session) -> object:
        return session.scalar(text("select 1"))

    dbs.configure({"databases": {"main": {"url": f"sqlite:///{tmp_path / 'x.db'}"}}})
    assert one() == 1
    dbs.close()


def test_a_database_is_an_item_and_an_attribute(dbs: Databases) -> None:
    assert isinstance(dbs.main, Database)
    assert dbs["audit"] is dbs.audit
    assert dbs.default is dbs.main
    assert (list(dbs), len(dbs), "audit" in dbs, "nope" in dbs) == (["main", "audit"], 2, True, False)


def test_an_unknown_database_names_those_declared(dbs: Databases) -> None:
    with pytest.raises(UnknownDatabase, match="'nope'; declared are 'main', 'audit'"):
        _ = dbs["nope"]
    with pytest.raises(AttributeError, match="'nope'; the databases are 'main', 'audit'"):
        _ = dbs.nope
    with pytest.raises(LookupError):
        _ = dbs["nope"]


def test_settings_come_as_a_mapping_or_as_settings(tmp_path: Path) -> None:
    mapping = {"databases": {"main": {"url": f"sqlite:///{tmp_path / 'x.db'}"}}}
    for given in (mapping, Settings.from_mapping(mapping)):
        dbs = Databases()
        dbs.configure(given)
        assert dbs.is_configured
        assert dbs.settings["main"].url.database == str(tmp_path / "x.db")


def test_without_settings_they_are_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stillroom.toml").write_text('[databases.shop]\nurl = "sqlite:///shop.db"\n')
    dbs = Databases()
    dbs.configure()
    assert list(dbs) == ["shop"]


def test_configuring_makes_no_connection() -> None:
    dbs = Databases({"databases": {"main": {"url": f"postgresql://x@127.0.0.1:{free_port()}/x"}}})
    assert dict(dbs.main.pools()) == {}


def test_it_is_refused_to_configure_anew_while_units_are_open(dbs: Databases) -> None:
    before = dbs.main
    with dbs.unit_of_work() as uow:
        with pytest.raises(AlreadyConfigured, match=r"1 unit\(s\) of work are open"):
            dbs.configure(dbs.settings)
        assert uow.main.scalar(text("select 1")) == 1
        assert dbs.main is before
    dbs.configure(dbs.settings)
    assert dbs.main is not before


def test_configuring_anew_closes_what_was(dbs: Databases, tmp_path: Path) -> None:
    with dbs.unit_of_work() as uow:
        uow.main.execute(text("select 1"))
    before = dbs.main
    dbs.configure({"databases": {"other": {"url": f"sqlite:///{tmp_path / 'other.db'}"}}})
    assert dict(before.pools()) == {}
    assert list(dbs) == ["other"]


def test_wrong_settings_leave_the_old_ones_in_force(dbs: Databases) -> None:
    with pytest.raises(SettingsError):
        dbs.configure({"databases": {"main": {"url": "nonsense"}}})
    with dbs.unit_of_work() as uow:
        assert uow.main.scalar(text("select 1")) == 1


@pytest.mark.parametrize("name", ["commit", "reader", "core", "session"])
def test_a_name_that_is_a_word_of_the_unit_of_work_is_refused(name: str) -> None:
    with pytest.raises(SettingsError, match=name):
        Databases({"databases": {name: {"url": "sqlite://"}}})


def test_a_ping_asks_every_server(dbs: Databases) -> None:
    found = dbs.ping()
    assert [(each.database, each.role, each.ok) for each in found] == [
        ("main", "writer", True),
        ("main", "reader", True),
        ("audit", "writer", True),
        ("audit", "reader", True),
    ]


def test_a_ping_goes_on_after_a_server_that_is_down(tmp_path: Path) -> None:
    urls = {"main": f"postgresql://x@127.0.0.1:{free_port()}/x", "log": f"sqlite:///{tmp_path / 'log.db'}"}
    databases = {"main": {"url": urls["main"]}, "log": {"url": urls["log"], "role": "logger"}}
    with Databases({"databases": databases}) as dbs:
        assert [(each.database, each.role, each.ok) for each in dbs.ping()] == [
            ("main", "writer", False),
            ("main", "reader", False),
            ("log", "writer", True),
        ]


def test_closed_databases_stay_configured(dbs: Databases) -> None:
    for _ in range(2):
        with dbs.unit_of_work() as uow:
            assert uow.main.scalar(text("select 1")) == 1
        dbs.close()
    assert dbs.is_configured


def test_the_repr_counts_open_units(dbs: Databases) -> None:
    assert repr(dbs) == "<Databases main, audit; 0 unit(s) of work open>"
    with dbs.unit_of_work():
        assert repr(dbs) == "<Databases main, audit; 1 unit(s) of work open>"
