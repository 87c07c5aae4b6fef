"""A bare asyncio.Protocol that makes the same calls with the same bytes, and nothing else.

This is the limit that shares are of: what asyncio alone takes for calls that somebody waits for. A
call is a future, which one coroutine for each call in flight awaits. What is asked and answered are
the bytes of the same work as typed_amp writes it, made beforehand; what comes in is cut by its
length, which is known, and looked at no further. What is written in one turn of the event loop goes
out in one write, and a call that is alone at once, as with typed_amp: a write for each call would
be a system call for each, and a limit that is easily passed.

`bare_bytes` is what is left without calls.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, cast

from benchmarks.peers import loop
from benchmarks.peers.turn import HOST, port_of
from benchmarks.samples import answer_bytes, ask_bytes

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping
    from contextlib import AbstractAsyncContextManager
    from typing import TypeVar

    from benchmarks.peers.clock import Call
    from benchmarks.peers.turn import Turn

    P = TypeVar("P", bound=asyncio.Protocol)


class Cutter:
    """Cuts what comes in into pieces of one length."""

    def __init__(self, length: int) -> None:
        self.length = length
        self.rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        data = self.rest + data if self.rest else data
        length = self.length
        end = len(data) - len(data) % length
        self.rest = data[end:]
        return [data[start : start + length] for start in range(0, end, length)]


class BareServer(asyncio.Protocol):
    def __init__(self, ask: bytes, answer: bytes) -> None:
        self.asks = Cutter(len(ask))
        self.answer = answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        answers = [self.answer for _ in self.asks.feed(data)]
        if answers:
            self.transport.write(b"".join(answers))


class BareClient(asyncio.Protocol):
    def __init__(self, ask: bytes, answer: bytes) -> None:
        self.ask = ask
        self.answers = Cutter(len(answer))
        self.loop = asyncio.get_running_loop()
        self.waiting: deque[asyncio.Future[bytes]] = deque()
        self.unwritten: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    async def call(self) -> None:
        future: asyncio.Future[bytes] = self.loop.create_future()
        if not self.waiting:
            self.transport.write(self.ask)
        else:
            if not self.unwritten:
                self.loop.call_soon(self.flush)
            self.unwritten.append(self.ask)
        self.waiting.append(future)
        await future

    def flush(self) -> None:
        self.transport.write(b"".join(self.unwritten))
        self.unwritten.clear()

    def data_received(self, data: bytes) -> None:
        for answer in self.answers.feed(data):
            self.waiting.popleft().set_result(answer)


@asynccontextmanager
async def serving(
    turn: Turn, new_protocol: Callable[[], asyncio.Protocol]
) -> AsyncGenerator[int, None]:
    """Serve, and give the port."""
    running = asyncio.get_running_loop()
    listener = turn.listen()
    if turn.path:
        server = await running.create_unix_server(new_protocol, sock=listener)
    else:
        server = await running.create_server(new_protocol, sock=listener, ssl=turn.server_context())
    yield port_of(listener)
    server.close()


@asynccontextmanager
async def connected(turn: Turn, new_protocol: Callable[[], P]) -> AsyncGenerator[P, None]:
    """Connect, and give the protocol."""
    running = asyncio.get_running_loop()
    if turn.path:
        transport, protocol = await running.create_unix_connection(new_protocol, turn.path)
    else:
        transport, protocol = await running.create_connection(
            new_protocol, HOST, turn.port, ssl=turn.client_context()
        )
    yield protocol
    transport.close()


def serve_turn(turn: Turn) -> AbstractAsyncContextManager[int]:
    return serving(turn, partial(BareServer, ask_bytes(turn.work), answer_bytes(turn.work)))


@asynccontextmanager
async def connect_turn(turn: Turn) -> AsyncGenerator[Mapping[str, Call], None]:
    new_client = partial(BareClient, ask_bytes(turn.work), answer_bytes(turn.work))
    async with connected(turn, new_client) as client:
        yield {turn.work: client.call}


run_server = partial(loop.run_server, serve_turn)
run_client = partial(loop.run_client, connect_turn)
