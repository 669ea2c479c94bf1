"""
A forked child works with connections of its own, and nothing that it does or leaves undone harms its parent.
"""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text

from stillroom import Databases, Status
from stillroom.errors import ForkedConnection, NoUnitOfWork
from stillroom.testing.servers import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from stillroom import UnitOfWork

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform cannot fork"),
    # Python 3.12 and later warn of what these tests do on purpose.
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]

LIMIT = 30.0
"""The longest life of a child, in seconds."""

NETWORKED = ("postgresql", "mariadb")


def start(work: Callable[[], object], leave: Callable[[int], object] = os._exit) -> int:
    """
    Fork a child that does `work` and leaves; return its pid.

    Args:
        work: What the child does; an exception is printed, and makes its exit status 1.
        leave: How the child leaves, given its exit status.
    """
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        work()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        leave(status)
    raise AssertionError("unreachable")


def finish(pid: int, expected: int = 0) -> None:
    """
    Wait for a child and check its exit status.
    """
    ended: list[int] = []

    def has_ended() -> bool:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            ended.append(os.waitstatus_to_exitcode(status))
        return bool(found)

    try:
        wait_until(has_ended, "the child ends", timeout=LIMIT)
    except TimeoutError:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise
    assert ended == [expected]


def in_child(work: Callable[[], object]) -> None:
    finish(start(work))


def configured(url: str, **settings: Any) -> Databases:
    return Databases({"databases": {"main": {"url": url, **settings}}})


def with_table(dbs: Databases) -> Databases:
    with dbs.unit_of_work() as uow:
        uow.main.execute(text("create table notes (body varchar(50))"))
    return dbs


@pytest.fixture(params=NETWORKED)
def dbs(request: pytest.FixtureRequest) -> Iterator[Databases]:
    """
    A warm pool on a database server: two idle connections.
    """
    with configured(request.getfixturevalue(f"{request.param}_database")) as made:
        with_table(made)
        with made.unit_of_work() as one, made.unit_of_work() as two:
            one.main.scalar(text("select 1"))
            two.main.scalar(text("select 1"))
        yield made


@pytest.fixture
def file_dbs(sqlite_database: str) -> Iterator[Databases]:
    with configured(sqlite_database) as made:
        yield with_table(made)


def add(uow: UnitOfWork, body: str) -> None:
    uow.main.execute(text("insert into notes values (:body)"), {"body": body})


def add_in_a_unit(dbs: Databases, body: str) -> None:
    with dbs.unit_of_work() as uow:
        add(uow, body)


def bodies(dbs: Databases) -> list[str]:
    with dbs.unit_of_work(read_only=True) as uow:
        return sorted(uow.main.scalars(text("select body from notes")))


def refused(work: Callable[[], object]) -> None:
    with pytest.raises(ForkedConnection):
        work()


def session_id(uow: UnitOfWork) -> int:
    """
    Return the server's number for the session of a unit of work.
    """
    name = uow.main.get_bind().dialect.name
    function = "pg_backend_pid()" if name == "postgresql" else "connection_id()"
    return int(uow.main.scalar(text(f"select {function}")) or 0)


# --- the child works, the parent goes on


def test_the_child_has_a_unit_of_its_own_while_the_parent_s_goes_on(dbs: Databases) -> None:
    with dbs.unit_of_work() as uow:
        add(uow, "parent, before")
        mine = session_id(uow)

        def work() -> None:
            with dbs.unit_of_work() as own:
                assert session_id(own) != mine
                add(own, "child")
            assert own.status is Status.COMMITTED

        in_child(work)
        assert session_id(uow) == mine
        add(uow, "parent, after")
    assert uow.status is Status.COMMITTED
    assert bodies(dbs) == ["child", "parent, after", "parent, before"]


def test_the_idle_connections_of_the_parent_are_still_good(dbs: Databases) -> None:
    def sessions() -> set[int]:
        with dbs.unit_of_work() as one, dbs.unit_of_work() as two:
            return {session_id(one), session_id(two)}

    before = sessions()

    def work() -> None:
        assert sessions().isdisjoint(before)
        dbs.close()

    in_child(work)
    assert sessions() == before


def _add_in_a_process(dbs: Databases, body: str) -> None:
    add_in_a_unit(dbs, body)


def test_multiprocessing_forks_as_safely(dbs: Databases) -> None:
    with dbs.unit_of_work() as uow:
        add(uow, "parent")
        child = multiprocessing.get_context("fork").Process(target=_add_in_a_process, args=(dbs, "child"))
        child.start()
        child.join(LIMIT)
        assert child.exitcode == 0
        assert session_id(uow)
    assert bodies(dbs) == ["child", "parent"]


def test_a_child_of_a_child_works_too(dbs: Databases) -> None:
    with dbs.unit_of_work() as uow:
        add(uow, "parent")

        def work() -> None:
            with dbs.unit_of_work() as own:
                add(own, "child")
                in_child(lambda: add_in_a_unit(dbs, "grandchild"))
                add(own, "child, after")

        in_child(work)
        add(uow, "parent, after")
    assert bodies(dbs) == ["child", "child, after", "grandchild", "parent", "parent, after"]


def test_a_fork_in_a_thread_is_as_safe(dbs: Databases) -> None:
    with dbs.unit_of_work() as uow:
        add(uow, "parent")
        pids: list[int] = []
        thread = threading.Thread(target=lambda: pids.append(start(lambda: add_in_a_unit(dbs, "child"))))
        thread.start()
        thread.join(LIMIT)
        finish(pids[0])
        add(uow, "parent, after")
    assert bodies(dbs) == ["child", "parent", "parent, after"]


def test_threads_of_the_parent_work_on_while_it_forks(dbs: Databases) -> None:
    stop = threading.Event()
    failures: list[BaseException] = []

    def work() -> None:
        try:
            while not stop.is_set():
                add_in_a_unit(dbs, "thread")
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(10):
            in_child(lambda: add_in_a_unit(dbs, "child"))
    finally:
        stop.set()
        for thread in threads:
            thread.join(LIMIT)
    assert failures == []
    assert bodies(dbs).count("child") == 10


def test_four_preforked_workers_of_fifty_units_lose_nothing(dbs: Databases) -> None:
    with dbs.unit_of_work() as uow:
        add(uow, "parent")

        def work() -> None:
            for number in range(50):
                add_in_a_unit(dbs, str(number))

        pids = [start(work) for _ in range(4)]
        for pid in pids:
            finish(pid)
        add(uow, "parent, after")
    assert len(bodies(dbs)) == 202


# --- what the child may not do


def test_the_child_cannot_use_the_parent_s_unit_and_is_told_what_to_do(dbs: Databases) -> None:
    with dbs.unit_of_work() as uow:
        add(uow, "parent")

        def work() -> None:
            with pytest.raises(ForkedConnection, match="Open a new unit of work in this process"):
                uow.main.scalar(text("select 1"))
            with pytest.raises(ForkedConnection, match="Open a new unit of work in this process"):
                _ = uow.reader
            uow.__dict__.clear()

        in_child(work)
        add(uow, "parent, after")
    assert bodies(dbs) == ["parent", "parent, after"]


def test_the_child_cannot_commit_for_the_parent(dbs: Databases) -> None:
    with pytest.raises(ZeroDivisionError), dbs.unit_of_work() as uow:
        add(uow, "never")

        def work() -> None:
            with pytest.raises(ForkedConnection):
                uow.main.commit()

        in_child(work)
        add(uow, "never")
        raise ZeroDivisionError
    assert bodies(dbs) == []


def test_the_child_cannot_use_a_core_connection_of_the_parent(dbs: Databases) -> None:
    with dbs.main.begin() as connection:
        connection.execute(text("insert into notes values ('parent')"))

        def work() -> None:
            with pytest.raises(ForkedConnection):
                connection.execute(text("insert into notes values ('child')"))

        in_child(work)
        connection.execute(text("insert into notes values ('parent, after')"))
    assert bodies(dbs) == ["parent", "parent, after"]


def test_the_parent_s_unit_is_not_current_in_the_child(dbs: Databases) -> None:
    @dbs.transactional
    def work_in_a_unit(own: UnitOfWork) -> None:
        add(own, "child")

    with dbs.unit_of_work() as uow:
        add(uow, "parent")

        def work() -> None:
            assert not dbs.has_current
            with pytest.raises(NoUnitOfWork):
                _ = dbs.current
            work_in_a_unit()

        in_child(work)
        assert dbs.current is uow
    assert bodies(dbs) == ["child", "parent"]


# --- how the child leaves


def fork_inside(dbs: Databases, leave: Callable[[UnitOfWork], None]) -> tuple[int, list[str]]:
    """
    Fork inside a unit of work, with `leave` as all that the child does inside; the parent goes on and commits.

    Returns:
        In the parent: 1 if the callbacks ran there once, and the rows.
    """
    called: list[str] = []
    is_child = False
    code = 0
    uow = dbs.unit_of_work()
    try:
        with uow:
            uow.on_commit(lambda: called.append("commit"))
            uow.on_rollback(lambda: called.append("rollback"))
            add(uow, "parent")
            pid = os.fork()
            if pid == 0:
                is_child = True
                code = 7
                leave(uow)
            else:
                finish(pid, 7)
                add(uow, "parent, after")
    except BaseException as error:
        if not is_child:
            raise
        if not isinstance(error, ForkedConnection | SystemExit | ZeroDivisionError):
            traceback.print_exc()
            code = 3
    finally:
        if is_child:
            gc.collect()
            if called or uow.status is not Status.ROLLED_BACK:
                sys.stderr.write(f"in the child: {called}, {uow.status}\n")
                code = 4
            os._exit(code)
    return called.count("commit"), bodies(dbs)


def _fall_through(uow: UnitOfWork) -> None:
    pass


def _exit(uow: UnitOfWork) -> None:
    sys.exit(7)


def _fail(uow: UnitOfWork) -> None:
    raise ZeroDivisionError


def _roll_back(uow: UnitOfWork) -> None:
    uow.main.rollback()


def _close(uow: UnitOfWork) -> None:
    uow.main.close()


def _use(uow: UnitOfWork) -> None:
    uow.main.scalar(text("select 1"))


def _dispose(uow: UnitOfWork) -> None:
    uow.databases.close()
    uow.databases.main.engine.dispose()


def _invalidate(uow: UnitOfWork) -> None:
    uow.main.invalidate()


LEAVING = [_fall_through, _exit, _fail, _roll_back, _close, _use, _dispose, _invalidate]


@pytest.mark.parametrize("leave", LEAVING)
def test_a_child_that_leaves_through_the_parent_s_block_harms_nothing(
    dbs: Databases, leave: Callable[[UnitOfWork], None]
) -> None:
    assert fork_inside(dbs, leave) == (1, ["parent", "parent, after"])


@pytest.mark.parametrize("leave", LEAVING)
def test_a_child_that_leaves_through_the_parent_s_block_on_an_sqlite_file_harms_nothing(
    file_dbs: Databases, leave: Callable[[UnitOfWork], None]
) -> None:
    assert fork_inside(file_dbs, leave) == (1, ["parent", "parent, after"])


def test_a_child_that_falls_out_of_the_parent_s_block_does_not_take_that_for_success(dbs: Databases) -> None:
    with dbs.unit_of_work() as uow:
        add(uow, "parent")

        def work() -> None:
            with pytest.raises(ForkedConnection, match="Open a new unit of work in this process"):
                uow.__exit__(None, None, None)

        in_child(work)
    assert bodies(dbs) == ["parent"]


SCRIPT = """
import os, sys
from sqlalchemy import text
from stillroom import Databases

url, how = sys.argv[1:]
dbs = Databases({"databases": {"main": {"url": url}}})
uow = dbs.unit_of_work()
uow.__enter__()
uow.main.execute(text("insert into notes values ('parent')"))
connection = dbs.main.reader_engine.connect()
connection.execute(text("select 1"))
pid = os.fork()
if pid == 0:
    if how == "own":
        with dbs.unit_of_work() as own:
            own.main.execute(text("insert into notes values ('child')"))
    if how == "delete":
        del uow, connection
    sys.exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
uow.main.execute(text("insert into notes values ('parent, after')"))
uow.__exit__(None, None, None)
connection.execute(text("select 1"))
connection.close()
dbs.close()
"""


@pytest.mark.parametrize("how", ["nothing", "own", "delete"])
@pytest.mark.parametrize("backend", ["sqlite", *NETWORKED])
def test_the_end_of_the_child_s_interpreter_harms_nothing(
    backend: str, how: str, request: pytest.FixtureRequest
) -> None:
    import subprocess

    if (backend, how) == ("sqlite", "own"):
        pytest.skip("the child of a process that uses an SQLite file cannot open it")
    url = request.getfixturevalue(f"{backend}_database")
    with with_table(configured(url)) as dbs:
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, url, how], capture_output=True, text=True, timeout=LIMIT, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")
        expected = ["parent", "parent, after"]
        assert bodies(dbs) == (["child", *expected] if how == "own" else expected)


# --- SQLite


def test_idle_connections_to_an_sqlite_file_are_closed_before_a_fork(file_dbs: Databases) -> None:
    assert bodies(file_dbs) == []

    def work() -> None:
        add_in_a_unit(file_dbs, "child")

    in_child(work)
    add_in_a_unit(file_dbs, "parent")
    assert bodies(file_dbs) == ["child", "parent"]


def test_a_child_of_a_process_that_uses_an_sqlite_file_cannot_open_it_and_is_told_why(file_dbs: Databases) -> None:
    with file_dbs.unit_of_work() as uow:
        add(uow, "parent")

        def work() -> None:
            for _ in range(2):
                with pytest.raises(ForkedConnection, match="or start processes with 'spawn'"):
                    add_in_a_unit(file_dbs, "child")
            with pytest.raises(ForkedConnection):
                bodies(file_dbs)
            in_child(lambda: refused(lambda: bodies(file_dbs)))

        in_child(work)
        add(uow, "parent, after")
    assert bodies(file_dbs) == ["parent", "parent, after"]


def test_an_open_reader_of_an_sqlite_file_counts_as_use(file_dbs: Databases) -> None:
    with file_dbs.unit_of_work() as uow:
        uow.reader.scalar(text("select 1"))
        in_child(lambda: refused(lambda: add_in_a_unit(file_dbs, "child")))
    add_in_a_unit(file_dbs, "parent")
    assert bodies(file_dbs) == ["parent"]


def test_a_child_may_use_another_sqlite_file_than_its_parent(file_dbs: Databases, tmp_path: Any) -> None:
    with configured(f"sqlite:///{tmp_path}/other.db") as others:
        with_table(others)
        with file_dbs.unit_of_work() as uow:
            add(uow, "parent")
            in_child(lambda: add_in_a_unit(others, "child"))
        assert bodies(others) == ["child"]
    assert bodies(file_dbs) == ["parent"]


def test_a_child_may_use_an_sqlite_file_that_its_parent_has_done_with(file_dbs: Databases) -> None:
    add_in_a_unit(file_dbs, "parent")
    with file_dbs.unit_of_work() as uow:
        session = uow.main
        add(uow, "parent")
    assert session is not None  # what was used is still referenced
    in_child(lambda: add_in_a_unit(file_dbs, "child"))
    assert bodies(file_dbs) == ["child", "parent", "parent"]


def test_preforked_workers_share_an_sqlite_file(file_dbs: Databases) -> None:
    def work() -> None:
        for number in range(50):
            add_in_a_unit(file_dbs, str(number))

    pids = [start(work) for _ in range(4)]
    for pid in pids:
        finish(pid)
    assert len(bodies(file_dbs)) == 200


def test_a_connection_of_asyncio_to_an_sqlite_file_counts_as_use(sqlite_database: str) -> None:
    async def run() -> None:
        dbs = configured(sqlite_database)
        async with dbs.async_unit_of_work() as uow:
            await uow.main.execute(text("create table notes (body varchar(50))"))

        def child() -> None:
            with configured(sqlite_database) as own:
                refused(lambda: bodies(own))

        in_child(child)
        await dbs.aclose()
        in_child(lambda: bodies(configured(sqlite_database)))

    asyncio.run(run())


def test_the_child_has_its_own_copy_of_a_database_in_memory() -> None:
    with with_table(configured("sqlite://")) as dbs:
        add_in_a_unit(dbs, "before")

        def work() -> None:
            add_in_a_unit(dbs, "child")
            assert bodies(dbs) == ["before", "child"]

        in_child(work)
        add_in_a_unit(dbs, "parent")
        assert bodies(dbs) == ["before", "parent"]


def test_the_child_s_copy_has_not_what_the_parent_has_not_committed() -> None:
    with with_table(configured("sqlite://", lock_timeout=0.5)) as dbs:
        with dbs.unit_of_work() as uow:
            add(uow, "parent")

            def work() -> None:
                add_in_a_unit(dbs, "child")
                assert bodies(dbs) == ["child"]

            in_child(work)
            add(uow, "parent, after")
        assert bodies(dbs) == ["parent", "parent, after"]


# --- the fair queue


def test_the_child_does_not_wait_for_places_that_threads_of_the_parent_hold(dbs: Databases) -> None:
    name = dbs.main.settings.url.render_as_string(hide_password=False)
    held, go_on = threading.Event(), threading.Event()
    with configured(name, pool_size=1, max_overflow=0, pool_timeout=2) as small:

        def hold() -> None:
            with small.unit_of_work() as uow:
                add(uow, "thread")
                held.set()
                go_on.wait(LIMIT)

        thread = threading.Thread(target=hold)
        thread.start()
        assert held.wait(LIMIT)
        try:
            in_child(lambda: add_in_a_unit(small, "child"))
        finally:
            go_on.set()
            thread.join(LIMIT)
    assert bodies(dbs) == ["child", "thread"]
