from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.clock import Clock
from typed_amp.rounds import Group, rounds_of

PERIOD = 8.0
SOONEST, LATEST = PERIOD - 1e-6, PERIOD * (1 + 1 / 64) + 1e-6
"""How long it takes at the least and the most from one look to the next, but for rounding."""

AT_ONCE = 16
"""How many are looked at before others have their turn."""


class Watched:
    """Notes when it is looked at, and does something then."""

    def __init__(self, loop: Clock, action: Callable[[], None] = lambda: None) -> None:
        self.loop = loop
        self.group: Group | None = None
        self.looks = [loop.time()]
        self.were_late: list[bool] = []
        self.action = action
        rounds_of(loop, PERIOD).join(self)

    def look(self, now: float, *, is_late: bool) -> None:
        self.looks.append(now)
        self.were_late.append(is_late)
        self.action()

    def leave(self) -> None:
        if self.group is not None:
            self.group.rounds.leave(self)

    def gaps(self) -> list[float]:
        return [
            after - before for before, after in zip(self.looks[:-1], self.looks[1:], strict=True)
        ]


@pytest.fixture
def loop() -> Iterator[Clock]:
    loop = Clock()
    yield loop
    loop.close()


def test_many_are_looked_at_by_one_timer_and_a_few_at_a_time(loop: Clock) -> None:
    looked_at = 0
    most = 0

    def begin_turn() -> None:
        nonlocal looked_at
        looked_at = 0

    def count() -> None:
        nonlocal looked_at, most
        if not looked_at:
            loop.call_soon(begin_turn)  # others have their turn
        looked_at += 1
        most = max(most, looked_at)

    members = [Watched(loop, count) for _ in range(10_000)]
    assert loop.timers == 1
    loop.pass_time(10.5 * PERIOD)
    assert all(len(member.looks) == 11 for member in members)
    assert most == AT_ONCE
    assert loop.timers == 1
    for member in members:
        member.leave()
    assert loop.timers == 0


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 3), st.floats(0, 60)), max_size=60))
def test_each_is_looked_at_once_in_a_period_until_it_leaves(
    stays: list[tuple[float, float]],
) -> None:
    loop = Clock()
    try:
        members: list[Watched] = []
        events: list[tuple[float, int, int]] = []
        begin = 0.0
        for number, (pause, stay) in enumerate(stays):
            begin += pause
            events += [(begin, 0, number), (begin + stay, 1, number)]
        ends: dict[int, float] = {}
        for when, is_end, number in sorted(events):
            loop.pass_time(when)
            if is_end:
                members[number].leave()
                ends[number] = loop.time()
            else:
                members.append(Watched(loop))
            assert loop.timers == (len(ends) < len(members))
        loop.pass_time(loop.time() + 2 * PERIOD)
        for number, member in enumerate(members):
            assert all(SOONEST <= gap <= LATEST for gap in member.gaps())
            assert ends[number] - LATEST <= member.looks[-1] <= ends[number]
            assert not any(member.were_late)
    finally:
        loop.close()


def test_those_that_are_left_over_of_many_are_looked_at_together(loop: Clock) -> None:
    members = []
    for _ in range(200):
        members.append(Watched(loop))
        loop.pass_time(loop.time() + PERIOD / 2_000)
    kept = members[::10]
    for member in members:
        if member not in kept:
            member.leave()
    loop.pass_time(10 * PERIOD)
    times = {member.looks[-1] for member in kept}
    assert len(times) <= len(kept) / 3
    for member in kept:
        assert all(SOONEST <= gap <= LATEST for gap in member.gaps())


def test_who_leaves_while_another_is_looked_at_is_not_looked_at(loop: Clock) -> None:
    members: list[Watched] = []

    def others_leave() -> None:
        for member in members[1:]:
            member.leave()

    members += [Watched(loop, others_leave), Watched(loop), Watched(loop)]
    loop.pass_time(3.5 * PERIOD)
    assert [len(member.looks) for member in members] == [4, 1, 1]


def test_who_leaves_when_it_is_looked_at_leaves_no_timer(loop: Clock) -> None:
    members: list[Watched] = []
    members.append(Watched(loop, lambda: members[0].leave()))
    loop.pass_time(3.5 * PERIOD)
    assert len(members[0].looks) == 2
    assert loop.timers == 0


def test_who_comes_while_another_is_looked_at_is_looked_at_a_period_later(loop: Clock) -> None:
    came: list[Watched] = []
    first = Watched(loop, lambda: came.append(Watched(loop)) if not came else None)
    loop.pass_time(2.5 * PERIOD)
    assert [len(first.looks), len(came[0].looks)] == [3, 2]
    assert SOONEST <= came[0].gaps()[0] <= LATEST


def test_a_look_that_fails_costs_no_other(loop: Clock) -> None:
    told: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: told.append(context))

    def fail() -> None:
        raise RuntimeError("planned")

    members = [Watched(loop), Watched(loop, fail), Watched(loop)]
    loop.pass_time(2.5 * PERIOD)
    assert [len(member.looks) for member in members] == [3, 3, 3]
    assert [str(context["exception"]) for context in told] == ["planned", "planned"]


def test_first_look_after_the_program_was_stopped_says_so(loop: Clock) -> None:
    members = []
    for _ in range(100):
        members.append(Watched(loop))
        loop.pass_time(loop.time() + PERIOD / 100)
    loop.pass_time(1.5 * PERIOD)
    for member in members:
        member.were_late.clear()
    loop.clock.now += 3 * PERIOD
    loop.pass_time(7 * PERIOD)
    for member in members:
        assert member.were_late[0]
        assert not any(member.were_late[1:])
        assert len(member.were_late) >= 2


def test_a_loop_that_is_done_with_is_not_kept_by_those_who_never_left() -> None:
    references: list[weakref.ref[Any]] = []
    for _ in range(2):
        loop = Clock()
        members = [Watched(loop) for _ in range(100)]
        loop.pass_time(1.5 * PERIOD)
        assert all(len(member.looks) == 2 for member in members)
        loop.close()
        references += [weakref.ref(loop), *map(weakref.ref, members)]
        del loop, members
    gc.collect()
    assert not any(reference() for reference in references)


async def test_those_with_another_period_have_rounds_of_their_own() -> None:
    loop = asyncio.get_running_loop()
    one, same, other = rounds_of(loop, 1.0), rounds_of(loop, 1.0), rounds_of(loop, 2.0)
    assert one is same
    assert one is not other
