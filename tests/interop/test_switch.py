"""From AMP to another protocol on the same connection, bytes that follow at once included."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.interop import commands
from tests.interop.conftest import OurServer
from tests.interop.peers import Session, TwistedProcess, router
from tests.programs import PATIENCE
from typed_amp import Connection, ConnectionLostError, Router, UnknownRemoteError, serve

pytestmark = pytest.mark.usefixtures("nothing_left")


class Shouting(asyncio.Protocol):
    """The same as Twisted's."""

    def __init__(self) -> None:
        self.received = b""
        self.enough = asyncio.Event()
        self.lost = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(b"we are here\n")

    def data_received(self, data: bytes) -> None:
        self.received += data
        for line in data.splitlines(keepends=True):
            if not line.isupper():
                self.transport.write(line.upper())
        if b"WE ARE HERE\n" in self.received:
            self.enough.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()


async def test_we_call(connection: Connection[Session]) -> None:
    waiting = asyncio.create_task(connection.call(commands.Wait()))
    await asyncio.sleep(0)
    transport, protocol = await connection.switch_protocol(
        commands.SwitchToShouting(outcome="agreed"), Shouting
    )
    async with asyncio.timeout(PATIENCE):
        await protocol.enough.wait()
    assert protocol.received == b"twisted is here\nWE ARE HERE\n"
    with pytest.raises(ConnectionLostError, match="has switched to another protocol"):
        await waiting
    transport.close()
    await protocol.lost.wait()


async def test_we_call_and_are_refused(connection: Connection[Session]) -> None:
    with pytest.raises(commands.RefusedError, match="no, é"):
        await connection.switch_protocol(
            commands.SwitchToShouting(outcome="RefusedError"), Shouting
        )
    assert (await connection.call(commands.EchoInteger(value=1))).value == 1


async def test_we_call_and_are_refused_in_an_undeclared_way(
    connection: Connection[Session],
) -> None:
    with pytest.raises(UnknownRemoteError):
        await connection.switch_protocol(commands.SwitchToShouting(outcome="ValueError"), Shouting)
    await connection.wait_closed()  # as Twisted does then


@pytest.fixture
async def switching_server() -> Any:
    protocols: asyncio.Queue[Shouting] = asyncio.Queue()
    switching: Router[Session] = Router(state=Session)
    switching.include(router)

    @switching.responder(commands.SwitchToShouting)
    async def switch(command: commands.SwitchToShouting) -> asyncio.Protocol:
        if command.outcome == "RefusedError":
            raise commands.RefusedError("no")
        if command.outcome != "agreed":
            raise ValueError("no")
        protocol = Shouting()
        protocols.put_nowait(protocol)
        return protocol

    async with serve(switching, "127.0.0.1", 0) as server:
        yield {"transport": "tcp", "port": server.addresses[0][1]}, protocols, server


async def test_twisted_calls(switching_server: Any, twisted_client: TwistedProcess) -> None:
    where, protocols, server = switching_server
    outcome = await twisted_client.play("switch", where, outcome="agreed")
    assert outcome == {"received": "we are here\nTWISTED IS HERE\n"}
    protocol = await protocols.get()
    await protocol.lost.wait()
    assert protocol.received == b"twisted is here\nWE ARE HERE\n"
    assert not server.connections


@pytest.mark.parametrize(
    ("outcome", "error"),
    [("RefusedError", "RefusedError"), ("ValueError", "UnknownRemoteError")],
    ids=["declared", "undeclared"],
)
async def test_twisted_calls_and_is_refused(
    outcome: str, error: str, switching_server: Any, twisted_client: TwistedProcess
) -> None:
    where, _, _ = switching_server
    refused = await twisted_client.play("switch", where, outcome=outcome)
    assert refused == {"error": error, "after": 1}


async def test_twisted_calls_what_we_do_not_handle(
    our_server: OurServer, twisted_client: TwistedProcess
) -> None:
    refused = await twisted_client.play("switch", our_server.where, outcome="agreed")
    assert refused == {"error": "UnhandledCommand", "after": 1}
