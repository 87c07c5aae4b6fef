from __future__ import annotations

import asyncio

import pytest

from tests.peers import until
from typed_amp.alarms import Alarms

pytestmark = pytest.mark.usefixtures("nothing_left")


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
