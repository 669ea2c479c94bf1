"""
JSON that is ready to be sent: the values of `rows`, whoever wrote it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from sqlalchemy import func, select, text
from sqlalchemy.exc import OperationalError

from stillroom.testing import count_queries
from tests.repository import kinds
from tests.repository.models import Order, User
from tests.repository.test_reading import statements

if TYPE_CHECKING:
    from tests.repository.worlds import Place

BY_PYTHON = {
    "sqlite": {"ratio", "length", "raw", "level", "by_value", "mirrored"},
    "postgresql": {"length", "level", "by_value", "mirrored", "prices"},
    "mariadb": {*kinds.TYPES} - {"line"},
}
"""The columns whose values the databases cannot write as Python does; MariaDB is asked for none."""
BY_ASYNCPG = {"round_price", "exact", "any_number", "tiny", "real"}
"""Those that asyncpg reads in its own way."""
ODD = {"sqlite": {"fine_price"}}
"""Those of which SQLite says that they have values which it cannot."""


def same_as_rows(things: Any) -> bool:
    found = json.loads(things.json(order_by="id"))
    return bool(found == json.loads(msgspec.json.encode(things.rows(order_by="id")))) and len(found) == 3


def test_json_has_the_values_of_rows(place: Place) -> None:
    model = kinds.table(place)
    with place.unit() as uow:
        assert same_as_rows(place.repository(model, uow))


def test_json_built_by_the_database_has_the_values_of_rows(place: Place) -> None:
    backend = place.world.backend
    left_out = BY_PYTHON[backend] | ODD.get(backend, set())
    if place.world.driver == "asyncpg":
        left_out |= BY_ASYNCPG
    by_database = [name for name in kinds.known(place) if name not in left_out]
    model = kinds.table(place, *by_database)
    with place.unit() as uow, statements(place) as sent:
        assert same_as_rows(place.repository(model, uow))
        builds = {"sqlite": "json_group_array(json_object", "postgresql": "::text || "}.get(backend, "select")
        assert builds in sent[0].lower()
        assert len(sent) == 2


@pytest.mark.parametrize("name", sorted({*BY_PYTHON["sqlite"], *BY_PYTHON["postgresql"], *ODD["sqlite"]}))
def test_one_column_that_the_database_cannot_write_is_written_by_python(sqlite_shop: Place, name: str) -> None:
    if name in kinds.ONLY_POSTGRESQL:
        pytest.skip("PostgreSQL has this type alone")
    model = kinds.table(sqlite_shop, "line", name)
    with sqlite_shop.unit() as uow:
        assert same_as_rows(sqlite_shop.repository(model, uow))
        uow.main.add(User(id=50, name="the unit goes on"))


@pytest.mark.parametrize(
    ("column", "stored"),
    [
        ("clock", "'2026-01-02'"),
        ("clock", "'2026-01-02 03:04'"),
        ("clock", "'2026-01-02T03:04:05.5'"),
        ("moment", "'2026-01-02 03:04:05.678'"),
        ("price", "0.125"),
        ("price", "1e15"),
        ("price", "3"),
        ("fine_price", "0.0000001"),
        ("exact", "1000000000000.125"),
        ("exact", "1e20"),
        ("exact", "1e-9"),
        ("exact", "12345678901234567"),
        ("line", "x'00ff'"),
        ("truth", "0"),
    ],
)
def test_what_other_programs_store_in_sqlite_reads_the_same(sqlite_shop: Place, column: str, stored: str) -> None:
    model = kinds.table(sqlite_shop, column)
    with sqlite_shop.unit() as uow:
        uow.main.execute(text(f"update kinds set {column} = {stored} where id = 2"))
        assert same_as_rows(sqlite_shop.repository(model, uow))


def test_a_text_of_another_encoding_is_the_error_that_it_is_for_rows(sqlite_shop: Place) -> None:
    model = kinds.table(sqlite_shop, "line")
    with sqlite_shop.unit() as uow:
        uow.main.execute(text("update kinds set line = cast(x'63616682' as text) where id = 2"))
        things = sqlite_shop.repository(model, uow)
        for read in (things.rows, things.json):
            with pytest.raises(OperationalError, match="Could not decode to UTF-8"):
                read()


@pytest.mark.parametrize("zone", ["Europe/Berlin", "Asia/Kolkata", "America/St_Johns"])
def test_json_has_the_zone_of_the_session(postgresql_shop: Place, zone: str) -> None:
    model = kinds.table(postgresql_shop, "zoned", "moment")
    with postgresql_shop.unit() as uow:
        session = postgresql_shop.waiting(uow.main)
        session.execute(text(f"set local time zone '{zone}'"))
        assert same_as_rows(postgresql_shop.repository(model, uow))


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kolkata", "Africa/Monrovia"])
def test_json_has_every_digit_of_a_time(postgresql_shop: Place, zone: str) -> None:
    model = kinds.table(postgresql_shop, "clock", "zoned", "moment")
    days = ("2026-01-02", "1969-12-31", "0890-07-01")  # once Monrovia's distance to UTC had seconds
    seconds = ("05", "05.5", "05.678", "05.67890", "05.678901", "59.999999")
    with postgresql_shop.unit() as uow:
        session = postgresql_shop.waiting(uow.main)
        session.execute(text(f"set local time zone '{zone}'"))
        for time in (f"{day} 03:04:{each}" for day in days for each in seconds):
            session.execute(text(f"update kinds set clock = '{time}', zoned = '{time}+00', moment = '{time}+00'"))
            assert same_as_rows(postgresql_shop.repository(model, uow)), time


@pytest.mark.parametrize("style", ["SQL, DMY", "German", "Postgres, MDY"])
def test_json_of_times_does_not_depend_on_the_date_style(postgresql_shop: Place, style: str) -> None:
    model = kinds.table(postgresql_shop, "day", "clock", "zoned", "moment")
    with postgresql_shop.unit() as uow:
        things = postgresql_shop.repository(model, uow)
        usual = things.json(order_by="id")
        postgresql_shop.waiting(uow.main).execute(text(f"set local datestyle to {style}"))
        assert things.json(order_by="id") == usual


def test_json_of_null_in_a_column_that_is_declared_without(postgresql_shop: Place) -> None:
    model = kinds.table(postgresql_shop, "line", "price")
    table = model.__table__
    with postgresql_shop.unit() as uow:
        session = postgresql_shop.waiting(uow.main)
        session.execute(text("update kinds set line = null where id = 2"))
        for column in (table.c.line, table.c.price):
            column.nullable = False
        assert same_as_rows(postgresql_shop.repository(model, uow))


def test_json_of_the_empty_side_of_an_outer_join_is_null(shop: Place) -> None:
    with shop.unit() as uow:
        own = (
            select(User.name, Order.id.label("order")).outerjoin(Order).where(Order.id.is_(None), User.name == "Edsger")
        )
        assert json.loads(shop.repository(User, uow).json(own)) == [{"name": "Edsger", "order": None}]


def test_json_of_more_columns_than_a_function_takes_arguments(shop: Place) -> None:
    with shop.unit() as uow:
        users = shop.repository(User, uow)
        columns = [User.name.label(f"name{number}") for number in range(150)]
        assert json.loads(users.json(*columns, id=1)) == [{f"name{number}": "Ada" for number in range(150)}]


def test_json_of_no_rows_is_an_empty_array(shop: Place) -> None:
    with shop.unit() as uow:
        assert shop.repository(User, uow).json(id=99) == b"[]"


def test_json_keeps_the_order_asked_for(shop: Place) -> None:
    with shop.unit() as uow:
        users = shop.repository(User, uow)
        assert users.json("name", order_by="-id", limit=2) == b'[{"name":"100%_sure"},{"name":"Edsger"}]'
        names = [each["name"] for each in users.rows("name", order_by="-name")]
        assert [each["name"] for each in json.loads(users.json("name", order_by="-name"))] == names


def test_json_of_expressions_own_selects_and_plain_sql(shop: Place) -> None:
    with shop.unit() as uow:
        users = shop.repository(User, uow)
        own = select(User.name, func.count().label("orders")).join(Order).group_by(User.name)
        assert users.json(own, order_by="name") == b'[{"name":"Ada","orders":2},{"name":"Grace","orders":1}]'
        plain = text("select id, name from users where age > :age")
        assert users.json(plain, age=80) == b'[{"id":2,"name":"Grace"}]'


def test_names_that_need_quotes_are_names_in_json(shop: Place) -> None:
    with shop.unit() as uow:
        found = shop.repository(User, uow).json(User.id.label('it\'s "100%" :x'), id=1)
        assert json.loads(found) == [{'it\'s "100%" :x': 1}]


def test_two_columns_of_one_name_are_refused(sqlite_shop: Place) -> None:
    with sqlite_shop.unit() as uow, pytest.raises(ValueError, match="several columns are named 'x'"):
        sqlite_shop.repository(User, uow).json(User.id.label("x"), User.name.label("x"))


def test_the_database_builds_it_also_where_queries_are_counted(sqlite_shop: Place) -> None:
    with count_queries(sqlite_shop.dbs) as counted, sqlite_shop.unit() as uow:
        sqlite_shop.repository(User, uow).json()
    assert "json_object" in counted.statements[-1].text
