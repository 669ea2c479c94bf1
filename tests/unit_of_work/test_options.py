"""
Tests of isolation, time limits and the other options of a unit of work.
"""

# The body of a unit of work is what raises, so it stands inside `pytest.raises`, and blocks are told apart.

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import event, text

from stillroom import Databases, Status, UnitOfWorkTimeout
from tests.unit_of_work.shop import Item, idle, made, names

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

ISOLATION = {
    "postgresql": "select current_setting('transaction_isolation')",
    "mariadb": "select @@session.tx_isolation",
}


def in_force(session: Session, backend: str) -> str:
    """
    Ask the server for the isolation of the open transaction.
    """
    return str(session.scalar(text(ISOLATION[backend]))).upper().replace("-", " ")


@pytest.mark.parametrize("backend", ["postgresql", "mariadb"])
@pytest.mark.parametrize("isolation", ["SERIALIZABLE", "REPEATABLE READ", "READ COMMITTED"])
def test_the_isolation_is_in_force_on_the_server(request: pytest.FixtureRequest, backend: str, isolation: str) -> None:
    dbs: Databases = request.getfixturevalue(f"{backend}_dbs")
    with dbs.unit_of_work() as uow:
        default = in_force(uow.main, backend)
    with dbs.unit_of_work(isolation=isolation) as uow:
        assert in_force(uow.main, backend) == isolation
    with dbs.unit_of_work() as uow:
        assert in_force(uow.main, backend) == default


@pytest.mark.parametrize("backend", ["postgresql", "mariadb"])
def test_the_isolation_of_the_settings_is_in_force_and_a_unit_may_raise_it(
    request: pytest.FixtureRequest, backend: str
) -> None:
    url = request.getfixturevalue(f"{backend}_database")
    with made({"main": {"url": url, "isolation": "READ COMMITTED"}}) as dbs:
        with dbs.unit_of_work() as uow:
            assert in_force(uow.main, backend) == "READ COMMITTED"
        with dbs.unit_of_work(isolation="SERIALIZABLE") as uow:
            assert in_force(uow.main, backend) == "SERIALIZABLE"
        with dbs.unit_of_work() as uow:
            assert in_force(uow.main, backend) == "READ COMMITTED"


def test_on_sqlite_every_unit_is_serializable(dbs: Databases) -> None:
    with dbs.unit_of_work(isolation="SERIALIZABLE") as uow:
        assert uow.main.scalar(text("pragma read_uncommitted")) == 0
        uow.main.add(Item(name="a"))
    assert names(dbs) == ["a"]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"commit": "never"}, "commit='never': it is one of 'auto', 'manual'"),
        ({"isolation": "CHAOS"}, "isolation='CHAOS': it is one of"),
        ({"isolation": "serializable"}, "isolation='serializable': it is one of"),
        ({"on_multiple_writes": "hope"}, "on_multiple_writes='hope': it is one of"),
        ({"timeout": 0}, "timeout=0: a time limit is a positive number of seconds"),
        ({"timeout": -1.0}, "timeout=-1.0"),
    ],
)
def test_a_wrong_value_is_refused_when_the_unit_is_made(
    dbs: Databases, option: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        dbs.unit_of_work(**option)


def test_an_unknown_option_is_refused(dbs: Databases) -> None:
    with pytest.raises(TypeError, match="colour"):
        dbs.unit_of_work(colour="red")


# --- timeout


def test_within_its_limit_a_unit_commits(any_dbs: Databases) -> None:
    with any_dbs.unit_of_work(timeout=60) as uow:
        uow.main.add(Item(name="a"))
    assert names(any_dbs) == ["a"]


def pass_limit(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() <= end:
        time.sleep(0.01)


def test_after_the_limit_no_statement_is_sent(any_dbs: Databases) -> None:
    with pytest.raises(UnitOfWorkTimeout, match="a statement for 'main' was not sent"):
        with any_dbs.unit_of_work(timeout=0.3) as uow:
            uow.main.add(Item(name="a"))
            uow.main.flush()
            pass_limit(0.3)
            uow.main.execute(text("select 1"))
    assert (names(any_dbs), uow.status) == ([], Status.ROLLED_BACK)
    assert idle(any_dbs)


def test_a_late_end_is_a_rollback(any_dbs: Databases) -> None:
    calls: list[str] = []
    with pytest.raises(UnitOfWorkTimeout, match=r"longer than its limit of 0\.2 s; it is rolled back"):
        with any_dbs.unit_of_work(timeout=0.2) as uow:
            uow.main.add(Item(name="a"))
            uow.on_rollback(lambda: calls.append("rolled back"))
            pass_limit(0.2)
    assert (names(any_dbs), uow.status, calls) == ([], Status.ROLLED_BACK, ["rolled back"])


def test_the_error_is_a_timeout_error(dbs: Databases) -> None:
    with pytest.raises(TimeoutError), dbs.unit_of_work(timeout=0.01):
        pass_limit(0.02)


def test_the_error_of_the_body_wins_over_the_limit(dbs: Databases) -> None:
    with pytest.raises(ZeroDivisionError), dbs.unit_of_work(timeout=0.01):
        pass_limit(0.02)
        raise ZeroDivisionError


@pytest.mark.parametrize(("backend", "sleep"), [("postgresql", "pg_sleep(30)"), ("mariadb", "sleep(30)")])
def test_the_server_ends_a_long_statement(request: pytest.FixtureRequest, backend: str, sleep: str) -> None:
    dbs: Databases = request.getfixturevalue(f"{backend}_dbs")
    start = time.monotonic()
    with pytest.raises(UnitOfWorkTimeout, match="a statement on 'main' was ended with it"):
        with dbs.unit_of_work(timeout=0.4) as uow:
            uow.main.execute(text(f"select {sleep}"))
    assert time.monotonic() - start < 10
    assert uow.status is Status.ROLLED_BACK
    assert idle(dbs)


@pytest.mark.parametrize("ending", ["commit", "rollback"])
def test_the_limit_of_one_unit_is_not_that_of_the_next(any_dbs: Databases, ending: str) -> None:
    limits = {"postgresql": "show statement_timeout", "mysql": "select @@max_statement_time"}
    ask = limits.get(any_dbs.main.backend.name, "select 1")
    with any_dbs.unit_of_work() as uow:
        before = uow.main.scalar(text(ask))
    with any_dbs.unit_of_work(timeout=20) as uow:
        limited = uow.main.scalar(text(ask))
        if ending == "rollback":
            uow.doom()
    if ask != "select 1":
        assert limited != before
    with any_dbs.unit_of_work() as uow:
        assert uow.main.scalar(text(ask)) == before


def test_the_commit_is_never_cut(postgresql_dbs: Databases) -> None:
    with postgresql_dbs.main.begin() as connection:
        connection.exec_driver_sql(
            "create function dawdle() returns trigger language plpgsql as "
            "'begin perform pg_sleep(0.6); return null; end'"
        )
        connection.exec_driver_sql(
            "create constraint trigger slow after insert on item deferrable initially deferred "
            "for each row execute function dawdle()"
        )
    with postgresql_dbs.unit_of_work(timeout=0.4) as uow:
        uow.main.add(Item(name="a"))
        uow.main.flush()
    assert (names(postgresql_dbs), uow.status) == (["a"], Status.COMMITTED)


def test_no_statement_of_the_end_is_refused_for_lateness(shop: Databases) -> None:
    with shop.unit_of_work(timeout=0.2) as uow:
        uow.main.add(Item(name="a"))
        uow.audit.add(Item(name="b"))
        event.listen(uow.audit, "after_commit", lambda _: pass_limit(0.25))
        event.listen(uow.main, "before_commit", lambda session: session.add(Item(name="late")))
    assert (names(shop, "audit"), names(shop, "main")) == (["b"], ["a", "late"])


def test_what_is_written_at_the_last_flush_is_not_cut_either(dbs: Databases) -> None:
    with dbs.unit_of_work(timeout=0.2) as uow:
        event.listen(uow.main, "before_flush", lambda *_: pass_limit(0.25))
        uow.main.add(Item(name="a"))
    assert names(dbs) == ["a"]
