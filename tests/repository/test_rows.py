"""
Rows as dictionaries: the values of mapped objects, without mapped objects.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import bindparam, event, func, select, text
from sqlalchemy.exc import DataError
from sqlalchemy.orm import aliased, with_loader_criteria

from stillroom.models import UnknownColumn
from tests.repository import kinds
from tests.repository.models import Note, Order, User, create_tables

if TYPE_CHECKING:
    from tests.repository.worlds import Place


def test_values_of_every_type_are_those_of_mapped_objects(place: Place) -> None:
    model = kinds.table(place)
    with place.unit() as uow:
        things = place.repository(model, uow)
        objects = things.list(order_by="id")
        assert len(objects) == 3
        names = list(things.plan.columns)
        expected = [{name: getattr(each, name) for name in names} for each in objects]
        assert repr(things.rows(order_by="id")) == repr(expected)  # repr: NaN differs from itself, and 1 equals True


def test_rows_selects_columns_by_expression_label_and_name(shop: Place) -> None:
    with shop.unit() as uow:
        users = shop.repository(User, uow)
        found = users.rows(User.id, "name", (User.age + 1).label("next"), where=User.age < 80, order_by="-age")
        assert found == [{"id": 3, "name": "Edsger", "next": 73}, {"id": 1, "name": "Ada", "next": 37}]


def test_rows_narrows_orders_and_limits(sqlite_shop: Place) -> None:
    with sqlite_shop.unit() as uow:
        users = sqlite_shop.repository(User, uow)
        assert users.rows("id", order_by="id", limit=2, offset=1) == [{"id": 2}, {"id": 3}]
        assert users.rows("id", where=[User.age > 40, User.email.is_not(None)]) == [{"id": 2}]
        assert users.rows("id", age=None) == [{"id": 4}]
        assert users.rows("id", id=[]) == []


def test_rows_of_an_own_select_have_the_names_of_attributes(sqlite_shop: Place) -> None:
    with sqlite_shop.unit() as uow:
        users = sqlite_shop.repository(User, uow)
        spent = func.sum(Order.total).label("spent")
        own = select(User.name, spent).join(Order).group_by(User.name)
        assert users.rows(own, order_by="name") == [{"name": "Ada", "spent": 12}, {"name": "Grace", "spent": 9}]
        assert users.rows(spent, where=select(User.id).join(Order)) == [{"spent": 21}]
        assert users.rows(select(User), id=1) == users.rows(id=1)


def test_rows_of_two_aliases_keep_both(sqlite_shop: Place) -> None:
    with sqlite_shop.unit() as uow:
        other = aliased(User)
        own = select(User.id, other.id).join(other, other.id == User.id + 1).where(User.id == 1)
        assert sqlite_shop.repository(User, uow).rows(own) == [{"id": 1, "id_1": 2}]


def test_rows_sees_what_the_session_has_not_sent_yet(shop: Place) -> None:
    with shop.unit() as uow:
        uow.main.add(User(id=9, name="New"))
        users = shop.repository(User, uow)
        assert users.rows("name", id=9) == [{"name": "New"}]
        assert users.rows(text("select name from users where id = :id"), id=9) == [{"name": "New"}]


def test_rows_hides_what_is_softly_deleted(place: Place) -> None:
    create_tables(place)
    with place.unit() as uow:
        notes = place.repository(Note, uow)
        for number in (1, 2):
            notes.create(id=number, text="note")
        notes.delete(1)
        assert notes.rows("id") == [{"id": 2}]
        assert notes.json("id") == b'[{"id":2}]'
        assert [each["id"] for each in notes.with_deleted().rows("id", order_by="id")] == [1, 2]


def test_listeners_of_the_session_narrow_rows_and_json(sqlite_shop: Place) -> None:
    with sqlite_shop.unit() as uow:

        @event.listens_for(uow.main, "do_orm_execute")
        def only_the_young(state: Any) -> None:
            state.statement = state.statement.options(with_loader_criteria(User, User.age < 40))

        users = sqlite_shop.repository(User, uow)
        assert users.rows("name") == [{"name": "Ada"}]
        assert users.json("name") == b'[{"name":"Ada"}]'


def test_rows_of_plain_sql_take_their_parameters_by_name(shop: Place) -> None:
    with shop.unit() as uow:
        users = shop.repository(User, uow)
        query = text("select name, age from users where age > :age order by age desc")
        assert users.rows(query, age=80) == [{"name": "Grace", "age": 85}]
        several = text("select id from users where id in :ids order by id").bindparams(bindparam("ids", expanding=True))
        assert users.rows(several, ids=[1, 3]) == [{"id": 1}, {"id": 3}]


@pytest.mark.parametrize("wrong", [{"order_by": "id"}, {"limit": 1}, {"where": User.id == 1}])
def test_plain_sql_with_more_than_parameters_is_refused(sqlite_shop: Place, wrong: dict[str, Any]) -> None:
    with sqlite_shop.unit() as uow, pytest.raises(TypeError, match="the whole statement"):
        sqlite_shop.repository(User, uow).rows(text("select id from users"), **wrong)


def test_columns_beside_plain_sql_are_refused(sqlite_shop: Place) -> None:
    with sqlite_shop.unit() as uow, pytest.raises(TypeError, match="belong into it"):
        sqlite_shop.repository(User, uow).rows(text("select id from users"), "name")


def test_two_columns_of_one_name_are_refused(sqlite_shop: Place) -> None:
    with sqlite_shop.unit() as uow, pytest.raises(ValueError, match="several columns are named 'id'"):
        sqlite_shop.repository(User, uow).rows(text("select u.id, o.id from users u join orders o on o.user_id = u.id"))


@pytest.mark.usefixtures("own_database")
def test_what_python_has_no_value_for_is_the_error_of_sqlalchemy(postgresql_shop: Place) -> None:
    model = kinds.table(postgresql_shop, "clock")
    with postgresql_shop.unit() as uow:
        things = postgresql_shop.repository(model, uow)
        assert len(things.rows()) == 3
        postgresql_shop.waiting(uow.main).execute(text("update kinds set clock = '0044-03-15 BC' where id = 2"))
        with pytest.raises(DataError, match="BC"):
            things.rows()


def test_an_unknown_column_is_named(sqlite_shop: Place) -> None:
    with sqlite_shop.unit() as uow, pytest.raises(UnknownColumn, match="'nme'"):
        sqlite_shop.repository(User, uow).rows("nme")
