"""Which connection a client has, and when it makes another."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Certificates
from tests.example_commands import Repeat, Text, Wait, example_router
from tests.peers import HOST, LogCapture, RawPeer, port_of, settled, until
from tests.places import QUICK, SLOW, free_port, place_of
from typed_amp import (
    Client,
    ClientState,
    ClientStatus,
    Connection,
    ConnectionLostError,
    Router,
    serve,
    serve_unix,
)


async def works(client: Client[Any]) -> bool:
    return await client.call(Repeat(text="ab")) == Text(text="ab")


async def is_at(client: Client[Any], status: ClientStatus) -> None:
    async for state in client.states():
        if state.status is status:
            return
    raise AssertionError("it has ended")


async def fails_again(client: Client[Any]) -> None:
    failures = client.state.failures
    await until(lambda: client.state.failures > failures)


def named(name: str) -> Router:
    """Make a router that answers with a name."""
    router = Router()

    @router.responder(Repeat)
    async def repeat(command: Repeat) -> Text:
        return Text(text=name)

    return router


async def name_at(client: Client[Any]) -> str:
    return (await client.call(Repeat(text=""))).text


async def test_it_comes_back_when_the_server_does() -> None:
    async with (
        place_of(example_router()) as place,
        Client(HOST, place.port, backoff=QUICK) as client,
    ):
        for _ in range(3):
            assert await works(client)
            before = client.connection
            await place.vanish()
            await until(lambda: client.connection is None)
            waiting = asyncio.create_task(works(client))
            await fails_again(client)
            assert not waiting.done()
            await place.open()
            assert await waiting
            assert client.connection is not before
            assert len(place.connections) == 1


async def test_what_watchers_see() -> None:
    async with place_of(example_router()) as place:
        client = Client(HOST, place.port, backoff=SLOW, wait_for_first=False)
        assert client.state.status is ClientStatus.CONNECTING
        assert client.state.address == place.address
        assert client.state.error is None
        seen: list[ClientState] = []

        async def watch() -> None:
            seen.extend([state async for state in client.states()])

        watching = asyncio.create_task(watch())
        async with client:
            assert await works(client)
            place.cut()
            await is_at(client, ClientStatus.WAITING)
            assert client.connection is None
        await watching
    statuses = [state.status.value for state in seen]
    assert statuses == ["connecting", "connected", "waiting", "closed"]
    connected, waiting, closed = seen[1:]
    assert connected.address == waiting.address == place.address
    assert connected.failures == 0
    assert waiting.failures == 1
    assert waiting.delay == 3600
    assert str(waiting.error).startswith(f"the connection to {HOST}:{place.port} was lost")
    assert connected.since <= waiting.since <= closed.since
    assert closed.address is None
    assert closed.error is waiting.error
    assert repr(client) == f"<Client of {HOST}:{place.port}, closed>"


async def test_it_may_be_there_before_the_server() -> None:
    async with place_of(example_router(), is_open=False) as place:
        client = Client(HOST, place.port, backoff=QUICK)
        opening = asyncio.create_task(client._opened())
        await until(lambda: client.state.failures > 2)
        assert not opening.done()
        assert isinstance(client.state.error, ConnectionRefusedError)
        await place.open()
        assert await opening is client
        async with client:
            assert await works(client)


async def test_opening_need_not_wait() -> None:
    async with place_of(example_router(), is_open=False) as place:
        client = await Client(HOST, place.port, backoff=QUICK, wait_for_first=False)
        async with client:
            waiting = asyncio.create_task(works(client))
            await until(lambda: client.state.failures)
            await place.open()
            assert await waiting


async def test_addresses_in_their_turn() -> None:
    async with (
        place_of(named("a")) as a,
        place_of(named("b")) as b,
        Client([(HOST, free_port()), a.address, b.address], backoff=QUICK) as client,
    ):
        assert client.state.failures == 1  # the first, where nobody is
        assert await name_at(client) == "a"
        a.cut()
        await until(lambda: client.connection is None)
        assert await name_at(client) == "b"  # the next
        b.cut()
        await until(lambda: client.connection is None)
        assert await name_at(client) == "a"  # round again
        await a.vanish()
        await until(lambda: client.connection is None)
        assert await name_at(client) == "b"
        assert await name_at(client) == "b"  # and there it stays


async def test_tcp_and_unix(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    async with (
        place_of(named("tcp")) as place,
        serve_unix(named("unix"), path) as server,
        Client([path, place.address], backoff=QUICK) as client,
    ):
        assert await name_at(client) == "unix"
        addresses = [client.state.address]
        server.close()
        await server.wait_closed()
        await until(lambda: client.connection is None)
        assert await name_at(client) == "tcp"
        assert [*addresses, client.state.address] == [str(path), place.address]


async def test_on_connect_comes_before_the_calls() -> None:
    events: list[str] = []
    router = Router()

    @router.responder(Repeat)
    async def repeat(command: Repeat) -> Text:
        events.append(command.text)
        return Text(text=command.text)

    async def log_in(connection: Connection) -> None:
        await connection.call(Repeat(text="log in"))
        await settled()

    async with (
        place_of(router) as place,
        Client(HOST, place.port, backoff=QUICK, on_connect=log_in) as client,
    ):
        await name_at(client)
        await place.vanish()
        await until(lambda: client.connection is None)
        calls = [asyncio.create_task(client.call(Repeat(text="call"))) for _ in range(2)]
        await settled()
        await place.open()
        await asyncio.gather(*calls)
    assert events == ["log in", "", "log in", "call", "call"]


FAILURES = [KeyError("token"), ConnectionResetError("gone"), TimeoutError("its own"), None]


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize("failure", FAILURES, ids=repr)
async def test_on_connect_that_fails(failure: Exception | None, log: LogCapture) -> None:
    given: list[Connection] = []

    async def fail_twice(connection: Connection) -> None:
        given.append(connection)
        if len(given) < 3:
            if failure is not None:
                raise failure
            stopped = asyncio.get_running_loop().create_future()
            stopped.cancel()
            await stopped  # cancelled, but not by the client

    async with (
        place_of(example_router()) as place,
        Client(HOST, place.port, backoff=QUICK, on_connect=fail_twice) as client,
    ):
        assert await works(client)
        assert client.connection is given[2]
        await until(lambda: given[0].is_closed and given[1].is_closed)
        assert client.state.failures == 2
    (line,) = log.lines()
    assert line.startswith(f"can't connect to {HOST}:{place.port}: ")
    assert ("Traceback" in line) == isinstance(failure, KeyError)


async def test_on_connect_whose_connection_goes() -> None:
    begun = 0

    async with place_of(example_router()) as place:

        async def cut_once(connection: Connection) -> None:
            nonlocal begun
            begun += 1
            if begun == 1:
                await until(lambda: place.connections)
                place.cut()
                await connection.wait_lost()

        async with Client(HOST, place.port, backoff=QUICK, on_connect=cut_once) as client:
            assert begun == 2
            assert "was lost" in str(client.state.error)
            assert await works(client)


@pytest.mark.usefixtures("nothing_left")
async def test_attempt_that_takes_too_long() -> None:
    begun = 0

    async def hang_once(connection: Connection) -> None:
        nonlocal begun
        begun += 1
        if begun == 1:
            await asyncio.Event().wait()

    async with (
        place_of(example_router()) as place,
        Client(
            HOST, place.port, backoff=QUICK, on_connect=hang_once, connect_timeout=0.1
        ) as client,
    ):
        assert begun == 2
        assert isinstance(client.state.error, TimeoutError)
        assert str(client.state.error) == "no connection within 0.1 seconds"
        assert await works(client)


async def test_peer_that_does_not_begin_tls(certificates: Certificates) -> None:
    with socket.create_server((HOST, 0)) as silent:
        client = Client(
            HOST,
            silent.getsockname()[1],
            ssl=certificates.client,
            connect_timeout=0.05,
            attempts=2,
            backoff=QUICK,
        )
        with pytest.raises(ConnectionLostError, match=r"no connection within 0\.05 seconds"):
            await client


async def test_tls(certificates: Certificates) -> None:
    context = certificates.client
    async with serve(example_router(), HOST, 0, ssl=certificates.server) as server:
        port = port_of(server)
        async with Client(HOST, port, ssl=context, server_hostname="localhost") as client:
            assert await works(client)
            assert client.connection is not None
            assert client.connection.peer_certificate is not None
        # What no attempt mends may be mended at the server's, so it is tried again.
        wrong = Client(HOST, port, ssl=context, server_hostname="other", backoff=QUICK, attempts=3)
        with pytest.raises(ConnectionLostError) as caught:
            await wrong
        assert wrong.state.failures == 3
        assert isinstance(caught.value.__cause__, ssl.SSLCertVerificationError)


@pytest.mark.usefixtures("nothing_left")
async def test_giving_up(log: LogCapture) -> None:
    port = free_port()
    client = Client(HOST, port, backoff=QUICK, attempts=3)
    with pytest.raises(ConnectionLostError, match=r"^open: the client is closed; no") as caught:
        await client
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)
    told = f"can't connect to {HOST}:{port}: "
    notes = caught.value.__notes__
    assert [note.partition(told)[0] for note in notes] == ["failure 1: ", "failure 2: "]
    assert client.is_closed
    assert client.state.status is ClientStatus.CLOSED
    assert client.state.failures == 3
    with pytest.raises(ConnectionLostError, match=r"^Repeat: the client is closed"):
        await works(client)
    with pytest.raises(ConnectionLostError, match=r"^open: the client is closed"):
        await client
    await client.wait_closed()
    first, last = log.lines()
    assert first.startswith(told)
    assert "giving up after 3 failures" in last


async def test_giving_up_wakes_those_who_wait() -> None:
    async with (
        place_of(example_router()) as place,
        Client(HOST, place.port, backoff=QUICK, attempts=3) as client,
    ):
        assert await works(client)
        await place.vanish()
        await until(lambda: client.connection is None)
        calls = [asyncio.create_task(works(client)) for _ in range(3)]
        for result in await asyncio.gather(*calls, return_exceptions=True):
            assert isinstance(result, ConnectionLostError)
            assert isinstance(result.__cause__, ConnectionRefusedError)
        await client.wait_closed()


async def test_a_mistake_is_told_at_once(log: LogCapture) -> None:
    client = Client("a" * 64, 1, backoff=SLOW)  # longer than any part of a name may be
    with pytest.raises(UnicodeError, match="label"):
        await client
    assert client.is_closed
    assert log.only_line().startswith("the client can't go on: ")


async def test_a_server_that_drops_its_clients_is_not_stormed() -> None:
    router = example_router()

    @router.on_connect
    async def drop(connection: Connection) -> None:
        connection.close()

    async with place_of(router) as place:
        client = await Client(HOST, place.port, backoff=SLOW, wait_for_first=False)
        async with client:
            await is_at(client, ClientStatus.WAITING)
            assert client.state.failures == 1
            assert client.state.delay == 3600


async def test_what_is_logged(log: LogCapture) -> None:
    async with (
        place_of(example_router()) as place,
        Client(HOST, place.port, backoff=QUICK) as client,
    ):
        where = f"{HOST}:{place.port}"
        await place.vanish()
        await until(lambda: client.state.failures > 5)
        await place.open()
        await works(client)
    lines = [line.partition(";")[0] for line in log.lines(logging.INFO)]
    assert lines[0].startswith(f"connected to {where}, after 0.")
    assert lines[1].startswith(f"the connection to {where} was lost: ")
    assert all(line.startswith(f"can't connect to {where}: ") for line in lines[2:-1])
    assert lines[-1].startswith(f"connected to {where}, after 0.")
    assert len(lines) > 7
    assert log.only_line().startswith(lines[1])  # one warning, however long it takes
    assert f"; trying {where} in 0.0" in log.only_line()


class Gate:
    """A router whose Wait goes on until a test says so."""

    def __init__(self) -> None:
        self.router = example_router()
        self.waiting: list[asyncio.Future[str]] = []

        @self.router.responder(Wait)
        async def wait(command: Wait) -> Text:
            self.waiting.append(asyncio.get_running_loop().create_future())
            return Text(text=await self.waiting[-1])


async def test_a_connection_whose_peer_closes_is_left_and_finished() -> None:
    a, b = Gate(), Gate()
    async with (
        place_of(a.router) as at_a,
        place_of(b.router) as at_b,
        Client([at_a.address, at_b.address], backoff=QUICK) as client,
    ):
        begun = asyncio.create_task(client.call(Wait()))
        await until(lambda: a.waiting)
        left = client.connection
        assert left is not None
        await at_a.drain()
        refused = asyncio.create_task(client.call(Wait()))
        await until(lambda: b.waiting)
        assert not left.is_closed
        assert client.connection is not left
        assert client.state.address == at_b.address
        b.waiting[0].set_result("b")
        assert await refused == Text(text="b")
        a.waiting[0].set_result("a")
        assert await begun == Text(text="a")
        await left.wait_closed()


async def test_a_connection_that_was_left_is_closed_by_this_side_too() -> None:
    # The peer says that it closes, and then it doesn't: nothing of it stays.
    with socket.create_server((HOST, 0)) as listener:
        listener.setblocking(False)
        async with (
            place_of(example_router()) as place,
            Client(
                [listener.getsockname()[:2], place.address], backoff=QUICK, extensions=False
            ) as client,
        ):
            sock, _ = await asyncio.get_running_loop().sock_accept(listener)
            with sock:
                peer = RawPeer(sock)
                call = asyncio.create_task(works(client))
                tag = (await peer.receive())[b"_ask"]
                error = {b"_error": tag, b"_error_code": b"CLOSING", b"_error_description": b""}
                await peer.send(error)
                assert await call
                assert client.state.address == place.address
                assert await peer.is_at_end()


MOMENTS: dict[str, Callable[[Client[Any]], bool]] = {
    "before its first step": lambda client: True,
    "while it connects": lambda client: client.state.status is ClientStatus.CONNECTING,
    "during on_connect": lambda client: bool(client._upkeep._all),
    "while it waits": lambda client: client.state.status is ClientStatus.WAITING,
    "while it is connected": lambda client: client.state.status is ClientStatus.CONNECTED,
}


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize("moment", MOMENTS)
async def test_closing(moment: str) -> None:
    async def hang(connection: Connection) -> None:
        if moment == "during on_connect":
            await asyncio.Event().wait()

    async with place_of(example_router(), is_open=moment != "while it waits") as place:
        client = Client(HOST, place.port, backoff=SLOW, on_connect=hang, wait_for_first=False)
        await client
        call = asyncio.create_task(client.call(Wait()))
        await until(lambda: MOMENTS[moment](client))
        client.close()
        client.close(drain_timeout=0)
        assert client.is_closed
        assert client.connection is None
        with pytest.raises(ConnectionLostError, match=r"^Repeat: the client is closed"):
            await works(client)
        with pytest.raises(ConnectionLostError):
            await call
        await client.wait_closed()
        assert client.state.status is ClientStatus.CLOSED
        await until(lambda: not place.connections)


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize("moment", ["while it connects", "during on_connect", "while it waits"])
async def test_cancelling_the_opening(moment: str) -> None:
    async def hang(connection: Connection) -> None:
        await asyncio.Event().wait()

    async with place_of(example_router(), is_open=moment != "while it waits") as place:
        client = Client(HOST, place.port, backoff=SLOW, on_connect=hang)
        opening = asyncio.create_task(client._opened())
        await until(lambda: client._upkeep.has_begun and MOMENTS[moment](client))
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        assert client.is_closed
        await until(lambda: not place.connections)


async def test_never_opened() -> None:
    client = Client(HOST, 1)
    with pytest.raises(ConnectionLostError, match=r"^Repeat: the client isn't open; enter it with"):
        await works(client)
    client.close()
    await client.wait_closed()
    with pytest.raises(ConnectionLostError, match=r"^open: the client is closed"):
        await client


async def test_closing_within_on_connect() -> None:
    async def closing(connection: Connection) -> None:
        client.close()
        await asyncio.Event().wait()

    async with place_of(example_router()) as place:
        client = Client(HOST, place.port, backoff=QUICK, on_connect=closing)
        with pytest.raises(ConnectionLostError):
            await client
        await until(lambda: not place.connections)
