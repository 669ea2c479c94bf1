"""
Lists for the web: what a query string may ask for, what it may not, and the links to other pages.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import JSON, Column, DateTime, ForeignKey, Integer, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from stillroom import InvalidCursor, InvalidListQuery, StillroomError
from stillroom.models import UnknownColumn
from stillroom.repository.paging.listing import Field, Limits, ListQuery
from tests.repository.paged import PAGED, Part, Sample, Thing

if TYPE_CHECKING:
    from stillroom.repository.paging.listing import Listing
    from tests.repository.worlds import Place
    from tests.support.standing import Content

THINGS = ListQuery(
    Thing,
    filters=["name", Thing.score, Field(Thing.kind, "eq", "in", "ge"), Field(Thing.rank, name="level")],
    search=["name"],
    sort=["kind", Thing.rank, "id"],
    order_by="-id",
    limits=Limits(size=5, largest=20, length=30, values=8),
)
SAMPLES = ListQuery(
    Sample,
    filters=[
        *("text", "number", "single", "money", "decimal", "flag", "at", "clock", "day", "hour", "key", "colour", "id")
    ],
    search=["text"],
    sort=["id"],
    order_by="id",
)


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


class Multi(dict[str, list[str]]):
    """
    A mapping as web frameworks have it: an item is one value, and a method gives all.
    """

    def __getitem__(self, name: str) -> Any:
        return super().__getitem__(name)[0]

    def getlist(self, name: str) -> list[str]:
        """
        Return every value.
        """
        return super().__getitem__(name)


def found(place: Place, query: Any, declared: ListQuery = SAMPLES, model: type[Any] = Sample) -> list[int]:
    with place.unit() as uow:
        return [each.id for each in declared.parse(query).page(place.repository(model, uow))]


# --- what is found


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
        ("?text=", [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
        (b"text=%C3%A9'%25_2", [4, 5]),
        ("text__ne=%C3%A9'%25_2&number__le=200000000000000", [1, 2, 3]),
        ("text__ne=x&id__ge=8", [8, 9, 10]),
        ("text__contains=%25_2", [4, 5]),
        ("text__contains=%_", [2, 3, 4, 5, 6, 7, 8, 1]),
        ("text__contains=_%", []),
        ("text__startswith=%C3%A9'&id__lt=3", [1, 2]),
        ("text__istartswith=%C3%A9'&id__lt=3", [1, 2]),
        ("text__icontains=_2", [4, 5]),
        ("q=_2", [4, 5]),
        ("q=2+_3", []),
        ("q=%C3%A9+_3", [6, 7]),
        ("q=%25", [1, 2, 3, 4, 5, 6, 7, 8]),
        ("id=3&id=5&id=77", [3, 5]),
        ("id__in=3,5,77", [3, 5]),
        ("id__in=3,5&id__in=7", [3, 5, 7]),
        ("id__in=,", []),
        ("single__gt=1.1", [8]),
        ("money=0.5", [4, 5]),
        ("money=0.502", []),
        ("decimal__lt=0.13000000000000000001", [1, 2, 3]),
        ("flag=true", [6, 7, 8]),
        ("flag=0&id__gt=3", [4, 5]),
        ("flag__isnull=true", [9, 10]),
        ("flag__isnull=no&id__ge=8", [8]),
        ("at__ge=2026-01-31T12:30:00.123459Z", [6, 7, 8]),
        ("at__ge=2026-01-31T13:30:00.123459%2B01:00", [6, 7, 8]),
        ("at__ge=2026-01-31T12:30:00.123459", [6, 7, 8]),
        ("at__gt=2026-01-31&at__lt=2026-02-01&id=1", [1]),
        ("clock=2026-01-31+12:30:00.123458", [4, 5]),
        ("day__lt=2026-01-03", [1, 2, 3]),
        ("hour=02:02", [2, 3]),
        ("key=02000000-0000-0000-0000-000000000002", [4, 5]),
        ("colour=RED&id__lt=4", [2]),
        ("colour=g&id__lt=4", [1, 3]),
        ("sort=-id&size=3", [10, 9, 8]),
        ("sort=-id&size=3&page=2", [7, 6, 5]),
        ({"id": ["3", "4"], "size": "1"}, [3]),
        ({"id": 3}, [3]),
        ([("id", "3"), ("id", "4")], [3, 4]),
        (Multi({"id": ["3", "4"]}), [3, 4]),
    ],
    ids=str,
)
def test_a_query_string_finds_what_it_asks_for(sqlite_things: Place, query: Any, expected: list[int]) -> None:
    assert sorted(found(sqlite_things, query)) == sorted(expected)


def test_a_list_is_filtered_sorted_and_paged_in_every_world(place: Place) -> None:
    listing = THINGS.parse("score__isnull=false&name__ne=a&q=B&sort=kind,-id&size=2&level__le=3")
    with place.unit() as uow:
        rows = place.repository(Thing, uow)
        page = listing.page(rows, Thing.id < 24)
        # names are "abcde"[id % 5], missing where id % 4 == 0; scores are missing where id % 3 == 0
        assert ([each.id for each in page], page.total) == ([1, 11], 2)
        cursors = THINGS.parse("sort=kind,-id&size=7")
        first = cursors.after(rows, Thing.id < 24)
        link = cursors.next_link(first)
        assert link is not None
        second = THINGS.parse(link).after(rows, Thing.id < 24)
        assert [each.id for each in [*first, *second]] == [
            *(21, 18, 15, 12, 9, 6, 3),
            *(22, 19, 16, 13, 10, 7, 4),
        ]


def test_a_number_that_its_column_could_not_hold_is_compared_all_the_same(place: Place) -> None:
    assert found(place, "money__lt=99999999999999&id__lt=3") == [1, 2]
    assert found(place, "money__in=0.251,0.25") == [2, 3]


def test_what_the_application_adds_comes_before_what_is_asked(sqlite_things: Place) -> None:
    with sqlite_things.unit() as uow:
        rows = sqlite_things.repository(Thing, uow)
        listing = THINGS.parse("kind__in=1,2&page=2")
        page = listing.page(rows, select(Thing).where(Thing.rank == 1), total="none", order_by="id")
        assert ([each.id for each in page], page.total) == ([], None)
        assert [each.id for each in THINGS.parse("kind__in=1,2").page(rows, select(Thing).where(Thing.rank == 1))] == [
            *(17, 13, 5, 1)
        ]


# --- links


def test_links_lead_from_page_to_page_and_keep_the_rest(sqlite_things: Place) -> None:
    with sqlite_things.unit() as uow:
        rows = sqlite_things.repository(Thing, uow)

        def links(query: str) -> tuple[str | None, str | None]:
            listing = THINGS.parse(query)
            page = listing.page(rows)
            return listing.previous_link(page), listing.next_link(page)

        assert links("") == (None, "page=2")
        assert links("page=2&size=20&name=") == ("size=20&page=1", None)
        assert links("page=3&kind__in=1,2&sort=-kind") == (
            "kind__in=1%2C2&sort=-kind&page=2",
            "kind__in=1%2C2&sort=-kind&page=4",
        )
        assert links("page=99") == ("page=5", None)


def test_links_by_cursor_lead_both_ways(sqlite_things: Place) -> None:
    with sqlite_things.unit() as uow:
        rows = sqlite_things.repository(Thing, uow)
        seen: list[list[int]] = []
        query: str | None = "kind=1&kind=2&sort=-rank&size=7"
        back: str | None = None
        while query is not None:
            listing: Listing = THINGS.parse(query)
            page = listing.after(rows)
            seen.append([each.id for each in page])
            query, back = listing.next_link(page), listing.previous_link(page)
        assert [len(each) for each in seen] == [7, 7, 2]
        assert back is not None
        assert [each.id for each in THINGS.parse(back).after(rows)] == seen[1]
        with pytest.raises(InvalidCursor):
            THINGS.parse(back.replace("-rank", "rank")).after(rows)


# --- what may not be asked


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("nam=x", "'nam': there is no such parameter; there are name, name__ne, name__in, name__isnull, name__lt, "),
        ("rank=1", "'rank': there is no such parameter"),
        ("kind__lt=1", "'kind__lt': there is no such parameter"),
        ("name__like=x", "'name__like': there is no such parameter"),
        ("name; drop table things=x", "'name; drop table things': there is no such parameter"),
        ("kind=one", "'kind' = 'one': expected a whole number from -2147483648 to 2147483647"),
        ("kind=1 or 1=1", "'kind' = '1 or 1=1': expected a whole number"),
        ("kind=2147483648", "'kind' = '2147483648': expected a whole number"),
        ("kind__in=1,x", "'kind__in' = 'x': expected a whole number"),
        ("score__gt=1&score__gt=2", "'score__gt' = '2': it is given more than once"),
        ("score__isnull=maybe", "'score__isnull' = 'maybe': expected true or false"),
        ("name=a%00b", "'name' = 'a\\x00b': expected text"),
        ("q=%00", "'q' = '\\x00': expected text"),
        ([("name", "\ud800")], "'name' = '\\ud800': expected text"),
        ("page=0", "'page' = '0': expected a whole number from 1 to 1000000000"),
        ("page=99999999999999999999", "'page' = '99999999999999999999': expected a whole number"),
        ("page=1&page=2", "'page' = '2': it is given more than once"),
        ("size=21", "'size' = '21': expected a whole number from 1 to 20"),
        ("size=-1", "'size' = '-1': expected a whole number from 1 to 20"),
        ("page=1&cursor=x", "'page' = '1': there is a cursor as well; give one of the two"),
        ("sort=name", "'sort' = 'name': that is no order; there are kind, rank, id, and each with '-' before it"),
        ("sort=kind,,id", "'sort' = '': that is no order"),
        ("sort=kind;drop", "'sort' = 'kind;drop': that is no order"),
        ("sort=kind&sort=-kind", "'sort' = '-kind': it is named twice"),
        (f"name={'x' * 31}", f"'name' = '{'x' * 31}': it has 31 characters, and 30 are the most"),
        (f"cursor={'x' * 9000}", f"'cursor' = '{'x' * 60}'…: it has 9000 characters, and 8192 are the most"),
        ("&".join(["kind=1"] * 9), "'kind' = '1': there are more than 8 values"),
    ],
)
def test_what_is_not_declared_or_does_not_fit_is_an_error_that_says_so(query: Any, message: str) -> None:
    with pytest.raises(InvalidListQuery) as caught:
        THINGS.parse(query)
    assert str(caught.value).startswith(message)
    assert isinstance(caught.value, ValueError | StillroomError)
    assert repr(caught.value.parameter)[1:-1] in message


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("single=nan", "a number"),
        ("single=1e999", "a number"),
        ("money=NaN", "a decimal number"),
        ("money=1e1000000", "a decimal number"),
        ("money=1,5", "a decimal number"),
        ("flag=2", "true or false"),
        ("at=yesterday", "a point in time, such as 2026-01-31T12:30:00Z"),
        ("at=0001-01-01T00:00:00%2B05:00", "a point in time"),
        ("at=2026-01-31T13:30:00+01:00", "a point in time"),  # "+" is a space
        ("clock=2026-01-31T12:30:00Z", "a date and time without a zone"),
        ("day=31.1.2026", "a date, such as 2026-01-31"),
        ("hour=25:00", "a time without a zone, such as 12:30"),
        ("hour=12:30Z", "a time without a zone"),
        ("key=7", "a UUID"),
        ("colour=blue", "one of 'RED', 'GREEN'"),
        ("id=32768", "a whole number from -32768 to 32767"),
        ("number=9223372036854775808", "a whole number from"),
    ],
)
def test_a_value_that_its_column_does_not_take_is_an_error_that_says_what_it_takes(query: str, expected: str) -> None:
    with pytest.raises(InvalidListQuery, match=f"expected {expected}"):
        SAMPLES.parse(query)


def test_the_error_names_everything_that_may_be_asked() -> None:
    with pytest.raises(InvalidListQuery) as caught:
        ListQuery(Thing, filters=[Field(Thing.kind, "eq", "ge"), Field(Thing.name, "icontains")], sort=["id"]).parse(
            "x=1"
        )
    assert str(caught.value).endswith("there are kind, kind__ge, name__icontains, page, size, cursor, sort")


def test_a_list_that_cannot_be_searched_or_sorted_says_so() -> None:
    plain = ListQuery(Part, filters=["label"])
    for name in ("q", "sort"):
        with pytest.raises(InvalidListQuery, match=f"'{name}': there is no such parameter"):
            plain.parse(f"{name}=x")


def test_numbered_pages_take_no_cursor_and_the_others_no_number(sqlite_things: Place) -> None:
    with sqlite_things.unit() as uow:
        rows = sqlite_things.repository(Thing, uow)
        with pytest.raises(InvalidListQuery, match="numbered pages"):
            THINGS.parse("cursor=x").page(rows)
        with pytest.raises(InvalidListQuery, match="no numbered pages"):
            THINGS.parse("page=1").after(rows)
        with pytest.raises(InvalidCursor):
            THINGS.parse("cursor=x").after(rows)


# --- what cannot be declared


class Base(DeclarativeBase):
    """
    A table of its own.
    """


class Odd(Base):
    """
    What lists have little use for.
    """

    __tablename__ = "odd"

    id = Column(Integer, primary_key=True)
    page = Column(Integer)
    data = Column(JSON)
    zoned = Column(DateTime(timezone=True))


@pytest.mark.parametrize(
    ("declare", "error", "reason"),
    [
        (lambda: ListQuery(Odd, filters=["nothing"]), UnknownColumn, "'nothing'"),
        (lambda: ListQuery(Odd, filters=["data"]), TypeError, "no values of JSON"),
        (lambda: ListQuery(Odd, filters=["page"]), ValueError, "'page' is a parameter of every list"),
        (lambda: ListQuery(Odd, filters=[Field(Odd.page, "contains", name="p")]), ValueError, "no operator 'contains'"),
        (lambda: ListQuery(Odd, search=["page"]), TypeError, "it is no text"),
        (lambda: ListQuery(Sample, filters=[Field(Sample.flag, "lt")]), ValueError, "no operator 'lt'"),
        (lambda: ListQuery(Sample, filters=[Field(Sample.colour, "gt")]), ValueError, "no operator 'gt'"),
    ],
    ids=["unknown", "type", "reserved", "operator", "search", "boolean", "enum"],
)
def test_a_declaration_that_cannot_work_fails_at_its_first_use(
    declare: Any, error: type[Exception], reason: str
) -> None:
    with pytest.raises(error, match=reason):
        declare().parse("")


def test_a_list_is_declared_before_all_models_are_there() -> None:
    class Unfinished(DeclarativeBase):
        pass

    class Early(Unfinished):
        __tablename__ = "early"

        id: Mapped[int] = mapped_column(primary_key=True)
        late_id: Mapped[int] = mapped_column(ForeignKey("late.id"))
        late: Mapped[Any] = relationship("Late")

    declared = ListQuery(Early, filters=["late_id", Field(Early.late_id, name="late")], sort=["id"])

    class Late(Unfinished):
        __tablename__ = "late"

        id: Mapped[int] = mapped_column(primary_key=True)

    assert len(declared.parse("late_id=3&late__lt=5&sort=id").where) == 2
    assert Late.__mapper__.class_ is Late


def test_a_column_with_time_zones_takes_points_in_time() -> None:
    assert ListQuery(Odd, filters=["zoned"]).parse("zoned__lt=2026-01-31T12:30Z").where


def test_a_field_is_named_or_given(sqlite_things: Place) -> None:
    named, given = (ListQuery(Thing, filters=[Field(each, "ge")]) for each in ("id", Thing.id))
    assert [*named.fields] == [*given.fields]
    assert str(named.parse("id__ge=3").where[0]) == str(given.parse("id__ge=3").where[0])
