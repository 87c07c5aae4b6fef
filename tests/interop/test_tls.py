"""Certificates: who showed which to whom."""

from __future__ import annotations

import pytest

from tests.interop import commands
from tests.interop.conftest import OurServer
from tests.interop.peers import Certificates, TwistedProcess, common_name, router
from typed_amp import ConnectionLostError, connect, serve


async def test_twisted_server_and_our_client_know_each_other(
    certificates: Certificates, twisted_server: TwistedProcess
) -> None:
    context = certificates.client_context(certificate="client")
    port = twisted_server.places["mutual"]
    async with connect("localhost", port, router=router, ssl=context) as connection:
        assert common_name(connection) == "server"
        assert (await connection.call(commands.WhoAmI())).value == "client"


async def test_twisted_server_refuses_our_client_without_certificate(
    certificates: Certificates, twisted_server: TwistedProcess
) -> None:
    port = twisted_server.places["mutual"]
    async with connect("localhost", port, ssl=certificates.client_context()) as connection:
        with pytest.raises(ConnectionLostError):
            await connection.call(commands.WhoAmI())


async def test_our_server_and_twisted_client_know_each_other(
    certificates: Certificates, twisted_client: TwistedProcess
) -> None:
    context = certificates.server_context(mutual=True)
    async with serve(router, "127.0.0.1", 0, ssl=context) as server:
        where = {"transport": "tls", "port": server.addresses[0][1], "certificate": "client"}
        ours, back = await twisted_client.call(where, ("WhoAmI", {}), ("Introduce", {}))
        assert ours == {"answer": {"value": "client"}}
        assert back == {"answer": {"value": "server"}}


async def test_our_server_refuses_twisted_client_without_certificate(
    certificates: Certificates, twisted_client: TwistedProcess
) -> None:
    context = certificates.server_context(mutual=True)
    async with serve(router, "127.0.0.1", 0, ssl=context) as server:
        where = {"transport": "tls", "port": server.addresses[0][1]}
        (refused,) = await twisted_client.call(where, ("WhoAmI", {}))
        assert "error" in refused


async def test_no_certificate_from_a_client_that_is_asked_for_none(
    our_server: OurServer, twisted_client: TwistedProcess
) -> None:
    await twisted_client.call(our_server.where, ("EchoInteger", {"value": 1}))
    connection = await our_server.connected.get()
    assert connection.peer_certificate is None
