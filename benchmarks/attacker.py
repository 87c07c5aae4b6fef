"""What attackers are made of: connections that send what they like, and note what comes back.

Rule of this module: it knows bytes and sockets, and nothing of which attacks there are.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any, cast

from typed_amp import BoxReader, Limits, encode_box

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

CHUNK_BYTES = 65_536
"""About how much is written at once."""

STALLED = 3.0
"""Seconds in which a server that takes nothing has stopped reading."""

OPENING = 40
"""How many connections are opened at a time; a server's backlog is 100 unless told otherwise."""

TAG = b"%08x"
ESTABLISHED = 1  # of TCP's states


@dataclass
class Report:
    """What became of an attack, as far as the attacker can see."""

    opened: int = 0
    refused: int = 0
    sent: int = 0
    received: Counter[str] = field(default_factory=Counter)
    closed: int = 0
    first_closed: float | None = None
    last_closed: float | None = None
    is_stalled: bool = False

    def as_json(self) -> dict[str, Any]:
        return vars(self)


class Peer(asyncio.Protocol):
    """One connection of an attacker.

    It refuses what the server asks, as any AMP peer does that doesn't know the command.
    """

    def __init__(self, report: Report) -> None:
        self.report = report
        self.reader = BoxReader(Limits(max_box_bytes=64 * 1024 * 1024))
        self.writable = asyncio.Event()
        self.received = 0
        self.progress = asyncio.Event()
        self.is_gone = False
        self.is_within_a_box = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.writable.set()
        self.opened_at = time.monotonic()
        self.report.opened += 1

    def data_received(self, data: bytes) -> None:
        for box in self.reader.feed(data):
            if b"_command" in box:
                self.report.received["ask"] += 1
                if b"_ask" in box and not self.is_within_a_box:
                    self.refuse(box[b"_ask"])
                continue
            self.report.received[box.get(b"_error_code", b"answer").decode()] += 1
            self.received += 1
        self.progress.set()

    def refuse(self, tag: bytes) -> None:
        error = {
            b"_error": tag,
            b"_error_code": b"UNHANDLED",
            b"_error_description": b"Unhandled Command",
        }
        self.transport.write(encode_box(error))

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone()

    def gone(self) -> None:
        """Note that the server has closed the connection."""
        if self.is_gone:
            return
        self.is_gone = True
        seconds = time.monotonic() - self.opened_at
        self.report.closed += 1
        self.report.first_closed = min(self.report.first_closed or seconds, seconds)
        self.report.last_closed = max(self.report.last_closed or 0, seconds)
        self.writable.set()
        self.progress.set()

    def check(self) -> None:
        """See whether the server has closed it, without reading."""
        if self.transport.is_reading() or self.is_gone:
            return
        sock: socket.socket = self.transport.get_extra_info("socket")
        if sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != ESTABLISHED:
            self.gone()


class Attacker:
    """One attacking process.

    Args:
        port: where the server speaks in the clear.
        tls_port: where it speaks TLS.
        amount: how much: connections, or boxes.
        seconds: when to end, whatever was done until then.
        hold: for how long to stay once all is sent.
        is_endless: whether to go on sending until the time is over, rather than for the amount.
    """

    def __init__(
        self,
        port: int,
        tls_port: int,
        *,
        amount: int,
        seconds: float,
        hold: float,
        is_endless: bool,
    ) -> None:
        self.port = port
        self.tls_port = tls_port
        self.amount = amount
        self.end = time.monotonic() + seconds
        self.hold_seconds = hold
        self.is_endless = is_endless
        self.report = Report()
        self.peers: list[Peer] = []

    @property
    def left(self) -> float:
        """How many seconds there are left."""
        return self.end - time.monotonic()

    @property
    def is_to_go_on(self) -> bool:
        """Whether neither time nor amount is used up."""
        return self.left > 0 and (self.is_endless or self.report.sent < self.amount)

    async def open(
        self, number: int = 1, make: Callable[[Report], Peer] = Peer, port: int | None = None
    ) -> list[Peer]:
        """Open connections. Fewer come back where the server takes no more, or the time ends."""
        numbers = iter(range(number))
        opened: list[Peer] = []

        async def open_some() -> None:
            loop = asyncio.get_running_loop()
            for _ in numbers:
                if self.left <= 0:
                    return
                try:
                    async with asyncio.timeout(min(self.left, 10)):
                        _, peer = await loop.create_connection(
                            lambda: make(self.report), "127.0.0.1", port or self.port
                        )
                except (OSError, TimeoutError):
                    if self.left > 0:
                        self.report.refused += 1
                else:
                    opened.append(peer)

        await asyncio.gather(*(open_some() for _ in range(min(OPENING, number))))
        self.peers += opened
        return opened

    async def open_one(self) -> Peer:
        """Open a connection.

        Raises:
            ConnectionError: the server takes none.
        """
        opened = await self.open()
        if not opened:
            raise ConnectionError("the server takes no connection")
        return opened[0]

    async def flood(
        self, peer: Peer, box: dict[bytes, bytes], tag_key: bytes | None, *, is_endless: bool
    ) -> None:
        """Send a box over and over, as fast as the server reads.

        Args:
            peer: by which connection.
            box: the box.
            tag_key: the key under which each has a tag of its own, if any.
            is_endless: whether to send until the time is over, rather than the amount.
        """
        for chunk, number in self._chunks(box, tag_key, is_endless):
            if peer.is_gone or self.left <= 0:
                return
            peer.transport.write(chunk)
            self.report.sent += number
            if not await self.until_written(peer):
                return
            await asyncio.sleep(0)  # read what came back, too

    def _chunks(
        self, box: dict[bytes, bytes], tag_key: bytes | None, is_endless: bool
    ) -> Iterator[tuple[bytes, int]]:
        place = TAG % 0xFFFFFFFF
        one = encode_box(box if tag_key is None else {**box, tag_key: place})
        size = max(1, CHUNK_BYTES // len(one))
        template = (one * size).replace(b"%", b"%%").replace(place, TAG)
        for first in count(0, size):
            number = size if is_endless else min(size, self.amount - first)
            if number <= 0:
                return
            if tag_key is None:
                yield one * number, number
            elif number == size:
                yield template % tuple(range(first, first + size)), size
            else:
                head, tail = one.split(place)
                tags = (TAG % tag for tag in range(first, first + number))
                yield b"".join(head + tag + tail for tag in tags), number

    async def until_written(self, peer: Peer) -> bool:
        """Wait until more can be written. False: the server has stopped reading."""
        try:
            async with asyncio.timeout(max(0, min(STALLED, self.left))):
                await peer.writable.wait()
        except TimeoutError:
            self.report.is_stalled = self.left > 0
            return False
        return True

    async def until_read(self, peer: Peer) -> None:
        """Wait until the server has read all there is, which an answer to a last ask shows."""
        ask = {b"_ask": b"last", b"_command": b"Repeat", b"text": b"", b"times": b"1"}
        peer.transport.write(encode_box(ask))
        before = self.report.received["answer"]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(self.left, 0)):
                while self.report.received["answer"] == before and not peer.is_gone:
                    peer.progress.clear()
                    await peer.progress.wait()
        self.report.received["answer"] = before

    async def until_answered(self, peer: Peer, number: int) -> None:
        """Wait until as many answers are there, the connection has gone, or time is over."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(self.left, 0)):
                while peer.received < number and not peer.is_gone:
                    peer.progress.clear()
                    await peer.progress.wait()

    async def hold(self, step: Callable[[], Awaitable[None]] | None = None) -> None:
        """Stay, for as long as was said, or until the server has closed every connection.

        Args:
            step: what to do meanwhile, over and over.
        """
        end = min(self.end, time.monotonic() + self.hold_seconds)
        while time.monotonic() < end and self.report.closed < self.report.opened:
            await (step() if step is not None else asyncio.sleep(0.1))
            for peer in self.peers:
                peer.check()
