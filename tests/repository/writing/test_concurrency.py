"""
Several processes and transactions write the same rows: each key once, and nobody overwrites another one unseen.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session
from sqlalchemy.orm.exc import StaleDataError

from stillroom import Databases, UnitOfWork
from stillroom.classification import is_retryable
from stillroom.errors import Deadlock, SerializationFailure
from tests import test_concurrency
from tests.repository.writing.models import Account, Accounts, Base, Dog, Dogs, Team, Teams
from tests.test_concurrency import LIMIT, STUBBORN, in_processes

if TYPE_CHECKING:
    from collections.abc import Iterator

PROCESSES = 8
KEYS = 1000
UNIT = 25
"""How many keys one unit of work writes."""


def databases(url: str, **settings: Any) -> Databases:
    return Databases({"databases": {"main": {"url": url, "pool_size": 2, **settings}}})


def write_all(number: int, url: str) -> int:
    """
    Make or find each of the keys in every second process, and upsert it in the others; return how many were made.
    """
    with databases(url) as dbs:

        @dbs.transactional(retry=STUBBORN)
        def write(uow: UnitOfWork, codes: list[str]) -> int:
            accounts = Accounts(uow)
            if number % 2:
                return sum(accounts.get_or_create({"balance": 1}, code=code)[1] for code in codes)
            assert {accounts.upsert({"code": code, "balance": 1}, match=["code"]).balance for code in codes} == {1}
            return 0

        # Four processes begin with the same keys, the other four in the middle: all in line would take too long.
        codes = [str((key + number // 4 * KEYS // 2) % KEYS) for key in range(KEYS)]
        test_concurrency._start.wait(LIMIT)
        return sum(write(codes[start : start + UNIT]) for start in range(0, KEYS, UNIT))


def test_processes_that_write_the_same_keys_at_once_make_each_of_them_once(any_database: str) -> None:
    with databases(any_database) as dbs:
        Base.metadata.create_all(dbs["main"].engine)
        made = sum(in_processes(PROCESSES, write_all, any_database))
        with dbs.unit_of_work() as uow:
            assert Accounts(uow).count() == Accounts(uow).count(balance=1) == KEYS
            # Each upsert that did not make its row has counted up its version.
            assert uow.main.scalar(select(func.sum(Account.version))) == made + KEYS * PROCESSES // 2


@pytest.fixture(params=["postgresql_database", "mariadb_database"])
def server(request: pytest.FixtureRequest) -> Iterator[Databases]:
    """
    A database on which several transactions can be open at once.
    """
    with databases(request.getfixturevalue(request.param)) as dbs:
        Base.metadata.create_all(dbs["main"].engine)
        yield dbs


def test_of_two_open_transactions_on_one_version_one_wins_and_the_other_is_told(server: Databases) -> None:
    with server.unit_of_work() as uow:
        key = Accounts(uow).create(code="a", balance=100).id
    engine = server["main"].engine
    with Session(engine) as first, Session(engine) as second:
        mine, theirs = (Accounts(session).one(id=key) for session in (first, second))
        Accounts(first).update(key, balance=mine.balance + 1)
        first.commit()
        with pytest.raises(StaleDataError):
            Accounts(second).update(key, balance=theirs.balance + 10)
        second.rollback()
        assert Accounts(second).one(id=key).balance == 101


def test_a_row_committed_after_the_transaction_began_is_found_or_the_unit_is_to_be_repeated(server: Databases) -> None:
    engine = server["main"].engine
    repeatable = engine.execution_options(isolation_level="REPEATABLE READ")
    for number, connectable in enumerate((engine, repeatable)):
        with Session(connectable) as early, Session(engine) as late:
            assert Teams(early).count() == number * 2  # its snapshot, where it has one
            team, _ = Teams(late).get_or_create(name=f"red {number}")
            dog, _ = Dogs(late).get_or_create(name=f"Rex {number}")
            ids = team.id, dog.id
            late.commit()
            Teams(late).create(name=f"blue {number}")
            late.commit()
            if connectable is repeatable and engine.dialect.name == "postgresql":
                with pytest.raises(SerializationFailure, match="made after this transaction began") as caught:
                    Teams(early).get_or_create(name=f"red {number}")
                assert is_retryable(caught.value)
                continue
            found, made = Teams(early).get_or_create(name=f"red {number}")
            dog, made_too = Dogs(early).get_or_create(name=f"Rex {number}")
            assert (found.id, dog.id, made, made_too) == (*ids, False, False)
            assert dog.tricks == 0


def test_a_deadlock_of_two_get_or_create_is_a_deadlock(server: Databases) -> None:
    errors: list[BaseException] = []
    meeting = threading.Barrier(2)

    def work(first: str, second: str) -> None:
        try:
            with server.unit_of_work() as uow:
                Teams(uow).get_or_create(name=first)
                meeting.wait(LIMIT)
                Teams(uow).get_or_create(name=second)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=names) for names in (("a", "b"), ("b", "a"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)
    assert [type(error) for error in errors] == [Deadlock]
    assert is_retryable(errors[0])
    with server.unit_of_work() as uow:
        assert sorted(team.name for team in Teams(uow).list()) == ["a", "b"]


def test_upserts_in_steps_do_not_lose_what_another_one_wrote_meanwhile(server: Databases) -> None:
    engine = server["main"].engine
    with server.unit_of_work() as uow:
        key = Dogs(uow).create(name="Rex", tricks=1).id
    with Session(engine) as early, Session(engine) as late:
        assert Dogs(early).one(id=key).tricks == 1
        Dogs(late).update(key, tricks=5)
        late.commit()
        assert Dogs(early).upsert({"name": "Rex", "tricks": 7}, match=["name"]).version == 3
        early.commit()
    with server.unit_of_work() as uow:
        dog: Dog = Dogs(uow).one(id=key)
        assert (dog.tricks, dog.version) == (7, 3)


def test_a_team_is_found_although_another_transaction_rolls_it_back(server: Databases) -> None:
    engine = server["main"].engine
    with Session(engine) as first:
        Teams(first).create(name="red")
        found: list[tuple[Team, bool]] = []

        def wait_for_it() -> None:
            with server.unit_of_work() as uow:
                found.append(Teams(uow).get_or_create(name="red"))

        thread = threading.Thread(target=wait_for_it)
        thread.start()
        first.rollback()
        thread.join(LIMIT)
    assert [(team.name, made) for team, made in found] == [("red", True)]
