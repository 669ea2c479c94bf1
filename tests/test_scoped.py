"""
Tests of the proxy with the interface of `scoped_session`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import select
from sqlalchemy.orm import scoped_session

from stillroom import Databases, NoUnitOfWork
from tests.unit_of_work.shop import Item, made, names

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def dbs(tmp_path: Path) -> Iterator[Databases]:
    """
    "main" and "audit", on SQLite.
    """
    with made({name: f"sqlite:///{tmp_path / name}.db" for name in ("main", "audit")}) as databases:
        yield databases


def test_it_finds_the_session_of_the_unit_that_is_open(dbs: Databases) -> None:
    session = dbs.scoped()
    assert isinstance(session, scoped_session)
    for name in ("a", "b"):
        with dbs.unit_of_work() as uow:
            assert session() is uow.main
            session.add(Item(name=name))
            assert session.scalars(select(Item.name).where(Item.name == name)).one() == name
    assert names(dbs) == ["a", "b"]


def test_it_may_be_made_before_configure_and_for_another_database(dbs: Databases) -> None:
    later = Databases()
    session = later.scoped("audit")
    later.configure(dbs.settings)
    with later.unit_of_work() as uow:
        assert session() is uow.audit
        session.add(Item(name="a"))
    later.close()
    assert names(dbs, "audit") == ["a"]


def test_without_a_unit_it_says_what_to_do(dbs: Databases) -> None:
    session = dbs.scoped()
    with pytest.raises(NoUnitOfWork, match=r"open one: `with dbs\.unit_of_work\(\) as uow:`"):
        session.add(Item(name="a"))


def test_remove_leaves_the_session_to_its_unit(dbs: Databases) -> None:
    session = dbs.scoped()
    session.remove()  # also where no unit is open, as at the end of a request
    with dbs.unit_of_work() as uow:
        session.add(Item(name="a"))
        session.remove()
        assert session() is uow.main
    assert names(dbs) == ["a"]


def test_its_attributes_are_those_of_the_session(dbs: Databases) -> None:
    session = dbs.scoped()
    with dbs.unit_of_work() as uow:
        item = Item(name="a")
        session.add(item)
        assert item in session
        assert item in session.new
        assert session.info is uow.main.info
        session.flush()
        assert session.get(Item, item.id) is item


def test_options_for_a_session_that_exists_are_refused(dbs: Databases) -> None:
    with dbs.unit_of_work(), pytest.raises(TypeError, match="expire_on_commit"):
        dbs.scoped()(expire_on_commit=True)


def test_it_says_whether_there_is_a_session(dbs: Databases) -> None:
    registry = dbs.scoped().registry
    assert not registry.has()
    with dbs.unit_of_work():
        assert registry.has()
        with pytest.raises(RuntimeError, match="cannot be replaced"):
            registry.set(object())  # type: ignore[arg-type]
