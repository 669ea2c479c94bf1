"""Celery with real brokers and real workers, which fail and are killed."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import select

from stillroom.testing.servers import wait_until
from tests.integrations.celery_app import Base, Effect, Order, Run, Tasks, make
from tests.integrations.celery_workers import PATIENCE, ROOT, Worker, forgotten
from tests.support.servers import unique_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path
    from typing import Any


@pytest.fixture
def settings(request: pytest.FixtureRequest, postgresql_database: str, redis_url: str) -> dict[str, Any]:
    """
    The settings of an application on the broker that the test's parameter names.
    """
    broker = request.getfixturevalue(f"{request.param}_url")
    return {"url": postgresql_database, "queue": unique_name(), "broker_url": broker, "result_backend": redis_url}


@pytest.fixture
def tasks(settings: dict[str, Any], redis_url: str) -> Iterator[Tasks]:
    """
    The application, here, with empty tables.
    """
    made = make(**settings)
    with made.databases, forgotten(made.app, settings["queue"], redis_url):
        Base.metadata.create_all(made.databases.main.engine)
        yield made


def column(tasks: Tasks, what: Any) -> list[Any]:
    with tasks.databases.main.reader_engine.connect() as connection:
        return list(connection.execute(select(what)).scalars())


@pytest.mark.parametrize(
    ("settings", "pool"),
    [("rabbitmq", "prefork"), ("redis", "threads"), ("redis", "solo"), ("rabbitmq", "gevent")],
    indirect=["settings"],
)
def test_a_worker_commits_before_a_task_counts_as_done(
    settings: dict[str, Any], tasks: Tasks, pool: str, tmp_path: Path
) -> None:
    with Worker(settings, pool, tmp_path / "log") as worker:
        results = [tasks.add.delay(number) for number in range(20)]
        chains = [(tasks.add.s(number) | tasks.find.s()).delay() for number in range(20, 30)]
        bad, again = tasks.add_child.delay(40, parent=41), tasks.add_at_second_try.delay(50)
        for number, result in enumerate(results):
            _, on_inherited = result.get(timeout=PATIENCE)
            assert number in column(tasks, Order.id)
            assert not (pool == "prefork" and on_inherited)
        assert all(chain.get(timeout=PATIENCE) for chain in chains)
        with pytest.raises(Exception, match="orders_parent_fkey"):  # as JSON tells it
            bad.get(timeout=PATIENCE)
        again.get(timeout=PATIENCE)
        assert worker.stop() == 0
    assert sorted(column(tasks, Order.id)) == [*range(30), 50]


FATES = {"works": 80, "fails": 10, "killed before COMMIT": 1, "killed after COMMIT": 1}
CHILDREN = 3
PREFETCHED = 4 * CHILDREN
"""How many messages a worker has at most that it has not acknowledged: Celery's default is 4 for each child."""


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("settings", "count", "machine_fails"),
    # Redis notices that a worker has gone with its machine only after an hour, its "visibility timeout".
    [pytest.param("rabbitmq", 1000, True, id="rabbitmq"), pytest.param("redis", 200, False, id="redis")],
    indirect=["settings"],
)
def test_killed_workers_leave_each_effect_once_or_never(
    settings: dict[str, Any], tasks: Tasks, count: int, machine_fails: bool, tmp_path: Path
) -> None:
    chance = random.Random(4)
    fates = dict(enumerate(chance.choices([*FATES], [*FATES.values()], k=count)))
    effects = {number for number, fate in fates.items() if fate != "fails"}
    killed = {number for number, fate in fates.items() if fate.startswith("killed")}
    deliveries = Counter([*fates, *killed])

    def half_done() -> bool:
        return len(column(tasks, Run.id)) > count / 2

    def done() -> bool:
        return set(column(tasks, Effect.number)) >= effects and Counter(column(tasks, Run.number)) >= deliveries

    with ThreadPoolExecutor(1) as pool:
        ordering = pool.submit(order_all, tasks, fates)
        for end in (half_done, done) if machine_fails else (done,):
            with Worker(settings, "prefork", tmp_path / "log", CHILDREN):
                wait_until(end, f"all of it is {end.__name__}", timeout=2 * PATIENCE, interval=0.2)
        ordering.result()
    assert set(column(tasks, Effect.number)) == effects
    assert all(column(tasks, Run.found))
    more = Counter(column(tasks, Run.number)) - deliveries
    assert {*more} <= {*fates}
    assert more.total() <= (PREFETCHED if machine_fails else 0)


def order_all(tasks: Tasks, fates: Mapping[int, str]) -> None:
    """
    Ask for the tasks, and now and then for one that is refused.
    """
    for number, fate in fates.items():
        order(tasks, number, fate)
        if number % 10 == 0:
            order(tasks, len(fates) + number, "refused")


def order(tasks: Tasks, number: int, fate: str) -> None:
    """
    Ask for a task before the order that it is about is there; if it is to be refused, roll back.
    """
    with tasks.databases.unit_of_work() as uow:
        tasks.process.delay_on_commit(number, fate)
        uow.main.add(Order(id=number))
        uow.main.flush()
        if fate == "refused":
            uow.doom("the order was refused")


def test_the_shop_makes_an_invoice_for_each_order_that_was_taken(tmp_path: Path) -> None:
    shop = shutil.copytree(ROOT / "examples" / "shop_celery", tmp_path / "shop")
    done = subprocess.run(
        [sys.executable, "shop.py"], cwd=shop, capture_output=True, text=True, timeout=2 * PATIENCE, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "there is no such track"
    assert lines[-2:] == ["Pay for 'Counting the Ferry'.", "Pay for 'Harbour Lights'."]
