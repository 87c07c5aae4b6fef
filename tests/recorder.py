"""A protocol that notes what its transport tells it."""

from __future__ import annotations

import asyncio
from typing import Generic, cast

from typing_extensions import TypeVar

T = TypeVar("T", bound=asyncio.Transport, default=asyncio.Transport)


class Recorder(asyncio.Protocol, Generic[T]):
    """Notes what a transport tells it, in order, and apart from that the bytes.

    Args:
        keeps_open: whether it may go on writing when the peer has ended its stream.
    """

    def __init__(self, *, keeps_open: bool = False) -> None:
        self.transport: T
        self.events: list[object] = []
        self.received: bytes = b""
        self.keeps_open = keeps_open
        self.lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("T", transport)
        self.events.append("made")

    def data_received(self, data: bytes) -> None:
        self.received += data

    def eof_received(self) -> bool:
        self.events.append("eof")
        return self.keeps_open

    def pause_writing(self) -> None:
        self.events.append("pause")

    def resume_writing(self) -> None:
        self.events.append("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self.events.append("lost")
        self.lost.set_result(exc)  # which fails the second time
