from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.example_commands import (
    Buy,
    Data,
    Echo,
    Log,
    Make,
    OutOfStock,
    Repeat,
    ShopClosedError,
    Text,
    Wait,
    example_router,
)
from tests.peers import LogCapture, settled, until
from typed_amp import (
    Connection,
    ConnectionLostError,
    InvalidArgumentsError,
    ProtocolViolationError,
    Router,
    UnhandledCommandError,
)
from typed_amp.testing import MemoryTransport, connection_pair

LARGE = bytes(60_000)


def transport_of(connection: Connection[Any]) -> MemoryTransport:
    transport = connection._link.transport
    assert isinstance(transport, MemoryTransport)
    return transport


async def test_calls_both_ways() -> None:
    async with connection_pair(example_router(), client_router=example_router()) as (
        client,
        server,
    ):
        assert await client.call(Repeat(text="ab", times=2)) == Text(text="abab")
        assert await server.call(Repeat(text="cd", times=2)) == Text(text="cdcd")


async def test_client_without_a_router() -> None:
    async with connection_pair(example_router()) as (_, server):
        with pytest.raises(UnhandledCommandError):
            await server.call(Repeat(text="ab"))


async def test_errors_travel() -> None:
    class AnyRepeat(Repeat, name="Repeat"):
        times: int = -1

    router = example_router()

    @router.responder(Buy)
    async def buy(command: Buy) -> Text:
        raise OutOfStock(sku=command.sku, left=2)

    async with connection_pair(router) as (client, _):
        with pytest.raises(OutOfStock) as caught:
            await client.call(Buy(sku="A1"))
        assert (caught.value.sku, caught.value.left) == ("A1", 2)
        with pytest.raises(InvalidArgumentsError):
            await client.call(AnyRepeat(text=""))


async def test_no_addresses() -> None:
    async with connection_pair(Router()) as (client, server):
        for connection in (client, server):
            assert connection.remote_address is None
            assert connection.peer_certificate is None
            assert repr(connection) == "<Connection a peer without an address, open>"


class Receiver(asyncio.Protocol):
    def __init__(self) -> None:
        self.received = b""
        self.lost: list[Exception | None] = []

    def data_received(self, data: bytes) -> None:
        self.received += data

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.append(exc)


async def test_a_transport_takes_another_protocol() -> None:
    async with connection_pair(Router()) as (client, server):
        transport, receiver = transport_of(server), Receiver()
        transport.set_protocol(receiver)
        assert transport.get_protocol() is receiver
        transport_of(client).write(b"anything")
        await until(lambda: receiver.received == b"anything")
        error = OSError("as TLS fails")
        transport._force_close(error)
        await until(lambda: receiver.lost)
        assert receiver.lost == [error]
        await client.wait_closed()
        server._link.ended(None)  # nobody else tells it now


async def test_state_and_hooks() -> None:
    events: list[str] = []
    router = Router(state=dict[str, str])
    client_router = Router()

    @router.on_connect
    async def connected(connection: Connection[dict[str, str]]) -> None:
        connection.state["user"] = (await connection.call(Repeat(text="Ada"))).text
        events.append("server connected")

    @router.on_disconnect
    async def parted(connection: Connection[dict[str, str]]) -> None:
        events.append("server parted")

    @client_router.responder(Repeat)
    async def repeat(command: Repeat) -> Text:
        return Text(text=command.text)

    @client_router.on_connect
    async def client_connected(connection: Connection) -> None:
        events.append("client connected")

    async with connection_pair(router, client_router=client_router) as (_, server):
        assert server.state == {"user": "Ada"}
        assert events == ["client connected", "server connected"]
    assert events[2:] == ["server parted"]


@pytest.mark.parametrize("side", ["client", "server"])
async def test_failing_hook(side: str, log: LogCapture) -> None:
    failing = Router()

    @failing.on_connect
    async def fail(connection: Connection) -> None:
        raise ZeroDivisionError("no good")

    routers = (Router(), failing) if side == "client" else (failing, Router())
    with pytest.raises(ConnectionLostError, match="no good") as caught:
        async with connection_pair(routers[0], client_router=routers[1]):
            pytest.fail("a hook has failed")
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert "an on_connect hook failed" in log.only_line()


@pytest.mark.parametrize("side", ["client", "server"])
async def test_failing_state(side: str, log: LogCapture) -> None:
    def fail() -> int:
        raise ZeroDivisionError("no state")

    router = Router(state=fail)
    with pytest.raises(ConnectionLostError):
        if side == "client":
            async with connection_pair(Router(), client_router=router):
                pytest.fail("there is no state")
        else:
            async with connection_pair(router):
                pytest.fail("there is no state")
    assert "the router's state= failed" in log.only_line()


@pytest.mark.parametrize("closer", [0, 1])
async def test_either_end_closes(closer: int) -> None:
    async with connection_pair(example_router(), client_router=example_router()) as pair:
        pair[closer].close()
        await asyncio.gather(*(connection.wait_closed() for connection in pair))
        with pytest.raises(ConnectionLostError, match="is closed"):
            await pair[closer].call(Repeat(text=""))
        with pytest.raises(ConnectionLostError, match="the peer closed it"):
            await pair[1 - closer].call(Repeat(text=""))


async def test_both_are_closed_at_the_end_though_the_block_fails() -> None:
    opened: list[Connection] = []
    with pytest.raises(ZeroDivisionError):
        async with connection_pair(Router()) as pair:
            opened += pair
            raise ZeroDivisionError
    assert [connection.is_closed for connection in opened] == [True, True]


async def test_what_was_answered_arrives_before_the_end() -> None:
    router = example_router()

    @router.responder(Buy)
    async def buy(command: Buy) -> Text:
        raise ShopClosedError("the last word")

    async with connection_pair(router) as (client, server):
        calls = [asyncio.create_task(client.call(Echo(data=LARGE))) for _ in range(10)]
        await until(lambda: client._link.dialogue.pending == 10)
        with pytest.raises(ShopClosedError, match="the last word"):
            await client.call(Buy())
        assert await asyncio.gather(*calls) == [Data(data=LARGE)] * 10
        await server.wait_closed()


@pytest.mark.parametrize("aborter", [0, 1])
async def test_abort_ends_both_at_once(aborter: int) -> None:
    router = Router()
    begun = asyncio.Event()

    @router.responder(Wait)
    async def wait(command: Wait) -> Text:
        begun.set()
        await asyncio.Event().wait()
        return Text(text="never")

    async with connection_pair(router) as pair:
        call = asyncio.create_task(pair[0].call(Wait()))
        await begun.wait()
        transport = transport_of(pair[aborter])
        transport.abort()
        transport.abort()
        with pytest.raises(ConnectionLostError):
            await call
        await asyncio.gather(*(connection.wait_closed() for connection in pair))


async def test_abort_sends_nothing() -> None:
    noted: list[bytes] = []
    router = Router()

    @router.responder(Log)
    async def note(command: Log) -> None:
        noted.append(command.line)

    async with connection_pair(router) as (client, server):
        await client.call(Log(line=b"never"))
        transport_of(client).abort()
        await server.wait_closed()
        assert not noted


async def test_peer_that_does_not_read_makes_calls_wait() -> None:
    received: list[bytes] = []
    router = Router()

    @router.responder(Log)
    async def note(command: Log) -> None:
        received.append(command.line)

    async with connection_pair(router) as (client, server):
        server._link.transport.pause_reading()
        assert not transport_of(server).is_reading()
        tasks = [asyncio.create_task(client.call(Log(line=LARGE))) for _ in range(10)]
        await settled()
        assert not received
        assert client._link.writer.is_full
        assert 0 < sum(task.done() for task in tasks) < 10
        server._link.transport.resume_reading()
        await asyncio.gather(*tasks)
        await until(lambda: len(received) == 10)


async def test_close_waits_for_the_peer_to_read() -> None:
    received: list[bytes] = []
    router = Router()

    @router.responder(Log)
    async def note(command: Log) -> None:
        received.append(command.line)

    async with connection_pair(router) as (client, server):
        server._link.transport.pause_reading()
        await client.call(Log(line=b"last"))
        client.close()
        await settled()
        assert transport_of(client).is_closing()
        assert not server.is_closed
        server._link.transport.resume_reading()
        await server.wait_closed()
        assert received == [b"last"]


async def test_large_values_both_ways() -> None:
    async with connection_pair(example_router(), client_router=example_router()) as pair:
        calls = [side.call(Make(size=60_000)) for _ in range(300) for side in pair]
        assert {len(answer.data) for answer in await asyncio.gather(*calls)} == {60_000}


async def test_peer_that_asks_and_does_not_read_is_not_read_from() -> None:
    async with connection_pair(example_router()) as (client, server):
        client._link.transport.pause_reading()
        client._link.is_reading = True
        calls = [asyncio.create_task(client.call(Make(size=60_000))) for _ in range(3)]
        await until(lambda: not server._link.is_reading)
        held = asyncio.create_task(client.call(Repeat(text="later")))
        await settled()
        assert server._link.responses.running == 0
        client._link.transport.resume_reading()
        await asyncio.gather(*calls)
        assert await held == Text(text="later")
        assert server._link.is_reading


async def test_violation() -> None:
    async with connection_pair(Router()) as (client, server):
        client._link.transport.write(b"GET / HTTP/1.1\r\n\r\n")
        client._link.transport.write(b"Host: localhost\r\n\r\n")
        with pytest.raises(ConnectionLostError) as caught:
            await server.wait_closed()
            await server.call(Repeat(text=""))
        assert isinstance(caught.value.__cause__, ProtocolViolationError)
        await client.wait_closed()


async def test_transport_keeps_the_promises_of_asyncio() -> None:
    async with connection_pair(Router()) as (client, server):
        transport = transport_of(client)
        assert transport.get_write_buffer_limits() == (16 * 1024, 64 * 1024)
        transport.set_write_buffer_limits()
        assert transport.get_write_buffer_limits() == (16 * 1024, 64 * 1024)
        transport.set_write_buffer_limits(high=100, low=10)
        assert transport.get_write_buffer_limits() == (10, 100)
        assert transport.get_write_buffer_size() == 0
        assert transport.is_reading()
        assert not transport.is_closing()
        transport.write(b"")
        transport.close()
        transport.close()
        transport.write(b"nothing any more")
        assert transport.get_write_buffer_size() == 0
        await server.wait_closed()
