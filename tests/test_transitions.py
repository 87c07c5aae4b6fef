"""From AMP to another protocol on the same transport; and what such commands may declare.

`test_handover` has TLS.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from tests.conftest import Certificates
from tests.example_commands import Data, Echo, Log, Text, Wait, example_router
from tests.peers import (
    HOST,
    LogCapture,
    SecurePeer,
    joined_by,
    port_of,
    raw_client_of,
    raw_server_of,
    settled,
    until,
)
from tests.test_writer import fill
from typed_amp import (
    AmpError,
    Box,
    CallTimeoutError,
    Command,
    Connection,
    ConnectionLostError,
    DefinitionError,
    Router,
    StartTLS,
    SwitchProtocol,
    UnhandledCommandError,
    UnknownRemoteError,
    connect,
    encode_box,
    serve,
)

pytestmark = pytest.mark.usefixtures("nothing_left")

KINDS = ["tcp", "unix", "memory"]
LARGE = bytes(60_000)
SWITCH: Box = {b"_ask": b"switch", b"_command": b"Switch"}
AGREED = encode_box({b"_answer": b"switch"})


class BusyError(Exception):
    pass


class Switch(SwitchProtocol, errors={BusyError: "BUSY", TimeoutError: "LATE"}):
    room: str = ""


class Plain(asyncio.Protocol):
    """Keeps what it is told."""

    def __init__(self, greeting: bytes = b"") -> None:
        self.greeting = greeting
        self.received = bytearray()
        self.events: list[str] = []
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.events.append("made")
        self.transport.write(self.greeting)

    def data_received(self, data: bytes) -> None:
        self.received += data

    def pause_writing(self) -> None:
        self.events.append("paused")

    def resume_writing(self) -> None:
        self.events.append("resumed")

    def connection_lost(self, exc: Exception | None) -> None:
        self.events.append("lost")


class Buffered(asyncio.BufferedProtocol):
    """The same, into a small buffer of its own."""

    def __init__(self) -> None:
        self.received = bytearray()
        self._buffer = bytearray(7)

    def get_buffer(self, sizehint: int) -> bytearray:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.received += self._buffer[:nbytes]


def switching_router(protocol: asyncio.BaseProtocol) -> Router:
    router = example_router()

    @router.responder(Switch)
    async def switch(command: Switch) -> asyncio.BaseProtocol:
        return protocol

    return router


# -- How it goes ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
async def test_both_sides_speak_at_once(kind: str) -> None:
    theirs = Plain(b"hello from there")
    async with joined_by(kind, switching_router(theirs)) as (client, server):
        transport, ours = await client.switch_protocol(Switch(), lambda: Plain(b"hello from here"))
        await until(lambda: ours.received and theirs.received)
        assert bytes(ours.received) == b"hello from there"
        assert bytes(theirs.received) == b"hello from here"
        assert ours.transport is transport
        # For the connections this is the end, and for the transport it is not.
        await client.wait_closed()
        await server.wait_closed()
        client.close()
        server.close(drain_timeout=0)
        transport.write(b" still")
        await until(lambda: theirs.received.endswith(b" still"))
        transport.close()
        await until(lambda: "lost" in theirs.events and "lost" in ours.events)


@pytest.mark.parametrize("cut", range(4))
async def test_what_follows_the_ask_at_once_is_the_protocols(cut: int) -> None:
    theirs = Plain()
    async with raw_client_of(switching_router(theirs)) as (peer, _):
        data = encode_box(SWITCH) + b"\0\0\xff not AMP"
        middle = len(encode_box(SWITCH)) + cut - 1
        await peer.write(data[:middle])
        await settled(3)
        await peer.write(data[middle:])
        await until(lambda: theirs.received == b"\0\0\xff not AMP")
        assert await peer.read() == AGREED
        theirs.transport.close()


async def test_what_follows_the_answer_at_once_is_the_protocols() -> None:
    async with raw_server_of() as (connection, peer):
        switching = asyncio.create_task(connection.switch_protocol(Switch(), Plain))
        tag = (await peer.receive())[b"_ask"]
        await peer.write(encode_box({b"_answer": tag}) + b"\0\0\xff not AMP")
        transport, ours = await switching
        await until(lambda: ours.received == b"\0\0\xff not AMP")
        transport.close()


async def test_a_buffered_protocol() -> None:
    theirs = Buffered()
    async with raw_client_of(switching_router(theirs)) as (peer, _):
        await peer.write(encode_box(SWITCH) + b"0123456789" * 3)
        await until(lambda: len(theirs.received) == 30)
        await peer.write(b"more")
        await until(lambda: theirs.received == b"0123456789" * 3 + b"more")
        peer.socket.close()


@pytest.mark.parametrize("kind", KINDS)
async def test_streams(kind: str) -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()

    async def shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(line.upper())
        writer.close()

    def streams() -> asyncio.StreamReaderProtocol:
        return asyncio.StreamReaderProtocol(asyncio.StreamReader(), shout)

    async with joined_by(kind, switching_router(streams())) as (client, _):
        transport, protocol = await client.switch_protocol(
            Switch(), lambda: asyncio.StreamReaderProtocol(reader)
        )
        writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        writer.write(b"one\ntwo\n")
        assert await reader.readline() == b"ONE\n"
        assert await reader.readline() == b"TWO\n"
        writer.close()


async def test_streams_that_nobody_reads_stop_the_peer() -> None:
    reader: Any = asyncio.StreamReader(limit=1000)
    async with raw_client_of(switching_router(asyncio.StreamReaderProtocol(reader))) as (peer, _):
        await peer.write(encode_box(SWITCH) + bytes(10_000))
        assert await peer.read() == AGREED
        await settled()
        while peer.write_now(bytes(10_000)):
            await settled(2)
        total = 0
        peer.socket.close()
        while data := await reader.read(1_000_000):
            total += len(data)
        assert total > 10_000
        reader._transport.close()


async def test_over_tls_and_behind_start_tls(certificates: Certificates) -> None:
    theirs = Plain(b"hello")
    router = switching_router(theirs)

    @router.responder(StartTLS)
    async def start_tls(command: StartTLS) -> Any:
        return certificates.server

    async with serve(router, HOST, 0) as server, connect(HOST, port_of(server)) as client:
        await client.start_tls(certificates.client)
        transport, ours = await client.switch_protocol(Switch(), Plain)
        await until(lambda: ours.received == b"hello")
        assert transport.get_extra_info("peercert")
        transport.close()
        await until(lambda: "lost" in theirs.events)

    theirs = Plain(b"hello")
    async with (
        serve(switching_router(theirs), HOST, 0, ssl=certificates.server) as server,
        connect(HOST, port_of(server), ssl=certificates.client) as client,
    ):
        transport, ours = await client.switch_protocol(Switch(), Plain)
        await until(lambda: ours.received == b"hello")
        transport.close()
        await until(lambda: "lost" in theirs.events)


async def test_encrypted_bytes_in_one_piece_with_the_ask(certificates: Certificates) -> None:
    theirs = Plain()
    router = switching_router(theirs)

    @router.responder(StartTLS)
    async def start_tls(command: StartTLS) -> Any:
        return certificates.server

    async with raw_client_of(router) as (peer, _):
        await peer.ask({b"_ask": b"1", b"_command": b"StartTLS"})
        secure = SecurePeer(peer, certificates.client, "localhost")
        await secure.shake_hands()
        await secure.send(SWITCH, {b"not": b"AMP to us"})
        assert await secure.receive() == {b"_answer": b"switch"}
        await until(lambda: theirs.received == encode_box({b"not": b"AMP to us"}))
        theirs.transport.abort()


async def test_a_full_transport() -> None:
    theirs = Plain()
    async with raw_client_of(switching_router(theirs)) as (peer, connection):
        calls = await fill(connection, Echo(data=LARGE))
        await peer.send(SWITCH)
        await until(lambda: theirs.events)
        assert theirs.events == ["made", "paused"]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {ConnectionLostError}
        while theirs.events[-1] != "resumed":
            await peer.read()
        theirs.transport.close()


# -- What becomes of the connection --------------------------------------------------------------


async def test_calls_responders_and_hooks() -> None:
    theirs = Plain()
    events: list[str] = []
    router, client_router = switching_router(theirs), Router()

    @router.responder(Wait)
    async def wait(command: Wait) -> Text:
        try:
            await asyncio.Event().wait()
        finally:
            events.append("cancelled")
        raise AssertionError

    @router.on_disconnect
    async def part(connection: Connection) -> None:
        events.append("the server parts")

    @client_router.on_disconnect
    async def part_too(connection: Connection) -> None:
        events.append("the client parts")

    async with serve(router, HOST, 0, drain_timeout=0) as server:
        async with connect(HOST, port_of(server), router=client_router) as client:
            waiting = asyncio.create_task(client.call(Wait()))
            await until(
                lambda: server.connections and server.connections[0]._link.responses.running
            )
            switching = asyncio.create_task(client.switch_protocol(Switch(), Plain))
            await asyncio.sleep(0)
            held = asyncio.create_task(client.call(Echo(data=b"")))
            note = asyncio.create_task(client.call(Log(line=b"")))
            transport, _ = await switching
            for call in (waiting, held, note):
                with pytest.raises(ConnectionLostError, match="switched to another protocol"):
                    await call
            with pytest.raises(ConnectionLostError, match="switched to another protocol"):
                await client.call(Echo(data=b""))
            await client.wait_closed()
            await until(lambda: not server.connections)
            assert events[0] == "cancelled"
            assert set(events[1:]) == {"the server parts", "the client parts"}
        server.close()
        await server.wait_closed()
        transport.write(b"the transport lives on")
        await until(lambda: theirs.received == b"the transport lives on")
        transport.close()
        await until(lambda: "lost" in theirs.events)


async def test_it_is_handed_over_by_a_server_that_drains() -> None:
    theirs = Plain()
    router, allowed = Router(), asyncio.Event()

    @router.responder(Switch)
    async def switch(command: Switch) -> asyncio.Protocol:
        await allowed.wait()
        return theirs

    async with serve(router, HOST, 0) as server, connect(HOST, port_of(server)) as client:
        switching = asyncio.create_task(client.switch_protocol(Switch(), Plain))
        await until(lambda: server.connections and server.connections[0]._link.responses.running)
        server.close()
        allowed.set()
        transport, _ = await switching
        await server.wait_closed()
        transport.write(b"the transport lives on")
        await until(lambda: theirs.received == b"the transport lives on")
        transport.close()
        await until(lambda: "lost" in theirs.events)


async def test_the_hook_of_the_other_side_waits_for_our_answer() -> None:
    theirs = Plain()
    router = switching_router(theirs)
    notes: list[bytes] = []

    @router.responder(Log)
    async def note(command: Log) -> None:
        notes.append(command.line)

    @router.on_connect
    async def greet(connection: Connection) -> None:
        with pytest.raises(ConnectionLostError):
            await connection.call(Echo(data=b"never answered"))

    async with raw_client_of(router) as (peer, connection):
        # It came in before the switch, so it is taken before.
        await peer.send({b"_command": b"Log", b"line": b"first"}, SWITCH)
        assert (await peer.receive())[b"_command"] == b"Echo"
        assert await peer.receive() == {b"_answer": b"switch"}
        await connection.wait_closed()
        assert notes == [b"first"]
        theirs.transport.close()


# -- Refused, and what fails ---------------------------------------------------------------------


async def busy(command: Switch) -> Any:
    raise BusyError("no room")


async def late(command: Switch) -> Any:
    raise TimeoutError("too late")


async def fail(command: Switch) -> Any:
    raise ZeroDivisionError


async def give_rubbish(command: Switch) -> Any:
    return Plain  # the class


@pytest.mark.parametrize(
    ("responder", "error", "logged"),
    [
        (None, UnhandledCommandError, ""),
        (busy, BusyError, ""),
        (late, TimeoutError, ""),
        (fail, UnknownRemoteError, "ZeroDivisionError"),
        (give_rubbish, UnknownRemoteError, "is answered with a BaseProtocol"),
    ],
    ids=["unhandled", "declared", "declared timeout", "failed", "rubbish"],
)
async def test_refused_and_amp_goes_on(
    responder: Any, error: type[Exception], logged: str, log: LogCapture
) -> None:
    router = example_router()
    if responder is not None:
        router.responder(Switch)(responder)
    async with joined_by("tcp", router, example_router()) as (client, server):
        switching = asyncio.create_task(client.switch_protocol(Switch(), Plain, timeout=60))
        await asyncio.sleep(0)
        held = asyncio.create_task(client.call(Echo(data=b"held")))
        with pytest.raises(error):
            await switching
        assert await held == Data(data=b"held")
        assert await server.call(Echo(data=b"ab")) == Data(data=b"ab")
        assert logged in "".join(log.lines())


async def test_what_follows_a_refused_ask_is_amp() -> None:
    async with raw_client_of(example_router()) as (peer, _):
        await peer.send(SWITCH, {b"_ask": b"1", b"_command": b"Echo", b"data": b"ab"})
        assert (await peer.receive())[b"_error_code"] == b"UNHANDLED"
        assert await peer.receive() == {b"_answer": b"1", b"data": b"ab"}


async def test_without_an_answer_asked_for_nothing_switches() -> None:
    async with raw_client_of(switching_router(Plain())) as (peer, _):
        await peer.send({b"_command": b"Switch"})
        answer = await peer.ask({b"_ask": b"1", b"_command": b"Echo", b"data": b"ab"})
        assert answer == {b"_answer": b"1", b"data": b"ab"}


class Failing(Plain):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        raise ZeroDivisionError("no good")


async def test_a_protocol_that_fails_to_begin_there(log: LogCapture) -> None:
    theirs = Failing()
    async with joined_by("tcp", switching_router(theirs)) as (client, server):
        _, ours = await client.switch_protocol(Switch(), Plain)
        await until(lambda: "lost" in ours.events)
        assert theirs.events == ["made", "lost"]
        assert "the other protocol failed to begin" in log.only_line()
        assert "ZeroDivisionError: no good" in log.only_line()
        await server.wait_closed()


async def test_a_protocol_that_fails_to_begin_here() -> None:
    theirs = Plain()
    async with joined_by("tcp", switching_router(theirs)) as (client, _):
        with pytest.raises(ZeroDivisionError, match="no good"):
            await client.switch_protocol(Switch(), Failing)
        await until(lambda: "lost" in theirs.events)
        await client.wait_closed()


async def test_a_factory_that_fails() -> None:
    def no_protocol() -> Plain:
        raise ZeroDivisionError("no good")

    theirs = Plain()
    async with joined_by("tcp", switching_router(theirs)) as (client, _):
        with pytest.raises(ZeroDivisionError):
            await client.switch_protocol(Switch(), no_protocol)
        await client.wait_closed()
        await until(lambda: "lost" in theirs.events)


async def test_both_sides_at_once_end_clearly() -> None:
    async with joined_by("memory", switching_router(Plain()), switching_router(Plain())) as (
        client,
        server,
    ):
        outcomes = await asyncio.gather(
            client.switch_protocol(Switch(), Plain),
            server.switch_protocol(Switch(), Plain),
            return_exceptions=True,
        )
        assert [type(outcome) for outcome in outcomes] == [ConnectionLostError] * 2
        assert all("both sides asked" in str(outcome) for outcome in outcomes)


async def test_a_second_one_that_is_cancelled_harms_nobody() -> None:
    async with raw_server_of() as (connection, peer):
        first = asyncio.create_task(connection.switch_protocol(Switch(), Plain))
        tag = (await peer.receive())[b"_ask"]
        second = asyncio.create_task(connection.switch_protocol(Switch(), Plain))
        await settled()
        second.cancel()
        await asyncio.wait([second])
        assert not connection.is_closed
        await peer.send({b"_answer": tag})
        transport, _ = await first
        transport.close()


async def test_a_peer_that_never_answers() -> None:
    async with raw_server_of() as (connection, peer):
        with pytest.raises(CallTimeoutError):
            await connection.switch_protocol(Switch(), Plain, timeout=0.05)
        await connection.wait_closed()
        assert (await peer.receive())[b"_command"] == b"Switch"
        assert await peer.is_at_end()


async def test_cancelled() -> None:
    async with raw_server_of() as (connection, peer):
        switching = asyncio.create_task(connection.switch_protocol(Switch(), Plain))
        await peer.receive()
        switching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await switching
        assert await peer.is_at_end()
        await connection.wait_closed()


# -- What may be declared ------------------------------------------------------------------------


@pytest.mark.parametrize("base", [StartTLS, SwitchProtocol])
def test_it_needs_an_answer(base: type[Command]) -> None:
    with pytest.raises(DefinitionError, match="needs an answer"):
        type("Silent", (base,), {"__module__": __name__}, requires_answer=False)


@pytest.mark.parametrize(
    "call",
    [
        lambda connection: connection.call(Switch()),
        lambda connection: connection.call_remote(Switch),
        lambda connection: connection.call(StartTLS()),
    ],
)
async def test_it_is_no_ordinary_call(call: Callable[[Connection], Any]) -> None:
    async with joined_by("memory", switching_router(Plain())) as (client, _):
        with pytest.raises(AmpError, match="changes what the connection speaks"):
            await call(client)
        assert await client.call(Echo(data=b"ab")) == Data(data=b"ab")
