"""Connecting to Unix sockets that a `UnixTransport` serves.

Rule of this module: it makes a socket and hands it to a transport; bytes are the transport's
business.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Final

from typed_amp.unix_transport import UnixTransport

__all__ = ["open_unix_transport"]

_RETRY_SECONDS: Final = 0.01
"""How long to wait where a server's queue is full, since no event tells when it isn't."""


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
