"""
What PostgreSQL lets a transaction set for itself alone ends with it, though the real transaction goes on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import Connection, func, insert, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from tests.testing.sandbox.support import Item, run

if TYPE_CHECKING:
    from tests.testing.sandbox.support import Setting

TENANT = text("select coalesce(current_setting('shop.tenant', true), '')")


def tenant(connection: Connection) -> str:
    return str(connection.scalar(TENANT))


@pytest.mark.parametrize("writes", [True, False])
@pytest.mark.parametrize(
    ("statement", "question", "expected"),
    [
        ("set local role pg_read_all_data", "select current_user", "pg_read_all_data"),
        ("set local time zone 'Asia/Tokyo'", "show timezone", "Asia/Tokyo"),
        ("set local schema 'elsewhere'", "show search_path", "elsewhere"),
        ("set local session authorization pg_read_all_data", "select session_user", "pg_read_all_data"),
    ],
)
def test_what_is_set_in_words_ends_with_the_transaction(
    postgresql: Setting, statement: str, question: str, expected: str, *, writes: bool
) -> None:
    with postgresql.engine.connect() as connection:
        before = connection.scalar(text(question))
        assert before != expected
        if writes:
            connection.execute(insert(Item), {"name": "a"})
        connection.execute(text(statement))
        assert connection.scalar(text(question)) == expected
        connection.commit()
        assert connection.scalar(text(question)) == before


@pytest.mark.parametrize(
    "statement",
    [
        text("select set_config('shop.tenant', '7', true)"),
        text("select set_config(:name, :value, true)").bindparams(name="shop.tenant", value="7"),
        select(func.set_config("shop.tenant", "7", True)),  # noqa: FBT003  # an argument of the function in the database
    ],
)
def test_set_config_ends_with_the_transaction(postgresql: Setting, statement: object) -> None:
    with postgresql.engine.connect() as connection:
        for end in (connection.commit, connection.rollback):
            connection.execute(statement)  # type: ignore[call-overload]  # each of them can be executed
            assert tenant(connection) == "7"
            connection.execute(insert(Item), {"name": f"{end}"[:60]})
            assert tenant(connection) == "7"
            end()
            assert tenant(connection) == ""


def test_set_config_for_the_session_stays(postgresql: Setting) -> None:
    for value, is_local in (("7", "false"), ("8", ":no")):
        with postgresql.engine.begin() as connection:
            statement = text(f"select set_config('shop.tenant', '{value}', {is_local})")
            connection.execute(statement, {"no": False} if is_local == ":no" else {})
        with postgresql.engine.connect() as connection:
            assert tenant(connection) == value


def test_set_config_in_autocommit_sets_nothing(postgresql: Setting) -> None:
    with postgresql.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("select set_config('shop.tenant', '7', true)"))
        assert tenant(connection) == ""


def test_set_config_of_a_reader_holds_for_its_transaction(postgresql: Setting) -> None:
    with postgresql.dbs.unit_of_work() as uow:
        reader = uow.session("main", role="reader", snapshot=True)
        reader.execute(text("select set_config('shop.tenant', '7', true)"))
        assert reader.scalar(TENANT) == "7"
    with postgresql.engine.connect() as connection:
        assert tenant(connection) == ""


def test_set_config_ends_with_the_transaction_in_asyncio(async_setting: Setting) -> None:
    engine = async_setting.dbs["main"].async_engine
    if engine.dialect.name != "postgresql":
        pytest.skip("the others have no such function")

    async def work() -> None:
        async with engine.begin() as connection:
            await connection.execute(text("select set_config('shop.tenant', :value, true)"), {"value": "7"})
            assert await connection.scalar(TENANT) == "7"
        async with engine.connect() as connection:
            assert await connection.scalar(TENANT) == ""

    run(async_setting, work)


@pytest.mark.parametrize("writes", [True, False])
def test_a_setting_without_such_a_value_fails_its_transaction_alone(postgresql: Setting, *, writes: bool) -> None:
    with postgresql.engine.begin() as connection:
        connection.execute(insert(Item), {"name": "before"})
    with Session(postgresql.engine) as session:
        session.execute(text("set local statement_timeout = 'soon'"))
        with pytest.raises(DBAPIError, match="statement_timeout"):
            session.execute(insert(Item) if writes else select(Item), {"name": "a"} if writes else {})
        session.rollback()
        session.add(Item(name="after"))
        session.commit()
    assert postgresql.count() == 2


def test_a_setting_without_such_a_value_leaves_what_an_outer_transaction_wrote(postgresql: Setting) -> None:
    with Session(postgresql.engine) as outer, Session(postgresql.engine) as inner:
        outer.add(Item(name="outer"))
        outer.flush()
        inner.execute(text("set local statement_timeout = 'soon'"))
        inner.add(Item(name="inner"))
        with pytest.raises(DBAPIError, match="statement_timeout"):
            inner.flush()
        inner.rollback()
        outer.commit()
    assert postgresql.count() == 1
