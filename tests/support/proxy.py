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
from typing import TYPE_CHECKING, Literal, Self, overload

from sqlalchemy.engine import URL, make_url

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from types import TracebackType

Action = Literal["cut_before", "cut_after", "black_hole", "black_hole_after", "hold"]

# https://www.postgresql.org/docs/current/protocol-message-formats.html: SSLRequest and GSSENCRequest.
ENCRYPTION_REQUESTS = (b"\x00\x00\x00\x08\x04\xd2\x16\x2f", b"\x00\x00\x00\x08\x04\xd2\x16\x30")

# How much of what a client sent since the last answer is searched for a trigger, in bytes.
SEARCHED = 1 << 16

# An answer is complete when the server has been silent for so long, in seconds.
SILENCE = 0.05

# How long the proxy's own thread may take to start, to stop or to do one thing, in seconds.
PATIENCE = 10.0


class Trigger:
    """
    What happens when a client sends a given text: made by `Proxy.on_client`.
    """

    def __init__(self, pattern: re.Pattern[bytes], action: Action, times: int) -> None:
        self.pattern = pattern
        self.action: Action = action
        self.left = times
        self.fired = 0
        self._event = threading.Event()

    def __repr__(self) -> str:
        return f"<Trigger {self.action} on {self.pattern.pattern!r}: fired {self.fired}, {self.left} left>"

    def wait(self, timeout: float = PATIENCE) -> None:
        """
        Wait until the trigger has fired at least once.

        Raises:
            TimeoutError: it did not within `timeout` seconds.
        """
        if not self._event.wait(timeout):
            raise TimeoutError(f"{self!r} did not fire within {timeout} s")

    def matches(self, sent: bytes) -> bool:
        """
        Say whether the trigger fires on what the client sent since the last answer, and count it if so.
        """
        if self.left <= 0 or self.pattern.search(sent) is None:
            return False
        self.left -= 1
        self.fired += 1
        return True

    def tell(self) -> None:
        """
        Wake those who wait for the trigger: its action has begun.
        """
        self._event.set()


class Proxy:
    """
    Forward connections to a server, count their round trips, and cut, hold or swallow what was asked for.

    A round trip is a burst from the client that the server answers. Bytes that reach the proxy before the answer was
    delivered belong to the same burst, for the client cannot have seen the answer; so split segments and pipelines
    count once, and a farewell that nobody answers counts nothing.

    Args:
        host: of the server.
        port: of the server.
        delay: seconds that every segment spends on the way, in each direction.
        settle: seconds that an answer waits for the rest of its question, so that a pipeline counts as one trip however
            slowly its segments arrive. 0 for benchmarks.
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

    def __repr__(self) -> str:
        host, port = self.target
        return f"<Proxy :{self.port} -> {host}:{port}: {self.connections} open, {self.trips} trips>"

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=asyncio.run, args=(self._main(),), name="proxy")
        self._thread.start()
        if not self._ready.wait(PATIENCE):
            raise TimeoutError("the proxy did not start")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """
        End all connections and the proxy itself.

        Raises:
            BaseException: what went wrong inside the proxy meanwhile, if anything did.
        """
        if self._thread is None:
            return
        with contextlib.suppress(RuntimeError):  # the loop is closed already
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(PATIENCE)
        if self._thread.is_alive():
            raise TimeoutError("the proxy did not stop")
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
            pattern: bytes, found in any case, or a compiled pattern.
            action: `cut_before`: close both sides, the server never sees it. `cut_after`: forward it, and close both
                sides when the server has answered, the client never sees the answer. `black_hole`: swallow it and
                everything after it in both directions, both sides stay open. `black_hole_after`: forward, but swallow
                all answers. `hold`: forward after `release()`.
            times: how often; after that the pattern passes.

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

    async def _main(self) -> None:
        try:
            await self._serve()
        except BaseException as error:  # told to the thread that closes the proxy
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
        link = Link(self, client, len(self.trips_by_connection))
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

    async def _cut(self) -> None:
        tasks = list(self._links)
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

    async def _set_running(self, *, running: bool) -> None:
        if running:
            self.running.set()
        else:
            self.running.clear()


class Link:
    """
    One client's connection and the one to the server behind it.

    In each direction a reader puts segments with their time of delivery into a queue, and a writer delivers them; so
    a delay holds nothing up but the bytes themselves.
    """

    def __init__(self, proxy: Proxy, client: socket.socket, number: int) -> None:
        self.proxy = proxy
        self.number = number
        self.client = client
        self.server = socket.socket(socket.AF_INET6 if ":" in proxy.target[0] else socket.AF_INET)
        self.to_server: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(maxsize=256)
        self.to_client: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(maxsize=256)
        self.closed = asyncio.Event()
        self.sent = b""  # what the client sent since the last answer, its last bytes
        self.asked = False  # sent something whose answer was not delivered
        self.deaf = False  # what the client sends is lost
        self.mute = False  # what the server sends is lost
        self.cut_when_answered = False

    async def run(self) -> None:
        """
        Forward until one side closes, the proxy cuts or a trigger does; then close both sides.
        """
        tasks: list[asyncio.Task[object]] = []
        try:
            for end in (self.client, self.server):
                end.settimeout(0)
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await asyncio.get_running_loop().sock_connect(self.server, self.proxy.target)
            tasks = [
                asyncio.create_task(self._read_client()),
                asyncio.create_task(self._read_server()),
            ]
            ends = [
                asyncio.create_task(self._write_server()),
                asyncio.create_task(self._write_client()),
                asyncio.create_task(self.closed.wait()),
            ]
            tasks += ends
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        except OSError:
            pass  # the server is not there; the client sees that its connection is closed
        finally:
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            self.close()
        for result in results:
            if isinstance(result, Exception):
                raise result

    def close(self) -> None:
        """
        Close both sides.
        """
        self.client.close()
        self.server.close()

    async def _receive(self, end: socket.socket) -> bytes:
        try:
            return await asyncio.get_running_loop().sock_recv(end, 1 << 16)
        except OSError:
            return b""

    async def _put(self, queue: asyncio.Queue[tuple[float, bytes]], data: bytes) -> None:
        await queue.put((asyncio.get_running_loop().time() + self.proxy.delay, data))

    async def _due(self, queue: asyncio.Queue[tuple[float, bytes]]) -> bytes:
        due, data = await queue.get()
        await asyncio.sleep(max(0.0, due - asyncio.get_running_loop().time()))
        await self.proxy.running.wait()
        return data

    async def _send(self, end: socket.socket, data: bytes) -> bool:
        try:
            await asyncio.get_running_loop().sock_sendall(end, data)
        except OSError:
            return False
        return True

    async def _read_client(self) -> None:
        while data := await self._receive(self.client):
            if data in ENCRYPTION_REQUESTS:
                await asyncio.get_running_loop().sock_sendall(self.client, b"N")
                continue
            if self.deaf:
                continue
            self.sent = (self.sent + data)[-SEARCHED - len(data) :]
            trigger = self.proxy.match(self.sent)
            if trigger is not None:
                self.sent = b""
                await self._act(trigger)
            if self.closed.is_set():
                return
            if not self.deaf:
                self.asked = True
                await self._put(self.to_server, data)
        if not (self.deaf or self.mute or self.cut_when_answered):
            await self._put(self.to_server, b"")

    async def _act(self, trigger: Trigger) -> None:
        released = self.proxy.released
        match trigger.action:
            case "cut_before":
                self.closed.set()
            case "cut_after":
                self.cut_when_answered = True
            case "black_hole":
                self.deaf = self.mute = True
            case "black_hole_after":
                self.mute = True
        trigger.tell()
        if trigger.action == "hold":
            await released.wait()

    async def _write_server(self) -> None:
        while data := await self._due(self.to_server):
            if not await self._send(self.server, data):
                return

    async def _read_server(self) -> None:
        while data := await self._receive(self.server):
            if self.cut_when_answered:
                await self._wait_for_silence()
                return
            if not self.mute:
                await self._put(self.to_client, data)
        if self.cut_when_answered:
            self.closed.set()
        elif not self.mute:
            await self._put(self.to_client, b"")

    async def _wait_for_silence(self) -> None:
        with contextlib.suppress(TimeoutError):
            while await asyncio.wait_for(self._receive(self.server), SILENCE):
                pass
        self.closed.set()

    async def _write_client(self) -> None:
        while data := await self._due(self.to_client):
            if self.asked:
                if self.proxy.settle:
                    await asyncio.sleep(self.proxy.settle)
                self.asked = False
                self.sent = b""
                self.proxy.trips_by_connection[self.number] += 1
            if not await self._send(self.client, data):
                return
