"""Two connections joined in memory, for the tests of programs that use typed_amp.

Rule of this module: everything above the transport is the code that runs over a socket. Boxes are
written and read, flow control works, and either end can close; only the network is missing.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, overload

from typing_extensions import TypeVar, Unpack

from typed_amp.connection import Connection
from typed_amp.descriptors import close_descriptors
from typed_amp.lifetime import greeted
from typed_amp.options import check_options
from typed_amp.protocol import LinkProtocol
from typed_amp.settings import Settings
from typed_amp.tls import feed_protocol

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from contextlib import AbstractAsyncContextManager

    from typed_amp.options import ConnectionOptions
    from typed_amp.router import Router

__all__ = ["MemoryTransport", "connection_pair"]

S = TypeVar("S", default=None)
T = TypeVar("T", default=None)


@overload
def connection_pair(
    router: Router[S],
    *,
    client_router: None = None,
    **options: Unpack[ConnectionOptions],
) -> AbstractAsyncContextManager[tuple[Connection[None], Connection[S]]]: ...


@overload
def connection_pair(
    router: Router[S],
    *,
    client_router: Router[T],
    **options: Unpack[ConnectionOptions],
) -> AbstractAsyncContextManager[tuple[Connection[T], Connection[S]]]: ...


def connection_pair(
    router: Router[S],
    *,
    client_router: Router[T] | None = None,
    **options: Unpack[ConnectionOptions],
) -> AbstractAsyncContextManager[tuple[Connection[T], Connection[S]]]:
    """Join two connections; both are closed at the end.

    ::

        async with connection_pair(router) as (client, server):
            assert await client.call(Repeat(text="ab")) == RepeatResult(text="ab")

    Args:
        router: answers what the first of the two, the client, calls.
        client_router: answers what the second, the server, calls.
        options: see `ConnectionOptions`.

    Returns:
        A context manager that gives the client's end and the server's.

    Raises:
        ConnectionLostError: a hook of `Router.on_connect` failed.
    """
    return _connection_pair(router, client_router, **options)


@asynccontextmanager
async def _connection_pair(
    router: Router[S],
    client_router: Router[T] | None,
    **options: Unpack[ConnectionOptions],
) -> AsyncGenerator[tuple[Connection[T], Connection[S]], None]:
    check_options(options)
    client = Connection(Settings(client_router, **options))
    server = Connection(Settings(router, is_server=True, **options))
    transports = MemoryTransport(client), MemoryTransport(server)
    for transport, peer in zip(transports, reversed(transports), strict=True):
        transport.join(peer)
    async with client, server:
        await greeted(client._link)
        await greeted(server._link)
        yield client, server


class MemoryTransport(asyncio.Transport):
    """One end of a pipe in memory: what is written here, the other end's protocol receives.

    It keeps asyncio's promises: nothing is received within the call that writes it, a writer is
    paused above the high-water mark while the reader doesn't read, `close` sends what is left and
    `abort` doesn't.

    Args:
        connection: the connection that writes here.
    """

    _start_tls_compatible = True  # asyncio's own mark

    def __init__(self, connection: Connection[Any]) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self._protocol: asyncio.BaseProtocol = LinkProtocol(connection)
        self._peer: MemoryTransport
        self._buffer = bytearray()
        self._descriptors: list[int] = []
        self._high = self._low = 0
        self._is_protocol_paused = False
        self._is_reading = True
        self._is_closing = False
        self._is_lost = False

    def join(self, peer: MemoryTransport) -> None:
        """Tell this end which the other is, and its connection that it is there."""
        self._peer = peer
        self._protocol.connection_made(self)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._is_closing or not data:
            return
        self._buffer += data
        self._loop.call_soon(self._deliver)
        if len(self._buffer) > self._high and not self._is_protocol_paused:
            self._is_protocol_paused = True
            self._protocol.pause_writing()

    def _deliver(self) -> None:
        if self._is_lost or not self._peer._is_reading:
            return
        data = bytes(self._buffer)
        self._buffer.clear()
        if self._descriptors:
            descriptors, self._descriptors = self._descriptors, []
            receive = getattr(self._peer._protocol, "descriptors_received", close_descriptors)
            receive(descriptors)
        if data and not self._peer._is_closing:
            feed_protocol(self._peer._protocol, data)
        if self._is_protocol_paused:
            self._is_protocol_paused = False
            self._protocol.resume_writing()
        if self._is_closing and not self._buffer:
            self._lose()

    def send_descriptor(self, descriptor: int) -> None:
        """Send a duplicate of a descriptor; the other end gets it before what is written next.

        Raises:
            OSError: it isn't open, or this process may open no more.
        """
        self._descriptors.append(os.dup(descriptor))

    def get_write_buffer_size(self) -> int:
        return len(self._buffer)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._high = 64 * 1024 if high is None else high
        self._low = self._high // 4 if low is None else low

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._low, self._high

    def pause_reading(self) -> None:
        self._is_reading = False

    def resume_reading(self) -> None:
        self._is_reading = True
        self._loop.call_soon(self._peer._deliver)

    def is_reading(self) -> bool:
        return self._is_reading

    def can_write_eof(self) -> bool:
        return False  # nothing is lost when it closes

    def is_closing(self) -> bool:
        return self._is_closing

    def close(self) -> None:
        if not self._is_closing:
            self._is_closing = True
            self._loop.call_soon(self._deliver)

    def abort(self) -> None:
        self._force_close(None)

    def _force_close(self, error: BaseException | None) -> None:
        # What asyncio's TLS calls when it fails.
        self._buffer.clear()
        self._is_closing = True
        self._loop.call_soon(self._lose, error)

    def _lose(self, error: Any = None) -> None:
        for end in (self, self._peer):
            if not end._is_lost:
                close_descriptors(end._descriptors)
                end._is_lost = end._is_closing = True
                end._protocol.connection_lost(error if end is self else None)
