"""A server and whatever peers do to it, in any order: all who ask properly are answered, once."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from tests import strategies
from tests.example_commands import Buy, CountDown, OutOfStock, Repeat, Text, Wait, example_router
from tests.leftovers import descriptors
from tests.peers import HOST, LogCapture, captured_log, port_of, settled, until
from typed_amp import (
    Box,
    BoxReader,
    CallTimeoutError,
    Command,
    Connection,
    ConnectionLostError,
    Limits,
    Router,
    Server,
    connect,
    encode_box,
    serve,
)

T = TypeVar("T")

SIZES = st.sampled_from([0, 1, 3_000, 60_000])
NUMBERS = st.integers(0, 100)

ERRORS = {b"Unknown": b"UNHANDLED", b"Repeat": b"INVALID_ARGUMENTS", b"Buy": b"OUT_OF_STOCK"}


@dataclass(eq=False)
class Peer:
    """A socket that speaks AMP, as long as nothing else is said to it.

    Attributes:
        to_write: what it has to say and the system has not taken yet.
        asked: how often each tag was asked for.
        answered: how often each was answered.
        called: what the server asked.
        is_proper: whether it has kept to the protocol, and listens.
    """

    socket: socket.socket
    reader: BoxReader = field(default_factory=BoxReader)
    to_write: bytearray = field(default_factory=bytearray)
    asked: Counter[bytes] = field(default_factory=Counter)
    answered: Counter[bytes] = field(default_factory=Counter)
    expected: dict[bytes, bytes] = field(default_factory=dict)
    called: list[Box] = field(default_factory=list)
    is_proper: bool = True
    is_open: bool = True

    def ask(self, name: bytes, error: bytes = b"", **arguments: bytes) -> None:
        tag = b"%d" % len(self.asked)
        self.asked[tag] += 1
        self.expected[tag] = error
        fields = {key.encode(): value for key, value in arguments.items()}
        self.to_write += encode_box({b"_ask": tag, b"_command": name, **fields})

    def write(self, count: int | None = None) -> None:
        """Write what the system takes at once, of so many bytes."""
        try:
            del self.to_write[: self.socket.send(self.to_write[:count])]
        except BlockingIOError:
            pass
        except ConnectionError:
            self.is_proper = False

    def read(self, count: int = 65_536) -> bool:
        """Read up to so many bytes, if they are there. False: there is nothing."""
        try:
            data = self.socket.recv(count)
        except BlockingIOError:
            return False
        except ConnectionError:
            self.is_proper = False
            return False
        if not data:
            self.is_proper = False
            return False
        for box in self.reader.feed(data):
            if b"_command" in box:
                self.called.append(box)
                continue
            tag = box.get(b"_answer", box.get(b"_error", b""))
            self.answered[tag] += 1
            if self.is_proper:  # others are told that this side closes, or that nobody works on
                assert box.get(b"_error_code", b"") == self.expected[tag], box
        assert self.answered <= self.asked
        return True

    def close(self) -> None:
        self.is_open = self.is_proper = False
        self.socket.close()

    def reset(self) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.close()


class ServedPeers(RuleBasedStateMachine):
    """Peers good and bad, and clients of ours, at one server."""

    release: asyncio.Event
    server: Server
    client: Connection
    neighbour: Connection
    tasks: set[asyncio.Task[Any]]
    descriptors: set[int]

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.peers: list[Peer] = []
        self.calls: list[asyncio.Task[Text]] = []
        self.log_context = captured_log()
        self.log: LogCapture = self.log_context.__enter__()
        self.complaints: list[dict[str, Any]] = []

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        async def bounded() -> T:
            async with asyncio.timeout(30):
                return await coroutine

        return self.runner.run(bounded())

    @initialize(max_held_bytes=st.sampled_from([2_000, 64 * 1024 * 1024]))
    def begin(self, max_held_bytes: int) -> None:
        async def begin() -> None:
            loop = asyncio.get_running_loop()
            loop.set_debug(False)
            loop.set_exception_handler(lambda _, context: self.complaints.append(context))
            self.descriptors = set(descriptors())
            self.release = asyncio.Event()
            limits = Limits(max_held_bytes=max_held_bytes)
            self.server = await serve(self.router(), HOST, 0, limits=limits, drain_timeout=0)
            self.neighbour = await connect(HOST, port_of(self.server))
            self.client = await connect(HOST, port_of(self.server), drain_timeout=0)
            await settled()
            self.tasks = asyncio.all_tasks() - {asyncio.current_task()}

        self.run(begin())

    def router(self) -> Router:
        router = example_router()

        @router.responder(Wait)
        async def wait(command: Wait) -> Text:
            await self.release.wait()
            return Text(text="")

        @router.responder(Buy)
        async def buy(command: Buy) -> Text:
            raise OutOfStock(sku=command.sku)

        @router.responder(CountDown)
        async def count_down(command: CountDown, connection: Connection) -> Text:
            try:
                return await connection.call(CountDown(start=command.start), timeout=30)
            except Exception:
                return Text(text="no answer")

        return router

    # -- Peers that only have a socket ---------------------------------------------------------

    @rule()
    def connect(self) -> None:
        async def connect() -> None:
            sock = socket.socket()
            for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
                sock.setsockopt(socket.SOL_SOCKET, option, 16_384)
            sock.setblocking(False)
            await asyncio.get_running_loop().sock_connect(sock, (HOST, port_of(self.server)))
            self.peers.append(Peer(sock))

        if len(self.peers) < 6:
            self.run(connect())

    def any_peer(self, number: int) -> Peer | None:
        open_peers = [peer for peer in self.peers if peer.is_open]
        return open_peers[number % len(open_peers)] if open_peers else None

    def change(self, number: int, change: Callable[[Peer], object]) -> None:
        """Do something to a peer, and let the server go on."""
        peer = self.any_peer(number)
        if peer is not None:
            change(peer)
            self.run(settled(10))

    @rule(number=NUMBERS, size=SIZES, count=st.integers(1, 5))
    def ask(self, number: int, size: int, count: int) -> None:
        def ask(peer: Peer) -> None:
            for _ in range(count):
                peer.ask(b"Make", size=b"%d" % size)
            peer.write()

        self.change(number, ask)

    @rule(number=NUMBERS, size=SIZES)
    def ask_with_much(self, number: int, size: int) -> None:
        self.change(number, lambda peer: peer.ask(b"Echo", data=bytes(size)))

    @rule(number=NUMBERS)
    def ask_what_waits(self, number: int) -> None:
        self.change(number, lambda peer: peer.ask(b"Wait", key=b"1"))

    @rule(number=NUMBERS)
    def ask_what_asks_back(self, number: int) -> None:
        self.change(number, lambda peer: peer.ask(b"CountDown", start=b"1"))

    @rule(number=NUMBERS, name=st.sampled_from(sorted(ERRORS)))
    def ask_what_fails(self, number: int, name: bytes) -> None:
        self.change(number, lambda peer: peer.ask(name, ERRORS[name], sku=b"A1"))

    @rule(number=NUMBERS, tag=st.binary(max_size=2), key=st.sampled_from([b"_answer", b"_error"]))
    def answer_what_was_asked_or_not(self, number: int, tag: bytes, key: bytes) -> None:
        def answer(peer: Peer) -> None:
            asked = peer.called.pop(0)[b"_ask"] if peer.called else tag
            peer.to_write += encode_box({key: asked, b"text": b"x"})

        self.change(number, answer)

    @rule(number=NUMBERS, count=st.integers(1, 200))
    def write_some(self, number: int, count: int) -> None:
        self.change(number, lambda peer: peer.write(count))

    @rule(number=NUMBERS)
    def write_all(self, number: int) -> None:
        self.change(number, Peer.write)

    @rule(number=NUMBERS, count=st.integers(1, 100_000))
    def read_some(self, number: int, count: int) -> None:
        self.change(number, lambda peer: peer.read(count))

    @rule(number=NUMBERS, data=strategies.violations | st.binary(max_size=20))
    def write_garbage(self, number: int, data: bytes) -> None:
        def write(peer: Peer) -> None:
            peer.is_proper = False
            peer.to_write += data
            peer.write()

        self.change(number, write)

    @rule(number=NUMBERS)
    def end_the_stream(self, number: int) -> None:
        def end(peer: Peer) -> None:
            peer.is_proper = False
            with contextlib.suppress(OSError):
                peer.socket.shutdown(socket.SHUT_WR)

        self.change(number, end)

    @rule(number=NUMBERS)
    def close(self, number: int) -> None:
        self.change(number, Peer.close)

    @rule(number=NUMBERS)
    def reset(self, number: int) -> None:
        self.change(number, Peer.reset)

    # -- The server, and clients of ours -------------------------------------------------------

    @rule()
    def let_those_go_on_who_wait(self) -> None:
        async def let_go() -> None:
            self.release.set()
            await settled()
            self.release.clear()

        self.run(let_go())

    @rule(count=st.integers(1, 5), timeout=st.sampled_from([None, 0, 0.001]))
    def call(self, count: int, timeout: float | None) -> None:
        a_wait: Command[Text] = Wait()
        a_repeat: Command[Text] = Repeat(text="x")

        async def call() -> None:
            self.calls += [
                asyncio.create_task(self.client.call(command, timeout=timeout))
                for command in [a_wait, a_repeat] * count
            ]
            await settled(5)

        self.run(call())

    @precondition(lambda self: self.calls)
    @rule(number=NUMBERS)
    def cancel_a_call(self, number: int) -> None:
        self.calls[number % len(self.calls)].cancel()
        self.run(settled(5))

    @rule(number=NUMBERS)
    def close_from_the_server(self, number: int) -> None:
        async def close() -> None:
            peer = self.any_peer(number)
            if peer is None:
                return
            address = peer.socket.getsockname()
            for connection in self.server.connections:
                if connection.remote_address == address:
                    peer.is_proper = False
                    connection.close()
            await settled(5)

        self.run(close())

    @rule()
    def neighbour_is_served(self) -> None:
        answer = self.run(self.neighbour.call(Repeat(text="ab"), timeout=10))
        assert answer == Text(text="ab")

    # -- The end -------------------------------------------------------------------------------

    def teardown(self) -> None:
        try:
            if hasattr(self, "neighbour"):
                self.run(self.finish())
        finally:
            self.runner.close()
            self.log_context.__exit__(None, None, None)
        assert not self.complaints
        assert not self.log.lines(logging.ERROR)

    async def finish(self) -> None:
        self.release.set()
        for peer in self.peers:
            while peer.is_proper and (peer.to_write or peer.answered != peer.asked):
                if peer.called:
                    asked = peer.called.pop(0)
                    peer.to_write += encode_box({b"_answer": asked[b"_ask"], b"text": b"x"})
                peer.write()
                if not peer.read():
                    await asyncio.sleep(0)
        for result in await asyncio.gather(*self.calls, return_exceptions=True):
            assert isinstance(
                result, (Text, CallTimeoutError, asyncio.CancelledError, ConnectionLostError)
            ), result
        assert await self.client.call(Repeat(text="x"), timeout=10) == Text(text="x")
        for peer in self.peers:
            peer.close()
        await until(lambda: len(self.server.connections) == 2)
        assert asyncio.all_tasks() - {asyncio.current_task()} <= self.tasks
        assert await self.neighbour.call(Repeat(text="ab"), timeout=10) == Text(text="ab")
        for connection in (self.client, self.neighbour):
            connection.close()
            await connection.wait_closed()
        self.server.close()
        await self.server.wait_closed()
        await until(lambda: set(descriptors()) <= self.descriptors)


TestServedPeers = ServedPeers.TestCase
TestServedPeers.settings = settings(max_examples=100, stateful_step_count=40)
