from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from tests.peers import settled
from typed_amp import ClientState, ClientStatus
from typed_amp.client_state import States


def state(status: ClientStatus, failures: int = 0) -> ClientState:
    return ClientState(status, datetime.now(UTC), ("localhost", 8000), failures=failures)


def closed() -> ClientState:
    return ClientState(ClientStatus.CLOSED, datetime.now(UTC), None)


async def test_who_watches_gets_the_state_there_is_and_each_that_follows() -> None:
    states = States(state(ClientStatus.CONNECTING))
    seen: list[ClientStatus] = []

    async def watch() -> None:
        seen.extend([state.status async for state in states.watch()])

    async with asyncio.TaskGroup() as group:
        watching = group.create_task(watch())
        for status in (ClientStatus.CONNECTED, ClientStatus.WAITING):
            await settled(3)
            states.change(state(status))
        await settled(3)
        states.change(closed())
        await watching
    assert [status.value for status in seen] == ["connecting", "connected", "waiting", "closed"]


async def test_who_is_slow_misses_some_and_never_the_latest() -> None:
    states = States(state(ClientStatus.CONNECTING))
    watching = states.watch()
    assert (await anext(watching)).status is ClientStatus.CONNECTING
    for failures in range(5):
        states.change(state(ClientStatus.WAITING, failures))
    assert (await anext(watching)).failures == 4
    states.change(state(ClientStatus.CONNECTED))
    states.change(closed())
    assert [state.status async for state in watching] == [ClientStatus.CLOSED]


async def test_who_comes_after_the_end_gets_the_end() -> None:
    states = States(closed())
    assert [state.status async for state in states.watch()] == [ClientStatus.CLOSED]


async def test_one_that_stops_watching_leaves_the_others() -> None:
    states = States(state(ClientStatus.CONNECTING))

    async def watch() -> ClientStatus:
        return [state.status async for state in states.watch()][-1]

    first, second = (asyncio.create_task(watch()) for _ in range(2))
    await settled(3)
    first.cancel()
    await asyncio.wait([first])
    states.change(closed())
    assert await second is ClientStatus.CLOSED
