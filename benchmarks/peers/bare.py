"""A bare asyncio.Protocol that moves the bytes of the same calls and does nothing with them."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import cast

from benchmarks.peers.clock import Clock
from benchmarks.peers.loop import run_on_loop
from typed_amp import encode_box

ASK = encode_box({b"_ask": b"1f", b"_command": b"Repeat", b"text": b"abc", b"times": b"3"})
ANSWER = encode_box({b"_answer": b"1f", b"text": b"abcabcabc"})


class BareServer(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.received = 0

    def data_received(self, data: bytes) -> None:
        calls, self.received = divmod(self.received + len(data), len(ASK))
        if calls:
            self.transport.write(ANSWER * calls)


class BareClient(asyncio.Protocol):
    def __init__(self, in_flight: int, seconds: float) -> None:
        self.in_flight = in_flight
        self.clock = Clock(seconds)
        self.starts: list[float] = []
        self.received = 0
        self.done = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.call(self.in_flight)

    def call(self, calls: int) -> None:
        self.starts += [time.perf_counter()] * calls
        self.transport.write(ASK * calls)

    def data_received(self, data: bytes) -> None:
        calls, self.received = divmod(self.received + len(data), len(ANSWER))
        starts, self.starts = self.starts[:calls], self.starts[calls:]
        is_time_left = min(map(self.clock.called, starts), default=True)
        if not is_time_left:
            self.done.set()
        elif calls:
            self.call(calls)


async def serve_bare() -> None:
    server = await asyncio.get_running_loop().create_server(BareServer, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


async def call_bare(port: int, in_flight: int, seconds: float) -> None:
    loop = asyncio.get_running_loop()
    transport, client = await loop.create_connection(
        lambda: BareClient(in_flight, seconds), "127.0.0.1", port
    )
    await client.done.wait()
    client.clock.report()
    transport.close()


if __name__ == "__main__":
    if sys.argv[1] == "server":
        run_on_loop(serve_bare())
    else:
        run_on_loop(call_bare(int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])))
