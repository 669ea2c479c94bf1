"""
Two-phase commit: what is durable after success and after each failure, and that nothing is left behind.
"""

from __future__ import annotations

import re
import threading
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, IntegrityError

from stillroom import two_phase
from stillroom.errors import CommitOutcomeUnknown, MultipleWritesRefused, PartialCommitError
from stillroom.status import Status
from stillroom.testing.servers import Proxy, wait_until
from tests.commits.dying import write_everywhere
from tests.commits.layouts import prepared
from tests.commits.worlds import COMMIT, Place, column, databases, execute

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LAYOUTS = [
    {"shop": "psycopg", "main": "psycopg"},
    {"shop": "pymysql", "main": "psycopg"},
    {"shop": "psycopg", "main": "pymysql"},
    {"shop": "pymysql", "main": "pymysql"},
    {"shop": "psycopg", "main": "sqlite"},
    {"shop": "psycopg-async", "main": "psycopg-async"},
    {"shop": "asyncpg", "main": "aiomysql"},
    {"shop": "aiomysql", "main": "asyncpg"},
    {"shop": "asyncpg", "main": "aiosqlite"},
]
PREPARES_LATE = "CREATE TABLE late (id INTEGER REFERENCES item DEFERRABLE INITIALLY DEFERRED)"


@pytest.fixture(params=LAYOUTS, ids=lambda names: "-".join(names.values()))
def place(request: pytest.FixtureRequest, make_layout: Callable[..., Any]) -> Any:
    return make_layout(**request.param)


@pytest.fixture
def proxy(pg_server: Any) -> Iterator[Proxy]:
    with Proxy(port=pg_server.port) as proxy:
        yield proxy


def test_all_databases_are_committed_and_nothing_is_left_prepared(place: Any) -> None:
    with place.open() as opened:
        for number in (2, 3):
            ended = opened.unit(lambda session, number=number: insert_everywhere(session, number))
            assert (ended.error, ended.status, ended.hooks) == (None, Status.COMMITTED, ["commit"])
            assert place.in_doubt() == []
        assert opened.dbs.recover(min_age=0) == []
    assert place.rows() == {"shop": [1, 2, 3], "main": [1, 2, 3]}


def insert_everywhere(session: Any, number: int) -> None:
    for name in ("shop", "main"):
        session(name).execute(text("INSERT INTO item VALUES (:id)"), {"id": number})


def test_an_exception_rolls_all_of_them_back(place: Any) -> None:
    def body(session: Any) -> None:
        write_everywhere(session)
        raise ValueError("no")

    with place.open() as opened:
        ended = opened.unit(body)
        assert (type(ended.error), ended.status, ended.hooks) == (ValueError, Status.ROLLED_BACK, ["rollback"])
        assert place.in_doubt() == []
        assert opened.unit(write_everywhere).error is None
    assert place.rows() == {"shop": [1, 2], "main": [1, 2]}


@pytest.mark.parametrize("name", ["shop", "main"])
def test_one_database_that_was_written_is_committed_in_one_phase(place: Any, name: str) -> None:
    def body(session: Any) -> None:
        for each in ("shop", "main"):
            session(each).execute(text("SELECT count(*) FROM item" if each != name else "INSERT INTO item VALUES (2)"))

    with place.open() as opened:
        ended = opened.unit(body)
        assert (ended.error, ended.status) == (None, Status.COMMITTED)
        assert place.in_doubt() == []
    assert place.rows() == {"shop": [1], "main": [1], name: [1, 2]}


@pytest.mark.parametrize("drivers", [LAYOUTS[0], LAYOUTS[4], LAYOUTS[5], LAYOUTS[7], LAYOUTS[8]], ids=str)
@pytest.mark.parametrize("where", ["shop", "main"])
def test_a_failure_at_the_last_moment_leaves_nothing(drivers: Any, where: str, make_layout: Any) -> None:
    place = make_layout(**drivers)
    if make_url(place.urls[where]).get_backend_name() != "postgresql":
        pytest.skip("only PostgreSQL defers constraints to the end of a whole transaction, with an error")
    execute(place.urls[where], PREPARES_LATE)

    def body(session: Any) -> None:
        write_everywhere(session)
        session(where).execute(text("INSERT INTO late VALUES (99)"))

    with place.open() as opened:
        ended = opened.unit(body)
        assert isinstance(ended.error, IntegrityError)
        assert (ended.status, ended.hooks) == (Status.ROLLED_BACK, ["rollback"])
        assert place.in_doubt() == []
        assert opened.unit(lambda session: insert_everywhere(session, 3)).error is None
    assert place.rows() == {"shop": [1, 3], "main": [1, 3]}


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
def test_a_server_that_keeps_no_prepared_transactions_is_named_with_its_setting(
    driver: str, postgresql_database: str, sqlite_database: str
) -> None:
    url = make_url(postgresql_database).set(drivername=f"postgresql+{driver}").render_as_string(hide_password=False)
    for each in (postgresql_database, sqlite_database):
        execute(each, "CREATE TABLE item (id INTEGER PRIMARY KEY)")
    settings = {"shop": {"url": url}, "main": {"url": sqlite_database}}
    dbs = databases(settings, on_multiple_writes="two_phase")
    with Place(dbs, is_async=driver == "asyncpg") as opened:
        ended = opened.unit(write_everywhere)
        assert "max_prepared_transactions" in str(ended.error)
        assert ended.status is Status.ROLLED_BACK
    assert column(postgresql_database, "SELECT id FROM item") == column(sqlite_database, "SELECT id FROM item") == []


def test_two_databases_that_cannot_prepare_are_refused(tmp_path: Any) -> None:
    urls = {name: f"sqlite:///{tmp_path / name}.db" for name in ("shop", "main")}
    for url in urls.values():
        execute(url, "CREATE TABLE item (id INTEGER PRIMARY KEY)")
    dbs = databases({name: {"url": url} for name, url in urls.items()}, on_multiple_writes="two_phase")
    with Place(dbs) as opened:
        ended = opened.unit(write_everywhere)
    assert isinstance(ended.error, MultipleWritesRefused)
    assert ended.status is Status.ROLLED_BACK
    assert [column(url, "SELECT id FROM item") for url in urls.values()] == [[], []]


def test_a_deadlock_inside_a_unit_that_could_prepare_leaves_a_clean_pool(make_layout: Any) -> None:
    place = make_layout(shop="pymysql", main="psycopg")
    execute(place.urls["shop"], "INSERT INTO item VALUES (5)")
    both = threading.Barrier(2)
    results: list[Any] = []
    lock = "SELECT id FROM item WHERE id = :id FOR UPDATE"

    with place.open() as opened:

        def work(first: int, second: int) -> None:
            def body(session: Any) -> None:
                write = session("shop")
                write.execute(text(lock), {"id": first})
                write.execute(text(f"INSERT INTO item VALUES (10{first})"))
                both.wait(10)
                write.execute(text(lock), {"id": second})

            results.append(opened.unit(body))

        threads = [threading.Thread(target=work, args=pair) for pair in ((1, 5), (5, 1))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert sorted(each.status.value for each in results) == ["committed", "rolled back"]
        assert place.in_doubt() == []
        for number in range(20, 24):
            assert opened.unit(lambda session, number=number: insert_everywhere(session, number)).error is None
    assert len([row for row in place.rows()["shop"] if row > 100]) == 1


def test_decisions_do_not_pile_up(make_layout: Any) -> None:
    place = make_layout(shop="psycopg", main="psycopg")
    with place.open() as opened:
        for number in range(2, 232):
            assert opened.unit(lambda session, number=number: insert_everywhere(session, number)).error is None
    assert column(place.urls["main"], "SELECT count(*) FROM stillroom_decisions") == [30]


def test_recovery_forgets_old_decisions_but_not_those_that_are_still_needed(make_layout: Any) -> None:
    place = make_layout(shop="psycopg", main="psycopg")
    needed, done = prepare_by_hand(place, "1"), "stillroom-2-done"
    with place.open() as opened:
        assert opened.unit(write_everywhere).error is None
        rows = ", ".join(f"('{gid}', 'committed', 0)" for gid in (needed, done))
        execute(place.urls["main"], f"INSERT INTO stillroom_decisions VALUES {rows}")
        opened.dbs.recover(min_age=10**12)
        kept = column(place.urls["main"], "SELECT gid FROM stillroom_decisions WHERE decided_at = 0")
        assert kept == [needed]
        assert [each.outcome for each in opened.dbs.recover(min_age=0)] == ["committed"]
    assert place.rows()["shop"] == [1, 2, 7]


def prepare_by_hand(place: Any, moment: str, prefix: str = "stillroom-") -> str:
    """
    Leave a prepared transaction behind that inserts the row 7 into "shop".
    """
    gid = f"{prefix}{moment}-left"
    execute(place.urls["shop"], "INSERT INTO item VALUES (7)", f"PREPARE TRANSACTION '{gid}'")
    return gid


def test_recovery_twice_finds_nothing_the_second_time(make_layout: Any) -> None:
    place = make_layout(shop="psycopg", main="psycopg")
    gid = prepare_by_hand(place, "1")
    with place.open() as opened:
        found = opened.dbs.recover()
        assert [(each.database, each.gid, each.outcome) for each in found] == [("shop", gid, "rolled back")]
        assert opened.dbs.recover() == []
    assert place.rows()["shop"] == [1]


def test_prepared_transactions_of_others_are_left_alone(make_layout: Any) -> None:
    place = make_layout(shop="psycopg", main="psycopg")
    gid = prepare_by_hand(place, "1", prefix="_sa_")
    with place.open() as opened:
        assert opened.dbs.recover(min_age=0) == []
    assert place.in_doubt() == [gid]


def test_a_dry_run_only_lists(make_layout: Any) -> None:
    place = make_layout(shop="psycopg", main="psycopg")
    gid = prepare_by_hand(place, "1")
    with place.open() as opened:
        found = opened.dbs.recover(dry_run=True)
    assert [(each.gid, each.outcome, each.reason) for each in found] == [(gid, "left", "only listed")]
    assert place.in_doubt() == [gid]


@pytest.mark.parametrize("min_age", [60.0, 0.0])
def test_recovery_while_a_unit_is_between_its_phases_never_splits_it(
    min_age: float, make_layout: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = make_layout(shop="psycopg", main="psycopg")
    found: list[Any] = []
    decide = two_phase._decide
    with place.open() as opened:

        def recover_first(*args: Any) -> None:
            found.extend(opened.dbs.recover(min_age=min_age))
            decide(*args)

        monkeypatch.setattr(two_phase, "_decide", recover_first)
        ended = opened.unit(write_everywhere)
        monkeypatch.undo()
        assert place.in_doubt() == []
        if min_age:
            assert (found[0].outcome, ended.error, ended.status) == ("left", None, Status.COMMITTED)
        else:
            assert (found[0].outcome, ended.status) == ("rolled back", Status.ROLLED_BACK)
            assert isinstance(ended.error, IntegrityError)
        assert opened.unit(lambda session: insert_everywhere(session, 3)).error is None
    assert place.rows() == dict.fromkeys(("shop", "main"), [1, 2, 3] if min_age else [1, 3])


PREPARE = re.compile(rb"PREPARE TRANSACTION")
COMMIT_PREPARED = re.compile(rb"COMMIT PREPARED")


@pytest.mark.parametrize("driver", ["psycopg", "psycopg-async", "asyncpg"])
@pytest.mark.parametrize("action", ["cut_before", "cut_after", "black_hole", "black_hole_after"])
def test_a_lost_answer_to_prepare_rolls_everything_back(
    driver: str, action: Any, make_layout: Any, proxy: Proxy
) -> None:
    place = make_layout(shop=driver, main=driver)
    place.urls["shop"] = proxy.url(place.urls["shop"])
    with place.open(commit_timeout=0.5) as opened:
        assert opened.unit(lambda session: insert_everywhere(session, 3)).error is None
        proxy.on_client(PREPARE, action)
        ended = opened.unit(write_everywhere)
        assert isinstance(ended.error, DBAPIError)
        assert (ended.status, ended.hooks) == (Status.ROLLED_BACK, ["rollback"])
        opened.dbs.recover(min_age=0)
        assert place.in_doubt() == []
        assert opened.unit(lambda session: insert_everywhere(session, 4)).error is None
    assert place.rows() == {"shop": [1, 3, 4], "main": [1, 3, 4]}


@pytest.mark.parametrize("driver", ["psycopg", "psycopg-async", "asyncpg"])
@pytest.mark.parametrize("action", ["cut_before", "black_hole"])
def test_a_database_that_does_not_confirm_is_named_and_recovered(
    driver: str, action: Any, make_layout: Any, proxy: Proxy
) -> None:
    place = make_layout(shop=driver, main=driver)
    place.urls["shop"] = proxy.url(place.urls["shop"])
    with place.open(commit_timeout=0.5) as opened:
        assert opened.unit(lambda session: insert_everywhere(session, 3)).error is None
        proxy.on_client(COMMIT_PREPARED, action)
        ended = opened.unit(write_everywhere)
        assert isinstance(ended.error, PartialCommitError)
        assert (ended.error.committed, ended.error.failed) == (("main",), ("shop",))
        assert (ended.status, ended.hooks) == (Status.PARTLY_COMMITTED, [])
        assert [each.outcome for each in opened.dbs.recover(min_age=0)] == ["committed"]
    assert place.rows() == {"shop": [1, 2, 3], "main": [1, 2, 3]}


@pytest.mark.parametrize("drivers", [LAYOUTS[0], LAYOUTS[1], LAYOUTS[5], LAYOUTS[7]], ids=str)
@pytest.mark.parametrize("verify", [False, True])
@pytest.mark.parametrize("action", ["cut_before", "cut_after", "black_hole"])
def test_a_lost_answer_of_the_coordinator_never_splits_the_databases(
    drivers: Any, verify: bool, action: Any, make_layout: Any, proxy: Proxy
) -> None:
    place = make_layout(**drivers)
    place.urls["main"] = proxy.url(place.urls["main"])
    with place.open(commit_timeout=0.5, verify_commit=verify) as opened:
        assert opened.unit(lambda session: insert_everywhere(session, 3)).error is None
        proxy.on_client(COMMIT, action)
        ended = opened.unit(write_everywhere)
        durable = action == "cut_after"
        if verify:
            assert ended.status is (Status.COMMITTED if durable else Status.ROLLED_BACK)
            assert place.in_doubt() == []
        else:
            assert isinstance(ended.error, CommitOutcomeUnknown)
            assert ended.status is Status.UNKNOWN
            (gid,) = prepared(place.urls["shop"])
            assert gid in "".join(ended.error.__notes__)
            proxy.cut()  # until then a coordinator in a black hole keeps its decision open, and recovery waits
            settled = lambda: not [each for each in opened.dbs.recover(min_age=0) if each.outcome == "left"]  # noqa: E731
            wait_until(settled, "the prepared transaction is free")
        assert opened.unit(lambda session: insert_everywhere(session, 4)).error is None
    assert place.rows() == dict.fromkeys(("shop", "main"), [1, 2, 3, 4] if durable else [1, 3, 4])
