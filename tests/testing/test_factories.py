"""Factories: where their rows go, in both worlds, over several databases, and what they refuse."""

from __future__ import annotations

import asyncio
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest
from polyfactory import Ignore, Use
from polyfactory.factories.base import BaseFactory
from polyfactory.factories.sqlalchemy_factory import SQLAlchemyFactory
from sqlalchemy import ForeignKey, String, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from stillroom import Databases, MissingExtra, NoUnitOfWork
from stillroom.testing.errors import TestingError
from stillroom.testing.factories import factory_boy_base, polyfactory_base

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Base(DeclarativeBase):
    """
    The models of the database "main".
    """


class AuditBase(DeclarativeBase):
    """
    The models of the database "audit".
    """


class User(Base):
    """
    Its state is filled in by the server.
    """

    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(40), unique=True)
    email: Mapped[str | None] = mapped_column(String(40))
    event_id: Mapped[int | None]
    state: Mapped[str] = mapped_column(String(10), server_default="new")
    # What the server filled in is not asked for by the INSERT.
    __mapper_args__ = {"eager_defaults": False}  # noqa: RUF012  # as SQLAlchemy writes it


class Post(Base):
    """
    Needs a user.
    """

    __tablename__ = "posts"
    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
    user: Mapped[User] = relationship()


class Country(Base):
    """
    Has a key that nobody makes.
    """

    __tablename__ = "countries"
    code: Mapped[str] = mapped_column(String(20), primary_key=True)


class Event(AuditBase):
    """
    Is in another database.
    """

    __tablename__ = "events"
    id: Mapped[int] = mapped_column(primary_key=True)
    what: Mapped[str] = mapped_column(String(40))


# Nothing is configured when an application's factories are imported.
dbs = Databases()

# Whose declarations have no types.
factory: Any = import_module("factory")

if TYPE_CHECKING:  # a type checker wants a base to be a class of a module
    from polyfactory.factories.sqlalchemy_factory import SQLAlchemyFactory as PolyMain

    class Main:
        """
        As much as is used here.
        """

        build: Any
        create: Any
        create_batch: Any
        create_async: Any
        create_batch_async: Any
        reset_sequences: Any

        def __new__(cls, **kwargs: Any) -> Any: ...

    Audit = Main
else:
    Main = factory_boy_base(dbs, "main")
    Audit = factory_boy_base(dbs, "audit")
    PolyMain = polyfactory_base(dbs, "main")

PolyAudit = polyfactory_base(dbs, "audit")


class EventFactory(Audit):
    """
    For another database.
    """

    class Meta:
        """
        What is made.
        """

        model = Event

    what = factory.Sequence(lambda number: f"event {number}")


class UserFactory(Main):
    """
    For the database "main".
    """

    class Meta:
        """
        What is made.
        """

        model = User

    name = factory.Sequence(lambda number: f"user {number}")


class AuditedUserFactory(UserFactory):
    """
    Refers to a row of another database.
    """

    class Meta:
        """
        What is made.
        """

        model = User
        exclude = ("event",)

    event = factory.SubFactory(EventFactory)
    event_id = factory.SelfAttribute("event.id")


class PostFactory(Main):
    """
    Needs another row.
    """

    class Meta:
        """
        What is made.
        """

        model = Post

    user = factory.SubFactory(UserFactory)


class PolyUser(PolyMain[User]):
    """
    Leaves its state to the server.
    """

    event_id = None
    state = Ignore()


class PolyPost(PolyMain[Post]):
    """
    Sets nothing.
    """


class PolyCountry(PolyMain[Country]):
    """
    Sets nothing.
    """


PolyEvent = PolyAudit.create_factory(Event)


class PolyAuditedUser(PolyMain[User]):
    """
    Refers to a row of another database.
    """

    event_id = Use(lambda: PolyEvent.create_sync().id)


@pytest.fixture(autouse=True)
def configured(tmp_path: Path) -> Iterator[None]:
    """
    Two databases, on SQLite; the factories begin anew.
    """
    for base in (Main, Audit):
        base.reset_sequences()
    PolyMain.seed_random(7)  # a name that is made up may be empty, and so not unique
    dbs.configure(
        {
            "databases": {
                "main": {"url": f"sqlite:///{tmp_path / 'main.db'}"},
                "audit": {"url": f"sqlite:///{tmp_path / 'audit.db'}"},
            }
        }
    )
    with dbs.unit_of_work() as uow:
        Base.metadata.create_all(uow.main.connection())
        AuditBase.metadata.create_all(uow.audit.connection())
    yield
    asyncio.run(dbs.main.aclose())
    asyncio.run(dbs.audit.aclose())


def count(model: type[Any], name: str = "main") -> int:
    with dbs.transaction(propagation="new") as uow:
        return uow.session(name, role="reader").scalar(select(func.count()).select_from(model)) or 0


# --- factory_boy


def test_a_row_is_flushed_into_the_current_unit_of_work_and_not_committed() -> None:
    with dbs.unit_of_work(commit="manual") as uow:
        user = UserFactory.create(name="Ada")
        assert uow.main.get(User, user.id) is user
        assert count(User) == 0
    assert count(User) == 0


def test_rows_are_committed_with_the_unit_of_work() -> None:
    with dbs.unit_of_work():
        UserFactory.create_batch(3)
        PostFactory()
    assert (count(User), count(Post)) == (4, 1)


def test_each_unit_of_work_gets_its_own_rows() -> None:
    with dbs.unit_of_work() as first:
        ada = UserFactory()
        assert ada in first.main
    with dbs.unit_of_work() as second:
        bea = UserFactory()
        assert bea in second.main
    with pytest.raises(NoUnitOfWork):
        UserFactory()


def test_a_subfactory_puts_its_row_into_its_own_database() -> None:
    with dbs.unit_of_work() as uow:
        user = AuditedUserFactory()
        assert uow.audit.scalars(select(Event.what).where(Event.id == user.event_id)).one() == "event 0"
    assert (count(User), count(Event, "audit")) == (1, 1)


def test_a_base_without_a_name_is_for_the_default_database() -> None:
    made: Any = factory_boy_base(dbs)
    users: Any = type("Users", (made,), {"Meta": type("Meta", (), {"model": User}), "name": "Ada"})
    with dbs.unit_of_work() as uow:
        assert users.create() in uow.main


def test_without_a_unit_of_work_the_error_says_what_to_ask_for() -> None:
    with pytest.raises(NoUnitOfWork, match="no unit of work is open") as caught:
        UserFactory.create()
    assert "the fixture `uow`" in caught.value.__notes__[0]
    assert UserFactory.build(name="Ada").name == "Ada"


def test_get_or_create_takes_the_row_that_is_there() -> None:
    class Named(Main):
        class Meta:
            model = User
            sqlalchemy_get_or_create = ("name",)

    with dbs.unit_of_work():
        assert Named(name="Ada") is Named(name="Ada")
    assert count(User) == 1


def test_get_or_create_takes_the_row_in_the_way_and_keeps_what_was_made_before() -> None:
    class Named(Main):
        class Meta:
            model = User
            sqlalchemy_get_or_create = ("name", "email")

        email = factory.Sequence(lambda number: f"{number}@example.org")

    with dbs.unit_of_work():
        before = UserFactory()
        ada = Named(name="Ada")
        assert Named(name="Ada") is ada
        assert before.name == "user 0"
    assert count(User) == 2


def test_get_or_create_raises_what_stands_in_the_way_of_a_made_up_row() -> None:
    class Keyed(Main):
        class Meta:
            model = User
            sqlalchemy_get_or_create = ("email",)

        name = "Ada"
        email = factory.Sequence(lambda number: f"{number}@example.org")

    with dbs.unit_of_work():
        Keyed()
        with pytest.raises(IntegrityError):
            Keyed()
    assert count(User) == 1


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("sqlalchemy_session", object()),
        ("sqlalchemy_session_factory", object),
        ("sqlalchemy_session_persistence", "commit"),
    ],
)
def test_what_leads_elsewhere_or_commits_is_refused(option: str, value: Any) -> None:
    meta = type("Meta", (), {"model": User, option: value})
    users: Any = type("Users", (Main,), {"Meta": meta})
    with dbs.unit_of_work():
        with pytest.raises(TestingError, match=rf"Users\.Meta\.{option} is set"):
            users.create()


def test_sequences_begin_anew_with_all_that_inherit() -> None:
    UserFactory.build(), PostFactory.build()
    Main.reset_sequences()
    assert UserFactory.build().name == "user 0"
    assert AuditedUserFactory.build(event=None, event_id=None).name == "user 1"


# --- polyfactory


def test_polyfactory_flushes_and_does_not_commit() -> None:
    with dbs.unit_of_work(commit="manual") as uow:
        user = PolyUser.create_sync()
        assert uow.main.get(User, user.id) is user
        assert count(User) == 0


def test_polyfactory_makes_related_rows_with_keys_of_the_database() -> None:
    with dbs.unit_of_work():
        posts = PolyPost.create_batch_sync(3)
        assert [(post.id, post.user.id) for post in posts] == [(1, 1), (2, 2), (3, 3)]
    assert (count(User), count(Post)) == (3, 3)


def test_polyfactory_makes_up_a_key_that_nobody_else_makes() -> None:
    with dbs.unit_of_work():
        assert PolyCountry.create_sync().code is not None


def test_polyfactory_uses_several_databases() -> None:
    with dbs.unit_of_work() as uow:
        user = PolyAuditedUser.create_sync()
        assert uow.audit.get(Event, user.event_id) is not None
    assert (count(User), count(Event, "audit")) == (1, 1)


def test_polyfactory_without_a_unit_of_work_says_what_to_ask_for() -> None:
    with pytest.raises(NoUnitOfWork) as caught:
        PolyUser.create_sync()
    assert "the fixture `uow`" in caught.value.__notes__[0]


def test_a_base_serves_no_other_factories_of_the_process() -> None:
    before = list(BaseFactory._base_factories)
    made: Any = polyfactory_base(dbs)

    class Configured(made):  # type: ignore[misc]  # the base is made here
        __is_base_factory__ = True
        __allow_none_optionals__ = False

    assert before == BaseFactory._base_factories

    class Others(SQLAlchemyFactory[Post]):
        pass

    with dbs.unit_of_work() as uow:
        assert Configured.create_factory(User, event_id=1).create_sync().email is not None
        post = Others.build()
        assert post not in uow.main
        assert isinstance(post.user, User)


# --- asyncio


def test_rows_are_made_in_a_unit_of_work_of_asyncio() -> None:
    async def make() -> list[str]:
        async with dbs.async_unit_of_work():
            one, several = await UserFactory.create_async(), await UserFactory.create_batch_async(2)
            poly, polys = await PolyUser.create_async(), await PolyUser.create_batch_async(2)
            return [user.state for user in (one, *several, poly, *polys)]

    assert asyncio.run(make()) == ["new"] * 6  # filled in by the server, and read without a statement
    assert count(User) == 6


def test_several_databases_are_used_with_asyncio() -> None:
    async def make() -> None:
        async with dbs.async_unit_of_work() as uow:
            for user in (await AuditedUserFactory.create_async(), await PolyAuditedUser.create_async()):
                assert await uow.audit.get(Event, user.event_id) is not None

    asyncio.run(make())
    assert (count(User), count(Event, "audit")) == (2, 2)


def test_tasks_at_once_put_rows_into_their_own_units_of_work() -> None:
    async def make(names: list[str]) -> list[str]:
        async with dbs.async_unit_of_work(commit="manual") as uow:
            for name in names:
                await UserFactory.create_async(name=name)
                await asyncio.sleep(0)
            found = list(await uow.main.scalars(select(User.name).order_by(User.name)))
            await uow.rollback()
            return found

    async def both() -> list[list[str]]:
        return list(await asyncio.gather(make(["a", "b"]), make(["c", "d"])))

    assert asyncio.run(both()) == [["a", "b"], ["c", "d"]]


@pytest.mark.parametrize("create", [UserFactory.create, PolyUser.create_sync])
def test_creation_that_nobody_awaits_is_refused_in_a_unit_of_work_of_asyncio(create: Any) -> None:
    async def make() -> None:
        async with dbs.async_unit_of_work():
            create()

    with pytest.raises(TestingError, match=r"await Factory\.create_async\(\)"):
        asyncio.run(make())


@pytest.mark.parametrize("create", [UserFactory.create_async, PolyUser.create_async])
def test_asynchronous_creation_is_refused_in_a_synchronous_unit_of_work(create: Any) -> None:
    with dbs.unit_of_work():
        with pytest.raises(TestingError, match="needs a unit of work of asyncio"):
            asyncio.run(create())


def test_asynchronous_creation_without_a_unit_of_work_says_what_to_ask_for() -> None:
    with pytest.raises(NoUnitOfWork) as caught:
        asyncio.run(UserFactory.create_async())
    assert "`async_uow`" in caught.value.__notes__[0]


# --- what is not installed


@pytest.mark.parametrize(
    ("module", "base", "package"),
    [
        ("factory.alchemy", factory_boy_base, "factory_boy"),
        ("polyfactory.factories.sqlalchemy_factory", polyfactory_base, "polyfactory"),
    ],
)
def test_a_missing_package_is_named(module: str, base: Any, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtra, match=f"pip install {package}"):
        base(dbs)
