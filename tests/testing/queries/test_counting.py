"""
Counting statements: what counts, whoever sends it, and what a failure says.
"""

from __future__ import annotations

import asyncio
import re
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import event, insert, inspect, select, text
from sqlalchemy.exc import IntegrityError

from stillroom import Databases, UnknownDatabase
from stillroom.testing.errors import TooManyQueries
from stillroom.testing.queries import assert_max_queries, assert_queries, count_queries

from . import shop
from .shop import Customer, Happening, Line, Order

if TYPE_CHECKING:
    from pathlib import Path


def test_the_statements_of_a_unit_are_counted_without_its_begin_and_commit(dbs: Databases) -> None:
    with count_queries(dbs) as counted, dbs.unit_of_work() as uow:
        uow.main.add(Customer(id=9))
        uow.main.flush()
        uow.main.get(Order, 1)
    assert counted.total == 2


def test_savepoints_and_pragmas_do_not_count(dbs: Databases) -> None:
    with assert_queries(dbs, 1), dbs.unit_of_work() as uow:
        with uow.savepoint("main"):
            uow.main.execute(text("select 1"))
        uow.main.execute(text("PRAGMA user_version"))


def test_lookups_of_the_dialect_in_the_catalogue_do_not_count(postgresql_database: str) -> None:
    with Databases({"default": "main", "databases": {"main": {"url": postgresql_database}}}) as dbs:
        with assert_queries(dbs, main=0):
            assert not inspect(dbs.main.engine).has_table("customer")
        with assert_queries(dbs, main=1):
            Customer.metadata.tables["customer"].create(dbs.main.engine, checkfirst=True)


def test_stillrooms_own_statements_do_not_count(postgresql_database: str) -> None:
    settings = {"main": {"url": postgresql_database, "verify_commit": True}}
    with Databases({"default": "main", "databases": settings}) as dbs:
        with assert_queries(dbs, main=1), dbs.unit_of_work(timeout=30) as uow:
            uow.main.execute(text("create table t (id int)"))


def test_plain_connections_count(dbs: Databases) -> None:
    with assert_queries(dbs, main=1), dbs.main.connect() as connection:
        connection.execute(text("select 1"))


def test_readers_count(dbs: Databases) -> None:
    with count_queries(dbs) as counted, dbs.unit_of_work() as uow:
        uow.reader.execute(text("select 1"))
        uow.session("main", role="reader", snapshot=True).execute(text("select 2"))
    assert [each.role for each in counted.statements] == ["reader", "reader"]


def test_a_session_that_was_open_before_the_block_counts(dbs: Databases) -> None:
    with dbs.unit_of_work() as uow:
        uow.main.execute(text("select 1"))
        with assert_queries(dbs, main=1):
            uow.main.execute(text("select 2"))


def test_databases_first_used_inside_the_block_count(tmp_path: Path) -> None:
    with Databases({"default": "main", "databases": {"main": {"url": f"sqlite:///{tmp_path}/new.db"}}}) as dbs:
        with assert_queries(dbs, main=1), dbs.unit_of_work() as uow:
            uow.main.execute(text("select 1"))


def test_each_database_is_counted_by_itself(dbs: Databases) -> None:
    with assert_queries(dbs, 3, main=1, audit=2), dbs.unit_of_work() as uow:
        uow.main.execute(text("select 1"))
        uow.audit.execute(text("select 1"))
        uow.audit.execute(text("select 2"))


def test_executemany_counts_once_with_its_sets_of_parameters(dbs: Databases) -> None:
    with count_queries(dbs) as counted, dbs.unit_of_work() as uow:
        uow.audit.execute(insert(Happening), [{"id": number} for number in range(5)])
    assert [each.sets for each in counted.statements] == [5]


def test_rows_that_sqlalchemy_sends_one_by_one_for_their_keys_count_once(dbs: Databases) -> None:
    with count_queries(dbs) as counted, dbs.unit_of_work() as uow:
        uow.main.add_all([Line(), Line(), Line()])
    assert [each.sets for each in counted.statements] == [3]


def test_a_statement_that_fails_counts(dbs: Databases) -> None:
    with count_queries(dbs) as counted, pytest.raises(IntegrityError), dbs.unit_of_work() as uow:
        uow.main.execute(insert(Customer), {"id": 1})
    assert [each.failed for each in counted.statements] == [True]


def test_a_write_that_a_reader_refuses_is_not_sent_and_does_not_count(dbs: Databases) -> None:
    with assert_queries(dbs, 0), pytest.raises(Exception, match="not sent"), dbs.unit_of_work() as uow:
        uow.reader.execute(insert(Customer), {"id": 4})


def test_objects_are_loaded_while_other_threads_begin_to_use_their_databases(dbs: Databases) -> None:
    over = threading.Event()

    def use_others() -> None:
        while not over.is_set():
            with Databases({"databases": {"main": {"url": "sqlite://"}}}) as others, count_queries(others):
                _ = others.main.engine

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(1) as executor, count_queries(dbs), dbs.unit_of_work() as uow:
            using = executor.submit(use_others)
            try:
                order = uow.main.scalars(select(Order)).first()
                assert order is not None
                for _ in range(1500):
                    uow.main.expire(order, ["lines"])
                    assert order.lines is not None
            finally:
                over.set()
            using.result(10)
    finally:
        sys.setswitchinterval(interval)


def test_statements_of_other_threads_count(dbs: Databases) -> None:
    def work(number: int) -> None:
        with dbs.unit_of_work() as uow:
            uow.main.get(Order, number)

    with assert_queries(dbs, main=20), ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(20)))


def test_statements_of_tasks_count_with_their_lines(dbs: Databases) -> None:
    async def main() -> None:
        await asyncio.gather(*(shop.get_order(dbs, number) for number in (1, 2, 3)))
        await dbs.aclose()

    with count_queries(dbs) as counted:
        asyncio.run(main())
    assert counted.total == 3
    assert {str(each.line) for each in counted.statements} == {shop.line_of("await uow.main.get") + " in get_order"}


def test_what_the_end_of_an_asynchronous_unit_flushes_has_the_line_of_the_unit(dbs: Databases) -> None:
    async def main() -> None:
        async with dbs.async_unit_of_work() as uow:
            uow.main.add(Customer(id=9))
        await dbs.aclose()

    with count_queries(dbs) as counted:
        asyncio.run(main())
    (query,) = counted.statements
    assert query.line is not None
    assert query.line.file == "tests/testing/queries/test_counting.py"
    assert query.line.function.endswith("main")


def test_a_statement_knows_its_text_its_time_and_its_line(dbs: Databases) -> None:
    with count_queries(dbs) as counted, dbs.unit_of_work() as uow:
        shop.count_orders_of_each(uow.main, [1])
    (query,) = counted.statements
    assert query.text.startswith("SELECT count(*)")
    assert query.database == "main"
    assert 0 < query.seconds < 60
    assert str(query.line) == shop.line_of("session.scalar(select(func.count())") + " in count_orders_of_each"


def test_nested_blocks_count_each_for_itself(dbs: Databases) -> None:
    with count_queries(dbs) as outer, dbs.unit_of_work() as uow:
        uow.main.execute(text("select 1"))
        with count_queries(dbs) as inner:
            uow.main.execute(text("select 2"))
        uow.main.execute(text("select 3"))
    assert (outer.total, inner.total) == (3, 1)


def test_nothing_is_counted_after_the_block(dbs: Databases) -> None:
    with count_queries(dbs) as counted:
        pass
    with dbs.unit_of_work() as uow:
        uow.main.execute(text("select 1"))
    assert counted.total == 0


def test_engines_are_left_alone_before_the_first_block(tmp_path: Path) -> None:
    with Databases({"default": "main", "databases": {"main": {"url": f"sqlite:///{tmp_path}/new.db"}}}) as dbs:
        dispatch = dbs.main.engine.dispatch
        before = len(list(dispatch.before_cursor_execute))
        with count_queries(dbs):
            assert len(list(dispatch.before_cursor_execute)) == before + 1
        with count_queries(dbs):
            assert len(list(dispatch.before_cursor_execute)) == before + 1


def test_too_many_statements_are_listed_by_database_and_line_equal_ones_together(dbs: Databases) -> None:
    with pytest.raises(TooManyQueries) as raised:
        with assert_queries(dbs, main=1, audit=0), dbs.unit_of_work() as uow:
            shop.count_orders_of_each(uow.main, [1, 2])
            uow.audit.execute(insert(Happening), [{"id": 1}, {"id": 2}])
    line = shop.line_of("session.scalar(select(func.count())")
    lines = str(raised.value).splitlines()
    assert lines[0] == (
        "statements sent in the block: 2 to 'main', expected exactly 1; 1 to 'audit', expected exactly 0"
    )
    assert lines[1:3] == ["'main': 2 statements", f"  2 x {line} in count_orders_of_each"]
    assert lines[3].startswith("      SELECT count(*) AS count_1 FROM orders WHERE")
    assert lines[4] == "'audit': 1 statement"
    assert re.fullmatch(r"  1 x tests/testing/queries/test_counting\.py:\d+ in \S+ \(2 sets of parameters\)", lines[5])


def test_a_total_over_all_databases_can_be_asserted(dbs: Databases) -> None:
    with pytest.raises(TooManyQueries, match="1 in all, expected exactly 3"):
        with assert_queries(dbs, 3), dbs.unit_of_work() as uow:
            uow.main.execute(text("select 1"))


def test_a_lazy_load_is_named_in_the_listing(dbs: Databases) -> None:
    with pytest.raises(TooManyQueries, match=re.escape("(lazy load of Order.lines)")):
        with assert_max_queries(dbs, main=2), dbs.unit_of_work() as uow:
            shop.count_lines_one_by_one(uow.main)


def test_at_most_lets_fewer_pass_and_no_more(dbs: Databases) -> None:
    with assert_max_queries(dbs, main=2), dbs.unit_of_work() as uow:
        uow.main.execute(text("select 1"))
    with pytest.raises(TooManyQueries, match="2 to 'main', expected at most 1"):
        with assert_max_queries(dbs, main=1), dbs.unit_of_work() as uow:
            uow.main.execute(text("select 1"))
            uow.main.execute(text("select 2"))


def test_an_exception_in_the_block_goes_up_instead(dbs: Databases) -> None:
    with pytest.raises(ZeroDivisionError), assert_queries(dbs, main=1):
        raise ZeroDivisionError


def test_a_database_that_is_not_declared_is_refused_before_the_block_runs(dbs: Databases) -> None:
    with pytest.raises(UnknownDatabase, match="'mian'"), assert_queries(dbs, mian=1):
        pytest.fail("the block ran")


def test_an_assertion_without_a_number_is_refused(dbs: Databases) -> None:
    with pytest.raises(TypeError, match="no number was given"), assert_queries(dbs):
        pytest.fail("the block ran")


def test_listeners_of_the_application_see_the_statements_unchanged(dbs: Databases) -> None:
    seen: list[str] = []
    event.listen(dbs.main.engine, "before_cursor_execute", lambda *args: seen.append(args[2]))
    with count_queries(dbs) as counted, dbs.unit_of_work() as uow:
        uow.main.scalars(select(Order)).all()
    assert seen == [each.text for each in counted.statements]
