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


LONGEST = 10.0
"""How many seconds a turn may last beyond thrice its time, where calls are slow."""


class Clock:
    """Collects the latencies of calls, and says when the time is over.

    The first fifth of the time is for warming up. Both parts last a little longer, until as many
    calls have ended as there are in flight, or twice or three times as many: answers may come in
    bursts of that many, and who begins behind one must end behind one.

    Args:
        turn: how long to measure, and which server.
    """

    def __init__(self, turn: Turn) -> None:
        now = time.perf_counter()
        self.seconds = turn.seconds
        self.in_flight = turn.in_flight
        self.begin = 0.0
        self.end = now + turn.seconds / 5
        self.limit = now + 3 * turn.seconds + LONGEST
        self.is_warm = self.is_over = False
        self.latencies: list[float] = []
        self.server = turn.server
        self.costs: list[tuple[float, float]] = []

    def called(self, start: float) -> bool:
        """Note a call that began at `start` and is over now; say whether to go on."""
        now = time.perf_counter()
        if self.is_over:
            return False
        self.latencies.append(now - start)
        if now < self.end or (len(self.latencies) % self.in_flight and now < self.limit):
            return True
        self._note_cost()
        self.end = now
        if self.is_warm:
            self.is_over = True
            return False
        self.is_warm = True
        self.begin = now
        self.end = now + self.seconds * 4 / 5
        self.latencies.clear()
        return True

    def _note_cost(self) -> None:
        self.costs.append((time.process_time(), processor_time(self.server)))

    def report(self) -> None:
        """Print the figures, for the runner to read."""
        calls = len(self.latencies)
        if calls < 2 or len(self.costs) < 2:
            raise SystemExit("fewer than two calls ended in time")
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
