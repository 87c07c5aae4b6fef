"""How long to wait before the next attempt, and where to make it.

Rule of this module: pure. It is told what failed and what held, and says what comes next; it has
no clock and no dice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Attempts", "Backoff"]

A = TypeVar("A")


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait after failures: longer each time, and never as long as everybody else.

    The n-th failure in a row is followed by at most `first * factor ** (n - 1)` seconds, and never
    more than `maximum`. How much of that is left to chance, `jitter` says. By default it is all of
    it, the "full jitter" of Marc Brooker's "Exponential Backoff And Jitter" (AWS Architecture
    Blog, 2015): clients that lost a server in the same moment come back spread out, and that with
    the least work for all. Twisted's `ReconnectingClientFactory` waits by a similar rule.

    Attributes:
        first: the most seconds after the first failure.
        factor: how much longer each further one takes.
        maximum: the most seconds there are.
        jitter: the part of it that is left to chance: from 0, nothing, to 1, all.
        reset_after: seconds after which a connection counts as good: when it is lost, counting
            begins anew. One that is lost sooner is one more failure, so that a server that accepts
            and at once drops its clients isn't stormed.

    Raises:
        ValueError: a number makes no sense.
    """

    first: float = 0.1
    factor: float = 2.0
    maximum: float = 30.0
    jitter: float = 1.0
    reset_after: float = 10.0

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if not math.isfinite(getattr(self, name)):
                raise ValueError(f"Backoff.{name} must be finite, not {getattr(self, name)}")
        if self.first <= 0:
            raise ValueError(f"Backoff.first must be positive, not {self.first}")
        if self.factor < 1:
            raise ValueError(f"Backoff.factor must be at least 1, not {self.factor}")
        if self.maximum < self.first:
            raise ValueError(f"Backoff.maximum must be at least first, {self.first}")
        if not 0 <= self.jitter <= 1:
            raise ValueError(f"Backoff.jitter must be from 0 to 1, not {self.jitter}")
        if self.reset_after < 0:
            raise ValueError(f"Backoff.reset_after must not be negative, not {self.reset_after}")

    def delay(self, failures: int, chance: float) -> float:
        """Say how many seconds to wait.

        Args:
            failures: how many there were in a row, at least 1.
            chance: a number from 0 to 1, thrown for this very wait.
        """
        try:
            most = min(self.maximum, self.first * self.factor ** (failures - 1))
        except OverflowError:
            most = self.maximum
        return most * (1 - self.jitter * chance)


class Attempts(Generic[A]):
    """Which address comes next, and how long to wait before it.

    Each address is tried in its turn, without a wait between them; when all have failed, that is
    followed by one. A lost connection counts as a failure of its address.

    What keeps processes has one "address", the worker that is started again, and a process that
    has ended is a lost connection.

    Args:
        addresses: the addresses, at least one.
        backoff: says how long the waits are.

    Attributes:
        failures: how many there were in a row.
    """

    def __init__(self, addresses: Sequence[A], backoff: Backoff) -> None:
        self._addresses = addresses
        self._backoff = backoff
        self._turn = 0
        self.failures: int = 0

    @property
    def address(self) -> A:
        """The address whose turn it is."""
        return self._addresses[self._turn]

    def lived(self, seconds: float) -> None:
        """There was a connection, which lived that long."""
        if seconds >= self._backoff.reset_after:
            self.failures = 0

    def failed(self, chance: float) -> float:
        """The address has failed; gives the seconds to wait before the next one's turn.

        Args:
            chance: as for `Backoff.delay`.
        """
        self.failures += 1
        self._turn = (self._turn + 1) % len(self._addresses)
        rounds, rest = divmod(self.failures, len(self._addresses))
        return 0.0 if rest else self._backoff.delay(rounds, chance)
