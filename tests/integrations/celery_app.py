"""
An application of Celery with its databases, as its workers load it and as tests publish with it.
"""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING, Any, NamedTuple

from celery import Celery
from sqlalchemy import ForeignKey, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from stillroom import Databases
from stillroom.integrations.celery import install

if TYPE_CHECKING:
    from collections.abc import Callable

VARIABLE = "STILLROOM_TEST_CELERY"
"""Where a worker finds the settings of its application, as JSON."""

INHERITED: list[int] = []
"""The server's process for the connection that a worker has open when it starts, and forks."""

BACKEND = text("SELECT pg_backend_pid()")


class Base(DeclarativeBase):
    """
    The base of the models in this file.
    """


class Order(Base):
    """
    What a task is about.
    """

    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    parent: Mapped[int | None] = mapped_column(ForeignKey("orders.id", deferrable=True, initially="DEFERRED"))


class Effect(Base):
    """
    What a task did, or the trace of an order that it did not find.
    """

    __tablename__ = "effects"
    number: Mapped[int] = mapped_column(primary_key=True)


class Run(Base):
    """
    A delivery of a task, kept even when the task fails or is killed.
    """

    __tablename__ = "runs"
    id: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(index=True)
    found: Mapped[bool]


class Tasks(NamedTuple):
    """
    An application, its databases and its tasks.
    """

    app: Celery
    databases: Databases
    add: Any
    add_child: Any
    find: Any
    add_at_second_try: Any
    process: Any


def task(app: Celery, **options: Any) -> Callable[[Callable[..., Any]], Any]:
    """
    Make a function a task of this application; by default Celery makes it one of every application in the process.
    """
    made: Callable[[Callable[..., Any]], Any] = app.task(shared=False, **options)
    return made


def kill_this_process() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def make(url: str, queue: str, **configuration: Any) -> Tasks:
    """
    Make the application.

    Args:
        url: Of its database.
        queue: The name of its queue, and the prefix of its keys in Redis.
        configuration: Celery's.
    """
    dbs = Databases({"databases": {"main": {"url": url}}})
    app = Celery("tests", set_as_current=False)
    prefix = {"global_keyprefix": f"{queue}:"}
    app.conf.update(
        task_default_queue=queue,
        broker_transport_options=prefix if str(configuration.get("broker_url")).startswith("redis") else {},
        result_backend_transport_options=prefix,
        broker_connection_retry_on_startup=True,
        worker_enable_remote_control=False,
        worker_lost_wait=0.2,
        **configuration,
    )
    install(app, dbs)

    @task(app, bind=True)
    def add(self: Any, number: int) -> tuple[int, bool]:
        self.uow.main.add(Order(id=number))
        return number, self.uow.main.scalar(BACKEND) in INHERITED

    @task(app, bind=True)
    def add_child(self: Any, number: int, parent: int) -> None:
        self.uow.main.add(Order(id=number, parent=parent))

    @task(app, bind=True, unit_of_work={"read_only": True})
    def find(self: Any, added: tuple[int, bool]) -> bool:
        return self.uow.main.get(Order, added[0]) is not None

    @task(app, bind=True)
    def add_at_second_try(self: Any, number: int) -> None:
        self.uow.main.add(Order(id=number))
        self.uow.main.flush()
        if not self.request.retries:
            raise self.retry(countdown=0)

    @task(app, bind=True, acks_late=True, reject_on_worker_lost=True, ignore_result=True)
    def process(self: Any, number: int, fate: str) -> None:
        with dbs.transaction(propagation="new") as own:
            first = own.main.scalar(select(Run).where(Run.number == number)) is None
            own.main.add(Run(number=number, found=own.main.get(Order, number) is not None))
        claimed = self.uow.main.execute(
            text("INSERT INTO effects (number) VALUES (:number) ON CONFLICT DO NOTHING"), {"number": number}
        )
        if not claimed.rowcount:
            return
        if fate == "fails":
            raise ValueError(number)
        if fate == "killed before COMMIT" and first:
            kill_this_process()
        if fate == "killed after COMMIT":
            self.uow.on_commit(kill_this_process)

    return Tasks(app, dbs, add, add_child, find, add_at_second_try, process)


if VARIABLE in os.environ:
    tasks = make(**json.loads(os.environ[VARIABLE]))
    app = tasks.app
    with tasks.databases.unit_of_work() as unit:  # a worker forks with this connection in its pool
        INHERITED.append(unit.main.scalar(BACKEND))
