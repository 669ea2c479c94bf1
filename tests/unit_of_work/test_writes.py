"""
Tests that everything written is committed, and rolled back, however it was written.
"""

# The body of a unit of work is what raises, so it stands inside `pytest.raises`, and blocks are told apart.

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import delete, func, insert, literal, select, text, update

from stillroom import Databases, Status
from tests.unit_of_work.shop import Item, amount, idle, names

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.orm import Session

    Way = Callable[[Session], object]


def flush(session: Session) -> None:
    session.add(Item(name="new"))


def core_insert(session: Session) -> None:
    session.execute(insert(Item.__table__).values(name="new", amount=0))  # type: ignore[arg-type]


def orm_insert(session: Session) -> None:
    session.execute(insert(Item), [{"name": "new"}, {"name": "newer"}])


def many_rows(session: Session) -> None:
    session.add_all([Item(name=f"new {n}") for n in range(50)])


def with_text(session: Session) -> None:
    session.execute(text("insert into item (name, amount) values ('new', 0)"))


def driver_sql(session: Session) -> None:
    session.connection().exec_driver_sql("insert into item (name, amount) values ('new', 0)")


def bulk_objects(session: Session) -> None:
    session.bulk_save_objects([Item(name="new")])


def bulk_mappings(session: Session) -> None:
    session.bulk_insert_mappings(Item, [{"name": "new"}])


def executemany(session: Session) -> None:
    session.execute(text("insert into item (name, amount) values (:name, 0)"), [{"name": "new"}, {"name": "newer"}])


def raw_cursor(session: Session) -> None:
    cursor = session.connection().connection.cursor()
    cursor.execute("insert into item (name, amount) values ('new', 0)")
    cursor.close()


def raw_driver_connection(session: Session) -> None:
    driver = session.connection().connection.driver_connection
    assert driver is not None
    cursor = driver.cursor()
    cursor.execute("insert into item (name, amount) values ('new', 0)")
    cursor.close()


def from_select(session: Session) -> None:
    source = select(literal("new"), literal(0))
    session.execute(insert(Item).from_select(["name", "amount"], source))


def in_a_savepoint(session: Session) -> None:
    with session.begin_nested():
        session.add(Item(name="new"))


INSERTS = [
    flush, core_insert, orm_insert, many_rows, with_text, driver_sql, bulk_objects, bulk_mappings, executemany,
    raw_cursor, raw_driver_connection, from_select, in_a_savepoint,
]  # fmt: skip


@pytest.mark.parametrize("write", INSERTS)
def test_each_way_of_inserting_is_committed(any_dbs: Databases, write: Way) -> None:
    with any_dbs.unit_of_work() as uow:
        write(uow.main)
    assert names(any_dbs)[0].startswith("new")
    assert idle(any_dbs)


@pytest.mark.parametrize("write", INSERTS)
def test_each_way_of_inserting_is_rolled_back(any_dbs: Databases, write: Way) -> None:
    with pytest.raises(ZeroDivisionError), any_dbs.unit_of_work() as uow:
        write(uow.main)
        uow.main.flush()
        raise ZeroDivisionError
    assert names(any_dbs) == []
    assert idle(any_dbs)


def orm_update(session: Session) -> None:
    session.scalars(select(Item)).one().amount = 9


def core_update(session: Session) -> None:
    session.execute(update(Item).values(amount=9))


def bulk_update(session: Session) -> None:
    session.bulk_update_mappings(Item, [{"id": session.scalar(select(Item.id)), "amount": 9}])


def update_after_a_look(session: Session) -> None:
    assert session.connection().exec_driver_sql("select amount from item").scalar() == 1
    session.connection().exec_driver_sql("update item set amount = 9")


UPDATES = [orm_update, core_update, bulk_update, update_after_a_look]


@pytest.mark.parametrize("write", UPDATES)
def test_each_way_of_updating_is_committed_or_rolled_back(any_dbs: Databases, write: Way) -> None:
    with any_dbs.unit_of_work() as uow:
        uow.main.add(Item(name="old", amount=1))
    with pytest.raises(ZeroDivisionError), any_dbs.unit_of_work() as uow:
        write(uow.main)
        uow.main.flush()
        raise ZeroDivisionError
    assert amount(any_dbs, "old") == 1
    with any_dbs.unit_of_work() as uow:
        write(uow.main)
    assert amount(any_dbs, "old") == 9


def orm_delete(session: Session) -> None:
    session.delete(session.scalars(select(Item)).one())


def core_delete(session: Session) -> None:
    session.execute(delete(Item))


@pytest.mark.parametrize("write", [orm_delete, core_delete])
def test_each_way_of_deleting_is_committed_or_rolled_back(any_dbs: Databases, write: Way) -> None:
    with any_dbs.unit_of_work() as uow:
        uow.main.add(Item(name="old"))
    with pytest.raises(ZeroDivisionError), any_dbs.unit_of_work() as uow:
        write(uow.main)
        uow.main.flush()
        raise ZeroDivisionError
    assert names(any_dbs) == ["old"]
    with any_dbs.unit_of_work() as uow:
        write(uow.main)
    assert names(any_dbs) == []


def _tables(dbs: Databases) -> list[str]:
    from sqlalchemy import inspect

    return inspect(dbs.main.engine).get_table_names()


def test_ddl_is_committed(any_dbs: Databases) -> None:
    with any_dbs.unit_of_work() as uow:
        uow.main.execute(text("create table extra (n int)"))
    assert "extra" in _tables(any_dbs)


@pytest.mark.parametrize("backend", ["sqlite", "postgresql"])
def test_ddl_is_rolled_back_where_the_server_can(request: pytest.FixtureRequest, backend: str) -> None:
    dbs: Databases = request.getfixturevalue({"sqlite": "dbs"}.get(backend, f"{backend}_dbs"))
    with pytest.raises(ZeroDivisionError), dbs.unit_of_work() as uow:
        uow.main.execute(text("create table extra (n int)"))
        uow.main.execute(text("insert into extra values (1)"))
        raise ZeroDivisionError
    assert _tables(dbs) == ["item"]


def test_a_function_that_writes_is_committed_or_rolled_back(postgresql_dbs: Databases) -> None:
    with postgresql_dbs.main.begin() as connection:
        connection.exec_driver_sql(
            "create function put(text) returns int language sql as 'insert into item (name, amount) values ($1, 0) "
            "returning 1'"
        )
    with pytest.raises(ZeroDivisionError), postgresql_dbs.unit_of_work() as uow:
        uow.main.scalar(select(func.put("lost")))
        raise ZeroDivisionError
    with postgresql_dbs.unit_of_work() as uow:
        assert uow.main.scalar(select(func.put("kept"))) == 1
    assert names(postgresql_dbs) == ["kept"]


def test_dml_in_a_cte_is_committed_or_rolled_back(postgresql_dbs: Databases) -> None:
    def write(session: Session, name: str) -> None:
        new = insert(Item).values(name=name, amount=0).returning(Item.name).cte("new")
        assert session.scalar(select(new.c.name)) == name

    with pytest.raises(ZeroDivisionError), postgresql_dbs.unit_of_work() as uow:
        write(uow.main, "lost")
        raise ZeroDivisionError
    with postgresql_dbs.unit_of_work() as uow:
        write(uow.main, "kept")
    assert names(postgresql_dbs) == ["kept"]


def test_a_copy_through_the_driver_is_committed_or_rolled_back(postgresql_dbs: Databases) -> None:
    def write(session: Session) -> None:
        driver = session.connection().connection.driver_connection
        assert driver is not None
        with driver.cursor() as cursor, cursor.copy("copy item (name, amount) from stdin") as copy:
            copy.write_row(("new", 1))

    with pytest.raises(ZeroDivisionError), postgresql_dbs.unit_of_work() as uow:
        write(uow.main)
        raise ZeroDivisionError
    assert names(postgresql_dbs) == []
    with postgresql_dbs.unit_of_work() as uow:
        write(uow.main)
    assert names(postgresql_dbs) == ["new"]


def test_what_a_bare_connection_wrote_is_committed_at_the_end_of_its_block(any_dbs: Databases) -> None:
    with any_dbs.main.begin() as connection:
        connection.execute(insert(Item).values(name="new", amount=0))
    with pytest.raises(ZeroDivisionError), any_dbs.main.begin() as connection:
        connection.execute(insert(Item).values(name="lost", amount=0))
        raise ZeroDivisionError
    with any_dbs.main.connect() as connection:
        connection.execute(insert(Item).values(name="not committed", amount=0))
    assert names(any_dbs) == ["new"]
    assert idle(any_dbs)


def test_a_session_of_a_database_alone_is_a_unit_of_work(any_dbs: Databases) -> None:
    with any_dbs.main.session() as session:
        session.add(Item(name="new"))
        unit = session.info["unit_of_work"]
    with pytest.raises(ZeroDivisionError), any_dbs.main.session() as session:
        session.add(Item(name="lost"))
        raise ZeroDivisionError
    assert (names(any_dbs), unit.status) == (["new"], Status.COMMITTED)
