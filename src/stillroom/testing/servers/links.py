"""What the proxy does with one connection: it forwards, delays and swallows bytes, and acts on what a client sends."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import re

    from .proxying import Proxy

__all__ = ["Action", "Trigger"]

Action = Literal["cut_before", "cut_after", "black_hole", "black_hole_after", "hold"]
"""What a trigger does: see `Proxy.on_client`."""

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
    What happens when a client sends a given text; made by `Proxy.on_client`.

    Attributes:
        pattern: The text.
        action: What then happens.
        left: How often it will still happen.
        fired: How often it has happened.
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

        Args:
            timeout: Seconds.

        Raises:
            TimeoutError: It did not in time.
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


class Link:
    """
    One client's connection and the one to the server behind it.

    In each direction a reader puts segments with their time of delivery into a queue, and a writer delivers them; so
    a delay holds nothing up but the bytes themselves.
    """

    def __init__(self, proxy: Proxy, client: socket.socket, number: int, *, lost: bool = False) -> None:
        self.proxy = proxy
        self.number = number
        self.client = client
        self.server = socket.socket(socket.AF_INET6 if ":" in proxy.target[0] else socket.AF_INET)
        self.to_server: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(maxsize=256)
        self.to_client: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(maxsize=256)
        self.closed = asyncio.Event()
        self.sent = b""  # what the client sent since the last answer, its last bytes
        self.asked = False  # sent something whose answer was not delivered
        self.deaf = lost  # what the client sends is lost
        self.mute = lost  # what the server sends is lost
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
            tasks = [asyncio.create_task(self._read_client())]
            if not self.deaf:  # else the client would see that a server refuses connections
                await asyncio.get_running_loop().sock_connect(self.server, self.proxy.target)
                tasks.append(asyncio.create_task(self._read_server()))
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

    @property
    def is_whole(self) -> bool:
        """
        Whether nothing that was sent was lost, or is going to be.
        """
        return not (self.deaf or self.mute or self.cut_when_answered)

    def lose(self) -> None:
        """
        Lose everything that either side sends from now on, and keep both sides open.
        """
        self.deaf = self.mute = True

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
            if self.deaf:
                continue
            if data in ENCRYPTION_REQUESTS:
                await asyncio.get_running_loop().sock_sendall(self.client, b"N")
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
        if self.is_whole:
            await self._put(self.to_server, b"")

    async def _act(self, trigger: Trigger) -> None:
        released = self.proxy.released
        match trigger.action:
            case "cut_before":
                self.closed.set()
            case "cut_after":
                self.cut_when_answered = True
            case "black_hole":
                self.lose()
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
