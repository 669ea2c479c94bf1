"""
Tests of the sessions of one unit of work, by database and role.
"""

# The body of a unit of work is what raises, so it stands inside `pytest.raises`, and blocks are told apart.

from __future__ import annotations

import pytest
from sqlalchemy import func, select, text

from stillroom import Databases, PropagationError, ReadOnlyError, Status, UnknownDatabase
from tests.unit_of_work.shop import Item, idle, names


def test_each_database_and_role_has_one_session(shop: Databases) -> None:
    with shop.unit_of_work() as uow:
        assert uow.session("audit") is uow.audit
        assert uow.session("main", role="reader") is uow.reader
        assert uow.session("log") is uow.log is uow.logger
        assert len({id(each) for each in (uow.main, uow.reader, uow.audit, uow.logger)}) == 4


def test_an_unknown_database_names_those_declared(dbs: Databases) -> None:
    with dbs.unit_of_work() as uow, pytest.raises(UnknownDatabase, match="'mian'; declared are 'main'"):
        uow.session("mian")


@pytest.mark.parametrize("read_only", [True, False])
def test_an_unknown_role_is_refused(dbs: Databases, *, read_only: bool) -> None:
    with dbs.unit_of_work(read_only=read_only) as uow:
        with pytest.raises(ValueError, match="role='master': it is 'writer', 'reader', 'logger' or 'any'"):
            uow.session("main", role="master")  # type: ignore[arg-type]


def test_a_reader_sees_what_is_committed_and_writes_nothing(any_dbs: Databases) -> None:
    with any_dbs.unit_of_work() as uow:
        uow.main.add(Item(name="a"))
    with any_dbs.unit_of_work() as uow:
        assert uow.reader.scalars(select(Item.name)).all() == ["a"]
        uow.reader.add(Item(name="b"))
        with pytest.raises(ReadOnlyError, match=r"uow\.main"):
            uow.reader.flush()
    assert names(any_dbs) == ["a"]
    assert idle(any_dbs)


def test_a_reader_sees_each_time_the_newest_and_a_snapshot_sees_one_state(any_dbs: Databases) -> None:
    count = select(func.count()).select_from(Item)
    with any_dbs.unit_of_work() as uow:
        reader, snapshot = uow.reader, uow.session("main", role="reader", snapshot=True)
        assert (reader.scalar(count), snapshot.scalar(count)) == (0, 0)
        with any_dbs.unit_of_work() as other:
            other.main.add(Item(name="a"))
        assert (reader.scalar(count), snapshot.scalar(count)) == (1, 0)
        assert uow.reader(snapshot=True) is snapshot  # type: ignore[operator]  # Session has no such call
        assert uow.reader(snapshot=False) is reader  # type: ignore[operator]


def test_a_snapshot_needs_no_role(dbs: Databases) -> None:
    with dbs.unit_of_work() as uow:
        session = uow.session("main", snapshot=True)
        assert session is uow.session("main", role="reader", snapshot=True)
        with pytest.raises(ReadOnlyError):
            session.execute(text("insert into item (name, amount) values ('a', 0)"))


@pytest.mark.parametrize("role", ["writer", "logger"])
def test_only_a_reader_has_a_snapshot(dbs: Databases, role: str) -> None:
    with dbs.unit_of_work() as uow, pytest.raises(ValueError, match=f"snapshot=True with the {role} of 'main'"):
        uow.session("main", role=role, snapshot=True)  # type: ignore[arg-type]


def test_any_is_the_reader_until_there_is_a_writer(dbs: Databases) -> None:
    with dbs.unit_of_work() as uow:
        assert uow.any is uow.reader
        writer = uow.main
        writer.add(Item(name="a"))
        assert uow.any is writer
        assert uow.any.scalars(select(Item.name)).all() == ["a"]
        assert uow.session("main", role="any") is writer


def test_a_unit_without_a_declared_logger_says_what_to_do(dbs: Databases) -> None:
    with dbs.unit_of_work() as uow, pytest.raises(UnknownDatabase, match='`role = "logger"`'):
        _ = uow.logger


def test_in_a_read_only_unit_every_session_reads(any_dbs: Databases) -> None:
    with any_dbs.unit_of_work(read_only=True) as uow:
        assert uow.main is uow.reader is uow.any
        with pytest.raises(ReadOnlyError):
            uow.main.execute(text("delete from item"))
        with pytest.raises(PropagationError, match="read only, and a writer on 'main' was asked for"):
            _ = uow.writer
    assert uow.status is Status.COMMITTED


def test_a_read_only_unit_may_log(shop: Databases) -> None:
    with shop.unit_of_work(read_only=True) as uow:
        uow.logger.add(Item(name="looked"))
    assert names(shop, "log") == ["looked"]


def test_a_standing_objects_session_is_the_writers(dbs: Databases) -> None:
    from sqlalchemy.orm import object_session

    with dbs.unit_of_work() as uow:
        item = Item(name="a")
        uow.main.add(item)
        assert object_session(item) is uow.main
