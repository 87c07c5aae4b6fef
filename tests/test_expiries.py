"""What is over in time, and what is not."""

from __future__ import annotations

import asyncio
import gc
import math
import selectors
import weakref

from hypothesis import given, settings
from hypothesis import strategies as st

from typed_amp.expiries import Expiries


class Item:
    """Something that can be found out to be gone."""


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


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 30), st.booleans()), max_size=40))
def test_each_is_over_at_its_time_unless_it_was_done_before(
    plans: list[tuple[int, int, bool]],
) -> None:
    loop = Clock()
    try:
        over: list[tuple[float, int]] = []
        expiries = Expiries(loop, lambda number: over.append((loop.time(), number)))
        due: list[tuple[float, int]] = []
        for number, (begin, seconds, is_done) in enumerate(sorted(plans)):
            loop.pass_time(begin)
            expiry = expiries.add(begin + seconds + 0.5, number)
            if is_done:
                expiries.remove(expiry)
                expiries.remove(expiry)
            else:
                due.append((begin + seconds + 0.5, number))
        loop.pass_time(100)
        assert [number for _, number in over] == [number for _, number in sorted(due)]
        for (time, _), (expected, _) in zip(over, sorted(due), strict=True):
            assert abs(time - expected) < 0.001
    finally:
        loop.close()


def test_what_is_done_is_not_remembered() -> None:
    loop = Clock()
    try:
        expiries = Expiries(loop, lambda _: None)
        items = [Item() for _ in range(1_000)]
        references = [weakref.ref(item) for item in items]
        made = [expiries.add(60 + number, item) for number, item in enumerate(items)]
        assert loop.timers == 1
        del items
        while made:
            expiries.remove(made.pop())
        gc.collect()
        assert not any(reference() for reference in references)
        assert len(expiries._heap) <= 64
    finally:
        loop.close()


def test_an_earlier_one_is_not_kept_waiting_by_a_later() -> None:
    loop = Clock()
    try:
        over: list[str] = []
        expiries = Expiries(loop, over.append)
        expiries.add(60, "late")
        expiries.add(1, "soon")
        loop.pass_time(2)
        assert over == ["soon"]
        expiries.add(3, "between")
        loop.pass_time(59)
        assert over == ["soon", "between"]
        loop.pass_time(61)
        assert over == ["soon", "between", "late"]
    finally:
        loop.close()


def test_nothing_is_over_once_nothing_is_expected() -> None:
    loop = Clock()
    try:
        over: list[str] = []
        expiries = Expiries(loop, over.append)
        expiry = expiries.add(1, "one")
        expiries.add(math.inf, "never")
        expiries.clear()
        expiries.remove(expiry)
        loop.pass_time(10)
        assert not over
    finally:
        loop.close()
