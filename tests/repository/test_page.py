"""
Pages by number: what is on them, and how many rows there are in all, by each way of knowing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import Engine, create_engine, event, func, insert, literal, select, text
from sqlalchemy.orm import Session, joinedload, selectinload, with_loader_criteria

from stillroom import Repository
from stillroom.repository.paging.totals import CAP, Remembered
from tests.repository.models import Line, create_tables
from tests.repository.paged import PAGED, Part, Sample, Thing, add_many
from tests.repository.test_inheritance import Animal, Circle, Dog, Employee, Manager, Shape, Square
from tests.repository.test_inheritance import Base as Inheriting
from tests.repository.test_reading import statements

if TYPE_CHECKING:
    from collections.abc import Callable

    from stillroom.repository.paging.pages import Page
    from tests.repository.worlds import Place
    from tests.support.standing import Content

KINDS = ("exact", "capped", "estimate", "cached")


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


class Things(Repository[Thing]):
    """
    Reads things.
    """


def ids(page: Page[Any]) -> list[int]:
    return [each.id for each in page]


# --- what is on a page


def test_pages_have_each_row_once_though_many_are_alike(place: Place) -> None:
    with place.unit() as uow:
        rows = place.repository(Thing, uow)
        pages = [rows.page(number, 10, order_by="-rank") for number in (1, 2, 3, 4)]
    assert [len(page) for page in pages] == [10, 10, 4, 0]
    assert sorted(key for page in pages for key in ids(page)) == list(range(1, 25))
    assert {(page.total, page.pages, page.size, page.kind) for page in pages} == {(24, 3, 10, "exact")}
    assert [(page.number, page.has_previous, page.has_next) for page in pages] == [
        (1, False, True),
        (2, True, True),
        (3, True, False),
        (4, True, False),
    ]


def test_the_last_page_knows_the_total_without_counting(sqlite_things: Place) -> None:
    with sqlite_things.unit() as uow:
        rows = sqlite_things.repository(Thing, uow)
        with statements(sqlite_things) as sent:
            last, full, only = rows.page(3, 10), rows.page(2, 12), rows.page(1, 50)
            empty = rows.page(1, 50, kind=9)
    assert [page.total for page in (last, full, only, empty)] == [24, 24, 24, 0]
    assert (empty.pages, empty.items) == (0, [])
    assert len(sent) == 4


def test_deep_pages_are_the_same_as_others(sqlite_things: Place) -> None:
    add_many(sqlite_things, 1200)
    with sqlite_things.unit() as uow:
        rows = sqlite_things.repository(Thing, uow)
        options = [selectinload(Thing.parts)]
        deep = rows.page(120, 10, Thing.kind < 3, order_by=["-kind", "id"], options=options, rank=[0, 1, 2, 3])
        assert ids(deep) == ids(rows.list(order_by=["-kind", "id"], limit=10, offset=1190))
        assert deep.total == 1224
        assert deep.items[0].parts == []
        with statements(sqlite_things) as sent:
            rows.page(120, 10)
    assert "JOIN (SELECT" in sent[0]


def test_composite_keys_have_deep_pages_too(sqlite_place: Place) -> None:
    create_tables(sqlite_place)
    with sqlite_place.plain["main"].engine.begin() as connection:
        rows = [{"order_id": number // 50, "number": number % 50, "text": ""} for number in range(1100)]
        connection.execute(insert(Line), rows)
    with sqlite_place.unit() as uow:
        page = sqlite_place.repository(Line, uow).page(109, 10)
    assert [(each.order_id, each.number) for each in page] == [(21, 30 + number) for number in range(10)]


def test_a_select_of_ones_own_options_and_deleted_rows(threads: Place) -> None:
    with threads.unit() as uow:
        rows, others = threads.repository(Sample, uow), threads.repository(Thing, uow)
        rows.delete(3)
        base = select(Sample).where(Sample.id > 1).order_by(Sample.text.desc())
        page = rows.page(1, 3, base, Sample.id < 8)
        assert (ids(page), page.total) == ([6, 7, 4], 5)
        assert (ids(rows.page(2, 3, base, Sample.id < 8))) == [5, 2]
        assert rows.with_deleted().page(1, 3, base, Sample.id < 8).total == 6
        joined = others.page(1, 5, options=[joinedload(Thing.parts)])
        assert [len(each.parts) for each in joined] == [2, 0, 2, 0, 2]


def test_a_page_with_a_joined_collection_is_read_once(sqlite_things: Place) -> None:
    with sqlite_things.unit() as uow, statements(sqlite_things) as sent:
        things = sqlite_things.repository(Thing, uow)
        assert ids(things.page(1, 5, total="none", options=[joinedload(Thing.parts)])) == [1, 2, 3, 4, 5]
        assert len(things.after(None, 5, order_by="id", options=[joinedload(Thing.parts)]).items) == 5
    assert len(sent) == 2


@pytest.mark.usefixtures("own_database")
def test_models_that_inherit_have_pages_of_both_kinds(threads: Place) -> None:
    create_tables(threads, Inheriting.metadata)
    with threads.plain["main"].unit_of_work() as uow:
        for number in range(1, 10):
            uow.main.add_all([Dog(id=2 * number, tricks=-number), Animal(id=2 * number + 1)])
            uow.main.add_all([Manager(id=2 * number, name="x", budget=-number), Employee(id=2 * number + 1, name="y")])
            uow.main.add_all([Circle(id=2 * number, radius=1), Square(id=2 * number + 1, side=1)])
    with threads.unit() as uow:
        for model, order, expected in (
            (Dog, "tricks", range(18, 0, -2)),
            (Manager, "budget", range(18, 0, -2)),
            (Employee, "-id", range(19, 1, -1)),
            (Shape, "-id", range(19, 1, -1)),
            (Circle, "-id", range(18, 0, -2)),
        ):
            rows = threads.repository(model, uow)
            page, first = rows.page(2, 4, order_by=order), rows.after(None, 4, order_by=order)
            assert (ids(page), page.total) == (list(expected[4:8]), len(expected))
            assert ids(rows.after(first.next_cursor, 4, order_by=order)) == ids(page)


@dataclass
class Named:
    """
    A thing as an application knows it.
    """

    id: int
    name: str | None


def test_pages_hold_domain_objects_where_the_repository_does(place: Place) -> None:
    kind = type("NamedThings", (place.kind("ReadRepository")[Thing, Named],), {})
    with place.unit() as uow:
        named = place.waiting(kind(uow))
        page, first = named.page(2, 3, order_by="id"), named.after(None, 3, order_by="id")
        second = named.after(first.next_cursor, 3, order_by="id")
    assert page.items == second.items == [Named(4, None), Named(5, "a"), Named(6, "b")]


@pytest.mark.parametrize(
    ("call", "error", "reason"),
    [
        (lambda rows: rows.page(0), ValueError, "number=0"),
        (lambda rows: rows.page(1, 0), ValueError, "size=0"),
        (lambda rows: rows.page(1, 50, total="rough"), ValueError, "total='rough'"),
        (lambda rows: rows.page(1, 5, text("select * from things")), TypeError, "text"),
        (lambda rows: rows.page(1, 5, select(Thing).limit(3)), TypeError, "LIMIT"),
    ],
    ids=["number", "size", "total", "text", "limit"],
)
def test_what_cannot_be_paged_is_said(
    sqlite_things: Place, call: Callable[[Any], Any], error: type[Exception], reason: str
) -> None:
    with sqlite_things.unit() as uow, pytest.raises(error, match=reason):
        call(sqlite_things.repository(Thing, uow))


# --- totals


@pytest.mark.parametrize("kind", KINDS)
def test_past_the_last_page_the_total_is_right(sqlite_things: Place, kind: str) -> None:
    with sqlite_things.unit() as uow:
        page = sqlite_things.repository(Thing, uow).page(9, 10, total=kind)
    assert (page.items, page.total, page.pages, page.has_next) == ([], 24, 3, False)


def test_without_a_total_nothing_is_counted(sqlite_things: Place) -> None:
    with sqlite_things.unit() as uow:
        rows = sqlite_things.repository(Thing, uow)
        with statements(sqlite_things) as sent:
            pages = [rows.page(number, 12, total="none") for number in (1, 2, 3)]
    assert [(page.total, page.pages, page.kind, page.has_next) for page in pages] == [
        (None, None, "none", True),
        (None, None, "none", False),
        (None, None, "none", False),
    ]
    assert len(sent) == 3


@pytest.mark.parametrize("own", [None, select(Thing)], ids=["model", "select"])
def test_a_capped_total_says_when_there_are_more(sqlite_things: Place, own: Any) -> None:
    add_many(sqlite_things, CAP)
    where = () if own is None else (own,)
    with sqlite_things.unit() as uow:
        rows = sqlite_things.repository(Thing, uow)
        first, deep = rows.page(1, 10, *where, total="capped"), rows.page(1002, 10, *where, total="capped")
        few = rows.page(1, 10, *where, total="capped", rank=[0, 2, 3])
        last = rows.page(1003, 10, *where, total="capped")
    assert (first.total, first.kind) == (10_000, "capped")
    assert (deep.total, deep.kind) == (10_021, "capped")  # what is known to be there
    assert (few.total, few.kind) == (18, "exact")
    assert (last.total, last.kind) == (10_024, "exact")


@pytest.mark.usefixtures("committed")
def test_an_estimate_is_near_and_says_what_it_is(place: Place) -> None:
    analyze = {"sqlite": "analyze", "postgresql": "analyze things", "mariadb": "analyze table things"}
    with place.plain["main"].begin() as connection:
        connection.execute(text(analyze[place.world.backend])).close()
    with place.unit() as uow:
        rows = place.repository(Thing, uow)
        everything, some = rows.page(1, 5, total="estimate"), rows.page(1, 2, Thing.kind == 1, total="estimate")
    assert (everything.total, everything.kind) == (pytest.approx(24, abs=6), "estimate")
    assert some.total == pytest.approx(8, abs=6)
    # SQLite estimates no conditions: it counts.
    assert some.kind == ("exact" if place.world.backend == "sqlite" else "estimate")


@pytest.mark.usefixtures("own_database")
def test_sqlite_without_analyze_counts_up_to_the_cap(sqlite_things: Place) -> None:
    with sqlite_things.unit() as uow:
        page = sqlite_things.repository(Thing, uow).page(1, 5, total="estimate")
    assert (page.total, page.kind) == (24, "exact")


@pytest.mark.usefixtures("own_database")
def test_a_table_that_analyze_never_saw_is_counted_on_sqlite(sqlite_things: Place) -> None:
    with sqlite_things.plain["main"].begin() as connection:
        connection.execute(text("analyze samples"))
    with sqlite_things.unit() as uow:
        page = sqlite_things.repository(Thing, uow).page(1, 5, total="estimate")
    assert (page.total, page.kind) == (24, "exact")


def test_a_cached_total_is_that_of_a_moment_ago(place: Place) -> None:
    with place.unit() as uow:
        first = place.repository(Thing, uow).page(1, 5, total="cached")
    with place.plain["main"].begin() as connection:
        connection.execute(text("delete from things where id = 24"))
    with place.unit() as uow:
        rows = place.repository(Thing, uow)
        second, other = rows.page(2, 5, total="cached"), rows.page(1, 5, Thing.kind < 3, total="cached")
        last = rows.page(5, 5, total="cached")
    assert [(page.total, page.kind) for page in (first, second, other, last)] == [
        (24, "exact"),
        (24, "cached"),
        (23, "exact"),
        (23, "exact"),
    ]


def cached(session: Session, *where: Any, **equal: Any) -> tuple[int | None, str]:
    page = Things(session).page(1, 1, *where, total="cached", **equal)
    return page.total, page.kind


@pytest.fixture
def engine(committed: None, sqlite_things: Place) -> Any:
    """
    An engine of the user's own on the things.
    """
    engine = create_engine(sqlite_things.plain["main"].settings.url)
    yield engine
    engine.dispose()


def test_a_cached_total_is_that_of_the_same_statement_and_the_same_values(engine: Engine) -> None:
    with Session(engine) as session:
        asked: list[tuple[tuple[Any, ...], dict[str, Any], int]] = [
            ((), {}, 24),
            ((), {"kind": 1}, 8),
            ((), {"kind": 2}, 8),
            ((), {"rank": 1}, 6),
            ((), {"id": [1, 2, 3]}, 3),
            ((), {"id": [1, 2]}, 2),
            ((select(Thing).where(Thing.kind == 1),), {"rank": 1}, 2),
            ((select(Thing).where(Thing.kind == 1, Thing.id < 14),), {"rank": [1, 3]}, 3),
            ((literal(1) == 1, Thing.id < 9), {}, 8),
            ((literal(1.0) == 1, Thing.id < 9), {}, 8),
            ((literal(value=True) == 1, Thing.id < 9), {}, 8),
        ]
        for kind in ("exact", "cached"):
            assert [cached(session, *where, **equal) for where, equal, _ in asked] == [(n, kind) for *_, n in asked]


def test_a_cached_total_is_never_that_of_another_tenant(engine: Engine) -> None:
    def tenant(number: int) -> Session:
        session = Session(engine)

        def restrict(state: Any) -> None:
            if state.is_select:
                criteria = with_loader_criteria(Thing, lambda cls: cls.id <= number)
                state.statement = state.statement.options(criteria)

        event.listen(session, "do_orm_execute", restrict)
        return session

    with tenant(5) as one, tenant(7) as other:
        assert [cached(one), cached(other), cached(one), cached(other)] == [
            (5, "exact"),
            (7, "exact"),
            (5, "cached"),
            (7, "cached"),
        ]
        assert cached(one, select(Thing)) == (5, "exact")
        assert cached(other, select(Thing)) == (7, "exact")


def test_a_cached_total_is_never_that_of_another_schema_or_database(engine: Engine) -> None:
    other = create_engine("sqlite://")
    Thing.metadata.create_all(other)
    with Session(engine) as session, Session(other) as elsewhere:
        session.connection().exec_driver_sql("attach ':memory:' as tenant")
        session.connection().exec_driver_sql("create table tenant.things as select * from main.things where id < 4")
        assert cached(session) == (24, "exact")
        session.rollback()
        session.connection(execution_options={"schema_translate_map": {None: "tenant"}})
        assert cached(session) == (3, "exact")
        elsewhere.add_all([Thing(id=1, kind=0, rank=0), Thing(id=2, kind=0, rank=0)])
        assert cached(elsewhere) == (2, "exact")
    other.dispose()


def test_what_a_unit_of_work_has_not_committed_is_in_its_own_totals_only(sqlite_things: Place) -> None:
    def total(uow: Any) -> int | None:
        return Things(uow).page(1, 5, total="cached").total

    with sqlite_things.dbs.unit_of_work() as uow:
        assert total(uow) == 24
    with sqlite_things.dbs.unit_of_work(commit="manual") as uow:
        uow.main.add(Thing(id=99, kind=0, rank=0))
        assert total(uow) == 25
    with sqlite_things.dbs.unit_of_work() as uow:
        assert total(uow) == 24


def test_a_value_that_cannot_be_compared_is_counted_anew(engine: Engine) -> None:
    with Session(engine) as session:
        session.connection().connection.create_function("few", 1, lambda _: 3)
        condition = Thing.id <= func.few(literal(bytearray(b"x")))
        assert [cached(session, condition), cached(session, condition)] == [(3, "exact"), (3, "exact")]


def test_remembered_totals_grow_old() -> None:
    engine, now = create_engine("sqlite://"), [0.0]
    totals = Remembered(seconds=60, clock=lambda: now[0])
    totals.put(engine, "a", 5)
    now[0] = 60.0
    assert totals.get(engine, "a") == 5
    now[0] = 60.1
    assert totals.get(engine, "a") is None


def test_remembered_totals_are_bounded() -> None:
    engine = create_engine("sqlite://")
    totals = Remembered(most=2)
    for key, value in (("a", 1), ("b", 2)):
        totals.put(engine, key, value)
    assert totals.get(engine, "a") == 1
    totals.put(engine, "c", 3)
    assert [totals.get(engine, key) for key in "abc"] == [1, None, 3]
    assert totals.get(create_engine("sqlite://"), "a") is None


def test_no_part_is_counted_as_a_thing(sqlite_things: Place) -> None:
    with sqlite_things.unit() as uow:
        rows = sqlite_things.repository(Thing, uow)
        assert rows.page(1, 5, Thing.parts.any(Part.label == "x")).total == 12
