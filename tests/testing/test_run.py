"""
A run of tests: where an application's databases lead in a test, and outside of one.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from sqlalchemy import create_engine, event, func, select, text
from sqlalchemy.exc import OperationalError

from stillroom import AlreadyConfigured, Databases, Repository, Settings
from stillroom.testing import (
    LeakedTransaction,
    NotATestDatabase,
    SandboxError,
    SandboxTimeout,
    TestingError,
    TestOptions,
    TestRun,
    UndeclaredDatabase,
)
from tests.testing.shop import Album, add, count, seed, settings, titles

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy.orm import Session

    from stillroom.testing import Isolation

ISOLATIONS: tuple[Isolation, ...] = ("sandbox", "committed", "clone")


@pytest.fixture
def chosen(place: str, tmp_path: Path) -> Settings:
    return settings(place, tmp_path)


@pytest.fixture
def dbs(chosen: Settings) -> Iterator[Databases]:
    with Databases(chosen) as databases:
        yield databases


@pytest.fixture
def run(dbs: Databases) -> Iterator[TestRun]:
    with TestRun(dbs, TestOptions(seeds={"main": [seed]}, sandbox_timeout=0.5)) as run:
        yield run


def test_what_a_test_commits_is_gone_in_the_next(run: TestRun, dbs: Databases) -> None:
    for isolation in (*ISOLATIONS, *reversed(ISOLATIONS)):
        with run.isolated(isolation=isolation):
            assert (titles(dbs), count(dbs, "audit")) == (["seed"], 0), isolation
            add(dbs)
            add(dbs, name="audit")
            assert (titles(dbs), count(dbs, "audit")) == (["seed", "x"], 1), isolation


def test_seeds_survive_a_test_that_deletes_them(run: TestRun, dbs: Databases) -> None:
    for isolation in ISOLATIONS:
        with run.isolated(isolation=isolation), dbs.unit_of_work() as uow:
            uow.main.execute(text("delete from album"))
            assert uow.main.scalar(text("select count(*) from album")) == 0
    with run.isolated():
        assert titles(dbs) == ["seed"]


def test_a_reader_sees_what_was_written_and_may_not_write(run: TestRun, dbs: Databases) -> None:
    for isolation in ISOLATIONS:
        with run.isolated(isolation=isolation):
            add(dbs)
            assert titles(dbs, role="reader") == ["seed", "x"]
            with pytest.raises(Exception, match=r"(?i)read"), dbs.unit_of_work() as uow:
                uow.reader.execute(text("delete from album"))
            assert count(dbs) == 2


def test_asyncio_and_threads_use_the_same_database(run: TestRun, dbs: Databases) -> None:
    async def add_and_count() -> int:
        async with dbs.async_unit_of_work() as uow:
            uow.main.add(Album(title="async"))
        async with dbs.async_unit_of_work() as uow:
            return await uow.main.scalar(select(func.count()).select_from(Album)) or 0

    for isolation in ISOLATIONS:
        with run.isolated(isolation=isolation):
            thread = threading.Thread(target=add, args=(dbs,))
            thread.start()
            thread.join()
            assert asyncio.run(add_and_count()) == 3, isolation
            assert titles(dbs) == ["async", "seed", "x"]
            assert asyncio.run(add_and_count()) == 4, isolation


def test_outside_of_a_test_nothing_is_reached(run: TestRun, dbs: Databases) -> None:
    with run.isolated():
        add(dbs)
    with pytest.raises(UndeclaredDatabase, match="'main' was used, but no test is running"):
        count(dbs)


def test_a_database_that_was_not_declared_is_refused_by_name(run: TestRun, dbs: Databases) -> None:
    with run.isolated():
        count(dbs, "audit")  # so that there is a connection in the pool
    with run.isolated(databases=["main"]):
        count(dbs)
        with pytest.raises(UndeclaredDatabase, match="'audit' was used, but the test declared only 'main'"):
            count(dbs, "audit")


def test_an_unknown_database_cannot_be_declared(run: TestRun) -> None:
    with pytest.raises(UndeclaredDatabase, match="no test database is named 'mian'"), run.isolated(databases=["mian"]):
        pass


def test_an_engine_that_the_application_held_before_leads_to_the_test_database(chosen: Settings) -> None:
    dbs = Databases(chosen)
    database, engine = dbs["main"], dbs["main"].engine
    with TestRun(dbs) as run:
        for isolation in ISOLATIONS:
            with run.isolated(isolation=isolation):
                add(dbs)
                with engine.connect() as connection:
                    assert connection.scalar(text("select count(*) from album")) == 1, isolation
                with database.session() as session:
                    assert session.scalar(text("select count(*) from album")) == 1, isolation
    dbs.close()


def test_an_application_that_is_configured_in_a_test_is_isolated_too(run: TestRun, chosen: Settings) -> None:
    dbs = run.databases
    for isolation in ISOLATIONS:
        with run.isolated(isolation=isolation):
            dbs.configure(chosen.replace("main", pool_size=2))
            assert dbs["main"].settings.pool_size == 2
            add(dbs)
            assert titles(dbs) == ["seed", "x"], isolation
        with run.isolated(isolation=isolation):
            assert titles(dbs) == ["seed"], isolation
            dbs.configure(chosen)


def test_another_profile_alone_is_no_other_configuration(run: TestRun, chosen: Settings) -> None:
    dbs = run.databases
    for isolation in ISOLATIONS:
        with run.isolated(isolation=isolation), dbs.unit_of_work() as uow:
            dbs.configure(msgspec.structs.replace(chosen, profile="production"))
            assert uow.main.scalar(text("select count(*) from album")) == 1, isolation
            with pytest.raises(AlreadyConfigured, match=r"1 unit\(s\) of work are open"):
                dbs.configure(chosen.replace("main", pool_size=2))


def test_an_override_in_a_test_must_lead_to_a_test_database(run: TestRun, dbs: Databases) -> None:
    with run.isolated(), pytest.raises(NotATestDatabase, match="latest"), dbs.override(main="sqlite:////srv/latest.db"):
        pass


def test_an_override_in_a_test_is_used_as_it_is(run: TestRun, dbs: Databases, tmp_path: Path) -> None:
    with run.isolated():
        with dbs.override(audit=f"sqlite:///{tmp_path}/own.db"):
            with dbs.unit_of_work() as uow:
                uow.audit.execute(text("create table own (id integer)"))
        assert count(dbs, "audit") == 0
    assert (tmp_path / "own.db").exists()


def test_a_write_that_would_wait_for_the_test_names_its_line(run: TestRun, dbs: Databases) -> None:
    failures: list[Exception] = []

    def serve() -> None:
        try:
            add(dbs)
        except Exception as error:
            failures.append(error)

    with run.isolated():
        with dbs.unit_of_work(commit="manual") as uow:
            uow.main.add(Album(title="held"))
            uow.main.flush()
            thread = threading.Thread(target=serve, name="server")
            thread.start()
            thread.join(20)
            assert not thread.is_alive()
        assert isinstance(failures[0], SandboxTimeout)
        assert "'server'" in str(failures[0])
        assert "test_run.py:" in str(failures[0])


def test_a_transaction_that_is_left_open_is_told_and_undone(run: TestRun, dbs: Databases) -> None:
    for isolation in ("sandbox", "committed"):
        with pytest.raises(LeakedTransaction, match="main"), run.isolated(isolation=isolation):
            connection = dbs.main.engine.connect()
            connection.execute(text("insert into album (id, title) values (77, 'left')"))
        with contextlib.suppress(OperationalError):  # the server may have ended it
            connection.close()
        with run.isolated(isolation=isolation):
            assert titles(dbs) == ["seed"]


def test_an_error_of_the_test_is_not_hidden_by_what_it_left_open(run: TestRun, dbs: Databases) -> None:
    with pytest.raises(ZeroDivisionError), run.isolated():
        connection = dbs.main.engine.connect()
        connection.execute(text("insert into album (id, title) values (77, 'left')"))
        raise ZeroDivisionError
    connection.close()


def test_another_process_sees_what_a_test_committed(run: TestRun, dbs: Databases) -> None:
    program = (
        f"import sys; sys.path.insert(0, {sys.path[0]!r})\n"
        "from stillroom import Databases, Settings\n"
        "from tests.testing.shop import add, titles\n"
        "dbs = Databases(Settings.from_mapping({'default': 'main', 'databases': {'main': {}, 'audit': {}}}))\n"
        "add(dbs, 'other'); print(titles(dbs))"
    )
    for isolation in ("committed", "clone"):
        with run.isolated(isolation=isolation, databases=["main"]) as test:
            add(dbs)
            done = subprocess.run(
                [sys.executable, "-c", program],
                env=test.environ,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert done.stdout.strip() == "['other', 'seed', 'x']", done.stderr
            assert titles(dbs) == ["other", "seed", "x"]
    with run.isolated():
        assert titles(dbs) == ["seed"]


def test_the_sandbox_has_no_place_that_another_process_could_look_at(run: TestRun) -> None:
    with run.isolated() as test, pytest.raises(SandboxError, match='isolation="committed"'):
        _ = test.environ


def test_the_rows_of_a_layer_are_seen_by_the_tests_in_it_alone(run: TestRun, dbs: Databases) -> None:
    with run.layer():
        add(dbs, "layer")
        for _ in range(2):
            with run.isolated():
                assert titles(dbs) == ["layer", "seed"]
                add(dbs)
        with run.layer():
            add(dbs, "upper")
            with run.isolated():
                assert titles(dbs) == ["layer", "seed", "upper"]
        with run.isolated():
            assert titles(dbs) == ["layer", "seed"]
    with run.isolated():
        assert titles(dbs) == ["seed"]


def test_nobody_commits_beside_a_layer(run: TestRun) -> None:
    with run.layer(), pytest.raises(SandboxError, match="data layer is open"), run.isolated(isolation="committed"):
        pass


def test_tests_do_not_nest(run: TestRun) -> None:
    with run.isolated(), pytest.raises(TestingError, match="running already"), run.isolated():
        pass


def test_a_clone_of_a_test_that_failed_is_kept(run: TestRun, dbs: Databases) -> None:
    with pytest.raises(ZeroDivisionError), run.isolated(isolation="clone", databases=["main"], label="failing") as test:
        add(dbs, "evidence")
        raise ZeroDivisionError
    if dbs.main.backend.name == "sqlite" and "vfs" in str(test.urls["main"]):
        return
    engine = create_engine(dbs.main.backend.driver_url(test.urls["main"], is_async=False))
    with engine.connect() as connection:
        assert connection.scalar(text("select count(*) from album")) == 2
    engine.dispose()


def test_after_the_run_the_settings_are_those_from_before(dbs: Databases, chosen: Settings) -> None:
    with TestRun(dbs):
        assert dbs.settings != chosen
    assert dbs.settings == chosen


def test_what_is_no_test_database_is_refused_before_anything(tmp_path: Path) -> None:
    path = tmp_path.parent / "latest.db"
    dbs = Databases({"databases": {"main": {"url": "postgresql://postgres@127.0.0.1/latest"}}})
    with pytest.raises(NotATestDatabase, match="latest"), TestRun(dbs):
        pass
    assert not path.exists()
    assert not dbs.main.pools()


def test_callbacks_after_the_commit_run_in_the_sandbox(run: TestRun, dbs: Databases) -> None:
    seen: list[Any] = []
    with run.isolated():
        with dbs.unit_of_work() as uow:
            uow.main.add(Album(title="x"))
            uow.on_commit(lambda: seen.append(titles(dbs)))
        assert seen == [["seed", "x"]]


def test_a_total_that_a_test_has_counted_is_not_remembered_in_the_next(run: TestRun, dbs: Databases) -> None:
    for isolation in ISOLATIONS:
        for more in (2, 1):
            with run.isolated(isolation=isolation):
                for _ in range(more):
                    add(dbs)
                with dbs.unit_of_work() as uow:
                    assert Repository[Album](uow).page(size=1, total="cached").total == 1 + more, isolation


def test_a_procedure_that_commits_ends_the_test_and_leaves_nothing(mariadb_place: str, tmp_path: Path) -> None:
    def with_procedure(session: Session) -> None:
        seed(session)
        session.execute(text("create procedure pay() begin insert into album (title) values ('paid'); commit; end"))

    told: list[str] = []
    options = TestOptions(seeds={"main": [with_procedure]}, notice=told.append)
    with Databases(settings(mariadb_place, tmp_path)) as dbs, TestRun(dbs, options) as run:
        for _ in range(2):
            with run.isolated():
                assert titles(dbs) == ["seed"]
                with pytest.raises(SandboxError, match="COMMIT in it"), dbs.unit_of_work() as uow:
                    uow.main.execute(text("call pay()"))
        with run.isolated(isolation="committed"):
            assert titles(dbs) == ["seed"]
    assert sum("made anew" in each for each in told) == 2


def test_an_engine_from_before_serves_each_run(dbs: Databases) -> None:
    held = dbs["main"]
    assert held.engine is not None
    for _ in range(2):
        with TestRun(dbs) as run, run.isolated():
            with held.session() as session:
                session.add(Album(title="x"))
            assert titles(dbs) == ["x"]
    with pytest.raises(UndeclaredDatabase, match="the run of tests has ended"), held.session() as session:
        session.execute(text("select 1"))


@pytest.mark.parametrize(("failing", "other"), [("main", "audit"), ("audit", "main")])
def test_the_end_of_one_database_that_fails_keeps_no_other_from_its_end(
    dbs: Databases, failing: str, other: str
) -> None:
    def fail(*_: object) -> None:
        event.remove(engine, "close", fail)
        raise ZeroDivisionError

    engine, held = dbs[failing].engine, dbs[other].engine
    with pytest.raises(ZeroDivisionError), TestRun(dbs) as run:
        with run.isolated(), engine.connect(), held.connect():
            pass
        event.listen(engine, "close", fail)
    with pytest.raises(UndeclaredDatabase, match="the run of tests has ended"):
        held.connect()


def test_another_process_finds_no_database_that_the_test_did_not_declare(run: TestRun) -> None:
    with run.isolated(isolation="committed", databases=["main"]) as test:
        found = Settings.from_mapping({"default": "main", "databases": {"main": {}, "audit": {}}}, environ=test.environ)
        there = Databases(found)
        with pytest.raises(OperationalError), there.audit.connect():
            pass
        there.close()


def test_a_test_that_drops_a_table_is_told_and_the_next_finds_it_again(run: TestRun, dbs: Databases) -> None:
    if dbs.main.backend.name == "sqlite":
        pytest.skip("the whole file is put back there")
    with run.isolated(isolation="committed"):
        assert titles(dbs) == ["seed"]
    with pytest.raises(TestingError, match="made anew"), run.isolated(isolation="committed"), dbs.unit_of_work() as uow:
        uow.main.execute(text("drop table album"))
    for isolation in ISOLATIONS:
        with run.isolated(isolation=isolation):
            assert titles(dbs) == ["seed"]
