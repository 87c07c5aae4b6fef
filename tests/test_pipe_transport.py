from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.leftovers import Leftovers
from tests.peers import settled, until
from typed_amp import pipe_transport
from typed_amp.pipe_transport import PipeTransport, join_pipes

pytestmark = pytest.mark.usefixtures("nothing_left")


class Recorder(asyncio.Protocol):
    """Notes what a transport tells it."""

    def __init__(self, *, keeps_open: bool = False) -> None:
        self.transport: PipeTransport
        self.events: list[str] = []
        self.data = bytearray()
        self.keeps_open = keeps_open
        self.lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("PipeTransport", transport)
        self.events.append("made")

    def data_received(self, data: bytes) -> None:
        self.data += data

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


class Peer:
    """The other ends of the two pipes, as they are."""

    def __init__(self, read_fd: int, write_fd: int) -> None:
        self.read_fd = read_fd
        self.write_fd = write_fd
        os.set_blocking(read_fd, False)

    def write(self, data: bytes) -> None:
        assert os.write(self.write_fd, data) == len(data)

    async def read_all(self) -> bytes:
        """Read until the end."""
        data = bytearray()
        while True:
            try:
                part = os.read(self.read_fd, 65_536)
            except BlockingIOError:
                await asyncio.sleep(0)
                continue
            if not part:
                return bytes(data)
            data += part

    def stop_reading(self) -> None:
        os.close(self.read_fd)
        self.read_fd = -1

    def stop_writing(self) -> None:
        os.close(self.write_fd)
        self.write_fd = -1

    def close(self) -> None:
        for fd in (self.read_fd, self.write_fd):
            if fd != -1:
                os.close(fd)


@asynccontextmanager
async def joined_pipes(
    *,
    keeps_open: bool = False,
    peer_ended: asyncio.Future[Exception | None] | None = None,
) -> AsyncIterator[tuple[PipeTransport, Recorder, Peer]]:
    """Join two pipes; give the transport, its protocol, and the peer. All is closed at the end."""
    protocol = Recorder(keeps_open=keeps_open)
    read_fd, peer_writes = os.pipe()
    peer_reads, write_fd = os.pipe()
    peer = Peer(peer_reads, peer_writes)
    transport = await join_pipes(protocol, read_fd, write_fd, peer_ended=peer_ended)
    assert protocol.events == ["made"]
    assert protocol.transport is transport
    try:
        yield transport, protocol, peer
    finally:
        transport.abort()
        peer.close()
        if peer_ended is not None and not peer_ended.done():
            peer_ended.set_result(None)
        await protocol.lost


async def test_bytes_go_both_ways() -> None:
    async with joined_pipes() as (transport, protocol, peer):
        peer.write(b"to us")
        await until(lambda: protocol.data == b"to us")
        transport.write(b"to ")
        transport.write(bytearray(b"the "))
        transport.write(memoryview(b"peer"))
        transport.close()
        assert await peer.read_all() == b"to the peer"
        assert await protocol.lost is None
        assert protocol.events == ["made", "lost"]


@given(st.lists(st.binary(max_size=100_000), max_size=20), st.sampled_from([1, 1000, 70_000]))
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
async def test_what_was_written_comes_out_in_order(parts: list[bytes], high: int) -> None:
    async with joined_pipes() as (transport, protocol, peer):
        transport.set_write_buffer_limits(high)
        for part in parts:
            transport.write(part)
        transport.close()
        assert await peer.read_all() == b"".join(parts)
        assert await protocol.lost is None


async def test_writer_is_paused_while_the_peer_does_not_read() -> None:
    async with joined_pipes() as (transport, protocol, peer):
        transport.set_write_buffer_limits(high=1000, low=500)
        assert transport.get_write_buffer_limits() == (500, 1000)
        total = 0
        while "pause" not in protocol.events:
            transport.write(bytes(10_000))
            total += 10_000
        assert transport.get_write_buffer_size() > 1000
        reading = asyncio.create_task(peer.read_all())
        await until(lambda: "resume" in protocol.events)
        assert transport.get_write_buffer_size() <= 500
        transport.close()
        assert len(await reading) == total
        await protocol.lost
        assert transport.get_write_buffer_size() == 0
        assert protocol.events == ["made", "pause", "resume", "lost"]


async def test_reading_can_be_paused() -> None:
    async with joined_pipes() as (transport, protocol, peer):
        assert transport.is_reading()
        transport.pause_reading()
        transport.pause_reading()
        assert not transport.is_reading()
        peer.write(b"later")
        await settled()
        assert not protocol.data
        transport.resume_reading()
        transport.resume_reading()
        await until(lambda: protocol.data == b"later")
        assert transport.is_reading()


async def test_close_sends_what_is_left() -> None:
    async with joined_pipes() as (transport, protocol, peer):
        transport.write(bytes(1_000_000))
        transport.close()
        transport.write(b"too late")
        transport.close()
        assert transport.is_closing()
        assert not transport.is_reading()
        assert len(await peer.read_all()) == 1_000_000
        assert await protocol.lost is None


async def test_nothing_is_received_after_close() -> None:
    async with joined_pipes() as (transport, protocol, peer):
        peer.write(b"ignored")
        transport.close()
        transport.pause_reading()
        transport.resume_reading()
        await protocol.lost
        assert not protocol.data
        with pytest.raises(BrokenPipeError):
            peer.write(b"refused")


async def test_abort_sends_nothing_more() -> None:
    async with joined_pipes() as (transport, protocol, peer):
        transport.write(bytes(1_000_000))
        transport.abort()
        transport.abort()
        assert await protocol.lost is None
        assert len(await peer.read_all()) < 1_000_000


async def test_abort_after_close() -> None:
    async with joined_pipes() as (transport, protocol, _):
        transport.write(bytes(1_000_000))
        transport.close()
        await settled()
        assert not protocol.lost.done()
        transport.abort()
        assert await protocol.lost is None


async def test_end_of_the_peer_closes() -> None:
    async with joined_pipes() as (transport, protocol, peer):
        transport.write(bytes(1_000_000))
        peer.write(b"good bye")
        peer.stop_writing()
        await until(transport.is_closing)
        assert protocol.data == b"good bye"
        assert len(await peer.read_all()) == 1_000_000
        assert await protocol.lost is None
        assert [event for event in protocol.events if event != "pause"][:2] == ["made", "eof"]


async def test_protocol_may_go_on_writing_after_the_end_of_the_peer() -> None:
    async with joined_pipes(keeps_open=True) as (transport, protocol, peer):
        peer.stop_writing()
        await until(lambda: "eof" in protocol.events)
        await settled()
        assert not transport.is_closing()
        transport.write(b"one thing more")
        transport.close()
        assert await peer.read_all() == b"one thing more"
        assert await protocol.lost is None


async def test_what_came_before_the_write_side_broke_is_read() -> None:
    async with joined_pipes() as (transport, protocol, peer):
        transport.pause_reading()
        peer.write(b"my last words")
        peer.stop_reading()
        await until(lambda: transport._is_writing_over)
        transport.write(b"lost")
        await settled()
        assert not protocol.lost.done()
        transport.resume_reading()
        await until(lambda: protocol.data == b"my last words")
        peer.stop_writing()
        assert isinstance(await protocol.lost, BrokenPipeError)
        assert protocol.events == ["made", "eof", "lost"]


async def test_writer_that_was_paused_goes_on_when_the_write_side_broke() -> None:
    # A protocol that reads nothing while it can't write would never learn of the end.
    async with joined_pipes() as (transport, protocol, peer):
        transport.pause_reading()
        transport.write(bytes(1_000_000))
        peer.write(b"my last words")
        assert protocol.events == ["made", "pause"]
        peer.stop_reading()
        await until(lambda: "resume" in protocol.events)
        assert transport.get_write_buffer_size() == 0
        transport.resume_reading()
        peer.stop_writing()
        assert isinstance(await protocol.lost, BrokenPipeError)
        assert protocol.data == b"my last words"


async def test_peer_that_stops_reading_and_goes_on_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pipe_transport, "_LAST_WORDS_TIMEOUT", 0.01)
    async with joined_pipes() as (_, protocol, peer):
        peer.stop_reading()
        assert isinstance(await protocol.lost, BrokenPipeError)


async def test_protocol_can_be_changed() -> None:
    async with joined_pipes() as (transport, protocol, peer):
        assert transport.get_protocol() is protocol
        other = Recorder()
        transport.set_protocol(other)
        assert transport.get_protocol() is other
        peer.write(b"to the other")
        await until(lambda: other.data == b"to the other")
        transport.close()
        assert await other.lost is None
        assert not protocol.data
        protocol.lost.set_result(None)


async def test_no_half_of_it_can_be_ended() -> None:
    async with joined_pipes() as (transport, _, _):
        assert not transport.can_write_eof()
        assert transport.get_extra_info("peername") is None


async def test_modes_are_restored() -> None:
    read_fd, peer_writes = os.pipe()
    peer_reads, write_fd = os.pipe()
    shared = [os.dup(read_fd), os.dup(write_fd)]
    os.set_blocking(shared[1], False)
    protocol = Recorder()
    transport = await join_pipes(protocol, read_fd, write_fd)
    assert [os.get_blocking(fd) for fd in shared] == [False, False]
    transport.close()
    await protocol.lost
    assert [os.get_blocking(fd) for fd in shared] == [True, False]
    for fd in (*shared, peer_writes, peer_reads):
        os.close(fd)


# -- A peer whose end is known by other means --------------------------------------------------


def new_future() -> asyncio.Future[Exception | None]:
    return asyncio.get_running_loop().create_future()


@pytest.mark.parametrize("reason", [None, ChildProcessError("it has ended")])
async def test_loss_waits_for_the_end_of_the_peer(reason: Exception | None) -> None:
    async with joined_pipes(peer_ended=new_future()) as (transport, protocol, peer):
        peer.stop_writing()
        assert await peer.read_all() == b""
        await settled()
        assert transport.is_closing()
        assert not protocol.lost.done()
        assert transport._peer_ended is not None
        transport._peer_ended.set_result(reason)
        assert await protocol.lost is reason


async def test_what_the_peer_writes_after_close_is_thrown_away() -> None:
    async with joined_pipes(peer_ended=new_future()) as (transport, protocol, peer):
        transport.pause_reading()
        transport.close()
        assert await peer.read_all() == b""
        written = 0
        os.set_blocking(peer.write_fd, False)
        while written < 1_000_000:
            with contextlib.suppress(BlockingIOError):
                written += os.write(peer.write_fd, bytes(60_000))
            await asyncio.sleep(0)
        transport.abort()  # means what is to be written
        peer.write(b"and more")
        assert not protocol.data
        assert not protocol.lost.done()
        assert transport._peer_ended is not None
        transport._peer_ended.set_result(None)
        peer.stop_writing()
        await protocol.lost


async def test_pipes_that_others_hold_when_the_peer_has_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pipe_transport, "_LEFT_OPEN_TIMEOUT", 0.01)
    reason = ChildProcessError("it has ended")
    async with joined_pipes(peer_ended=new_future()) as (transport, protocol, _):
        transport.write(bytes(1_000_000))
        assert transport._peer_ended is not None
        transport._peer_ended.set_result(reason)
        assert await protocol.lost is reason


# -- Beginnings that fail ------------------------------------------------------------------------


@pytest.mark.parametrize("which", [0, 1])
async def test_what_the_loop_refuses_leaves_nothing_open(which: int, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    read_fd, peer_writes = os.pipe()
    peer_reads, write_fd = os.pipe()
    fds = [read_fd, write_fd]
    os.close(fds[which])
    fds[which] = os.open(tmp_path / "file", os.O_RDWR)
    protocol = Recorder()
    with pytest.raises((ValueError, OSError)):
        await join_pipes(protocol, *fds)
    await settled()
    assert protocol.events == []
    for fd in (peer_reads, peer_writes):
        os.close(fd)
    with contextlib.suppress(OSError):
        os.close(fds[which])  # asyncio has not taken it over


@pytest.mark.parametrize("turns", range(8))
async def test_cancelled_while_it_joins(turns: int) -> None:
    leftovers = Leftovers()
    read_fd, peer_writes = os.pipe()
    peer_reads, write_fd = os.pipe()
    protocol = Recorder()
    task = asyncio.create_task(join_pipes(protocol, read_fd, write_fd))
    await settled(turns)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        (await task).close()
    if turns == 0:  # it never began, and took nothing over
        os.close(read_fd)
        os.close(write_fd)
    os.close(peer_reads)
    os.close(peer_writes)
    if protocol.events:
        await protocol.lost
    await leftovers.check()
