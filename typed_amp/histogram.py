"""How long things took: counted by buckets, so that a million of them need no more than a few do.

Rule of this module: pure. It is told times, and knows no clock.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Final

__all__ = ["Histogram"]

_STEPS: Final = 48
"""How many buckets there are from one time to its double: each is 1.5 % wide."""


class Histogram:
    """Times, of which each is known to within 1.5 per cent.

    Attributes:
        count: how many there are.
        total: their sum.
        maximum: the longest, as it was given.
    """

    def __init__(self) -> None:
        self.count: int = 0
        self.total: float = 0.0
        self.maximum: float = 0.0
        self._buckets: Counter[int] = Counter()

    def add(self, seconds: float) -> None:
        """Count one.

        Args:
            seconds: how long it took; less than a nanosecond counts as one.
        """
        self.count += 1
        self.total += seconds
        self.maximum = max(self.maximum, seconds)
        self._buckets[math.floor(math.log2(max(seconds, 1e-9)) * _STEPS)] += 1

    def percentile(self, percent: float) -> float:
        """Give the time that so many per cent took at most; never less, and up to 1.5 % more.

        Args:
            percent: above 0, up to 100.

        Raises:
            ValueError: there are none, or `percent` is no such number.
        """
        if not self.count or not 0 < percent <= 100:
            raise ValueError(f"there is no percentile {percent} of {self.count} times")
        rank = math.ceil(percent / 100 * self.count)
        for bucket in sorted(self._buckets):
            rank -= self._buckets[bucket]
            if rank <= 0:
                return min(_end(bucket), self.maximum)
        return self.maximum

    def bars(self, most: int) -> list[tuple[float, float, int]]:
        """Give ranges of times, each with how many there are in it, the shortest first.

        The ranges are of equal ratio, join each other, and hold all.

        Args:
            most: how many ranges there may be.
        """
        if not self._buckets:
            return []
        first, last = min(self._buckets), max(self._buckets)
        width = -(-(last - first + 1) // most)
        counts: Counter[int] = Counter()
        for bucket, count in self._buckets.items():
            counts[(bucket - first) // width] += count
        return [
            (_end(first + place * width - 1), _end(first + (place + 1) * width - 1), counts[place])
            for place in range(max(counts) + 1)
        ]


def _end(bucket: int) -> float:
    """Give the end of a bucket, where the next one begins."""
    return float(2 ** ((bucket + 1) / _STEPS))
