from __future__ import annotations

import asyncio
import logging
import socket

import pytest

from tests.conftest import Certificates
from tests.example_commands import Repeat, Text, Wait, example_router
from tests.gate import Gate
from tests.peers import HOST, LogCapture, port_of, raw_client, until
from typed_amp import (
    Connection,
    Limits,
    RemoteAmpError,
    Router,
    connect,
    serve,
)


async def test_connections_beyond_the_limit_are_told_that_there_is_no_room(log: LogCapture) -> None:
    router = Router(state=dict[str, str])
    joined: list[object] = []

    @router.responder(Repeat)
    async def repeat(command: Repeat) -> Text:
        return Text(text=command.text)

    @router.on_connect
    async def note(connection: Connection[dict[str, str]]) -> None:
        joined.append(connection)

    async with serve(router, HOST, 0, max_connections=1) as server:
        async with connect(HOST, port_of(server)) as first:
            assert await first.call(Repeat(text="a")) == Text(text="a")
            async with connect(HOST, port_of(server)) as second:
                with pytest.raises(RemoteAmpError, match="BUSY: this server has as many"):
                    await second.call(Repeat(text="b"))
                assert len(server.connections) == 1
                await second.wait_closed()  # which the server sees to
            assert await first.call(Repeat(text="c")) == Text(text="c")
        await until(lambda: not server._connections)
        async with connect(HOST, port_of(server)) as third:
            assert await third.call(Repeat(text="d")) == Text(text="d")
    assert len(joined) == 2
    (line,) = log.lines(logging.WARNING)
    assert "1 turned away, since there are as many as max_connections=1 allows" in line


async def test_far_beyond_the_limit_they_are_closed_at_once(log: LogCapture) -> None:
    async with (
        serve(example_router(), HOST, 0, max_connections=1) as server,
        raw_client(server),
        raw_client(server),
    ):
        await until(lambda: len(server._connections) == 2)
        async with raw_client(server) as last:
            assert await last.is_at_end()
            assert len(server._connections) == 2
    assert len(log.lines(logging.WARNING)) == 1  # however many there are


async def test_responders_of_all_connections_together_are_bounded(log: LogCapture) -> None:
    gate = Gate()
    async with (
        serve(gate.router, HOST, 0, max_total_requests=3) as server,
        connect(HOST, port_of(server)) as first,
        connect(HOST, port_of(server)) as second,
    ):
        calls = [asyncio.create_task(first.call(Wait(key=key))) for key in range(3)]
        await gate.holds(3)
        with pytest.raises(RemoteAmpError, match="BUSY: the server has as much to do as it may"):
            await second.call(Repeat(text="ab"))
        gate.waiting[0].set_result("done")
        assert await calls[0] == Text(text="done")
        assert await second.call(Repeat(text="ab")) == Text(text="ab")
        for waiting in (1, 2):
            gate.waiting[waiting].set_result("")
        await asyncio.gather(*calls)
    assert "max_total_requests" in log.only_line()


async def test_a_server_needs_room_for_one() -> None:
    with pytest.raises(ValueError, match="max_connections must be at least 1, not 0"):
        await serve(Router(), HOST, 0, max_connections=0)


async def test_handshake_has_its_time(certificates: Certificates) -> None:
    limits = Limits(handshake_timeout=0.05)
    context = certificates.server
    async with (
        serve(example_router(), HOST, 0, ssl=context, limits=limits) as server,
        raw_client(server) as peer,
    ):
        assert await peer.is_at_end()  # since it was silent


async def test_a_client_waits_no_longer_for_a_handshake(certificates: Certificates) -> None:
    context = certificates.client
    limits = Limits(handshake_timeout=0.05)
    with socket.create_server((HOST, 0)) as silent, pytest.raises(OSError, match="handshake"):
        await connect(*silent.getsockname(), ssl=context, limits=limits)
