"""An event loop whose time passes as soon as nothing else is to be done."""

from __future__ import annotations

import asyncio
import selectors


class JumpingSelector(selectors.SelectSelector):
    """Doesn't wait: it says that the time has passed."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.now += timeout or 0
        return super().select(0)


class Clock(asyncio.SelectorEventLoop):
    """An event loop in which nothing takes time: its clock jumps to the next thing to do."""

    def __init__(self) -> None:
        self.clock = JumpingSelector()
        super().__init__(self.clock)

    def time(self) -> float:
        return self.clock.now

    @property
    def timers(self) -> int:
        """How many timers run."""
        scheduled: list[asyncio.TimerHandle] = vars(self)["_scheduled"]
        return sum(not timer.cancelled() for timer in scheduled)

    def pass_time(self, until: float) -> None:
        """Let all be over that is by then."""
        self.run_until_complete(asyncio.sleep(until - self.time()))
