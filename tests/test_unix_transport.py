from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import gc
import os
import resource
import socket
import ssl
from array import array
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, TypeAlias

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import Certificates
from tests.leftovers import descriptors
from tests.peers import settled, until
from tests.recorder import Recorder
from typed_amp.outgoing import MAX_DESCRIPTORS
from typed_amp.unix_transport import UnixTransport

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}

Run: TypeAlias = Callable[[Callable[[], Awaitable[None]]], None]


@pytest.fixture(scope="module", autouse=True)
def loops_have_run() -> None:
    """Have each event loop open what it keeps open for the life of the process."""
    for factory in LOOPS.values():
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(asyncio.sleep(0))


@contextlib.contextmanager
def open_file() -> Iterator[int]:
    """Open some file; gives its descriptor."""
    descriptor = os.open(os.devnull, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


@contextlib.contextmanager
def room_for_descriptors(count: int) -> Iterator[None]:
    """Let this process open so many more."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    numbers = range(len(descriptors()) + count + 1)
    free = [number for number in numbers if not is_open(number)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (free[count], limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Iterator[Run]:
    """Run a coroutine in each event loop; it must leave no descriptor open, and no error behind."""
    before = descriptors()
    yield lambda scenario: run_in(request.param, scenario)
    gc.collect()
    assert descriptors() == before


def run_in(name: str, scenario: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        contexts: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(
            lambda _, context: contexts.append(context)
        )
        async with asyncio.timeout(60):
            await scenario()
        assert contexts == []

    with asyncio.Runner(loop_factory=LOOPS[name], debug=True) as runner:
        runner.run(main())


class UnixRecorder(Recorder[UnixTransport]):
    """Notes descriptors too, and what came between what."""

    def __init__(self, *, keeps_open: bool = False) -> None:
        super().__init__(keeps_open=keeps_open)
        self.descriptors: list[int] = []

    def data_received(self, data: bytes) -> None:
        self.events.append(data)
        super().data_received(data)

    def descriptors_received(self, descriptors: list[int]) -> None:
        self.events.append(len(descriptors))
        self.descriptors += descriptors

    def close_descriptors(self) -> None:
        """Close what came."""
        for descriptor in self.descriptors:
            os.close(descriptor)
        self.descriptors.clear()


class Deaf(asyncio.Protocol):
    """A protocol that knows nothing of descriptors."""

    def __init__(self) -> None:
        self.received = b""

    def data_received(self, data: bytes) -> None:
        self.received += data


class Buffered(asyncio.BufferedProtocol):
    """Reads into a small buffer of its own."""

    def __init__(self) -> None:
        self.buffer = bytearray(5)
        self.received = b""

    def get_buffer(self, sizehint: int) -> bytearray:
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.received += self.buffer[:nbytes]


def pair(size: int | None = None) -> tuple[socket.socket, socket.socket]:
    ours, theirs = socket.socketpair()
    for sock in (ours, theirs):
        sock.setblocking(False)
        if size is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size)
    return ours, theirs


@contextlib.asynccontextmanager
async def one_end(
    protocol: asyncio.BaseProtocol | None = None, *, size: int | None = None
) -> AsyncIterator[tuple[UnixTransport, Any, socket.socket]]:
    """Make a transport, and a plain socket at the other end."""
    ours, theirs = pair(size)
    protocol = protocol or UnixRecorder()
    transport = UnixTransport(asyncio.get_running_loop(), ours, protocol)
    try:
        await asyncio.sleep(0)
        with theirs:
            yield transport, protocol, theirs
    finally:
        transport.abort()
        await settled()
        if isinstance(protocol, UnixRecorder):
            protocol.close_descriptors()


@contextlib.asynccontextmanager
async def two_ends(size: int | None = None) -> AsyncIterator[tuple[UnixRecorder, UnixRecorder]]:
    left, right = UnixRecorder(), UnixRecorder()
    loop = asyncio.get_running_loop()
    transports = [
        UnixTransport(loop, sock, protocol)
        for sock, protocol in zip(pair(size), (left, right), strict=True)
    ]
    try:
        await asyncio.sleep(0)
        yield left, right
    finally:
        for transport in transports:
            transport.abort()
        await settled()
        left.close_descriptors()
        right.close_descriptors()


async def read_all(sock: socket.socket, *, until_eof: bool = False) -> bytes:
    """Read what there is, or until the other end has ended the stream."""
    data = b""
    while True:
        try:
            piece = sock.recv(1 << 20)
        except BlockingIOError:
            if not until_eof:
                return data
            await asyncio.sleep(0)
            continue
        if not piece:
            return data
        data += piece


def sent_with_rights(sock: socket.socket, data: bytes, descriptors: list[int]) -> None:
    rights = array("i", descriptors).tobytes()
    sock.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])


def fill(transport: UnixTransport) -> int:
    """Write until some waits; give how much was written."""
    written = 0
    while not transport.get_write_buffer_size():
        transport.write(bytes(1000))
        written += 1000
    return written


# -- What all transports do --------------------------------------------------------------------


def test_connection_is_made_before_anything_is_read(run: Run) -> None:
    async def scenario() -> None:
        ours, theirs = pair()
        with theirs:
            theirs.send(b"early")
            protocol = UnixRecorder()
            transport = UnixTransport(asyncio.get_running_loop(), ours, protocol)
            assert protocol.events == []
            await until(lambda: protocol.received)
            assert protocol.events == ["made", b"early"]
            transport.abort()
            await protocol.lost

    run(scenario)


def test_extra_info_and_protocol(run: Run) -> None:
    async def scenario() -> None:
        async with one_end() as (transport, protocol, theirs):
            assert transport.get_extra_info("socket").family == socket.AF_UNIX
            assert transport.get_extra_info("sockname") == ""
            assert transport.get_extra_info("peername") == ""
            assert transport.get_extra_info("ssl_object") is None
            assert transport.get_protocol() is protocol
            other = Deaf()
            transport.set_protocol(other)
            assert transport.get_protocol() is other
            theirs.send(b"abc")
            await until(lambda: other.received)
            transport.set_protocol(protocol)

    run(scenario)


def test_what_is_written_goes_out_at_once(run: Run) -> None:
    async def scenario() -> None:
        text: Any = "text"
        async with one_end() as (transport, _, theirs):
            transport.write(b"abc")
            transport.write(bytearray(b"def"))
            transport.write(memoryview(b"ghi"))
            transport.write(b"")
            transport.writelines([b"j", b"k"])
            assert theirs.recv(100) == b"abcdefghijk"
            assert transport.get_write_buffer_size() == 0
            with pytest.raises(TypeError, match="data must be bytes, not str"):
                transport.write(text)

    run(scenario)


def test_what_finds_no_room_waits_as_it_was(run: Run) -> None:
    async def scenario() -> None:
        async with one_end(size=4096) as (transport, _, theirs):
            written = fill(transport)
            data = bytearray(b"abc")
            transport.write(data)
            data[:] = b"xyz"
            transport.write_eof()
            received = await read_all(theirs, until_eof=True)
            assert received == bytes(written) + b"abc"

    run(scenario)


def test_water_marks(run: Run) -> None:
    async def scenario() -> None:
        async with one_end(size=4096) as (transport, protocol, theirs):
            assert transport.get_write_buffer_limits() == (16 * 1024, 64 * 1024)
            transport.set_write_buffer_limits(low=1000)
            assert transport.get_write_buffer_limits() == (1000, 4000)
            transport.set_write_buffer_limits(high=2000)
            assert transport.get_write_buffer_limits() == (500, 2000)
            with pytest.raises(ValueError, match="must be >= low"):
                transport.set_write_buffer_limits(high=1, low=2)
            fill(transport)
            assert protocol.events == ["made"]
            transport.write(bytes(2000 - transport.get_write_buffer_size()))
            assert protocol.events == ["made"]
            transport.write(b"1")
            transport.write(b"2")
            assert transport.get_write_buffer_size() == 2002
            assert protocol.events == ["made", "pause"]
            while "resume" not in protocol.events:
                assert transport.get_write_buffer_size() > 500
                await read_all(theirs)
                await asyncio.sleep(0)
            assert transport.get_write_buffer_size() <= 500
            fill(transport)
            transport.set_write_buffer_limits(0)
            assert protocol.events == ["made", "pause", "resume", "pause"]

    run(scenario)


def test_reading_pauses_and_resumes(run: Run) -> None:
    async def scenario() -> None:
        async with one_end() as (transport, protocol, theirs):
            assert transport.is_reading()
            transport.pause_reading()
            transport.pause_reading()
            assert not transport.is_reading()
            theirs.send(b"abc")
            await settled()
            assert not protocol.received
            transport.resume_reading()
            transport.resume_reading()
            assert transport.is_reading()
            await until(lambda: protocol.received == b"abc")
        assert not transport.is_reading()

    run(scenario)


def test_paused_as_soon_as_the_connection_is_made(run: Run) -> None:
    class Paused(UnixRecorder):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            self.transport.pause_reading()

    async def scenario() -> None:
        async with one_end(Paused()) as (_, protocol, theirs):
            theirs.send(b"abc")
            await settled()
            assert protocol.events == ["made"]

    run(scenario)


def test_end_of_the_stream_closes(run: Run) -> None:
    async def scenario() -> None:
        async with one_end() as (transport, protocol, theirs):
            theirs.send(b"abc")
            theirs.close()
            assert await protocol.lost is None
            assert protocol.events == ["made", b"abc", "eof", "lost"]
            assert transport.is_closing()

    run(scenario)


def test_end_of_the_stream_that_leaves_the_other_direction_open(run: Run) -> None:
    async def scenario() -> None:
        async with one_end(UnixRecorder(keeps_open=True)) as (transport, protocol, theirs):
            theirs.shutdown(socket.SHUT_WR)
            await until(lambda: "eof" in protocol.events)
            transport.pause_reading()
            transport.resume_reading()
            await settled()
            assert protocol.events == ["made", "eof"]
            transport.write(b"still")
            assert theirs.recv(100) == b"still"

    run(scenario)


@pytest.mark.parametrize("waits", [False, True])
def test_write_eof(run: Run, waits: bool) -> None:
    async def scenario() -> None:
        async with one_end(size=4096) as (transport, protocol, theirs):
            written = fill(transport) if waits else 0
            assert transport.can_write_eof()
            transport.write_eof()
            transport.write_eof()
            with pytest.raises(RuntimeError, match="after write_eof"):
                transport.write(b"abc")
            with pytest.raises(RuntimeError, match="after write_eof"):
                transport.send_descriptor(0)
            assert len(await read_all(theirs, until_eof=True)) == written
            theirs.send(b"abc")
            await until(lambda: protocol.received)

    run(scenario)


def test_close_sends_what_waits(run: Run) -> None:
    async def scenario() -> None:
        async with one_end(size=4096) as (transport, protocol, theirs):
            written = fill(transport)
            transport.close()
            transport.close()
            transport.write(b"more")
            assert transport.is_closing()
            await settled()
            assert "lost" not in protocol.events
            assert len(await read_all(theirs, until_eof=True)) == written + 4
            assert await protocol.lost is None

    run(scenario)


def test_closing_transport_reads_no_more(run: Run) -> None:
    async def scenario() -> None:
        async with one_end(size=4096) as (transport, protocol, theirs):
            fill(transport)
            theirs.send(b"nobody reads this")
            transport.close()
            await settled()
            assert protocol.events == ["made"]

    run(scenario)


def test_abort_throws_away_what_waits(run: Run) -> None:
    async def scenario() -> None:
        async with one_end(size=4096) as (transport, protocol, theirs):
            written = fill(transport)
            transport.abort()
            transport.abort()
            transport.close()
            assert transport.get_write_buffer_size() == 0
            assert protocol.events == ["made"]
            assert await protocol.lost is None
            assert len(await read_all(theirs, until_eof=True)) < written
            transport.write(b"ignored")
            transport.write_eof()
            transport.pause_reading()
            transport.resume_reading()
            assert protocol.events == ["made", "lost"]

    run(scenario)


@pytest.mark.parametrize("is_paused", [False, True])
def test_reset_is_told_once(run: Run, is_paused: bool) -> None:
    async def scenario() -> None:
        async with one_end(size=4096) as (transport, protocol, theirs):
            if is_paused:
                transport.pause_reading()
            fill(transport)
            theirs.close()  # with bytes unread
            assert isinstance(await protocol.lost, ConnectionError)
            transport.write(b"ignored")
            assert protocol.events == ["made", "lost"]

    run(scenario)


def test_writing_to_a_peer_that_is_gone(run: Run) -> None:
    async def scenario() -> None:
        async with one_end() as (transport, protocol, theirs):
            transport.pause_reading()
            theirs.close()
            transport.write(b"abc")
            assert isinstance(await protocol.lost, BrokenPipeError)

    run(scenario)


def test_closing_from_within_the_callbacks(run: Run) -> None:
    class Aborts(UnixRecorder):
        def resume_writing(self) -> None:
            super().resume_writing()
            self.transport.abort()

    async def scenario() -> None:
        async with one_end(Aborts(), size=4096) as (transport, protocol, theirs):
            transport.set_write_buffer_limits(0)
            fill(transport)
            transport.close()
            await read_all(theirs, until_eof=True)
            assert await protocol.lost is None
            assert protocol.events == ["made", "pause", "resume", "lost"]

    run(scenario)


@pytest.mark.parametrize("method", ["data_received", "descriptors_received", "eof_received"])
def test_protocol_that_fails_loses_its_connection(run: Run, method: str) -> None:
    async def scenario() -> None:
        async with one_end() as (_, protocol, theirs):
            contexts: list[dict[str, Any]] = []
            loop = asyncio.get_running_loop()
            handler = loop.get_exception_handler()
            loop.set_exception_handler(lambda _, context: contexts.append(context))

            def fail(*arguments: object) -> None:
                raise ZeroDivisionError

            setattr(protocol, method, fail)
            protocol.transport.set_protocol(protocol)
            if method == "descriptors_received":
                received, sent = os.pipe()
                protocol.descriptors_received = lambda given: [*map(os.close, given), 1 // 0]
                protocol.transport.set_protocol(protocol)
                sent_with_rights(theirs, b"abc", [received])
                os.close(received)
                os.close(sent)
            elif method == "data_received":
                theirs.send(b"abc")
            else:
                theirs.close()
            assert isinstance(await protocol.lost, ZeroDivisionError)
            (context,) = contexts
            assert isinstance(context["exception"], ZeroDivisionError)
            loop.set_exception_handler(handler)

    run(scenario)


@pytest.mark.parametrize("method", ["pause_writing", "resume_writing"])
def test_protocol_that_fails_at_flow_control_keeps_its_connection(run: Run, method: str) -> None:
    async def scenario() -> None:
        async with one_end(size=4096) as (transport, protocol, theirs):
            contexts: list[dict[str, Any]] = []
            loop = asyncio.get_running_loop()
            handler = loop.get_exception_handler()
            loop.set_exception_handler(lambda _, context: contexts.append(context))

            def fail() -> None:
                raise ZeroDivisionError

            setattr(protocol, method, fail)
            transport.set_write_buffer_limits(0)
            written = fill(transport)
            transport.write_eof()
            assert len(await read_all(theirs, until_eof=True)) == written
            await until(lambda: contexts)
            assert not transport.is_closing()
            loop.set_exception_handler(handler)

    run(scenario)


def test_buffered_protocol(run: Run) -> None:
    async def scenario() -> None:
        async with one_end(Buffered()) as (_, protocol, theirs):
            theirs.send(b"longer than its buffer")
            await until(lambda: protocol.received == b"longer than its buffer")

    run(scenario)


def test_transport_that_nobody_closed_warns(run: Run) -> None:
    async def scenario() -> None:
        ours, theirs = pair()
        theirs.close()
        transport = UnixTransport(asyncio.get_running_loop(), ours, Deaf())
        await asyncio.sleep(0)
        with open_file() as descriptor:
            transport.send_descriptor(descriptor)
        transport.pause_reading()
        transports = [transport]
        del transport
        with pytest.warns(ResourceWarning, match="unclosed transport <UnixTransport"):
            transports.clear()

    run(scenario)


def test_repr_says_its_state(run: Run) -> None:
    async def scenario() -> None:
        async with one_end() as (transport, _, __):
            assert repr(transport).endswith(", open, 0 bytes wait>")
        assert repr(transport).endswith(", closed, 0 bytes wait>")

    run(scenario)


def test_start_tls(run: Run, certificates: Certificates) -> None:
    async def upgraded(
        protocol: UnixRecorder, context: ssl.SSLContext, *, server_side: bool
    ) -> asyncio.Transport:
        loop: Any = asyncio.get_running_loop()  # uvloop's is no BaseEventLoop
        transport = await asyncio.BaseEventLoop.start_tls(
            loop,
            protocol.transport,
            protocol,
            context,
            server_side=server_side,
            server_hostname=None if server_side else "localhost",
        )
        assert transport is not None
        return transport

    async def scenario() -> None:
        async with two_ends() as (left, right):
            client, server = await asyncio.gather(
                upgraded(left, certificates.client, server_side=False),
                upgraded(right, certificates.server, server_side=True),
            )
            assert client.get_extra_info("peercert")["subjectAltName"][0] == ("DNS", "localhost")
            large = bytes(range(256)) * 4000
            client.write(large)
            server.write(b"abc")
            await until(lambda: len(right.received) == len(large) and left.received)
            assert (left.received, right.received) == (b"abc", large)
            client.close()
            await asyncio.gather(left.lost, right.lost)

    run(scenario)


# -- Descriptors -------------------------------------------------------------------------------


def test_descriptor_comes_before_its_bytes(run: Run) -> None:
    async def scenario() -> None:
        async with two_ends() as (left, right):
            reading, writing = os.pipe()
            os.set_inheritable(reading, True)
            left.transport.write(b"before")
            left.transport.send_descriptor(reading)
            left.transport.write(b"with")
            os.write(writing, b"through the pipe")
            os.close(writing)
            os.close(reading)  # it was duplicated
            await until(lambda: right.received == b"beforewith")
            assert right.events[:2] in (["made", 1], ["made", b"before"])
            assert right.events[-2:] in ([1, b"with"], [1, b"beforewith"])
            (received,) = right.descriptors
            assert os.read(received, 100) == b"through the pipe"
            assert not os.get_inheritable(received)

    run(scenario)


def test_descriptor_without_bytes_is_never_sent(run: Run) -> None:
    async def scenario() -> None:
        async with two_ends() as (left, right):
            with open_file() as descriptor:
                left.transport.send_descriptor(descriptor)
            await settled()
            assert right.events == ["made"]
            left.transport.write_eof()
            assert await right.lost is None
            assert right.events == ["made", "eof", "lost"]

    run(scenario)


def test_bad_descriptor_is_refused_at_once(run: Run) -> None:
    async def scenario() -> None:
        async with two_ends() as (left, right):
            reading, writing = os.pipe()
            os.close(reading)
            os.close(writing)
            with pytest.raises(OSError) as raised:
                left.transport.send_descriptor(reading)
            assert raised.value.errno == errno.EBADF
            left.transport.write(b"abc")
            await until(lambda: right.received)
            assert right.events == ["made", b"abc"]

    run(scenario)


@pytest.mark.parametrize("count", [1, MAX_DESCRIPTORS, MAX_DESCRIPTORS + 1, 600])
def test_many_descriptors_for_one_write(run: Run, count: int) -> None:
    async def scenario() -> None:
        async with two_ends() as (left, right):
            reading, writing = os.pipe()
            for number in range(count):
                left.transport.send_descriptor((reading, writing)[number % 2])
            os.close(reading)
            os.close(writing)
            left.transport.write(b"abcdef")
            await until(lambda: right.received == b"abcdef")
            assert len(right.descriptors) == count
            flags = [fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE for fd in right.descriptors]
            assert flags == [(os.O_RDONLY, os.O_WRONLY)[number % 2] for number in range(count)]
            groups = [event for event in right.events if isinstance(event, int)]
            assert max(groups) <= MAX_DESCRIPTORS

    run(scenario)


def test_more_groups_than_bytes_wait_for_more_bytes(run: Run) -> None:
    async def scenario() -> None:
        async with two_ends() as (left, right):
            with open_file() as descriptor:
                for _ in range(MAX_DESCRIPTORS + 1):
                    left.transport.send_descriptor(descriptor)
            left.transport.write(b"a")
            await until(lambda: right.received)
            assert len(right.descriptors) == MAX_DESCRIPTORS
            left.transport.write(b"b")
            await until(lambda: right.received == b"ab")
            assert len(right.descriptors) == MAX_DESCRIPTORS + 1

    run(scenario)


@pytest.mark.parametrize("ending", ["close", "abort", "reset"])
def test_descriptors_that_were_not_sent_are_closed(run: Run, ending: str) -> None:
    async def scenario() -> None:
        async with one_end(size=4096) as (transport, protocol, theirs):
            if ending != "close":
                fill(transport)
            reading, writing = os.pipe()
            transport.send_descriptor(writing)
            os.close(writing)
            if ending == "reset":
                theirs.close()
            else:
                getattr(transport, ending)()
            await protocol.lost
            assert os.read(reading, 1) == b""  # no writer is left
            os.close(reading)
            with open_file() as descriptor:
                transport.send_descriptor(descriptor)  # ignored, as write is

    run(scenario)


@pytest.mark.parametrize("protocol", [Deaf, Buffered])
def test_descriptors_for_a_protocol_that_takes_none_are_closed(
    run: Run, protocol: Callable[[], Deaf | Buffered]
) -> None:
    async def scenario() -> None:
        async with one_end(protocol()) as (_, deaf, theirs):
            reading, writing = os.pipe()
            sent_with_rights(theirs, b"abc", [writing])
            os.close(writing)
            await until(lambda: deaf.received == b"abc")
            assert os.read(reading, 1) == b""
            os.close(reading)

    run(scenario)


def test_connection_aborted_as_descriptors_come(run: Run) -> None:
    class Aborts(UnixRecorder):
        def descriptors_received(self, descriptors: list[int]) -> None:
            super().descriptors_received(descriptors)
            self.transport.abort()

    async def scenario() -> None:
        async with one_end(Aborts()) as (_, protocol, theirs):
            sent_with_rights(theirs, b"abc", [theirs.fileno()])
            assert await protocol.lost is None
            assert protocol.events == ["made", 1, "lost"]

    run(scenario)


def test_descriptors_that_find_no_room_end_the_connection(run: Run) -> None:
    async def scenario() -> None:
        async with one_end() as (_, protocol, theirs):
            sent_with_rights(theirs, b"abc", [theirs.fileno()] * 100)
            with room_for_descriptors(10):
                error = await protocol.lost
            assert isinstance(error, ConnectionAbortedError)
            assert "ulimit -n" in str(error)
            assert protocol.events == ["made", "lost"]

    run(scenario)


@pytest.mark.parametrize("name", LOOPS)
@given(
    items=st.lists(
        st.integers(1, 3) | st.binary(min_size=1, max_size=9) | st.just(bytes(9_000)), max_size=12
    ),
    size=st.sampled_from([1, 4_096, 20_000]),
)
def test_everything_arrives_in_order(name: str, items: list[int | bytes], size: int) -> None:
    before = descriptors()
    expected = b"".join(item for item in items if isinstance(item, bytes))
    numbers = iter(range(1000))

    async def scenario() -> None:
        # Each descriptor that is sent is at another place of its own file, so that it is known.
        due: list[int] = []
        read_before: list[int] = []

        class Receiver(UnixRecorder):
            def descriptors_received(self, descriptors: list[int]) -> None:
                super().descriptors_received(descriptors)
                read_before.extend([len(self.received)] * len(descriptors))

        receiver = Receiver()
        loop = asyncio.get_running_loop()
        ours, theirs = pair(size)
        sender = UnixRecorder()
        transports = [UnixTransport(loop, ours, sender), UnixTransport(loop, theirs, receiver)]
        written = 0
        waiting = 0
        for item in items:
            if isinstance(item, bytes):
                transports[0].write(item)
                due += [written] * waiting
                written += len(item)
                waiting = 0
                continue
            waiting += item
            for _ in range(item):
                descriptor = os.open(__file__, os.O_RDONLY)
                os.lseek(descriptor, next(numbers), os.SEEK_SET)
                transports[0].send_descriptor(descriptor)
                os.close(descriptor)
            if item == 2:
                await asyncio.sleep(0)
        transports[0].close()
        await asyncio.gather(sender.lost, receiver.lost)
        assert receiver.received == expected
        places = [os.lseek(descriptor, 0, os.SEEK_CUR) for descriptor in receiver.descriptors]
        assert places == list(range(len(due)))
        # None came after the byte it was sent before.
        assert all(was <= at for was, at in zip(read_before, due, strict=True))
        receiver.close_descriptors()

    run_in(name, scenario)
    assert descriptors() == before
