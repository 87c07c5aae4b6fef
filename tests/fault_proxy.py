"""A proxy that does to connections what networks do to them.

Rule of this module: it acts at counts of bytes and at events, never at times. Each direction has a
script of its own: steps that run one after the other, and behind the last everything is passed on.
Bytes of one direction keep their order, as in TCP.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Protocol

from tests.peers import HOST

_PIECE = 65_536

_NOW = b"\1\0\0\0\0\0\0\0"
"""For SO_LINGER: close with a reset."""


class Step(Protocol):
    """One step of a script."""

    async def run(self, way: Way) -> None: ...


Script = Sequence[Step]


@dataclass(eq=False)
class Way:
    """One direction of a link.

    Attributes:
        passed: all bytes that were passed on.
    """

    link: Link
    source: socket.socket
    sink: socket.socket
    passed: bytearray = field(default_factory=bytearray)
    moved: asyncio.Event = field(default_factory=asyncio.Event)

    async def receive(self, count: int = _PIECE) -> bytes:
        """Read up to so many bytes; none at the end."""
        return await self.link.loop.sock_recv(self.source, min(count, _PIECE))

    async def send(self, data: bytes) -> None:
        """Pass bytes on."""
        await self.link.loop.sock_sendall(self.sink, data)
        self.passed += data
        self.moved.set()

    def end(self) -> None:
        """Tell the sink that nothing more comes."""
        with contextlib.suppress(OSError):
            self.sink.shutdown(socket.SHUT_WR)

    async def discard(self) -> None:
        """Read to the end, and throw it away."""
        while await self.receive():
            pass

    async def run(self, script: Script) -> None:
        for step in (*script, Pass()):
            await step.run(self)


@dataclass(frozen=True)
class Pass:
    """Pass on so many bytes, as they come; all, up to the end of the stream and that too, if left
    out."""

    count: int | None = None

    async def run(self, way: Way) -> None:
        left = _PIECE if self.count is None else self.count
        while left:
            data = await way.receive(left)
            if not data:
                way.end()
                await asyncio.Event().wait()
            await way.send(data)
            if self.count is not None:
                left -= len(data)


@dataclass(frozen=True)
class OneByOne:
    """Pass on so many bytes, each alone."""

    count: int

    async def run(self, way: Way) -> None:
        left = self.count
        while left:
            data = await way.receive(left)
            if not data:
                way.end()
                await asyncio.Event().wait()
            for i in range(len(data)):
                await way.send(data[i : i + 1])
                await asyncio.sleep(0)
            left -= len(data)


@dataclass(frozen=True)
class Gather:
    """Keep bytes back until there are so many, and pass them on in one piece."""

    count: int

    async def run(self, way: Way) -> None:
        data = b""
        while len(data) < self.count:
            more = await way.receive(self.count - len(data))
            assert more, "the stream ends before so many bytes came"
            data += more
        await way.send(data)


@dataclass(frozen=True)
class WaitFor:
    """Read nothing until an event."""

    event: asyncio.Event

    async def run(self, way: Way) -> None:
        await self.event.wait()


@dataclass(frozen=True)
class After:
    """Read nothing until the other direction has passed on so many bytes."""

    count: int

    async def run(self, way: Way) -> None:
        other = way.link.other(way)
        while len(other.passed) < self.count:
            other.moved.clear()
            await other.moved.wait()


@dataclass(frozen=True)
class StopReading:
    """Read nothing any more, as a machine that has lost its power."""

    async def run(self, way: Way) -> None:
        way.link.acted.set()
        await asyncio.Event().wait()


@dataclass(frozen=True)
class HalfClose:
    """End this direction; the other goes on."""

    async def run(self, way: Way) -> None:
        way.end()
        way.link.acted.set()
        await way.discard()
        await asyncio.Event().wait()


@dataclass(frozen=True)
class Cut:
    """End both directions, as a proxy that is stopped."""

    async def run(self, way: Way) -> None:
        await way.link.cut()


@dataclass(frozen=True)
class Reset:
    """Reset both sides, as a firewall that forgot the connection."""

    async def run(self, way: Way) -> None:
        way.link.reset()
        await asyncio.Event().wait()


class Link:
    """One connection through the proxy.

    Attributes:
        to_server: the direction from the client to the server.
        to_client: the other.
        acted: set when a script has ended a direction, or the link.
    """

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.loop = asyncio.get_running_loop()
        self.acted = asyncio.Event()
        self.to_server = Way(self, client, server)
        self.to_client = Way(self, server, client)
        self._sockets = client, server
        self._tasks: list[asyncio.Task[None]] = []
        self._is_reset = False

    def other(self, way: Way) -> Way:
        return self.to_client if way is self.to_server else self.to_server

    def start(self, to_server: Script, to_client: Script) -> None:
        for way, script in ((self.to_server, to_server), (self.to_client, to_client)):
            self._spawn(way, script)

    def _spawn(self, way: Way, script: Script) -> None:
        async def run() -> None:
            try:
                await way.run(script)
            except ConnectionError:  # one side has reset it: so does this one
                self.reset()

        self._tasks.append(self.loop.create_task(run()))

    async def cut(self) -> None:
        """End both directions, and read on from both sides so that none is reset."""
        self._stop(but=asyncio.current_task())
        for way in (self.to_server, self.to_client):
            way.end()
        self.acted.set()
        await asyncio.gather(
            self.to_server.discard(), self.to_client.discard(), return_exceptions=True
        )
        await asyncio.Event().wait()

    def reset(self) -> None:
        """Reset both sides."""
        self._stop(but=asyncio.current_task())
        for sock in self._sockets if not self._is_reset else ():
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NOW)
            sock.close()
        self._is_reset = True
        self.acted.set()

    def _stop(self, but: asyncio.Task[None] | None = None) -> None:
        for task in self._tasks:
            if task is not but:
                task.cancel()

    async def close(self) -> None:
        self._stop()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for sock in self._sockets:
            sock.close()


class FaultProxy:
    """Accepts connections, and makes one to the server for each.

    Attributes:
        port: where it listens.
        to_server: the script for what the client of the next connection says.
        to_client: likewise for the server.
        is_silent: whether the next connection is accepted and nothing more.
        links: the connections that `link` has not given out yet, in their order.
    """

    def __init__(self, port: int) -> None:
        self.to_server: Script = ()
        self.to_client: Script = ()
        self.is_silent = False
        self.links: list[Link] = []
        self._target = port
        self._silent: list[socket.socket] = []
        self._made: list[Link] = []
        self._linked = asyncio.Event()
        self._accepting: asyncio.Task[None]
        self._listener = socket.create_server((HOST, 0), backlog=100)
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]

    def script(self, to_server: Script = (), to_client: Script = ()) -> None:
        """Say what becomes of the next connections."""
        self.to_server, self.to_client = to_server, to_client

    def listen(self) -> None:
        """Accept connections from now on."""
        self._accepting = asyncio.create_task(self._accept())

    async def refuse(self) -> None:
        """Listen no more: whoever connects is refused."""
        self._accepting.cancel()
        await asyncio.gather(self._accepting, return_exceptions=True)
        self._listener.close()

    async def link(self) -> Link:
        """Wait for the next connection."""
        while not self.links:
            self._linked.clear()
            await self._linked.wait()
        return self.links.pop(0)

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            client, _ = await loop.sock_accept(self._listener)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.is_silent:
                self._silent.append(client)
                continue
            server = socket.socket()
            server.setblocking(False)
            server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await loop.sock_connect(server, (HOST, self._target))
            link = Link(client, server)
            self.links.append(link)
            self._made.append(link)
            link.start(self.to_server, self.to_client)
            self._linked.set()

    async def close(self) -> None:
        await self.refuse()
        for link in self._made:
            await link.close()
        for sock in self._silent:
            sock.close()


@asynccontextmanager
async def fault_proxy(
    port: int, to_server: Script = (), to_client: Script = ()
) -> AsyncIterator[FaultProxy]:
    """Stand before the server at a port of this machine."""
    proxy = FaultProxy(port)
    proxy.script(to_server, to_client)
    proxy.listen()
    try:
        yield proxy
    finally:
        await proxy.close()


def is_at(offset: int, ending: Callable[[], Step]) -> Script:
    """A script that passes on exactly so many bytes, and then ends the link in some way."""
    return (*([Pass(offset)] if offset else []), ending())
