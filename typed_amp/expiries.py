"""Things whose time is over at some point, unless they are done before: one timer for all of them.

Rule of this module: nearly everything is done in time. So what costs little is to add something and
to take it out again, and not that its time is over.
"""

from __future__ import annotations

import math
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Any, Final, TypeAlias

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

__all__ = ["Expiries", "Expiry"]

Expiry: TypeAlias = list[Any]
"""The time, a number that no other has, and what is over then; None if it was done before."""

_MOST_SPARE: Final = 64
"""How many that are done may be left among those that aren't, beside as many as those."""

_EARLY: Final = 0.000_5
"""How many seconds too early an event loop may be: uvloop rounds to milliseconds."""


class Expiries:
    """What waits for an end on one connection.

    Args:
        loop: whose clock it is.
        expire: called with what is over.
    """

    __slots__ = ("_due", "_expire", "_heap", "_loop", "_made", "_timer", "_waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop, expire: Callable[[Any], None]) -> None:
        self._loop = loop
        self._expire = expire
        self._heap: list[Expiry] = []
        self._waiting = 0
        self._made = 0
        self._due = math.inf
        self._timer: asyncio.TimerHandle | None = None

    def add(self, deadline: float, item: object) -> Expiry:
        """Expect something.

        Args:
            deadline: when it is over, as the event loop's time.
            item: what; not None.

        Returns:
            What `remove` takes.
        """
        self._made += 1
        self._waiting += 1
        expiry: Expiry = [deadline, self._made, item]
        heappush(self._heap, expiry)
        if deadline < self._due:
            self._arm(deadline)
        return expiry

    def remove(self, expiry: Expiry) -> None:
        """It is done, or over."""
        if expiry[2] is None:
            return
        expiry[2] = None
        self._waiting -= 1
        if len(self._heap) > 2 * self._waiting + _MOST_SPARE:
            self._heap = [each for each in self._heap if each[2] is not None]
            heapify(self._heap)

    def clear(self) -> None:
        """Expect nothing more."""
        for expiry in self._heap:
            expiry[2] = None
        self._heap = []
        self._waiting = 0
        self._due = math.inf
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self, deadline: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._due = deadline
        self._timer = self._loop.call_at(deadline, self._look)

    def _look(self) -> None:
        self._timer = None
        self._due = math.inf
        now = self._loop.time() + _EARLY
        while self._heap:
            expiry = self._heap[0]
            if expiry[2] is not None and expiry[0] > now:
                if expiry[0] < self._due:
                    self._arm(expiry[0])
                return
            heappop(self._heap)
            item = expiry[2]
            self.remove(expiry)
            if item is not None:
                self._expire(item)
