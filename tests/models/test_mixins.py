"""
Tests of timestamps, UUID keys and versions.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, declared_attr, mapped_column
from sqlalchemy.orm.exc import StaleDataError

from stillroom.models import InvalidModel, ModelBase, Timestamps, UUIDKey, Version

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Engine

OLD = datetime(2001, 1, 1, tzinfo=UTC)


class Base(ModelBase, DeclarativeBase, database="main"):
    """
    The base of the models in this file.
    """


class Note(UUIDKey, Timestamps, Version, Base):
    """
    A table with all mixins.
    """

    __tablename__ = "note"
    text: Mapped[str] = mapped_column(sa.String(50))


class Pet(Version, Base):
    """
    The top of a hierarchy, with mapper arguments of its own.
    """

    __tablename__ = "pet"
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(sa.String(10))
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "pet"}  # noqa: RUF012


class Cat(Pet):
    """
    A joined table in a hierarchy.
    """

    __tablename__ = "cat"
    id: Mapped[int] = mapped_column(sa.ForeignKey("pet.id"), primary_key=True)
    lives: Mapped[int]
    __mapper_args__ = {"polymorphic_identity": "cat"}  # noqa: RUF012


class Dog(Pet):
    """
    A class in the table of another.
    """

    __mapper_args__ = {"polymorphic_identity": "dog"}  # noqa: RUF012


@pytest.fixture
def session(engine: Engine) -> Iterator[Session]:
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        yield session


def is_now(moment: datetime) -> bool:
    return abs(datetime.now(UTC) - moment) < timedelta(seconds=30)


def test_keys_come_first_and_bookkeeping_last() -> None:
    assert Note.__table__.c.keys() == ["id", "text", "created_at", "updated_at", "version"]


def test_a_new_row_has_both_times_and_they_are_equal(session: Session) -> None:
    note = Note(text="a")
    session.add(note)
    session.commit()
    assert is_now(note.created_at)
    assert note.updated_at == note.created_at


def test_a_flush_sets_the_time_of_the_update_alone(session: Session) -> None:
    note = Note(text="a", created_at=OLD, updated_at=OLD)
    session.add(note)
    session.commit()
    note.text = "b"
    session.commit()
    assert is_now(note.updated_at)
    assert note.created_at == OLD


def test_a_core_update_sets_the_time_of_the_update(session: Session) -> None:
    note = Note(text="a", created_at=OLD, updated_at=OLD)
    session.add(note)
    session.commit()
    session.execute(sa.update(Note).values(text="b").execution_options(synchronize_session=False))
    session.commit()
    assert is_now(note.updated_at)


def test_core_inserts_of_many_rows_set_the_times(session: Session) -> None:
    session.execute(sa.insert(Note), [{"text": "a"}, {"text": "b"}])
    notes = session.scalars(sa.select(Note)).all()
    assert [note.updated_at == note.created_at and is_now(note.created_at) for note in notes] == [True] * 2


def test_a_core_insert_with_a_list_of_values_sets_the_times(session: Session) -> None:
    session.execute(sa.insert(Note).values([{"text": "c"}, {"text": "d"}]))
    notes = session.scalars(sa.select(Note)).all()
    assert [is_now(note.updated_at) and is_now(note.created_at) for note in notes] == [True] * 2


def test_the_server_sets_the_times_and_the_version_in_sql_text(session: Session) -> None:
    session.execute(sa.text("INSERT INTO note (id, text) VALUES ('0198b5d2000070008000000000000001', 'a')"))
    created, updated, version = session.execute(sa.select(Note.created_at, Note.updated_at, Note.version)).one()
    assert is_now(created)
    assert is_now(updated)
    assert version == 1


def test_the_server_sorts_uuid_keys_by_time(session: Session) -> None:
    for number in range(200):
        session.add(Note(text=str(number)))
        session.flush()
    texts = session.scalars(sa.select(Note.text).order_by(Note.id)).all()
    assert texts == [str(number) for number in range(200)]


def test_a_stale_update_is_refused(session: Session) -> None:
    session.add(Note(text="a"))
    session.commit()
    bind = session.get_bind()
    with Session(bind, expire_on_commit=False) as mine, Session(bind, expire_on_commit=False) as theirs:
        my_note, their_note = (each.scalars(sa.select(Note)).one() for each in (mine, theirs))
        mine.commit()
        their_note.text = "theirs"
        theirs.commit()
        my_note.text = "mine"
        with pytest.raises(StaleDataError):
            mine.commit()
    assert session.execute(sa.select(Note.text, Note.version)).one() == ("theirs", 2)


@pytest.mark.parametrize("model", [Pet, Cat, Dog])
def test_own_mapper_arguments_do_not_lose_the_version(model: type[Pet]) -> None:
    assert sa.inspect(model).version_id_col is Pet.__table__.c.version


def test_a_version_is_stored_once_in_a_hierarchy() -> None:
    assert "version" not in Cat.__table__.c


def test_mapper_arguments_without_the_version_are_refused() -> None:
    with pytest.raises(InvalidModel, match=r"Version\.version"):

        class Lost(Version, Base):
            __tablename__ = "lost"
            id: Mapped[int] = mapped_column(primary_key=True)

            @declared_attr.directive
            @classmethod
            def __mapper_args__(cls) -> dict[str, bool]:
                return {"eager_defaults": True}


def test_a_base_before_the_version_is_refused_where_the_version_would_be_lost() -> None:
    with pytest.raises(InvalidModel, match="Name Version before the base"):

        class Lost2(Base, Version):
            __tablename__ = "lost2"
            id: Mapped[int] = mapped_column(primary_key=True)
            __mapper_args__ = {"eager_defaults": True}  # noqa: RUF012
