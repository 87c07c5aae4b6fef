from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest
from pydantic import AliasChoices, AliasPath, Field, ValidationError, create_model, model_validator

from tests.conftest import Certificates
from tests.example_commands import Repeat, Text, example_router
from tests.peers import HOST, LogCapture, hooked_router, port_of, raw_client, until
from tests.test_unix_transport import LOOPS, run_in
from typed_amp import (
    Command,
    Connection,
    ConnectionLostError,
    Router,
    UnhandledCommandError,
    connect,
    connect_unix,
    serve,
    serve_unix,
)


async def says_abcabc(connection: Connection[Any]) -> bool:
    return await connection.call(Repeat(text="abc", times=2)) == Text(text="abcabc")


async def test_awaited() -> None:
    async with serve(example_router(), HOST, 0) as server:
        connection = await connect(HOST, port_of(server))
        assert await says_abcabc(connection)
        connection.close()
        await connection.wait_closed()
        assert connection.is_closed


async def test_entered() -> None:
    async with serve(example_router(), HOST, 0) as server:
        async with connect(HOST, port_of(server)) as connection:
            assert not connection.is_closed
            assert await says_abcabc(connection)
        assert connection.is_closed


async def test_closed_though_the_block_fails() -> None:
    async with serve(example_router(), HOST, 0) as server:
        opened: list[Connection] = []
        with pytest.raises(ZeroDivisionError):
            async with connect(HOST, port_of(server)) as connection:
                opened.append(connection)
                raise ZeroDivisionError
        assert opened[0].is_closed


async def test_call_remote() -> None:
    async with (
        serve(example_router(), HOST, 0) as server,
        connect(HOST, port_of(server)) as connection,
    ):
        assert await connection.call_remote(Repeat, text="ab", times=2) == Text(text="abab")
        with pytest.raises(ValueError, match="times"):
            await connection.call_remote(Repeat, text="ab", times=-1)


class Loose(Command, extra="allow"):
    pass


choices = AliasChoices("color", AliasPath("hues", 0))
Renamed = create_model(
    "Renamed", __base__=Command, colour=(str, Field(default="", validation_alias=choices))
)


class Rewritten(Command):
    size: int = 0

    @model_validator(mode="before")
    @classmethod
    def rename(cls, data: dict[str, Any]) -> dict[str, Any]:
        return {"size": data.get("length", 0)}


class Own(Command):
    size: int = 0

    def __init__(self, *, length: int) -> None:
        fields: dict[str, Any] = {"size": length}
        super().__init__(**fields)


def of_length(length: int) -> Command:
    return Own(length=length)


async def test_call_remote_refuses_what_is_no_field() -> None:
    async with (
        serve(example_router(), HOST, 0) as server,
        connect(HOST, port_of(server)) as connection,
    ):
        call: Any = connection.call_remote
        unknown = r"^2 validation errors for Repeat\ntext_\n  Extra inputs .*\nb\n  Extra inputs"
        with pytest.raises(ValidationError, match=re.compile(unknown, re.DOTALL)):
            await call(Repeat, text="ab", text_="ab", b=1)
        for made, names in (
            (Loose, {"anything": 1}),
            (Renamed, {"color": "red"}),
            (Renamed, {"hues": ["red"]}),
            (Rewritten, {"length": 1}),
            (Own, {"length": 1}),
            (of_length, {"length": 1}),
        ):
            with pytest.raises(UnhandledCommandError):
                await call(made, **names)
        with pytest.raises(ValidationError, match="colors\n  Extra inputs are not permitted"):
            await call(Renamed, colors="red")


@pytest.mark.parametrize("as_text", [True, False])
async def test_unix(tmp_path: Path, as_text: bool) -> None:
    path = tmp_path / "socket"
    async with (
        serve_unix(example_router(), str(path) if as_text else path) as server,
        connect_unix(str(path) if as_text else path) as connection,
    ):
        assert await says_abcabc(connection)
        assert server.addresses == (str(path),)
        assert connection.remote_address == str(path)
        (accepted,) = server.connections
        assert accepted.remote_address == ""  # a client's socket has no path
        assert "a peer without an address" in repr(accepted)


async def test_remote_address() -> None:
    async with (
        serve(example_router(), HOST, 0) as server,
        connect(HOST, port_of(server)) as connection,
    ):
        assert await says_abcabc(connection)
        (accepted,) = server.connections
        assert connection.remote_address == server.addresses[0]
        assert accepted.remote_address is not None
        assert accepted.remote_address[0] == HOST
        assert repr(connection) == f"<Connection {HOST}:{port_of(server)}, open>"


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
async def test_ipv6() -> None:
    async with (
        serve(example_router(), "::1", 0) as server,
        connect("::1", port_of(server)) as connection,
    ):
        assert await says_abcabc(connection)
        assert connection.remote_address == ("::1", port_of(server))
        assert repr(connection) == f"<Connection [::1]:{port_of(server)}, open>"
        assert repr(server) == f"<Server at [::1]:{port_of(server)}, 1 connections>"


async def test_by_name() -> None:
    async with (
        serve(example_router(), HOST, 0) as server,
        connect("localhost", port_of(server)) as connection,
    ):
        assert await says_abcabc(connection)


async def test_nobody_listens() -> None:
    async with serve(Router(), HOST, 0) as server:
        port = port_of(server)
    with pytest.raises(ConnectionRefusedError):
        await connect(HOST, port)


async def test_no_such_socket(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await connect_unix(tmp_path / "nothing")


# -- TLS ---------------------------------------------------------------------------------------


async def test_no_certificates_without_tls() -> None:
    async with (
        serve(example_router(), HOST, 0) as server,
        connect(HOST, port_of(server)) as connection,
    ):
        assert await says_abcabc(connection)
        assert connection.peer_certificate is None
        assert server.connections[0].peer_certificate is None


def common_name(certificate: dict[str, Any] | None) -> str:
    assert certificate is not None
    return str(dict(pair for (pair,) in certificate["subject"])["commonName"])


async def test_tls_shows_the_server(certificates: Certificates) -> None:
    async with (
        serve(example_router(), HOST, 0, ssl=certificates.server) as server,
        connect(
            HOST, port_of(server), ssl=certificates.client, server_hostname="localhost"
        ) as connection,
    ):
        assert await says_abcabc(connection)
        assert common_name(connection.peer_certificate) == "the server"
        assert server.connections[0].peer_certificate is None
        assert connection.remote_address == server.addresses[0]


async def test_mutual_tls_shows_both(certificates: Certificates) -> None:
    router = example_router()
    names: list[str] = []

    @router.on_connect
    async def check(connection: Connection) -> None:
        names.append(common_name(connection.peer_certificate))

    async with (
        serve(router, HOST, 0, ssl=certificates.strict_server) as server,
        connect(HOST, port_of(server), ssl=certificates.named_client) as connection,
    ):
        assert await says_abcabc(connection)
        assert names == ["the client"]
        assert common_name(connection.peer_certificate) == "the server"
    assert common_name(connection.peer_certificate) == "the server"  # known afterwards too


async def test_certificate_that_nobody_verified(certificates: Certificates) -> None:
    trusting = ssl.create_default_context()
    trusting.check_hostname = False
    trusting.verify_mode = ssl.CERT_NONE
    async with (
        serve(example_router(), HOST, 0, ssl=certificates.server) as server,
        connect(HOST, port_of(server), ssl=trusting) as connection,
    ):
        assert await says_abcabc(connection)
        assert connection.peer_certificate == {}


async def test_tls_over_unix(certificates: Certificates, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    async with (
        serve_unix(example_router(), path, ssl=certificates.strict_server) as server,
        connect_unix(
            path, ssl=certificates.named_client, server_hostname="localhost"
        ) as connection,
    ):
        assert await says_abcabc(connection)
        assert common_name(connection.peer_certificate) == "the server"
        assert common_name(server.connections[0].peer_certificate) == "the client"


async def test_system_authorities_do_not_know_the_server(certificates: Certificates) -> None:
    async with serve(Router(), HOST, 0, ssl=certificates.server) as server:
        with pytest.raises(ssl.SSLCertVerificationError):
            await connect(HOST, port_of(server), ssl=True)
        assert not server.connections


async def test_wrong_name(certificates: Certificates) -> None:
    async with serve(Router(), HOST, 0, ssl=certificates.server) as server:
        with pytest.raises(ssl.SSLCertVerificationError):
            await connect(
                HOST, port_of(server), ssl=certificates.client, server_hostname="elsewhere"
            )


async def test_client_without_the_certificate_that_is_asked_for(certificates: Certificates) -> None:
    async with serve(example_router(), HOST, 0, ssl=certificates.strict_server) as server:
        # With TLS 1.3 the client is through with the handshake before the server refuses it.
        with pytest.raises((ssl.SSLError, ConnectionError)):
            async with connect(HOST, port_of(server), ssl=certificates.client) as connection:
                await says_abcabc(connection)
        assert not server.connections


async def test_client_that_speaks_no_tls(certificates: Certificates) -> None:
    async with serve(example_router(), HOST, 0, ssl=certificates.server) as server:
        async with connect(HOST, port_of(server)) as connection:
            with pytest.raises(ConnectionLostError):
                await says_abcabc(connection)
        assert not server.connections
        async with connect(HOST, port_of(server), ssl=certificates.client) as connection:
            assert await says_abcabc(connection)


async def test_large_values_over_tls(certificates: Certificates) -> None:
    async with (
        serve(example_router(), HOST, 0, ssl=certificates.server) as server,
        connect(HOST, port_of(server), ssl=certificates.client) as connection,
    ):
        calls = [connection.call(Repeat(text="x" * 60, times=1000)) for _ in range(100)]
        assert {len(answer.text) for answer in await asyncio.gather(*calls)} == {60_000}


async def test_violation_over_tls_ends_the_connection(
    certificates: Certificates, log: LogCapture
) -> None:
    async with serve(example_router(), HOST, 0, ssl=certificates.server) as server:
        reader, writer = await asyncio.open_connection(
            HOST, port_of(server), ssl=certificates.client
        )
        writer.write(b"GET / HTTP/1.1\r\n" * 10_000)
        assert not await reader.read()
        writer.close()
        assert "closing, since the peer broke the protocol" in log.only_line()
        await until(lambda: not server.connections)


# -- The router's hooks ------------------------------------------------------------------------


class Greet(Command[Text]):
    """Asked by a hook."""


async def test_connect_waits_for_the_hooks() -> None:
    server_router, client_router = example_router(), Router()
    seen: list[str] = []

    @client_router.on_connect
    async def first(connection: Connection) -> None:
        assert await says_abcabc(connection)
        seen.append("first")

    @client_router.on_connect
    async def second(connection: Connection) -> None:
        seen.append("second")

    async with (
        serve(server_router, HOST, 0) as server,
        connect(HOST, port_of(server), router=client_router),
    ):
        assert seen == ["first", "second"]


async def test_failing_hook_fails_connect(log: LogCapture) -> None:
    router = Router()

    @router.on_connect
    async def fail(connection: Connection) -> None:
        raise ZeroDivisionError("no good")

    async with serve(Router(), HOST, 0) as server:
        with pytest.raises(ConnectionLostError, match="no good") as caught:
            await connect(HOST, port_of(server), router=router)
        assert isinstance(caught.value.__cause__, ZeroDivisionError)
        assert "an on_connect hook failed" in log.only_line()
        await until(lambda: not server.connections)


async def test_cancelled_hook_fails_connect() -> None:
    router = Router()

    @router.on_connect
    async def cancelled(connection: Connection) -> None:
        raise asyncio.CancelledError

    async with serve(Router(), HOST, 0) as server:
        with pytest.raises(ConnectionLostError):
            await connect(HOST, port_of(server), router=router)
        await until(lambda: not server.connections)


async def test_hook_that_closes_fails_connect() -> None:
    router = Router()

    @router.on_connect
    async def close(connection: Connection) -> None:
        connection.close()

    async with serve(Router(), HOST, 0) as server:
        with pytest.raises(ConnectionLostError, match="is closed"):
            await connect(HOST, port_of(server), router=router)


async def test_failing_state_fails_connect(log: LogCapture) -> None:
    def fail() -> int:
        raise ZeroDivisionError("no state")

    parted: list[Connection[int]] = []
    router = Router(state=fail)

    @router.on_disconnect
    async def part(connection: Connection[int]) -> None:
        parted.append(connection)

    async with serve(Router(), HOST, 0) as server:
        with pytest.raises(ConnectionLostError, match="no state") as caught:
            await connect(HOST, port_of(server), router=router)
        assert isinstance(caught.value.__cause__, ZeroDivisionError)
        assert "the router's state= failed" in log.only_line()
        assert not parted  # there was no connection to part from
        await until(lambda: not server.connections)


async def test_server_that_goes_during_the_hooks_fails_connect() -> None:
    router = Router()

    @router.on_connect
    async def wait(connection: Connection) -> None:
        await connection.call(Repeat(text="never answered"))

    with socket.socket() as listener:
        listener.bind((HOST, 0))
        listener.listen()
        listener.setblocking(False)
        task = asyncio.create_task(connect_to(listener, router))
        accepted, _ = await asyncio.get_running_loop().sock_accept(listener)
        accepted.close()
        with pytest.raises(ConnectionLostError):
            await task


async def connect_to(listener: socket.socket, router: Router) -> None:
    async with connect(HOST, listener.getsockname()[1], router=router):
        pytest.fail("the hooks never end")


async def test_connect_cancelled_during_the_hooks_leaves_nothing_open() -> None:
    router = Router()
    begun = asyncio.Event()
    ended: list[bool] = []

    @router.on_connect
    async def wait(connection: Connection) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(connection.is_closed)

    async with serve(Router(), HOST, 0) as server:
        task = asyncio.create_task(connect_once(server_port=port_of(server), router=router))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: ended)
        assert ended == [True]
        await until(lambda: not server.connections)


async def connect_once(server_port: int, router: Router) -> None:
    await connect(HOST, server_port, router=router)


async def test_the_server_may_call_its_client() -> None:
    server_router, client_router = Router(), Router()

    @server_router.responder(Greet)
    async def greet(command: Greet, connection: Connection) -> Text:
        answer = await connection.call(Repeat(text="who", times=2))
        return Text(text=answer.text + "?")

    @client_router.responder(Repeat)
    async def repeat(command: Repeat) -> Text:
        return Text(text=command.text * command.times)

    async with (
        serve(server_router, HOST, 0) as server,
        connect(HOST, port_of(server), router=client_router) as connection,
    ):
        assert await connection.call(Greet()) == Text(text="whowho?")


async def test_each_side_has_its_own_state() -> None:
    class Session:
        user = ""

    server_router, client_router = Router(state=Session), Router(state=dict[str, int])

    @server_router.responder(Repeat)
    async def log_in(command: Repeat, connection: Connection[Session]) -> Text:
        before = connection.state.user
        connection.state.user = command.text
        return Text(text=before)

    async with serve(server_router, HOST, 0) as server:
        async with (
            connect(HOST, port_of(server), router=client_router) as first,
            connect(HOST, port_of(server), router=client_router) as second,
        ):
            await first.call(Repeat(text="Ada"))
            await second.call(Repeat(text="Grace"))
            assert await first.call(Repeat(text="")) == Text(text="Ada")
            assert await second.call(Repeat(text="")) == Text(text="Grace")
            first.state["calls"] = 2
            assert second.state == {}
        async with connect(HOST, port_of(server)) as stateless:
            assert stateless.state is None
            async with raw_client(server):
                pass


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("turns", range(1, 12))
def test_whoever_gives_up_connecting_hears_of_the_end(loop: str, turns: int) -> None:
    seen: list[str] = []
    router = hooked_router(seen)

    async def scenario() -> None:
        async with serve(example_router(), HOST, 0) as server:
            connecting = asyncio.ensure_future(connect(HOST, port_of(server), router=router))
            for _ in range(turns):
                await asyncio.sleep(0)
            connecting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                (await connecting).close()
            await until(lambda: not server.connections)
            await until(lambda: seen in ([], ["begun", "ended"]))

    run_in(loop, scenario)
