"""What asyncio knows of a connection.

Rule of this module: it passes on what it is told. The transport is the link's.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from typed_amp.connection import Connection
    from typed_amp.link import Link

__all__ = ["LinkProtocol"]


class LinkProtocol(asyncio.Protocol):
    """Passes on to a connection what asyncio tells its protocol.

    Args:
        connection: the connection.
    """

    __slots__ = ("link",)

    def __init__(self, connection: Connection[Any]) -> None:
        self.link: Link[Any] = connection._link

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.link.opened(cast("asyncio.Transport", transport))

    def data_received(self, data: bytes) -> None:
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
