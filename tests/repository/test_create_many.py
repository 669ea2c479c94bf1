"""
`create_many` and `upsert_many` write many rows, all of them or none.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import MetaData, String, UniqueConstraint, event, select
from sqlalchemy.engine import Engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from stillroom import ReadOnlyError, UniqueViolation
from stillroom.errors import BadRow
from stillroom.models import ModelBase
from tests.repository.models import create_tables
from tests.repository.things import Base, Thing, few
from tests.repository.worlds import PSYCOPG, Place
from tests.support.standing import Content

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

EARLY = datetime(2026, 1, 1, tzinfo=UTC)
LATE = datetime(2026, 2, 2, tzinfo=UTC)


class Counted(ModelBase, DeclarativeBase, database="main"):
    """
    The tables of these tests.
    """


class Stock(Counted):
    """
    A row can be recognised in two ways.
    """

    __tablename__ = "stock: all"
    __table_args__ = (UniqueConstraint("shop", "code", name="place"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    shop: Mapped[int]
    code: Mapped[str] = mapped_column(String(20))
    amount: Mapped[int] = mapped_column("how many", default=1)
    note: Mapped[str | None] = mapped_column(String(20))
    changed: Mapped[datetime] = mapped_column(default=EARLY, onupdate=lambda: LATE)


TABLES = MetaData(naming_convention=Base.metadata.naming_convention)
for _table in (*Counted.metadata.sorted_tables, *Base.metadata.sorted_tables):
    _table.to_metadata(TABLES)


def seed(session: Session) -> None:
    session.add_all([Stock(shop=1, code="a", amount=5, note="old"), Stock(shop=1, code="b", amount=6)])


@pytest.fixture
def place_content() -> Content:
    """
    What `place` has in it.
    """
    return Content("stock", "tests.repository.test_create_many:TABLES", (seed,))


@pytest.fixture
def stocks(place: Place) -> Place:
    """
    A place with two rows.
    """
    return place


@pytest.fixture
def thread_stocks(threads: Place) -> Place:
    """
    Same as `stocks`, but from threads only.
    """
    return threads


@pytest.fixture
def statements() -> Iterator[list[str]]:
    """
    The statements that are sent.
    """
    found: list[str] = []

    def note(*arguments: Any) -> None:
        found.append(arguments[2])

    event.listen(Engine, "before_cursor_execute", note)
    yield found
    event.remove(Engine, "before_cursor_execute", note)


def writing(place: Place, work: Callable[[Any], Any], model: type[Any] = Stock) -> Any:
    with place.unit() as uow:
        return work(place.repository(model, uow))


def stored(place: Place) -> list[tuple[Any, ...]]:
    with place.plain.unit_of_work() as uow:
        columns = (Stock.shop, Stock.code, Stock.amount, Stock.note, Stock.changed)
        return [tuple(row) for row in uow.main.execute(select(*columns).order_by(Stock.shop, Stock.code))]


# --- create_many


def test_rows_are_created_with_defaults(stocks: Place) -> None:
    rows = [{"shop": 2, "code": "a"}, {"shop": 2, "code": "b", "amount": 7}]

    assert writing(stocks, lambda stock: stock.create_many(rows)) == 2

    assert stored(stocks)[2:] == [(2, "a", 1, None, EARLY), (2, "b", 7, None, EARLY)]


def test_a_value_that_is_taken_is_an_error_and_nothing_is_created(stocks: Place) -> None:
    with stocks.unit() as uow:
        repository = stocks.repository(Stock, uow)
        with pytest.raises(UniqueViolation) as raised:
            repository.create_many([{"shop": 3, "code": "a"}, {"shop": 1, "code": "a"}])
        repository.create_many([{"shop": 9, "code": "z"}])

    assert raised.value.model is Stock
    assert [row[:2] for row in stored(stocks)] == [(1, "a"), (1, "b"), (9, "z")]


def test_an_unknown_name_is_a_bad_row(threads: Place) -> None:
    with threads.unit() as uow, pytest.raises(BadRow) as raised:
        threads.repository(Stock, uow).create_many([{"shop": 3, "code": "a"}, {"shop": 1, "cod": "a"}])
    assert (raised.value.number, raised.value.column) == (2, "cod")


def test_a_reader_does_not_create(thread_stocks: Place) -> None:
    with thread_stocks.unit() as uow, pytest.raises(ReadOnlyError):
        thread_stocks.repository(Stock, uow, role="reader").create_many([{"shop": 3, "code": "a"}])


def test_defaults_of_every_kind_are_filled_in(threads: Place) -> None:
    writing(threads, lambda things: things.create_many([few(1), few(2) | {"stock": 1}]), Thing)

    with threads.plain.unit_of_work() as uow:
        found = uow.main.execute(select(Thing.kind, Thing.shout, Thing.stock, Thing.made).order_by(Thing.id)).all()
    assert [tuple(row[:3]) for row in found] == [("plain", "THING 1", 7), ("plain", "THING 2", 1)]
    assert all(row.made for row in found)


# --- upsert_many


def test_rows_that_are_there_are_updated_and_the_others_made(stocks: Place) -> None:
    rows = [{"shop": 1, "code": "b", "amount": 60}, {"shop": 1, "code": "c", "amount": 70}]

    assert writing(stocks, lambda stock: stock.upsert_many(iter(rows), match=["shop", "code"])) == 2

    assert stored(stocks) == [
        (1, "a", 5, "old", EARLY),
        (1, "b", 60, None, LATE),
        (1, "c", 70, None, EARLY),
    ]


def test_only_what_a_row_has_is_updated(thread_stocks: Place) -> None:
    rows = [{"shop": 1, "code": "a", "note": "new"}, {"shop": 1, "code": "b", "amount": 60}]

    writing(thread_stocks, lambda stock: stock.upsert_many(rows, match=["shop", "code"]))

    assert [row[2:4] for row in stored(thread_stocks)] == [(5, "new"), (60, None)]


def test_only_the_columns_to_update_are_updated(thread_stocks: Place) -> None:
    rows = [{"shop": 1, "code": code, "note": "new", "amount": 9} for code in "ac"]

    writing(thread_stocks, lambda stock: stock.upsert_many(rows, match=["shop", "code"], update=["note"]))

    assert [row[1:4] for row in stored(thread_stocks)] == [("a", 5, "new"), ("b", 6, None), ("c", 9, "new")]


def test_of_rows_with_one_key_the_later_update_the_first(stocks: Place) -> None:
    rows = [{"shop": 2, "code": "a", "amount": amount} for amount in (1, 2, 3)]

    assert writing(stocks, lambda stock: stock.upsert_many(rows, match=["shop", "code"])) == 3

    assert stored(stocks)[2:] == [(2, "a", 3, None, LATE)]


def test_a_null_in_the_key_is_refused(thread_stocks: Place) -> None:
    with thread_stocks.unit() as uow, pytest.raises(ValueError, match="NULL never matches") as raised:
        thread_stocks.repository(Stock, uow).upsert_many(
            [{"shop": 2, "code": "a"}, {"shop": 2, "code": None}], match=["shop", "code"]
        )
    assert isinstance(raised.value, BadRow)
    assert raised.value.number == 2


def test_a_match_that_is_no_unique_key_is_refused(threads: Place) -> None:
    with threads.unit() as uow, pytest.raises(ValueError, match="no unique key"):
        threads.repository(Stock, uow).upsert_many([{"shop": 2, "code": "a"}], match=["shop"])


def test_another_key_that_is_taken_is_an_error_and_nothing_stays(stocks: Place) -> None:
    rows = [{"id": 50, "shop": 2, "code": "x"}, {"id": 51, "shop": 1, "code": "a"}]

    with stocks.unit() as uow, pytest.raises(UniqueViolation):
        stocks.repository(Stock, uow).upsert_many(rows, match=["id"])

    assert len(stored(stocks)) == 2


def test_postgresql_copies_rows_into_a_temporary_table(postgresql_database: str, statements: list[str]) -> None:
    with Place({"main": postgresql_database}, PSYCOPG) as place:
        create_tables(place, Counted.metadata)
        rows = [{"shop": number, "code": "a"} for number in range(10)]

        statements.clear()
        writing(place, lambda stock: stock.upsert_many(rows, match=["shop", "code"]))

        assert [each.split()[0] for each in statements if each.startswith(("COPY", "INSERT"))] == ["COPY", "INSERT"]


def test_more_rows_than_one_batch_are_upserted_once_each(postgresql_database: str) -> None:
    with Place({"main": postgresql_database}, PSYCOPG) as place:
        create_tables(place, Counted.metadata)
        total = 20_500

        def upsert(stock: Any) -> int:
            rows = ({"shop": number, "code": "a", "amount": number} for number in range(total))
            count: int = stock.upsert_many(rows, match=["shop", "code"])
            return count

        assert [writing(place, upsert), writing(place, upsert)] == [total, total]

        found = stored(place)
        assert len(found) == total
        assert {row[4] for row in found} == {LATE}


def test_a_unit_that_may_be_prepared_has_no_temporary_table(postgresql_database: str, statements: list[str]) -> None:
    # PREPARE TRANSACTION refuses a transaction that has touched one
    with Place({"main": postgresql_database}, PSYCOPG) as place:
        create_tables(place, Counted.metadata)
        statements.clear()

        with place.unit(on_multiple_writes="two_phase") as uow:
            place.repository(Stock, uow).upsert_many([{"shop": 1, "code": "a"}], match=["shop", "code"])

        assert not any("TEMPORARY" in each for each in statements)
        assert len(stored(place)) == 1
