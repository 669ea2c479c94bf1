"""
Rows that are made or found, made or updated: what is matched, what is updated, and what comes back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import func, inspect, select, update

from stillroom.errors import UniqueViolation
from stillroom.models import UnknownColumn
from tests.repository.writing.models import (
    Account,
    Accounts,
    Animal,
    Bikes,
    Circles,
    Discs,
    Dogs,
    People,
    Person,
    Seats,
    Teams,
    Vehicles,
)
from tests.repository.writing.test_writing import ada, statements_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.orm import Session

    from tests.repository.writing.conftest import Shop


# --- get_or_create


def test_get_or_create_makes_a_row_once(shop: Shop) -> None:
    def body(session: Session) -> tuple[Any, ...]:
        people = People(session)
        first, made = people.get_or_create({"name": "Ada", "badges": []}, email="ada@example.org")
        again, made_again = people.get_or_create({"name": "Eve"}, email="ada@example.org")
        return first is again, made, made_again, again.name, people.count()

    assert shop(body) == (True, True, False, "Ada", 1)


def test_get_or_create_finds_by_one_statement(shop: Shop) -> None:
    key = shop(lambda session: ada(session).id)

    def body(session: Session) -> tuple[Any, ...]:
        sent = statements_of(session)
        person, made = People(session).get_or_create(mail="ada@example.org")
        return person.id, made, len(sent)

    assert shop(body) == (key, False, 1)


def test_get_or_create_takes_relationships_and_composite_keys(shop: Shop) -> None:
    def body(session: Session) -> tuple[Any, ...]:
        team = Teams(session).create(name="red")
        first, _ = People(session).get_or_create({"email": "a"}, team=team, number=1)
        again, made = People(session).get_or_create({"email": "b"}, team=team, number=1)
        seat, _ = Seats(session).get_or_create(row="A", number=1)
        return first is again, made, Seats(session).get_or_create(row="A", number=1)[0] is seat

    assert shop(body) == (True, False, True)


def test_get_or_create_refuses_what_could_make_two_rows(shop: Shop) -> None:
    def body(session: Session) -> None:
        for equal in ({"name": "Ada"}, {"team": None, "number": 1}, {"number": 1}, {}):
            with pytest.raises(ValueError, match=r"no unique key of Person is among these.*\['email'\]"):
                People(session).get_or_create(None, **equal)

    shop(body)


def test_get_or_create_is_refused_where_another_row_has_a_value_of_the_new_one(shop: Shop) -> None:
    def body(session: Session) -> tuple[Any, ...]:
        people = People(session)
        team = Teams(session).create(name="red")
        ada(session, email="a", team=team, number=1)
        with pytest.raises(UniqueViolation) as caught:
            people.get_or_create({"team": team, "number": 1}, email="b")
        with pytest.raises(UniqueViolation):
            people.get_or_create(email="a", name="somebody else")
        assert caught.value.columns == ("team_id", "number")
        return caught.value.constraint, people.count()  # the unit of work goes on

    assert shop(body) == ("uq_person_team_id_number", 1)


def test_get_or_create_of_several_tables(shop: Shop) -> None:
    def body(session: Session) -> tuple[Any, ...]:
        dog, made = Dogs(session).get_or_create({"tricks": 3}, name="Rex")
        return dog.tricks, made, Dogs(session).get_or_create(name="Rex")[0] is dog

    assert shop(body) == (3, True, True)


# --- upsert


def test_upsert_inserts_and_then_updates_what_is_given(shop: Shop) -> None:
    def body(session: Session) -> tuple[Any, ...]:
        people = People(session)
        first = people.upsert({"email": "a", "name": "Ada", "age": 1}, match=["email"])
        key = first.id
        assert (first.changed_at, first.name) == (None, "Ada")
        again = people.upsert({"email": "a", "age": 2}, match=["email"])
        assert again is first
        return first.id == key, first.name, first.age, first.older, first.changed_at is None, people.count()

    assert shop(body) == (True, "Ada", 2, 3, False, 1)


def test_upsert_is_one_statement(shop: Shop) -> None:
    def body(session: Session) -> list[str]:
        sent = statements_of(session)
        for age in (1, 2):
            assert People(session).upsert({"email": "a", "age": age}, match=["email"]).age == age
        return [each for each in sent if "INSERT" in each]

    assert len(shop(body)) == 2


def test_upsert_updates_the_columns_that_are_named(shop: Shop) -> None:
    def body(session: Session) -> tuple[Any, ...]:
        people = People(session)
        person = ada(session, email="a", name="Ada", age=1)
        people.upsert({"email": "a", "name": "Eve", "age": 9}, match=["email"], update=["age"])
        before = person.changed_at
        people.upsert({"email": "a", "name": "Eve", "age": 99}, match=["email"], update=[])
        people.upsert({"email": "a"}, match=["email"])
        return person.name, person.age, person.changed_at == before

    assert shop(body) == ("Ada", 9, True)


def test_upsert_counts_the_version_and_keeps_the_time_of_creation(shop: Shop) -> None:
    def body(session: Session) -> tuple[Any, ...]:
        accounts = Accounts(session)
        first = accounts.upsert({"code": "a", "balance": 1}, match=["code"])
        created, updated, version = first.created_at, first.updated_at, first.version
        accounts.upsert({"code": "a", "balance": 2, "version": 1}, match=["code"])
        return version, first.version, first.created_at == created, first.updated_at > updated

    assert shop(body) == (1, 2, True, True)


def test_upsert_by_the_primary_key_and_by_a_composite_one(shop: Shop) -> None:
    def body(session: Session) -> tuple[Any, ...]:
        People(session).upsert({"id": 7, "email": "a", "name": "Ada"})
        People(session).upsert({"id": 7, "email": "b"})
        Seats(session).upsert({"row": "A", "number": 1, "guest": "Ada"})
        Seats(session).upsert({"row": "A", "number": 1, "guest": "Eve"})
        seat = Seats(session).upsert({"row": "A", "number": 2})
        person = People(session).one()
        return person.email, person.name, seat.guest, sorted(str(each.guest) for each in Seats(session).list())

    assert shop(body) == ("b", "Ada", None, ["Eve", "None"])


def test_upsert_matches_what_stands_behind_a_relationship(shop: Shop) -> None:
    def body(session: Session) -> tuple[Any, ...]:
        team = Teams(session).create(name="red")
        people = People(session)
        first = people.upsert({"team": team, "number": 1, "mail": "a"}, match=["team", "number"])
        again = people.upsert({"team": team, "number": 1, "mail": "b"}, match=["team_id", "number"])
        return again is first, first.email, first.team is team

    assert shop(body) == (True, "b", True)


def test_upsert_does_not_touch_a_row_that_another_unique_key_meets(shop: Shop) -> None:
    def body(session: Session) -> None:
        person = ada(session, id=1, email="a", name="Ada")
        ada(session, id=2, email="b", name="Eve")
        session.commit()
        for values, match in (
            ({"id": 3, "email": "a", "name": "wrong"}, ["id"]),
            ({"id": 1, "email": "c", "name": "wrong"}, ["email"]),
        ):
            with pytest.raises(UniqueViolation) as caught:
                People(session).upsert(values, match=match)
            assert caught.value.model is Person
            assert caught.value.columns == (("e_mail",) if match == ["id"] else ("id",))
            session.rollback()
        session.refresh(person)
        assert {each.email: each.name for each in People(session).list()} == {"a": "Ada", "b": "Eve"}

    in_a_session(shop, body)


def test_a_primary_key_that_does_not_say_which_row_is_meant_is_for_a_new_row_only(shop: Shop) -> None:
    def body(session: Session) -> tuple[Any, ...]:
        person = ada(session, id=-1, email="a", name="Ada")
        people = People(session)
        assert people.upsert({"id": -2, "email": "a", "name": "Eve"}, match=["email"]) is person
        return person.id, person.name, people.upsert({"id": -2, "email": "b"}, match=["email"]).id

    assert shop(body) == (-1, "Eve", -2)


def test_a_server_without_returning_gives_the_same(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    if shop.backend != "mysql":
        pytest.skip("MySQL is the one without RETURNING")
    database = shop.place.dbs["main"]
    engine = database.engine if shop.place.runner is None else database.async_engine.sync_engine
    monkeypatch.setattr(engine.dialect, "insert_returning", False)

    def body(session: Session) -> tuple[Any, ...]:
        people = People(session)
        first = people.upsert({"email": "a", "name": "Ada"}, match=["email"])
        again = people.upsert({"email": "a", "name": "Eve"}, match=["email"])
        with pytest.raises(UniqueViolation):
            people.upsert({"id": first.id, "email": "b", "name": "wrong"}, match=["email"])
        return again is first, first.name, people.get_or_create(email="c")[1], people.count()

    assert shop(body) == (True, "Eve", True, 2)


def in_a_session(shop: Shop, body: Callable[[Session], Any]) -> Any:
    """
    Run `body` with a session that it may commit and roll back.
    """
    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm import Session

    database = shop.place.dbs["main"]
    if shop.place.runner is None:
        with Session(database.engine, expire_on_commit=False) as session:
            return body(session)

    async def run() -> Any:
        async with AsyncSession(database.async_engine, expire_on_commit=False) as session:
            return await session.run_sync(body)

    return shop.place.runner.run(run())


def test_upsert_says_what_is_wrong_with_its_names(shop: Shop) -> None:
    def body(session: Session) -> None:
        people = People(session)
        for values, match, update_, text in (
            ({"name": "x"}, None, None, "needs a value for 'id'"),
            ({"name": "x", "age": 1}, ["name"], None, r"no unique key has just these attributes; it has \['id'\]"),
            ({"email": "a", "id": 1}, ["email", "id"], None, "no unique key has just these"),
            ({"email": "a"}, ["email"], ["age"], "needs a value for 'age'"),
            ({"email": None, "age": 1}, ["email"], None, "NULL never matches"),
        ):
            with pytest.raises(ValueError, match=text):
                people.upsert(values, match=match, update=update_)
        for name in ("older", "badges", "loud"):
            with pytest.raises(UnknownColumn, match=name):
                people.upsert({"email": "a", name: None}, match=["email"])

    shop(body)


def test_upsert_takes_sql_but_none_that_looks_at_the_row(shop: Shop) -> None:
    def body(session: Session) -> tuple[str, int | None]:
        people = People(session)
        oldest = select(func.max(Person.age)).scalar_subquery()
        with pytest.raises(ValueError, match="cannot be made of the row's own columns"):
            people.upsert({"email": "ada@example.org", "age": Person.age + 1}, match=["email"])
        ada = people.upsert({"email": "ada@example.org", "name": func.upper("ada"), "age": oldest}, match=["email"])
        return ada.name, ada.age

    assert shop(body) == ("ADA", None)


def test_upsert_of_single_table_inheritance_makes_its_class_and_leaves_others_alone(shop: Shop) -> None:
    def body(session: Session) -> tuple[Any, ...]:
        bike = Bikes(session).upsert({"plate": "b", "gears": 3}, match=["plate"])
        Bikes(session).upsert({"plate": "b", "gears": 4}, match=["plate"])
        Vehicles(session).upsert({"plate": "b", "wheels": 2}, match=["plate"])
        assert (type(bike).__name__, bike.gears, bike.wheels) == ("Bike", 4, 2)
        Vehicles(session).upsert({"plate": "c"}, match=["plate"])
        with pytest.raises(UniqueViolation):
            Bikes(session).upsert({"plate": "c", "wheels": 2}, match=["plate"])
        return Bikes(session).count(), Vehicles(session).count()

    assert shop(body) == (1, 2)


def test_upsert_of_joined_and_concrete_inheritance(shop: Shop) -> None:
    def body(session: Session) -> tuple[Any, ...]:
        dog = Dogs(session).upsert({"name": "Rex", "tricks": 1}, match=["name"])
        Dogs(session).upsert({"name": "Rex", "tricks": 2}, match=["name"])
        session.connection().execute(update(Animal).values(version=7))  # behind the session
        Dogs(session).upsert({"name": "Rex", "tricks": 3}, match=["name"])
        Circles(session).upsert({"radius": 1}, match=["radius"])
        Discs(session).upsert({"radius": 1, "colour": "red"}, match=["radius"])
        disc = Discs(session).upsert({"radius": 1, "colour": "blue"}, match=["radius"])
        return dog.tricks, dog.version, disc.colour, Circles(session).count()

    assert shop(body) == (3, 8, "blue", 1)


def test_upsert_sends_what_is_pending_before_and_refreshes_what_is_loaded(shop: Shop) -> None:
    def body(session: Session) -> tuple[Any, ...]:
        account = Accounts(session).create(code="a", balance=1)
        account.code = "b"
        session.connection().execute(update(Account).values(balance=50))  # behind the session
        again = Accounts(session).upsert({"code": "b"}, match=["code"])
        return again is account, account.balance, Accounts(session).count()

    assert shop(body) == (True, 50, 1)


def test_upsert_many_follows_the_same_rules(shop: Shop) -> None:
    def body(session: Session) -> tuple[Any, ...]:
        accounts = Accounts(session)
        loaded = accounts.create(code="0", balance=1)
        rows = [{"code": str(number), "balance": number + 10} for number in range(20)]
        assert accounts.upsert_many(iter(rows), match=["code"]) == 20
        assert not inspect(loaded).expired_attributes
        return loaded.balance, loaded.version, accounts.count(), accounts.one(code="7").version

    assert shop(body) == (10, 2, 20, 1)


def test_upsert_many_leaves_no_object_behind_which_a_later_change_would_be_lost(shop: Shop) -> None:
    def body(session: Session) -> tuple[Any, ...]:
        person = People(session).create(email="a", name="Ada")
        People(session).upsert_many([{"email": "a", "name": "Eve"}], match=["email"])
        seen = person.name
        People(session).update(person.id, name="Ada")
        return seen, session.scalar(select(Person.name))

    assert shop(body) == ("Eve", "Ada")


def test_upsert_many_of_several_tables_takes_a_generator(shop: Shop) -> None:
    def body(session: Session) -> tuple[Any, ...]:
        rows = [{"name": "Rex", "tricks": 1}, {"name": "Fido", "tricks": 2}, {"name": "Rex", "tricks": 3}]
        assert Dogs(session).upsert_many(iter(rows), match=["name"]) == 3
        return tuple((each.name, each.tricks) for each in Dogs(session).list(order_by="name"))

    assert shop(body) == (("Fido", 2), ("Rex", 3))


def test_upsert_many_never_passes_over_a_row_that_meets_another_one(shop: Shop) -> None:
    def body(session: Session) -> tuple[Any, ...]:
        people = People(session)
        people.create(id=1, email="ada@x", name="Ada")
        people.create(id=5, email="bob@x", name="Bob")
        session.flush()
        try:
            people.upsert_many([{"id": 5, "email": "ada@x", "name": "Eve"}], match=["email"], update=["name"])
        except UniqueViolation:
            return ("refused",)
        session.expire_all()
        return people.one(email="ada@x").name, people.one(email="bob@x").name

    assert shop(body) in (("refused",), ("Eve", "Bob"))
