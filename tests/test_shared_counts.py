from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.peers import HOST
from tests.supervised_programs import Served, serve
from tests.test_supervisor import Look, Seen
from typed_amp import Client
from typed_amp.shared_counts import SharedCount, SharedCounts


def test_each_sees_what_the_others_have() -> None:
    table = SharedCounts(3)
    first, second = table.take(), table.take()
    assert first is not None
    assert second is not None
    one, other = SharedCount(os.dup(table.fd), first), SharedCount(os.dup(table.fd), second)
    one.set(1, 0)
    assert not one.has_more  # than nobody
    other.set(1, 0)
    assert not one.has_more
    one.set(1, 1)
    assert one.has_more
    assert not other.has_more
    other.set(1, 1)
    other.set(2, 1)
    assert not one.has_more
    assert other.has_more
    one.withdraw()
    one.set(1, 0)
    assert not other.has_more
    table.close()


def test_places_are_given_back_empty() -> None:
    table = SharedCounts(2)
    places = [table.take(), table.take()]
    assert table.take() is None
    assert sorted(place for place in places if place is not None) == [0, 1]
    one, other = (SharedCount(os.dup(table.fd), place) for place in (0, 1))
    one.set(1, 3)
    other.set(1, 0)
    assert one.has_more
    table.give_back(1)  # it was killed
    assert not one.has_more
    assert table.take() == 1
    table.give_back(None)
    table.close()


async def spread(served: Served, count: int) -> Counter[int]:
    """Say how many of so many connections each worker has."""
    clients = [await Client(HOST, served.port) for _ in range(count)]
    seen: list[Seen] = [await client.call(Look()) for client in clients]
    for client in clients:
        client.close()
        await client.wait_closed()
    return Counter(one.process_id for one in seen)


@pytest.mark.usefixtures("nothing_left")
async def test_no_worker_has_all_connections(tmp_path: Path) -> None:
    async with serve("--workers", "4", directory=tmp_path) as served:
        workers = await served.workers()
        # A busy machine may leave one of them waiting for long, and then the others go on.
        found: list[Counter[int]] = []
        while len(found) < 5:
            found.append(await spread(served, 40))
            if found[-1].keys() == set(workers.values()) and max(found[-1].values()) <= 15:
                break
        else:
            pytest.fail(f"{found}")
        await served.stop()


@pytest.mark.usefixtures("nothing_left")
async def test_nobody_waits_for_a_worker_that_is_stuck(tmp_path: Path) -> None:
    async with serve("--workers", "2", directory=tmp_path) as served:
        workers = await served.workers()
        os.kill(workers[1], signal.SIGSTOP)
        try:
            began = time.monotonic()
            async with asyncio.timeout(30):
                counts = await spread(served, 200)
            assert counts == {workers[2]: 200}
            assert time.monotonic() - began < 20
        finally:
            os.kill(workers[1], signal.SIGCONT)
        await served.stop()
