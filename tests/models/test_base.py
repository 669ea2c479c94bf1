"""
Tests of bases: metadata, naming convention, column types, and how a base may be declared.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, DeclarativeBaseNoMeta, Mapped, MappedAsDataclass, Session, mapped_column

from stillroom.models import InvalidModel, ModelBase, database_of, make_base

if TYPE_CHECKING:
    from sqlalchemy import Engine

LONG = "a_table_whose_name_is_as_long_as_names_of_tables_may_well_be"


class Base(ModelBase, DeclarativeBase, database="main"):
    """
    The base of the models in this file.
    """


class Shelf(Base):
    """
    A table with one constraint of most kinds.
    """

    __tablename__ = "shelf"
    __table_args__ = (
        sa.UniqueConstraint("room", "number"),
        sa.UniqueConstraint("room", "label"),
        sa.Index(None, "label", "number"),
        sa.CheckConstraint("number > 0", name="positive"),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    room: Mapped[str] = mapped_column(sa.String(50))
    label: Mapped[str] = mapped_column(sa.String(50))
    number: Mapped[int]


class Jar(Base):
    """
    A table with a foreign key and types by annotation.
    """

    __tablename__ = "jar"
    id: Mapped[int] = mapped_column(primary_key=True)
    shelf_id: Mapped[int] = mapped_column(sa.ForeignKey("shelf.id"))
    price: Mapped[Decimal]
    data: Mapped[dict[str, Any]]
    tags: Mapped[list[str]]


def names_of(table: sa.FromClause) -> set[str]:
    assert isinstance(table, sa.Table)
    return {str(each.name) for each in table.constraints} | {str(each.name) for each in table.indexes}


def test_each_kind_of_constraint_gets_a_name_with_all_its_columns() -> None:
    assert names_of(Shelf.__table__) == {
        "pk_shelf",
        "uq_shelf_room_number",
        "uq_shelf_room_label",
        "ix_shelf_label_number",
        "ck_shelf_positive",
    }
    assert names_of(Jar.__table__) == {"pk_jar", "fk_jar_shelf_id_shelf"}


def long_names() -> sa.MetaData:
    class Own(ModelBase, DeclarativeBase, database="main"):
        pass

    columns = [sa.Column(f"column_number_{number}", sa.Integer) for number in range(4)]
    sa.Table(
        LONG,
        Own.metadata,
        sa.Column("id", sa.Integer, primary_key=True),
        *columns,
        sa.UniqueConstraint("column_number_0", "column_number_1"),
        sa.UniqueConstraint("column_number_0", "column_number_2"),
        sa.Index(None, "column_number_0", "column_number_1", "column_number_3"),
        sa.ForeignKeyConstraint(["column_number_3"], [f"{LONG}.id"]),
        sa.CheckConstraint("column_number_0 > 0", name="positive_unless_it_is_not"),
    )
    return Own.metadata


def names_on_the_server(engine: Engine) -> set[str]:
    found = sa.inspect(engine)
    kinds = (found.get_unique_constraints(LONG), found.get_indexes(LONG), found.get_foreign_keys(LONG))
    return {str(each["name"]) for kind in kinds for each in kind}


@pytest.mark.parametrize(("server", "limit"), [("postgresql_engine", 63), ("mariadb_engine", 64)])
def test_long_names_are_shortened_to_the_limit_of_the_server(
    request: pytest.FixtureRequest, server: str, limit: int
) -> None:
    engine = request.getfixturevalue(server)
    long_names().create_all(engine)
    names = names_on_the_server(engine)
    assert len(names) >= 4
    assert max(map(len, names)) <= limit


def test_long_names_are_the_same_in_every_run(postgresql_engine: Engine) -> None:
    found = []
    for _ in range(2):
        metadata = long_names()
        metadata.create_all(postgresql_engine)
        found.append(names_on_the_server(postgresql_engine))
        metadata.drop_all(postgresql_engine)
    assert found[0] == found[1]


def test_a_constraint_can_be_dropped_by_its_long_name(mariadb_engine: Engine) -> None:
    metadata = long_names()
    metadata.create_all(mariadb_engine)
    (key,) = (each for each in metadata.tables[LONG].constraints if isinstance(each, sa.ForeignKeyConstraint))
    with mariadb_engine.begin() as connection:
        connection.execute(sa.schema.DropConstraint(key))
    assert sa.inspect(mariadb_engine).get_foreign_keys(LONG) == []


def test_each_base_has_its_own_metadata_and_database() -> None:
    class Audit(ModelBase, DeclarativeBase, database="audit", schema="log"):
        pass

    class Event(Audit):
        __tablename__ = "event"
        id: Mapped[int] = mapped_column(primary_key=True)

    assert database_of(Jar) == "main"
    assert database_of(Event) == "audit"
    assert Event.metadata.info["stillroom_database"] == "audit"
    assert list(Audit.metadata.tables) == ["log.event"]


def test_a_base_made_by_a_call_is_the_same() -> None:
    made = make_base("audit", schema="log", name="AuditBase")
    event = type(
        "Event",
        (made,),
        {"__tablename__": "event", "id": sa.Column("id", sa.Integer, primary_key=True), "__module__": ""},
    )
    assert database_of(event) == "audit"
    assert made.__name__ == "AuditBase"
    assert names_of(made.metadata.tables["log.event"]) == {"pk_event"}


def test_a_base_without_metaclass_is_set_up_too() -> None:
    class Plain(ModelBase, DeclarativeBaseNoMeta, database="plain"):
        pass

    assert database_of(Plain) == "plain"


def test_a_base_without_a_database_is_refused() -> None:
    with pytest.raises(InvalidModel, match=r'Write class Nameless\(.*database="main"'):

        class Nameless(ModelBase, DeclarativeBase):
            pass


def test_a_model_cannot_choose_another_database_than_its_base() -> None:
    with pytest.raises(InvalidModel, match="Stray is no base"):

        class Stray(Base, database="audit"):
            __tablename__ = "stray"
            id: Mapped[int] = mapped_column(primary_key=True)


def test_a_base_that_names_modelbase_last_is_refused() -> None:
    with pytest.raises((InvalidModel, TypeError)):
        type("Late", (DeclarativeBase, ModelBase), {"__module__": ""}, database="main")


def test_metadata_and_types_of_the_class_body_are_respected() -> None:
    own = sa.MetaData(schema="mine")

    class Base2(ModelBase, DeclarativeBase, database="main"):
        metadata = own
        type_annotation_map = {int: sa.BigInteger()}  # noqa: RUF012

    class Thing(Base2):
        __tablename__ = "thing"
        id: Mapped[int] = mapped_column(primary_key=True)
        data: Mapped[dict[str, Any]]

    assert Thing.metadata is own
    assert own.info["stillroom_database"] == "main"
    assert isinstance(Thing.__table__.c.id.type, sa.BigInteger)
    assert isinstance(Thing.__table__.c.data.type, sa.JSON)


def test_metadata_of_another_database_is_refused() -> None:
    with pytest.raises(InvalidModel, match="'audit', but its metadata belongs to 'main'"):

        class Other(ModelBase, DeclarativeBase, database="audit"):
            metadata = Base.metadata


def test_a_schema_beside_metadata_of_its_own_is_refused() -> None:
    with pytest.raises(InvalidModel, match="schema='x'"):

        class Other(ModelBase, DeclarativeBase, database="audit", schema="x"):
            metadata = sa.MetaData()


def test_models_may_be_dataclasses_and_keep_our_repr() -> None:
    class Data(ModelBase, MappedAsDataclass, DeclarativeBase, database="main"):
        pass

    class Person(Data):
        __tablename__ = "person"
        id: Mapped[int] = mapped_column(primary_key=True, init=False)
        name: Mapped[str]
        password: Mapped[str]

    assert repr(Person(name="Ada", password="x")) == "<Person new name='Ada'>"
    assert Person(name="Ada", password="x") == Person(name="Ada", password="x")


def test_python_types_survive_the_database(engine: Engine) -> None:
    Base.metadata.create_all(engine)
    values: dict[str, Any] = {"price": Decimal("12345678.99"), "data": {"a": [1, None]}, "tags": ["x", "y"]}
    with Session(engine) as session:
        session.add(Shelf(id=1, room="a", label="b", number=1))
        session.flush()
        session.add(Jar(id=1, shelf_id=1, **values))
        session.commit()
        found = session.get_one(Jar, 1)
        assert {name: getattr(found, name) for name in values} == values


def test_json_can_be_compared_and_grouped(engine: Engine) -> None:
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        assert session.execute(sa.select(Jar.data).distinct()).all() == []
