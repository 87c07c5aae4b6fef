"""What the clients of all peers share: making calls, timing them and saying what came out."""

from __future__ import annotations

import json
import statistics
import time
from typing import TYPE_CHECKING, Any

from benchmarks.peers.turn import processor_time

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from benchmarks.peers.turn import Turn

    Call = Callable[[], Coroutine[Any, Any, None]]
    """Makes a call, and checks the answer."""


class Clock:
    """Collects the latencies of calls, and says when the time is over.

    The first fifth of the time is for warming up. Then each call counts that ends within the time,
    whenever it began.

    Args:
        turn: how long to measure, and which server.
    """

    def __init__(self, turn: Turn) -> None:
        now = time.perf_counter()
        self.begin = now + turn.seconds / 5
        self.end = now + turn.seconds
        self.latencies: list[float] = []
        self.server = turn.server
        self.costs: list[tuple[float, float]] = []

    def called(self, start: float) -> bool:
        """Note a call that began at `start` and is over now; say whether to go on."""
        now = time.perf_counter()
        if now < self.begin:
            return True
        if now < self.end:
            if not self.costs:
                self._note_cost()
            self.latencies.append(now - start)
            return True
        if len(self.costs) == 1:
            self._note_cost()
        return False

    def _note_cost(self) -> None:
        self.costs.append((time.process_time(), processor_time(self.server)))

    def report(self) -> None:
        """Print the figures, for the runner to read."""
        calls = len(self.latencies)
        if calls < 2 or len(self.costs) < 2:
            raise SystemExit("fewer than two calls ended within the time")
        cuts = statistics.quantiles(self.latencies, n=100, method="inclusive")
        client, server = (end - begin for begin, end in zip(*self.costs, strict=True))
        print(
            json.dumps(
                {
                    "rate": calls / (self.end - self.begin),
                    "median": cuts[49] * 1e6,
                    "p99": cuts[98] * 1e6,
                    "client": client / calls * 1e6,
                    "server": server / calls * 1e6,
                }
            )
        )


async def call_in_turn(call: Call, clock: Clock) -> None:
    """Call, again and again, until the time is over. `Turn.in_flight` of these run at once."""
    is_time_left = True
    while is_time_left:
        start = time.perf_counter()
        await call()
        is_time_left = clock.called(start)
