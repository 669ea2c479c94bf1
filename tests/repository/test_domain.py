"""
Domain objects in and out of repositories: derived for every kind of class, nested, versioned, and by hooks.
"""

from __future__ import annotations

import dataclasses
import enum
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import pydantic
import pytest
from msgspec import UNSET, UnsetType
from sqlalchemy import Enum, ForeignKey, event, select
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    MappedAsDataclass,
    composite,
    mapped_column,
    relationship,
)
from sqlalchemy.orm.exc import StaleDataError
from typing_extensions import TypeAliasType

from stillroom import Databases
from stillroom.models import InvalidModel, UnknownColumn
from stillroom.repository import Repository
from tests.repository.orders import (
    KINDS,
    NEEDED,
    Base,
    CustomerRow,
    LineRow,
    OrderRow,
    RemarkRow,
    State,
    TagRow,
    as_dataclass,
    as_pydantic,
    as_struct,
    changed,
    of,
)
from tests.support.standing import Content

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.repository.worlds import Place

EXAMPLE = Path(__file__).parents[2] / "examples" / "shop_repository"


# --- databases


@pytest.fixture
def place_content() -> Content:
    """
    What `place` has in it.
    """
    return Content("orders", "tests.repository.orders:Base")


@pytest.fixture
def dbs() -> Iterator[Databases]:
    databases = Databases({"databases": {"main": {"url": "sqlite://"}}})
    with databases.unit_of_work() as uow:
        Base.metadata.create_all(uow.main.connection())
    yield databases
    databases.close()


@pytest.fixture
def statements(dbs: Databases) -> Iterator[list[str]]:
    """
    What is sent, by its first two words.
    """
    sent: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        sent.append(" ".join(statement.split()[:2]))

    event.listen(dbs.main.engine, "before_cursor_execute", note)
    yield sent
    event.remove(dbs.main.engine, "before_cursor_execute", note)


def repository(returns: type[Any], row: type[Any] = OrderRow, **attributes: Any) -> type[Repository[Any, Any]]:
    """
    Return a repository class with these attributes.
    """
    return type("Orders", (Repository[row, returns],), attributes)  # type: ignore[valid-type]


def stored(dbs: Databases, orders: type[Repository[Any, Any]], item: Any) -> Any:
    """
    Add an item in a unit of its own, and return what comes back.
    """
    with dbs.unit_of_work() as uow:
        return orders(uow).add(item)


def saved(dbs: Databases, orders: type[Repository[Any, Any]], item: Any) -> Any:
    with dbs.unit_of_work() as uow:
        return orders(uow).save(item)


def row_of(dbs: Databases, key: int, *attributes: str) -> tuple[Any, ...]:
    with dbs.unit_of_work() as uow:
        row = uow.main.get_one(OrderRow, key)
        return tuple(getattr(row, each) for each in attributes)


# --- every kind of class


@pytest.mark.parametrize("make", KINDS)
def test_an_object_of_any_kind_comes_back_as_it_was_with_its_key(dbs: Databases, make: Any) -> None:
    line = make("Line", number=(int, NEEDED), title=(str, NEEDED))
    address = make("Address", street=(str, NEEDED), city=(str, NEEDED))
    order = make(
        "Order",
        id=(int | None, None),
        state=(State, State.OPEN),
        total=(Decimal | None, None),
        to=(address | None, None),
        lines=(of(tuple, line, ...), ()),
    )
    orders = repository(order)
    new = order(total=Decimal(3), to=address(street="Long Lane", city="York"), lines=(line(number=1, title="Pear"),))
    added = stored(dbs, orders, new)
    assert added == changed(new, id=1)
    with dbs.unit_of_work() as uow:
        assert orders(uow).get(1) == added
        assert orders(uow).list(state="open") == [added]


@pytest.mark.parametrize("make", KINDS)
def test_saving_an_object_of_any_kind_changes_its_row(dbs: Databases, make: Any) -> None:
    order = make("Order", id=(int | None, None), state=(State, State.OPEN), total=(Decimal | None, None))
    orders = repository(order)
    added = stored(dbs, orders, order(total=Decimal(3)))
    saved(dbs, orders, changed(added, state=State.SENT))
    assert row_of(dbs, 1, "state", "total", "internal") == ("sent", Decimal(3), "not for everyone")


def test_every_driver_stores_changes_and_refuses_alike(place: Place) -> None:
    line = as_dataclass("Line", number=(int, NEEDED), title=(str, NEEDED))
    order = as_dataclass("Order", id=(int | None, None), lines=(of(tuple, line, ...), ()), version=(int | None, None))
    orders = place.kind("Repository")[OrderRow, order]
    with place.unit() as uow:
        lines = (line(number=1, title="Pear"), line(number=2, title="Fig"))
        added = place.waiting(orders(uow)).add(order(lines=lines))
    with place.unit() as uow:
        place.waiting(orders(uow)).save(changed(added, lines=(line(number=2, title="Quince"),)))
    with place.unit() as uow:
        assert place.waiting(orders(uow)).get(added.id).lines == (line(number=2, title="Quince"),)
    with pytest.raises(StaleDataError), place.unit() as uow:
        place.waiting(orders(uow)).save(added)


def test_a_domain_model_needs_neither_sqlalchemy_nor_stillroom() -> None:
    program = "import domain, sys; assert not {'sqlalchemy', 'stillroom'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], cwd=EXAMPLE, check=True, timeout=60)


def test_a_type_that_is_imported_for_checkers_only_is_no_obstacle(dbs: Databases) -> None:
    @dataclasses.dataclass
    class Order:
        id: Missing | None = None  # type: ignore[name-defined]  # noqa: F821
        state: str = "open"

    assert stored(dbs, repository(Order), Order()) == Order(1)


def test_a_pydantic_field_is_found_by_its_name_though_it_has_an_alias(dbs: Databases) -> None:
    class Order(pydantic.BaseModel):
        id: int | None = None
        state: str = pydantic.Field(alias="orderState")

    assert stored(dbs, repository(Order), Order(orderState="sent")) == Order(id=1, orderState="sent")


def test_a_nested_type_that_is_not_there_at_run_time_is_refused_by_its_field(dbs: Databases) -> None:
    @dataclasses.dataclass
    class Order:
        customer: Missing | None = None  # type: ignore[name-defined]  # noqa: F821

    with dbs.unit_of_work() as uow, pytest.raises(InvalidModel, match=r"Any \(the field 'customer'\) is no dataclass"):
        repository(Order)(uow).list()


def test_a_class_without_fields_is_refused(dbs: Databases) -> None:
    with pytest.raises(InvalidModel, match=r"State'> is no dataclass.*from_row and to_row"):
        stored(dbs, repository(State), State.OPEN)


def test_a_row_that_is_a_dataclass_itself_is_made_with_what_its_constructor_takes(dbs: Databases) -> None:
    class DataBase(MappedAsDataclass, DeclarativeBase):
        pass

    class PlaceRow(DataBase):
        __tablename__ = "places"
        id: Mapped[int] = mapped_column(primary_key=True, init=False)
        name: Mapped[str]

    place = as_dataclass("Place", id=(int | None, None), name=(str, NEEDED))
    with dbs.unit_of_work() as uow:
        DataBase.metadata.create_all(uow.main.connection())
        places = repository(place, PlaceRow)(uow)
        assert places.add(place(id=7, name="York")) == place(id=7, name="York")


# --- keys and fields


def test_a_key_that_is_absent_until_the_object_is_stored_is_there_afterwards(dbs: Databases) -> None:
    @dataclasses.dataclass(frozen=True, slots=True)
    class Order:
        id: int = dataclasses.field(init=False)
        state: str = "open"

    assert stored(dbs, repository(Order), Order()).id == 1


def test_what_is_unset_is_left_alone(dbs: Databases) -> None:
    class Order(msgspec.Struct, kw_only=True):
        id: int | UnsetType = UNSET
        state: str | UnsetType = UNSET
        total: Decimal | UnsetType | None = UNSET

    orders = repository(Order)
    assert stored(dbs, orders, Order(total=Decimal(3))) == Order(id=1, state="open", total=Decimal(3))
    assert saved(dbs, orders, Order(id=1, state="sent")) == Order(id=1, state="sent", total=Decimal(3))


def test_a_field_that_the_class_computes_itself_needs_no_column(dbs: Databases) -> None:
    @dataclasses.dataclass
    class Order:
        id: int | None = None
        total: Decimal = Decimal(0)
        with_tax: Decimal = dataclasses.field(init=False)

        def __post_init__(self) -> None:
            self.with_tax = self.total * 2

    assert stored(dbs, repository(Order), Order(total=Decimal(3))).with_tax == 6


def test_a_field_that_the_row_has_not_is_refused_with_both_names(dbs: Databases) -> None:
    order = as_dataclass("Order", id=(int | None, None), totl=(int, 0))
    orders = repository(order)
    with (
        dbs.unit_of_work() as uow,
        pytest.raises(UnknownColumn, match=r"Order has a field 'totl', but OrderRow.*renamed = \{\"totl\": 'total'\}"),
    ):
        orders(uow).list()


def test_fields_have_other_names_than_columns_where_the_repository_says_so(dbs: Databases) -> None:
    item = as_dataclass("Item", number=(int, NEEDED), name=(str, NEEDED))
    order = as_dataclass("Order", code=(int | None, None), items=(of(list, item), NEEDED), cache=(Any, None))
    renamed = {"code": "id", "items": "lines", "items.name": "title", "cache": None}
    orders = repository(order, renamed=renamed)
    added = stored(dbs, orders, order(items=[item(number=1, name="Pear")], cache={}))
    assert added == order(code=1, items=[item(number=1, name="Pear")])
    saved(dbs, orders, changed(added, items=[item(number=1, name="Fig")]))
    with dbs.unit_of_work() as uow:
        assert uow.main.scalars(select(LineRow.title)).all() == ["Fig"]


def test_a_field_over_an_sql_expression_is_read_and_never_written(dbs: Databases) -> None:
    order = as_dataclass("Order", id=(int | None, None), state=(str, "open"), shout=(str, ""))
    orders = repository(order)
    added = stored(dbs, orders, order())
    assert added.shout == "OPEN"
    assert saved(dbs, orders, changed(added, shout="anything")).id == 1


def test_properties_of_the_row_are_read(dbs: Databases) -> None:
    tagged_order = as_dataclass("Order", id=(int | None, None), words=(frozenset[str], frozenset()), size=(int, 0))
    with dbs.unit_of_work() as uow:
        uow.main.add(OrderRow(tags={TagRow(word="gift"), TagRow(word="late")}))
        uow.main.flush()
        assert repository(tagged_order)(uow).get(1) == tagged_order(id=1, words=frozenset({"gift", "late"}), size=2)


def test_what_the_mapped_class_has_beside_its_columns_is_no_column(dbs: Databases) -> None:
    order = as_dataclass("Order", id=(int | None, None), metadata=(Any, None))
    with dbs.unit_of_work() as uow, pytest.raises(UnknownColumn, match="has a field 'metadata'"):
        repository(order)(uow).list()


def test_an_enum_of_the_domain_may_stand_for_one_of_the_table(dbs: Databases) -> None:
    class ColourBase(DeclarativeBase):
        pass

    class Stored(enum.Enum):
        BLACK = 1
        WHITE = 2

    class Colour(enum.Enum):
        NOIR = 1
        BLANC = 2

    class PaintRow(ColourBase):
        __tablename__ = "paints"
        id: Mapped[int] = mapped_column(primary_key=True)
        same: Mapped[Any] = mapped_column(Enum(Stored))
        other: Mapped[Any] = mapped_column(Enum(Stored))
        none: Mapped[Any | None] = mapped_column(Enum(Stored))

    paint = as_dataclass(
        "Paint", id=(int | None, None), same=(Stored, NEEDED), other=(Colour, NEEDED), none=(Colour | None, None)
    )
    with dbs.unit_of_work() as uow:
        ColourBase.metadata.create_all(uow.main.connection())
    new = paint(same=Stored.BLACK, other=Colour.BLANC)
    assert stored(dbs, repository(paint, PaintRow), new) == changed(new, id=1)
    with dbs.unit_of_work() as uow:
        assert uow.main.get_one(PaintRow, 1).other is Stored.WHITE


def test_an_annotated_field_is_one_of_the_type_inside(dbs: Databases) -> None:
    order = as_dataclass("Order", id=(int | None, None), state=(Annotated[State, "how far"], State.OPEN))
    assert stored(dbs, repository(order), order()) == order(id=1)


# --- values


def test_a_value_object_over_columns_with_a_prefix_may_be_none(dbs: Databases) -> None:
    address = as_dataclass("Address", street=(str | None, None), city=(str, NEEDED))
    place = as_struct("Order", id=(int | UnsetType, UNSET), to=(address | UnsetType, UNSET))
    order = as_dataclass("Order", id=(int | None, None), to=(address | None, None))
    orders = repository(order)
    somewhere = stored(dbs, orders, order(to=address(city="York")))
    assert row_of(dbs, 1, "to_street", "to_city") == (None, "York")
    assert somewhere.to == address(city="York")
    assert saved(dbs, repository(place), place(id=1)).to == address(city="York")
    assert saved(dbs, orders, changed(somewhere, to=None)) == order(id=1)
    assert row_of(dbs, 1, "to_street", "to_city") == (None, None)


def test_a_composite_attribute_is_a_value_like_any_other(dbs: Databases) -> None:
    class PlacedBase(DeclarativeBase):
        pass

    @dataclasses.dataclass(frozen=True)
    class Point:
        x: int
        y: int

    class PlaceRow(PlacedBase):
        __tablename__ = "places"
        id: Mapped[int] = mapped_column(primary_key=True)
        x: Mapped[int]
        y: Mapped[int]
        point: Mapped[Any] = composite(Point, "x", "y")

    place = as_dataclass("Place", id=(int | None, None), point=(Point, NEEDED))
    places = repository(place, PlaceRow)
    with dbs.unit_of_work() as uow:
        PlacedBase.metadata.create_all(uow.main.connection())
    added = stored(dbs, places, place(point=Point(1, 2)))
    saved(dbs, places, changed(added, point=Point(1, 3)))
    with dbs.unit_of_work() as uow:
        assert places(uow).one(y=3) == place(id=1, point=Point(1, 3))


def test_json_holds_objects_and_notices_what_is_changed_in_place(dbs: Databases) -> None:
    part = as_dataclass("Part", name=(str, NEEDED), at=(list[int], NEEDED))
    order = as_dataclass("Order", id=(int | None, None), extra=(of(tuple, part, ...), ()))
    orders = repository(order)
    stored(dbs, orders, order(extra=(part(name="a", at=[1]),)))
    with dbs.unit_of_work() as uow:
        item = orders(uow).one(id=1)
        item.extra[0].at.append(2)
        orders(uow).save(item)
    assert row_of(dbs, 1, "extra") == ([{"name": "a", "at": [1, 2]}],)


def test_pydantic_models_are_stored_as_json(dbs: Databases) -> None:
    part = as_pydantic("Part", name=(str, NEEDED))
    order = as_pydantic("Order", id=(int | None, None), extra=(of(list, part), NEEDED))
    assert stored(dbs, repository(order), order(extra=[part(name="a")])) == order(id=1, extra=[part(name="a")])
    assert row_of(dbs, 1, "extra") == ([{"name": "a"}],)


def test_a_list_that_is_changed_in_place_is_noticed_in_any_column(dbs: Databases) -> None:
    order = as_dataclass("Order", id=(int | None, None), pickled=(list[str], NEEDED))
    orders = repository(order)
    stored(dbs, orders, order(pickled=["a"]))
    with dbs.unit_of_work() as uow:
        item = orders(uow).one(id=1)
        item.pickled.append("b")
        orders(uow).save(item)
    assert row_of(dbs, 1, "pickled") == (["a", "b"],)


# --- nested objects


def test_every_container_is_filled_from_its_relationship(dbs: Databases) -> None:
    tag = as_dataclass("Tag", id=(int | None, None), word=(str, NEEDED))
    label = as_dataclass("Label", language=(str, NEEDED), text=(str, NEEDED))
    customer = as_dataclass("Customer", id=(int | None, None), name=(str, NEEDED))
    order = as_dataclass(
        "Order",
        id=(int | None, None),
        customer=(customer | None, None),
        tags=(of(frozenset, tag), frozenset()),
        labels=(of(dict, str, label), NEEDED),
    )
    added = stored(
        dbs,
        repository(order),
        order(
            customer=customer(name="Ada"),
            tags=frozenset({tag(word="gift")}),
            labels={"en": label(language="en", text="For you")},
        ),
    )
    assert added == order(
        id=1,
        customer=customer(id=1, name="Ada"),
        tags=frozenset({tag(id=1, word="gift")}),
        labels={"en": label(language="en", text="For you")},
    )


def test_a_dict_of_rows_may_be_a_list_of_objects(dbs: Databases) -> None:
    label = as_dataclass("Label", language=(str, NEEDED), text=(str, NEEDED))
    alias: Any = TypeAliasType  # checkers would want to understand what is in it
    labels = alias("labels", of(list, label))
    order = as_dataclass("Order", id=(int | None, None), labels=(labels, NEEDED))
    new = order(labels=[label(language="en", text="For you")])
    assert stored(dbs, repository(order), new) == changed(new, id=1)


def test_what_is_only_for_viewing_is_not_stored(dbs: Databases) -> None:
    remark = as_dataclass("Remark", text=(str, NEEDED))
    both = (of(tuple, remark, ...), ())
    order = as_dataclass("Order", id=(int | None, None), remarks=both, late_remarks=both)
    orders = repository(order)
    late, early = remark(text="late"), remark(text="early")
    added = stored(dbs, orders, order(remarks=(late, early), late_remarks=(early,)))
    saved(dbs, orders, changed(added, late_remarks=()))
    with dbs.unit_of_work() as uow:
        assert orders(uow).get(1) == order(id=1, remarks=(late, early), late_remarks=(late,))


def test_nested_objects_are_read_in_one_statement_for_each_relationship(dbs: Databases, statements: list[str]) -> None:
    line = as_dataclass("Line", number=(int, NEEDED), title=(str, NEEDED))
    order = as_dataclass("Order", id=(int | None, None), lines=(of(list, line), NEEDED))
    orders = repository(order)
    with dbs.unit_of_work() as uow:
        orders(uow).add_all([order(lines=[line(number=1, title="Pear")]) for _ in range(5)])
    statements.clear()
    with dbs.unit_of_work() as uow:
        assert len(orders(uow).list()) == 5
    assert len([each for each in statements if each.startswith("SELECT")]) == 2


def test_saving_touches_only_the_nested_rows_that_differ(dbs: Databases, statements: list[str]) -> None:
    line = as_dataclass("Line", number=(int, NEEDED), title=(str, NEEDED))
    order = as_dataclass("Order", id=(int | None, None), lines=(of(list, line), NEEDED))
    orders = repository(order)
    added = stored(dbs, orders, order(lines=[line(number=n, title=str(n)) for n in (1, 2, 3)]))
    statements.clear()
    saved(
        dbs,
        orders,
        changed(added, lines=[line(number=1, title="1"), line(number=2, title="two"), line(number=4, title="4")]),
    )
    wrote = [each for each in statements if not each.startswith(("SELECT", "BEGIN", "COMMIT", "PRAGMA"))]
    assert sorted(wrote) == ["DELETE FROM", "INSERT INTO", "UPDATE lines", "UPDATE orders"]  # orders: its version
    with dbs.unit_of_work() as uow:
        rows = uow.main.execute(select(LineRow.number, LineRow.title, LineRow.note).order_by(LineRow.number)).all()
    assert rows == [(1, "1", "as usual"), (2, "two", "as usual"), (4, "4", "as usual")]


def test_saving_what_has_not_changed_sends_no_write(dbs: Databases, statements: list[str]) -> None:
    remark = as_dataclass("Remark", text=(str, NEEDED))
    order = as_dataclass("Order", id=(int | None, None), state=(State, State.OPEN), remarks=(of(list, remark), NEEDED))
    orders = repository(order)
    added = stored(dbs, orders, order(remarks=[remark(text="late"), remark(text="late")]))
    statements.clear()
    assert saved(dbs, orders, added) == added
    assert not [each for each in statements if each.startswith(("INSERT", "UPDATE", "DELETE"))]


def test_nested_values_without_a_key_keep_the_rows_that_are_equal(dbs: Databases) -> None:
    remark = as_dataclass("Remark", text=(str, NEEDED))
    order = as_dataclass("Order", id=(int | None, None), remarks=(of(list, remark), NEEDED))
    orders = repository(order)
    added = stored(dbs, orders, order(remarks=[remark(text="a"), remark(text="b")]))
    saved(dbs, orders, changed(added, remarks=[remark(text="b"), remark(text="c")]))
    with dbs.unit_of_work() as uow:
        assert uow.main.execute(select(RemarkRow.id, RemarkRow.text)).all() == [(2, "b"), (3, "c")]


def test_an_object_that_is_referred_to_is_looked_up_not_inserted_again(dbs: Databases) -> None:
    customer = as_dataclass("Customer", id=(int | None, None), name=(str, NEEDED))
    tag = as_dataclass("Tag", id=(int | None, None), word=(str, NEEDED))
    order = as_dataclass(
        "Order", id=(int | None, None), customer=(customer | None, None), tags=(of(frozenset, tag), frozenset())
    )
    orders = repository(order)
    first = stored(dbs, orders, order(customer=customer(name="Ada"), tags=frozenset({tag(word="gift")})))
    second = stored(dbs, orders, changed(first, id=None, customer=changed(first.customer, name="Ada L.")))
    assert (second.id, second.customer, second.tags) == (2, customer(id=1, name="Ada L."), first.tags)
    assert saved(dbs, orders, changed(second, customer=None, tags=frozenset())) == order(id=2)
    assert row_of(dbs, 1, "customer_id") == (1,)


def test_a_shared_row_is_replaced_not_renamed_by_an_object_without_a_key(dbs: Databases) -> None:
    customer = as_dataclass("Customer", name=(str, NEEDED))
    order = as_dataclass("Order", id=(int | None, None), customer=(customer | None, None))
    orders = repository(order)
    added = stored(dbs, orders, order(customer=customer(name="Ada")))
    saved(dbs, orders, changed(added, customer=customer(name="Bea")))
    with dbs.unit_of_work() as uow:
        assert uow.main.scalars(select(CustomerRow.name)).all() == ["Ada", "Bea"]


def test_a_class_that_leads_back_to_itself_is_refused(dbs: Databases) -> None:
    class NodeBase(DeclarativeBase):
        pass

    class NodeRow(NodeBase):
        __tablename__ = "nodes"
        id: Mapped[int] = mapped_column(primary_key=True)
        parent_id: Mapped[int | None] = mapped_column(ForeignKey("nodes.id"))
        nodes: Mapped[list[NodeRow]] = relationship()

    NodeBase.registry.configure()
    with dbs.unit_of_work() as uow, pytest.raises(InvalidModel, match="Node leads back to itself"):
        repository(Node, NodeRow)(uow).list()


@dataclasses.dataclass
class Node:
    """
    A tree.
    """

    id: int | None = None
    nodes: list[Node] = dataclasses.field(default_factory=list)


@pytest.mark.parametrize(
    ("field", "type_", "words"),
    [
        ("lines", Node, "one of them is a collection"),
        ("customer", list[Node], "one of them is a collection"),
        ("lines", dict[int, Node], "only the field is a dict"),
    ],
)
def test_a_field_that_does_not_fit_its_relationship_is_refused(
    dbs: Databases, field: str, type_: Any, words: str
) -> None:
    order = as_dataclass("Order", **{field: (type_, None)})
    with dbs.unit_of_work() as uow, pytest.raises(InvalidModel, match=f"Order.{field} and OrderRow.{field}: {words}"):
        repository(order)(uow).list()


# --- identity and versions


def test_two_reads_of_one_row_give_equal_objects(dbs: Databases) -> None:
    order = as_dataclass("Order", id=(int | None, None), state=(State, State.OPEN))
    orders = repository(order)
    stored(dbs, orders, order())
    with dbs.unit_of_work() as uow:
        assert orders(uow).get(1) == orders(uow).one(id=1) == orders(uow).list()[0]


def test_saving_what_somebody_else_has_changed_meanwhile_is_refused(dbs: Databases) -> None:
    order = as_dataclass("Order", id=(int | None, None), state=(State, State.OPEN), version=(int | None, None))
    orders = repository(order)
    added = stored(dbs, orders, order())
    newer = saved(dbs, orders, changed(added, state=State.SENT))
    assert (added.version, newer.version) == (1, 2)
    with pytest.raises(StaleDataError, match="Order 1 was read as version 1, but the OrderRow has version 2"):
        saved(dbs, orders, added)


def test_of_two_who_change_different_lines_of_one_order_the_second_is_refused(dbs: Databases) -> None:
    line = as_dataclass("Line", number=(int, NEEDED), title=(str, NEEDED))
    order = as_dataclass("Order", id=(int | None, None), lines=(of(tuple, line, ...), ()), version=(int | None, None))
    orders = repository(order)
    added = stored(dbs, orders, order())
    newer = saved(dbs, orders, changed(added, lines=(line(number=1, title="Pear"),)))
    with pytest.raises(StaleDataError):
        saved(dbs, orders, changed(added, lines=(line(number=2, title="Fig"),)))
    with dbs.unit_of_work() as uow:
        assert orders(uow).get(1) == newer


def test_load_takes_domain_objects(dbs: Databases) -> None:
    @dataclasses.dataclass
    class Order:
        id: int
        state: State

    class Lower(Repository[OrderRow, Order]):
        @staticmethod
        def to_row(item: Order) -> dict[str, Any]:
            return {"id": item.id, "state": item.state.name.lower()}

    with dbs.unit_of_work() as uow:
        repository(Order)(uow).load(Order(number, State.SENT) for number in (1, 2))
        Lower(uow).load([Order(3, State.OPEN)])
        assert [each["state"] for each in Lower(uow).rows(OrderRow.state, order_by="id")] == ["sent", "sent", "open"]


# --- hooks


class Total:
    """
    An object that nothing can be derived for.
    """

    def __init__(self, key: int | None, amount: Decimal) -> None:
        self.key, self.amount = key, amount


def test_hooks_make_objects_of_rows_and_rows_of_objects(dbs: Databases) -> None:
    class Totals(Repository[OrderRow, Total]):
        @staticmethod
        def from_row(row: OrderRow) -> Total:
            return Total(row.id, row.total or Decimal(0))

        @staticmethod
        def to_row(item: Total) -> OrderRow:
            return OrderRow(id=item.key, total=item.amount)

    added = stored(dbs, Totals, Total(None, Decimal(3)))
    assert (added.key, added.amount) == (1, 3)
    saved(dbs, Totals, Total(1, Decimal(4)))
    assert row_of(dbs, 1, "total", "internal") == (Decimal(4), "not for everyone")


def test_either_hook_alone_is_enough(dbs: Databases) -> None:
    @dataclasses.dataclass
    class Order:
        id: int | None = None
        state: str = "open"

    class Reading(Repository[OrderRow, Order]):
        @staticmethod
        def from_row(row: OrderRow) -> Order:
            return Order(row.id, row.state.upper())

    class Writing(Repository[OrderRow, Order]):
        @staticmethod
        def to_row(item: Order) -> dict[str, Any]:
            return {"id": item.id, "state": item.state.lower()}

    assert stored(dbs, Reading, Order(8, "sent")) == Order(8, "SENT")
    assert stored(dbs, Writing, Order(2, "SENT")) == Order(2, "sent")
    assert saved(dbs, Writing, Order(2, "OPEN")) == Order(2, "open")


def test_a_hook_without_the_class_that_it_makes_is_refused(dbs: Databases) -> None:
    class Totals(Repository[OrderRow]):
        @staticmethod
        def from_row(row: OrderRow) -> Total:
            return Total(row.id, row.total or Decimal(0))

    with dbs.unit_of_work() as uow, pytest.raises(InvalidModel, match=r"Totals says how .* but not of which class"):
        Totals(uow)
