"""A quiet client: one call after the other, 200 in a second.

Each line of its input asks for the figures since the last one, in milliseconds. A call that waits
for long counts once: what the others would have waited that it kept from being made is not in the
percentiles, but the longest wait is told.
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
from typed_amp import AmpError, connect

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
                async with connect("127.0.0.1", self.port) as connection:
                    while not connection.is_closed:
                        start = time.perf_counter()
                        try:
                            result = await connection.call(Repeat(text="abc", times=3))
                            assert result.text == "abcabcabc"
                        except AmpError:
                            self.figures.failed += 1
                        now = time.perf_counter()
                        self.figures.latencies.append(now - start)
                        await asyncio.sleep(max(0, start + INTERVAL - now))
            await asyncio.sleep(INTERVAL)


if __name__ == "__main__":
    run_on_loop(main())
