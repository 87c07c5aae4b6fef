"""What the clients of all peers share: timing calls and saying what came out."""

from __future__ import annotations

import json
import statistics
import time


class Clock:
    """Collects the latencies of calls, and says when the time is over.

    The first tenth of the time is for warming up and is not counted.
    """

    def __init__(self, seconds: float) -> None:
        now = time.perf_counter()
        self.begin = now + seconds / 10
        self.end = now + seconds
        self.latencies: list[float] = []

    def called(self, start: float) -> bool:
        """Note a call that began at `start` and is over now; say whether to go on."""
        now = time.perf_counter()
        if start >= self.begin:
            self.latencies.append(now - start)
        return now < self.end

    def report(self) -> None:
        """Print the figures, for the runner to read."""
        elapsed = time.perf_counter() - self.begin
        cuts = statistics.quantiles(self.latencies, n=100)
        print(
            json.dumps(
                {
                    "rate": len(self.latencies) / elapsed,
                    "median": cuts[49] * 1e6,
                    "p99": cuts[98] * 1e6,
                }
            )
        )
