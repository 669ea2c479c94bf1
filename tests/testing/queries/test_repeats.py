"""
N+1: the line, the relationship and the remedy are named; what is no loop passes; a baseline lets old code be.
"""

from __future__ import annotations

import asyncio
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import func, insert, select, text
from sqlalchemy.orm import selectinload

from stillroom.testing.errors import RepeatedQueries, TestingError
from stillroom.testing.queries import StaleBaseline, assert_no_repeats
from stillroom.testing.queries.repeats import normalized

from . import shop
from .shop import Customer, Line, Order

if TYPE_CHECKING:
    from pathlib import Path

    from stillroom import Databases


def failure(raised: pytest.ExceptionInfo[RepeatedQueries]) -> list[str]:
    return [line.strip() for line in str(raised.value).splitlines()]


def test_a_lazy_list_names_the_line_the_relationship_and_selectinload(dbs: Databases) -> None:
    with pytest.raises(RepeatedQueries) as raised, assert_no_repeats(dbs), dbs.unit_of_work() as uow:
        shop.count_lines_one_by_one(uow.main)
    head, where, statement, remedy = failure(raised)
    assert head == "the same statement was sent again and again:"
    line = shop.line_of("sum(len(order.lines)")
    assert where == f"3 times to 'main' from {line} in count_lines_one_by_one"
    assert statement.startswith("SELECT line.id")
    assert remedy == (
        "the relationship Order.lines is loaded for one object after the other; load it with the query: "
        ".options(selectinload(Order.lines))"
    )


def test_a_lazy_reference_is_to_be_joined(dbs: Databases) -> None:
    with pytest.raises(RepeatedQueries, match=r"joinedload\(Order\.customer\)"), assert_no_repeats(dbs):
        with dbs.unit_of_work() as uow:
            shop.name_customers_one_by_one(uow.main)


def test_a_deferred_column_is_to_be_undeferred(dbs: Databases) -> None:
    with pytest.raises(RepeatedQueries, match=r"deferred or expired columns of Customer .*undefer"):
        with assert_no_repeats(dbs), dbs.unit_of_work() as uow:
            shop.read_notes_one_by_one(uow.main)


def test_awaited_attributes_are_found(dbs: Databases) -> None:
    async def main() -> None:
        async with dbs.async_unit_of_work() as uow:
            await shop.count_lines_awaiting_each(uow.main)

    with pytest.raises(RepeatedQueries) as raised, assert_no_repeats(dbs):
        asyncio.run(main())
    asyncio.run(dbs.aclose())
    assert shop.line_of("awaitable_attrs.lines") in str(raised.value)
    assert "selectinload(Order.lines)" in str(raised.value)


def test_a_query_in_a_loop_is_to_be_asked_once(dbs: Databases) -> None:
    with pytest.raises(RepeatedQueries) as raised, assert_no_repeats(dbs), dbs.unit_of_work() as uow:
        shop.count_orders_of_each(uow.main, [1, 2])
    assert failure(raised)[1].startswith(f"2 times to 'main' from {shop.line_of('session.scalar(select(func')}")
    assert failure(raised)[3] == "ask once for all of them: where(column.in_(...))"


def test_an_insert_in_a_loop_is_to_be_sent_with_all_rows(dbs: Databases) -> None:
    with pytest.raises(RepeatedQueries, match="send the rows with one statement"), assert_no_repeats(dbs):
        with dbs.unit_of_work() as uow:
            shop.insert_one_by_one(uow.main, [7, 8])


def test_a_flush_in_a_loop_is_found(dbs: Databases) -> None:
    with pytest.raises(RepeatedQueries, match="add_and_flush_one_by_one"), assert_no_repeats(dbs):
        with dbs.unit_of_work() as uow:
            shop.add_and_flush_one_by_one(uow.main, [7, 8])


def test_an_update_in_a_loop_is_found_also_as_text_with_values_in_it(dbs: Databases) -> None:
    with pytest.raises(RepeatedQueries, match="send one UPDATE for all rows"), assert_no_repeats(dbs):
        with dbs.main.begin() as connection:
            for number in (1, 2):
                connection.execute(text(f"UPDATE customer SET note = 'of {number}' WHERE id = {number}"))


def test_threads_count_together(dbs: Databases) -> None:
    def work(number: int) -> None:
        with dbs.unit_of_work() as uow:
            uow.main.get(Order, number)

    with pytest.raises(RepeatedQueries, match="4 times to 'main'"), assert_no_repeats(dbs):
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(work, range(4)))


def test_tasks_count_together(dbs: Databases) -> None:
    async def main() -> None:
        await asyncio.gather(*(shop.get_order(dbs, number) for number in (1, 2, 3)))
        await dbs.aclose()

    with pytest.raises(RepeatedQueries, match="3 times to 'main'"), assert_no_repeats(dbs):
        asyncio.run(main())


def test_databases_are_told_apart(dbs: Databases) -> None:
    with assert_no_repeats(dbs), dbs.unit_of_work() as uow:
        for session in (uow.main, uow.audit):
            session.execute(text("select 1"))


def test_what_is_loaded_with_the_query_passes(dbs: Databases) -> None:
    with assert_no_repeats(dbs), dbs.unit_of_work() as uow:
        orders = uow.main.scalars(select(Order).options(selectinload(Order.lines)))
        assert sum(len(order.lines) for order in orders) == 6


def test_selectinload_of_very_many_objects_passes(dbs: Databases) -> None:
    with dbs.unit_of_work() as uow:
        uow.main.execute(insert(Order), [{"id": number} for number in range(10, 1200)])
    with assert_no_repeats(dbs), dbs.unit_of_work() as uow:
        uow.main.scalars(select(Order).options(selectinload(Order.lines))).all()


def test_one_flush_of_many_rows_passes(dbs: Databases) -> None:
    with assert_no_repeats(dbs), dbs.unit_of_work() as uow:
        uow.main.add_all([Line(), Line(), Customer(id=7, note="x"), Customer(id=8)])


def test_one_flush_that_sends_each_row_by_itself_passes(dbs: Databases) -> None:
    with assert_no_repeats(dbs) as counted, dbs.unit_of_work() as uow:
        uow.main.add_all([Customer(id=number, note=func.upper("x")) for number in (7, 8)])
    assert counted.total == 2


def test_as_many_as_the_limit_pass(dbs: Databases) -> None:
    with assert_no_repeats(dbs, limit=3), dbs.unit_of_work() as uow:
        shop.count_lines_one_by_one(uow.main)


@pytest.mark.parametrize("allowed", ["Order.lines", "tests.testing.queries.shop:count_lines_one_by_one", "FROM line"])
def test_a_relationship_a_function_or_a_part_of_the_statement_can_be_allowed(dbs: Databases, allowed: str) -> None:
    with assert_no_repeats(dbs, allow=[allowed]), dbs.unit_of_work() as uow:
        shop.count_lines_one_by_one(uow.main)


def test_what_is_allowed_lets_no_other_repeat_pass(dbs: Databases) -> None:
    with pytest.raises(RepeatedQueries), assert_no_repeats(dbs, allow=["Order.line"]), dbs.unit_of_work() as uow:
        shop.count_lines_one_by_one(uow.main)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("SELECT a FROM t WHERE id = %(id_1)s", "SELECT a FROM t WHERE  id = ?"),
        ("SELECT a FROM t WHERE id = $1::INTEGER", "SELECT a FROM t WHERE id = :id"),
        ("SELECT a FROM t WHERE id IN (?, ?)", "SELECT a FROM t WHERE id IN (?)"),
        ("INSERT INTO t VALUES (?, ?), (?, ?)", "INSERT INTO t VALUES (?, ?)"),
        ("SELECT a FROM t WHERE b = 'it''s 1' LIMIT 10", "SELECT a FROM t WHERE b = '' LIMIT 2"),
    ],
)
def test_statements_that_differ_in_values_only_are_the_same(one: str, other: str) -> None:
    assert normalized(one) == normalized(other)


def test_statements_that_differ_in_names_are_not_the_same() -> None:
    assert normalized("SELECT a1 FROM t") != normalized("SELECT a2 FROM t")


# --- baselines


def test_known_repeats_pass_and_new_ones_fail(dbs: Databases, tmp_path: Path) -> None:
    path = tmp_path / "repeats.txt"
    with assert_no_repeats(dbs, baseline=path, name="page", update=True), dbs.unit_of_work() as uow:
        shop.count_lines_one_by_one(uow.main)
    with assert_no_repeats(dbs, baseline=path, name="page"), dbs.unit_of_work() as uow:
        shop.count_lines_one_by_one(uow.main)
    with pytest.raises(RepeatedQueries) as raised, assert_no_repeats(dbs, baseline=path, name="page"):
        with dbs.unit_of_work() as uow:
            shop.count_lines_one_by_one(uow.main)
            shop.count_orders_of_each(uow.main, [1, 2])
    assert failure(raised)[0] == f"the same statement was sent again and again, which {str(path)!r} does not list:"
    assert "count_orders_of_each" in str(raised.value)
    assert "count_lines_one_by_one" not in str(raised.value)


def test_a_baseline_names_functions_and_statements_not_lines(dbs: Databases, tmp_path: Path) -> None:
    path = tmp_path / "repeats.txt"
    with assert_no_repeats(dbs, baseline=path, update=True), dbs.unit_of_work() as uow:
        shop.count_lines_one_by_one(uow.main)
    _, _, block, entry = path.read_text().splitlines()
    own = "test_a_baseline_names_functions_and_statements_not_lines"
    assert block == f"[tests.testing.queries.test_repeats:{own}]"
    place = "tests.testing.queries.shop:count_lines_one_by_one"
    assert entry.startswith(f"main {place} ")
    assert entry.endswith("  # Order.lines")


def test_repeats_that_are_gone_are_told_and_an_update_takes_them_out(dbs: Databases, tmp_path: Path) -> None:
    path = tmp_path / "repeats.txt"
    for name in ("page", "other"):
        with assert_no_repeats(dbs, baseline=path, name=name, update=True), dbs.unit_of_work() as uow:
            shop.count_lines_one_by_one(uow.main)
    with pytest.warns(StaleBaseline, match=r"repeats of page that are gone.*\n  main .*count_lines_one_by_one"):
        with assert_no_repeats(dbs, baseline=path, name="page"):
            pass
    with assert_no_repeats(dbs, baseline=path, name="page", update=True):
        pass
    assert "[page]" not in path.read_text()
    assert "[other]" in path.read_text()


def test_a_block_without_repeats_makes_no_warning_and_no_file(dbs: Databases, tmp_path: Path) -> None:
    path = tmp_path / "repeats.txt"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with assert_no_repeats(dbs, baseline=path, name="page"):
            pass
    assert not path.exists()


def test_threads_that_update_one_baseline_lose_nothing(dbs: Databases, tmp_path: Path) -> None:
    from stillroom.testing.queries import baseline

    path = tmp_path / "repeats.txt"
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: baseline.write(path, f"b{number}", {f"key {number}": ""}), range(40)))
    assert len(baseline.read(path)) == 40


def test_a_baseline_that_is_not_one_is_refused_with_its_line(dbs: Databases, tmp_path: Path) -> None:
    path = tmp_path / "repeats.txt"
    path.write_text("# a remark\nmain x 12\n")
    with pytest.raises(TestingError, match=r"repeats\.txt', line 2: 'main x 12'"):
        with assert_no_repeats(dbs, baseline=path):
            pass
