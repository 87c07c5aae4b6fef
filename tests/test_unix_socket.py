from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.peers import until
from tests.test_unix_transport import (
    LOOPS,
    Recorder,
    open_files,
    room_for_descriptors,
    run_in,
    sent_with_rights,
)
from typed_amp import Router, connect_unix, serve_unix
from typed_amp.unix_socket import UnixTakeover, open_unix_transport
from typed_amp.unix_transport import UnixTransport


@pytest.fixture(params=LOOPS)
def run(
    request: pytest.FixtureRequest,
) -> Iterator[Callable[[Callable[[], Awaitable[None]]], None]]:
    with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
        runner.run(asyncio.sleep(0))  # what the loop keeps open for the life of the process
    before = open_files()
    yield lambda scenario: run_in(request.param, scenario)
    assert open_files() == before


Run = Callable[[Callable[[], Awaitable[None]]], None]


def test_nothing_is_lost_at_the_takeover(run: Run, tmp_path: Path) -> None:
    path = str(tmp_path / "socket")

    async def scenario() -> None:
        accepted: list[Recorder] = []

        def new_protocol() -> Recorder:
            accepted.append(Recorder())
            return accepted[-1]

        loop = asyncio.get_running_loop()
        server = await loop.create_unix_server(lambda: UnixTakeover(new_protocol), path)
        with socket.socket(socket.AF_UNIX) as early:
            # All this is there before the server has accepted.
            early.connect(path)
            early.send(b"abc")
            sent_with_rights(early, b"def", [early.fileno()])
            early.shutdown(socket.SHUT_WR)
            await until(lambda: accepted and accepted[0].lost.done())
        assert accepted[0].received == b"abcdef"
        assert accepted[0].events[0] == "made"
        assert accepted[0].events[-2:] == ["eof", "lost"]
        assert len(accepted[0].descriptors) == 1
        accepted[0].close_descriptors()
        assert accepted[0].transport.get_extra_info("sockname") == path
        server.close()
        await server.wait_closed()

    run(scenario)


def test_connections_stay_open_after_the_takeover(run: Run, tmp_path: Path) -> None:
    path = str(tmp_path / "socket")

    async def scenario() -> None:
        accepted: list[Recorder] = []

        def new_protocol() -> Recorder:
            accepted.append(Recorder())
            return accepted[-1]

        loop = asyncio.get_running_loop()
        server = await loop.create_unix_server(lambda: UnixTakeover(new_protocol), path)
        client = Recorder()
        transport = await open_unix_transport(client, path)
        assert client.events == ["made"]
        assert transport.get_extra_info("peername") == path
        for _ in range(10):
            transport.write(b"x")
            await until(lambda: accepted and accepted[0].received)
            accepted[0].received = client.received = b""
            accepted[0].transport.write(b"y")
            await until(lambda: client.received)
        transport.close()
        await asyncio.gather(client.lost, accepted[0].lost)
        server.close()
        await server.wait_closed()

    run(scenario)


def test_server_that_can_open_nothing_more_refuses(run: Run, tmp_path: Path) -> None:
    path = str(tmp_path / "socket")

    async def scenario() -> None:
        contexts: list[dict[str, Any]] = []
        loop = asyncio.get_running_loop()
        handler = loop.get_exception_handler()
        loop.set_exception_handler(lambda _, context: contexts.append(context))
        server = await loop.create_unix_server(lambda: UnixTakeover(Recorder), path)
        with socket.socket(socket.AF_UNIX) as early:
            early.connect(path)
            early.setblocking(False)
            with room_for_descriptors(1):
                assert await loop.sock_recv(early, 100) == b""
        assert "a connection to a Unix socket was refused" in {
            context["message"] for context in contexts
        }
        server.close()
        await server.wait_closed()
        loop.set_exception_handler(handler)

    run(scenario)


def test_more_clients_than_the_queue_holds(run: Run, tmp_path: Path) -> None:
    path = str(tmp_path / "socket")

    async def scenario() -> None:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            listener.listen(1)
            listener.setblocking(False)
            clients = [Recorder() for _ in range(5)]
            connecting = [asyncio.create_task(open_unix_transport(c, path)) for c in clients]
            waiting = asyncio.create_task(open_unix_transport(Recorder(), path))
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
            await open_unix_transport(Recorder(), path)
        with socket.socket(socket.AF_UNIX) as left_behind:
            left_behind.bind(path)
        with pytest.raises(ConnectionRefusedError, match="socket'"):
            await open_unix_transport(Recorder(), path)
        with pytest.raises(OSError, match="too long"):
            await open_unix_transport(Recorder(), path * 10)

    run(scenario)


def test_cancelled_as_it_is_connected(run: Run, tmp_path: Path) -> None:
    path = str(tmp_path / "socket")

    async def scenario() -> None:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            listener.listen()
            client = Recorder()
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
