"""
The end of a test: what was left open is named and undone, and the next test finds everything as it should be.
"""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import create_engine, insert, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from stillroom.errors import ForkedConnection
from stillroom.testing.errors import SandboxError, SandboxTimeout
from tests.testing.sandbox.support import IMPATIENT, PATIENCE, Item, run, sandboxed

if TYPE_CHECKING:
    from tests.testing.sandbox.support import Setting


def test_what_is_left_open_is_named_and_undone(setting_of_module: Setting) -> None:
    setting = setting_of_module
    setting.sandbox.begin()
    session = Session(setting.engine)
    session.add(Item(name="a"))
    session.flush()
    (leak,) = setting.sandbox.end()
    assert "MainThread" in leak.who
    assert f"{__file__}:" in leak.where
    assert "test_what_is_left_open" in leak.where
    with setting.test():
        with pytest.raises(SandboxError, match="the test has ended"):
            session.execute(select(Item))
        session.close()
        with Session(setting.engine) as another:
            another.add(Item(name="a"))
            another.commit()
        assert setting.count() == 1


def test_a_read_that_is_left_open_is_no_leak(setting_of_module: Setting) -> None:
    setting = setting_of_module
    setting.sandbox.begin()
    session = Session(setting.engine)
    session.scalars(select(Item)).all()
    assert setting.sandbox.end() == []
    with setting.test():
        assert session.scalars(select(Item)).all() == []
        session.close()


def test_layers_of_data_nest(setting_of_module: Setting) -> None:
    setting = setting_of_module

    def add(name: str) -> None:
        with setting.engine.begin() as connection:
            connection.execute(insert(Item), {"name": name})

    with setting.test():
        add("of the module")
        for name in ("one", "two"):
            setting.sandbox.begin()
            assert setting.count() == 1
            add(name)
            assert setting.count() == 2
            assert setting.sandbox.end() == []
        assert setting.count() == 1


def test_a_test_does_not_begin_inside_what_a_layer_has_not_committed(setting: Setting) -> None:
    with Session(setting.engine) as session:
        session.add(Item(name="a"))
        session.flush()
        with pytest.raises(SandboxError, match=r"not committed.*test_ends.py:\d+"):
            setting.sandbox.begin()


def test_nothing_is_used_between_tests(setting_of_module: Setting) -> None:
    with pytest.raises(SandboxError, match="no test was running"):
        setting_of_module.count()


def test_an_end_without_a_begin_is_an_error(setting_of_module: Setting) -> None:
    with pytest.raises(SandboxError, match="more often than begun"):
        setting_of_module.sandbox.end()


def test_schema_changes_are_undone(postgresql_of_module: Setting, sqlite_of_module: Setting) -> None:
    for setting in (postgresql_of_module, sqlite_of_module):
        for _ in range(2):
            with setting.test():
                with setting.engine.begin() as connection:
                    connection.exec_driver_sql("create table fresh (id integer primary key)")
                    connection.exec_driver_sql("alter table items add column note text")
                with setting.engine.begin() as connection:
                    connection.exec_driver_sql("insert into items (name, note) values ('a', 'b')")


def test_a_statement_that_was_prepared_is_prepared_again_for_the_type_of_the_next_test(
    postgresql_of_module: Setting,
) -> None:
    setting = postgresql_of_module
    often = 7  # psycopg prepares what is sent more than five times
    for times in (1, 1, often, 1, often, 1):
        with setting.test(), setting.engine.begin() as connection:
            connection.exec_driver_sql("create type mood as enum ('good')")
            connection.exec_driver_sql("create table moods (mood mood)")
            for _ in range(times):
                connection.exec_driver_sql("insert into moods values (%(mood)s)", {"mood": "good"})


def test_schema_changes_are_undone_over_asyncpg(async_of_module: Setting) -> None:
    if async_of_module.dbs["main"].async_engine.dialect.driver != "asyncpg":
        pytest.skip("the others are the synchronous ones")

    async def work() -> None:
        async with async_of_module.dbs["main"].async_engine.begin() as connection:
            await connection.execute(text("select * from items"))
            await connection.exec_driver_sql("alter table items add column note text")
        async with async_of_module.dbs["main"].async_engine.begin() as connection:
            await connection.exec_driver_sql("insert into items (name, note) values ('a', 'b')")

    for _ in range(3):
        with async_of_module.test():
            run(async_of_module, work)


def test_a_connection_that_the_server_ends_is_told_and_the_next_test_has_another(
    postgresql_of_module: Setting,
) -> None:
    setting = postgresql_of_module
    admin = create_engine(setting.url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with setting.test():
        with setting.engine.begin() as connection:
            connection.execute(insert(Item), {"name": "a"})
            process = connection.scalar(text("select pg_backend_pid()"))
        with admin.connect() as outside:
            outside.execute(text("select pg_terminate_backend(:process)"), {"process": process})
        with pytest.raises(DBAPIError):
            setting.count()
        with pytest.raises(SandboxError, match="is gone"):
            setting.count()
    with setting.test():
        with setting.engine.begin() as connection:
            connection.execute(insert(Item), {"name": "a"})
        assert setting.count() == 1


def test_the_end_breaks_off_a_statement_that_goes_on(postgresql_of_module: Setting) -> None:
    setting = postgresql_of_module
    ended = threading.Event()

    def sleep() -> None:
        try:
            with setting.engine.connect() as connection:
                connection.execute(text("select pg_sleep(60)"))
        except (DBAPIError, SandboxError):
            ended.set()

    setting.sandbox.begin()
    setting.count()
    thread = threading.Thread(target=sleep)
    thread.start()
    admin = create_engine(setting.url, poolclass=NullPool)
    end = time.monotonic() + PATIENCE
    with admin.connect() as outside:
        asleep = text("select count(*) from pg_stat_activity where state = 'active' and query like '%%pg_sleep(60)%%'")
        while outside.scalar(asleep) < 2 and time.monotonic() < end:
            outside.rollback()
    with setting.impatient():
        setting.sandbox.end()
    thread.join(PATIENCE)
    assert ended.is_set()
    with setting.test():
        assert setting.count() == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system cannot fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_cannot_use_it_and_does_no_harm(postgresql: Setting, mariadb: Setting) -> None:
    for setting in (postgresql, mariadb):
        with setting.engine.begin() as connection:
            connection.execute(insert(Item), {"name": "a"})
        with Session(setting.engine) as session:
            session.add(Item(name="b"))
            session.flush()
            child = os.fork()
            if child == 0:
                code = 1
                try:
                    session.execute(select(Item))
                except ForkedConnection:
                    session.close()
                    try:
                        setting.count()
                    except ForkedConnection:
                        code = 0
                finally:
                    os._exit(code)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            session.commit()
        assert setting.count() == 2


@pytest.mark.parametrize("first", ["psycopg", "asyncpg"])
def test_two_drivers_that_lock_the_same_row_get_an_error(postgresql_database: str, first: str) -> None:
    with sandboxed(postgresql_database, "asyncpg", timeout=IMPATIENT) as setting, setting.test():

        async def work() -> None:
            async with setting.dbs["main"].async_engine.begin() as connection:
                await connection.execute(insert(Item), {"name": "a"})

        def write() -> None:
            with setting.engine.begin() as connection:
                connection.execute(insert(Item), {"name": "a"})

        def run_work() -> None:
            run(setting, work)

        steps = [write, run_work]
        if first == "asyncpg":
            steps.reverse()
        steps[0]()
        with pytest.raises(SandboxTimeout, match="asyncpg"):
            steps[1]()


def test_a_closed_sandbox_leaves_no_connection(postgresql_database: str) -> None:
    with sandboxed(postgresql_database, "asyncpg") as setting:
        with setting.test():
            setting.count()

            async def work() -> None:
                async with setting.dbs["main"].async_engine.begin() as connection:
                    await connection.execute(insert(Item), {"name": "a"})

            run(setting, work)
