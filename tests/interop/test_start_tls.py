"""StartTLS: whoever calls, who was connected to is TLS's server."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

import pytest

from tests.interop import commands
from tests.interop.peers import Certificates, Session, TwistedProcess, common_name, router
from typed_amp import Connection, ConnectionLostError, Router, StartTLS, connect, serve

pytestmark = pytest.mark.usefixtures("nothing_left")

VALUE = b"x" * 60_000
CLIENT, SERVER = ssl.Purpose.SERVER_AUTH, ssl.Purpose.CLIENT_AUTH

# For the client and for the server: the certificate that it shows, and who it verifies by.
MODES = {
    "nothing verified": (("", ""), ("server", "")),
    "the server verified": (("", "authority"), ("server", "")),
    "both verified": (("client", "authority"), ("server", "authority")),
}
modes = pytest.mark.parametrize(("client", "server"), MODES.values(), ids=MODES)
Side = tuple[str, str]


def options(side: Side) -> dict[str, str]:
    return dict(zip(("certificate", "authority"), side, strict=True))


def with_start_tls(context: ssl.SSLContext) -> Router[Session]:
    secured: Router[Session] = Router(state=Session)
    secured.include(router)

    @secured.responder(StartTLS)
    async def start_tls(command: StartTLS) -> ssl.SSLContext:
        return context

    return secured


def echoes(connection: Connection[Any]) -> list[asyncio.Task[Any]]:
    return [
        asyncio.create_task(connection.call(commands.EchoString(value=VALUE))) for _ in range(50)
    ]


async def assert_answered(calls: list[asyncio.Task[Any]]) -> None:
    assert all(answer.value == VALUE for answer in await asyncio.gather(*calls))


def shown(connection: Connection[Any]) -> str | None:
    """Give the name in the certificate that Twisted showed and we have verified, if any."""
    return common_name(connection) if connection.peer_certificate else None


@modes
async def test_our_client_calls(
    client: Side, server: Side, certificates: Certificates, twisted_server: TwistedProcess
) -> None:
    context = certificates.for_start_tls(CLIENT, *client)
    async with connect("localhost", twisted_server.places["tcp"], router=router) as connection:
        await connection.call(commands.PrepareTLS(**options(server)))
        before = echoes(connection)
        beginning = asyncio.create_task(connection.start_tls(context))
        await asyncio.sleep(0)
        after = echoes(connection)
        await beginning
        await assert_answered([*before, *after])
        assert (await connection.call(commands.Bounce(left=9))).value == 10
        assert shown(connection) == ("server" if client[1] else None)
        if server[1]:
            assert (await connection.call(commands.WhoAmI())).value == "client"


@modes
async def test_the_twisted_server_calls(
    client: Side, server: Side, certificates: Certificates, twisted_server: TwistedProcess
) -> None:
    secured = with_start_tls(certificates.for_start_tls(CLIENT, *client))
    async with connect("localhost", twisted_server.places["tcp"], router=secured) as connection:
        before = echoes(connection)
        await connection.call(commands.BeginTLS(**options(server)))
        after = echoes(connection)
        await assert_answered([*before, *after])
        assert (await connection.call(commands.Bounce(left=9))).value == 10
        # By now its call for TLS has come.
        assert connection._link.transport.get_extra_info("ssl_object") is not None
        assert shown(connection) == ("server" if client[1] else None)


@modes
async def test_the_twisted_client_calls(
    client: Side, server: Side, certificates: Certificates, twisted_client: TwistedProcess
) -> None:
    secured = with_start_tls(certificates.for_start_tls(SERVER, *server))
    async with serve(secured, "127.0.0.1", 0) as listening:
        where = {"transport": "tcp", "port": listening.addresses[0][1]}
        outcome = await twisted_client.play("start_tls", where, **options(client))
        assert outcome == {"encrypted": True, "peer": "server"}


@modes
async def test_our_server_calls(
    client: Side, server: Side, certificates: Certificates, twisted_client: TwistedProcess
) -> None:
    connected: asyncio.Queue[Connection[Session]] = asyncio.Queue()
    own_router: Router[Session] = Router(state=Session)
    own_router.include(router)
    own_router.on_connect(connected.put)
    context = certificates.for_start_tls(SERVER, *server)
    async with serve(own_router, "127.0.0.1", 0) as listening, asyncio.TaskGroup() as tasks:
        where = {"transport": "tcp", "port": listening.addresses[0][1]}
        playing = tasks.create_task(twisted_client.play("be_secured", where, **options(client)))
        async with await connected.get() as connection:
            before = echoes(connection)
            beginning = asyncio.create_task(connection.start_tls(context))
            await asyncio.sleep(0)
            after = echoes(connection)
            await beginning
            await assert_answered([*before, *after])
            assert (await connection.call(commands.Bounce(left=9))).value == 10
            assert shown(connection) == ("client" if server[1] else None)
            await connection.call(commands.Note(line="the end"))
            # Answered behind the note.
            await connection.call(commands.Ping())
        assert await playing == ["the end"]


# -- Refused by who verifies ----------------------------------------------------------------------


async def test_our_client_refuses_the_twisted_server(
    certificates: Certificates, twisted_server: TwistedProcess
) -> None:
    context = certificates.for_start_tls(CLIENT, "", "stranger")
    async with connect("localhost", twisted_server.places["tcp"]) as connection:
        await connection.call(commands.PrepareTLS(certificate="server"))
        with pytest.raises(ConnectionLostError) as caught:
            await connection.start_tls(context)
        assert isinstance(caught.value.__cause__, ssl.SSLCertVerificationError)


async def test_our_client_refuses_another_name(
    certificates: Certificates, twisted_server: TwistedProcess
) -> None:
    context = certificates.for_start_tls(CLIENT, "", "authority")
    async with connect("localhost", twisted_server.places["tcp"]) as connection:
        await connection.call(commands.PrepareTLS(certificate="server"))
        with pytest.raises(ConnectionLostError) as caught:
            await connection.start_tls(context, server_hostname="example.org")
        assert isinstance(caught.value.__cause__, ssl.SSLCertVerificationError)


async def test_the_twisted_server_refuses_our_client(
    certificates: Certificates, twisted_server: TwistedProcess
) -> None:
    context = certificates.for_start_tls(CLIENT, "client", "authority")
    async with connect("localhost", twisted_server.places["tcp"]) as connection:
        await connection.call(commands.PrepareTLS(certificate="server", authority="stranger"))
        with pytest.raises(ConnectionLostError) as caught:
            # With TLS 1.3 this side is through with the handshake before it is refused.
            await connection.start_tls(context)
            await connection.call(commands.Ping())
        assert isinstance(caught.value.__cause__, ssl.SSLError)


async def test_our_server_refuses_the_twisted_client(
    certificates: Certificates, twisted_client: TwistedProcess
) -> None:
    lost: asyncio.Queue[Connection[Session]] = asyncio.Queue()
    secured = with_start_tls(certificates.for_start_tls(SERVER, "server", "stranger"))
    secured.on_disconnect(lost.put)
    async with serve(secured, "127.0.0.1", 0) as listening:
        where = {"transport": "tcp", "port": listening.addresses[0][1]}
        client = {"certificate": "client", "authority": "authority"}
        assert "error" in await twisted_client.play("start_tls", where, **client)
        await assert_lost_by_tls(await lost.get())


async def test_the_twisted_client_refuses_our_server(
    certificates: Certificates, twisted_client: TwistedProcess
) -> None:
    lost: asyncio.Queue[Connection[Session]] = asyncio.Queue()
    secured = with_start_tls(certificates.for_start_tls(SERVER, "server", ""))
    secured.on_disconnect(lost.put)
    async with serve(secured, "127.0.0.1", 0) as listening:
        where = {"transport": "tcp", "port": listening.addresses[0][1]}
        client = {"certificate": "", "authority": "stranger"}
        assert "error" in await twisted_client.play("start_tls", where, **client)
        await assert_lost_by_tls(await lost.get())


async def assert_lost_by_tls(connection: Connection[Session]) -> None:
    with pytest.raises(ConnectionLostError) as caught:
        await connection.call(commands.Ping())
    assert isinstance(caught.value.__cause__, ssl.SSLError)
