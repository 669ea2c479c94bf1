"""
Pages by key set: each row once, in any order, both ways, while rows come and go; and cursors that nobody can forge.
"""

from __future__ import annotations

import math
import uuid
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import create_engine, delete, event, func, insert, select, text
from sqlalchemy.orm import Session, joinedload, scoped_session, sessionmaker

from stillroom import Databases, InvalidCursor, Repository
from stillroom.models import UnknownColumn
from stillroom.repository.paging import cursors
from stillroom.repository.paging.cursors import Position
from tests.repository.paged import PAGED, Part, Sample, Thing, samples, things

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.repository.worlds import Place
    from tests.support.standing import Content


@pytest.fixture
def place_content() -> Content:
    """
    What `place` has in it.
    """
    return PAGED


@pytest.fixture
def sqlite_things(sqlite_place: Place) -> Place:
    """
    The things, for rules that no server touches.
    """
    return sqlite_place


Item = tuple[str, bool, bool | None]
"""An attribute, whether it is descending, and whether NULLs come first (None: as the backend has it)."""

ORDERS: list[list[Item]] = [
    [("kind", False, None)],
    [("kind", True, None), ("rank", True, None)],
    [("kind", False, None), ("rank", True, None)],
    [("name", False, None)],
    [("name", True, None), ("score", False, None)],
    [("name", False, True), ("kind", True, None)],
    [("score", True, False), ("name", True, True)],
    [("id", True, None)],
]


def clause(item: Item) -> Any:
    name, descending, nulls_first = item
    if nulls_first is None:
        return f"-{name}" if descending else name
    column = getattr(Thing, name)
    column = column.desc() if descending else column
    return column.nulls_first() if nulls_first else column.nulls_last()


def expected(order: list[Item], backend: str) -> list[int]:
    """
    Sort the rows in Python.
    """
    rows = sorted(things(), key=lambda row: row["id"], reverse=order[-1][1])
    for name, descending, placed in reversed(order):
        nulls_first = placed if placed is not None else descending == (backend == "postgresql")
        nulls = [row for row in rows if row[name] is None]
        others = sorted((row for row in rows if row[name] is not None), key=lambda row: row[name], reverse=descending)
        rows = nulls + others if nulls_first else others + nulls
    return [row["id"] for row in rows]


def walk(ask: Callable[[str | None], Any]) -> list[list[int]]:
    """
    Go from the first page to the last, and back; return the keys on each page.
    """
    pages = [ask(None)]
    while (cursor := pages[-1].next_cursor) is not None:
        pages.append(ask(cursor))
        assert len(pages) < 100
    back = [pages[-1]]
    while (cursor := back[-1].previous_cursor) is not None:
        back.append(ask(cursor))
        assert len(back) < 100
    there = [[each.id for each in page] for page in pages]
    assert [[each.id for each in page] for page in reversed(back)] == there
    return there


def flat(pages: list[list[int]]) -> list[int]:
    return [each for page in pages for each in page]


def test_a_walk_sees_each_row_once_in_any_order_and_both_ways(place: Place) -> None:
    with place.unit() as uow:
        rows = place.repository(Thing, uow, kind="ReadRepository")
        for order in ORDERS:
            order_by = [clause(item) for item in order]
            pages = walk(partial(rows.after, size=5, order_by=order_by))
            assert [len(page) for page in pages] == [5, 5, 5, 5, 4]
            assert flat(pages) == expected(order, place.world.backend), order


def test_values_of_every_type_find_their_place_again(place: Place) -> None:
    if place.world.backend == "sqlite":  # more digits than it shows
        with place.plain["main"].begin() as connection:
            connection.execute(text("update samples set money = 1.0 / 3, decimal = 1.0 / 3 where id in (2, 3, 4)"))
    with place.unit() as uow:
        rows = place.repository(Sample, uow)
        left_out = {"id", "colour"} | ({"data"} if place.world.driver == "aiomysql" else set())  # it sends no bytes
        for name in samples()[0].keys() - left_out:
            ids = flat(walk(partial(rows.after, size=1, order_by=[f"-{name}"])))
            assert sorted(ids) == list(range(1, 11)), name


def test_a_walk_goes_on_while_rows_come_and_go(threads: Place) -> None:
    with threads.unit() as uow:
        rows = threads.repository(Thing, uow)
        seen = list(rows.after(None, 5, order_by=["kind", "id"]))
        page = rows.after(None, 5, order_by=["kind", "id"])
        # the row that the cursor was made of, one before it, one after it; a new one before, a new one behind
        gone = expected([("kind", False, None)], "sqlite")
        uow.main.execute(delete(Thing).where(Thing.id.in_([gone[4], gone[1], gone[6]])))
        uow.main.execute(insert(Thing), [{"id": 100, "kind": 0, "rank": 0}, {"id": 101, "kind": 2, "rank": 0}])
        uow.main.execute(insert(Thing), [{"id": 0, "kind": 0, "rank": 0}])
        while page.next_cursor is not None:
            page = rows.after(page.next_cursor, 5, order_by=["kind", "id"])
            seen += page
        assert [each.id for each in seen] == [*gone[:6], *gone[7:8], 100, *gone[8:], 101]


def test_where_all_rows_are_gone_the_way_back_begins_with_the_row_of_the_cursor(sqlite_things: Place) -> None:
    with sqlite_things.unit() as uow:
        rows = sqlite_things.repository(Thing, uow)
        first = rows.after(None, 5)
        uow.main.execute(delete(Thing).where(Thing.id > 5))
        empty = rows.after(first.next_cursor, 5)
        assert (empty.items, empty.next_cursor) == ([], None)
        assert [each.id for each in rows.after(empty.previous_cursor, 5)] == [1, 2, 3, 4, 5]


def test_where_all_rows_before_are_gone_the_way_forth_begins_with_the_row_of_the_cursor(sqlite_things: Place) -> None:
    with sqlite_things.unit() as uow:
        rows = sqlite_things.repository(Thing, uow)
        second = rows.after(rows.after(None, 5).next_cursor, 5)
        uow.main.execute(delete(Thing).where(Thing.id < 6))
        empty = rows.after(second.previous_cursor, 5)
        assert (empty.items, empty.previous_cursor) == ([], None)
        assert [each.id for each in rows.after(empty.next_cursor, 5)] == [6, 7, 8, 9, 10]
        assert rows.after(rows.after(empty.next_cursor, 5).previous_cursor, 5).items == []


def test_the_place_of_a_row_is_what_the_database_has_not_what_the_session_loaded(sqlite_things: Place) -> None:
    with sqlite_things.unit() as uow:
        rows = sqlite_things.repository(Thing, uow)
        loaded = rows.list()
        uow.main.execute(
            text("update things set rank = 100 - id, kind = 0")  # the loaded objects do not know
        )
        assert flat(walk(lambda cursor: rows.after(cursor, 5, order_by="rank"))) == list(range(24, 0, -1))
        assert len(loaded) == 24


def test_a_column_behind_an_outer_join_may_be_null_whatever_its_table_says(threads: Place) -> None:
    with threads.unit() as uow:
        rows = threads.repository(Thing, uow)
        one = select(Part).where(Part.label == "x").subquery()
        base = select(Thing).outerjoin(one, one.c.thing_id == Thing.id)
        pages = walk(lambda cursor: rows.after(cursor, 5, base, order_by=[one.c.label, Thing.id]))
        assert sorted(flat(pages)) == list(range(1, 25))


@pytest.mark.parametrize("option", [joinedload(Thing.parts), None])
def test_joined_collections_neither_shorten_a_page_nor_repeat_an_object(sqlite_things: Place, option: Any) -> None:
    with sqlite_things.unit() as uow:
        rows = sqlite_things.repository(Thing, uow)
        base = select(Thing) if option is not None else select(Thing).outerjoin(Part)
        options = [] if option is None else [option]
        pages = walk_forth(lambda cursor: rows.after(cursor, 5, base, options=options))
        assert flat(pages) == list(range(1, 25))
        if option is not None:
            assert [len(page) for page in pages] == [5, 5, 5, 5, 4]


def walk_forth(ask: Callable[[str | None], Any]) -> list[list[int]]:
    pages = [ask(None)]
    while (cursor := pages[-1].next_cursor) is not None:
        pages.append(ask(cursor))
    return [[each.id for each in page] for page in pages]


def test_conditions_narrow_every_page_and_deleted_rows_are_hidden(sqlite_things: Place) -> None:
    with sqlite_things.unit() as uow:
        rows = sqlite_things.repository(Sample, uow)
        rows.delete(3)
        ids = flat(walk(lambda cursor: rows.after(cursor, 2, Sample.id < 7, order_by="-text")))
        assert ids == [6, 5, 4, 2, 1]
        assert 3 in flat(walk(lambda cursor: rows.with_deleted().after(cursor, 2)))


@pytest.mark.parametrize("order", [["kind", "rank"], ["-kind", "rank"]], ids=["row values", "mixed"])
def test_a_deep_page_begins_in_the_index(sqlite_things: Place, order: list[str]) -> None:
    with sqlite_things.unit() as uow:
        rows = sqlite_things.repository(Thing, uow)
        cursor = rows.after(None, 5, order_by=order).next_cursor
        engine, sent = sqlite_things.dbs["main"].engine, []

        def note(connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
            sent.append((statement, parameters))

        event.listen(engine, "before_cursor_execute", note)
        rows.after(cursor, 5, order_by=order)
        event.remove(engine, "before_cursor_execute", note)
        statement, parameters = sent[-1]
        plan = uow.main.connection().exec_driver_sql(f"explain query plan {statement}", parameters).all()
    assert any("SEARCH things USING INDEX things_by_kind (" in row[-1] for row in plan), plan


# --- what cannot be asked


@pytest.mark.parametrize(
    ("order", "reason"),
    [
        (func.lower(Thing.name), "from the values of columns"),
        (Thing.kind + 1, "from the values of columns"),
        (text("kind"), "from the values of columns"),
    ],
    ids=str,
)
def test_only_columns_can_be_gone_on_from(sqlite_things: Place, order: Any, reason: str) -> None:
    with sqlite_things.unit() as uow, pytest.raises(TypeError, match=reason):
        sqlite_things.repository(Thing, uow).after(None, 5, order_by=[order])


def test_an_enum_has_no_order_that_can_be_compared(sqlite_things: Place) -> None:
    with sqlite_things.unit() as uow, pytest.raises(TypeError, match="Enum"):
        sqlite_things.repository(Sample, uow).after(None, 5, order_by="colour")


def test_an_unknown_column_is_named(sqlite_things: Place) -> None:
    with sqlite_things.unit() as uow, pytest.raises(UnknownColumn, match="'kinds'"):
        sqlite_things.repository(Thing, uow).after(None, 5, order_by="-kinds")


@pytest.mark.parametrize(
    ("base", "reason"),
    [
        (select(Thing).order_by(Thing.kind), "ORDER BY of its own"),
        (select(Thing).limit(3), "LIMIT or OFFSET of its own"),
        (text("select * from things"), "text"),
    ],
    ids=["order", "limit", "text"],
)
def test_a_statement_that_is_ordered_or_limited_already_is_refused(
    sqlite_things: Place, base: Any, reason: str
) -> None:
    with sqlite_things.unit() as uow, pytest.raises(TypeError, match=reason):
        sqlite_things.repository(Thing, uow).after(None, 5, base)


def test_a_page_has_at_least_one_item(sqlite_things: Place) -> None:
    with sqlite_things.unit() as uow, pytest.raises(ValueError, match="size=0"):
        sqlite_things.repository(Thing, uow).after(None, 0)


# --- cursors

VALUES = (
    *(None, True, False, 0, -1, 2**63, -(10**30), 0.1, -0.0, math.inf, "", "é\x00'", b"", b"\x00\xff"),
    *(Decimal("1.10"), Decimal("-0E+3"), uuid.UUID(int=7), date(2026, 1, 31), time(12, 30, 1, 5)),
    *(datetime(2026, 1, 31, 12, 30, 1, 123456), datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=-5, minutes=-30)))),  # noqa: DTZ001  # a time on a clock
)
KEY, QUESTION = b"key", b"question"


def test_values_come_back_as_they_were() -> None:
    cursor = cursors.write(Position("<=", VALUES), KEY, QUESTION)
    position = cursors.read(cursor, KEY, QUESTION)
    assert position == Position("<=", VALUES)
    assert list(map(repr, map(type, position.values))) == list(map(repr, map(type, VALUES)))
    assert str(position.values[14]) == "1.10"


def test_a_cursor_needs_no_escape_in_a_url() -> None:
    cursor = cursors.write(Position(">", VALUES), KEY, QUESTION)
    assert set(cursor) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


def test_a_value_of_another_type_makes_no_cursor() -> None:
    with pytest.raises(TypeError, match=r"no cursor can be made of \{\}"):
        cursors.write(Position(">", ({},)), KEY, QUESTION)


@pytest.mark.parametrize("name", ["at", "clock", "hour"])
def test_times_that_sqlite_itself_has_written_are_walked_over(sqlite_things: Place, name: str) -> None:
    with sqlite_things.unit() as uow:
        now = {"at": "2026-01-31 12:30:00", "clock": "2026-01-31 12:30:00", "hour": "12:30:00"}[name]
        uow.main.execute(text(f"update samples set {name} = :now where id < 6"), {"now": now})
        rows = sqlite_things.repository(Sample, uow)
        for order in (name, f"-{name}", [name, "-id"]):
            assert sorted(flat(walk(partial(rows.after, size=2, order_by=order)))) == list(range(1, 11))


def test_a_cursor_that_was_changed_anywhere_is_refused() -> None:
    cursor = cursors.write(Position(">", (5, "x")), KEY, QUESTION)
    changed = [cursor[:at] + ("B" if each == "A" else "A") + cursor[at + 1 :] for at, each in enumerate(cursor)]
    wrong = ["", "é", "=", "A" * 10_000, cursor[:-1], cursor + "A", cursor + "=", f" {cursor}", *changed]
    for each in wrong:
        with pytest.raises(InvalidCursor):
            cursors.read(each, KEY, QUESTION)


@pytest.mark.parametrize(("key", "question"), [(b"other", QUESTION), (KEY, b"other"), (KEY, QUESTION + b"\x93")])
def test_a_cursor_of_another_key_or_question_is_refused(key: bytes, question: bytes) -> None:
    cursor = cursors.write(Position(">", (5,)), KEY, QUESTION)
    with pytest.raises(InvalidCursor, match="made for another order, model or database"):
        cursors.read(cursor, key, question)


def test_a_cursor_belongs_to_its_order_and_its_model(sqlite_things: Place) -> None:
    with sqlite_things.unit() as uow:
        rows, others = sqlite_things.repository(Thing, uow), sqlite_things.repository(Sample, uow)
        cursor = rows.after(None, 5, order_by="kind").next_cursor
        assert rows.after(cursor, 7, Thing.rank == 1, order_by=Thing.kind).items
        for asked, order in ((rows, "-kind"), (rows, ["kind", "-id"]), (rows, None), (others, "id")):
            with pytest.raises(InvalidCursor):
                asked.after(cursor, 5, order_by=order)


class Things(Repository[Thing]):
    """
    Reads things.
    """


def made(url: str, secret: str | None = None, name: str = "main") -> Databases:
    return Databases({"databases": {name: {"url": url}}, "secret_key": secret})


def first_cursor(dbs: Databases, role: Any = None) -> str:
    with dbs.unit_of_work() as uow:
        cursor = Things(uow.session(*dbs, role=role)).after(None, 5).next_cursor
        assert cursor is not None
        return cursor


def accepts(dbs: Databases, cursor: str, role: Any = None) -> bool:
    with dbs.unit_of_work() as uow:
        try:
            return bool(Things(uow.session(*dbs, role=role)).after(cursor, 5).items)
        except InvalidCursor:
            return False


@pytest.mark.usefixtures("committed")
@pytest.mark.parametrize(
    ("secret", "name", "accepted"),
    [("a secret of 16 ch", "main", True), ("another secret of", "main", False), ("a secret of 16 ch", "other", False)],
)
def test_cursors_are_those_of_the_secret_key_and_the_database(
    sqlite_things: Place, secret: str, name: str, *, accepted: bool
) -> None:
    url = sqlite_things.plain["main"].settings.url.render_as_string()
    one, other = made(url, "a secret of 16 ch"), made(url, secret, name)
    try:
        assert accepts(other, first_cursor(one)) is accepted
    finally:
        one.close()
        other.close()


@pytest.mark.usefixtures("committed")
def test_without_a_secret_key_cursors_are_those_of_the_url(sqlite_things: Place) -> None:
    url = sqlite_things.plain["main"].settings.url
    one, same, other = (made(each.render_as_string()) for each in (url, url, url.update_query_dict({"timeout": "7"})))
    try:
        cursor = first_cursor(one)
        assert accepts(same, cursor, role="reader")
        assert not accepts(other, cursor)
    finally:
        for each in (one, same, other):
            each.close()


@pytest.mark.usefixtures("committed")
def test_sessions_of_ones_own_have_cursors_too(sqlite_things: Place) -> None:
    engine = create_engine(sqlite_things.plain["main"].settings.url)
    registry = scoped_session(sessionmaker(engine))
    with Session(engine) as session, engine.connect() as connection, Session(connection) as bound:
        cursor = Things(session).after(None, 5).next_cursor
        assert Things(registry).after(cursor, 5).items[0].id == 6
        assert Things(bound).after(cursor, 5).items[0].id == 6
        assert Things(registry).page(1, 5, total="cached").total == 24
    registry.remove()
    engine.dispose()
