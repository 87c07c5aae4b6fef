"""What asyncio knows of a connection.

Rule of this module: it passes on what it is told. The transport is the link's.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, cast
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from typed_amp.connection import Connection
    from typed_amp.link import Link

__all__ = ["LinkProtocol"]

_BUFFER_BYTES: Final = 64 * 1024
"""How much is read at a time: what a system's buffer of a socket brings in one turn, mostly."""

_buffers: WeakKeyDictionary[asyncio.AbstractEventLoop, memoryview] = WeakKeyDictionary()


class LinkProtocol(asyncio.BufferedProtocol):
    """Passes on to a connection what asyncio tells its protocol.

    Transports read into one buffer for all connections of an event loop. Otherwise asyncio makes
    256 kB of memory for each piece that comes, and gives most of it back at once. Where the C
    library hands that on to the system, it takes longer than the rest of the call.

    Args:
        connection: the connection. Its transport must be one that calls `buffer_updated` before
            anything else is read, as those of Unix do, or `data_received`.
    """

    __slots__ = ("_buffer", "link")

    def __init__(self, connection: Connection[Any]) -> None:
        self.link: Link[Any] = connection._link
        loop = self.link.loop
        buffer = _buffers.get(loop)
        if buffer is None:
            buffer = _buffers[loop] = memoryview(bytearray(_BUFFER_BYTES))
        self._buffer = buffer

    async def join(self, making: Awaitable[object]) -> None:
        """Wait until there is a transport for it. Cancelling gives that up.

        Args:
            making: what makes the transport, and closes it if it is given up.

        Raises:
            Exception: what that raises.
        """
        try:
            await making
        except BaseException:
            # If that was in the very turn in which the transport came, uvloop tells of no end.
            if self.link.is_opened:
                self.link.ended(None)
            raise

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.link.opened(cast("asyncio.Transport", transport))

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002  # of the interface
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.link.received(self._buffer[:nbytes])

    def data_received(self, data: bytes) -> None:
        """Take bytes of a transport that has made them itself."""
        self.link.received(data)

    def descriptors_received(self, descriptors: list[int]) -> None:
        """Take over descriptors, which came before the bytes that are received next."""
        self.link.descriptors.received(descriptors)

    def pause_writing(self) -> None:
        self.link.writing_paused()

    def resume_writing(self) -> None:
        self.link.writing_resumed()

    def connection_lost(self, exc: Exception | None) -> None:
        self.link.ended(exc)
