"""What throwaway servers have in common: a port, a directory, and a process that is started and ended."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from sqlalchemy.engine import make_url

from ..errors import ServerUnavailable, TestingError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    import psutil
    from sqlalchemy.engine import URL

__all__ = ["PATIENCE", "ServerProcess", "free_port", "reachable", "wait_until"]

PATIENCE = 30.0
"""How long a server may take to start, to stop or to answer, in seconds."""

# Below the range from which systems take the ports of outgoing connections, one of which could be faster.
PORTS = range(20_000, 32_000)

# How much of a log goes into an error, in characters.
TAIL = 2000


def wait_until(condition: Callable[[], bool], what: str, *, timeout: float = PATIENCE, interval: float = 0.02) -> None:
    """
    Wait for a condition.

    Args:
        condition: Asked again and again.
        what: Names the condition in the error.
        timeout: Seconds.
        interval: Seconds between two questions.

    Raises:
        TimeoutError: The condition did not come true in time.
    """
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout} s in vain until {what}")
        time.sleep(interval)


def free_port() -> int:
    """
    Return a TCP port of this machine that nobody listens on.

    Raises:
        OSError: A hundred ports in a row were taken.
    """
    for _ in range(100):
        port = PORTS[secrets.randbelow(len(PORTS))]
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError(f"found no free port from {PORTS.start} to {PORTS.stop - 1}")


def reachable(url: str | URL, default_port: int) -> bool:
    """
    Say whether something accepts connections where the URL points.
    """
    parsed = make_url(url)
    try:
        with socket.create_connection((parsed.host or "127.0.0.1", parsed.port or default_port), timeout=2.0):
            return True
    except OSError:
        return False


def find_program(names: Sequence[str], directories: Iterable[Path] = ()) -> Path | None:
    """
    Return the first program of these names that is on the search path or in one of the directories.
    """
    places = os.pathsep.join([os.environ.get("PATH", os.defpath), *map(str, directories)])
    found = (shutil.which(name, path=places) for name in names)
    return next((Path(program) for program in found if program is not None), None)


def server_user(server: str, names: Sequence[str]) -> str | None:
    """
    Return whom a server that refuses to run as root runs as; None for the present user, who is not root.

    Raises:
        ServerUnavailable: This is root, and none of the users exists.
    """
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return None
    import pwd

    for name in names:
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    raise ServerUnavailable(
        f"{server} refuses to run as root, and there is no user {' or '.join(names)} to run it as; add one, or run the "
        "tests as another user"
    )


def run_program(command: Sequence[str | Path], user: str | None = None) -> None:
    """
    Run a program to its end, as a user.

    Raises:
        TestingError: It failed, or did not end in time; says what it printed.
    """
    with tempfile.TemporaryFile() as output:
        process = spawn([str(part) for part in command], user, output.fileno())
        try:
            outcome = f"ended with status {process.wait(2 * PATIENCE)}"
        except subprocess.TimeoutExpired:
            outcome = f"did not end within {2 * PATIENCE:g} s and was killed"
        finally:
            kill_family(process)
        if process.returncode != 0:
            output.seek(0)
            said = output.read().decode(errors="replace")
            raise TestingError(f"{' '.join(map(str, command))} {outcome}:\n{said[-TAIL:]}")


def ask_client(command: Sequence[str | Path], environment: Mapping[str, str] | None = None) -> str:
    """
    Run a server's own client, which needs no driver, and return what it printed.

    Raises:
        TestingError: It failed, or got no answer in time; says what the server answered.
    """
    name = Path(command[0]).name
    try:
        done = subprocess.run(  # noqa: S603  # the client of the server that the caller found
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env={**os.environ, "LC_ALL": "C", **(environment or {})},
            timeout=4 * PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise TestingError(f"{name}: the server did not answer within {4 * PATIENCE:g} s") from None
    if done.returncode != 0:
        raise TestingError(f"{name}: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout.decode()


def spawn(command: Sequence[str], user: str | None, output: int) -> subprocess.Popen[bytes]:
    """
    Start a program as a user, in a session of its own: Ctrl-C on the terminal is for the tests, which then end it.
    """
    group = None
    if user is not None:
        import pwd

        group = pwd.getpwnam(user).pw_gid
    return subprocess.Popen(  # noqa: S603  # a program of the server that the caller found
        list(command),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        cwd="/",
        env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"},
        user=user,
        group=group,
        extra_groups=None if user is None else [],
        start_new_session=True,
    )


def open_to_all(path: Path) -> bool:
    """
    Say whether another user can reach what is in the directory.
    """
    return all(parent.stat().st_mode & stat.S_IXOTH for parent in (path, *path.parents))


def family(pid: int) -> list[psutil.Process]:
    """
    Return the processes that a process has started, directly or not.
    """
    import psutil

    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def kill(processes: Sequence[psutil.Process]) -> None:
    """
    Kill processes and wait until they are gone.

    Raises:
        TimeoutError: The system does not end one of them.
    """
    import psutil

    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    wait_until(lambda: not any(map(alive, processes)), f"the killed {processes!r} are gone", interval=0.005)


def kill_family(process: subprocess.Popen[bytes]) -> None:
    """
    Kill a program, if it runs, and all that it has started; wait until they are gone.

    Raises:
        TimeoutError: The system does not end one of them.
    """
    if process.poll() is None:
        started = family(process.pid)
        process.kill()
        process.wait(PATIENCE)
        kill(started)


def listens(pid: int, port: int) -> bool:
    """
    Say whether a process itself listens on a port; True where the system does not tell.
    """
    import psutil

    try:
        sockets = psutil.Process(pid).net_connections("inet")
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True
    return any(each.status == psutil.CONN_LISTEN and each.laddr.port == port for each in sockets)


def alive(process: psutil.Process) -> bool:
    """
    Say whether the process runs; one that has ended, and that nobody has waited for yet, does not.
    """
    import psutil

    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


class ServerProcess:
    """
    A throwaway server: a child process with a directory and a port of its own, which it keeps over restarts.

    Attributes:
        directory: Of its data.
        port: On 127.0.0.1.
        user: Name of the operating system's user that it runs as; None for the present one.
    """

    title: ClassVar[str] = "server"

    def __init__(self, directory: Path, user: str | None) -> None:
        self.directory = directory
        self.user = user
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """
        The process id of the server, None if it does not run.
        """
        process = self._process
        return None if process is None or process.poll() is not None else process.pid

    @property
    def log(self) -> str:
        """
        What the server has written to its log, over all its starts.
        """
        path = self._log_path
        return path.read_text(errors="replace") if path.exists() else ""

    @property
    def _log_path(self) -> Path:
        return self.directory.with_suffix(".log")

    def start(self) -> None:
        """
        Start the server, if it does not run, and wait until it accepts connections.

        Raises:
            TestingError: It does not start; says what is in its log.
        """
        if self.pid is not None:
            return
        with self._log_path.open("ab") as log:
            process = spawn(self._command(), self.user, log.fileno())
        self._process = process
        try:
            wait_until(lambda: process.poll() is not None or self._is_ready(), f"the {self.title} accepts connections")
        except TimeoutError as error:
            self.kill()
            raise TestingError(f"{error}; its log ends with:\n{self.log[-TAIL:]}") from None
        if process.poll() is not None:
            raise TestingError(
                f"the {self.title} ended with status {process.returncode} instead of accepting connections; its log "
                f"ends with:\n{self.log[-TAIL:]}"
            )

    def stop(self) -> None:
        """
        Stop the server in order, if it runs, and wait until it has ended.

        Raises:
            TestingError: It does not stop; it goes on.
        """
        self._end(signal.SIGTERM)

    def restart(self) -> None:
        """
        Stop the server and start it again, on the same port.

        Raises:
            TestingError: It does not stop or does not start.
        """
        self.stop()
        self.start()

    def kill(self) -> None:
        """
        Kill the server as a machine that fails does, and wait until all of its processes are gone.

        What was committed is there at the next `start()`; nobody is told anything, and nothing is written any more.
        """
        if self._process is not None:
            kill_family(self._process)

    def restore(self) -> None:
        """
        Let the server run again, whatever a test did to it; data stay as they are.

        Raises:
            TestingError: It does not start.
        """
        self.start()

    def _command(self) -> list[str]:
        raise NotImplementedError

    def _is_ready(self) -> bool:
        # Another program may have the port, and answer until this one has found out and ended.
        pid = self.pid
        return reachable(f"tcp://127.0.0.1:{self.port}", self.port) and pid is not None and listens(pid, self.port)

    def _end(self, number: signal.Signals) -> None:
        process = self._process
        if process is None or process.poll() is not None:
            return
        process.send_signal(number)
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            raise TestingError(
                f"the {self.title} did not stop within {PATIENCE} s of {number.name}; close the connections to it, or "
                "kill() it"
            ) from None
