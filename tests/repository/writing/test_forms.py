"""
What goes in and comes out of the write side beside mapped objects: domain objects, dataclass models, and no session.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import String
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import DeclarativeBase, Mapped, MappedAsDataclass, mapped_column

from stillroom import AsyncRepository, Databases, Repository
from stillroom.models import ModelBase
from tests.repository.writing.models import Account, Notes, Person

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from tests.repository.writing.conftest import Shop


@dataclass
class Purse:
    """
    A domain object of an account, which knows nothing of versions and times.
    """

    code: str
    balance: int = 0
    id: int | None = None


class Purses(Repository[Account, Purse]):
    """
    Purses in, purses out.
    """


def test_domain_objects_go_in_and_come_out_of_every_way_of_writing(shop: Shop) -> None:
    def body(session: Session) -> list[Any]:
        purses = Purses(session)
        added = purses.add(Purse("a", 1))
        assert added.id is not None
        assert purses.add_all([Purse("b", 2)])[0].balance == 2
        assert purses.create(code="c").balance == 0
        assert purses.update(added.id, balance=5) == Purse("a", 5, added.id)
        assert purses.save(Purse("a", 6, added.id)) == Purse("a", 6, added.id)
        assert purses.save(Purse("d", 4)).id is not None
        assert purses.get_or_create(code="a") == (Purse("a", 6, added.id), False)
        assert purses.upsert({"code": "a", "balance": 7}, match=["code"]).balance == 7
        purses.delete(added.id)
        return sorted((purse.code, purse.balance) for purse in purses.list())

    assert shop(body) == [("b", 2), ("c", 0), ("d", 4)]


class Base(ModelBase, MappedAsDataclass, DeclarativeBase, database="main"):
    """
    Models that are dataclasses.
    """


class Point(Base):
    """
    A model with a field that its constructor does not take, and a hybrid.
    """

    __tablename__ = "point"
    id: Mapped[int] = mapped_column(primary_key=True, init=False)
    label: Mapped[str] = mapped_column(String(20), unique=True)
    x: Mapped[int] = mapped_column(default=0)

    @hybrid_property
    def half(self) -> float:
        """
        Half of x.
        """
        return self.x / 2

    @half.inplace.setter
    def _half(self, value: float) -> None:
        self.x = int(value * 2)


def test_models_that_are_dataclasses_take_all_of_their_attributes(sqlite_database: str) -> None:
    with Databases({"databases": {"main": {"url": sqlite_database}}}) as dbs:
        Base.metadata.create_all(dbs["main"].engine)
        with dbs.unit_of_work() as uow:
            points = Repository[Point](uow)
            assert points.create(id=7, label="a", half=1.5).x == 3
            assert points.get_or_create({"x": 2}, label="b")[0].x == 2
            assert points.upsert({"label": "b", "x": 4}, match=["label"]).x == 4


def test_each_call_of_an_autocommit_repository_is_durable_and_can_be_read_afterwards(shop: Shop) -> None:
    if shop.place.runner is not None:
        pytest.skip("this is about threads")
    notes = Notes.autocommit(shop.place.dbs)
    note = notes.create(slug="a")
    assert notes.update(note.id, text="x").version == 2
    assert notes.upsert({"slug": "a", "text": "y"}, match=["slug"]).version == 3
    assert notes.get_or_create(slug="a")[0].text == "y"
    notes.delete(note.id)
    assert (notes.count(), notes.restore(note.id).version) == (0, 5)


def test_objects_written_with_asyncio_can_be_read_without_waiting(shop: Shop) -> None:
    if shop.place.runner is None:
        pytest.skip("this is about asyncio")

    async def run() -> tuple[Any, ...]:
        async with shop.place.dbs.async_unit_of_work() as uow:
            people, accounts = AsyncRepository[Person](uow), AsyncRepository[Account](uow)
            person = await people.create(email="a", age=1)
            account, made = await accounts.get_or_create(code="a")
            seen: list[Any] = [person.older, account.version, made]
            await people.update(person.id, age=Person.age + 1)
            seen.append(person.older)
            await people.update_where(email="a", values={"age": Person.age + 1})
            seen.append(person.older)
            await accounts.upsert({"code": "a", "balance": 5}, match=["code"])
            seen += [account.version, account.balance]
            await people.delete(person.id)
        return (*seen, await AsyncRepository[Person].autocommit(shop.place.dbs).count())

    assert shop.place.runner.run(run()) == (2, 1, True, 3, 4, 2, 5, 0)
