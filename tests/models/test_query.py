"""
Tests of the finder methods, on each backend, synchronous and asynchronous.
"""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, scoped_session, sessionmaker

from stillroom.models import (
    AsyncQueryMixin,
    InvalidModel,
    ModelBase,
    QueryMixin,
    SelectMixin,
    UnknownColumn,
    session_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sqlalchemy import URL, Engine

TRICKY = ["50%", "500", "a_b", "axb", "a/b", "a\\b", "a*b", "a?b", "a[b", "it's", 'say "x"', "a:b"]
NAMES = ["Ada", "ada", "ADA", "Ada ", "Àda", "Adam", "Bob", *TRICKY]


class Base(ModelBase, DeclarativeBase, database="main"):
    """
    The base of the models in this file.
    """


class User(QueryMixin, Base):
    """
    A table with text, a number and nothing.
    """

    __tablename__ = "user_account"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(50))
    age: Mapped[int | None]


class Other(Base):
    """
    Another model.
    """

    __tablename__ = "other"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(50))


class AsyncUser(AsyncQueryMixin, Base):
    """
    The same table for asynchronous sessions.
    """

    __table__ = User.__table__
    name: Mapped[str]


def fill(session: Session) -> None:
    Base.metadata.create_all(session.connection())
    session.add_all([User(id=number, name=name) for number, name in enumerate(NAMES, 1)])
    session.commit()


@pytest.fixture
def session(engine: Engine) -> Iterator[Session]:
    with Session(engine) as session:
        fill(session)
        yield session


def names(users: Sequence[User]) -> list[str]:
    return [user.name for user in users]


class Unit:
    """
    A stand-in for any object that gives sessions by the names of databases, and takes every attribute for one.
    """

    def __init__(self, session: Session) -> None:
        self.held = {"main": session}

    def session(self, name: str) -> Session:
        return self.held[name]

    def __getattr__(self, name: str) -> Session:
        raise LookupError(name)


def test_a_row_is_found_by_its_key(session: Session) -> None:
    found = User.by_id(session, 1)
    assert found is not None
    assert found.name == "Ada"
    assert User.by_id(session, 10_000) is None


def test_exact_is_exact_whatever_the_collation(session: Session) -> None:
    assert names(User.all_by(session, "name", "Ada")) == ["Ada"]
    assert names(User.all_by(session, User.name, "Ada ")) == ["Ada "]
    assert User.first_by(session, "name", "bob") is None


@pytest.mark.parametrize("name", TRICKY)
def test_every_character_stands_for_itself(session: Session, name: str) -> None:
    assert names(User.all_by(session, "name", name)) == [name]
    assert names(User.all_by_lower(session, "name", name.upper())) == [name]
    for ignoring_case in (False, True):
        assert names(User.starting_with(session, "name", name, ignoring_case=ignoring_case)) == [name]
        assert names(User.containing(session, "name", name[1:], ignoring_case=ignoring_case)) == [
            each for each in NAMES if name[1:].lower() in (each.lower() if ignoring_case else each)
        ]


def test_none_finds_null_and_numbers_are_compared_as_numbers(session: Session) -> None:
    session.add(User(id=100, name="x", age=7))
    session.commit()
    assert len(User.all_by(session, "age", None)) == len(NAMES)
    assert len(User.all_by_lower(session, "age", None)) == len(NAMES)
    assert names(User.all_by(session, "age", 7)) == ["x"]
    assert names(User.all_by_lower(session, "age", 7)) == ["x"]


def test_case_is_ignored_and_nothing_else(session: Session) -> None:
    assert names(User.all_by_lower(session, "name", "aDa")) == ["Ada", "ada", "ADA"]
    found = User.first_by_lower(session, "name", "aDa")
    assert found is not None
    assert found.name == "Ada"


def test_an_exact_row_is_preferred_to_those_ignoring_case(session: Session) -> None:
    assert names(User.exact_or_ignoring_case(session, "name", "ada")) == ["ada"]
    assert names(User.exact_or_ignoring_case(session, "name", "aDa")) == ["Ada", "ada", "ADA"]
    assert User.exact_or_ignoring_case(session, "name", "nobody") == []


def test_prefix_and_substring_regard_case_unless_told(session: Session) -> None:
    assert names(User.starting_with(session, "name", "Ad")) == ["Ada", "Ada ", "Adam"]
    assert names(User.starting_with(session, "name", "aD", ignoring_case=True)) == ["Ada", "ada", "ADA", "Ada ", "Adam"]
    assert names(User.containing(session, "name", "da")) == ["Ada", "ada", "Ada ", "Àda", "Adam"]
    assert names(User.containing(session, "name", "DAM", ignoring_case=True)) == ["Adam"]


def test_an_empty_prefix_finds_all(session: Session) -> None:
    assert names(User.starting_with(session, "name", "")) == NAMES


def test_a_range_is_ordered_by_key_with_offset_and_limit(session: Session) -> None:
    assert names(User.range(session, limit=2)) == NAMES[:2]
    assert names(User.range(session, offset=2, limit=3)) == NAMES[2:5]
    assert names(User.range(session, descending=True, limit=1)) == NAMES[-1:]
    assert User.range(session, limit=0) == []


def test_a_range_has_a_limit_unless_told_otherwise(session: Session) -> None:
    session.add_all([User(id=number, name="x") for number in range(100, 200)])
    assert len(User.range(session)) == 50


def test_equal_rows_are_ordered_by_key(session: Session) -> None:
    pages = [User.range(session, order_by="age", offset=offset, limit=4) for offset in range(0, len(NAMES), 4)]
    assert sum((names(page) for page in pages), []) == NAMES  # noqa: RUF017


def test_a_range_can_ignore_case_and_take_conditions(session: Session) -> None:
    letters = ["b", "A", "C", "a"]
    session.add_all([User(id=number, name=name, age=1) for number, name in enumerate(letters, 200)])
    found = User.range(session, order_by=User.name, ignoring_case=True, where=[User.age == 1])
    assert names(found) == ["A", "a", "b", "C"]


@pytest.mark.parametrize("arguments", [{"offset": -1}, {"limit": -1}])
def test_a_negative_range_is_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="=-1 is negative"):
        User.select_range(**arguments)


def test_an_unknown_column_is_refused_with_the_nearest() -> None:
    with pytest.raises(UnknownColumn, match="User has no column 'nmae'; did you mean 'name'"):
        User.select_by("nmae", 1)


def test_an_attribute_of_another_model_is_refused() -> None:
    with pytest.raises(UnknownColumn, match=r"Other\.name is no column of User"):
        User.select_by(Other.name, "x")


def test_a_unit_of_work_gives_the_session_of_the_models_database(session: Session) -> None:
    unit = Unit(session)
    assert session_of(unit, User) is session
    assert names(User.all_by(unit, "name", "Ada")) == ["Ada"]


def test_a_scoped_session_is_a_session(engine: Engine, session: Session) -> None:
    scoped = scoped_session(sessionmaker(engine))
    try:
        assert names(User.all_by(scoped, "name", "Ada")) == ["Ada"]
    finally:
        scoped.remove()


def test_a_model_without_a_database_needs_a_session(sqlite_engine: Engine) -> None:
    class Bare(DeclarativeBase):
        pass

    with Session(sqlite_engine) as session, pytest.raises(InvalidModel, match="pass a session"):
        session_of(Unit(session), Bare)


def test_the_indexed_column_is_compared_as_it_is(sqlite_engine: Engine) -> None:
    with Session(sqlite_engine) as session:
        fill(session)
        session.execute(sa.text("CREATE INDEX by_name ON user_account (name)"))
        for statement in (User.select_by("name", "Ada"), User.select_starting_with("name", "Ad")):
            text = str(statement.compile(sqlite_engine, compile_kwargs={"literal_binds": True}))
            plan = session.execute(sa.text(f"EXPLAIN QUERY PLAN {text}")).all()
            assert any("by_name" in row[3] for row in plan)


def test_a_sqlite_column_that_ignores_case_is_compared_exactly(sqlite_engine: Engine) -> None:
    with Session(sqlite_engine) as session:
        session.execute(sa.text("CREATE TABLE user_account (id INTEGER, name TEXT COLLATE NOCASE, age INTEGER)"))
        session.execute(sa.text("INSERT INTO user_account VALUES (1, 'Ada', 1)"))
        assert User.all_by(session, "name", "ada") == []
        assert names(User.all_by_lower(session, "name", "ada")) == ["Ada"]


def test_a_mariadb_column_of_another_character_set_is_compared_exactly(mariadb_engine: Engine) -> None:
    with Session(mariadb_engine) as session:
        session.execute(sa.text("CREATE TABLE user_account (id INT, name VARCHAR(50) CHARACTER SET latin1, age INT)"))
        session.execute(sa.text("INSERT INTO user_account VALUES (1, 'Zoë', 1), (2, 'zoe', 1)"))
        assert names(User.all_by(session, "name", "Zoë")) == ["Zoë"]
        assert names(User.all_by_lower(session, "name", "ZOË")) == ["Zoë"]
        assert names(User.starting_with(session, "name", "Zoë")) == ["Zoë"]


async def find_all(session: AsyncSession) -> list[list[str]]:
    one = await AsyncUser.by_id(session, 1)
    assert isinstance(one, AsyncUser)
    first = await AsyncUser.first_by(session, "name", "Ada")
    lower = await AsyncUser.first_by_lower(session, "name", "aDa")
    found: list[Sequence[AsyncUser | User]] = [
        [each for each in (one, first, lower) if each is not None],
        await AsyncUser.all_by(session, "name", "Ada"),
        await AsyncUser.all_by_lower(session, "name", "aDa"),
        await AsyncUser.exact_or_ignoring_case(session, "name", "ada"),
        await AsyncUser.exact_or_ignoring_case(session, "name", "aDa"),
        await AsyncUser.starting_with(session, "name", "50%"),
        await AsyncUser.containing(session, "name", "_"),
        await AsyncUser.range(session, limit=2, descending=True),
        await session.run_sync(User.all_by, "name", "Bob"),
    ]
    return [[user.name for user in users] for users in found]


def test_asynchronous_finders_find_the_same(session: Session, async_url: Callable[[], URL]) -> None:
    async def work() -> list[list[str]]:
        engine = create_async_engine(async_url())
        try:
            async with AsyncSession(engine) as asynchronous:
                return await find_all(asynchronous)
        finally:
            await engine.dispose()

    session.rollback()
    everyone = ["Ada", "ada", "ADA"]
    assert asyncio.run(work()) == [
        ["Ada", "Ada", "Ada"],
        ["Ada"],
        everyone,
        ["ada"],
        everyone,
        ["50%"],
        ["a_b"],
        NAMES[-1:-3:-1],
        ["Bob"],
    ]


def finders(mixin: type[Any]) -> dict[str, inspect.Signature]:
    return {name: inspect.signature(getattr(mixin, name)) for name in vars(mixin) if not name.startswith("_")}


def test_both_kinds_of_finders_have_the_same_names_and_parameters() -> None:
    def plain(signature: inspect.Signature) -> list[tuple[str, Any, Any]]:
        return [(each.name, each.kind, each.default) for each in signature.parameters.values()]

    ours, theirs = finders(QueryMixin), finders(AsyncQueryMixin)
    assert {name: plain(each) for name, each in ours.items()} == {name: plain(each) for name, each in theirs.items()}
    assert {name: each.return_annotation for name, each in ours.items()} == {
        name: each.return_annotation for name, each in theirs.items()
    }


def test_the_finder_of_a_range_takes_what_its_statement_takes() -> None:
    ours, statement = (
        inspect.signature(QueryMixin.range).parameters,
        inspect.signature(SelectMixin.select_range).parameters,
    )
    assert {name: each.default for name, each in ours.items() if name != "session"} == {
        name: each.default for name, each in statement.items()
    }


def test_a_condition_can_be_negated_and_combined(session: Session) -> None:
    condition = User.select_by("name", "Ada").whereclause
    assert condition is not None
    assert "Ada" not in names(session.scalars(sa.select(User).where(~condition)).all())
    either = sa.or_(condition, User.name == "Bob")
    assert names(session.scalars(sa.select(User).where(either).order_by(User.id)).all()) == ["Ada", "Bob"]
