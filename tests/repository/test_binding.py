"""
How a repository finds its model and its session, and what each side may do.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
from sqlalchemy import ForeignKey, event, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from stillroom import (
    ForeignKeyViolation,
    NoUnitOfWork,
    ReadOnlyError,
    ReadRepository,
    Repository,
    Retry,
    SerializationFailure,
    UniqueViolation,
    UnknownDatabase,
    WriteRepository,
)
from stillroom.models import InvalidModel, ModelBase
from tests.repository.models import Base, Note, User, create_tables
from tests.repository.worlds import SQLITE, Place

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy import Engine

Model = TypeVar("Model", bound=Base)


class Named(Repository[Model]):
    """
    A base class of the user's own for several models.
    """

    def called(self, name: str) -> list[Model]:
        return self.list(name=name)


class Users(Named[User]):
    """
    A repository by way of that base class.
    """


class AuditBase(ModelBase, DeclarativeBase, database="audit"):
    """
    The tables of another database.
    """


class Event(AuditBase):
    """
    What happened.
    """

    __tablename__ = "events"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)


class LazyBase(DeclarativeBase):
    """
    What MariaDB does not have.
    """


class Lazy(LazyBase):
    """
    A reference that the server checks at COMMIT only.
    """

    __tablename__ = "lazies"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    other_id: Mapped[int] = mapped_column(ForeignKey("lazies.id", deferrable=True, initially="DEFERRED"))


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Place]:
    """
    Two databases.
    """
    with Place({name: f"sqlite:///{tmp_path}/{name}.db" for name in ("main", "audit")}, SQLITE) as place:
        create_tables(place)
        create_tables(place, AuditBase.metadata, "audit")
        yield place


# --- the model


def test_the_model_comes_from_the_type_parameter(sqlite_shop: Place) -> None:
    class Plain(Repository[User]): ...

    class Below(Plain): ...

    with sqlite_shop.unit() as uow:
        for kind in (Plain, Below, Repository[User], Users, Named[User]):
            found: Any = kind(uow)
            assert found.get(1).name == "Ada"
        assert [each.id for each in Users(uow).called("Grace")] == [2]


def test_a_parametrized_class_is_always_the_same() -> None:
    assert Repository[User] is Repository[User]
    assert Repository[User].__name__ == "Repository[User]"


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Repository["User"], "must be imported"),
        (lambda: Repository(None), "names no model"),  # type: ignore[arg-type]
        (lambda: Repository[int](None), "not a mapped class"),  # type: ignore[arg-type]
    ],
)
def test_a_class_without_a_mapped_model_is_refused(make: Any, text: str) -> None:
    with pytest.raises(InvalidModel, match=text):
        make()


# --- the session


def test_a_unit_of_work_a_session_and_the_databases_give_the_same_session(shop: Place) -> None:
    users = shop.kind("Repository")[User]
    by_databases = users(shop.dbs)
    with shop.unit() as uow:
        assert users(uow).session is uow.main
        assert users(uow.main).session is uow.main
        if shop.runner is None:
            assert by_databases.session is uow.main
    with shop.unit() as uow:
        if shop.runner is None:
            assert by_databases.session is uow.main


def test_databases_without_an_open_unit_say_so(shop: Place) -> None:
    with pytest.raises(NoUnitOfWork, match="unit_of_work"):
        shop.repository(User, shop.dbs).get(1)


def test_a_role_is_one_of_the_unit_of_work(shop: Place) -> None:
    with shop.unit() as uow:
        users = shop.kind("Repository")[User]
        assert users(uow, role="reader").session is uow.reader
        with pytest.raises(ValueError, match="has its role already"):
            users(uow.main, role="reader")


def test_a_scoped_session_is_asked_at_each_call(sqlite_shop: Place) -> None:
    users = Repository[User](sqlite_shop.dbs.scoped("main"))
    for _ in range(2):
        with sqlite_shop.unit() as uow:
            assert users.session is uow.main
            assert users.count() == 4


def test_a_source_of_the_other_world_is_refused(sqlite_shop: Place) -> None:
    with pytest.raises(TypeError, match="AsyncRepository for asyncio"):
        Repository[User](sqlite_shop.dbs.async_unit_of_work())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="AsyncRepository for asyncio"):
        Repository[User](AsyncSession())  # type: ignore[arg-type]


def test_the_base_of_a_model_names_its_database(two: Place) -> None:
    with two.unit() as uow:
        assert Repository[Event](uow).session is uow.audit
        assert Repository[User](uow).session is uow.main
        assert Repository[Event](uow, role="reader").session is uow.session("audit", role="reader")


def test_a_class_may_name_its_database(two: Place) -> None:
    class Copies(Repository[User], database="audit"): ...

    class Lost(Repository[User], database="lost"): ...

    with two.unit() as uow:
        assert Copies(uow).session is uow.audit
        with pytest.raises(UnknownDatabase, match="'lost'"):
            Lost(uow).count()


def test_a_repository_never_commits(sqlite_shop: Place) -> None:
    with Session(sqlite_shop.plain["main"].engine) as session:
        users: Any = Repository[User](session)
        users.create(id=9, name="Nobody")
        users.update(1, name="Somebody")
        users.delete(3)
        session.rollback()
        assert [each.name for each in users.list(User.id < 4, order_by="id")] == ["Ada", "Grace", "Edsger"]
        assert users.exists(id=9) is False


# --- two sides


def test_a_read_side_has_no_method_that_writes() -> None:
    writes = {name for name in dir(WriteRepository) if not name.startswith("_")} - set(dir(ReadRepository))
    assert {"add", "create", "update", "delete", "upsert", "load"} <= writes
    assert "list" not in dir(WriteRepository)


def test_a_read_side_cannot_write_through_its_objects(shop: Place) -> None:
    with pytest.raises(ReadOnlyError), shop.unit() as uow:
        users = shop.repository(User, uow, "ReadRepository")
        users.get(1).name = "Changed"
        shop.waiting(users.session).flush()
    with shop.plain["main"].session() as session:
        assert session.scalar(select(User.name).where(User.id == 1)) == "Ada"


def test_the_sides_use_the_reader_and_the_writer(shop: Place) -> None:
    with shop.unit() as uow:
        assert shop.kind("ReadRepository")[User](uow).session is uow.reader
        assert shop.kind("WriteRepository")[User](uow).session is uow.writer
        assert shop.kind("ReadRepository")[User](uow, role="writer").session is uow.writer


def test_a_write_side_gets_by_key(shop: Place) -> None:
    with shop.unit() as uow:
        assert shop.repository(User, uow, "WriteRepository").get(1).name == "Ada"


# --- errors


def test_a_database_error_is_ours_with_the_model_and_the_original(shop: Place) -> None:
    with pytest.raises(UniqueViolation) as raised, shop.unit() as uow:
        shop.repository(User, uow).create(id=9, name="Other", email="ada@example.org")
    assert raised.value.model is User
    assert raised.value.__cause__ is not None


# --- autocommit


def autocommit(place: Place, model: type[Any], kind: str = "Repository", **options: Any) -> Any:
    return place.waiting(place.kind(kind)[model].autocommit(place.dbs, **options))


@contextlib.contextmanager
def failing(engine: Engine, *, times: int) -> Iterator[list[int]]:
    """
    Let the first statements fail; yield as many items as there were statements.
    """
    tries: list[int] = []

    def fail(*_: Any) -> None:
        tries.append(1)
        if len(tries) <= times:
            raise SerializationFailure("made up by the test")

    event.listen(engine, "before_cursor_execute", fail)
    yield tries
    event.remove(engine, "before_cursor_execute", fail)


def test_autocommit_commits_each_call(shop: Place) -> None:
    users = autocommit(shop, User)
    users.create(id=9, name="Linus")
    with shop.plain["main"].session() as session:
        assert session.get(User, 9) is not None
    assert users.get(9).name == "Linus"
    with pytest.raises(UniqueViolation):
        users.create(id=10, name="Other", email="ada@example.org")
    assert users.count() == 5


def test_autocommit_is_apart_from_the_unit_of_work_around_it(postgresql_shop: Place) -> None:
    with postgresql_shop.unit() as uow:
        autocommit(postgresql_shop, User).create(id=9, name="Linus")
        uow.doom("only the outer unit is rolled back")
    with postgresql_shop.plain["main"].session() as session:
        assert session.get(User, 9) is not None


def test_autocommit_tries_a_call_again(shop: Place) -> None:
    engine = shop.dbs["main"].engine if shop.runner is None else shop.dbs["main"].async_engine.sync_engine
    with failing(engine, times=2) as tries:
        assert autocommit(shop, User, retry=Retry(attempts=3, base=0.001)).get(1).name == "Ada"
        assert len(tries) == 3
    with failing(engine, times=2), pytest.raises(SerializationFailure):
        autocommit(shop, User, retry=Retry(attempts=1)).get(1)


def test_a_call_that_is_tried_again_has_the_keys_of_a_generator_again(sqlite_shop: Place) -> None:
    users = autocommit(sqlite_shop, User, retry=Retry(attempts=2, base=0.001))
    with failing(sqlite_shop.dbs["main"].engine, times=1) as tries:
        assert [user.name for user in users.get_many(number for number in (2, 1))] == ["Grace", "Ada"]
    assert len(tries) == 2


def test_a_commit_that_fails_under_autocommit_is_our_error(postgresql_shop: Place) -> None:
    create_tables(postgresql_shop, LazyBase.metadata)
    with pytest.raises(ForeignKeyViolation) as raised:
        autocommit(postgresql_shop, Lazy).create(id=1, other_id=99)
    assert raised.value.model is Lazy


def test_a_stream_under_autocommit_keeps_its_unit_open_and_to_itself(shop: Place) -> None:
    stream = autocommit(shop, User).stream(order_by="id", batch=1)
    assert next(stream).id == 1
    assert not shop.dbs.has_current
    assert len(shop.dbs.declared.open_units) == 1
    assert [each.id for each in stream] == [2, 3, 4]
    assert len(shop.dbs.declared.open_units) == 0


def test_a_stream_under_autocommit_that_is_left_early_ends_its_unit(shop: Place) -> None:
    stream = autocommit(shop, User, "ReadRepository").stream(batch=1)
    next(stream)
    stream.close()
    assert len(shop.dbs.declared.open_units) == 0


def test_autocommit_shows_deleted_rows_where_asked(shop: Place) -> None:
    notes = autocommit(shop, Note)
    notes.create(id=1, text="x")
    notes.delete(1)
    assert notes.get(1) is None
    assert notes.with_deleted().get(1).text == "x"
