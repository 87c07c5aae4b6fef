from __future__ import annotations

import asyncio
import gc
import weakref

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.clock import Clock
from tests.peers import until
from typed_amp.alarms import Alarms


@pytest.mark.usefixtures("nothing_left")
async def test_each_is_woken_once_when_its_time_has_come() -> None:
    loop = asyncio.get_running_loop()
    woken: dict[int, float] = {}
    alarms: Alarms[int] = Alarms(loop, lambda who: woken.setdefault(who, loop.time()))
    now = loop.time()
    whens = {number: now + 0.01 * (number % 7) for number in range(50)}
    for number, when in whens.items():
        alarms.set(number, when)
    await until(lambda: len(woken) == 50)
    for number, when in whens.items():
        assert when <= woken[number] < when + 1


@pytest.mark.usefixtures("nothing_left")
async def test_who_is_let_be_is_not_woken() -> None:
    loop = asyncio.get_running_loop()
    woken: list[str] = []
    alarms: Alarms[str] = Alarms(loop, woken.append)
    now = loop.time()
    alarms.set("far", now + 3600)
    alarms.set("late", now + 0.02)
    alarms.set("never", now + 0.01)
    alarms.set("moved", now + 0.005)
    alarms.set("moved", now + 3600)
    alarms.unset("never")
    alarms.unset("unknown")
    await until(lambda: woken)
    assert woken == ["late"]
    alarms.set("again", loop.time())
    await until(lambda: len(woken) == 2)
    alarms.set("cleared", loop.time())
    alarms.clear()
    done = loop.create_future()
    loop.call_later(0.02, done.set_result, None)
    await done
    assert woken == ["late", "again"]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 30), st.booleans()), max_size=40))
def test_each_is_woken_at_its_time_unless_it_is_let_be(plans: list[tuple[int, int, bool]]) -> None:
    loop = Clock()
    try:
        woken: dict[int, float] = {}
        alarms: Alarms[int] = Alarms(loop, lambda who: woken.setdefault(who, loop.time()))
        due: dict[int, float] = {}
        for number, (begin, seconds, is_done) in enumerate(sorted(plans)):
            loop.pass_time(begin)
            alarms.set(number, begin + seconds + 0.5)
            assert loop.timers == 1
            if is_done:
                alarms.unset(number)
            else:
                due[number] = begin + seconds + 0.5
        loop.pass_time(100)
        assert woken.keys() == due.keys()
        for number, when in due.items():
            assert when <= woken[number] < when + 0.005
        assert loop.timers == 0
    finally:
        loop.close()


class Item:
    """Something that can be found out to be gone."""


def test_who_is_let_be_is_not_remembered() -> None:
    loop = Clock()
    try:
        alarms: Alarms[Item] = Alarms(loop, lambda _: None)
        items = [Item() for _ in range(1_000)]
        references = [weakref.ref(item) for item in items]
        for number in range(len(items)):
            alarms.set(items[number], 60 + number)
        assert loop.timers == 1
        while items:
            alarms.unset(items.pop())
        gc.collect()
        assert not any(reference() for reference in references)
    finally:
        loop.close()
