"""
Tests of what is known of an instance without the database: repr, to_dict, secrets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, column_property, mapped_column, relationship

from stillroom.models import ColumnsNotLoaded, ModelBase, UnknownColumn, secret_columns

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy import Engine


class Base(ModelBase, DeclarativeBase, database="main"):
    """
    The base of the models in this file.
    """


class User(Base):
    """
    A table with secrets, a deferred column, an attribute with another name than its column, and a relationship.
    """

    __tablename__ = "user_account"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    password_hash: Mapped[str] = mapped_column(default="x")
    pet_name: Mapped[str] = mapped_column(default="Rex", info={"secret": True})
    token_count: Mapped[int] = mapped_column(default=3, info={"secret": False})
    mail: Mapped[str | None] = mapped_column("mail_address")
    photo: Mapped[bytes | None]
    biography: Mapped[str | None] = mapped_column(deferred=True)
    shout: Mapped[str] = column_property(sa.literal("HEY"))
    boss_id: Mapped[int | None] = mapped_column(sa.ForeignKey("user_account.id"))
    boss: Mapped[User | None] = relationship(remote_side="User.id")


class Ticket(Base):
    """
    A table whose key has two columns, one of them secret.
    """

    __tablename__ = "ticket"
    number: Mapped[int] = mapped_column(primary_key=True)
    token: Mapped[str] = mapped_column(primary_key=True)


COLUMNS = ["id", "name", "password_hash", "pet_name", "token_count", "mail", "photo", "biography", "boss_id"]


@pytest.fixture
def session(sqlite_engine: Engine) -> Iterator[Session]:
    Base.metadata.create_all(sqlite_engine)
    with Session(sqlite_engine) as session:
        session.add(User(id=1, name="Ada", biography="long", photo=b"x" * 100))
        session.commit()
        yield session


@pytest.fixture
def statements(sqlite_engine: Engine) -> list[str]:
    """
    The statements that are sent from now on.
    """
    sent: list[str] = []

    @sa.event.listens_for(sqlite_engine, "before_cursor_execute")
    def note(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        sent.append(statement)

    return sent


def test_a_loaded_instance_shows_its_key_and_short_columns(session: Session) -> None:
    user = session.get_one(User, 1)
    assert repr(user) == "<User id=1 name='Ada' token_count=3 mail=None boss_id=None>"


def test_a_new_instance_says_so() -> None:
    assert repr(User(name="Ada")) == "<User new name='Ada'>"


def test_an_expired_instance_shows_its_key_without_a_statement(session: Session, statements: list[str]) -> None:
    user = session.get_one(User, 1)
    session.expire(user)
    statements.clear()
    assert repr(user) == "<User id=1>"
    assert statements == []


def test_a_detached_expired_instance_shows_its_key(session: Session) -> None:
    user = session.get_one(User, 1)
    session.expire(user)
    session.expunge(user)
    assert repr(user) == "<User id=1>"


def test_neither_deferred_columns_nor_relationships_are_loaded(session: Session, statements: list[str]) -> None:
    user = session.scalars(sa.select(User)).one()
    statements.clear()
    shown = repr(user)
    assert "biography" not in shown
    assert "boss=" not in shown
    assert statements == []


def test_long_text_is_cut() -> None:
    shown = repr(User(name="x" * 1_000))
    assert "…" in shown
    assert len(shown) < 80


def test_secrets_are_left_out_and_masked_in_a_key() -> None:
    assert "hidden" not in repr(User(password_hash="hidden", pet_name="hidden"))
    assert repr(Ticket(number=1, token="hidden")) == "<Ticket new number=1 token=***>"


def test_secret_columns_are_known_by_name_and_by_info() -> None:
    assert secret_columns(User) == ("password_hash", "pet_name")
    assert secret_columns(Ticket) == ("token",)


def test_to_dict_has_all_columns_by_the_names_of_attributes(session: Session) -> None:
    found = session.get_one(User, 1).to_dict()
    assert list(found) == COLUMNS
    assert (found["name"], found["biography"]) == ("Ada", "long")


def test_to_dict_loads_what_is_expired(session: Session) -> None:
    user = session.get_one(User, 1)
    session.expire(user)
    assert user.to_dict()["name"] == "Ada"


def test_to_dict_of_a_new_instance_has_none_for_what_is_not_set() -> None:
    assert User(name="Ada").to_dict() == dict.fromkeys(COLUMNS) | {"name": "Ada"}


def test_to_dict_of_loaded_columns_sends_nothing(session: Session, statements: list[str]) -> None:
    user = session.scalars(sa.select(User)).one()
    statements.clear()
    assert list(user.to_dict(loaded_only=True)) == [name for name in COLUMNS if name != "biography"]
    session.expire(user)
    assert user.to_dict(loaded_only=True) == {}
    assert statements == []


def test_to_dict_takes_what_to_include_and_exclude(session: Session) -> None:
    user = session.get_one(User, 1)
    assert user.to_dict(include=["name", "id"]) == {"name": "Ada", "id": 1}
    assert list(user.to_dict(include=["name", "id"], exclude=["id"])) == ["name"]
    assert not set(user.to_dict(exclude=secret_columns(User))) & {"password_hash", "pet_name"}


@pytest.mark.parametrize("argument", ["include", "exclude"])
def test_to_dict_refuses_an_unknown_column_and_names_the_nearest(argument: str) -> None:
    arguments: dict[str, Any] = {argument: ["nmae"]}
    with pytest.raises(UnknownColumn, match="did you mean 'name'"):
        User().to_dict(**arguments)


def test_to_dict_of_a_detached_instance_names_what_is_not_loaded(session: Session) -> None:
    user = session.get_one(User, 1)
    session.expunge(user)
    assert user.to_dict(exclude=["biography"])["name"] == "Ada"
    with pytest.raises(ColumnsNotLoaded, match=r"<User id=1 .*'biography'.*no session") as caught:
        user.to_dict()
    assert caught.value.columns == ("biography",)


def test_to_dict_in_an_async_session_names_what_is_not_loaded(tmp_path: Path) -> None:
    import asyncio

    async def work() -> None:
        engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'async.db'}")
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        async with AsyncSession(engine) as session:
            session.add(User(id=1, name="Ada"))
            await session.commit()
            user = await session.get_one(User, 1)
            with pytest.raises(ColumnsNotLoaded, match="AsyncSession") as caught:
                user.to_dict()
            assert caught.value.columns == ("biography",)
            assert repr(user).startswith("<User id=1 name='Ada'")
        await engine.dispose()

    asyncio.run(work())
