"""Clients that come back, under load, while their servers are killed and replaced."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path

from tests.counting_server import Again, Counted, Once
from tests.documents import ROOT
from tests.peers import HOST, until
from tests.places import QUICK, free_port
from tests.programs import Program, program
from typed_amp import Client, ConnectionLostError
from typed_amp.calling import Calling

SECONDS = 0.2
"""How long the longest calls take; others take less, so that some are always under way."""


class Load:
    """Calls without end, so many at a time: half of them of a command that is idempotent.

    The odd ones are.
    """

    def __init__(self, client: Calling) -> None:
        self.client = client
        self.in_flight: set[int] = set()
        self.succeeded: set[int] = set()
        self.failed: dict[int, ConnectionLostError] = {}
        self.made = 0
        self._ended = asyncio.Event()
        self._is_over = False

    @contextlib.asynccontextmanager
    async def of(self, workers: int) -> AsyncIterator[None]:
        """Keep that many calls in flight meanwhile; the last ones have ended afterwards."""
        async with asyncio.TaskGroup() as group:
            for number in range(workers):
                group.create_task(self._work(number % 2))
            yield
            self._is_over = True

    async def _work(self, parity: int) -> None:
        while not self._is_over:
            key = 2 * self.made + parity
            self.made += 1
            self.in_flight.add(key)
            command = Again(key=key) if key % 2 else Once(key=key)
            try:
                assert await self.client.call(command) == Counted(key=key)
            except ConnectionLostError as error:
                self.failed[key] = error
            else:
                self.succeeded.add(key)
            self.in_flight.discard(key)
            self._ended.set()

    @property
    def once_in_flight(self) -> set[int]:
        """The calls in flight that may not be made twice."""
        return {key for key in self.in_flight if key % 2 == 0}

    async def goes_on(self) -> None:
        """Wait until calls have succeeded that were made after now."""
        first = 2 * self.made
        await self.until(lambda: any(key >= first for key in self.succeeded))

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until something is so that may change when a call ends."""
        while not condition():
            self._ended.clear()
            await self._ended.wait()


@contextlib.asynccontextmanager
async def standby() -> AsyncIterator[Program]:
    """Start a server that has imported all it needs, and waits to be told where to listen."""
    arguments = ("-m", "tests.counting_server", str(SECONDS))
    async with program(*arguments, directory=ROOT) as running:
        assert await running.line() == "imported"
        yield running


def carried_out(directory: Path) -> Counter[int]:
    """Count how often each call was carried out, by all servers together."""
    return Counter(
        int(line) for path in directory.glob("*.log") for line in path.read_text().splitlines()
    )


async def test_server_killed_ten_times_with_500_calls_in_flight(tmp_path: Path) -> None:
    port = free_port()
    async with (
        asyncio.timeout(25),  # no call hangs
        contextlib.AsyncExitStack() as stack,
        Client(HOST, port, backoff=QUICK, wait_for_first=False) as client,
    ):
        load = Load(client)
        async with load.of(500):
            server = await stack.enter_async_context(standby())
            for number in range(10):
                server.type(f"{port} {tmp_path / f'{number}.log'}")
                following = await stack.enter_async_context(standby())
                await load.goes_on()
                await until(lambda: len(load.in_flight) == 500 and client.connection)
                doomed = load.once_in_flight
                server.kill()
                assert await server.rest() == ""
                server = following
                # They fail at once: there is no server now.
                await load.until(partial(doomed.isdisjoint, load.in_flight))
            server.type(f"{port} {tmp_path / 'last.log'}")
            await load.goes_on()
        assert not load.in_flight
        assert await server.stop() == ""

    counted = carried_out(tmp_path)
    assert len(load.succeeded) + len(load.failed) == load.made
    assert all(key % 2 == 0 for key in load.failed)  # those that are idempotent all succeeded
    assert len(load.failed) > 1000
    for key, error in load.failed.items():
        assert error.was_sent
        assert str(error).startswith(f"Once: the connection to {HOST}:{port} was lost: ")
        assert counted[key] <= 1
    for key in load.succeeded:
        assert counted[key] == 1 if key % 2 == 0 else counted[key] >= 1
    assert max(counted.values()) > 1  # some were indeed sent again


async def test_servers_replaced_one_after_the_other_lose_no_call(tmp_path: Path) -> None:
    ports = [free_port() for _ in range(3)]
    async with (
        asyncio.timeout(90),
        contextlib.AsyncExitStack() as stack,
        Client([(HOST, port) for port in ports], backoff=QUICK, wait_for_first=False) as client,
    ):
        servers = {}
        for port in ports:
            servers[port] = await stack.enter_async_context(standby())
            servers[port].type(f"{port} {tmp_path / f'{port}.log'}")
        load = Load(client)
        async with load.of(200):
            for number in range(6):
                following = await stack.enter_async_context(standby())
                await load.goes_on()
                await until(lambda: len(load.in_flight) == 200 and client.connection)
                address = client.state.address
                assert isinstance(address, tuple)
                port = address[1]
                assert await servers[port].stop() == ""  # SIGTERM: it ends when all are answered
                assert servers[port].exit_code == 0
                servers[port] = following
                following.type(f"{port} {tmp_path / f'{number}.log'}")
            await load.goes_on()

    assert load.failed == {}
    counted = carried_out(tmp_path)
    assert len(load.succeeded) == load.made
    assert counted == dict.fromkeys(load.succeeded, 1)  # not even those that may be made twice
