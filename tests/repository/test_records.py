"""
Rows as objects of a class: dataclass, attrs, msgspec and pydantic.
"""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import attrs
import msgspec
import pydantic
import pytest
from sqlalchemy import JSON, Column, Integer, MetaData, String, Table, func, insert, select, text
from sqlalchemy.orm import registry

from stillroom.errors import BadRow
from stillroom.models import UnknownColumn
from tests.repository import kinds
from tests.repository.models import Note, Order, User, create_tables

if TYPE_CHECKING:
    from tests.repository.worlds import Place


@dataclass
class PlainUser:
    """
    A dataclass.
    """

    name: str
    id: int
    nickname: str = "none"


@attrs.define
class AttrsUser:
    """
    An attrs class; its constructor calls a private attribute by its public name.
    """

    name: str
    _id: int
    nickname: str = "none"

    @property
    def id(self) -> int:
        return self._id


class StructUser(msgspec.Struct, kw_only=True, rename="camel"):
    """
    A Struct that takes keywords only.
    """

    name: str
    id: int
    nickname: str = "none"


class PydanticUser(pydantic.BaseModel):
    """
    A pydantic model with an alias.
    """

    name: str
    identity: int = pydantic.Field(alias="id")
    nickname: str = "none"

    @property
    def id(self) -> int:
        return self.identity


@pytest.mark.parametrize("type_", [PlainUser, AttrsUser, StructUser, PydanticUser])
def test_records_are_objects_of_the_class(shop: Place, type_: Any) -> None:
    with shop.unit() as uow:
        (ada,) = shop.repository(User, uow).records(type_, where=User.name == "Ada")
        assert type(ada) is type_
        assert (ada.name, ada.id, ada.nickname) == ("Ada", 1, "none")


def test_records_reads_only_the_columns_of_the_fields(sqlite_shop: Place) -> None:
    @dataclass
    class Name:
        name: str

    with sqlite_shop.unit() as uow:
        users = sqlite_shop.repository(User, uow)
        assert users.records(Name, order_by="-id", limit=1) == [Name("100%_sure")]
        assert users.records(Name, "id", "name", id=1) == [Name("Ada")]


def test_a_renamed_field_is_found_by_its_other_name(sqlite_shop: Place) -> None:
    class Renamed(msgspec.Struct):
        title: str = msgspec.field(name="name")

    with sqlite_shop.unit() as uow:
        assert sqlite_shop.repository(User, uow).records(Renamed, id=1) == [Renamed("Ada")]


def test_records_of_plain_sql_and_own_selects(shop: Place) -> None:
    class Spent(msgspec.Struct):
        name: str
        total: float

    with shop.unit() as uow:
        users = shop.repository(User, uow)
        own = select(User.name, func.sum(Order.total).label("total")).join(Order).group_by(User.name)
        assert users.records(Spent, own, order_by="name") == [Spent("Ada", 12), Spent("Grace", 9)]
        plain = text("select 0 as more, sum(total) as total, 'all' as name from orders where total > :least")
        (found,) = users.records(Spent, plain, least=6)
        assert (found, type(found.total)) == (Spent("all", 16.0), float)


def test_no_rows_are_no_records(sqlite_shop: Place) -> None:
    with sqlite_shop.unit() as uow:
        assert sqlite_shop.repository(User, uow).records(PlainUser, id=99) == []
        assert (
            sqlite_shop.repository(User, uow).records(PlainUser, text("select id, name from users where 1 = 0")) == []
        )


def test_a_field_without_a_column_is_named(sqlite_shop: Place) -> None:
    @dataclass
    class Wrong:
        name: str
        shoe_size: int

    with sqlite_shop.unit() as uow:
        users = sqlite_shop.repository(User, uow)
        with pytest.raises(UnknownColumn, match="'shoe_size'"):
            users.records(Wrong)
        with pytest.raises(UnknownColumn, match="'shoe_size'"):
            users.records(Wrong, text("select name from users"))


def test_a_class_of_another_kind_is_refused(sqlite_shop: Place) -> None:
    with sqlite_shop.unit() as uow, pytest.raises(TypeError, match="no dataclass, attrs class"):
        sqlite_shop.repository(User, uow).records(dict)


class Address(msgspec.Struct):
    """
    What stands in a JSON column.
    """

    city: str
    zip: str | None = None


@dataclass
class Person:
    """
    Each field but one differs from its column.
    """

    id: int
    colour: kinds.Colour
    address: Address | None
    tags: list[str]
    prices: dict[str, Decimal] = dataclasses.field(default_factory=dict)


def people(place: Place) -> type[Any]:
    table = Table(
        "people",
        MetaData(),
        Column("id", Integer, primary_key=True),
        *(Column(name, JSON) for name in ("address", "tags", "prices")),
        Column("colour", String(20)),
    )
    model = type("People", (), {})
    registry().map_imperatively(model, table)
    rows: list[dict[str, Any]] = [
        {"id": 1, "address": {"city": "Rome"}, "tags": ["a"], "prices": {"x": "1.50"}, "colour": "RED"},
        {"id": 2, "address": None, "tags": [], "prices": {}, "colour": "the red one"},
    ]
    with place.plain["main"].engine.begin() as connection:
        table.create(connection)
        connection.execute(insert(table), rows)
    return model


def test_nested_types_are_converted(place: Place) -> None:
    model = people(place)
    with place.unit() as uow:
        assert place.repository(model, uow).records(Person, order_by="id") == [
            Person(1, kinds.Colour.BLUE, Address("Rome"), ["a"], {"x": Decimal("1.50")}),
            Person(2, kinds.Colour.RED, None, [], {}),
        ]


def test_json_is_taken_as_it_is_where_a_field_takes_any(place: Place) -> None:
    @dataclass
    class Loose:
        id: int
        address: dict[str, Any] | None
        tags: list[Any]

    model = people(place)
    with place.unit() as uow:
        assert place.repository(model, uow).records(Loose, order_by="id") == [
            Loose(1, {"city": "Rome"}, ["a"]),
            Loose(2, None, []),
        ]


def test_a_value_that_does_not_fit_is_named_with_its_row(sqlite_shop: Place) -> None:
    class Numbered(msgspec.Struct):
        id: int
        email: int | None

    with sqlite_shop.unit() as uow:
        with pytest.raises(BadRow, match=r"row 1: 'grace@example.org' in the column 'email'") as caught:
            sqlite_shop.repository(User, uow).records(Numbered, order_by="age", where=User.age > 72)
        assert (caught.value.number, caught.value.column) == (1, "email")


def test_records_hides_what_is_softly_deleted(sqlite_shop: Place) -> None:
    @dataclass
    class Plain:
        id: int

    create_tables(sqlite_shop)
    with sqlite_shop.unit() as uow:
        notes = sqlite_shop.repository(Note, uow)
        for number in (1, 2):
            notes.create(id=number, text="note")
        notes.delete(1)
        assert notes.records(Plain) == [Plain(2)]


def test_records_recognises_classes_without_importing_their_libraries() -> None:
    program = (
        "import sys, stillroom.repository.results.rows as r; "
        "sys.exit(bool({'pydantic', 'attr', 'attrs', 'aiosql'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=60).returncode == 0
