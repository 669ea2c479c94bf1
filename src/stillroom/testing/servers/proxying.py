"""
A TCP proxy between a client and a database server that counts round trips and gets in the way on purpose.

It forwards bytes and understands nothing of PostgreSQL or MariaDB, with one exception: it declines PostgreSQL's
requests for encryption, because text that is encrypted could not be matched.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import threading
from typing import TYPE_CHECKING, Self, overload

from sqlalchemy.engine import URL, make_url

from .links import PATIENCE, Action, Link, Trigger

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator, Sequence
    from types import TracebackType

__all__ = ["Action", "Proxy", "Trigger", "proxy"]

DEFAULT_PORTS = {"postgresql": 5432, "mysql": 3306, "mariadb": 3306}


class Proxy:
    """
    Forward connections to a server, count their round trips, and cut, hold or swallow what was asked for.

    A round trip is a burst from the client that the server answers. Bytes that reach the proxy before the answer was
    delivered belong to the same burst, for the client cannot have seen the answer; so split segments and pipelines
    count once, and a farewell that nobody answers counts nothing.

    It works inside `with`, in a thread of its own; its methods and attributes may be used from any thread.

    Args:
        host: Of the server.
        port: Of the server.
        delay: Seconds that every segment spends on the way, in each direction.
        settle: Seconds that an answer waits for the rest of its question, so that a pipeline counts as one trip however
            slowly its segments arrive. 0 where the time of an answer is measured.

    Attributes:
        target: Host and port to which new connections go; see `redirect`.
        delay: As above; may be changed at any time.
        refusing: Whether new connections are closed at once; may be changed at any time.
        port: Of the proxy itself, on 127.0.0.1.
        trips_by_connection: Round trips of each connection, in the order in which they were opened.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 5432, *, delay: float = 0.0, settle: float = 0.002) -> None:
        self.target = (host, port)
        self.delay = delay
        self.settle = settle
        self.refusing = False
        self.trips_by_connection: list[int] = []
        self.port = 0
        self._triggers: list[Trigger] = []
        self._links: dict[asyncio.Task[None], Link] = {}
        self._thread: threading.Thread | None = None
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._accepted = 0
        self._losing = False

    def __repr__(self) -> str:
        host, port = self.target
        return f"<Proxy :{self.port} -> {host}:{port}: {self.connections} open, {self.trips} trips>"

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._run, name="proxy")
        self._thread.start()
        if not self._ready.wait(PATIENCE):
            raise TimeoutError(f"the proxy did not start within {PATIENCE} s")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """
        End all connections and the proxy itself.

        Raises:
            BaseException: What went wrong inside the proxy meanwhile, if anything did.
        """
        if self._thread is None:
            return
        with contextlib.suppress(RuntimeError):  # the loop is closed already
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(PATIENCE)
        if self._thread.is_alive():
            raise TimeoutError(f"the proxy did not stop within {PATIENCE} s")
        self._thread = None
        if self._failure is not None:
            raise self._failure

    @property
    def trips(self) -> int:
        """
        Round trips of all connections since the start or the last `reset()`.
        """
        return sum(self.trips_by_connection)

    @property
    def connections(self) -> int:
        """
        Connections that are open now, those that lead into a black hole included.
        """
        return len(self._links)

    @property
    def accepted(self) -> int:
        """
        Connections that were accepted since the start or the last `reset()`.
        """
        return self._accepted

    @overload
    def url(self, url: str) -> str: ...
    @overload
    def url(self, url: URL) -> URL: ...
    def url(self, url: str | URL) -> str | URL:
        """
        Return the URL with the proxy's address in place of the server's, as the type that was given.
        """
        rewritten = make_url(url).set(host="127.0.0.1", port=self.port)
        return rewritten.render_as_string(hide_password=False) if isinstance(url, str) else rewritten

    def reset(self) -> None:
        """
        Count from zero, connections that are open included.
        """
        self._call(self._reset())

    def on_client(self, pattern: bytes | re.Pattern[bytes], action: Action, *, times: int = 1) -> Trigger:
        """
        Do something when a client sends `pattern`, also when it arrives in pieces.

        Args:
            pattern: Bytes, found in any case, or a compiled pattern.
            action: `cut_before`: close both sides, the server never sees it. `cut_after`: forward it, and close both
                sides when the server has answered, the client never sees the answer. `black_hole`: swallow it and
                everything after it in both directions, both sides stay open. `black_hole_after`: forward, but swallow
                all answers. `hold`: forward after `release()`.
            times: How often; after that the pattern passes.

        Returns:
            The trigger, to wait for.
        """
        compiled = re.compile(re.escape(pattern), re.IGNORECASE) if isinstance(pattern, bytes) else pattern
        trigger = Trigger(compiled, action, times)
        self._triggers.append(trigger)
        return trigger

    def clear(self) -> None:
        """
        Forget the triggers that have not fired.
        """
        self._triggers.clear()

    def release(self) -> None:
        """
        Forward what is held.
        """
        self._call(self._release())

    def cut(self) -> None:
        """
        Close all connections now, both sides; new ones are accepted unless `refusing` is set.
        """
        self._call(self._cut())

    def pause(self) -> None:
        """
        Forward nothing until `resume()`; connections stay open and new ones are accepted.
        """
        self._call(self._set_running(running=False))

    def resume(self) -> None:
        """
        Forward what arrived since `pause()`, and go on.
        """
        self._call(self._set_running(running=True))

    def black_hole(self) -> None:
        """
        Lose everything that either side sends from now on, as a network that is cut off does, until `restore()`.

        Connections stay open and never get an answer, new ones included.
        """
        self._call(self._lose())

    def restore(self) -> None:
        """
        Be again what it was at the start: no delay, no trigger, no pause, no black hole, nobody refused.

        Connections that lost something are cut; the others go on. The target stays.
        """
        self._call(self._restore())

    def redirect(self, url: str | URL) -> None:
        """
        Lead new connections to another server, as an address does that moves in a failover; open ones stay.

        Args:
            url: Of the server, of which only host and port are used.
        """
        self.target = _address(url)

    def match(self, sent: bytes) -> Trigger | None:
        """
        Return the trigger that fires on what a client sent since the last answer.
        """
        return next((trigger for trigger in list(self._triggers) if trigger.matches(sent)), None)

    # What follows runs in the proxy's thread.

    def _call(self, coroutine: Coroutine[None, None, None]) -> None:
        if self._thread is None or not self._thread.is_alive():
            coroutine.close()
            raise RuntimeError("the proxy is not running: use it inside `with`")
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(PATIENCE)

    def _run(self) -> None:
        # The loop of the platform or of a policy may know no readers of plain sockets.
        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
            runner.run(self._main())

    async def _main(self) -> None:
        try:
            await self._serve()
        except BaseException as error:  # noqa: BLE001  # raised again in the thread that closes the proxy
            self._failure = error
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self.running = asyncio.Event()
        self.running.set()
        self.released = asyncio.Event()
        with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
            listener.settimeout(0)
            self.port = listener.getsockname()[1]
            self._loop.add_reader(listener, self._accept, listener)
            self._ready.set()
            await self._stop.wait()
            self._loop.remove_reader(listener)
            await self._cut()

    def _accept(self, listener: socket.socket) -> None:
        # A callback and no task: a task that is cancelled here would lose the socket that it was about to get.
        try:
            client, _ = listener.accept()
        except OSError:
            return  # the client has gone already
        if self.refusing:
            client.close()
            return
        link = Link(self, client, len(self.trips_by_connection), lost=self._losing)
        self.trips_by_connection.append(0)
        self._accepted += 1
        task = self._loop.create_task(link.run())
        self._links[task] = link
        task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[None]) -> None:
        # A task that is cancelled before its first step closes nothing.
        self._links.pop(task).close()
        if not task.cancelled() and task.exception() is not None:
            self._failure = self._failure or task.exception()

    async def _cut(self, tasks: Sequence[asyncio.Task[None]] | None = None) -> None:
        tasks = list(self._links) if tasks is None else tasks
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _reset(self) -> None:
        self.trips_by_connection = [0] * len(self._links)
        self._accepted = 0
        for number, link in enumerate(self._links.values()):
            link.number = number

    async def _release(self) -> None:
        self.released.set()
        self.released = asyncio.Event()

    async def _lose(self) -> None:
        self._losing = True
        for link in self._links.values():
            link.lose()

    async def _restore(self) -> None:
        self.delay = 0.0
        self.refusing = self._losing = False
        self._triggers.clear()
        await self._release()
        self.running.set()
        await self._cut([task for task, link in self._links.items() if not link.is_whole])

    async def _set_running(self, *, running: bool) -> None:
        if running:
            self.running.set()
        else:
            self.running.clear()


@contextlib.contextmanager
def proxy(url: str | URL, *, delay: float = 0.0, settle: float = 0.002) -> Iterator[Proxy]:
    """
    Run a proxy before the server of a URL; `proxy.url(url)` is the way through it.

    Args:
        url: Of a PostgreSQL or MariaDB server, with a host (not a socket).
        delay: Seconds that every segment spends on the way, in each direction.
        settle: Seconds that an answer waits for the rest of its question; see `Proxy`.

    Raises:
        ValueError: The URL has no port, and its scheme no usual one.
    """
    host, port = _address(url)
    with Proxy(host, port, delay=delay, settle=settle) as made:
        yield made


def _address(url: str | URL) -> tuple[str, int]:
    parsed = make_url(url)
    port = parsed.port or DEFAULT_PORTS.get(parsed.get_backend_name())
    if port is None:
        raise ValueError(f"{parsed!r} has no port, and its scheme no usual one; write the port into the URL")
    return parsed.host or "127.0.0.1", port
