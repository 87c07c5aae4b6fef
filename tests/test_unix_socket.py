from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from tests.leftovers import descriptors
from tests.peers import until
from tests.test_unix_transport import (
    LOOPS,
    UnixRecorder,
    run_in,
)
from typed_amp import Router, connect_unix, serve_unix
from typed_amp.unix_socket import open_unix_transport
from typed_amp.unix_transport import UnixTransport


@pytest.fixture(params=LOOPS)
def run(
    request: pytest.FixtureRequest,
) -> Iterator[Callable[[Callable[[], Awaitable[None]]], None]]:
    with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
        runner.run(asyncio.sleep(0))  # what the loop keeps open for the life of the process
    before = descriptors()
    yield lambda scenario: run_in(request.param, scenario)
    assert descriptors() == before


Run = Callable[[Callable[[], Awaitable[None]]], None]


def test_more_clients_than_the_queue_holds(run: Run, tmp_path: Path) -> None:
    path = str(tmp_path / "socket")

    async def scenario() -> None:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            listener.listen(1)
            listener.setblocking(False)
            clients = [UnixRecorder() for _ in range(5)]
            connecting = [asyncio.create_task(open_unix_transport(c, path)) for c in clients]
            waiting = asyncio.create_task(open_unix_transport(UnixRecorder(), path))
            await asyncio.wait(connecting, return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            for _ in clients:
                accepted, _ = await asyncio.get_running_loop().sock_accept(listener)
                accepted.close()
            await asyncio.gather(*connecting)
            await asyncio.gather(*(client.lost for client in clients))

    run(scenario)


def test_refused_connection_says_where(run: Run, tmp_path: Path) -> None:
    path = str(tmp_path / "socket")

    async def scenario() -> None:
        with pytest.raises(FileNotFoundError, match="socket'"):
            await open_unix_transport(UnixRecorder(), path)
        with socket.socket(socket.AF_UNIX) as left_behind:
            left_behind.bind(path)
        with pytest.raises(ConnectionRefusedError, match="socket'"):
            await open_unix_transport(UnixRecorder(), path)
        with pytest.raises(OSError, match="too long"):
            await open_unix_transport(UnixRecorder(), path * 10)

    run(scenario)


def test_cancelled_as_it_is_connected(run: Run, tmp_path: Path) -> None:
    path = str(tmp_path / "socket")

    async def scenario() -> None:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            listener.listen()
            client = UnixRecorder()
            connecting = asyncio.create_task(open_unix_transport(client, path))
            await asyncio.sleep(0)  # it is connected, and the protocol not yet told
            connecting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await connecting
            await client.lost

    run(scenario)


def test_connections_over_unix_sockets_have_it(run: Run, tmp_path: Path) -> None:
    path = str(tmp_path / "socket")

    async def scenario() -> None:
        async with serve_unix(Router(), path) as server, connect_unix(path) as client:
            await until(lambda: server.connections)
            for connection in (client, *server.connections):
                assert isinstance(connection._link.transport, UnixTransport)

    run(scenario)
