"""
Throwaway PostgreSQL servers: they start, stop, crash and recover, and leave nothing behind.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import psycopg
import pytest

from stillroom.testing.errors import ServerUnavailable, TestingError
from stillroom.testing.servers import PostgresServer, StopMode, free_port, processes, wait_until
from stillroom.testing.servers import pg_server as run_server
from stillroom.testing.servers import postgresql as module
from stillroom.testing.servers.processes import alive

if TYPE_CHECKING:
    from collections.abc import Iterator

# A PostgreSQL that is installed, if there is one; the wheel's is used otherwise.
INSTALLED = sorted(Path("/usr/lib/postgresql").glob("*/bin"))


@pytest.fixture
def database(pg_server: PostgresServer) -> Iterator[str]:
    with pg_server.database() as url:
        yield url.rpartition("/")[2]


def test_a_server_executes_sql_without_a_driver(pg_server: PostgresServer) -> None:
    assert pg_server.sql("SELECT 1, 'a b'", "VALUES (2), (3)") == "1\ta b\n2\n3"


def test_sql_that_the_server_refuses_is_an_error_with_its_answer(pg_server: PostgresServer) -> None:
    with pytest.raises(TestingError, match="psql: ERROR:  division by zero"):
        pg_server.sql("SELECT 1 / 0")


def test_a_database_is_empty_has_its_name_and_goes_although_it_is_in_use(pg_server: PostgresServer) -> None:
    for _ in range(2):
        with pg_server.database('shop test"s') as url:
            connection = psycopg.connect(host="127.0.0.1", port=pg_server.port, user="postgres", dbname='shop test"s')
            connection.execute("CREATE TABLE t (n int)")
            connection.commit()
            assert url == pg_server.database_url('shop test"s')
        connection.close()
    assert pg_server.sql("SELECT count(*) FROM pg_database WHERE datname LIKE 'shop%'") == "0"


def test_a_database_that_was_left_behind_is_made_anew(pg_server: PostgresServer) -> None:
    pg_server.sql("CREATE DATABASE left_behind", "CREATE DATABASE other")
    pg_server.sql("CREATE TABLE t (n int)", database="left_behind")
    with pg_server.database("left_behind"):
        assert pg_server.sql("SELECT to_regclass('t') IS NULL", database="left_behind") == "t"
    pg_server.sql("DROP DATABASE other")


def test_the_server_keeps_a_prepared_transaction_when_it_is_killed(pg_server: PostgresServer, database: str) -> None:
    statements = ("BEGIN", "INSERT INTO kept VALUES (1)", "PREPARE TRANSACTION 'half-way'")
    pg_server.sql("CREATE TABLE kept (n int)", *statements, database=database)
    pg_server.kill()
    assert pg_server.pid is None
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(pg_server.url)
    pg_server.start()
    assert pg_server.sql("SELECT count(*) FROM kept", database=database) == "0"
    pg_server.sql("COMMIT PREPARED 'half-way'", database=database)
    assert pg_server.sql("SELECT count(*) FROM kept", database=database) == "1"


def test_a_killed_server_leaves_no_process_and_no_shared_memory(pg_server: PostgresServer) -> None:
    assert pg_server.pid is not None
    processes = psutil.Process(pg_server.pid).children()
    memory = (pg_server.directory / "postmaster.pid").read_text().splitlines()[6].split()[-1]
    assert shared_memory(memory)
    pg_server.kill()
    pg_server.kill()  # which does nothing more
    assert processes
    assert not any(map(alive, processes))
    assert not shared_memory(memory)


def shared_memory(number: str) -> bool:
    done = subprocess.run(["ipcs", "-m"], capture_output=True, check=True, text=True)
    return number in [line.split()[1] for line in done.stdout.splitlines() if line.startswith("0x")]


@pytest.mark.parametrize("mode", ["smart", "fast", "immediate"])
def test_a_server_restarts_on_its_port(pg_server: PostgresServer, mode: StopMode) -> None:
    url, pid = pg_server.url, pg_server.pid
    pg_server.restart(mode)
    assert pg_server.url == url
    assert pg_server.pid not in (None, pid)
    assert pg_server.sql("SELECT 1") == "1"


def test_start_and_stop_do_nothing_where_there_is_nothing_to_do(pg_server: PostgresServer) -> None:
    pid = pg_server.pid
    pg_server.start()
    assert pg_server.pid == pid
    pg_server.stop()
    pg_server.stop()
    assert pg_server.pid is None


def test_a_server_that_waits_for_its_clients_in_vain_says_so(
    pg_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, psycopg.connect(pg_server.url):
        patch.setattr("stillroom.testing.servers.processes.PATIENCE", 0.2)
        with pytest.raises(TestingError, match=r"within 0.2 s of SIGTERM; close the connections"):
            pg_server.stop("smart")


def test_settings_reach_the_server(pg_server: PostgresServer) -> None:
    pg_server.settings["application_name"] = 'it\'s a "test"'
    try:
        pg_server.restart()
        assert pg_server.sql("SELECT setting FROM pg_settings WHERE name = 'shared_buffers'") == "2048"  # 8 kB each
        with psycopg.connect(pg_server.url, application_name=None) as connection:
            assert connection.execute("SHOW application_name").fetchone() == ('it\'s a "test"',)
    finally:
        del pg_server.settings["application_name"]


def test_a_server_that_cannot_start_says_what_its_log_says(pg_server: PostgresServer) -> None:
    settings = {"no_such_setting": "1"}
    other = PostgresServer(pg_server.programs, pg_server.directory, pg_server.user, settings)
    pg_server.stop()
    with pytest.raises(TestingError, match=r"(?s)ended with status 1 .* \"no_such_setting\""):
        other.start()
    assert other.pid is None


def test_a_server_that_never_answers_is_killed(pg_server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    other = PostgresServer(pg_server.programs, pg_server.directory, pg_server.user, pg_server.settings)
    pg_server.stop()
    with monkeypatch.context() as patch:
        patch.setattr(module, "STATUS", 1000)  # a line that the server never writes
        patch.setattr("stillroom.testing.servers.processes.wait_until", functools.partial(wait_until, timeout=0.5))
        with pytest.raises(TestingError, match="in vain until the PostgreSQL server accepts connections; its log ends"):
            other.start()
    assert other.pid is None


def test_a_server_leaves_neither_process_nor_directory() -> None:
    with run_server({"max_connections": "7"}) as server:
        assert server.sql("SHOW max_connections") == "7"
        pid = server.pid
    assert pid is not None
    assert not psutil.pid_exists(pid)  # a child of this process, which has waited for it
    assert not server.directory.parent.exists()


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="the system cannot suspend a process")
def test_a_server_that_does_not_stop_leaves_neither_process_nor_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    with run_server() as server:
        assert server.pid is not None
        process = psutil.Process(server.pid)
        started = process.children(recursive=True)
        process.suspend()
        monkeypatch.setattr(processes, "PATIENCE", 0.5)
    assert not any(map(alive, [process, *started]))
    assert not server.directory.parent.exists()


def test_a_program_that_does_not_end_is_killed_with_all_that_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "PATIENCE", 1.0)
    note = tmp_path / "pid"
    with pytest.raises(TestingError, match=r"(?s)did not end within 2 s and was killed:.*begun"):
        processes.run_program(["/bin/sh", "-c", f"echo begun; sleep 60 & echo $! > {note}; wait"])
    assert not psutil.pid_exists(int(note.read_text())) or not alive(psutil.Process(int(note.read_text())))


def test_a_client_that_gets_no_answer_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "PATIENCE", 0.05)
    with pytest.raises(TestingError, match=r"sleep: the server did not answer within 0\.2 s"):
        processes.ask_client(["sleep", "60"])


@pytest.mark.skipif(not INSTALLED, reason="no PostgreSQL is installed beside the wheel's")
def test_a_server_runs_from_an_installed_postgresql() -> None:
    programs = INSTALLED[-1]
    with run_server(programs=programs) as server:
        version = server.sql("SHOW server_version")
    assert version.partition(".")[0] == programs.parent.name


def test_without_the_wheel_the_newest_installed_postgresql_is_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for version, programs in {"9": module.PROGRAMS, "16": module.PROGRAMS, "17": ["postgres"]}.items():
        directory = tmp_path / version / "bin"
        directory.mkdir(parents=True)
        for program in programs:
            (directory / program).touch()
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    monkeypatch.setattr(module, "INSTALLED", (f"{tmp_path}/*/bin",))
    monkeypatch.setenv("PATH", "")
    assert module.find_programs() == tmp_path / "16" / "bin"


def test_where_there_is_no_postgresql_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    monkeypatch.setattr(module, "INSTALLED", ())
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ServerUnavailable, match=r'pip install "stillroom\[testing\]"'), run_server():
        pytest.fail("there is no server")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root needs another user")
def test_programs_that_the_servers_user_cannot_reach_are_copied(tmp_path: Path) -> None:
    programs = module.find_programs()
    package = programs.parent.parent
    hidden = tmp_path / "hidden"
    hidden.mkdir(mode=0o700)
    for directory in (package, package.with_name(f"{package.name}.libs")):
        (hidden / directory.name).symlink_to(directory)
    with run_server(programs=hidden / programs.relative_to(package.parent)) as server:
        assert server.programs.is_relative_to(server.directory.parent)
        assert server.sql("SELECT 1") == "1"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root needs another user")
def test_root_without_another_user_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(name: str) -> None:
        raise KeyError(name)

    monkeypatch.setattr("pwd.getpwnam", nobody)
    with pytest.raises(ServerUnavailable, match="refuses to run as root, and there is no user postgres or nobody"):
        with run_server():
            pytest.fail("there is no server")


ABANDONED = """
import sys
from stillroom.testing.servers import pg_server

with pg_server() as server:
    print(server.pid, server.directory.parent, flush=True)
    sys.stdin.read()
"""


def test_what_killed_tests_left_behind_is_removed_by_the_next_server() -> None:
    with contextlib.ExitStack() as stack:
        # Not below pytest's own directory, which another user, whom servers run as for root, cannot reach.
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        directory.chmod(0o755)
        environment = {**os.environ, "TMPDIR": str(directory)}
        tests = [stack.enter_context(abandoned(environment)) for _ in range(2)]
        (server, root), (other, kept) = [read(each) for each in tests]
        tests[0].kill()
        tests[0].wait()
        assert alive(server)
        assert root.exists()
        third = stack.enter_context(abandoned(environment))
        read(third)
        assert not alive(server)
        assert not root.exists()
        assert alive(other)
        assert kept.exists()


@contextlib.contextmanager
def abandoned(environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", ABANDONED]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment) as tests:
        try:
            yield tests
        finally:
            assert tests.stdin is not None
            tests.stdin.close()  # which ends it in order, if it runs
            tests.wait(30)


def read(tests: subprocess.Popen[str]) -> tuple[psutil.Process, Path]:
    assert tests.stdout is not None
    pid, root = tests.stdout.readline().split()
    return psutil.Process(int(pid)), Path(root)


def test_a_free_port_is_one_that_can_be_listened_on() -> None:
    ports = {free_port() for _ in range(20)}
    assert len(ports) > 1
    assert all(20_000 <= port < 32_000 for port in ports)


def test_waiting_in_vain_ends() -> None:
    with pytest.raises(TimeoutError, match="until the cows come home"):
        wait_until(lambda: False, "the cows come home", timeout=0.05)
