"""What networks do to connections, and what both ends see of it."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import pytest

from tests.conftest import Certificates
from tests.example_commands import Buy, CountDown, Data, Log, OutOfStock, Repeat, Text, Wait
from tests.fault_proxy import (
    After,
    Cut,
    FaultProxy,
    Gather,
    HalfClose,
    OneByOne,
    Reset,
    Step,
    StopReading,
    WaitFor,
    fault_proxy,
    is_at,
)
from tests.leftovers import descriptors
from tests.peers import HOST, LogCapture, port_of, until
from typed_amp import (
    Box,
    BoxReader,
    CallTimeoutError,
    Command,
    Connection,
    ConnectionLostError,
    Descriptor,
    Large,
    Router,
    Server,
    StartTLS,
    connect,
    encode_box,
    serve,
    serve_unix,
)
from typed_amp.tls import begin_tls

BULK = b"\xaa" * 9_000
"""A value of two slices, for `Carry`."""


class Carried(Data):
    data: Annotated[bytes, Large(slice_bytes=8_192)]


class Carry(Command[Carried]):
    """Gives a large value back."""

    data: Annotated[bytes, Large(slice_bytes=8_192)]


class Work:
    """A router, and what its responders did."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.done: Counter[str] = Counter()
        self.waiting = 0
        self.cancelled = 0
        self.router = router = Router()

        @router.responder(Repeat)
        async def repeat(command: Repeat) -> Text:
            self.done[command.text] += 1
            return Text(text=command.text * 2)

        @router.responder(Buy)
        async def buy(command: Buy) -> Text:
            self.done["buy"] += 1
            raise OutOfStock(sku=command.sku, left=3)

        @router.responder(Carry)
        async def carry(command: Carry) -> Carried:
            self.done["carry"] += 1
            return Carried(data=command.data)

        @router.responder(CountDown)
        async def count_down(command: CountDown, connection: Connection) -> Text:
            self.done["count down"] += 1
            return await connection.call(CountDown(start=command.start - 1))

        @router.responder(Log)
        async def log(command: Log) -> None:
            self.done["log"] += 1

        @router.responder(Wait)
        async def wait(command: Wait) -> Text:
            self.waiting += 1
            try:
                await asyncio.Event().wait()
            finally:
                self.cancelled += 1
            raise AssertionError

        if context is not None:

            @router.responder(StartTLS)
            async def start_tls(command: StartTLS) -> ssl.SSLContext:
                return context


def client_router() -> Router:
    router = Router()

    @router.responder(CountDown)
    async def count_down(command: CountDown) -> Text:
        return Text(text=f"{command.start}")

    return router


def is_answer_to(what: str, result: Any) -> bool:
    """Whether a call's result is what it should be."""
    match what:
        case "buy":
            return isinstance(result, OutOfStock) and (result.sku, result.left) == ("A1", 3)
        case "carry":
            return bool(result == Carried(data=BULK))
        case "count down":
            return bool(result == Text(text="0"))
        case text:
            return bool(result == Text(text=text * 2))


CALLS: Sequence[tuple[str, Command[Any]]] = [
    ("first", Repeat(text="first")),
    ("buy", Buy(sku="A1")),
    ("carry", Carry(data=BULK)),
    ("count down", CountDown(start=1)),
    ("last", Repeat(text="last")),
]
"""What a short conversation asks, all at once: their tags are 1, 2 and so on."""


async def converse(client: Connection[Any]) -> Sequence[object]:
    """Make all calls of a conversation; gives their answers and errors."""
    calls = [client.call(command) for _, command in CALLS]
    telling = client.call(Log(line=b"told"))
    *results, _ = await asyncio.gather(*calls, telling, return_exceptions=True)
    return results


def boxes_in(data: bytes | bytearray) -> list[Box]:
    return BoxReader().feed(data)


def offsets_in(data: bytes | bytearray) -> list[int]:
    """Every place where a stream may be cut; of the insides of long values a few."""
    inside = BULK[:8]
    return [n for n in range(len(data) + 1) if data[n - 4 : n + 4] != inside or n % 97 == 0]


@asynccontextmanager
async def served(
    work: Work,
    *,
    server_context: ssl.SSLContext | None = None,
    client_context: ssl.SSLContext | None = None,
) -> AsyncIterator[tuple[Server, FaultProxy, Connection]]:
    """Serve behind a proxy; gives a neighbour too, whose connection does not go through that.

    At the end the neighbour is served as before, and nothing is left of the others.
    """
    asyncio.get_running_loop().set_debug(False)  # there are thousands of connections
    before = set(descriptors())
    async with (
        serve(work.router, HOST, 0, drain_timeout=60, ssl=server_context) as server,
        fault_proxy(port_of(server)) as proxy,
        connect(HOST, port_of(server), ssl=client_context) as neighbour,
    ):
        yield server, proxy, neighbour
        assert await neighbour.call(Repeat(text="neighbour")) == Text(text="neighbour" * 2)
        await until(lambda: len(server.connections) == 1)
        server.close(drain_timeout=0)
    await until(lambda: set(descriptors()) <= before)


async def recorded(work: Work) -> tuple[bytes, bytes]:
    """Give the bytes of a whole conversation: those to the server, and those to the client."""
    async with (
        served(work) as (_, proxy, _),
        connect(HOST, proxy.port, router=client_router()) as client,
    ):
        results = await converse(client)
        for (what, _), result in zip(CALLS, results, strict=True):
            assert is_answer_to(what, result)
        link = await proxy.link()
        work.done.clear()
        return bytes(link.to_server.passed), bytes(link.to_client.passed)


def check_reason(error: ConnectionLostError) -> None:
    """See that it says, in words, why the connection went."""
    cause = error.__cause__
    assert cause is not None
    assert f"was lost: {str(cause) or type(cause).__name__}" in str(error)


# -- Cut anywhere --------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [Cut, Reset])
@pytest.mark.parametrize("direction", ["to_server", "to_client"])
async def test_cut_at_every_byte(
    direction: str, ending: Callable[[], Step], log: LogCapture
) -> None:
    work = Work()
    to_server, to_client = await recorded(work)
    stream = to_server if direction == "to_server" else to_client
    async with served(work) as (server, proxy, neighbour):
        for offset in offsets_in(stream):
            work.done.clear()
            proxy.script(**{direction: is_at(offset, ending)})
            await check_cut_conversation(proxy, work, is_orderly=ending is Cut)
            if offset % 50 == 0:
                await neighbour.call(Repeat(text="neighbour"), timeout=10)
            await until(lambda: len(server.connections) == 1)
    assert not log.lines()


async def check_cut_conversation(proxy: FaultProxy, work: Work, *, is_orderly: bool) -> None:
    client = await connect(HOST, proxy.port, router=client_router(), drain_timeout=0)
    results = await converse(client)
    link = await proxy.link()
    await client.wait_closed()
    await link.close()
    answered = {box.get(b"_answer", box.get(b"_error")) for box in boxes_in(link.to_client.passed)}
    asked = {box.get(b"_ask") for box in boxes_in(link.to_server.passed)}
    for number, ((what, _), result) in enumerate(zip(CALLS, results, strict=True), 1):
        tag = b"%d" % number
        if is_answer_to(what, result):
            assert work.done[what] == 1
            assert tag in answered
            continue
        assert isinstance(result, ConnectionLostError), (what, result)
        check_reason(result)
        assert isinstance(result.__cause__, (EOFError, ConnectionError))
        # What came whole before an end of the stream is not lost with it.
        assert not (is_orderly and tag in answered), (what, result)
        assert work.done[what] <= (tag in asked)


# -- The same, encrypted -------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [Cut, Reset])
@pytest.mark.parametrize("direction", ["to_server", "to_client"])
async def test_tls_cut_anywhere(
    direction: str, ending: Callable[[], Step], certificates: Certificates, log: LogCapture
) -> None:
    work = Work()
    contexts = {"server_context": certificates.server, "client_context": certificates.client}
    async with served(work, **contexts) as (server, proxy, neighbour):
        async with connect(HOST, proxy.port, ssl=certificates.client) as client:
            assert is_answer_to("first", await client.call(Repeat(text="first")))
        link = await proxy.link()
        way = link.to_server if direction == "to_server" else link.to_client
        for offset in range(0, len(way.passed), 5):
            work.done.clear()
            proxy.script(**{direction: is_at(offset, ending)})
            await check_cut_tls(proxy, certificates.client)
            assert work.done["first"] <= 1
            if offset % 10 == 0:
                await neighbour.call(Repeat(text="neighbour"), timeout=10)
            await until(lambda: len(server.connections) == 1)
    assert not log.lines()


async def check_cut_tls(proxy: FaultProxy, context: ssl.SSLContext) -> None:
    try:
        client = await connect(HOST, proxy.port, ssl=context, drain_timeout=0)
    except OSError:  # within the handshake; an ssl.SSLError is one too
        pass
    else:
        try:
            assert is_answer_to("first", await client.call(Repeat(text="first")))
        except ConnectionLostError as error:
            check_reason(error)
        finally:
            client.close()
            await client.wait_closed()
    await (await proxy.link()).close()


@pytest.mark.parametrize("ending", [Cut, Reset])
@pytest.mark.parametrize("direction", ["to_server", "to_client"])
async def test_start_tls_cut_anywhere(
    direction: str, ending: Callable[[], Step], certificates: Certificates, log: LogCapture
) -> None:
    work = Work(certificates.server)
    async with served(work) as (server, proxy, neighbour):
        async with connect(HOST, proxy.port) as client:
            await client.start_tls(certificates.client)
            assert is_answer_to("first", await client.call(Repeat(text="first")))
        link = await proxy.link()
        way = link.to_server if direction == "to_server" else link.to_client
        for offset in range(len(way.passed)):
            work.done.clear()
            proxy.script(**{direction: is_at(offset, ending)})
            await check_cut_start_tls(proxy, work, certificates.client)
            if offset % 10 == 0:
                await neighbour.call(Repeat(text="neighbour"), timeout=10)
            await until(lambda: len(server.connections) == 1)
    # A handshake that the network cuts off is told; nothing else is.
    assert all("the TLS handshake failed" in line for line in log.lines())


async def check_cut_start_tls(proxy: FaultProxy, work: Work, context: ssl.SSLContext) -> None:
    client = await connect(HOST, proxy.port, drain_timeout=0)
    waiting = asyncio.create_task(client.call(Wait()))
    await asyncio.sleep(0)
    try:
        await client.start_tls(context)
        assert client.peer_certificate is not None
        assert is_answer_to("first", await client.call(Repeat(text="first")))
    except ConnectionLostError as error:
        check_reason(error)
    finally:
        client.close()
        await client.wait_closed()
    with pytest.raises(ConnectionLostError):
        await waiting
    assert work.done["first"] <= 1
    link = await proxy.link()
    in_clear = bytes(link.to_server.passed[:400])
    assert b"first" not in in_clear
    await link.close()
    await until(lambda: work.waiting == work.cancelled)


async def test_tls_does_not_begin_on_a_connection_that_is_lost(certificates: Certificates) -> None:
    loop = asyncio.get_running_loop()
    listener = await loop.create_server(asyncio.Protocol, HOST, 0)
    async with listener:
        transport, protocol = await loop.create_connection(
            asyncio.Protocol, *listener.sockets[0].getsockname()
        )
        transport.abort()
        async with asyncio.timeout(10):  # the handshake would wait for a minute
            with pytest.raises(ConnectionResetError, match="lost before the TLS handshake"):
                await begin_tls(
                    transport,
                    protocol,
                    certificates.server,
                    is_server=True,
                    handshake_timeout=60,
                    server_hostname=None,
                    received=b"",
                )


# -- Slowly, in pieces, out of step --------------------------------------------------------------


@pytest.mark.parametrize("is_encrypted", [False, True])
@pytest.mark.parametrize("size", ["one by one", "in one piece"])
async def test_streams_in_other_pieces(
    size: str, is_encrypted: bool, certificates: Certificates, log: LogCapture
) -> None:
    work = Work()
    context = certificates.server if is_encrypted else None
    own = certificates.client if is_encrypted else None
    async with served(work, server_context=context, client_context=own) as (_, proxy, _):
        if size == "one by one":
            proxy.script([OneByOne(20_000)], [OneByOne(20_000)])
        elif is_encrypted:  # a client's hello comes in one piece, and its last words after those
            proxy.script([Gather(200)], [Gather(600)])
        else:
            proxy.script([Gather(9_000)], [Gather(30)])
        async with connect(HOST, proxy.port, router=client_router(), ssl=own) as client:
            results = await converse(client)
        for (what, _), result in zip(CALLS, results, strict=True):
            assert is_answer_to(what, result)
            assert work.done[what] == 1
    assert not log.lines()


async def test_answers_that_come_when_all_was_asked() -> None:
    work = Work()
    async with served(work) as (_, proxy, _):
        proxy.script(to_client=[After(9_000)])
        async with connect(HOST, proxy.port, router=client_router()) as client:
            results = await converse(client)
        assert all(
            is_answer_to(what, result) for (what, _), result in zip(CALLS, results, strict=True)
        )


async def test_asks_that_come_when_this_side_was_asked() -> None:
    work = Work()

    @work.router.on_connect
    async def greet(connection: Connection) -> None:
        if connection.remote_address != own_address:
            return
        assert await connection.call(CountDown(start=7)) == Text(text="7")

    own_address = None
    async with served(work) as (_, proxy, _):
        proxy.script(to_server=[After(30)])
        async with connect(HOST, proxy.port, router=client_router()) as client:
            link = await proxy.link()
            own_address = link.to_server.sink.getsockname()
            call = asyncio.create_task(client.call(Repeat(text="first")))
            assert is_answer_to("first", await call)
            assert boxes_in(link.to_client.passed)[0][b"_command"] == b"CountDown"


async def test_delay_beyond_the_time_of_a_call() -> None:
    work = Work()
    late = asyncio.Event()
    async with served(work) as (_, proxy, _):
        proxy.script(to_client=[WaitFor(late)])
        async with connect(HOST, proxy.port) as client:
            with pytest.raises(CallTimeoutError):
                await client.call(Repeat(text="first"), timeout=0.01)
            late.set()
            # The late answer is nobody's; what is asked then is answered.
            assert is_answer_to("last", await client.call(Repeat(text="last")))
        assert work.done["first"] == work.done["last"] == 1


# -- One direction, or neither -------------------------------------------------------------------


async def test_half_closed_by_the_client() -> None:
    work = Work()
    ask = encode_box({b"_ask": b"1", b"_command": b"Wait", b"key": b"0"})
    async with served(work) as (_, proxy, _):
        proxy.script(to_server=is_at(len(ask), HalfClose))
        async with connect(HOST, proxy.port, extensions=False) as client:
            with pytest.raises(ConnectionLostError, match="the peer closed it"):
                await client.call(Wait())
            await client.wait_closed()
        await until(lambda: work.cancelled)
        assert work.waiting == 1


async def test_half_closed_by_the_server() -> None:
    work = Work()
    async with served(work) as (_, proxy, _):
        proxy.script(to_client=[HalfClose()])
        async with connect(HOST, proxy.port) as client:
            with pytest.raises(ConnectionLostError, match="the peer closed it"):
                await client.call(Wait())
        # The client has closed too: whoever worked for it was stopped.
        await until(lambda: work.waiting == work.cancelled)


async def test_nothing_arrives_any_more() -> None:
    work = Work()
    async with served(work) as (server, proxy, neighbour):
        proxy.script(to_server=[StopReading()])
        async with connect(HOST, proxy.port) as client:
            for _ in range(3):
                with pytest.raises(CallTimeoutError):
                    await client.call(Repeat(text="first"), timeout=0.01)
            assert not client.is_closed
            link = await proxy.link()
        assert work.done["first"] == 0
        # The server can't know. Other connections don't feel it, and it closes all the same.
        assert len(server.connections) == 2
        await neighbour.call(Repeat(text="neighbour"))
        await link.close()


async def test_nothing_comes_back_any_more() -> None:
    work = Work()
    async with served(work) as (_, proxy, _):
        proxy.script(to_client=[StopReading()])
        async with connect(HOST, proxy.port) as client:
            with pytest.raises(CallTimeoutError):
                await client.call(Repeat(text="first"), timeout=0.01)
            await until(lambda: work.done["first"])
        assert work.done["first"] == 1


async def test_server_that_closes_towards_a_client_that_is_gone() -> None:
    work = Work()
    async with served(work) as (server, proxy, neighbour):
        proxy.script(to_client=[StopReading()])
        async with connect(HOST, proxy.port) as client:
            with pytest.raises(CallTimeoutError):
                await client.call(Wait(), timeout=0.01)
            link = await proxy.link()
            address = link.to_server.sink.getsockname()
            (connection,) = (c for c in server.connections if c.remote_address == address)
            connection.close(drain_timeout=0)
            async with asyncio.timeout(10):
                await connection.wait_closed()
            assert work.cancelled == work.waiting == 1
            await neighbour.call(Repeat(text="neighbour"))
            client.close()
            await link.close()


async def test_no_server() -> None:
    work = Work()
    async with served(work) as (_, proxy, _):
        await proxy.refuse()
        with pytest.raises(ConnectionRefusedError):
            await connect(HOST, proxy.port)


@pytest.mark.parametrize("is_encrypted", [False, True])
async def test_server_that_accepts_and_says_nothing(
    is_encrypted: bool, certificates: Certificates
) -> None:
    work = Work()
    async with served(work) as (_, proxy, _):
        proxy.is_silent = True
        with pytest.raises(TimeoutError):  # CallTimeoutError is one
            async with asyncio.timeout(1 if is_encrypted else None):
                context = certificates.client if is_encrypted else None
                async with connect(HOST, proxy.port, ssl=context) as client:
                    await client.call(Repeat(text="first"), timeout=0.01)


# -- Who works for whom --------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [Cut, Reset])
async def test_who_waits_is_told_and_who_works_is_stopped(
    ending: Callable[[], Step], log: LogCapture
) -> None:
    work = Work()
    cut = asyncio.Event()
    async with served(work) as (_, proxy, _):
        proxy.script(to_client=[WaitFor(cut), ending()])
        async with connect(HOST, proxy.port) as client:
            calls = [asyncio.create_task(client.call(Wait())) for _ in range(100)]
            await until(lambda: work.waiting == 100)
            cut.set()
            for result in await asyncio.gather(*calls, return_exceptions=True):
                assert isinstance(result, ConnectionLostError)
            with pytest.raises(ConnectionLostError):
                await client.call(Repeat(text="first"))
        await until(lambda: work.cancelled == 100)
    assert not log.lines()


async def test_server_may_be_asked_again_over_a_new_connection() -> None:
    work = Work()
    async with served(work) as (_, proxy, _):
        for _ in range(20):
            proxy.script(to_client=[Reset()])
            with pytest.raises((ConnectionLostError, OSError)):
                async with connect(HOST, proxy.port) as client:
                    await client.call(Wait())
            proxy.script()
            async with connect(HOST, proxy.port) as client:
                assert is_answer_to("last", await client.call(Repeat(text="last")))
        assert work.done["last"] == 20


# -- Descriptors ---------------------------------------------------------------------------------


class Take(Command):
    first: Annotated[int, Descriptor()]
    second: Annotated[int, Descriptor()]


@pytest.mark.parametrize("is_answered", [False, True])
async def test_descriptors_of_a_box_that_is_cut_anywhere(
    is_answered: bool, tmp_path: Path, log: LogCapture
) -> None:
    asyncio.get_running_loop().set_debug(False)
    router = Router()
    taken = 0

    @router.responder(Take)
    async def take(command: Take) -> None:
        nonlocal taken
        taken += 1
        os.close(command.first)
        os.close(command.second)

    data = encode_box({b"_ask": b"1", b"_command": b"Take", b"first": b"0", b"second": b"1"})
    path = str(tmp_path / "amp")
    file = os.open(os.devnull, os.O_RDONLY)
    try:
        before = set(descriptors())
        async with serve_unix(router, path, drain_timeout=0) as server:
            for offset in range(1, len(data) + 1):
                with socket.socket(socket.AF_UNIX) as sock:
                    sock.connect(path)
                    socket.send_fds(sock, [data[:offset]], [file, file])
                    await until(lambda: server.connections)
                    if is_answered and offset == len(data):
                        await until(lambda: taken)  # an answer that is not read resets the rest
                await until(lambda: not server.connections)
        assert taken == 1
        await until(lambda: set(descriptors()) <= before)
    finally:
        os.close(file)
    assert not log.lines()
