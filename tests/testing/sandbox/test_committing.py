"""
Whatever way the application commits and rolls back, it sees what it would in production, and nothing is left.
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import insert, select, text, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from tests.testing.sandbox.support import Item, in_threads

if TYPE_CHECKING:
    from tests.testing.sandbox.support import Setting


def names(setting: Setting) -> list[str]:
    with setting.engine.connect() as connection:
        return list(connection.scalars(select(Item.name).order_by(Item.name)))


def test_what_a_session_commits_is_seen_by_others_and_undone_at_the_end(setting: Setting) -> None:
    with Session(setting.engine) as session:
        session.add(Item(name="a"))
        session.commit()
        session.add(Item(name="b"))
        session.commit()
    assert names(setting) == ["a", "b"]


def test_what_a_session_rolls_back_is_gone_at_once(setting: Setting) -> None:
    with Session(setting.engine) as session:
        session.add(Item(name="a"))
        session.commit()
        session.add(Item(name="b"))
        session.flush()
        session.rollback()
        assert session.scalars(select(Item.name)).all() == ["a"]
    assert names(setting) == ["a"]


def test_engine_begin_commits(setting: Setting) -> None:
    with setting.engine.begin() as connection:
        connection.execute(insert(Item), [{"name": "a"}, {"name": "b"}])
    assert names(setting) == ["a", "b"]


def test_engine_begin_rolls_back_after_an_exception(setting: Setting) -> None:
    with pytest.raises(RuntimeError), setting.engine.begin() as connection:
        connection.execute(insert(Item), {"name": "a"})
        raise RuntimeError
    assert names(setting) == []


def test_a_connection_commits_by_hand_and_rolls_back_what_it_does_not_commit(setting: Setting) -> None:
    with setting.engine.connect() as connection:
        connection.execute(insert(Item), {"name": "a"})
        connection.commit()
        connection.execute(insert(Item), {"name": "b"})
    assert names(setting) == ["a"]


def test_a_savepoint_is_rolled_back_alone(setting: Setting) -> None:
    with Session(setting.engine) as session:
        session.add(Item(name="a"))
        with pytest.raises(IntegrityError), session.begin_nested():
            session.add(Item(name="a"))
            session.flush()
        with session.begin_nested():
            session.add(Item(name="b"))
        session.commit()
    assert names(setting) == ["a", "b"]


def test_a_savepoint_before_the_first_write_is_rolled_back_alone(setting: Setting) -> None:
    with Session(setting.engine) as session:
        savepoint = session.begin_nested()
        inner = session.begin_nested()
        session.add(Item(name="a"))
        session.flush()
        inner.rollback()
        session.add(Item(name="b"))
        session.flush()
        savepoint.rollback()
        session.add(Item(name="c"))
        session.commit()
    assert names(setting) == ["c"]


def test_an_autocommit_connection_keeps_each_statement(setting: Setting) -> None:
    if setting.engine.dialect.name == "sqlite":
        pytest.skip("Stillroom's writers of SQLite begin a transaction in any case, in production too")
    with setting.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(insert(Item), {"name": "a"})
        with pytest.raises(IntegrityError):
            connection.execute(insert(Item), {"name": "a"})
        connection.execute(insert(Item), {"name": "b"})
        connection.rollback()
    assert names(setting) == ["a", "b"]


def test_a_raw_connection_commits_and_rolls_back(setting: Setting) -> None:
    raw = setting.engine.raw_connection()
    cursor = raw.cursor()
    if setting.engine.dialect.name == "sqlite":
        cursor.execute("BEGIN")  # the application's: Stillroom switches the driver's own off
    cursor.execute("insert into items (name) values ('a')")
    raw.commit()
    if setting.engine.dialect.name == "sqlite":
        cursor.execute("BEGIN")
    cursor.execute("insert into items (name) values ('b')")
    raw.rollback()
    cursor.execute("select name from items")
    assert [row[0] for row in cursor.fetchall()] == ["a"]
    cursor.close()
    raw.close()


def test_transactions_sent_as_text_are_understood(setting: Setting) -> None:
    with setting.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for statement in (
            "BEGIN",
            "insert into items (name) values ('a')",
            "SAVEPOINT one",
            "insert into items (name) values ('b')",
            "ROLLBACK TO SAVEPOINT one",
            "RELEASE SAVEPOINT one",
            "COMMIT",
            "BEGIN",
            "insert into items (name) values ('c')",
            "ROLLBACK",
        ):
            connection.exec_driver_sql(statement)
    assert names(setting) == ["a"]


def test_an_error_leaves_what_was_committed_before(setting: Setting) -> None:
    with Session(setting.engine) as session:
        session.add(Item(name="a"))
        session.commit()
        session.add(Item(name="a"))
        with pytest.raises(IntegrityError):
            session.commit()
        session.rollback()
        session.add(Item(name="b"))
        session.commit()
    assert names(setting) == ["a", "b"]


def test_an_error_in_a_read_disturbs_nobody(setting: Setting) -> None:
    with Session(setting.engine) as writer:
        writer.add(Item(name="a"))
        writer.flush()
        with setting.engine.connect() as other:
            with pytest.raises(Exception, match="missing_table"):
                other.execute(text("select * from missing_table"))
        writer.add(Item(name="b"))
        writer.commit()
    assert names(setting) == ["a", "b"]


def test_many_rows_one_statement_each_and_keys_come_back(setting: Setting) -> None:
    with Session(setting.engine) as session:
        items = [Item(name=f"item {n}") for n in range(30)]
        session.add_all(items)
        session.commit()
        assert len({item.id for item in items}) == 30
    with setting.engine.begin() as connection:
        result = connection.execute(update(Item).values(name="x" + Item.name))
        assert result.rowcount == 30
    assert setting.count() == 30


def test_threads_that_commit_and_fail_get_exact_counts(setting: Setting) -> None:
    def work(number: int) -> None:
        for turn in range(25):
            with contextlib.suppress(ValueError, IntegrityError), Session(setting.engine) as session:
                session.add(Item(name=f"{number} {turn}"))
                session.flush()
                if turn % 5 == 1:
                    raise ValueError
                if turn % 5 == 2:
                    session.add(Item(name=f"{number} {turn}"))
                if turn % 5 == 3:
                    session.rollback()
                session.commit()

    in_threads(8, work)
    assert setting.count() == 8 * 25 * 2 // 5


def test_a_cursor_that_is_read_later_holds_up_nobody(setting: Setting) -> None:
    with setting.engine.begin() as connection:
        connection.execute(insert(Item), [{"name": f"{n:03}"} for n in range(50)])
    with setting.engine.connect() as reading:
        rows = reading.execution_options(stream_results=True, yield_per=10).execute(select(Item.name))
        assert rows.scalar() or True
    with setting.engine.connect() as reading:
        streamed = reading.execution_options(yield_per=10).scalars(select(Item.name).order_by(Item.name))
        first = next(iter(streamed))
        done: list[Any] = []

        def write() -> None:
            with setting.engine.begin() as connection:
                connection.execute(insert(Item), {"name": "late"})
            done.append(True)

        thread = threading.Thread(target=write)
        thread.start()
        thread.join(10)
        assert done
        assert [first, *streamed] == [f"{n:03}" for n in range(50)]
