"""
Stillroom's own units of work in the sandbox: both worlds, readers, savepoints, callbacks, COPY, time limits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError

from stillroom import BadRow, ReadOnlyError, Repository, TransactionAborted
from tests.testing.sandbox.support import BACKENDS, Item, Part, in_threads, run, sandboxed

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy.engine import Connection

    from tests.testing.sandbox.support import Setting


class Items(Repository[Item]):
    """
    The items.
    """


class AnError(Exception):
    """
    What the application raises.
    """


def test_a_unit_of_work_commits_and_its_callbacks_run(setting: Setting) -> None:
    called: list[int] = []
    with setting.dbs.unit_of_work() as uow:
        uow.main.add(Item(name="a"))
        with uow.savepoint():
            uow.main.add(Item(name="b"))
        with pytest.raises(AnError), uow.savepoint():
            uow.main.add(Item(name="lost"))
            uow.on_commit(lambda: called.append(0))
            raise AnError
        uow.on_commit(lambda: called.append(setting.count()))
    assert called == [2]


def test_a_unit_of_work_rolls_back_and_its_callbacks_run(setting: Setting) -> None:
    called: list[int] = []
    with pytest.raises(AnError), setting.dbs.unit_of_work() as uow:
        uow.main.add(Item(name="a"))
        uow.main.flush()
        uow.on_rollback(lambda: called.append(setting.count()))
        raise AnError
    assert called == [0]


def test_a_callback_may_open_a_unit_of_its_own(setting: Setting) -> None:
    def log() -> None:
        with setting.dbs.unit_of_work() as another:
            another.main.add(Item(name="log"))

    with setting.dbs.unit_of_work() as uow:
        uow.main.add(Item(name="a"))
        uow.on_commit(log)
    assert setting.count() == 2


def test_a_reader_sees_what_the_writer_has_not_committed(setting: Setting) -> None:
    with setting.dbs.unit_of_work() as uow:
        uow.main.add(Item(name="a"))
        uow.main.flush()
        assert uow.reader.scalars(select(Item.name)).all() == ["a"]
        assert uow.reader(snapshot=True).scalars(select(Item.name)).all() == ["a"]  # type: ignore[operator]


@pytest.mark.parametrize("snapshot", [False, True])
def test_a_reader_cannot_write(setting: Setting, *, snapshot: bool) -> None:
    with setting.dbs.unit_of_work() as uow:
        uow.main.add(Item(name="a"))
    with setting.dbs.unit_of_work() as uow:
        reader = uow.session("main", role="reader", snapshot=snapshot)
        with pytest.raises(ReadOnlyError):
            reader.execute(text("insert into items (name) values ('b')"))
    assert setting.count() == 1


def test_a_reader_cannot_write_through_a_function(postgresql: Setting) -> None:
    with postgresql.engine.begin() as connection:
        connection.exec_driver_sql(
            "create function put() returns void language sql as $$ insert into items (name) values ('put') $$"
        )
    with postgresql.dbs.unit_of_work() as uow:
        with pytest.raises(DBAPIError, match="read-only transaction"):
            uow.reader.execute(text("select put()"))
        uow.main.execute(text("select put()"))
        uow.main.rollback()
    assert postgresql.count() == 0


def test_an_error_that_is_swallowed_makes_the_commit_fail(postgresql: Setting) -> None:
    with pytest.raises(TransactionAborted), postgresql.dbs.unit_of_work() as uow:
        uow.main.add(Item(name="a"))
        uow.main.flush()
        with pytest.raises(DBAPIError):
            uow.main.execute(text("select nonsense"))
    assert postgresql.count() == 0


def test_after_an_error_statements_are_refused_until_the_rollback(postgresql: Setting) -> None:
    with postgresql.engine.connect() as connection:
        with pytest.raises(DBAPIError):
            connection.execute(text("select nonsense"))
        with pytest.raises(DBAPIError, match="current transaction is aborted"):
            connection.execute(text("select 1"))
        with postgresql.engine.begin() as other:
            other.execute(text("insert into items (name) values ('a')"))
        connection.rollback()
        assert connection.scalar(select(func.count()).select_from(Item)) == 1


def test_threads_each_with_units_of_work(setting: Setting) -> None:
    def work(number: int) -> None:
        for turn in range(10):
            with setting.dbs.unit_of_work() as uow:
                uow.main.add(Item(name=f"{number} {turn}"))

    in_threads(4, work)
    assert setting.count() == 40


def test_an_asynchronous_unit_of_work_does_all_of_it(async_setting: Setting) -> None:
    called: list[str] = []

    async def log() -> None:
        async with async_setting.dbs.async_unit_of_work() as another:
            another.main.add(Item(name="log"))
        called.append("committed")

    async def work() -> None:
        async with async_setting.dbs.async_unit_of_work() as uow:
            uow.main.add(Item(name="a"))
            with pytest.raises(IntegrityError):
                async with uow.savepoint():
                    uow.main.add(Item(name="a"))
                    await uow.main.flush()
            assert (await uow.reader.scalars(select(Item.name))).all() == ["a"]
            uow.on_commit(log)
        async with async_setting.dbs.async_unit_of_work() as uow:
            assert (await uow.main.scalars(select(Item.name).order_by(Item.name))).all() == ["a", "log"]
        with pytest.raises(AnError):
            async with async_setting.dbs.async_unit_of_work() as uow:
                uow.main.add(Item(name="lost"))
                await uow.main.flush()
                raise AnError
        async with async_setting.dbs.async_unit_of_work() as uow:
            with pytest.raises(ReadOnlyError):
                await uow.reader.execute(text("insert into items (name) values ('b')"))

    run(async_setting, work)
    assert called == ["committed"]


def test_the_callback_of_an_inner_unit_may_write_while_the_outer_one_holds_its_writes(async_setting: Setting) -> None:
    async def log() -> None:
        async with async_setting.dbs.async_unit_of_work() as another:
            another.main.add(Item(name="log"))

    async def work() -> None:
        async with async_setting.dbs.async_unit_of_work() as outer:
            outer.main.add(Item(name="outer"))
            await outer.main.flush()
            async with async_setting.dbs.async_unit_of_work() as inner:
                inner.main.add(Item(name="inner"))
                inner.on_commit(log)
        async with async_setting.dbs.async_unit_of_work() as uow:
            assert len((await uow.main.scalars(select(Item))).all()) == 3

    run(async_setting, work)


def test_a_repository_loads_many_rows(setting: Setting) -> None:
    with setting.dbs.unit_of_work() as uow:
        Items(uow).load({"name": f"item {n}"} for n in range(3000))
    assert setting.count() == 3000
    with pytest.raises(BadRow), setting.dbs.unit_of_work() as uow:
        Items(uow).load({"name": f"item {n}"} for n in range(2990, 3010))
    assert setting.count() == 3000


def test_a_repository_loads_many_rows_in_asyncio(async_setting: Setting) -> None:
    from stillroom import AsyncRepository

    class AsyncItems(AsyncRepository[Item]):
        """
        The items.
        """

    async def work() -> None:
        async with async_setting.dbs.async_unit_of_work() as uow:
            await AsyncItems(uow).load({"name": f"item {n}"} for n in range(3000))
        async with async_setting.dbs.async_unit_of_work() as uow:
            assert await uow.main.scalar(select(func.count()).select_from(Item)) == 3000

    run(async_setting, work)


def test_a_deferred_constraint_is_checked_at_each_commit(postgresql: Setting, sqlite: Setting) -> None:
    for setting in (postgresql, sqlite):
        with setting.dbs.unit_of_work() as uow:
            uow.main.add(Part(item_id=7))
            uow.main.flush()
            uow.main.add(Item(id=7, name="a"))
        with pytest.raises(IntegrityError), setting.dbs.unit_of_work() as uow:
            uow.main.add(Part(item_id=99))
            uow.main.add(Item(name="lost"))
        with setting.dbs.unit_of_work() as uow:
            uow.main.add(Item(name="b"))
        assert setting.count() == 2


def test_a_deferred_constraint_is_checked_in_asyncio(async_setting: Setting) -> None:
    if async_setting.dbs["main"].backend.name == "mysql":
        pytest.skip("MariaDB has no constraints that are deferred")

    async def work() -> None:
        with pytest.raises(IntegrityError):
            async with async_setting.dbs.async_unit_of_work() as uow:
                uow.main.add(Part(item_id=99))
                uow.main.add(Item(name="lost"))
        async with async_setting.dbs.async_unit_of_work() as uow:
            uow.main.add(Item(name="b"))
        async with async_setting.dbs.async_unit_of_work() as uow:
            assert (await uow.main.scalars(select(Item.name))).all() == ["b"]

    run(async_setting, work)


def test_the_time_limit_of_a_unit_does_not_outlive_it(postgresql: Setting) -> None:
    def limit() -> str:
        with postgresql.engine.connect() as connection:
            return str(connection.scalar(text("select current_setting('statement_timeout')")))

    before = limit()
    with postgresql.dbs.unit_of_work(timeout=30) as uow:
        assert uow.main.scalar(text("select current_setting('statement_timeout')")) != before
        uow.main.add(Item(name="a"))
        uow.main.flush()
        assert uow.main.scalar(text("select current_setting('statement_timeout')")) != before
    assert limit() == before
    assert postgresql.count() == 1


def test_a_statement_that_takes_too_long_is_ended(postgresql: Setting) -> None:
    from stillroom import UnitOfWorkTimeout

    with pytest.raises(UnitOfWorkTimeout), postgresql.dbs.unit_of_work(timeout=0.2) as uow:
        uow.main.add(Item(name="a"))
        uow.main.flush()
        uow.main.execute(text("select pg_sleep(5)"))
    assert postgresql.count() == 0


def test_a_statement_timeout_of_sqlite_ends_a_read(tmp_path: Path) -> None:
    endless = text("with recursive n(i) as (select 1 union all select i + 1 from n) select count(*) from n")
    with sandboxed(f"sqlite:///{tmp_path / 'limited.db'}", "sqlite3", statement_timeout=0.1) as setting:
        with setting.test():
            with setting.dbs.unit_of_work() as uow:
                uow.main.add(Item(name="a"))
            with pytest.raises(DBAPIError, match="interrupted"), setting.dbs.unit_of_work() as uow:
                uow.main.execute(endless)
            assert setting.count() == 1


def test_a_local_setting_ends_with_its_transaction(postgresql: Setting) -> None:
    def lock_timeout(connection: Connection) -> str:
        return str(connection.scalar(text("select current_setting('lock_timeout')")))

    with postgresql.engine.connect() as connection:
        before = lock_timeout(connection)
        for written_first in (True, False):
            if written_first:
                connection.execute(text("insert into items (name) values ('a')"))
            connection.execute(text("SET LOCAL lock_timeout = '1234ms'"))
            assert lock_timeout(connection) == "1234ms"
            if not written_first:
                connection.execute(text("insert into items (name) values ('b')"))
                assert lock_timeout(connection) == "1234ms"
            connection.commit()
            assert lock_timeout(connection) == before
            connection.rollback()


@pytest.mark.parametrize("driver", ["psycopg", "pymysql"])
def test_the_limit_of_idle_transactions_is_not_for_that_of_the_test(
    driver: str, request: pytest.FixtureRequest
) -> None:
    backend = BACKENDS[driver]
    asked = {
        "postgresql": "select current_setting('idle_in_transaction_session_timeout')",
        "mariadb": "select @@idle_transaction_timeout",
    }[backend]
    url = str(request.getfixturevalue(f"{backend}_database"))
    with sandboxed(url, driver, idle_transaction_timeout=1.0) as setting, setting.test():
        for role in ("writer", "reader"):
            with setting.dbs.unit_of_work() as uow:
                assert str(uow.session("main", role=role).scalar(text(asked))) == "0"
