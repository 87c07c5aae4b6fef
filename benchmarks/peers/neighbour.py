"""A quiet client: 200 calls in a second, each begun when it is due.

That is whether or not those before are answered: a server that stands still for a second keeps 200
calls waiting, as it would those of 200 clients, and not one. Each line of its input asks for the
figures of the calls that ended since the last one, in milliseconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics
import sys
import time

from benchmarks.peers.loop import run_on_loop
from benchmarks.peers.typed import Repeat
from typed_amp import AmpError, Connection, connect

INTERVAL = 0.005


class Figures:
    """The latencies of one stretch of time."""

    def __init__(self) -> None:
        self.latencies: list[float] = []
        self.failed = 0

    def as_json(self) -> dict[str, float]:
        latencies = self.latencies
        cuts = statistics.quantiles(latencies, n=100) if len(latencies) > 1 else [0.0] * 99
        return {
            "calls": len(latencies),
            "failed": self.failed,
            "median": cuts[49] * 1000,
            "p99": cuts[98] * 1000,
            "longest": max(latencies, default=0) * 1000,
        }


async def main() -> None:
    questions = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(questions), sys.stdin
    )
    neighbour = Neighbour(int(sys.argv[1]))
    calling = asyncio.create_task(neighbour.call_on())
    try:
        while await questions.readline():
            figures, neighbour.figures = neighbour.figures, Figures()
            print(json.dumps(figures.as_json()), flush=True)
    finally:
        calling.cancel()
        await asyncio.wait([calling])


class Neighbour:
    """Calls, and connects again where it loses its connection."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.figures = Figures()

    async def call_on(self) -> None:
        while True:
            with contextlib.suppress(OSError, AmpError):
                async with (
                    connect("127.0.0.1", self.port) as connection,
                    asyncio.TaskGroup() as calls,
                ):
                    due = time.perf_counter()
                    while not connection.is_closed:
                        calls.create_task(self.call(connection))
                        due = max(due + INTERVAL, time.perf_counter())
                        await asyncio.sleep(due - time.perf_counter())
            await asyncio.sleep(INTERVAL)

    async def call(self, connection: Connection) -> None:
        start = time.perf_counter()
        try:
            result = await connection.call(Repeat(text="abc", times=3))
            assert result.text == "abcabcabc"
        except AmpError:
            self.figures.failed += 1
        self.figures.latencies.append(time.perf_counter() - start)


if __name__ == "__main__":
    run_on_loop(main())
