"""A client as its users see it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tests.conftest import Certificates
from tests.example_commands import Repeat, Text, Wait, example_router
from tests.peers import HOST, LogCapture, until
from tests.places import QUICK, place_of
from typed_amp import Client, ClientStatus, Connection, Router, serve_unix


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (("localhost", 8000), "localhost:8000"),
        ((("localhost", 8000),), "localhost:8000"),
        (("/run/socket",), "/run/socket"),
        ((Path("socket"),), "socket"),
        (("\0abstract",), r"\x00abstract"),
        (([("::1", 1), "./socket", Path("/x")],), "[::1]:1, ./socket, /x"),
        (((("a", 1), ("b", 2)),), "a:1, b:2"),
    ],
    ids=str,
)
def test_addresses(arguments: Any, shown: str) -> None:
    assert repr(Client(*arguments)) == f"<Client of {shown}, connecting>"


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        (("localhost",), {}, ValueError, r"^'localhost' is no address: a host needs a port"),
        ((["localhost"],), {}, ValueError, r"a Unix socket in the current directory is './local"),
        (([],), {}, ValueError, r"^a client needs at least one address"),
        (("localhost", 0), {}, ValueError, r"^there is no port 0 to connect to at localhost"),
        (("localhost", 65_536), {}, ValueError, r"^there is no port 65536"),
        (("localhost", "80"), {}, TypeError, r"^an address is \(host, port\) or the path"),
        (([("a", 1, 2)],), {}, TypeError, r"^an address is \(host, port\) or the path"),
        (("a", 1), {"limit": 1}, TypeError, r"^no such option: limit\. There are limits"),
        (("a", 1), {"attempts": 0}, ValueError, r"^attempts must be positive, or None, not 0"),
        (("a", 1), {"call_timeout": -1}, ValueError, r"^call_timeout must be positive"),
        (("a", 1), {"connect_timeout": 0}, ValueError, r"^connect_timeout must be positive"),
        (("/x",), {"ssl": True}, ValueError, r"^TLS over a Unix socket needs server_hostname"),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused(
    arguments: Any, options: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        Client(*arguments, **options)


def test_shuffled() -> None:
    addresses = [(f"{number:03}", 1) for number in range(100)]
    assert Client(addresses)._addresses == addresses
    shuffled = Client(addresses, shuffle=True)._addresses
    assert shuffled != addresses
    assert sorted(map(str, shuffled)) == list(map(str, addresses))


@pytest.mark.usefixtures("nothing_left")
async def test_nothing_stays_of_it() -> None:
    async with place_of(example_router()) as place:
        for _ in range(3):
            async with Client(HOST, place.port, backoff=QUICK) as client:
                assert await client.call_remote(Repeat, text="ab", times=2) == Text(text="abab")
        await until(lambda: not place.connections)


async def test_the_server_may_call_and_the_router_has_its_state() -> None:
    server_router, client_router = example_router(), Router(state=list[str])

    @client_router.responder(Repeat)
    async def repeat(command: Repeat, connection: Connection[list[str]]) -> Text:
        connection.state.append(command.text)
        return Text(text=f"{len(connection.state)}")

    @server_router.responder(Wait)
    async def wait(command: Wait, connection: Connection) -> Text:
        return await connection.call(Repeat(text="x"))

    async with (
        place_of(server_router) as place,
        Client(HOST, place.port, backoff=QUICK, router=client_router) as client,
    ):
        assert await client.call(Wait()) == Text(text="1")
        assert await client.call(Wait()) == Text(text="2")
        place.cut()
        await until(lambda: client.connection is None)
        assert await client.call(Wait()) == Text(text="1")  # a state for each connection


async def test_tls_over_a_unix_socket(certificates: Certificates, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    async with (
        serve_unix(example_router(), path, ssl=certificates.server),
        Client(path, ssl=certificates.client, server_hostname="localhost") as client,
    ):
        assert await client.call(Repeat(text="ab")) == Text(text="ab")
        assert client.connection is not None
        assert client.connection.peer_certificate is not None


async def test_counters_are_of_all_its_connections() -> None:
    async with (
        place_of(example_router()) as place,
        Client(HOST, place.port, backoff=QUICK) as client,
    ):
        assert await client.call(Repeat(text="ab")) == Text(text="ab")
        sent = client.counters.bytes_sent
        place.cut()
        await until(lambda: client.connection is None)
        assert await client.call(Repeat(text="ab")) == Text(text="ab")
        await until(lambda: client.counters.connections == 1)
        assert client.counters.calls == 2
        assert client.counters.bytes_sent > sent
    assert client.counters.calls == 2
    assert client.counters.connections == 0


async def test_a_name_that_is_no_field() -> None:
    async with (
        place_of(example_router()) as place,
        Client(HOST, place.port, backoff=QUICK) as client,
    ):
        call: Any = client.call_remote
        with pytest.raises(ValidationError, match="text_\n  Extra inputs are not permitted"):
            await call(Repeat, text="ab", text_="ab")


async def test_what_the_log_tells_to_programs(log: LogCapture) -> None:
    async with place_of(example_router(), is_open=False) as place:
        client = await Client(HOST, place.port, backoff=QUICK, wait_for_first=False)
        async with client:
            await until(lambda: client.state.failures)
            await place.open()
            await client.call(Repeat(text="ab"))
            await place.vanish()
            await until(lambda: client.state.status is ClientStatus.WAITING)
    records = [vars(each) for each in log.records if hasattr(each, "amp_server")]
    assert {each["amp_server"] for each in records} == {f"{HOST}:{place.port}"}
    events = [each["amp_event"] for each in records]
    assert events[0] == "connect_failed"
    assert events[events.index("connected") + 1] == "lost"
