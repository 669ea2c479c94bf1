"""
`load` stores any number of rows the fastest way, or none of them.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import (
    ARRAY,
    Computed,
    DateTime,
    Enum,
    ForeignKey,
    Integer,
    MetaData,
    String,
    create_engine,
    event,
    func,
    insert,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import INET, JSONB
from sqlalchemy.engine import Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from stillroom import ForkedConnection, ReadOnlyError, Repository, Retry, SerializationFailure
from stillroom.errors import BadRow, NotNullViolation, UniqueViolation
from stillroom.models import ModelBase, UnknownColumn
from tests.repository.models import create_tables
from tests.repository.things import EMPTY, FULL, Base, Colour, Thing, few
from tests.repository.worlds import AIOMYSQL, ASYNCPG, PSYCOPG, PSYCOPG_ASYNC, Place, World
from tests.support.standing import Content

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

POSTGRESQL = (PSYCOPG, PSYCOPG_ASYNC, ASYNCPG)


@pytest.fixture
def place_content() -> Content:
    """
    What `place` has in it.
    """
    return Content("load", "tests.repository.test_load:TABLES")


@pytest.fixture
def things(place: Place) -> Place:
    """
    A place with an empty table.
    """
    return place


@pytest.fixture
def thread_things(threads: Place) -> Place:
    """
    Same as `things`, but from threads only.
    """
    return threads


@pytest.fixture(params=POSTGRESQL, ids=str)
def postgresql(request: pytest.FixtureRequest, postgresql_database: str) -> Iterator[Place]:
    """
    An empty PostgreSQL database with each of its drivers.
    """
    with Place({"main": postgresql_database}, request.param) as place:
        yield place


def load(place: Place, rows: Any, model: type[Any] = Thing) -> int:
    with place.unit() as uow:
        loaded: int = place.repository(model, uow).load(rows)
    return loaded


def stored(place: Place, *columns: Any, order_by: Any = Thing.id) -> list[Any]:
    with place.plain.unit_of_work() as uow:
        return list(uow.main.execute(select(*columns).order_by(order_by)).all())


def refused(place: Place, *rows: Any) -> BadRow:
    """
    Load rows one of which is bad, in a unit of work that goes on; return the error.
    """
    with place.unit() as uow:
        repository = place.repository(Thing, uow)
        with pytest.raises(BadRow) as raised:
            repository.load(list(rows))
        repository.create(**few(1000))
    assert stored(place, Thing.name) == [("thing 1000",)]
    return raised.value


# --- what is stored


def test_every_value_is_stored_as_it_is(things: Place) -> None:
    # aiomysql cannot write bytes at all: "'str' object is not callable"
    full = FULL | {"raw": None} if things.world == AIOMYSQL else FULL

    assert load(things, [full, EMPTY]) == 2

    with things.plain.unit_of_work() as uow:
        found = Repository[Thing](uow).rows(order_by="id")
    assert found == [full, EMPTY]


def test_a_generator_is_consumed_batch_by_batch(thread_things: Place) -> None:
    total = 20_500

    assert load(thread_things, (few(number) for number in range(total))) == total

    assert stored(thread_things, func.count(Thing.id), func.sum(Thing.amount), order_by=None) == [
        (total, total * (total - 1) // 2)
    ]


@pytest.mark.usefixtures("own_database")
def test_what_a_row_lacks_is_its_default(things: Place) -> None:
    load(things, [few(1), few(2) | {"kind": "other", "ratio": 0.5}, few(3) | {"stock": 1}, few(4) | {"id": 50}])

    found = stored(things, Thing.kind, Thing.shout, Thing.ratio, Thing.stock, Thing.data)
    assert found == [
        ("plain", "THING 1", None, 7, None),
        ("other", "THING 2", 0.5, 7, None),
        ("plain", "THING 3", None, 1, None),
        ("plain", "THING 4", None, 7, None),
    ]
    assert all(made is not None for (made,) in stored(things, Thing.made))


@dataclass
class Parcel:
    """
    Has some of the columns as attributes, and others.
    """

    name: str
    amount: int
    id: int | None = None
    sender: str = "somebody"


def test_objects_are_rows_too(thread_things: Place) -> None:
    load(thread_things, [Parcel("a", 1), Thing(name="b", amount=2), {"name": "c", "amount": 3}])

    assert stored(thread_things, Thing.name, Thing.amount, Thing.kind) == [
        ("a", 1, "plain"),
        ("b", 2, "plain"),
        ("c", 3, "plain"),
    ]


def test_rows_may_come_from_the_same_session(things: Place) -> None:
    load(things, [few(number) for number in range(20)])

    with things.unit() as uow:
        repository = things.repository(Thing, uow)
        repository.load({"name": f"copy of {each['name']}", "amount": 0} for each in repository.rows(Thing.name))

    assert len(stored(things, Thing.id)) == 40


def test_nothing_at_all_is_loaded_too(thread_things: Place) -> None:
    assert load(thread_things, []) == 0


def test_an_asynchronous_generator_is_consumed(things: Place) -> None:
    if not things.world.is_async:
        pytest.skip("from threads there is none")

    async def rows() -> AsyncIterator[dict[str, Any]]:
        for number in range(6000):
            yield few(number)

    assert load(things, rows()) == 6000
    assert stored(things, func.count(Thing.id), order_by=None) == [(6000,)]


@pytest.mark.usefixtures("own_database")
def test_the_next_key_follows_those_that_were_given(thread_things: Place) -> None:
    load(thread_things, [few(1) | {"id": 40}, few(2) | {"id": 41}])

    with thread_things.unit() as uow:
        made = thread_things.repository(Thing, uow).create(**few(3))
    assert made.id == 42


@pytest.mark.usefixtures("own_database")
def test_the_counter_of_another_schema_is_left_alone(postgresql_database: str) -> None:
    with Place({"main": postgresql_database}, PSYCOPG) as place:
        engine = place.plain["main"].engine
        with engine.begin() as connection:
            connection.execute(text("create schema tenant"))
            Animals.metadata.create_all(connection)
        tenant = engine.execution_options(schema_translate_map={None: "tenant"})
        Animals.metadata.create_all(tenant)

        keys = []
        for bind in (tenant, engine):
            with Session(bind) as session, session.begin():
                if bind is tenant:
                    Repository[Animal](session).load([{"id": 40, "name": "Tom"}])
                keys.append(Repository[Animal](session).create(name="Rex").id)

        assert keys == [41, 1]


def test_values_of_computed_columns_are_passed_over() -> None:
    class Own(ModelBase, DeclarativeBase, database="main"):
        pass

    class Box(Own):
        __tablename__ = "boxes"
        id: Mapped[int] = mapped_column(primary_key=True)
        side: Mapped[int]
        area: Mapped[int] = mapped_column(Computed("side * side"))

    engine = create_engine("sqlite://")
    Own.metadata.create_all(engine)
    with Session(engine) as session:
        boxes = Repository[Box](session)
        assert boxes.load([{"id": 1, "side": 2, "area": 4}, {"id": 2, "side": 3, "area": 0}]) == 2
        assert boxes.create_many([{"id": 3, "side": 4, "area": 16}, {"side": 5}]) == 2
        assert boxes.upsert_many([{"id": 1, "side": 6, "area": 4}]) == 1
        assert [each.area for each in boxes.list(order_by="id")] == [36, 9, 16, 25]
    engine.dispose()


# --- what is refused


def test_an_unknown_name_is_a_bad_row(thread_things: Place) -> None:
    error = refused(thread_things, few(1), few(2) | {"colr": "red"})

    assert (error.number, error.column, error.model) == (2, "colr", Thing)
    assert isinstance(error.__cause__, UnknownColumn)


def test_a_value_that_cannot_be_converted_is_a_bad_row(thread_things: Place) -> None:
    error = refused(thread_things, few(1), few(2), few(3) | {"at": datetime(2026, 1, 1)})  # noqa: DTZ001  # that is what is wrong

    assert (error.number, error.column) == (3, "at")


def test_a_missing_value_is_a_bad_row(thread_things: Place) -> None:
    error = refused(thread_things, few(1), {"name": "two"})

    assert (error.number, error.column) == (2, "amount")
    assert isinstance(error.__cause__, NotNullViolation)


def test_a_value_that_is_taken_is_a_bad_row(things: Place) -> None:
    rows = [few(number) for number in range(1, 1500)]

    error = refused(things, *rows, few(7), *rows)

    assert (error.number, error.column) == (1500, "name")
    assert isinstance(error.__cause__, UniqueViolation)


def test_a_row_that_a_check_refuses_is_a_bad_row(thread_things: Place) -> None:
    assert refused(thread_things, few(1), few(2) | {"amount": -1}, few(3)).number == 2


def test_what_is_no_row_is_a_bad_row(sqlite_database: str) -> None:
    with Place({"main": sqlite_database}, World("sqlite", "pysqlite", is_async=False)) as place:
        create_tables(place, Base.metadata)
        assert refused(place, few(1), 17).number == 2


def test_an_error_that_no_row_is_to_blame_for_is_raised_as_it_is(threads: Place) -> None:
    with pytest.raises(DBAPIError, match=r"(?i)absent"), threads.unit() as uow:
        threads.repository(Absent, uow).load([{"id": 1}])


def test_an_error_of_the_generator_undoes_the_load_alone(things: Place) -> None:
    def rows() -> Iterator[dict[str, Any]]:
        yield few(1)
        raise LookupError("the source is gone")

    with things.unit() as uow:
        repository = things.repository(Thing, uow)
        repository.create(**few(5))
        with pytest.raises(LookupError):
            repository.load(rows())

    assert stored(things, Thing.name) == [("thing 5",)]


def test_a_reader_does_not_load(things: Place) -> None:
    with things.unit() as uow, pytest.raises(ReadOnlyError):
        things.repository(Thing, uow, role="reader").load([few(1)])


def test_a_second_attempt_does_not_load_what_the_first_has_left(sqlite_database: str) -> None:
    with Place({"main": sqlite_database}, World("sqlite", "pysqlite", is_async=False)) as place:
        create_tables(place, Base.metadata)

        def rows() -> Iterator[dict[str, Any]]:
            yield few(1)
            raise SerializationFailure("try again")

        with pytest.raises(TypeError, match="consumed"):
            Repository[Thing].autocommit(place.dbs, retry=Retry(attempts=2, base=0.0)).load(rows())
        assert stored(place, Thing.id) == []


# --- the driver itself


def test_postgresql_gets_a_copy_that_every_listener_sees(postgresql: Place) -> None:
    create_tables(postgresql, Base.metadata)
    statements: list[str] = []

    def note(*arguments: Any) -> None:
        statements.append(arguments[2])

    event.listen(Engine, "before_cursor_execute", note)
    try:
        load(postgresql, [FULL])
    finally:
        event.remove(Engine, "before_cursor_execute", note)

    assert any(each.startswith("COPY ") for each in statements)
    assert not [each for each in statements if each.startswith("INSERT ")]


def test_a_forked_child_does_not_copy_over_its_parents_connection(postgresql_database: str) -> None:
    with Place({"main": postgresql_database}, PSYCOPG) as place:
        create_tables(place, Base.metadata)
        with place.dbs.unit_of_work() as uow:
            things = Repository[Thing](uow)
            things.load([FULL])
            pid = os.fork()
            if not pid:
                status = 1
                try:
                    things.load([EMPTY])
                except ForkedConnection:
                    status = 0
                finally:
                    os._exit(status)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert stored(place, Thing.id) == [(5,)]


class Odd(ModelBase, DeclarativeBase, database="main"):
    """
    What only PostgreSQL has, and names that need quotes.
    """


class Binary(Odd):
    """
    Every type has a binary form that is known.
    """

    __tablename__ = 'a "table": 100%'

    id: Mapped[int] = mapped_column("Key %s", primary_key=True)
    colour: Mapped[Colour] = mapped_column(Enum(Colour, name="colour"))
    local: Mapped[datetime] = mapped_column(":local", DateTime)
    data: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    short: Mapped[str] = mapped_column(String(5))


class Textual(Odd):
    """
    Some types have none.
    """

    __tablename__ = "textual"

    id: Mapped[int] = mapped_column(primary_key=True)
    host: Mapped[str] = mapped_column(INET)
    numbers: Mapped[list[int]] = mapped_column(ARRAY(Integer))
    note: Mapped[str | None]


class Absent(Odd):
    """
    Has no table where those of the other tests are.
    """

    __tablename__ = "absent"

    id: Mapped[int] = mapped_column(primary_key=True)


_EAST = timezone(timedelta(hours=5))
_ODD: dict[type[Any], list[dict[str, Any]]] = {
    Binary: [
        {"id": 1, "colour": Colour.RED, "local": datetime(2026, 1, 1), "data": None, "short": ""},  # noqa: DTZ001
        {"id": 2, "colour": Colour.BLUE, "local": datetime(2026, 1, 1), "data": {"a": "%"}, "short": "\t"},  # noqa: DTZ001
    ],
    Textual: [
        {"id": 1, "host": "10.0.0.1", "numbers": [1, 2], "note": None},
        {"id": 2, "host": "::1", "numbers": [], "note": "\\N\t"},
    ],
}


@pytest.mark.parametrize("model", _ODD)
def test_copy_stores_what_insert_stores(postgresql: Place, model: type[Any]) -> None:
    create_tables(postgresql, Odd.metadata)
    columns = list(model.__table__.c)

    load(postgresql, _ODD[model], model)
    copied = stored(postgresql, *columns, order_by=columns[0])
    with postgresql.plain.unit_of_work() as uow:
        uow.main.execute(model.__table__.delete())
        uow.main.execute(insert(model), _ODD[model])

    assert copied == stored(postgresql, *columns, order_by=columns[0])


def test_a_value_that_copy_does_not_take_is_inserted(postgresql_database: str) -> None:
    with Place({"main": postgresql_database}, PSYCOPG) as place:
        create_tables(place, Odd.metadata)
        with place.plain.unit_of_work() as uow:
            uow.main.execute(text("set time zone 'UTC'"))

        row = {"id": 1, "colour": Colour.RED, "local": datetime(2026, 1, 1, 5, tzinfo=_EAST), "short": "x"}
        with place.unit() as uow:
            uow.main.execute(text("set local time zone 'UTC'"))
            Repository[Binary](uow).load([row])

        assert stored(place, Binary.local, order_by=Binary.id) == [(datetime(2026, 1, 1),)]  # noqa: DTZ001


# --- inheritance


class Animals(ModelBase, DeclarativeBase, database="main"):
    """
    Classes in hierarchies.
    """


class Animal(Animals):
    """
    The base of both ways.
    """

    __tablename__ = "animals"
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "animal"}  # noqa: RUF012  # SQLAlchemy's form

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(String(10))
    name: Mapped[str] = mapped_column(String(20))


class Cat(Animal):
    """
    In the table of its base.
    """

    __mapper_args__ = {"polymorphic_identity": "cat"}  # noqa: RUF012  # the same

    lives: Mapped[int | None]


class Dog(Animal):
    """
    In a table of its own beside it.
    """

    __tablename__ = "dogs"
    __mapper_args__ = {"polymorphic_identity": "dog"}  # noqa: RUF012  # the same

    id: Mapped[int] = mapped_column(ForeignKey(Animal.id), primary_key=True)
    trick: Mapped[str | None] = mapped_column(String(20))


TABLES = MetaData(naming_convention=Base.metadata.naming_convention)
for _table in (*Base.metadata.sorted_tables, *Animals.metadata.sorted_tables):
    _table.to_metadata(TABLES)


def test_classes_of_a_hierarchy_are_loaded_as_what_they_are(things: Place) -> None:
    load(things, [{"name": "Tom", "lives": 9}], Cat)
    load(things, [{"name": "Rex", "trick": "sit"}, {"name": "Fido"}], Dog)

    with things.plain.unit_of_work() as uow:
        found = uow.main.scalars(select(Animal).order_by(Animal.id)).all()
        assert [(type(each), each.name) for each in found] == [(Cat, "Tom"), (Dog, "Rex"), (Dog, "Fido")]
        assert [(each.trick) for each in found if isinstance(each, Dog)] == ["sit", None]


def test_a_bad_row_of_a_class_in_two_tables_is_named(thread_things: Place) -> None:
    with thread_things.unit() as uow, pytest.raises(BadRow) as raised:
        thread_things.repository(Dog, uow).load([{"name": "Rex"}, {"name": None}])

    assert raised.value.number == 2
    assert stored(thread_things, Animal.id, order_by=Animal.id) == []
