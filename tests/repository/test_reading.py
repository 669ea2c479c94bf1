"""
The read side: by key, by condition, in order, locked, and as a stream.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import event, func, insert, select, text, update
from sqlalchemy.orm import aliased, joinedload, selectinload

from stillroom import AsyncRepository, LockTimeout, MultipleFound, NotFound
from stillroom.models import UnknownColumn
from tests.repository.models import Line, Note, Order, User

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.repository.worlds import Place


@contextmanager
def statements(place: Place) -> Iterator[list[str]]:
    """
    Collect what is sent to the default database.
    """
    sent: list[str] = []
    database = place.dbs.default
    engines = [database.async_engine.sync_engine, database.async_reader_engine.sync_engine]
    if place.runner is None:
        engines = [database.engine, database.reader_engine]

    def note(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        sent.append(statement)

    for engine in engines:
        event.listen(engine, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        for engine in engines:
            event.remove(engine, "before_cursor_execute", note)


@contextmanager
def undone(place: Place) -> Iterator[Any]:
    """
    Open a unit of work that is rolled back at its end.
    """
    with place.unit() as uow:
        yield uow
        uow.doom("the tables stay as they are")


def names(users: Any) -> list[str]:
    return [each.name for each in users]


# --- by key


def test_get_returns_the_object_or_none(shop: Place) -> None:
    with shop.unit() as uow:
        users = shop.repository(User, uow)
        assert users.get(1).name == "Ada"
        assert users.get(99) is None


def test_get_of_a_loaded_object_sends_no_statement(shop: Place) -> None:
    with shop.unit() as uow:
        users = shop.repository(User, uow)
        ada = users.get(1)
        with statements(shop) as sent:
            assert users.get(1) is ada
        assert sent == []


def test_get_with_options_loads_further_what_is_loaded_already(shop: Place) -> None:
    with shop.unit() as uow:
        users = shop.repository(User, uow)
        users.get(1)
        ada = users.get(1, options=[selectinload(User.orders)])
        assert [each.total for each in ada.orders] == [5, 7]


@pytest.mark.usefixtures("committed")
def test_get_for_update_gives_a_loaded_object_its_newest_values(postgresql_shop: Place) -> None:
    with postgresql_shop.unit() as uow:
        users = postgresql_shop.repository(User, uow)
        ada = users.get(1)
        with postgresql_shop.plain["main"].begin() as connection:
            connection.execute(update(User).values(name="Ada L.").where(User.id == 1))
        assert users.get(1) is ada
        assert ada.name == "Ada"
        assert users.get(1, for_update=True) is ada
        assert ada.name == "Ada L."


@pytest.mark.usefixtures("committed")
@pytest.mark.parametrize("lock", [True, {}], ids=str)
def test_for_update_locks_the_row(postgresql_shop: Place, lock: Any) -> None:
    with postgresql_shop.unit() as uow, postgresql_shop.unit() as other:
        users = postgresql_shop.repository(User, uow)
        assert users.get(1, for_update=lock).name == "Ada"
        with pytest.raises(LockTimeout):
            postgresql_shop.repository(User, other).get(1, for_update={"nowait": True})
        other.doom("its transaction has failed")


@pytest.mark.usefixtures("committed")
def test_a_queue_skips_what_others_have_locked(postgresql_shop: Place) -> None:
    with postgresql_shop.unit() as uow, postgresql_shop.unit() as other:
        mine = postgresql_shop.repository(User, uow).first(for_update={"skip_locked": True})
        theirs = postgresql_shop.repository(User, other).first(for_update={"skip_locked": True})
        assert (mine.id, theirs.id) == (1, 2)


@pytest.mark.usefixtures("committed")
def test_for_update_locks_the_model_and_not_what_is_loaded_with_it(postgresql_shop: Place) -> None:
    with postgresql_shop.unit() as uow:
        found = postgresql_shop.repository(User, uow).list(options=[joinedload(User.orders)], for_update=True)
        assert len(found) == 4


def test_a_composite_key_is_a_tuple_or_a_mapping(shop: Place) -> None:
    with undone(shop) as uow:
        lines = shop.repository(Line, uow)
        shop.waiting(uow.main).add_all([Line(order_id=1, number=2, text="pen")])
        assert lines.get((1, 2)).text == "pen"
        assert lines.get({"number": 2, "order_id": 1}).text == "pen"
        assert lines.get([1, 3]) is None


def test_a_key_of_the_wrong_shape_is_refused_with_its_columns(sqlite_shop: Place) -> None:
    with sqlite_shop.unit() as uow:
        lines = sqlite_shop.repository(Line, uow)
        with pytest.raises(ValueError, match=r"'order_id', 'number'"):
            lines.get_many([1])
        for wrong in (1, (1, 2, 3), {"order_id": 1}):
            with pytest.raises(ValueError, match=r"'order_id', 'number'"):
                lines.get(wrong)
        with pytest.raises(ValueError, match=r"\('id',\)"):
            sqlite_shop.repository(User, uow).get((1, 2))


def test_get_many_keeps_the_order_asked_for(shop: Place) -> None:
    with shop.unit() as uow:
        assert [each.id for each in shop.repository(User, uow).get_many([3, 1, 2, 1])] == [3, 1, 2, 1]


def test_get_many_names_all_that_are_missing(shop: Place) -> None:
    with shop.unit() as uow:
        users = shop.repository(User, uow)
        with pytest.raises(NotFound, match="no User with the keys 8, 9") as raised:
            users.get_many([8, 1, 9])
        assert raised.value.keys == (8, 9)
        assert raised.value.model is User
        assert [each.id for each in users.get_many([8, 1, 9], missing="skip")] == [1]


def test_get_many_of_composite_keys(shop: Place) -> None:
    with undone(shop) as uow:
        shop.waiting(uow.main).add_all([Line(order_id=order, number=number) for order in (1, 2) for number in (1, 2)])
        found = shop.repository(Line, uow).get_many([(2, 1), (1, 2)])
        assert [(each.order_id, each.number) for each in found] == [(2, 1), (1, 2)]


def test_get_many_asks_only_for_what_is_not_loaded(shop: Place) -> None:
    with shop.unit() as uow:
        users = shop.repository(User, uow)
        loaded = users.list()
        with statements(shop) as sent:
            assert len(users.get_many([2, 1, 4, 3])) == len(loaded)
            assert users.get_many([]) == []
        assert sent == []


def test_get_many_takes_more_keys_than_a_statement_has_parameters(thread_shop: Place) -> None:
    keys = range(100_000) if thread_shop.world.backend == "postgresql" else range(40_000)
    with thread_shop.unit() as uow:
        assert len(thread_shop.repository(User, uow).get_many(keys, missing="skip")) == 4


def test_get_many_finds_a_key_that_only_the_server_takes_for_the_same(thread_shop: Place) -> None:
    with thread_shop.unit() as uow:
        assert names(thread_shop.repository(User, uow).get_many(["2", "1"])) == ["Grace", "Ada"]


# --- by condition


def test_one_returns_the_only_one_or_says_what_is_wrong(shop: Place) -> None:
    with shop.unit() as uow:
        users = shop.repository(User, uow)
        assert users.one(name="Ada").id == 1
        with pytest.raises(NotFound, match="no User that fits"):
            users.one(name="Nobody")
        with pytest.raises(MultipleFound, match="more than one User") as raised:
            users.one(User.id > 1)
        assert raised.value.model is User


def test_one_or_none_returns_none_where_one_raises(shop: Place) -> None:
    with shop.unit() as uow:
        users = shop.repository(User, uow)
        assert users.one_or_none(name="Nobody") is None
        with pytest.raises(MultipleFound):
            users.one_or_none()


def test_one_counts_objects_and_not_the_rows_of_a_join(shop: Place) -> None:
    with shop.unit() as uow:
        query = select(User).join(User.orders).where(Order.total < 9)
        assert shop.repository(User, uow).one(query).name == "Ada"


def test_first_is_the_first_by_key_unless_an_order_is_given(shop: Place) -> None:
    with shop.unit() as uow:
        users = shop.repository(User, uow)
        assert users.first().id == 1
        assert users.first(order_by="-id").id == 4
        assert users.first(order_by=User.name.desc(), age=[36, 85]).name == "Grace"
        assert users.first(select(User).order_by(User.id.desc())).id == 4
        assert users.first(text("select * from users where id > 2 order by id")).id == 3
        assert users.first(name="Nobody") is None


def test_list_takes_conditions_keywords_order_and_limits(shop: Place) -> None:
    with shop.unit() as uow:
        users = shop.repository(User, uow)
        assert names(users.list(User.age > 30, order_by="-age", limit=2)) == ["Grace", "Edsger"]
        assert names(users.list(User.age > 30, order_by=["name"], offset=1, limit=1)) == ["Edsger"]
        assert names(users.list(email=None)) == ["Edsger"]
        assert names(users.list(age=[36, 85], order_by="id")) == ["Ada", "Grace"]
        assert users.list(age=[]) == []


def test_an_offset_needs_no_limit(shop: Place) -> None:
    with shop.unit() as uow:
        assert [each.id for each in shop.repository(User, uow).list(order_by="id", offset=2)] == [3, 4]


def test_a_name_that_is_no_attribute_is_refused(sqlite_shop: Place) -> None:
    with sqlite_shop.unit() as uow:
        users = sqlite_shop.repository(User, uow)
        with pytest.raises(UnknownColumn, match="User has no column 'nmae'"):
            users.list(nmae="Ada")
        with pytest.raises(UnknownColumn, match="'nmae'"):
            users.list(order_by="-nmae")


def test_what_is_no_condition_is_refused(sqlite_shop: Place) -> None:
    with sqlite_shop.unit() as uow:
        users = sqlite_shop.repository(User, uow)
        with pytest.raises(TypeError, match="'Ada' is no condition"):
            users.list("Ada")
        with pytest.raises(TypeError, match="is no condition"):
            users.count(User.id == 1, select(User))


def test_a_relationship_is_compared_too(sqlite_shop: Place) -> None:
    with sqlite_shop.unit() as uow:
        ada = sqlite_shop.repository(User, uow).get(1)
        assert [each.id for each in sqlite_shop.repository(Order, uow).list(user=ada, order_by="id")] == [10, 11]


def test_list_returns_each_object_once_with_a_joined_load(shop: Place) -> None:
    with shop.unit() as uow:
        found = shop.repository(User, uow).list(options=[joinedload(User.orders)], order_by="id", limit=2)
        assert [(each.id, len(each.orders)) for each in found] == [(1, 2), (2, 1)]


def test_count_and_exists(shop: Place) -> None:
    with shop.unit() as uow:
        users = shop.repository(User, uow)
        assert users.count() == 4
        assert users.count(User.age > 40) == 2
        assert users.exists(name="Ada") is True
        assert users.exists(name="Nobody") is False


def test_exists_asks_for_one_row_and_counts_none(sqlite_shop: Place) -> None:
    with sqlite_shop.unit() as uow, statements(sqlite_shop) as sent:
        sqlite_shop.repository(User, uow).exists(age=36)
    assert "EXISTS" in sent[0]
    assert "count" not in sent[0]


# --- statements of the user's own


def test_an_own_select_is_narrowed_further(shop: Place) -> None:
    rich = select(User).join(User.orders).where(Order.total > 5)
    with shop.unit() as uow:
        users = shop.repository(User, uow)
        assert names(users.list(rich, order_by="-id")) == ["Grace", "Ada"]
        assert names(users.list(rich, User.age < 40)) == ["Ada"]
        assert users.count(rich, name="Ada") == 1
        assert users.exists(rich, name="Edsger") is False


def test_an_own_text_is_the_whole_statement_and_keywords_are_its_parameters(shop: Place) -> None:
    with shop.unit() as uow:
        users = shop.repository(User, uow)
        older = text("select * from users where age > :age order by id")
        assert names(users.list(older, age=40)) == ["Grace", "Edsger"]
        assert users.count(older, age=40) == 2
        assert users.exists(older, age=100) is False
        assert users.one(text("select * from users where id = :id"), id=1).name == "Ada"
        assert names(users.stream(older, age=80)) == ["Grace"]


def test_a_text_with_anything_beside_it_is_refused(sqlite_shop: Place) -> None:
    with sqlite_shop.unit() as uow:
        users = sqlite_shop.repository(User, uow)
        with pytest.raises(TypeError, match="the whole statement"):
            users.list(text("select * from users"), limit=1)


def test_an_own_select_of_something_else_is_refused(sqlite_shop: Place) -> None:
    with sqlite_shop.unit() as uow:
        users = sqlite_shop.repository(User, uow)
        for wrong in (select(User.name), select(Order), select(func.count()), select(User.__table__)):
            with pytest.raises(TypeError, match="must select User"):
                users.list(wrong)


def test_an_own_select_may_be_of_an_alias(shop: Place) -> None:
    other = aliased(User)
    with shop.unit() as uow:
        users = shop.repository(User, uow)
        assert names(users.list(select(other).where(other.age > 40), order_by="-name", name=["Ada", "Grace"])) == [
            "Grace"
        ]
        assert users.first(select(other).where(other.id > 1)).id == 2
        assert users.page(1, 2, select(other), other.age > 40).total == 2
        assert users.rows(select(other.name), name="Ada") == [{"name": "Ada"}]


def test_an_own_select_shows_no_row_that_is_deleted_softly(shop: Place) -> None:
    with undone(shop) as uow:
        notes = shop.repository(Note, uow)
        shop.waiting(uow.main).add_all([Note(id=1, text="kept"), Note(id=2, text="gone", deleted_at=func.now())])
        other = aliased(Note)
        assert [each.id for each in notes.list(select(Note))] == [1]
        assert [each.id for each in notes.list(select(other).where(other.id > 0))] == [1]
        assert notes.count(select(Note.id)) == 1
        assert notes.page(1, 2, select(other), text="gone").items == []
        assert len(notes.rows(select(User.id))) == 4
        assert notes.get(2) is None
        assert notes.get_many([1, 2], missing="skip")[0].id == 1
        assert notes.with_deleted().count() == 2
        assert notes.with_deleted().get(2).text == "gone"


# --- streams


def test_stream_gives_every_object_once_in_order(shop: Place) -> None:
    with shop.unit() as uow:
        assert [each.id for each in shop.repository(User, uow).stream(order_by="-id", batch=3)] == [4, 3, 2, 1]


def test_a_batch_without_rows_is_refused(shop: Place) -> None:
    with shop.unit() as uow, pytest.raises(ValueError, match="batch=0"):
        list(shop.repository(User, uow).stream(batch=0))


def test_stream_works_for_a_reader(shop: Place) -> None:
    with shop.unit() as uow:
        assert names(shop.repository(User, uow, "ReadRepository").stream(name="Ada")) == ["Ada"]


def test_a_stream_that_is_left_early_leaves_the_session_usable(shop: Place) -> None:
    with shop.unit() as uow:
        users = shop.repository(User, uow)
        stream = users.stream(batch=1)
        next(stream)
        stream.close()
        assert users.count() == 4


@pytest.mark.parametrize("turns", [0, 3])
def test_a_loop_that_breaks_leaves_its_session_usable_in_asyncio(shop: Place, turns: int) -> None:
    if shop.runner is None:
        pytest.skip("without asyncio the loop closes the stream itself, and at once")

    async def broken_off() -> list[int]:
        found = []
        for _ in range(3):
            async with shop.dbs.async_unit_of_work() as uow:
                users = AsyncRepository[User](uow)
                async for user in users.stream(order_by="id", batch=1):
                    found.append(user.id)
                    break
                for _ in range(turns):  # so that the event loop begins to close the stream
                    await asyncio.sleep(0)
                found.append(await users.count())
        return found

    assert shop.runner.run(asyncio.wait_for(broken_off(), 60)) == [1, 4] * 3


def test_a_stream_keeps_a_batch_in_memory_and_no_more(shop: Place) -> None:
    with undone(shop) as uow:
        session = shop.waiting(uow.main)
        session.execute(insert(Line), [{"order_id": n, "number": 1, "text": "x"} for n in range(2000)])
        stream = shop.repository(Line, uow).stream(batch=100)
        held = [len(session.identity_map) for _ in stream]
    assert len(held) == 2000
    assert max(held) <= 400


def test_statements_inside_a_stream_take_none_of_its_rows(shop: Place) -> None:
    with shop.unit() as uow:
        users, orders = shop.repository(User, uow), shop.repository(Order, uow)
        stream = users.stream(order_by="id", batch=1)
        seen = [(each.id, orders.count(user_id=each.id)) for each in stream]
    assert seen == [(1, 2), (2, 1), (3, 0), (4, 0)]


def test_a_stream_loads_what_its_options_say(shop: Place) -> None:
    with shop.unit() as uow:
        found = list(shop.repository(User, uow).stream(options=[selectinload(User.orders)], order_by="id", batch=2))
    assert [len(each.orders) for each in found] == [2, 1, 0, 0]
