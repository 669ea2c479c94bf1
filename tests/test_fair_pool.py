"""
Threads get their connections in the order in which they asked, and no place in the queue is lost or invented.
"""

from __future__ import annotations

import contextlib
import gc
import signal
import threading
from functools import partial
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import create_engine, event, text

from stillroom import Databases
from stillroom.errors import PoolTimeout
from stillroom.pool import FairQueuePool, Gate
from stillroom.testing.servers import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy.engine import Engine

LIMIT = 30.0
"""The longest wait of a test, in seconds."""


def configured(url: str = "sqlite://", **settings: Any) -> Databases:
    return Databases({"databases": {"main": {"url": url, **settings}}})


@pytest.fixture
def dbs() -> Iterator[Databases]:
    """
    A pool of one connection.
    """
    with configured(pool_size=1, max_overflow=0, pool_timeout=LIMIT) as made:
        yield made


def gate_of(engine: Engine) -> Gate:
    assert isinstance(engine.pool, FairQueuePool)
    assert engine.pool.gate is not None
    return engine.pool.gate


def places(engine: Engine) -> int:
    """
    Find out how many connections may be held at once, by holding them all.
    """
    gate = gate_of(engine)
    taken = []
    while gate.free:
        taken.append(gate.enter(0))
    try:
        assert gate.waiting == 0
        return len(gate.holders)
    finally:
        for ticket in taken:
            gate.leave(ticket)


def test_waiting_threads_are_served_in_the_order_in_which_they_came(dbs: Databases) -> None:
    engine = dbs.main.engine
    gate = gate_of(engine)
    served: list[int] = []

    def work(number: int) -> None:
        with dbs.unit_of_work() as uow:
            uow.main.scalar(text("select 1"))
            served.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(12)]
    with engine.connect():
        for thread in threads:
            before = gate.waiting
            thread.start()
            wait_until(partial(lambda before: gate.waiting > before, before), "the thread stands in the queue")
        assert served == []
    for thread in threads:
        thread.join(LIMIT)
    assert served == list(range(12))
    assert (gate.holders, gate.waiting, gate.free) == (set(), 0, 1)


def test_a_newcomer_does_not_overtake_those_who_wait(dbs: Databases) -> None:
    engine = dbs.main.engine
    gate = gate_of(engine)
    order: list[str] = []

    def wait_in_line() -> None:
        with engine.connect():
            order.append("waiting")

    thread = threading.Thread(target=wait_in_line)
    with engine.connect():
        thread.start()
        wait_until(lambda: gate.waiting == 1, "the thread stands in the queue")
    with engine.connect():  # at once: the thread has not even woken up
        order.append("newcomer")
    thread.join(LIMIT)
    assert order == ["waiting", "newcomer"]


@pytest.mark.parametrize("connections", [2, 8])
def test_each_of_32_threads_gets_its_turn(connections: int) -> None:
    rounds: list[int] = []
    everyone = threading.Barrier(32)
    turns_of_all = 32 * 15
    with configured(pool_size=connections, max_overflow=0, pool_timeout=LIMIT) as dbs:
        engine = dbs.main.reader_engine

        def work(number: int) -> None:
            everyone.wait(LIMIT)
            while len(rounds) < turns_of_all:
                with engine.connect():
                    rounds.append(number)
                    sleep(0.002)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(32)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LIMIT)
        assert gate_of(engine).free == connections
    turns = [rounds[:turns_of_all].count(number) for number in range(32)]
    assert sum(turns) == turns_of_all
    # Between two turns of a thread, every other one has its own, give or take the few that hold a connection.
    assert min(turns) >= 15 - 5, turns
    assert max(turns) <= 15 + 5, turns


@pytest.mark.alone
@pytest.mark.parametrize("connections", [2, 8])
def test_the_wait_is_at_most_twice_the_fair_share(connections: int) -> None:
    # The fair share of the wait: while a thread waits, each of those before it has one turn. With T threads, C
    # connections and a measured throughput of R turns a second, that is (T - C) / R seconds.
    threads_count, seconds = 32, 2.0
    waits: list[float] = []
    everyone = threading.Barrier(threads_count)
    with configured(pool_size=connections, max_overflow=0, pool_timeout=LIMIT) as dbs:
        engine = dbs.main.reader_engine

        def work() -> None:
            everyone.wait(LIMIT)
            end = monotonic() + seconds
            while (begin := monotonic()) < end:
                with engine.connect():
                    waits.append(monotonic() - begin)
                    sleep(0.002)

        threads = [threading.Thread(target=work) for _ in range(threads_count)]
        begin = monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LIMIT)
        throughput = len(waits) / (monotonic() - begin)
    fair_share = (threads_count - connections) / throughput
    p99 = sorted(waits)[int(len(waits) * 0.99)]
    assert p99 <= 2 * fair_share, f"p99 {p99 * 1000:.1f} ms, fair share {fair_share * 1000:.1f} ms"


# --- who does not come to hold a connection


def test_a_waiter_that_times_out_leaves_the_queue() -> None:
    with configured(pool_size=1, max_overflow=0, pool_timeout=0.05) as impatient:
        engine = impatient.main.engine
        with engine.connect():
            with pytest.raises(PoolTimeout):
                engine.connect()
            assert gate_of(engine).waiting == 0
        assert places(engine) == 1


def test_an_interrupted_waiter_leaves_the_queue(dbs: Databases) -> None:
    engine = dbs.main.engine
    gate = gate_of(engine)

    class Interrupted(BaseException):
        pass

    def interrupt(*_: object) -> None:
        raise Interrupted

    def press_the_key() -> None:
        wait_until(lambda: gate.waiting == 1, "the main thread stands in the queue")
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, interrupt)
    thread = threading.Thread(target=press_the_key)
    try:
        with engine.connect():
            thread.start()
            with pytest.raises(Interrupted):
                engine.connect()
            assert gate.waiting == 0
    finally:
        thread.join(LIMIT)
        signal.signal(signal.SIGUSR1, before)
    assert places(engine) == 1


class _Fallible:
    """
    A waiter that is granted a place and interrupted at the same moment.
    """

    def __init__(self, gate: Gate, holder: Any) -> None:
        self.granted = False
        self.gate = gate
        self.holder = holder

    def wait(self, seconds: float) -> bool:
        self.gate.leave(self.holder)
        assert self.granted
        raise KeyboardInterrupt

    def wake(self) -> None:
        pass


def test_a_place_granted_to_a_waiter_that_is_interrupted_is_passed_on() -> None:
    gate = Gate(1)
    holder = gate.enter(0)
    with pytest.raises(KeyboardInterrupt):
        gate.enter(1, lambda: _Fallible(gate, holder))
    assert (gate.free, gate.waiting, gate.holders) == (1, 0, set())


def test_a_place_given_back_while_a_waiter_is_made_is_taken() -> None:
    gate = Gate(1)
    holder = gate.enter(0)

    def collect_garbage() -> Any:
        gate.leave(holder)  # as the garbage collector may do at any time
        return _Fallible(gate, holder)

    gate.enter(1, collect_garbage)
    assert (gate.free, gate.waiting, len(gate.holders)) == (0, 0, 1)


class _Gone:
    """
    A waiter whose event loop is closed.
    """

    def __init__(self) -> None:
        self.granted = False
        self.over = threading.Event()

    def wait(self, seconds: float) -> bool:
        self.over.wait(LIMIT)
        raise GeneratorExit

    def wake(self) -> None:
        raise RuntimeError("Event loop is closed")


def test_a_place_is_not_given_to_a_waiter_that_is_gone() -> None:
    gate = Gate(1)
    holder = gate.enter(0)
    gone = _Gone()

    def wait() -> None:
        with contextlib.suppress(GeneratorExit):
            gate.enter(LIMIT, lambda: gone)

    thread = threading.Thread(target=wait)
    thread.start()
    wait_until(lambda: gate.waiting == 1, "it stands in the queue")
    gate.leave(holder)
    assert (gate.free, gate.waiting) == (1, 0)
    gone.over.set()
    thread.join(LIMIT)
    assert gate.free == 1


def test_a_place_given_back_twice_is_one_place() -> None:
    gate = Gate(2)
    first, _ = gate.enter(0), gate.enter(0)
    gate.leave(first)
    gate.leave(first)
    assert gate.free == 1


# --- the ways of a connection back


def _collected(engine: Engine) -> None:
    connection: Any = engine.raw_connection()
    assert connection.is_valid
    del connection
    gc.collect()


def _detached(engine: Engine) -> None:
    connection = engine.connect()
    connection.detach()
    assert places(engine) == 1  # a detached connection is the user's own
    connection.close()


def _invalidated(engine: Engine) -> None:
    with engine.connect() as connection:
        connection.invalidate()


def _invalidated_and_used_again(engine: Engine) -> None:
    with engine.connect() as connection:
        connection.invalidate()
        connection.rollback()
        connection.execute(text("select 1"))


def _soft_invalidated(engine: Engine) -> None:
    connection = engine.raw_connection()
    connection.invalidate(soft=True)
    connection.close()


def _closed_twice(engine: Engine) -> None:
    connection = engine.raw_connection()
    connection.close()
    connection.close()


def _failed_in_a_listener(engine: Engine) -> None:
    def refuse(*_: object) -> None:
        raise ZeroDivisionError

    event.listen(engine, "checkout", refuse)
    try:
        with pytest.raises(ZeroDivisionError):
            engine.connect()
    finally:
        event.remove(engine, "checkout", refuse)


def _failed_to_connect(engine: Engine) -> None:
    def refuse(*_: object) -> None:
        raise ZeroDivisionError

    engine.dispose()
    event.listen(engine, "do_connect", refuse)
    try:
        for _ in range(3):
            with pytest.raises(ZeroDivisionError):
                engine.connect()
    finally:
        event.remove(engine, "do_connect", refuse)


def _failed_in_reset(engine: Engine) -> None:
    def refuse(*_: object) -> None:
        raise ZeroDivisionError

    event.listen(engine, "reset", refuse)
    try:
        engine.connect().close()
    finally:
        event.remove(engine, "reset", refuse)


def _refused_at_checkout(engine: Engine) -> None:
    connection: Any = engine.raw_connection()
    driver = connection.dbapi_connection
    connection.close()
    driver.execute("begin")  # poisons the connection in the pool
    with engine.connect() as again:
        assert again.connection.dbapi_connection is not driver


def _disposed_while_out(engine: Engine) -> None:
    with engine.connect() as connection:
        engine.dispose()
        assert places(engine) == 1
        connection.execute(text("select 1"))


WAYS_BACK = [
    _collected,
    _detached,
    _invalidated,
    _invalidated_and_used_again,
    _soft_invalidated,
    _closed_twice,
    _failed_in_a_listener,
    _failed_to_connect,
    _failed_in_reset,
    _refused_at_checkout,
    _disposed_while_out,
]


@pytest.mark.parametrize("way", WAYS_BACK)
def test_a_connection_gives_its_place_back_once(dbs: Databases, way: Callable[[Engine], None]) -> None:
    engine = dbs.main.engine
    for _ in range(3):
        way(engine)
        gate = gate_of(engine)
        assert (gate.holders, gate.waiting, gate.free) == (set(), 0, 1)
    with engine.connect() as connection:
        assert connection.scalar(text("select 1")) == 1


def test_waiters_of_a_pool_that_is_disposed_of_get_their_turn(dbs: Databases) -> None:
    engine = dbs.main.engine
    before = gate_of(engine)
    served: list[Any] = []

    def work() -> None:
        with engine.connect() as connection:
            served.append(connection.scalar(text("select 1")))

    threads = [threading.Thread(target=work) for _ in range(3)]
    with engine.connect():
        for thread in threads:
            thread.start()
        wait_until(lambda: before.waiting == 3, "the threads stand in the queue")
        engine.dispose()
    for thread in threads:
        thread.join(LIMIT)
    assert served == [1, 1, 1]
    assert (before.free, before.waiting, gate_of(engine).free) == (1, 0, 1)


# --- limits and messages


def test_overflow_connections_count_as_places() -> None:
    with configured(pool_size=2, max_overflow=3) as dbs:
        assert places(dbs.main.engine) == 5


@pytest.mark.parametrize("sizes", [{"pool_size": 1, "max_overflow": -1}, {"pool_size": 0}])
def test_a_pool_without_a_limit_has_no_queue(sizes: dict[str, int]) -> None:
    engine = create_engine("sqlite://", poolclass=FairQueuePool, connect_args={"check_same_thread": False}, **sizes)
    assert isinstance(engine.pool, FairQueuePool)
    assert engine.pool.gate is None
    connections = [engine.connect() for _ in range(20)]
    for connection in connections:
        connection.close()
    engine.dispose()


def hold_until(engine: Engine, held: threading.Event, go_on: threading.Event) -> None:
    with engine.connect():
        held.set()
        go_on.wait(LIMIT)


def test_pool_timeout_says_who_holds_the_connections_for_how_long_and_where() -> None:
    held, go_on = threading.Event(), threading.Event()
    with configured(pool_size=1, max_overflow=0, pool_timeout=0.2) as dbs:
        engine = dbs.main.engine
        thread = threading.Thread(target=hold_until, args=(engine, held, go_on), name="slow report")
        thread.start()
        assert held.wait(LIMIT)
        try:
            with pytest.raises(PoolTimeout) as caught, dbs.unit_of_work() as uow:
                uow.main.scalar(text("select 1"))
        finally:
            go_on.set()
            thread.join(LIMIT)
    line = hold_until.__code__.co_firstlineno + 3
    assert len(caught.value.holders) == 1
    holder = caught.value.holders[0]
    assert holder.startswith("thread 'slow report' for 0.")
    assert holder.endswith(f"now at {__file__}:{line} in hold_until")
    message = str(caught.value)
    assert "no connection came free within 0.2 s: all 1 are in use, 0 more wait" in message
    assert holder.partition(" for ")[0] in message
    assert "raise pool_size or max_overflow" in message


def test_pool_timeout_names_a_thread_that_has_ended_without_giving_its_connection_back() -> None:
    kept: list[Any] = []
    with configured(pool_size=1, max_overflow=0, pool_timeout=0.05) as dbs:
        engine = dbs.main.engine
        thread = threading.Thread(target=lambda: kept.append(engine.connect()))
        thread.start()
        thread.join(LIMIT)
        with pytest.raises(PoolTimeout, match="a thread that has ended"):
            engine.connect()
        kept.pop().close()


def test_pool_timeout_says_how_many_more_there_are() -> None:
    with configured(pool_size=12, max_overflow=0, pool_timeout=0.05) as dbs:
        engine = dbs.main.reader_engine
        connections = [engine.connect() for _ in range(12)]
        with pytest.raises(PoolTimeout, match="and 2 more") as caught:
            engine.connect()
        assert len(caught.value.holders) == 12
        for connection in connections:
            connection.close()


def test_who_gives_up_while_holders_come_and_go_gets_no_other_error() -> None:
    errors: list[BaseException] = []
    with configured(pool_size=8, max_overflow=0, pool_timeout=0.001) as dbs:
        engine = dbs.main.reader_engine

        def work() -> None:
            for _ in range(150):
                try:
                    with engine.connect():
                        sleep(0.002)
                except PoolTimeout:
                    continue
                except BaseException as error:
                    errors.append(error)
                    return

        threads = [threading.Thread(target=work) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LIMIT)
        assert errors == []
        assert gate_of(engine).free == 8


def test_holders_are_listed_with_who_has_held_longest_first() -> None:
    gate = Gate(3)
    tickets = [gate.enter(0) for _ in range(3)]
    for ticket, seconds in zip(tickets, (10, 30, 20), strict=True):
        ticket.since -= seconds
    with pytest.raises(PoolTimeout) as caught:
        gate.enter(0.01)
    assert [int(holder.partition(" for ")[2].partition(".")[0]) for holder in caught.value.holders] == [30, 20, 10]


def test_a_connection_in_use_is_closed_on_its_return_to_a_pool_that_was_closed(dbs: Databases) -> None:
    closed: list[object] = []
    event.listen(dbs.main.engine, "close", lambda *arguments: closed.append(arguments[0]))
    with dbs.main.connect() as connection:
        driver = connection.connection.driver_connection
        dbs.close()
        assert closed == []
    assert closed == [driver]
