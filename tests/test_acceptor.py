from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import Certificates
from tests.example_commands import Repeat, Text, example_router
from tests.leftovers import descriptors
from tests.peers import HOST, LogCapture, port_of, until
from tests.test_unix_transport import (
    LOOPS,
    UnixRecorder,
    open_file,
    room_for_descriptors,
    run_in,
    sent_with_rights,
)
from typed_amp import connect, connect_unix, serve, serve_unix
from typed_amp.acceptor import Acceptor
from typed_amp.listening import listen_tcp, listen_unix
from typed_amp.unix_socket import open_unix_transport

Run = Callable[[Callable[[], Awaitable[None]]], None]


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Iterator[Run]:
    """Run a coroutine in each event loop; it must leave no descriptor open."""
    with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
        runner.run(asyncio.sleep(0))  # what the loop keeps open for the life of the process
    before = descriptors()
    yield lambda scenario: run_in(request.param, scenario)
    assert descriptors() == before


def accepting(
    sockets: list[socket.socket], protocol_factory: Callable[[], asyncio.Protocol]
) -> Acceptor:
    acceptor = Acceptor(
        sockets,
        protocol_factory,
        context=None,
        handshake_timeout=None,
        max_handshakes=1,
        on_idle=lambda: None,
    )
    acceptor.begin()
    return acceptor


def test_what_came_before_a_connection_was_accepted_is_not_lost(run: Run, tmp_path: Path) -> None:
    path = str(tmp_path / "socket")

    async def scenario() -> None:
        accepted = UnixRecorder()
        with socket.socket(socket.AF_UNIX) as early, open_file() as file:
            acceptor = accepting([listen_unix(path)], lambda: accepted)
            early.connect(path)
            early.send(b"abc")
            sent_with_rights(early, b"def", [file])
            early.shutdown(socket.SHUT_WR)
            await until(accepted.lost.done)
        assert accepted.received == b"abcdef"
        assert accepted.events[0] == "made"
        assert accepted.events[-2:] == ["eof", "lost"]
        assert len(accepted.descriptors) == 1
        accepted.close_descriptors()
        assert accepted.transport.get_extra_info("sockname") == path
        acceptor.close()

    run(scenario)


def test_connections_stay_open_when_no_more_are_accepted(run: Run, tmp_path: Path) -> None:
    path = str(tmp_path / "socket")

    async def scenario() -> None:
        accepted, client = UnixRecorder(), UnixRecorder()
        acceptor = accepting([listen_unix(path)], lambda: accepted)
        transport = await open_unix_transport(client, path)
        assert client.events == ["made"]
        assert transport.get_extra_info("peername") == path
        await until(lambda: accepted.events)
        acceptor.close()
        for _ in range(10):
            transport.write(b"x")
            await until(lambda: accepted.received)
            accepted.received = client.received = b""
            accepted.transport.write(b"y")
            await until(lambda: client.received)
        transport.close()
        await asyncio.gather(client.lost, accepted.lost)

    run(scenario)


def test_a_crowd_leaves_others_their_turn(run: Run) -> None:
    async def scenario() -> None:
        accepted: list[UnixRecorder] = []

        def protocol_factory() -> UnixRecorder:
            accepted.append(UnixRecorder())
            return accepted[-1]

        sockets = await listen_tcp(HOST, 0)
        clients = [socket.create_connection(sockets[0].getsockname()) for _ in range(40)]
        acceptor = accepting(sockets, protocol_factory)
        most = 0
        while len(accepted) < len(clients):
            before = len(accepted)
            await asyncio.sleep(0)
            most = max(most, len(accepted) - before)
        assert most <= 8  # those of two turns at the most
        await until(lambda: acceptor.is_idle)
        acceptor.close()
        for client in clients:
            client.close()
        for each in accepted:
            await each.lost

    run(scenario)


def test_who_begins_a_handshake_and_goes_no_further_keeps_nobody_out(
    run: Run, certificates: Certificates, log: LogCapture
) -> None:
    async def scenario() -> None:
        async with serve(
            example_router(), HOST, 0, ssl=certificates.server, max_handshakes=5
        ) as server:
            port = port_of(server)
            stalled = [socket.create_connection((HOST, port)) for _ in range(12)]
            stalled[0].settimeout(10)
            await asyncio.to_thread(stalled[0].recv, 1)  # which ends when it is given up
            async with connect(HOST, port, ssl=certificates.client) as client:
                assert await client.call(Repeat(text="a")) == Text(text="a")
            for each in stalled:
                each.close()

    run(scenario)
    lines = [line for line in log.lines(logging.INFO) if "max_handshakes=5" in line]
    assert 7 <= len(lines) <= 8
    assert "the TLS handshake failed: as many as max_handshakes=5 are under way" in lines[0]


async def test_a_server_that_closes_gives_up_handshakes(certificates: Certificates) -> None:
    async with serve(example_router(), HOST, 0, ssl=certificates.server) as server:
        with socket.create_connection((HOST, port_of(server))) as stalled:
            await until(lambda: not server._acceptor.is_idle)
            async with asyncio.timeout(5):  # of the ten that the handshake has
                server.close()
                await server.wait_closed()
            assert stalled.recv(1) == b""


async def test_a_handshake_that_fails_is_told_with_its_address(
    certificates: Certificates, log: LogCapture
) -> None:
    async with serve(example_router(), HOST, 0, ssl=certificates.server) as server:
        with socket.create_connection((HOST, port_of(server))) as wrong:
            wrong.send(b"GET / HTTP/1.1\r\n\r\n")
            name = f"{HOST}:{wrong.getsockname()[1]}"
            await until(lambda: len(log.lines(logging.INFO)) > 0)
        with pytest.raises(ssl.SSLError):
            await connect(HOST, port_of(server), ssl=ssl.create_default_context())
        async with connect(HOST, port_of(server), ssl=certificates.client) as client:
            assert await client.call(Repeat(text="a")) == Text(text="a")
    line = log.lines(logging.INFO)[0]
    assert line.startswith(f"{name}: the TLS handshake failed: [SSL")
    assert log.lines() == []  # no warning: anybody may cause it


async def test_a_server_without_descriptors_goes_on_when_it_has_some(
    log: LogCapture, tmp_path: Path
) -> None:
    path = tmp_path / "socket"
    async with serve_unix(example_router(), path), connect_unix(path) as client:
        assert await client.call(Repeat(text="a")) == Text(text="a")
        with socket.socket(socket.AF_UNIX) as early:
            with room_for_descriptors(0):
                early.connect(str(path))
                await until(lambda: log.lines())
                # Who is there already is served as before.
                assert await client.call(Repeat(text="a")) == Text(text="a")
            async with connect_unix(path) as late:
                assert await late.call(Repeat(text="a")) == Text(text="a")
    assert "no connection can be accepted for 1 s: [Errno 24] Too many" in log.only_line()


async def test_there_must_be_room_for_a_handshake() -> None:
    with pytest.raises(ValueError, match="max_handshakes must be at least 1, not 0"):
        await serve(example_router(), HOST, 0, max_handshakes=0)


@pytest.mark.parametrize("turns", range(8))
def test_a_server_may_close_at_any_moment_of_a_beginning(run: Run, turns: int) -> None:
    async def scenario() -> None:
        server = await serve(example_router(), HOST, 0)
        with socket.create_connection((HOST, port_of(server))):
            for _ in range(turns):
                await asyncio.sleep(0)
            server.close()
            async with asyncio.timeout(10):
                await server.wait_closed()

    run(scenario)
