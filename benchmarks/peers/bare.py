"""A bare asyncio.Protocol that moves the bytes of the same calls and does nothing with them.

It counts bytes, and answers as many calls as have come in whole. What is asked and answered are the
bytes of the same work as typed_amp writes it. This is the limit: what is left of the time when a
library costs nothing.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, cast

from benchmarks.peers import loop
from benchmarks.peers.clock import Clock
from benchmarks.peers.turn import HOST, port_of
from benchmarks.samples import answer_bytes, ask_bytes

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from benchmarks.peers.turn import Turn


class BareServer(asyncio.Protocol):
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


class BareClient(asyncio.Protocol):
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


@asynccontextmanager
async def serve_turn(turn: Turn) -> AsyncGenerator[int, None]:
    new_protocol = partial(BareServer, ask_bytes(turn.work), answer_bytes(turn.work))
    running = asyncio.get_running_loop()
    listener = turn.listen()
    if turn.path:
        server = await running.create_unix_server(new_protocol, sock=listener)
    else:
        server = await running.create_server(new_protocol, sock=listener, ssl=turn.server_context())
    yield port_of(listener)
    server.close()


run_server = partial(loop.run_server, serve_turn)


def run_client(turn: Turn) -> None:
    async def main() -> None:
        running = asyncio.get_running_loop()
        new_protocol = partial(BareClient, turn)
        clients: list[BareClient] = []
        for _ in range(turn.connections):
            if turn.path:
                _, client = await running.create_unix_connection(new_protocol, turn.path)
            else:
                _, client = await running.create_connection(
                    new_protocol, HOST, turn.port, ssl=turn.client_context()
                )
            clients.append(client)
        clock = Clock(turn)
        for client in clients:
            client.begin(clock)
        for client in clients:
            await client.done.wait()
        clock.report()
        for client in clients:
            client.transport.close()

    loop.run_on_loop(main(), loop=turn.loop)
