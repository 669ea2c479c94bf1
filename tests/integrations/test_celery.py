"""A unit of work for each task of Celery, and publishing after COMMIT; workers are in `test_celery_workers.py`."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import TYPE_CHECKING, Any

import pytest
from celery import Celery, signals
from celery.exceptions import Ignore, Reject, Retry
from sqlalchemy import select, text
from sqlalchemy.exc import IntegrityError

import stillroom
from stillroom import Databases, HookError, NotConfigured, NoUnitOfWork, SerializationFailure, UnitOfWork
from stillroom.errors import ReadOnlyError
from stillroom.integrations.celery import UnitOfWorkTask, apply_async_on_commit, delay_on_commit, install
from stillroom.testing.servers import free_port
from tests.integrations.celery_app import Base, Order, task
from tests.support.servers import unique_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from celery import Task

AGAIN = stillroom.Retry(attempts=3, base=0)


@pytest.fixture
def dbs(sqlite_database: str) -> Iterator[Databases]:
    """
    One database, with a table of orders.
    """
    with Databases({"databases": {"main": {"url": sqlite_database}}}) as databases:
        Base.metadata.create_all(databases.main.engine)
        yield databases


def bare(broker: str = "memory://") -> Celery:
    """
    Make an application that knows no databases.
    """
    made = Celery("tests", broker=broker, set_as_current=False)
    made.conf.update(task_default_queue=unique_name(), task_publish_retry=False, task_store_eager_result=False)
    return made


@pytest.fixture
def app(dbs: Databases) -> Iterator[Celery]:
    """
    An application whose broker is in this process.
    """
    made = bare()
    install(made, dbs)
    yield made
    made.close()


@pytest.fixture
def add(app: Celery) -> Task:
    """
    A task that adds an order, and then raises what it is given.
    """

    @task(app, bind=True)
    def add(self: Any, number: int, error: Exception | None = None) -> None:
        self.uow.main.add(Order(id=number))
        if error is not None:
            raise error

    return add


def nothing() -> None:
    """
    Be a task that does nothing.
    """


def orders(dbs: Databases) -> list[int]:
    """
    Return the orders that are durable.
    """
    with dbs.main.reader_engine.connect() as connection:
        return list(connection.scalars(select(Order.id).order_by(Order.id)))


def published(app: Celery) -> list[Any]:
    """
    Take the messages from the broker, and return the arguments of each.
    """
    found = []
    with app.connection_for_read() as connection, connection.SimpleQueue(app.conf.task_default_queue) as queue:
        for _ in range(queue.qsize()):
            message = queue.get(block=False)
            message.ack()
            found.append(message.payload[0])
    return found


# --- a task


def test_a_task_that_returns_is_committed(dbs: Databases, add: Task) -> None:
    assert add.apply((1,)).state == "SUCCESS"
    assert orders(dbs) == [1]


@pytest.mark.parametrize(
    ("error", "state"),
    [(ValueError(), "FAILURE"), (Retry(), "RETRY"), (Ignore(), "IGNORED"), (Reject(), "REJECTED")],
    ids=lambda each: type(each).__name__,
)
def test_a_task_that_raises_is_rolled_back(dbs: Databases, add: Task, error: Exception, state: str) -> None:
    assert add.apply((1, error)).state == state
    assert orders(dbs) == []


def test_a_failed_commit_is_a_failed_task(dbs: Databases, app: Celery) -> None:
    @task(app, bind=True)
    def add_child(self: Any) -> str:
        self.uow.main.add(Order(id=1, parent=2))
        return "it looks well"

    result = add_child.apply()
    assert (result.state, type(result.result)) == ("FAILURE", IntegrityError)
    assert orders(dbs) == []


def test_autoretry_sees_a_failed_commit(dbs: Databases, app: Celery) -> None:
    @task(app, bind=True, autoretry_for=(IntegrityError,), default_retry_delay=0)
    def add_child(self: Any) -> None:
        self.uow.main.add(Order(id=1, parent=None if self.request.retries else 2))

    add_child.apply()
    assert orders(dbs) == [1]


def test_a_unit_of_work_is_tried_again_with_the_same_request(dbs: Databases) -> None:
    app, seen = bare(), []
    install(app, dbs, retry=AGAIN)

    @task(app, bind=True)
    def add(self: Any) -> None:
        seen.append((self.request.id, self.request.called_directly))
        self.uow.main.add(Order(id=len(seen)))
        if len(seen) < 3:
            raise SerializationFailure("another was faster")

    assert add.apply(task_id="its id").state == "SUCCESS"
    assert seen == [("its id", False)] * 3
    assert orders(dbs) == [3]


def test_a_task_says_how_its_unit_of_work_is(dbs: Databases, app: Celery) -> None:
    @task(app, bind=True, unit_of_work={"read_only": True, "info": {"tenant": 1}})
    def read(self: Any) -> Any:
        with pytest.raises(ReadOnlyError):
            self.uow.main.execute(text("DELETE FROM orders"))
        info = self.uow.main.info
        return info["tenant"], info["request"] is self.request

    assert read.apply().get() == (1, True)


def test_a_task_may_have_no_unit_of_work(app: Celery) -> None:
    @task(app, bind=True, unit_of_work=None)
    def wait(self: Any) -> Any:
        with pytest.raises(NoUnitOfWork):
            _ = self.uow
        return "none"

    assert wait.apply().get() == "none"


def test_a_task_that_is_called_joins_the_unit_of_its_caller(dbs: Databases, add: Task) -> None:
    with pytest.raises(ZeroDivisionError), dbs.unit_of_work():
        add(1)
        raise ZeroDivisionError
    assert orders(dbs) == []


def test_a_task_that_runs_eagerly_has_a_unit_of_its_own(dbs: Databases, add: Task) -> None:
    with dbs.unit_of_work() as uow:
        add.apply((1,))
        uow.doom()
    assert orders(dbs) == [1]


def test_a_run_that_extends_another_joins_it(dbs: Databases, app: Celery) -> None:
    class First(app.Task):  # type: ignore[misc]  # made by Celery
        name = "first"

        def run(self) -> Any:
            return self.uow

    class Second(First):
        name = "second"

        def run(self) -> Any:
            return super().run() is self.uow

    assert app.register_task(Second()).apply().get() is True


def test_a_base_class_gives_units_to_some_tasks_only(dbs: Databases) -> None:
    app = bare()

    class InUnit(UnitOfWorkTask):
        databases = dbs

    @task(app, bind=True, base=InUnit)
    def with_unit(self: Any) -> Any:
        self.uow.main.add(Order(id=1))

    @task(app)
    def without() -> Any:
        return dbs.has_current

    assert with_unit.apply().state == "SUCCESS"
    assert orders(dbs) == [1]
    assert without.apply().get() is False


def test_a_transactional_function_is_a_task_without_any_installation(dbs: Databases) -> None:
    @task(bare())
    @dbs.transactional
    def add(uow: UnitOfWork, number: int) -> None:
        uow.main.add(Order(id=number))

    assert add.apply((1,)).state == "SUCCESS"
    with pytest.raises(TypeError):
        add.delay(1, 2)
    assert orders(dbs) == [1]


# --- an application


@pytest.mark.parametrize("spoil", [install, lambda app, _: app.finalize()])
def test_install_is_refused_where_it_would_not_reach_every_task(dbs: Databases, spoil: Any) -> None:
    app = bare()
    spoil(app, dbs)
    with pytest.raises(RuntimeError, match="call install once, where it is made"):
        install(app, dbs)


def test_connections_are_closed_when_a_worker_ends(dbs: Databases, add: Task) -> None:
    add.apply((1,))
    assert dbs.main.pools()
    signals.worker_shutdown.send(sender=None)
    assert not dbs.main.pools()


def test_signals_keep_no_databases(dbs: Databases) -> None:
    def installed() -> weakref.ref[Databases]:
        app, databases = bare(), Databases()
        install(app, databases)
        return weakref.ref(databases)

    forgotten = installed()
    gc.collect()
    assert forgotten() is None


# --- publishing


def test_a_task_is_published_when_the_unit_is_durable(dbs: Databases, app: Celery, add: Task) -> None:
    with dbs.unit_of_work() as uow:
        uow.main.add(Order(id=1))
        add.delay_on_commit(1)
        add.apply_async_on_commit((2,), {"error": None}, priority=3)
        delay_on_commit(add.s(3) | add.si(4))
        apply_async_on_commit(add, kwargs={"number": 5})
        assert published(app) == []
    assert published(app) == [[1], [2], [3], []]


def test_a_task_is_never_published_if_the_unit_is_rolled_back(dbs: Databases, app: Celery, add: Task) -> None:
    with dbs.unit_of_work() as uow:
        add.delay_on_commit(1)
        uow.doom()
    with pytest.raises(IntegrityError), dbs.unit_of_work() as uow:
        add.delay_on_commit(2)
        uow.main.add(Order(id=1, parent=2))
    assert published(app) == []


def test_a_savepoint_takes_its_tasks_along(dbs: Databases, app: Celery, add: Task) -> None:
    with dbs.unit_of_work() as uow:
        add.delay_on_commit(1)
        with pytest.raises(ZeroDivisionError), uow.savepoint():
            add.delay_on_commit(2)
            raise ZeroDivisionError
        with uow.savepoint():
            add.delay_on_commit(3)
    assert published(app) == [[1], [3]]


def test_an_asynchronous_unit_publishes_too(dbs: Databases, app: Celery, add: Task) -> None:
    async def run() -> None:
        async with dbs.async_unit_of_work() as uow:
            uow.main.add(Order(id=1))
            add.delay_on_commit(1)
            assert published(app) == []
        async with dbs.async_unit_of_work() as uow:
            add.delay_on_commit(2)
            uow.doom()
        await dbs.aclose()

    asyncio.run(run())
    assert published(app) == [[1]]


def test_the_arguments_are_those_at_the_call(dbs: Databases, app: Celery, add: Task) -> None:
    numbers = [1]
    with dbs.unit_of_work():
        add.delay_on_commit(numbers)
        signature = add.s(1)
        delay_on_commit(signature)
        numbers.append(2)
        signature.args = (2,)
    assert published(app) == [[[1]], [1]]


def test_outside_of_a_unit_a_task_is_published_at_once(app: Celery, add: Task) -> None:
    add.delay_on_commit(1)
    assert published(app) == [[1]]


def test_a_task_that_fails_publishes_nothing(app: Celery, add: Task) -> None:
    @task(app, bind=True)
    def follow(self: Any, *, fail: bool) -> None:
        add.delay_on_commit(1)
        if fail:
            raise ValueError

    follow.apply(kwargs={"fail": True})
    assert published(app) == []
    follow.apply(kwargs={"fail": False})
    assert published(app) == [[1]]


def test_a_broker_that_is_down_is_told_and_the_data_stays(dbs: Databases) -> None:
    app = bare(f"redis://127.0.0.1:{free_port()}/0")
    app.conf.broker_transport_options = {"max_retries": 0, "socket_connect_timeout": 1}
    install(app, dbs)
    made = task(app)(nothing)
    with pytest.raises(HookError), dbs.unit_of_work() as uow:
        uow.main.add(Order(id=1))
        made.delay_on_commit()
    assert orders(dbs) == [1]


def test_an_application_without_databases_is_named() -> None:
    made = task(bare())(nothing)
    with pytest.raises(NotConfigured, match=r"nothing.* call install\(app, dbs\) first"):
        delay_on_commit(made)
