"""Unix sockets that a `UnixTransport` serves: connecting, and taking over what was accepted.

Rule of this module: it makes sockets and hands them to transports; bytes are the transport's
business.
"""

from __future__ import annotations

import asyncio
import os
import socket
from typing import TYPE_CHECKING, Final, cast

from typed_amp.unix_transport import UnixTransport

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["UnixTakeover", "open_unix_transport"]

_RETRY_SECONDS: Final = 0.01
"""How long to wait where a server's queue is full, since no event tells when it isn't."""


class UnixTakeover(asyncio.Protocol):
    """Takes a connection that an asyncio server accepted over to a `UnixTransport`.

    Nothing is lost: the transport that the server made never gets to read.

    Args:
        protocol_factory: makes the protocol for the new transport.
    """

    def __init__(self, protocol_factory: Callable[[], asyncio.BaseProtocol]) -> None:
        self._protocol_factory = protocol_factory

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        given = cast("asyncio.Transport", transport)
        given.pause_reading()  # it reads from the next turn on
        loop = asyncio.get_running_loop()
        accepted = given.get_extra_info("socket")
        try:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, os.dup(accepted.fileno()))
        except OSError as error:
            message = "a connection to a Unix socket was refused"
            loop.call_exception_handler({"message": message, "exception": error})
        else:
            sock.setblocking(False)
            UnixTransport(loop, sock, self._protocol_factory())
        given.abort()  # the duplicate keeps the connection open


async def open_unix_transport(protocol: asyncio.BaseProtocol, path: str) -> UnixTransport:
    """Connect to a Unix socket.

    Where the server's queue is full it waits, as long as it takes. Cancelling leaves nothing open.

    Args:
        protocol: the protocol; it has been told of the connection when this returns.
        path: the socket.

    Raises:
        OSError: nothing listens there.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        while True:
            try:
                sock.connect(path)
                break
            except BlockingIOError:  # Linux: the queue is full
                await asyncio.sleep(_RETRY_SECONDS)
    except BaseException as error:
        sock.close()
        if isinstance(error, OSError) and error.errno is not None:
            error.filename = path
        raise
    transport = UnixTransport(asyncio.get_running_loop(), sock, protocol)
    try:
        await asyncio.sleep(0)  # the turn in which the protocol is told
    except BaseException:
        transport.close()
        raise
    return transport
