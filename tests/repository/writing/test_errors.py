"""
The errors of writing: the same classes with the same facts on each database, whatever its driver tells.
"""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import exc, text

from stillroom import Databases
from stillroom.classification import is_retryable
from stillroom.errors import (
    CheckViolation,
    Disconnected,
    DriverError,
    ForeignKeyViolation,
    LockTimeout,
    NotNullViolation,
    UniqueViolation,
)
from tests.repository.writing.models import Badge, Badges, Base, People, Person, Seat, Seats, Teams
from tests.repository.writing.test_writing import ada

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.orm import Session

    from tests.repository.writing.conftest import Shop


def raised(shop: Shop, write: Callable[[Session], Any], before: Callable[[Session], Any] | None = None) -> Any:
    """
    Return the error of a write.
    """
    if before is not None:
        shop(before)
    with pytest.raises(DriverError) as caught:
        shop(write)
    assert isinstance(caught.value.__cause__, exc.DBAPIError)
    return caught.value


def test_a_taken_value_is_named_with_model_constraint_and_columns(shop: Shop) -> None:
    error = raised(shop, lambda session: ada(session, id=-7), ada)
    assert isinstance(error, UniqueViolation)
    assert isinstance(error, exc.IntegrityError)
    assert (error.model, error.key, error.table) == (Person, -7, "person")
    assert (error.constraint, error.columns, error.database) == ("uq_person_e_mail", ("e_mail",), "main")
    assert error.statement is not None
    assert not is_retryable(error)


def test_the_constraint_of_several_columns_is_named(shop: Shop) -> None:
    def before(session: Session) -> None:
        ada(session, team=Teams(session).create(name="red"), number=1)

    def write(session: Session) -> None:
        person = ada(session, email="b")
        People(session).update(person.id, team=Teams(session).one(), number=1)

    error = raised(shop, write, before)
    assert (error.constraint, error.columns) == ("uq_person_team_id_number", ("team_id", "number"))
    assert isinstance(error.key, int)


def test_a_taken_primary_key_is_named(shop: Shop) -> None:
    def write(session: Session) -> Any:
        return Seats(session).create(row="A", number=1)

    error = raised(shop, write, write)
    assert (error.model, error.key, error.columns) == (Seat, ("A", 1), ("line", "number"))


def test_an_error_names_the_model_that_it_is_about_not_the_one_that_was_added(shop: Shop) -> None:
    def write(session: Session) -> None:
        session.add(Badge(code="x", person=Person(email="b")))
        ada(session, id=-7)

    error = raised(shop, write, lambda session: ada(session, email="c", badges=[Badge(code="x")]))
    assert (error.model, error.key, error.columns) == (Badge, None, ("code",))


def test_a_row_that_is_still_referred_to_cannot_be_deleted(shop: Shop) -> None:
    def write(session: Session) -> None:
        People(session).delete_where(name="Ada")

    def delete_team(session: Session) -> None:
        Teams(session).delete(Teams(session).one().id)

    def before(session: Session) -> None:
        ada(session, team=Teams(session).create(name="red"), badges=[Badge(code="x")])

    error = raised(shop, write, before)
    assert isinstance(error, ForeignKeyViolation)
    assert error.model is Person
    if shop.backend != "sqlite":  # which names nothing
        assert (error.constraint, error.columns) == ("fk_badge_person_id_person", ("person_id",))
    error = raised(shop, delete_team)
    assert isinstance(error, ForeignKeyViolation)
    assert error.key is not None


def test_a_missing_value_and_a_refused_one_are_told_apart(shop: Shop) -> None:
    missing = raised(shop, lambda session: Badges(session).create(code="x"))
    assert isinstance(missing, NotNullViolation)
    assert (missing.model, missing.columns) == (Badge, ("person_id",))
    refused = raised(shop, lambda session: ada(session, age=-1))
    assert isinstance(refused, CheckViolation)
    assert (refused.model, refused.constraint) == (Person, "ck_person_born")


@pytest.mark.parametrize(
    "write",
    [
        lambda session: People(session).upsert({"email": "b", "team_id": 404}, match=["email"]),
        lambda session: People(session).update_where(name="Ada", values={"team_id": 404}),
        lambda session: People(session).get_or_create({"team_id": 404}, email="b"),
    ],
    ids=["upsert", "update_where", "get_or_create"],
)
def test_every_way_of_writing_raises_our_classes(shop: Shop, write: Callable[[Session], Any]) -> None:
    error = raised(shop, write, ada)
    assert isinstance(error, ForeignKeyViolation)
    assert error.model is Person


def test_an_error_survives_pickling(shop: Shop) -> None:
    error = raised(shop, lambda session: ada(session, id=-7), ada)
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.model, copy.key, copy.columns) == (Person, -7, ("e_mail",))


def test_a_locked_database_is_a_lock_timeout_and_no_integrity_error(sqlite_database: str) -> None:
    settings = {"url": sqlite_database, "lock_timeout": 0.05}
    with Databases({"databases": {"main": settings}}) as dbs:
        Base.metadata.create_all(dbs["main"].engine)
        with dbs["main"].engine.connect() as other:
            other.execute(text("insert into team (name) values ('red')"))
            for write in (
                lambda uow: Teams(uow).create(name="red"),
                lambda uow: Teams(uow).get_or_create(name="red"),
                lambda uow: Teams(uow).upsert({"name": "red"}, match=["name"]),
            ):
                with pytest.raises(LockTimeout) as caught, dbs.unit_of_work() as uow:
                    write(uow)
                assert not isinstance(caught.value, exc.IntegrityError)
                assert is_retryable(caught.value)


@pytest.mark.leaves_connections("the server has cut them")
def test_a_lost_connection_is_said_to_be_lost(postgresql_database: str) -> None:
    with Databases({"databases": {"main": {"url": postgresql_database}}}) as dbs:
        Base.metadata.create_all(dbs["main"].engine)
        for write in (
            lambda uow: Teams(uow).create(name="red"),
            lambda uow: Teams(uow).get_or_create(name="red"),
            lambda uow: Teams(uow).upsert({"name": "red"}, match=["name"]),
            lambda uow: Teams(uow).delete_where(name="red"),
        ):
            with pytest.raises(Disconnected) as caught, dbs.unit_of_work() as uow:
                pid = uow.main.scalar(text("select pg_backend_pid()"))
                with dbs["main"].engine.connect() as other:
                    other.execute(text("select pg_terminate_backend(:pid)"), {"pid": pid})
                    other.commit()
                write(uow)
            assert not isinstance(caught.value, exc.IntegrityError)
