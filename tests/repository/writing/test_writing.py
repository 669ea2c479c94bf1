"""
Adding, changing and deleting rows: only what is given changes, and nothing is overwritten that somebody else wrote.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import and_, event, inspect, or_, select, text, true, update
from sqlalchemy.orm import aliased, selectinload
from sqlalchemy.orm.exc import StaleDataError

from stillroom.errors import NotFound
from stillroom.models import UnknownColumn
from stillroom.repository import NotIn
from tests.repository.writing.models import (
    Account,
    Accounts,
    Animal,
    Animals,
    Badge,
    Badges,
    Bike,
    Bikes,
    Circle,
    Circles,
    Discs,
    Dog,
    Dogs,
    People,
    Person,
    Seat,
    Seats,
    Team,
    Teams,
    Vehicles,
    Walk,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.orm import Session

    from tests.repository.writing.conftest import Shop


def statements_of(session: Session) -> list[str]:
    """
    Return a list that grows with each statement of the session.
    """
    sent: list[str] = []
    connection = session.connection()

    def note(*arguments: Any) -> None:
        sent.append(arguments[2])

    event.listen(connection, "before_cursor_execute", note)
    return sent


def ada(session: Session, **values: Any) -> Person:
    return People(session).create(**{"email": "ada@example.org", "name": "Ada", "age": 36, **values})


# --- add


def test_an_added_object_has_its_key_and_its_defaults(shop: Shop) -> None:
    def body(session: Session) -> tuple[Any, ...]:
        person = People(session).add(Person(email="ada@example.org"))
        return person.id, person.name, person.older

    key, name, older = shop(body)
    assert (isinstance(key, int), name, older) == (True, "nobody", None)


def test_many_are_added_in_one_insert(shop: Shop) -> None:
    def body(session: Session) -> list[str]:
        sent = statements_of(session)
        people = People(session).add_all(Person(email=f"{number}@example.org") for number in range(50))
        assert len({person.id for person in people}) == 50
        return sent

    inserts = [each for each in shop(body) if each.startswith("INSERT")]
    assert len(inserts) == 1 or shop.backend == "sqlite"  # where SQLAlchemy asks for the key of each row, in no time


def test_create_takes_attributes_relationships_hybrids_and_synonyms(shop: Shop) -> None:
    def body(session: Session) -> tuple[Any, ...]:
        team = Teams(session).create(name="red")
        person = People(session).create(mail="ada@example.org", loud="ADA", team=team, badges=[Badge(code="x")])
        assert person.team_id == team.id
        return person.email, person.name, [badge.code for badge in person.badges]

    assert shop(body) == ("ada@example.org", "ada", ["x"])


@pytest.mark.parametrize("wrong", ["nme", "metadata", "__class__", "full_name"])
def test_a_name_that_is_no_attribute_is_refused_before_anything_is_sent(shop: Shop, wrong: str) -> None:
    def body(session: Session) -> None:
        people: Any = People(session)
        key: Any = ada(session).id
        writes: list[Callable[[], Any]] = [
            lambda: people.create(email="b", **{wrong: "x"}),
            lambda: people.update(key, name="changed", **{wrong: "x"}),
            lambda: people.update_where(id=key, values={"name": "changed", wrong: "x"}),
            lambda: people.update_where(values={"name": "changed"}, **{wrong: "x"}),
            lambda: people.delete_where(**{wrong: "x"}),
            lambda: people.upsert({"id": key, wrong: "x"}),
            lambda: people.get_or_create(id=key, **{wrong: "x"}),
        ]
        for write in writes:
            with pytest.raises(UnknownColumn, match=repr(wrong)):
                write()
        assert people.get(key).name == "Ada"

    shop(body)


def test_save_makes_a_row_or_updates_only_what_the_object_has(shop: Shop) -> None:
    def body(session: Session) -> tuple[Any, ...]:
        people = People(session)
        made = people.save(Person(id=7, email="ada@example.org", name="Ada", age=36))
        session.expunge(made)
        saved = people.save(Person(id=7, email="countess@example.org"))
        return people.count(), saved.email, saved.name, saved.age

    assert shop(body) == (1, "countess@example.org", "Ada", 36)


def test_save_refuses_an_object_of_an_older_version(shop: Shop) -> None:
    def body(session: Session) -> None:
        accounts = Accounts(session)
        account = accounts.create(code="a")
        old = Account(id=account.id, code="a", balance=5, version=account.version)
        accounts.update(account.id, balance=1)
        with pytest.raises(StaleDataError):
            accounts.save(old)

    shop(body)


# --- update


def test_a_partial_update_names_only_the_columns_that_are_given(shop: Shop) -> None:
    def first(session: Session) -> int:
        team = Teams(session).create(name="red")
        return ada(session, team=team, badges=[Badge(code="x"), Badge(code="y")]).id

    key = shop(first)

    def second(session: Session) -> list[str]:
        sent = statements_of(session)
        People(session).update(key, name="Countess")
        return [each for each in sent if each.startswith("UPDATE")]

    (statement,) = shop(second)
    assert "full_name" in statement
    assert "e_mail" not in statement
    assert "team_id" not in statement

    def third(session: Session) -> tuple[Any, ...]:
        person = People(session).get(key)
        assert person is not None
        assert person.team is not None
        return person.name, person.email, person.age, person.team.name, sorted(badge.code for badge in person.badges)

    assert shop(third) == ("Countess", "ada@example.org", 36, "red", ["x", "y"])


def test_an_updated_object_can_be_read_without_a_further_statement(shop: Shop) -> None:
    key = shop(lambda session: ada(session).id)
    person = shop(lambda session: People(session).update(key, age=Person.age + 1))
    assert not inspect(person).expired_attributes
    assert (person.age, person.older, person.changed_at is None) == (37, 38, False)


def test_update_takes_relationships_and_hybrids(shop: Shop) -> None:
    key = shop(lambda session: ada(session).id)

    def body(session: Session) -> tuple[Any, ...]:
        person = People(session).update(key, team=Team(name="blue"), loud="BYRON")
        return person.name, Teams(session).one().id == person.team_id

    assert shop(body) == ("byron", True)


def test_what_is_not_there_cannot_be_updated_or_deleted(shop: Shop) -> None:
    def body(session: Session) -> None:
        people = People(session)
        for write in (lambda: people.update(404, name="x"), lambda: people.delete(404)):
            with pytest.raises(NotFound, match="no Person with the key 404") as caught:
                write()
            assert (caught.value.model, caught.value.keys) == (Person, (404,))

    shop(body)


def test_of_two_writers_on_one_version_one_wins_and_the_other_is_told(shop: Shop) -> None:
    key = shop(lambda session: Accounts(session).create(code="a", balance=100).id)
    read = shop(lambda session: Accounts(session).one(id=key).version)
    shop(lambda session: Accounts(session).update(key, balance=150, version=read))
    with pytest.raises(StaleDataError, match="has the version 2, and the change was made on 1"):
        shop(lambda session: Accounts(session).update(key, balance=50, version=read))
    assert shop(lambda session: Accounts(session).one(id=key).balance) == 150


def test_a_row_that_changes_behind_a_session_is_not_overwritten(shop: Shop) -> None:
    key = shop(lambda session: Accounts(session).create(code="a", balance=100).id)
    engine = shop.place.dbs["main"].engine

    def body(session: Session) -> None:
        account = Accounts(session).get(key)
        assert account is not None
        session.connection().execute(
            update(Account).values(balance=1, version=9)
        )  # Core, of which the object knows nothing
        with pytest.raises(StaleDataError):
            Accounts(session).update(key, balance=account.balance + 50)
        session.rollback()

    shop(body)
    with engine.connect() as connection:
        assert connection.scalar(select(Account.balance)) == 100


def test_an_older_object_in_the_session_does_not_hide_the_version_that_was_given(shop: Shop) -> None:
    key = shop(lambda session: Accounts(session).create(code="a").id)

    def body(session: Session) -> tuple[int, int]:
        accounts = Accounts(session)
        account = accounts.get(key)
        assert account is not None
        session.connection().execute(update(Account).values(version=2))
        account = accounts.update(key, balance=5, version=2)
        return account.balance, account.version

    assert shop(body) == (5, 3)


# --- update_where and delete_where


class Everything:
    """
    A filter that restricts nothing.
    """

    def condition(self, model: type[Any]) -> None:
        return None


def no_parts(combined: Callable[..., Any]) -> Any:
    """
    Return what `and_(*conditions)` is if there are no conditions.
    """
    with pytest.deprecated_call(match="without arguments"):
        return combined()


NO_CONDITIONS: dict[str, tuple[Any, ...]] = {
    "nothing": (),
    "filter": (Everything(),),
    "true": (true(),),
    "select": (select(Person),),
    "select of true": (select(Person), true()),
    "and of nothing": (no_parts(and_),),
    "or of nothing": (no_parts(or_),),
    "and of true": (and_(True),),  # noqa: FBT003  # what is tested
    "or with nothing": (or_(no_parts(and_), no_parts(or_)),),
    "not in nothing": (NotIn("id", []),),
}


@pytest.mark.parametrize("where", NO_CONDITIONS.values(), ids=NO_CONDITIONS.keys())
def test_all_rows_must_be_asked_for(shop: Shop, where: tuple[Any, ...]) -> None:
    def body(session: Session) -> tuple[int, int]:
        people = People(session)
        ada(session)
        ada(session, email="b")
        with pytest.raises(ValueError, match="all_rows=True"):
            people.update_where(*where, values={"age": 1})
        with pytest.raises(ValueError, match="all_rows=True"):
            people.delete_where(*where)
        return (
            people.update_where(*where, values={"age": 1}, all_rows=True),
            people.delete_where(*where, all_rows=True),
        )

    assert shop(body) == (2, 2)


def test_update_where_counts_rows_and_versions_and_sets_what_updates_set(shop: Shop) -> None:
    def body(session: Session) -> tuple[Any, ...]:
        accounts = Accounts(session)
        first = accounts.create(code="a", balance=1)
        second = accounts.create(code="b", balance=2)
        before = first.updated_at
        assert accounts.update_where(Account.balance < 2, values={"balance": Account.balance + 10}) == 1
        assert not inspect(first).expired_attributes
        assert first.updated_at > before
        return first.balance, first.version, second.balance, second.version

    assert shop(body) == (11, 2, 2, 1)


def test_update_where_sends_what_is_pending_before_and_loads_nothing_where_nothing_is_loaded(shop: Shop) -> None:
    key = shop(lambda session: ada(session).id)

    def body(session: Session) -> list[str]:
        session.add(Person(email="b", age=36))
        session.flush()
        session.expunge_all()
        sent = statements_of(session)
        assert People(session).update_where(age=36, values={"mail": Person.email + "!", "loud": "BOTH"}) == 2
        return sent

    assert len(shop(body)) == 1
    person = shop(lambda session: People(session).get(key))
    assert (person.email, person.name, person.changed_at is None) == ("ada@example.org!", "both", False)


def test_update_where_takes_a_relationship_and_a_select(shop: Shop) -> None:
    def body(session: Session) -> tuple[Any, ...]:
        people = People(session)
        team = Teams(session).create(name="red")
        young, old = ada(session, email="a", age=1), ada(session, email="b", age=99)
        oldest = select(Person).order_by(Person.age.desc()).limit(1)
        assert people.update_where(oldest, Person.age > 0, values={"team": team}) == 1
        assert people.update_where(team=team, values={"team": None}) == 1
        return young.team_id, old.team_id

    assert shop(body) == (None, None)


def test_update_where_sends_an_object_that_it_refers_to_before(shop: Shop) -> None:
    def body(session: Session) -> tuple[Any, ...]:
        person, team = ada(session), Team(name="red")
        session.add(team)
        assert People(session).update_where(id=person.id, values={"team": team}) == 1
        with pytest.raises(ValueError, match="this object has no row to refer to; add it first"):
            People(session).update_where(id=person.id, values={"team": Team(name="blue")})
        return person.team_id == team.id, person.team_id is None

    assert shop(body) == (True, False)


def test_update_where_keeps_what_is_loaded_behind_relationships_unless_their_keys_change(shop: Shop) -> None:
    def body(session: Session) -> tuple[Any, ...]:
        red, blue = Teams(session).add_all([Team(name="red"), Team(name="blue")])
        key = ada(session, team=red).id
        session.flush()
        session.expunge_all()
        options = [selectinload(Person.badges), selectinload(Person.team)]
        person = People(session).get(key, options=options)
        assert person is not None
        People(session).update_where(id=key, values={"age": 7})
        kept = {"badges", "team"} & inspect(person).unloaded
        People(session).update_where(id=key, values={"team_id": blue.id})
        return kept, person.age, {"badges", "team"} & inspect(person).unloaded, getattr(person.team, "name", None)

    assert shop(body) == (set(), 7, {"team"}, "blue")


@pytest.mark.parametrize(
    "write",
    [
        lambda people, key: people.update_where(id=key, values={"name": "Eve"}),
        lambda people, key: people.upsert({"id": key, "email": "a", "name": "Eve"}),
        lambda people, key: people.upsert_many([{"id": key, "email": "a", "name": "Eve"}]),
    ],
    ids=["update_where", "upsert", "upsert_many"],
)
def test_objects_do_not_keep_what_a_savepoint_takes_back(shop: Shop, write: Callable[..., Any]) -> None:
    def body(session: Session) -> tuple[Any, ...]:
        people = People(session)
        person, other = people.create(email="a", name="Ada"), people.create(email="b")
        with session.begin_nested() as outer:
            with session.begin_nested():
                write(people, person.id)
            seen = [person.name]
            with session.begin_nested() as unrelated:
                unrelated.rollback()
            assert not inspect(person).expired
            outer.rollback()
        assert inspect(person).expired
        assert not inspect(other).expired
        seen.append(person.name)
        with session.begin_nested():
            write(people, person.id)
        with session.begin_nested() as unrelated:
            unrelated.rollback()
        return *seen, person.name, inspect(person).expired

    assert shop(body) == ("Eve", "Ada", "Eve", False)


def test_a_row_that_a_savepoint_takes_back_is_not_there(shop: Shop) -> None:
    def body(session: Session) -> Any:
        people = People(session)
        with session.begin_nested() as savepoint:
            made = people.upsert({"email": "a", "name": "Ada"}, match=["email"])
            key = made.id
            savepoint.rollback()
        return people.get(key)

    assert shop(body) is None


def test_a_select_of_an_alias_or_with_a_join_changes_its_own_rows_alone(shop: Shop) -> None:
    def body(session: Session) -> list[str]:
        people, team = People(session), Teams(session).create(name="red")
        ada(session, team=team)
        for name in ("Bea", "Cleo"):
            people.create(email=f"{name}@example.org", name=name, age=20)
        other = aliased(Person)
        assert people.update_where(select(other), other.age > 30, name="Ada", values={"name": "Countess"}) == 1
        assert people.update_where(select(Person).join(Team), Team.name == "red", values={"age": 37}) == 1
        assert people.delete_where(select(other).where(other.name == "Bea")) == 1
        assert Teams(session).count() == 1
        return [f"{person.name} {person.age}" for person in people.list(order_by="id")]

    assert shop(body) == ["Countess 37", "Cleo 20"]


def test_a_select_of_another_class_changes_nothing(shop: Shop) -> None:
    def body(session: Session) -> None:
        with pytest.raises(TypeError, match="must select Person itself"):
            People(session).delete_where(select(Team).where(Team.id > 0))

    shop(body)


def test_update_where_refuses_a_version_and_nothing_to_set(shop: Shop) -> None:
    def body(session: Session) -> None:
        with pytest.raises(ValueError, match="as a condition it is version="):
            Accounts(session).update_where(id=1, values={"version": 3})
        with pytest.raises(ValueError, match="nothing to set"):
            Accounts(session).update_where(id=1, values={})

    shop(body)


def test_delete_where_counts_and_forgets_what_is_gone(shop: Shop) -> None:
    def body(session: Session) -> tuple[Any, ...]:
        people = People(session)
        first, second = ada(session, email="a", age=1), ada(session, email="b", age=2)
        assert people.delete_where(Person.age > 5) == 0
        assert people.delete_where(age=[1]) == 1
        return inspect(first).deleted, inspect(second).persistent, people.get(first.id), people.count()

    assert shop(body) == (True, True, None, 1)


def test_delete_where_without_loaded_objects_is_one_statement(shop: Shop) -> None:
    shop(lambda session: [ada(session, email=str(number)) for number in range(3)] and None)

    def body(session: Session) -> tuple[int, int]:
        sent = statements_of(session)
        return People(session).delete_where(Person.age == 36), len(sent)

    assert shop(body) == (3, 1)


# --- delete


def test_delete_takes_along_what_belongs_to_the_object(shop: Shop) -> None:
    key = shop(lambda session: ada(session, badges=[Badge(code="x")]).id)
    shop(lambda session: People(session).delete(key))
    assert shop(lambda session: (People(session).count(), Badges(session).count())) == (0, 0)


def test_delete_many_counts_those_that_were_there(shop: Shop) -> None:
    keys = shop(lambda s: [ada(s, email=str(n), badges=[Badge(code=str(n))]).id for n in range(3)])
    assert shop(lambda session: People(session).delete_many([*keys[:2], keys[0], 404])) == 2
    assert shop(lambda session: (People(session).count(), Badges(session).count())) == (1, 1)


# --- keys and classes


def test_composite_keys_are_written_by_tuple_and_by_mapping(shop: Shop) -> None:
    def body(session: Session) -> list[tuple[Any, ...]]:
        seats = Seats(session)
        for number in (1, 2, 3):
            seats.create(row="A", number=number)
        seats.update(("A", 1), guest="Ada")
        seats.update({"number": 2, "row": "A"}, guest="Byron")
        assert seats.update_where(row="A", values={"guest": "all"}) == 3
        seats.delete(("A", 3))
        assert seats.delete_many([("A", 2), ("B", 9)]) == 1
        with pytest.raises(ValueError, match="is no key of Seat"):
            seats.delete("A")
        return [(seat.row, seat.number, seat.guest) for seat in seats.list()]

    assert shop(body) == [("A", 1, "all")]


def test_composite_keys_are_found_by_a_select(shop: Shop) -> None:
    def body(session: Session) -> int:
        seats = Seats(session)
        seats.add_all(Seat(row="A", number=number) for number in (1, 2, 3))
        return seats.delete_where(select(Seat).where(Seat.number > 1))

    assert shop(body) == 2


def test_single_table_inheritance_writes_its_own_class_only(shop: Shop) -> None:
    def body(session: Session) -> tuple[Any, ...]:
        Vehicles(session).create(plate="car")
        bike = Bikes(session).create(plate="bike", wheels=2, gears=7)
        assert Bikes(session).update_where(values={"gears": 8}, all_rows=True) == 1
        assert Vehicles(session).update_where(values={"wheels": 3}, all_rows=True) == 2
        with pytest.raises(NotFound):
            Bikes(session).update(Vehicles(session).one(plate="car").id, gears=1)
        assert (bike.gears, bike.wheels, bike.kind) == (8, 3, "bike")
        return Bikes(session).delete_where(all_rows=True), Vehicles(session).count()

    assert shop(body) == (1, 1)


def test_joined_inheritance_writes_all_of_its_tables(shop: Shop) -> None:
    def body(session: Session) -> tuple[Any, ...]:
        dog = Dogs(session).create(name="Rex", tricks=1)
        Animals(session).create(name="Tom")
        Dogs(session).update(dog.id, name="Max", tricks=2)
        assert Dogs(session).update_where(Dog.tricks == 2, values={"name": "Bello", "tricks": Dog.tricks + 1}) == 1
        assert (dog.name, dog.tricks, dog.version) == ("Bello", 3, 3)
        assert Animals(session).update_where(Animal.name == "Bello", values={"name": "Rex"}) == 1
        assert not inspect(dog).expired_attributes
        assert (dog.name, dog.version) == ("Rex", 4)
        Dogs(session).create(name="Hasso")
        assert Dogs(session).delete_where(name="Hasso") == 1
        return Animals(session).delete_where(all_rows=True), Dogs(session).count(), Animals(session).count()

    assert shop(body) == (2, 0, 0)


def test_objects_in_several_tables_are_read_anew_with_all_others_and_keep_what_is_behind_them(shop: Shop) -> None:
    def body(session: Session) -> tuple[Any, ...]:
        rex, max_ = Dogs(session).create(name="Rex"), Dogs(session).create(name="Max")
        rex.walks.append(Walk(place="park"))
        session.flush()
        session.connection().execute(text("update dog set tricks = 5"))  # behind the session
        assert Dogs(session).update_where(name="Rex", values={"tricks": Dog.tricks + 1}) == 1
        assert not inspect(rex).unloaded
        assert not inspect(max_).expired_attributes
        return rex.tricks, max_.tricks, [each.place for each in rex.walks]

    assert shop(body) == (6, 5, ["park"])


def test_concrete_inheritance_writes_its_own_table(shop: Shop) -> None:
    def body(session: Session) -> tuple[Any, ...]:
        Circles(session).create(radius=1)
        disc = Discs(session).create(radius=1, colour="red")
        assert Discs(session).update(disc.id, colour="blue").colour == "blue"
        assert Circles(session).update_where(radius=1, values={"radius": 5}) == 1
        assert disc.radius == 1
        assert Circles(session).delete_where(Circle.radius == 5) == 1
        return Circles(session).count(), Discs(session).count()

    assert shop(body) == (0, 1)


def test_a_joined_subclass_deleted_as_its_base_is_deleted_whole(shop: Shop) -> None:
    key = shop(lambda session: Dogs(session).create(name="Rex").id)
    shop(lambda session: Animals(session).delete(key))
    assert shop(lambda session: (Dogs(session).count(), Animals(session).count())) == (0, 0)


def test_a_bike_is_made_with_its_class(shop: Shop) -> None:
    shop(lambda session: Bikes(session).add(Bike(plate="b")))
    assert shop(lambda session: type(Vehicles(session).one()).__name__) == "Bike"


def test_an_empty_list_of_objects_adds_nothing(shop: Shop) -> None:
    assert shop(lambda session: (People(session).add_all([]), People(session).delete_many([]))) == ([], 0)


def test_writing_commits_nothing_by_itself(shop: Shop) -> None:
    def body(session: Session) -> None:
        ada(session)
        People(session).upsert({"email": "b", "name": "b"}, match=["email"])
        People(session).get_or_create(email="c")
        raise KeyError

    with pytest.raises(KeyError):
        shop(body)
    assert shop(lambda session: People(session).count()) == 0
