"""A cluster under load, of which a node and a responder are killed."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

from tests.counting_server import Again, Counted, Once
from tests.documents import ROOT
from tests.nats_servers import nats_cluster
from tests.peers import until
from tests.programs import Program, program
from typed_amp import CallTimeoutError, ConnectionLostError, NatsClient, connect_nats

SECONDS = 0.1
"""How long the longest calls take."""

DEADLINE = 3.0
"""How long calls may take that are not idempotent."""


class Load:
    """Calls without end, so many at a time, by several clients; the odd ones are idempotent."""

    def __init__(self, clients: list[NatsClient]) -> None:
        self.clients = clients
        self.made = 0
        self.succeeded: set[int] = set()
        self.failed: dict[int, Exception] = {}
        self.slowest = 0.0
        self._is_over = False

    @contextlib.asynccontextmanager
    async def of(self, workers: int) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as group:
            for number in range(workers):
                client = self.clients[number % len(self.clients)]
                group.create_task(self._work(client, number // len(self.clients) % 2))
            yield
            self._is_over = True

    async def _work(self, client: NatsClient, parity: int) -> None:
        clock = asyncio.get_running_loop().time
        while not self._is_over:
            key = 2 * self.made + parity
            self.made += 1
            begun = clock()
            try:
                if key % 2:
                    answer = await client.call(Again(key=key), timeout=30)
                else:
                    answer = await client.call(Once(key=key), timeout=DEADLINE)
            except (ConnectionLostError, CallTimeoutError) as error:
                self.failed[key] = error
                self.slowest = max(self.slowest, clock() - begun)
            else:
                assert answer == Counted(key=key)
                self.succeeded.add(key)

    async def more(self, count: int) -> None:
        """Wait until so many more have succeeded."""
        enough = len(self.succeeded) + count
        await until(lambda: len(self.succeeded) >= enough)


async def test_node_and_responder_are_killed_under_load(tmp_path: Path) -> None:
    files = [tmp_path / f"responder{number}" for number in range(3)]
    async with contextlib.AsyncExitStack() as stack:
        nodes = stack.enter_context(nats_cluster(tmp_path))
        urls = [node.url for node in nodes]
        responders: list[Program] = []
        for number, file in enumerate(files):
            own = [*urls[number:], *urls[:number]]
            responders.append(
                await stack.enter_async_context(
                    program(
                        *("-m", "tests.nats_counting_server", str(SECONDS), str(file), *own),
                        directory=ROOT,
                    )
                )
            )
        for responder in responders:
            assert await responder.line() == "serving"
        clients = [
            await stack.enter_async_context(
                connect_nats(
                    [*urls[number:], *urls[:number]],
                    service="counting",
                    resend_after=0.5,
                    dont_randomize=True,
                    reconnect_time_wait=0.1,
                )
            )
            for number in range(2)
        ]
        load = Load(clients)
        async with load.of(16):
            await load.more(200)
            responders[2].kill()
            await load.more(200)
            nodes[1].kill()  # with a responder and a client connected to it
            await load.more(400)
            await asyncio.to_thread(nodes[1].start)
            await load.more(200)
        await until(lambda: not any(client.counters.calls_in_flight for client in clients))
        lost = {key for key in load.failed if key % 2}
        assert not lost, [load.failed[key] for key in lost]
        assert load.slowest < DEADLINE + 1
        assert len(load.failed) < 50
    carried_out = Counter(
        int(line) for file in files for line in file.read_text().splitlines() if line
    )
    twice = {key for key, times in carried_out.items() if times > 1 and key % 2 == 0}
    assert not twice, {
        key: (
            [file.name for file in files for line in file.read_text().split() if int(line) == key],
            load.failed.get(key, "succeeded"),
        )
        for key in twice
    }
    assert load.succeeded <= carried_out.keys()
