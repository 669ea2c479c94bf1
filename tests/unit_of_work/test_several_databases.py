"""
Tests of units of work that write to several databases: in order, or refused.
"""

# The body of a unit of work is what raises, so it stands inside `pytest.raises`, and blocks are told apart.

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import IntegrityError

from stillroom import Databases, MultipleWritesRefused, PartialCommitError, Retry, Status, UnitOfWork, is_retryable
from tests.unit_of_work.shop import Item, idle, listening, made, names

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy.orm import Session


class Failed(Exception):
    """
    Why a database does not commit.
    """


def refuse(*_: object) -> None:
    raise Failed


def write_all(uow: UnitOfWork) -> None:
    for name in ("main", "stock", "audit"):  # not in the declared order
        uow.session(name).add(Item(name=f"for {name}"))


def written(shop: Databases) -> list[str]:
    return [name for name in shop if names(shop, name)]


def test_all_are_committed_or_all_are_rolled_back(shop: Databases) -> None:
    with pytest.raises(ZeroDivisionError), shop.unit_of_work() as uow:
        write_all(uow)
        for name in ("main", "audit", "stock"):
            uow.session(name).flush()
        raise ZeroDivisionError
    assert written(shop) == []
    with shop.unit_of_work() as uow:
        write_all(uow)
    assert written(shop) == ["main", "audit", "stock"]
    assert idle(shop)


def test_they_commit_in_the_declared_order_with_the_default_last(shop: Databases) -> None:
    order: list[str] = []
    with shop.unit_of_work() as uow:
        write_all(uow)
        for name in ("main", "stock", "audit"):
            event.listen(uow.session(name), "after_commit", lambda _, name=name: order.append(name))
    assert order == ["audit", "stock", "main"]


def test_what_was_only_read_commits_after_what_was_written(shop: Databases) -> None:
    order: list[str] = []
    with shop.unit_of_work() as uow:
        uow.audit.execute(text("select 1"))
        uow.audit.connection().connection  # noqa: B018  # a transaction without a statement that writes
        uow.main.add(Item(name="a"))
        for name in ("main", "audit"):
            event.listen(uow.session(name), "after_commit", lambda _, name=name: order.append(name))
    assert set(order) == {"main", "audit"}


def test_a_failure_of_the_first_commit_commits_nothing(shop: Databases) -> None:
    with pytest.raises(Failed), shop.unit_of_work() as uow:
        write_all(uow)
        event.listen(uow.audit, "before_commit", refuse)
    assert (written(shop), uow.status) == ([], Status.ROLLED_BACK)
    assert idle(shop)


def test_a_failure_half_way_says_what_is_durable(shop: Databases) -> None:
    with pytest.raises(
        PartialCommitError, match="durable: 'audit'; the COMMIT on 'stock' failed; rolled back: 'main'"
    ) as c:
        with shop.unit_of_work() as uow:
            write_all(uow)
            event.listen(uow.stock, "before_commit", refuse)
    assert (c.value.committed, c.value.failed, c.value.not_committed) == (("audit",), ("stock",), ("main",))
    assert isinstance(c.value.errors["stock"], Failed)
    assert c.value.__cause__ is c.value.errors["stock"]
    assert (written(shop), uow.status) == (["audit"], Status.PARTLY_COMMITTED)
    assert idle(shop)


def test_a_failure_of_the_last_commit_says_so(shop: Databases) -> None:
    with pytest.raises(PartialCommitError) as caught, shop.unit_of_work() as uow:
        write_all(uow)
        event.listen(uow.main, "before_commit", refuse)
    assert caught.value.committed == ("audit", "stock")
    assert (caught.value.failed, caught.value.not_committed) == (("main",), ())
    assert written(shop) == ["audit", "stock"]


def test_ordinary_errors_come_before_the_first_commit(shop: Databases) -> None:
    with shop.unit_of_work() as uow:
        uow.main.add(Item(name="taken"))
    with pytest.raises(IntegrityError), shop.unit_of_work() as uow:
        uow.audit.add(Item(name="a"))
        uow.main.add(Item(name="taken"))
    assert (names(shop, "audit"), uow.status) == ([], Status.ROLLED_BACK)


def test_a_listener_that_raises_after_a_commit_does_not_stop_the_truth(shop: Databases) -> None:
    with pytest.raises(PartialCommitError) as caught, shop.unit_of_work() as uow:
        write_all(uow)
        event.listen(uow.stock, "after_commit", refuse)
    assert caught.value.committed == ("audit", "stock")
    assert caught.value.not_committed == ("main",)
    assert (written(shop), uow.status) == (["audit", "stock"], Status.PARTLY_COMMITTED)


def test_a_listener_that_raises_after_the_last_commit_leaves_all_committed(shop: Databases) -> None:
    with pytest.raises(Failed), shop.unit_of_work() as uow:
        write_all(uow)
        event.listen(uow.main, "after_commit", refuse)
    assert (written(shop), uow.status) == (["main", "audit", "stock"], Status.COMMITTED)


def test_an_interrupt_half_way_is_not_turned_into_an_error(shop: Databases) -> None:
    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), shop.unit_of_work() as uow:
        write_all(uow)
        event.listen(uow.main, "before_commit", interrupt)
    assert (written(shop), uow.status) == (["audit", "stock"], Status.PARTLY_COMMITTED)


def test_a_partial_commit_is_never_tried_again(shop: Databases) -> None:
    runs: list[int] = []

    @shop.transactional(retry=Retry(attempts=3, base=0))
    def work(uow: UnitOfWork) -> None:
        runs.append(1)
        write_all(uow)
        event.listen(uow.main, "before_commit", refuse)

    with pytest.raises(PartialCommitError) as caught:
        work()
    assert len(runs) == 1
    assert not is_retryable(caught.value)


def test_doom_rolls_back_all(shop: Databases) -> None:
    with shop.unit_of_work() as uow:
        write_all(uow)
        uow.doom()
    assert (written(shop), uow.status) == ([], Status.ROLLED_BACK)


def test_databases_on_different_servers_commit_together(
    tmp_path: Path, postgresql_database: str, mariadb_database: str
) -> None:
    urls = {"main": postgresql_database, "audit": mariadb_database, "stock": f"sqlite:///{tmp_path / 'stock.db'}"}
    with made(urls) as dbs:
        with dbs.unit_of_work() as uow:
            write_all(uow)
        assert written(dbs) == ["main", "audit", "stock"]
        with dbs.main.begin() as connection:
            connection.execute(text("create table once (n int unique deferrable initially deferred)"))
        with pytest.raises(PartialCommitError) as caught, dbs.unit_of_work() as uow:
            uow.audit.add(Item(name="durable"))
            uow.stock.execute(text("select 1"))
            uow.main.execute(text("insert into once values (1), (1)"))
        assert (caught.value.committed, caught.value.failed) == (("audit", ), ("main",)) or caught.value.committed == (
            "audit", "stock")  # fmt: skip
        assert isinstance(caught.value.errors["main"], IntegrityError)
        assert names(dbs, "audit") == ["for audit", "durable"]


# --- refuse


@pytest.fixture
def strict(tmp_path: Path) -> Iterator[Databases]:
    """
    Two databases that one unit of work must not both write to.
    """
    urls = {name: f"sqlite:///{tmp_path / name}.db" for name in ("main", "audit")}
    with made(urls, on_multiple_writes="refuse") as dbs:
        yield dbs


def test_the_second_written_database_is_refused(strict: Databases) -> None:
    with pytest.raises(MultipleWritesRefused, match=r"wrote to 'audit', 'main'.*nothing was committed"):
        with strict.unit_of_work() as uow:
            uow.main.add(Item(name="a"))
            uow.audit.execute(text("insert into item (name, amount) values ('b', 0)"))
    assert (written(strict), uow.status) == ([], Status.ROLLED_BACK)
    assert idle(strict)


def test_one_written_database_beside_others_that_are_read_is_fine(strict: Databases) -> None:
    with strict.unit_of_work() as uow:
        uow.main.add(Item(name="a"))
        uow.session("audit", role="reader").execute(text("select count(*) from item"))
    assert names(strict, "main") == ["a"]


def test_a_unit_of_work_may_choose_otherwise(strict: Databases) -> None:
    with strict.unit_of_work(on_multiple_writes="ordered") as uow:
        uow.main.add(Item(name="a"))
        uow.audit.add(Item(name="b"))
    assert written(strict) == ["main", "audit"]


# --- what the user commits by hand


def test_a_session_committed_by_hand_is_durable_and_the_unit_goes_on(any_dbs: Databases) -> None:
    with any_dbs.unit_of_work() as uow:
        uow.main.add(Item(name="a"))
        uow.main.commit()
        assert names(any_dbs) == ["a"]
        uow.main.add(Item(name="b"))
    assert (names(any_dbs), uow.status) == (["a", "b"], Status.COMMITTED)


def test_what_was_committed_by_hand_before_an_exception_is_said(any_dbs: Databases) -> None:
    with pytest.raises(ZeroDivisionError) as caught, any_dbs.unit_of_work() as uow:
        uow.main.add(Item(name="a"))
        uow.main.commit()
        uow.main.add(Item(name="b"))
        uow.main.flush()
        raise ZeroDivisionError
    assert (names(any_dbs), uow.status) == (["a"], Status.PARTLY_COMMITTED)
    assert not is_retryable(caught.value)


def test_what_was_committed_by_hand_is_never_done_twice(dbs: Databases) -> None:
    runs: list[int] = []

    @dbs.transactional(retry=Retry(attempts=3, base=0))
    def work(uow: UnitOfWork) -> None:
        runs.append(1)
        uow.main.add(Item(name=f"run {len(runs)}"))
        uow.main.commit()
        raise _locked()

    with pytest.raises(Exception, match="locked"):
        work()
    assert (names(dbs), len(runs)) == (["run 1"], 1)


def _locked() -> Exception:
    import sqlite3

    from sqlalchemy.exc import OperationalError

    original = sqlite3.OperationalError("database is locked")
    original.sqlite_errorname = "SQLITE_BUSY"
    original.sqlite_errorcode = sqlite3.SQLITE_BUSY
    error = OperationalError("insert", None, original)
    assert is_retryable(error)
    return error


def test_a_session_rolled_back_by_hand_is_not_committed(any_dbs: Databases) -> None:
    with any_dbs.unit_of_work() as uow:
        uow.main.add(Item(name="a"))
        uow.main.flush()
        uow.main.rollback()
        uow.main.add(Item(name="b"))
    assert names(any_dbs) == ["b"]


# --- loggers


def test_the_logger_survives_a_rollback(shop: Databases) -> None:
    with pytest.raises(ZeroDivisionError), shop.unit_of_work() as uow:
        uow.main.add(Item(name="gone"))
        uow.logger.add(Item(name="kept"))
        raise ZeroDivisionError
    with shop.unit_of_work() as uow:
        uow.log.add(Item(name="kept when doomed"))
        uow.doom()
    assert (written(shop), names(shop, "log")) == (["log"], ["kept", "kept when doomed"])


def test_the_logger_survives_a_failed_commit(shop: Databases) -> None:
    with pytest.raises(IntegrityError), shop.unit_of_work() as uow:
        uow.logger.add(Item(name="kept"))
        uow.main.add_all([Item(name="a"), Item(name="a")])
    assert written(shop) == ["log"]


def test_the_logger_survives_a_commit_by_hand_that_failed(shop: Databases) -> None:
    with pytest.raises(IntegrityError), shop.unit_of_work(commit="manual") as uow:
        uow.logger.add(Item(name="kept"))
        uow.main.add_all([Item(name="a"), Item(name="a")])
        uow.commit()
    assert written(shop) == ["log"]
    assert idle(shop)


def test_any_database_can_log(postgresql_dbs: Databases) -> None:
    with pytest.raises(ZeroDivisionError), postgresql_dbs.unit_of_work() as uow:
        uow.main.add(Item(name="gone"))
        uow.main.flush()
        uow.session("main", role="logger").add(Item(name="kept"))
        raise ZeroDivisionError
    assert names(postgresql_dbs) == ["kept"]


def test_a_failing_logger_is_said_after_the_rest_is_durable(shop: Databases) -> None:
    with pytest.raises(PartialCommitError, match="durable: 'main'; the COMMIT on 'log' failed") as caught:
        with shop.unit_of_work() as uow:
            uow.main.add(Item(name="a"))
            uow.logger.add_all([Item(name="x"), Item(name="x")])
    assert (caught.value.committed, caught.value.failed) == (("main",), ("log",))
    assert (written(shop), uow.status) == (["main"], Status.PARTLY_COMMITTED)
    assert idle(shop)


def test_a_failing_logger_does_not_hide_an_error(shop: Databases, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ZeroDivisionError), shop.unit_of_work() as uow:
        uow.logger.add_all([Item(name="x"), Item(name="x")])
        raise ZeroDivisionError
    assert "what the unit of work logged to 'log' is lost" in caplog.text
    assert idle(shop)


def test_a_failing_logger_alone_is_raised(shop: Databases) -> None:
    with pytest.raises(IntegrityError), shop.unit_of_work() as uow:
        uow.logger.add_all([Item(name="x"), Item(name="x")])
    assert uow.status is Status.ROLLED_BACK


def test_a_failing_logger_does_not_take_another_along(shop: Databases) -> None:
    with pytest.raises(IntegrityError), shop.unit_of_work() as uow:
        uow.logger.add_all([Item(name="x"), Item(name="x")])
        uow.session("audit", role="logger").add(Item(name="kept"))
    assert names(shop, "audit") == ["kept"]
    assert idle(shop)


def test_a_listener_of_an_engine_is_part_of_the_order(shop: Databases) -> None:
    with listening(shop.main.engine, "commit", refuse), pytest.raises(PartialCommitError), shop.unit_of_work() as uow:
        write_all(uow)
    assert (written(shop), uow.status) == (["audit", "stock"], Status.PARTLY_COMMITTED)
    assert idle(shop)


@pytest.mark.parametrize("opened_before", [True, False])
def test_a_listener_of_the_last_flush_may_write_to_another_database(shop: Databases, *, opened_before: bool) -> None:
    def audit(session: Session, *_: object) -> None:
        uow: UnitOfWork = session.info["unit_of_work"]
        uow.audit.add_all([Item(name=f"audited {each.name}") for each in session.new])
        shop.session("stock").add_all([Item(name=f"counted {each.name}") for each in session.new])

    with shop.unit_of_work() as uow:
        if opened_before:
            _ = uow.audit, uow.stock
        event.listen(uow.main, "before_flush", audit)
        uow.main.add(Item(name="a"))
    assert [names(shop, each) for each in ("main", "audit", "stock")] == [["a"], ["audited a"], ["counted a"]]
