"""
Tests of how a unit of work begins and ends.
"""

# The body of a unit of work is what raises, so it stands inside `pytest.raises`, and blocks are told apart.
# ruff: noqa: PT031

from __future__ import annotations

import gc
import threading
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import event, select, text
from sqlalchemy.exc import IntegrityError, InvalidRequestError

from stillroom import Databases, Status, TransactionAborted, UniqueViolation, UnitOfWork, UnitOfWorkEnded, classify
from tests.unit_of_work.shop import Item, amount, idle, listening, made, names

if TYPE_CHECKING:
    from collections.abc import Iterator


def test_what_is_written_is_committed_at_the_end(any_dbs: Databases) -> None:
    with any_dbs.unit_of_work() as uow:
        uow.main.add(Item(name="alembic"))
        assert names(any_dbs) == []
    assert names(any_dbs) == ["alembic"]
    assert uow.status is Status.COMMITTED
    assert idle(any_dbs)


def test_an_exception_rolls_back_and_goes_up_unchanged(any_dbs: Databases) -> None:
    problem = RuntimeError("no")
    with pytest.raises(RuntimeError) as caught, any_dbs.unit_of_work() as uow:
        uow.main.add(Item(name="alembic"))
        uow.main.flush()
        raise problem
    assert caught.value is problem
    assert names(any_dbs) == []
    assert uow.status is Status.ROLLED_BACK
    assert idle(any_dbs)


@pytest.mark.parametrize("problem", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_what_is_no_exception_rolls_back_too(dbs: Databases, problem: type[BaseException]) -> None:
    with pytest.raises(problem), dbs.unit_of_work() as uow:
        uow.main.add(Item(name="alembic"))
        uow.main.flush()
        raise problem
    assert (names(dbs), uow.status) == ([], Status.ROLLED_BACK)


def test_a_generator_that_is_closed_in_the_middle_rolls_back(dbs: Databases) -> None:
    def steps() -> Iterator[UnitOfWork]:
        with dbs.unit_of_work() as uow:
            uow.main.add(Item(name="alembic"))
            uow.main.flush()
            yield uow

    running = steps()
    uow = next(running)
    running.close()  # type: ignore[attr-defined]
    assert (names(dbs), uow.status) == ([], Status.ROLLED_BACK)


def test_making_a_unit_of_work_does_nothing() -> None:
    dbs = Databases({"databases": {"main": {"url": "postgresql://nobody@127.0.0.1:1/nowhere"}}})
    uow = dbs.unit_of_work()
    seen = [uow.status]
    with uow:
        seen.append(uow.status)
    assert [*seen, uow.status] == [Status.NEW, Status.ACTIVE, Status.COMMITTED]
    assert dbs.main.pools() == {}


def test_a_session_opens_at_the_first_use_of_its_name_and_a_connection_at_the_first_statement(dbs: Databases) -> None:
    with dbs.unit_of_work() as uow:
        assert uow.core.sessions == {}
        session = uow.main
        assert idle(dbs)
        session.execute(text("select 1"))
        assert not idle(dbs)
        assert uow.main is session is uow.session() is uow.session("main") is uow.writer


def test_a_session_is_a_plain_session_whose_objects_stay_readable(any_dbs: Databases) -> None:
    with any_dbs.unit_of_work() as uow:
        item = Item(name="alembic", amount=3)
        uow.main.add(item)
    assert (item.name, item.amount, item.id) == ("alembic", 3, 1)


def test_a_session_is_closed_at_the_end(dbs: Databases) -> None:
    with dbs.unit_of_work() as uow:
        session = uow.main
        item = Item(name="alembic")
        session.add(item)
    assert item not in session
    assert not session.in_transaction()


def test_a_unit_of_work_is_not_used_twice(dbs: Databases) -> None:
    with dbs.unit_of_work() as uow:
        pass
    with (
        pytest.raises(UnitOfWorkEnded, match=r"ended at \d\d:\d\d:\d\d: committed; it is used once\. Make another"),
        uow,
    ):
        pass


def test_a_unit_of_work_is_not_entered_inside_itself(dbs: Databases) -> None:
    with dbs.unit_of_work() as uow:
        with pytest.raises(UnitOfWorkEnded, match="is active; it is used once"):
            uow.__enter__()
        uow.main.add(Item(name="alembic"))
    assert names(dbs) == ["alembic"]


def test_use_after_the_end_says_when_and_how_it_ended(dbs: Databases) -> None:
    with pytest.raises(ZeroDivisionError), dbs.unit_of_work() as uow:
        _ = uow.main
        raise ZeroDivisionError
    uses = (
        lambda: uow.main,
        lambda: uow.session("main"),
        lambda: uow.reader,
        uow.doom,
        uow.savepoint,
        uow.rollback,
        lambda: uow.on_commit(print),
    )
    for use in uses:
        with pytest.raises(
            UnitOfWorkEnded,
            match=r"it ended at \d\d:\d\d:\d\d: rolled back, because of ZeroDivisionError; make another",
        ):
            use()


def test_the_error_of_use_after_the_end_is_an_error_of_sqlalchemy(dbs: Databases) -> None:
    with dbs.unit_of_work() as uow:
        pass
    with pytest.raises(InvalidRequestError):
        _ = uow.main


def test_the_end_by_a_failed_commit_says_why(dbs: Databases) -> None:
    uow = _unique_twice(dbs)
    with pytest.raises(UnitOfWorkEnded, match="rolled back, because of IntegrityError"):
        _ = uow.main


def _unique_twice(dbs: Databases) -> UnitOfWork:
    with pytest.raises(IntegrityError), dbs.unit_of_work() as uow:
        uow.main.add(Item(name="alembic"))
        uow.main.flush()
        uow.main.add(Item(name="alembic"))
    return uow


def test_the_end_of_a_doomed_unit_says_why(dbs: Databases) -> None:
    with dbs.unit_of_work() as uow:
        uow.doom("the client went away")
    with pytest.raises(UnitOfWorkEnded, match="rolled back, doomed: the client went away"):
        _ = uow.main


@pytest.mark.parametrize("kind", ["main", "reader", "logger"])
def test_a_session_that_was_kept_is_of_no_use_after_the_end(shop: Databases, kind: str) -> None:
    with shop.unit_of_work() as uow:
        session = getattr(uow, kind)
        session.execute(text("select 1"))
    uses = (
        lambda: session.execute(text("select 1")),
        lambda: session.scalars(select(Item)).all(),
        session.connection,
        lambda: session.get(Item, 1),
    )
    for use in uses:
        with pytest.raises(UnitOfWorkEnded, match=r"it ended at \d\d:\d\d:\d\d: committed; make another"):
            use()
    with pytest.raises(InvalidRequestError):
        session.add(Item(name="nobody would commit this"))
    assert idle(shop)


def test_use_before_the_start_says_what_to_do(dbs: Databases) -> None:
    with pytest.raises(UnitOfWorkEnded, match=r"was not entered; enter it: `with dbs\.unit_of_work\(\) as uow:`"):
        _ = dbs.unit_of_work().main


def test_an_unknown_name_is_an_attribute_error_that_names_the_databases(dbs: Databases) -> None:
    with dbs.unit_of_work() as uow, pytest.raises(AttributeError, match="'mian'; its databases are 'main'"):
        _ = uow.mian


def test_doom_rolls_back_without_an_exception(any_dbs: Databases) -> None:
    with any_dbs.unit_of_work() as uow:
        uow.main.add(Item(name="alembic"))
        uow.main.flush()
        uow.doom()
    assert (names(any_dbs), uow.status) == ([], Status.ROLLED_BACK)


# --- a COMMIT that fails is always raised


def test_a_unique_violation_at_the_last_flush_is_raised(any_dbs: Databases) -> None:
    uow = _unique_twice(any_dbs)
    assert (names(any_dbs), uow.status) == ([], Status.ROLLED_BACK)
    assert idle(any_dbs)


def test_a_deferred_constraint_fails_the_commit_on_postgresql(postgresql_dbs: Databases) -> None:
    with postgresql_dbs.main.begin() as connection:
        connection.execute(text("create table once (n int unique deferrable initially deferred)"))
    with pytest.raises(IntegrityError) as caught, postgresql_dbs.unit_of_work() as uow:
        uow.main.add(Item(name="alembic"))
        uow.main.execute(text("insert into once values (1), (1)"))
    assert classify(caught.value) is not None
    assert (names(postgresql_dbs), uow.status) == ([], Status.ROLLED_BACK)
    assert idle(postgresql_dbs)


def test_a_deferred_foreign_key_fails_the_commit_on_sqlite(dbs: Databases) -> None:
    with dbs.main.begin() as connection:
        connection.execute(text("create table part (item_id int references item (id) deferrable initially deferred)"))
    with pytest.raises(IntegrityError), dbs.unit_of_work() as uow:
        uow.main.add(Item(name="alembic"))
        uow.main.execute(text("insert into part values (99)"))
    assert (names(dbs), uow.status) == ([], Status.ROLLED_BACK)
    with dbs.unit_of_work() as after:
        after.main.add(Item(name="next"))
    assert names(dbs) == ["next"]


def test_a_serialization_failure_at_commit_is_raised(postgresql_dbs: Databases) -> None:
    with postgresql_dbs.unit_of_work() as uow:
        uow.main.add_all([Item(name="a"), Item(name="b")])

    def total_into(uow: UnitOfWork, name: str) -> None:
        others = sum(uow.main.scalars(select(Item.amount)))
        uow.main.execute(text("update item set amount = :n where name = :name"), {"n": others + 1, "name": name})

    def skewed() -> UnitOfWork:
        with postgresql_dbs.unit_of_work(isolation="SERIALIZABLE") as first:
            total_into(first, "a")
            with postgresql_dbs.unit_of_work(isolation="SERIALIZABLE") as second:
                total_into(second, "b")
            failed.append(first)
        return first

    failed: list[UnitOfWork] = []
    with pytest.raises(Exception, match="could not serialize") as caught:
        skewed()
    assert getattr(classify(caught.value), "value", None) == "serialization_failure"
    assert failed[0].status is Status.ROLLED_BACK
    assert (amount(postgresql_dbs, "a"), amount(postgresql_dbs, "b")) == (0, 1)


# --- commits that lie


def test_on_postgresql_a_swallowed_error_fails_the_commit(postgresql_dbs: Databases) -> None:
    first: list[BaseException] = []
    with pytest.raises(TransactionAborted, match="an earlier database error") as caught:
        _swallow_unique(postgresql_dbs, first)
    assert caught.value.__cause__ is first[0]
    assert names(postgresql_dbs) == []


def _swallow_unique(dbs: Databases, errors: list[BaseException]) -> None:
    with dbs.unit_of_work() as uow:
        uow.main.execute(text("insert into item (name, amount) values ('a', 0)"))
        try:
            uow.main.execute(text("insert into item (name, amount) values ('a', 0)"))
        except IntegrityError as error:
            errors.append(error)


def test_where_the_error_leaves_the_transaction_whole_the_rest_is_committed(
    dbs: Databases, mariadb_dbs: Databases
) -> None:
    for each in (dbs, mariadb_dbs):
        _swallow_unique(each, [])
        assert names(each) == ["a"]


def test_on_postgresql_a_bare_connection_does_not_lie_either(postgresql_dbs: Databases) -> None:
    with pytest.raises(TransactionAborted), postgresql_dbs.main.begin() as connection:
        connection.execute(text("insert into item (name, amount) values ('a', 0)"))
        with pytest.raises(IntegrityError):
            connection.execute(text("insert into item (name, amount) values ('a', 0)"))
    assert names(postgresql_dbs) == []
    assert idle(postgresql_dbs)


def test_on_mariadb_a_swallowed_deadlock_commits_nothing(mariadb_dbs: Databases) -> None:
    with pytest.raises(TransactionAborted) as caught:
        with mariadb_dbs.unit_of_work() as uow:
            swallow_deadlock(mariadb_dbs, lambda sql: uow.main.execute(text(sql)))
            uow.main.execute(text("insert into item (name, amount) values ('after', 0)"))
    assert getattr(classify(caught.value.__cause__ or caught.value), "value", None) == "deadlock"
    assert names(mariadb_dbs) == ["a", "b"]
    assert uow.status is Status.ROLLED_BACK


def test_on_mariadb_a_bare_connection_does_not_commit_half_after_a_deadlock(mariadb_dbs: Databases) -> None:
    with pytest.raises(TransactionAborted), mariadb_dbs.main.begin() as connection:
        swallow_deadlock(mariadb_dbs, lambda sql: connection.execute(text(sql)))
        connection.execute(text("insert into item (name, amount) values ('after', 0)"))
    assert names(mariadb_dbs) == ["a", "b"]


def swallow_deadlock(dbs: Databases, execute: object) -> None:
    """
    Let `execute` run into a deadlock as its victim, and swallow the error.
    """
    from sqlalchemy.exc import OperationalError

    assert callable(execute)
    with dbs.unit_of_work() as setup:
        setup.main.execute(text("insert into item (name, amount) values ('a', 0), ('b', 0)"))
    locked = threading.Event()

    def other() -> None:
        # InnoDB ends the transaction that wrote less: this one writes more.
        with dbs.unit_of_work() as unit:
            rows = ", ".join(f"('row {n}', 0)" for n in range(50))
            unit.main.execute(text(f"insert into item (name, amount) values {rows}"))
            unit.main.execute(text("update item set amount = 1 where name = 'b'"))
            locked.set()
            unit.main.execute(text("update item set amount = 1 where name = 'a'"))
            unit.doom()

    thread = threading.Thread(target=other)
    try:
        execute("insert into item (name, amount) values ('before', 0)")
        execute("update item set amount = 2 where name = 'a'")
        thread.start()
        assert locked.wait(10)
        with pytest.raises(OperationalError):
            execute("update item set amount = 2 where name = 'b'")
    finally:
        thread.join(20)


def test_a_savepoint_heals_a_failed_statement(any_dbs: Databases) -> None:
    with any_dbs.unit_of_work() as uow:
        uow.main.add(Item(name="a"))
        with pytest.raises(IntegrityError), uow.savepoint():
            uow.main.add(Item(name="a"))
            uow.main.flush()
        uow.main.add(Item(name="b"))
    assert names(any_dbs) == ["a", "b"]


# --- a rollback that fails


def test_a_rollback_that_fails_does_not_hide_the_error(
    postgresql_dbs: Databases, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise OSError("the rollback failed")

    with listening(postgresql_dbs.main.engine, "rollback", broken), pytest.raises(ZeroDivisionError):
        with postgresql_dbs.unit_of_work() as uow:
            uow.main.add(Item(name="alembic"))
            uow.main.flush()
            raise ZeroDivisionError
    assert uow.status is Status.ROLLED_BACK
    assert "closing the session on 'main' failed" in caplog.text
    assert names(postgresql_dbs) == []
    assert idle(postgresql_dbs)


# --- listeners of the user that raise


class Vexed(Exception):
    """
    What the listeners raise.
    """


def vexed(*_: object) -> None:
    raise Vexed


@pytest.mark.parametrize("name", ["begin", "commit", "rollback"])
def test_a_listener_of_the_engine_that_raises_leaves_no_open_transaction_in_the_pool(
    any_dbs: Databases, name: str
) -> None:
    problems = (Vexed, ZeroDivisionError)
    with listening(any_dbs.main.engine, name, vexed), pytest.raises(problems), any_dbs.unit_of_work() as uow:
        uow.main.add(Item(name="alembic"))
        uow.main.flush()
        if name == "rollback":
            raise ZeroDivisionError
    assert uow.status is Status.ROLLED_BACK
    assert idle(any_dbs)
    with any_dbs.unit_of_work() as after:
        after.main.add(Item(name="next"))
    assert names(any_dbs) == ["next"]


@pytest.mark.parametrize("name", ["before_commit", "before_flush", "after_flush", "after_begin"])
def test_a_listener_of_the_session_that_raises_before_the_commit_rolls_back(any_dbs: Databases, name: str) -> None:
    with pytest.raises(Vexed), any_dbs.unit_of_work() as uow:
        event.listen(uow.main, name, vexed)
        uow.main.add(Item(name="alembic"))
    assert uow.status is Status.ROLLED_BACK
    assert idle(any_dbs)
    with any_dbs.unit_of_work() as after:
        after.main.add(Item(name="next"))
    assert names(any_dbs) == ["next"]


def test_a_listener_that_raises_after_the_commit_does_not_undo_it(any_dbs: Databases) -> None:
    ran: list[str] = []
    with pytest.raises(Vexed), any_dbs.unit_of_work() as uow:
        event.listen(uow.main, "after_commit", vexed)
        uow.main.add(Item(name="alembic"))
        uow.on_commit(lambda: ran.append("committed"))
    assert (names(any_dbs), uow.status, ran) == (["alembic"], Status.COMMITTED, ["committed"])
    assert idle(any_dbs)


# --- a unit that is dropped


def test_a_unit_that_is_dropped_without_an_end_warns(dbs: Databases) -> None:
    def forgetful() -> None:
        uow = dbs.unit_of_work()
        uow.__enter__()
        uow.main.execute(text("insert into item (name, amount) values ('a', 0)"))

    with pytest.warns(
        ResourceWarning, match=r"<UnitOfWork active \(main:writer\)> was never ended; what it wrote is lost"
    ):
        thread = threading.Thread(target=forgetful)
        thread.start()
        thread.join()
        del thread
        gc.collect()
    assert names(dbs) == []
    dbs.configure(dbs.settings)  # not refused: the unit is no longer open


# --- repr


def test_the_repr_shows_what_is_open_and_no_secrets() -> None:
    dbs = Databases({"databases": {"main": {"url": "postgresql://me:tell-nobody@127.0.0.1:1/shop"}}})
    with dbs.unit_of_work() as uow:
        session = uow.main
        assert repr(uow) == "<UnitOfWork active (main:writer)>"
        assert repr(session) == "<UnitSession writer of 'main'>"
        assert repr(dbs) == "<Databases main; 1 unit(s) of work open>"
        everything = "".join(map(repr, (uow, session, dbs, dbs.main, dbs.settings, uow.options, dbs.main.engine)))
        assert "tell-nobody" not in everything
    assert repr(uow) == "<UnitOfWork committed (main:writer)>"


def test_the_info_of_the_unit_is_the_info_of_its_sessions(shop: Databases) -> None:
    with shop.unit_of_work(info={"request": "GET /"}) as uow:
        for session in (uow.main, uow.audit, uow.reader, uow.logger):
            assert session.info["unit_of_work"] is uow
            assert session.info["request"] == "GET /"


def test_a_translated_error_is_our_class_for_the_same_violation(dbs: Databases) -> None:
    assert issubclass(UniqueViolation, IntegrityError)
    with made({"main": str(dbs.main.settings.url)}) as again:
        _unique_twice(again)
