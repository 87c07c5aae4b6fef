from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from functools import partial

import pytest

from typed_amp.writer import HIGH_WATER, BoxWriter


class Recorded(asyncio.Transport):
    """A transport that passes everything on to another, and keeps what was written in one piece."""

    def __init__(self, transport: asyncio.Transport) -> None:
        super().__init__()
        self.transport = transport
        self.pieces: list[bytes] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.pieces.append(bytes(data))
        self.transport.write(data)

    def is_closing(self) -> bool:
        return self.transport.is_closing()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.transport.set_write_buffer_limits(high, low)

    def get_write_buffer_size(self) -> int:
        return self.transport.get_write_buffer_size()


class Line(asyncio.Protocol):
    """A writer on one end of a pair of sockets; the other end is read by hand."""

    def __init__(self, peer: socket.socket) -> None:
        self.peer = peer
        self.peer.setblocking(False)
        self.has_room = asyncio.Event()
        self.read = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = Recorded(transport)
        self.writer = BoxWriter(self.transport, asyncio.get_running_loop())

    @property
    def unsent_bytes(self) -> int:
        return self.writer._size + self.transport.get_write_buffer_size()

    def pause_writing(self) -> None:
        self.writer.pause()
        self.has_room.clear()

    def resume_writing(self) -> None:
        self.writer.resume()
        self.has_room.set()

    async def read_until(self, end: bytes) -> bytes:
        while not self.read.endswith(end):
            self.read += await asyncio.get_running_loop().sock_recv(self.peer, 1 << 16)
        data = bytes(self.read)
        self.read.clear()
        return data

    def fill(self) -> int:
        """Write until the transport is full; gives the number of bytes."""
        written = 0
        while not self.writer.is_full:
            self.writer.write(bytes(HIGH_WATER + 1))
            written += HIGH_WATER + 1
            assert written < 1 << 26
        return written


@pytest.fixture
async def line() -> AsyncIterator[Line]:
    ours, theirs = socket.socketpair()
    with theirs:
        transport, line = await asyncio.get_running_loop().create_connection(
            lambda: Line(theirs), sock=ours
        )
        yield line
        transport.abort()


async def next_turn() -> None:
    """Wait for what was put off to the next turn of the event loop."""
    turned = asyncio.Event()
    asyncio.get_running_loop().call_soon(turned.set)
    await turned.wait()


async def test_boxes_of_one_turn_are_one_write(line: Line) -> None:
    for box in (b"one", b"two", b"three"):
        line.writer.write(box)
    assert line.transport.pieces == []
    await next_turn()
    line.writer.write(b"four")
    await next_turn()
    assert line.transport.pieces == [b"onetwothree", b"four"]
    assert await line.read_until(b"four") == b"onetwothreefour"


async def test_flush_writes_at_once_and_nothing_twice(line: Line) -> None:
    line.writer.write(b"one")
    line.writer.flush()
    line.writer.flush()
    assert line.transport.pieces == [b"one"]
    await next_turn()
    assert line.transport.pieces == [b"one"]


async def test_many_boxes_do_not_wait_for_the_turn_to_end(line: Line) -> None:
    line.writer.write(b"first")
    line.writer.write(bytes(HIGH_WATER))
    written = len(line.transport.pieces)
    assert b"".join(line.transport.pieces) == b"first" + bytes(HIGH_WATER)
    line.writer.write(b"last")
    await next_turn()
    assert line.transport.pieces[written:] == [b"last"]


async def test_short_boxes_are_joined_and_long_ones_are_not_copied(line: Line) -> None:
    for _ in range(3):
        line.writer.write(b"short")
    await next_turn()
    assert line.transport.pieces == [b"short" * 3]
    long = [bytes([number]) * 30_000 for number in range(2)]
    for box in long:
        line.writer.write(box)
    await next_turn()
    assert all(piece is box for piece, box in zip(line.transport.pieces[1:], long, strict=True))


async def test_asks_and_answers_keep_their_order(line: Line) -> None:
    line.writer.write(b"answer")
    assert line.writer.write_ask("key", b"ask")
    line.writer.write(b"answer")
    assert await line.read_until(b"askanswer") == b"answeraskanswer"


async def test_unsent_bytes_are_those_the_system_has_not_taken(line: Line) -> None:
    assert line.unsent_bytes == 0
    line.writer.write(b"12345")
    assert line.unsent_bytes == 5
    await next_turn()
    assert line.unsent_bytes == 0
    line.fill()
    assert line.unsent_bytes == line.transport.get_write_buffer_size() > HIGH_WATER


async def test_full_transport_takes_answers_and_holds_asks(line: Line) -> None:
    written = line.fill()
    unsent = line.unsent_bytes
    assert not line.writer.write_ask("first", b"ask 1")
    assert not line.writer.write_ask("second", b"ask 2")
    assert line.unsent_bytes == unsent
    line.writer.write(b"answer")
    assert line.unsent_bytes == unsent + len(b"answer")

    data = await line.read_until(b"ask 2")
    assert data == bytes(written) + b"answer" + b"ask 1" + b"ask 2"
    assert not line.writer.is_full


async def test_ask_that_was_held_says_when_it_is_taken(line: Line) -> None:
    line.fill()
    taken: list[object] = []
    for number in (1, 2):
        assert not line.writer.write_ask(number, b"ask %d" % number, partial(taken.append, number))
    assert taken == []
    await line.read_until(b"ask 2")
    assert taken == [1, 2]


async def test_ask_that_was_taken_at_once_says_nothing(line: Line) -> None:
    taken: list[object] = []
    assert line.writer.write_ask("key", b"ask", partial(taken.append, "key"))
    await line.read_until(b"ask")
    assert taken == []


async def test_withdrawn_ask_is_never_written(line: Line) -> None:
    written = line.fill()
    taken: list[object] = []
    for number in (1, 2, 3):
        line.writer.write_ask(number, b"ask %d" % number, partial(taken.append, number))
    line.writer.withdraw(2)
    assert await line.read_until(b"ask 3") == bytes(written) + b"ask 1ask 3"
    assert taken == [1, 3]


async def test_withdrawing_what_was_taken_does_nothing(line: Line) -> None:
    line.writer.write_ask("key", b"ask")
    line.writer.withdraw("key")
    line.writer.withdraw("never given")
    assert await line.read_until(b"ask") == b"ask"


async def test_asks_are_released_only_while_there_is_room(line: Line) -> None:
    written = line.fill()
    taken: list[object] = []
    size = 8 * HIGH_WATER
    for number in range(20):
        box = bytes([65 + number]) * size
        line.writer.write_ask(number, box, partial(taken.append, number))
    loop = asyncio.get_running_loop()
    received = bytearray()
    counts: list[int] = []
    while len(received) < written + 20 * size:
        received += await loop.sock_recv(line.peer, 1 << 16)
        if not counts or counts[-1] != len(taken):
            counts.append(len(taken))
        # What this side stores beyond the asks that are held is bounded.
        assert line.unsent_bytes <= 2 * HIGH_WATER + size
    assert received == bytes(written) + b"".join(bytes([65 + n]) * size for n in range(20))
    assert taken == list(range(20))
    assert len(counts) > 2  # not all at once


async def test_ask_made_while_others_are_released_waits_its_turn(line: Line) -> None:
    line.fill()

    def ask_again() -> None:
        assert not line.writer.write_ask("again", b"ask 3")

    line.writer.write_ask("first", b"ask 1", ask_again)
    line.writer.write_ask("second", b"ask 2")
    data = await line.read_until(b"ask 3")
    assert data.endswith(b"ask 1ask 2ask 3")


async def test_discarded_boxes_are_never_written(line: Line) -> None:
    line.fill()
    line.writer.write(b"answer")
    line.writer.write_ask("key", b"ask", lambda: pytest.fail("it was discarded"))
    line.transport.pieces.clear()
    line.writer.discard()
    assert line.unsent_bytes == line.transport.get_write_buffer_size()
    await next_turn()
    loop = asyncio.get_running_loop()
    while not line.has_room.is_set():
        await loop.sock_recv(line.peer, 1 << 16)
    assert line.transport.pieces == []
    line.writer.write(b"new")
    assert line.unsent_bytes >= 3
    await next_turn()
    assert line.transport.pieces == [b"new"]
