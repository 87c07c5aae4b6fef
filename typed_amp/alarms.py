"""Many deadlines, and one timer of the event loop's for all of them.

Rule of this module: what is done long before its deadline, as nearly everything is, costs next to
nothing. Who is woken a few milliseconds late is none the worse for it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Hashable

__all__ = ["Alarms"]

T = TypeVar("T", bound="Hashable")

_LEAST_PAUSE: Final = 0.001
_PAUSE_FOR_EACH: Final = 1e-6
"""Seconds between two looks at all that wait: so little time goes into looking, however many."""


class Alarms(Generic[T]):
    """Wakes those whose time has come.

    Args:
        loop: the event loop.
        wake: called with each of them, once.
    """

    __slots__ = ("_armed_at", "_loop", "_timer", "_wake", "_whens")

    def __init__(self, loop: asyncio.AbstractEventLoop, wake: Callable[[T], object]) -> None:
        self._loop = loop
        self._wake = wake
        self._whens: dict[T, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._armed_at = math.inf

    def set(self, who: T, when: float) -> None:
        """Have somebody woken at a time of the event loop's; one time for each."""
        self._whens[who] = when
        if when < self._armed_at:
            self._arm(when)

    def unset(self, who: T) -> None:
        """Let somebody be, if there is a time for it."""
        self._whens.pop(who, None)

    def clear(self) -> None:
        """Wake nobody any more."""
        self._whens.clear()
        self._arm(math.inf)

    def _arm(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._armed_at = when
        self._timer = None if when == math.inf else self._loop.call_at(when, self._look)

    def _look(self) -> None:
        self._timer = None
        now = self._loop.time()
        due = [who for who, when in self._whens.items() if when <= now]
        for who in due:
            del self._whens[who]
        if self._whens:
            pause = _LEAST_PAUSE + _PAUSE_FOR_EACH * len(self._whens)
            self._arm(max(min(self._whens.values()), now + pause))
        else:
            self._armed_at = math.inf
            self._whens = {}  # one that was emptied would keep the memory of all that were in it
        for who in due:
            self._wake(who)
