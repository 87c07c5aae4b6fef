"""A bare asyncio.Protocol that moves the bytes of the same calls, without making calls.

It counts bytes: for as many answers as have come in whole, as many asks go out in one write, and
the server does likewise. Nobody waits for a call, no box is cut out, and a hundred calls in flight
are a few large writes. This is the ceiling of the transport, which no way to call can come near;
`bare` is what shares are of.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, cast

from benchmarks.peers import loop
from benchmarks.peers.bare import connected, serving
from benchmarks.peers.clock import Clock
from benchmarks.samples import answer_bytes, ask_bytes

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from benchmarks.peers.turn import Turn


class BytesServer(asyncio.Protocol):
    def __init__(self, ask: bytes, answer: bytes) -> None:
        self.length = len(ask)
        self.answer = answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.received = 0

    def data_received(self, data: bytes) -> None:
        calls, self.received = divmod(self.received + len(data), self.length)
        if calls:
            self.transport.write(self.answer * calls)


class BytesClient(asyncio.Protocol):
    clock: Clock

    def __init__(self, turn: Turn) -> None:
        self.ask = ask_bytes(turn.work)
        self.length = len(answer_bytes(turn.work))
        self.in_flight = turn.in_flight // turn.connections
        self.starts: list[float] = []
        self.received = 0
        self.done = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def begin(self, clock: Clock) -> None:
        self.clock = clock
        self.call(self.in_flight)

    def call(self, calls: int) -> None:
        self.starts += [time.perf_counter()] * calls
        self.transport.write(self.ask * calls)

    def data_received(self, data: bytes) -> None:
        calls, self.received = divmod(self.received + len(data), self.length)
        starts, self.starts = self.starts[:calls], self.starts[calls:]
        noted = [self.clock.called(start) for start in starts]
        if not all(noted):
            self.done.set()
        elif calls:
            self.call(calls)


def serve_turn(turn: Turn) -> AbstractAsyncContextManager[int]:
    return serving(turn, partial(BytesServer, ask_bytes(turn.work), answer_bytes(turn.work)))


run_server = partial(loop.run_server, serve_turn)


def run_client(turn: Turn) -> None:
    async def main() -> None:
        async with AsyncExitStack() as connections:
            clients = [
                await connections.enter_async_context(connected(turn, partial(BytesClient, turn)))
                for _ in range(turn.connections)
            ]
            clock = Clock(turn)
            for client in clients:
                client.begin(clock)
            for client in clients:
                await client.done.wait()
            clock.report()

    loop.run_on_loop(main(), loop=turn.loop)
