"""TLS that begins in the middle of a connection. `test_transitions` has switches of protocol."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.conftest import Certificates
from tests.example_commands import Data, Echo, Log, Make, Repeat, Text, Wait, example_router, make
from tests.peers import (
    LogCapture,
    RawPeer,
    SecurePeer,
    joined,
    joined_by,
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
    EncodeError,
    RemoteAmpError,
    Router,
    StartTLS,
    StartTLSError,
    UnhandledCommandError,
    UnknownRemoteError,
    encode_box,
)

pytestmark = pytest.mark.usefixtures("nothing_left")

KINDS = ["tcp", "unix", "memory"]
START: Box = {b"_ask": b"tls", b"_command": b"StartTLS"}
EVIL: Box = {b"_ask": b"evil", b"_command": b"Echo", b"data": b"injected"}
LARGE = bytes(60_000)


def secure_router(context: ssl.SSLContext, *, ran: list[bytes] | None = None) -> Router:
    """Make a router that answers StartTLS, and notes what it echoes."""
    router = Router()

    @router.responder(StartTLS)
    async def start_tls(command: StartTLS) -> ssl.SSLContext:
        return context

    @router.responder(Echo)
    async def echo(command: Echo) -> Data:
        if ran is not None:
            ran.append(command.data)
        return Data(data=command.data)

    return router


def is_encrypted(connection: Connection[Any]) -> bool:
    return connection._link.transport.get_extra_info("ssl_object") is not None


async def works(connection: Connection[Any]) -> bool:
    return await connection.call(Echo(data=b"ab")) == Data(data=b"ab")


async def assert_lost(connection: Connection[Any], cause: type[BaseException] | None) -> None:
    """See that a connection has ended, and says why."""
    await connection.wait_closed()
    with pytest.raises(ConnectionLostError) as caught:
        await works(connection)
    if cause is not None:
        assert isinstance(caught.value.__cause__, cause)


# -- How it goes ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
async def test_the_client_begins(kind: str, certificates: Certificates) -> None:
    router = secure_router(certificates.server)
    async with joined_by(kind, router, secure_router(certificates.client)) as (client, server):
        assert await works(client)
        await client.start_tls(certificates.client, server_hostname="localhost")
        assert is_encrypted(client)
        assert await works(client)
        assert is_encrypted(server)
        assert await works(server)
        assert client.peer_certificate is not None
        assert (("commonName", "the server"),) in client.peer_certificate["subject"]
        assert server.peer_certificate is None


@pytest.mark.parametrize("kind", KINDS)
async def test_the_server_begins_and_both_are_verified(
    kind: str, certificates: Certificates
) -> None:
    # Whoever calls: who was connected to is TLS's server.
    context = certificates.named_client
    if kind == "memory":  # where nobody says a name
        context = certificates.unnamed_client()
    router = secure_router(certificates.strict_server)
    async with joined_by(kind, router, secure_router(context)) as (client, server):
        await server.start_tls(certificates.strict_server)
        assert await works(client)
        assert await works(server)
        assert client.peer_certificate is not None
        assert (("commonName", "the server"),) in client.peer_certificate["subject"]
        assert server.peer_certificate is not None
        assert (("commonName", "the client"),) in server.peer_certificate["subject"]


async def test_without_any_verification(certificates: Certificates) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    async with joined(secure_router(certificates.server)) as (client, _):
        await client.start_tls(context)
        assert await works(client)
        assert client.peer_certificate == {}


async def test_a_command_of_ones_own(certificates: Certificates) -> None:
    class Secure(StartTLS, name="secure"):
        user: str

    router = Router()
    users: list[str] = []

    @router.responder(Secure)
    async def secure(command: Secure) -> ssl.SSLContext:
        users.append(command.user)
        return certificates.server

    router.responder(Repeat)(repeat)
    async with joined(router) as (client, _):
        await client.start_tls(certificates.client, command=Secure(user="ann"))
        assert users == ["ann"]
        assert await client.call(Repeat(text="ab")) == Text(text="ab")
        with pytest.raises(StartTLSError):
            await client.start_tls(certificates.client)


async def repeat(command: Repeat) -> Text:
    return Text(text=command.text)


async def test_calls_in_flight_both_ways_go_on(certificates: Certificates) -> None:
    router = secure_router(certificates.server)
    async with joined(router, secure_router(certificates.client)) as (client, server):
        numbers = range(500)

        def calls() -> list[asyncio.Task[Data]]:
            return [
                asyncio.create_task(side.call(Echo(data=b"%d" % n)))
                for n in numbers
                for side in (client, server)
            ]

        before = calls()
        beginning = asyncio.create_task(client.start_tls(certificates.client))
        await asyncio.sleep(0)
        meanwhile = calls()
        await beginning
        answers = await asyncio.gather(*before, *meanwhile)
        assert [answer.data for answer in answers] == [b"%d" % n for n in numbers for _ in "cs"] * 2


@pytest.mark.parametrize("caller", ["client", "server"])
async def test_while_the_transports_are_full(caller: str, certificates: Certificates) -> None:
    router = secure_router(certificates.server)
    async with joined(router, secure_router(certificates.client)) as (client, server):
        calls = [
            asyncio.create_task(side.call(Echo(data=LARGE)))
            for _ in range(100)
            for side in (client, server)
        ]
        await until(lambda: client._link.writer.is_full and server._link.writer.is_full)
        if caller == "client":
            await client.start_tls(certificates.client)
        else:
            await server.start_tls(certificates.server)
        assert {len((await call).data) for call in calls} == {len(LARGE)}
        assert is_encrypted(server)


async def test_while_a_peer_does_not_read_its_answers(certificates: Certificates) -> None:
    # The transport is full when the handshake is to begin, and TLS must not be told so.
    router = secure_router(certificates.server)
    router.responder(Make)(make)
    async with raw_client_of(router) as (peer, connection):
        ours = connection._link.transport.get_extra_info("socket")
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16_384)
        makes: list[Box] = [
            {b"_ask": b"%d" % n, b"_command": b"Make", b"size": b"65000"} for n in range(15)
        ]
        await peer.send(*makes, START)
        await until(lambda: connection._link.writer.is_locked)
        assert connection._link.writer.is_full
        in_the_clear = 0
        while await peer.receive() != {b"_answer": b"tls"}:
            in_the_clear += 1
        secure = SecurePeer(peer, certificates.client, "localhost")
        await secure.shake_hands()
        for number in range(in_the_clear, 15):
            assert (await secure.receive())[b"_answer"] == b"%d" % number
        assert in_the_clear > 0
        assert (await secure.ask(EVIL))[b"data"] == b"injected"


# -- What is said in the clear, and what is not --------------------------------------------------


async def test_what_the_caller_says_meanwhile_goes_out_encrypted(
    certificates: Certificates,
) -> None:
    ran: list[bytes] = []
    async with raw_server_of(secure_router(certificates.client, ran=ran)) as (connection, peer):
        beginning = asyncio.create_task(connection.start_tls(certificates.client))
        ask = await peer.receive()
        assert ask[b"_command"] == b"StartTLS"
        call = asyncio.create_task(connection.call(Echo(data=b"secret")))
        # The peer's own ask came before it knew of TLS; its answer waits as well.
        await peer.send({b"_ask": b"1", b"_command": b"Echo", b"data": b"early"})
        await until(lambda: ran)
        await settled()
        await peer.send({b"_answer": ask[b"_ask"]})
        secure = SecurePeer(peer, certificates.server)
        await secure.shake_hands()  # the next bytes are TLS's: nothing came in between
        await beginning
        first, second = await secure.receive(), await secure.receive()
        assert first == {b"_answer": b"1", b"data": b"early"}
        assert second[b"data"] == b"secret"
        await secure.send({b"_answer": second[b"_ask"], b"data": b"told"})
        assert await call == Data(data=b"told")


async def test_what_the_one_who_is_called_says_meanwhile_goes_out_encrypted(
    certificates: Certificates,
) -> None:
    router = secure_router(certificates.server)
    waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @router.responder(Wait)
    async def wait(command: Wait) -> Text:
        await waiting
        return Text(text="secret")

    async with raw_client_of(router) as (peer, connection):
        await peer.send({b"_ask": b"1", b"_command": b"Wait", b"key": b"1"}, START)
        assert await peer.receive() == {b"_answer": b"tls"}
        waiting.set_result(None)
        call = asyncio.create_task(connection.call(Echo(data=b"secret too")))
        await settled()
        secure = SecurePeer(peer, certificates.client, "localhost")
        await secure.shake_hands()
        boxes = [await secure.receive(), await secure.receive()]
        assert {b"_answer": b"1", b"text": b"secret"} in boxes
        call.cancel()


# -- What is injected in the clear ---------------------------------------------------------------


@pytest.mark.parametrize("cut", range(0, len(encode_box(EVIL)) + 1, 3))
async def test_an_ask_behind_the_one_for_tls_is_never_run(
    cut: int, certificates: Certificates, log: LogCapture
) -> None:
    ran: list[bytes] = []
    router = secure_router(certificates.server, ran=ran)
    async with raw_client_of(router) as (peer, connection):
        evil = encode_box(EVIL)
        await peer.write(encode_box(START) + evil[:cut])
        assert await peer.receive() == {b"_answer": b"tls"}
        await peer.write(evil[cut:])
        secure = SecurePeer(peer, certificates.client, "localhost")
        with pytest.raises((ssl.SSLError, EOFError, ConnectionError)):
            await secure.shake_hands()
        await assert_lost(connection, OSError)
        assert not ran
        assert "the TLS handshake failed" in log.only_line()


@pytest.mark.parametrize("cut", [0, 1, 20, 1000])
async def test_an_answer_behind_the_one_for_tls_is_never_taken(
    cut: int, certificates: Certificates
) -> None:
    ran: list[bytes] = []
    async with raw_server_of(secure_router(certificates.client, ran=ran)) as (connection, peer):
        call = asyncio.create_task(connection.call(Echo(data=b"what?")))
        tag = (await peer.receive())[b"_ask"]
        beginning = asyncio.create_task(connection.start_tls(certificates.client))
        evil = encode_box({b"_answer": tag, b"data": b"injected"}) + encode_box(EVIL)
        start = encode_box({b"_answer": (await peer.receive())[b"_ask"]})
        await peer.write(start + evil[:cut])
        await settled(3)
        await peer.write(evil[cut:])
        for lost in (beginning, call):
            with pytest.raises(ConnectionLostError) as caught:
                await lost
            assert isinstance(caught.value.__cause__, ssl.SSLError)
        assert not ran


async def test_an_ask_in_the_clear_behind_a_whole_handshake_is_never_run(
    certificates: Certificates,
) -> None:
    ran: list[bytes] = []
    async with raw_client_of(secure_router(certificates.server, ran=ran)) as (peer, connection):
        await peer.ask(START)
        secure = SecurePeer(peer, certificates.client, "localhost")
        await secure.shake_hands()
        await peer.send(EVIL)
        await assert_lost(connection, OSError)
        assert not ran


# -- How the bytes come --------------------------------------------------------------------------


async def test_the_handshake_in_one_piece_with_the_answer(certificates: Certificates) -> None:
    async with raw_client_of(secure_router(certificates.server)) as (peer, connection):
        beginning = asyncio.create_task(connection.start_tls(certificates.server))
        ask = await peer.receive()
        secure = SecurePeer(peer, certificates.client, "127.0.0.1")
        await peer.write(encode_box({b"_answer": ask[b"_ask"]}) + secure.hello())
        await secure.shake_hands()
        await beginning
        assert (await secure.ask(EVIL))[b"data"] == b"injected"


async def test_the_handshake_in_one_piece_with_the_ask(certificates: Certificates) -> None:
    # A client that is sure of the answer.
    async with raw_client_of(secure_router(certificates.server)) as (peer, _):
        secure = SecurePeer(peer, certificates.client, "127.0.0.1")
        await peer.write(encode_box(START) + secure.hello())
        await secure.shake_hands(await read_behind(peer, encode_box({b"_answer": b"tls"})))
        assert (await secure.ask(EVIL))[b"data"] == b"injected"


async def read_behind(peer: RawPeer, expected: bytes) -> bytes:
    data = b""
    while len(data) < len(expected):
        data += await peer.read()
    assert data.startswith(expected)
    return data[len(expected) :]


async def test_byte_by_byte(certificates: Certificates) -> None:
    async with raw_client_of(secure_router(certificates.server)) as (peer, _):
        for byte in encode_box(START):
            await peer.write(bytes([byte]))
            await asyncio.sleep(0)
        assert await peer.receive() == {b"_answer": b"tls"}
        secure = SecurePeer(peer, certificates.client, "localhost")
        secure.piece_size = 1
        await secure.shake_hands()
        assert (await secure.ask(EVIL))[b"data"] == b"injected"


async def test_an_ask_in_one_piece_with_the_end_of_the_handshake(
    certificates: Certificates,
) -> None:
    # asyncio hands it over before whoever waits for the handshake knows of its end.
    async with raw_client_of(secure_router(certificates.server)) as (peer, _):
        await peer.ask(START)
        secure = SecurePeer(peer, certificates.client, "localhost")
        await peer.write(secure.hello())
        held: list[bytes] = []
        write = peer.write

        async def hold(data: bytes) -> None:
            held.append(data)

        peer.write = hold  # type: ignore[method-assign]
        await secure.shake_hands()
        await secure.send(EVIL)
        await write(b"".join(held))
        assert (await secure.receive())[b"data"] == b"injected"


# -- More than once ------------------------------------------------------------------------------


async def test_a_second_time_is_refused_here(certificates: Certificates) -> None:
    async with joined(secure_router(certificates.server)) as (client, server):
        await client.start_tls(certificates.client)
        for side, context in ((client, certificates.client), (server, certificates.server)):
            with pytest.raises(StartTLSError, match="encrypted already"):
                await side.start_tls(context)
        assert await works(client)


async def test_a_second_time_is_refused_there(certificates: Certificates) -> None:
    async with raw_client_of(secure_router(certificates.server)) as (peer, _):
        await peer.ask(START)
        secure = SecurePeer(peer, certificates.client, "localhost")
        await secure.shake_hands()
        refused = await secure.ask(START)
        assert refused[b"_error_code"] == b"TLS_ERROR"
        assert b"encrypted already" in refused[b"_error_description"]
        assert (await secure.ask(EVIL))[b"data"] == b"injected"


async def test_twice_at_once(certificates: Certificates) -> None:
    async with joined(secure_router(certificates.server)) as (client, _):
        outcomes = await asyncio.gather(
            *(client.start_tls(certificates.client) for _ in range(3)), return_exceptions=True
        )
        assert [type(outcome) for outcome in outcomes] == [type(None), StartTLSError, StartTLSError]
        assert await works(client)


@pytest.mark.parametrize("kind", KINDS)
async def test_both_sides_at_once_end_clearly(kind: str, certificates: Certificates) -> None:
    context = certificates.unnamed_client()
    router = secure_router(certificates.server)
    async with joined_by(kind, router, secure_router(context)) as (client, server):
        outcomes = await asyncio.gather(
            client.start_tls(context),
            server.start_tls(certificates.server),
            return_exceptions=True,
        )
        for outcome in outcomes:
            assert isinstance(outcome, ConnectionLostError)
            assert isinstance(outcome.__cause__, StartTLSError)
            assert "both sides asked" in str(outcome)
        await client.wait_closed()
        await server.wait_closed()


async def test_one_that_waits_its_turn_while_the_peer_begins(certificates: Certificates) -> None:
    async with raw_client_of(secure_router(certificates.server)) as (peer, connection):
        calls = await fill(connection, Echo(data=LARGE))
        late = asyncio.create_task(connection.start_tls(certificates.server))
        await peer.send(START)
        await until(lambda: connection._link.writer.is_locked)
        while (box := await peer.receive()) != {b"_answer": b"tls"}:
            assert box[b"_command"] == b"Echo"
        secure = SecurePeer(peer, certificates.client, "localhost")
        await secure.shake_hands()
        with pytest.raises(StartTLSError, match="encrypted already"):
            await late
        assert not connection.is_closed
        for call in calls:
            call.cancel()


# -- Beside the hooks of on_connect --------------------------------------------------------------


@pytest.mark.parametrize("caller", ["client", "server"])
async def test_in_a_hook(caller: str, certificates: Certificates) -> None:
    server_router = secure_router(certificates.server)
    client_router = secure_router(certificates.client)

    @(client_router if caller == "client" else server_router).on_connect
    async def begin(connection: Connection) -> None:
        is_client = caller == "client"
        await connection.start_tls(certificates.client if is_client else certificates.server)

    async with joined(server_router, client_router) as (client, server):
        assert await works(client)
        assert await works(server)
        assert is_encrypted(client)


async def test_in_a_hook_of_each_side_ends_clearly(
    certificates: Certificates, log: LogCapture
) -> None:
    server_router = secure_router(certificates.server)
    client_router = secure_router(certificates.client)

    @server_router.on_connect
    async def begin(connection: Connection) -> None:
        await connection.start_tls(certificates.server)

    @client_router.on_connect
    async def begin_too(connection: Connection) -> None:
        await connection.start_tls(certificates.client)

    with pytest.raises(ConnectionLostError) as caught:
        async with joined(server_router, client_router):
            pass
    assert isinstance(caught.value.__cause__, (StartTLSError, OSError))


@pytest.mark.parametrize("kind", KINDS)
async def test_while_a_hook_of_the_other_side_waits_for_our_answer(
    kind: str, certificates: Certificates
) -> None:
    server_router = secure_router(certificates.server)
    client_router = secure_router(certificates.client)
    events: list[str] = []

    @client_router.on_connect
    async def begin(connection: Connection) -> None:
        await connection.start_tls(certificates.client, server_hostname="localhost")
        events.append("the client's hook is done")

    @server_router.on_connect
    async def greet(connection: Connection) -> None:
        assert await works(connection)
        events.append("the server's hook is done")

    async with joined_by(kind, server_router, client_router):
        # Commands would have waited for the server's hook. TLS has not.
        await until(lambda: len(events) == 2)
        assert events == ["the client's hook is done", "the server's hook is done"]


async def test_it_waits_for_no_hook_and_commands_do(certificates: Certificates) -> None:
    ran: list[bytes] = []
    router = secure_router(certificates.server, ran=ran)
    allowed = asyncio.Event()

    @router.on_connect
    async def wait(connection: Connection) -> None:
        await allowed.wait()

    async with raw_client_of(router) as (peer, _):
        await peer.send(EVIL, START)
        assert await peer.receive() == {b"_answer": b"tls"}
        secure = SecurePeer(peer, certificates.client, "localhost")
        await secure.shake_hands()
        assert not ran
        allowed.set()
        assert await secure.receive() == {b"_answer": b"evil", b"data": b"injected"}


# -- Time, and cancelling ------------------------------------------------------------------------


async def test_a_peer_that_never_answers(certificates: Certificates) -> None:
    async with raw_server_of() as (connection, peer):
        call = asyncio.create_task(connection.call(Echo(data=b"")))
        await asyncio.sleep(0)
        with pytest.raises(CallTimeoutError, match=r"StartTLS: no answer from .* within 0\.05"):
            await connection.start_tls(certificates.client, timeout=0.05)
        # It may begin at any time, so nothing can be said any more.
        with pytest.raises(ConnectionLostError, match="gave up waiting"):
            await call
        assert [box[b"_command"] for box in await peer.receive_all()] == [b"Echo", b"StartTLS"]
        await connection.wait_closed()


async def test_a_peer_that_answers_and_never_shakes_hands(certificates: Certificates) -> None:
    async with raw_server_of() as (connection, peer):
        beginning = asyncio.create_task(connection.start_tls(certificates.client, timeout=0.2))
        await peer.send({b"_answer": (await peer.receive())[b"_ask"]})
        with pytest.raises(CallTimeoutError):
            await beginning
        await assert_lost(connection, ConnectionAbortedError)


async def test_cancelled_before_it_is_sent(certificates: Certificates) -> None:
    async with raw_server_of() as (connection, peer):
        calls = await fill(connection, Echo(data=LARGE))
        beginning = asyncio.create_task(connection.start_tls(certificates.client))
        await settled()
        beginning.cancel()
        with pytest.raises(asyncio.CancelledError):
            await beginning
        # The peer has heard nothing of it, and AMP goes on.
        for call in calls:
            box = await peer.receive()
            assert box[b"_command"] == b"Echo"
            await peer.send({b"_answer": box[b"_ask"], b"data": b""})
            assert await call == Data(data=b"")
        assert not connection._link.writer.is_locked
        assert not connection._link.handover.asking


async def test_cancelled_while_it_waits_for_the_answer(certificates: Certificates) -> None:
    async with raw_server_of() as (connection, peer):
        beginning = asyncio.create_task(connection.start_tls(certificates.client))
        await peer.receive()
        beginning.cancel()
        with pytest.raises(asyncio.CancelledError):
            await beginning
        assert connection.is_closed
        await assert_lost(connection, ConnectionAbortedError)
        assert await peer.is_at_end()


async def test_cancelled_in_the_handshake(certificates: Certificates) -> None:
    async with raw_server_of() as (connection, peer):
        beginning = asyncio.create_task(connection.start_tls(certificates.client))
        await peer.send({b"_answer": (await peer.receive())[b"_ask"]})
        assert await peer.read()  # the client's hello
        beginning.cancel()
        with pytest.raises(asyncio.CancelledError):
            await beginning
        await assert_lost(connection, ConnectionAbortedError)


# -- Closing, and peers that vanish --------------------------------------------------------------


@asynccontextmanager
async def at_phase(
    phase: str, certificates: Certificates
) -> AsyncIterator[tuple[RawPeer, Connection[Any], asyncio.Task[None] | None]]:
    """Bring a change to TLS to where a test wants it; gives the peer, our end and our call."""
    router = secure_router(certificates.server)
    if phase in {"asked", "shaking hands"}:
        async with raw_server_of(router, drain_timeout=60) as (connection, peer):
            call = asyncio.create_task(connection.start_tls(certificates.client))
            ask = await peer.receive()
            if phase == "shaking hands":
                await peer.send({b"_answer": ask[b"_ask"]})
                assert await peer.read()
            yield peer, connection, call
            call.cancel()
        return
    allowed = asyncio.Event()
    if phase == "being asked":
        router = Router()

        @router.responder(StartTLS)
        async def start_tls(command: StartTLS) -> ssl.SSLContext:
            await allowed.wait()
            return certificates.server

    async with raw_client_of(router, drain_timeout=60) as (peer, connection):
        await peer.send(START)
        if phase == "being asked":
            await until(lambda: connection._link.responses.running)
        else:
            assert await peer.receive() == {b"_answer": b"tls"}
        yield peer, connection, None
        allowed.set()
        connection.close(drain_timeout=0)


PHASES = ["asked", "shaking hands", "being asked", "answering the handshake"]


@pytest.mark.parametrize("phase", PHASES)
async def test_closing_at_once(phase: str, certificates: Certificates) -> None:
    async with at_phase(phase, certificates) as (peer, connection, call):
        connection.close(drain_timeout=0)
        await connection.wait_closed()
        if call is not None:
            with pytest.raises(ConnectionLostError):
                await call
        with pytest.raises((EOFError, ConnectionError, AmpError)):
            while True:
                await peer.receive()


@pytest.mark.parametrize("phase", PHASES)
async def test_draining_lets_it_finish(phase: str, certificates: Certificates) -> None:
    async with at_phase(phase, certificates) as (peer, connection, call):
        connection.close()
        await settled()
        assert not connection.is_closed
        if call is not None:
            call.cancel()
        elif phase == "answering the handshake":
            await SecurePeer(peer, certificates.client, "localhost").shake_hands()
            peer.socket.close()
        else:
            connection.close(drain_timeout=0)
        await connection.wait_closed()


async def test_what_was_answered_meanwhile_is_sent_before_the_end(
    certificates: Certificates,
) -> None:
    ran: list[bytes] = []
    async with raw_server_of(secure_router(certificates.client, ran=ran), drain_timeout=60) as (
        connection,
        peer,
    ):
        beginning = asyncio.create_task(connection.start_tls(certificates.client))
        ask = await peer.receive()
        await peer.send({b"_ask": b"1", b"_command": b"Echo", b"data": b"early"})
        await until(lambda: ran)
        connection.close()
        await peer.send({b"_answer": ask[b"_ask"]})
        secure = SecurePeer(peer, certificates.server)
        await secure.shake_hands()
        assert await secure.receive() == {b"_answer": b"1", b"data": b"early"}
        await beginning
        peer.socket.close()
        await connection.wait_closed()


@pytest.mark.parametrize("how", ["closes", "resets"])
@pytest.mark.parametrize("phase", PHASES)
async def test_a_peer_that_vanishes(phase: str, how: str, certificates: Certificates) -> None:
    async with at_phase(phase, certificates) as (peer, connection, call):
        if how == "closes":
            peer.socket.close()
        else:
            peer.reset()
        if phase == "being asked":
            return  # it is noticed when the responder is done
        if call is not None:
            with pytest.raises(ConnectionLostError):
                await call
        await assert_lost(connection, (OSError if phase != "asked" else Exception))


# -- Refused -------------------------------------------------------------------------------------


Refusal = Callable[[StartTLS], Awaitable[Any]]


async def refuse(command: StartTLS) -> Any:
    raise StartTLSError("not today")


async def fail(command: StartTLS) -> Any:
    raise ZeroDivisionError


async def give_a_clients_context(command: StartTLS) -> Any:
    return ssl.create_default_context()


async def give_rubbish(command: StartTLS) -> Any:
    return "a context"


@pytest.mark.parametrize(
    ("responder", "error", "logged"),
    [
        (None, UnhandledCommandError, ""),
        (refuse, StartTLSError, ""),
        (fail, UnknownRemoteError, "ZeroDivisionError"),
        (give_a_clients_context, UnknownRemoteError, "make it with ssl.PROTOCOL_TLS_SERVER"),
        (give_rubbish, UnknownRemoteError, "is answered with a SSLContext"),
    ],
    ids=["unhandled", "by its responder", "failed", "the wrong context", "rubbish"],
)
async def test_refused_and_amp_goes_on(
    responder: Any,
    error: type[Exception],
    logged: str,
    certificates: Certificates,
    log: LogCapture,
) -> None:
    router = example_router()
    if responder is not None:
        router.responder(StartTLS)(responder)
    async with joined(router) as (client, server):
        beginning = asyncio.create_task(client.start_tls(certificates.client))
        await asyncio.sleep(0)
        held = asyncio.create_task(client.call(Echo(data=b"held")))
        with pytest.raises(error):
            await beginning
        assert await held == Data(data=b"held")
        assert await works(client)
        assert not is_encrypted(server)
        assert logged in "".join(log.lines())
        assert bool(logged) == bool(log.lines())


async def test_what_follows_a_refused_ask_is_amp() -> None:
    async with raw_client_of(example_router()) as (peer, _):
        await peer.send(START, EVIL)
        assert (await peer.receive())[b"_error_code"] == b"UNHANDLED"
        assert (await peer.receive())[b"data"] == b"injected"


async def test_what_follows_a_refused_ask_is_amp_however_it_is_cut() -> None:
    router = example_router()
    allowed = asyncio.Event()

    @router.responder(StartTLS)
    async def refuse_later(command: StartTLS) -> ssl.SSLContext:
        await allowed.wait()
        raise StartTLSError("not today")

    async with raw_client_of(router) as (peer, connection):
        long = {b"_ask": b"0", b"_command": b"Echo", b"data": LARGE}
        data = encode_box(long)
        await peer.write(data[:1000])  # the reader knows now how much it waits for
        await until(lambda: connection._link.reader.pending_bytes)
        await peer.write(data[1000:] + encode_box(START) + encode_box(EVIL))
        assert len((await peer.receive())[b"data"]) == len(LARGE)
        await until(lambda: connection._link.responses.running)
        allowed.set()
        assert (await peer.receive())[b"_error_description"] == b"not today"
        assert (await peer.receive())[b"data"] == b"injected"


async def test_refused_by_a_peer_with_a_code_of_its_own(certificates: Certificates) -> None:
    async with raw_server_of() as (connection, peer):
        beginning = asyncio.create_task(connection.start_tls(certificates.client))
        tag = (await peer.receive())[b"_ask"]
        await peer.send({b"_error": tag, b"_error_code": b"NO", b"_error_description": b"no"})
        with pytest.raises(RemoteAmpError, match="NO: no"):
            await beginning
        call = asyncio.create_task(connection.call(Echo(data=b"")))
        await peer.send({b"_answer": (await peer.receive())[b"_ask"], b"data": b""})
        assert await call == Data(data=b"")


async def test_without_an_answer_asked_for_it_begins_nothing(certificates: Certificates) -> None:
    async with raw_client_of(secure_router(certificates.server)) as (peer, connection):
        await peer.send({b"_command": b"StartTLS"}, EVIL)
        assert (await peer.receive())[b"data"] == b"injected"
        assert not is_encrypted(connection)
        assert await peer.ask(START) == {b"_answer": b"tls"}


async def test_it_is_no_ordinary_call(certificates: Certificates) -> None:
    async with joined(secure_router(certificates.server)) as (client, _):
        with pytest.raises(AmpError, match=r"connection\.start_tls"):
            await client.call(StartTLS())
        assert await works(client)


# -- Contexts and names --------------------------------------------------------------------------


@pytest.mark.parametrize("given", [True, False], ids=["given", "from connect"])
async def test_a_certificate_for_another_name_is_refused(
    given: bool, certificates: Certificates
) -> None:
    other = certificates.server_called("example.org")
    async with joined(secure_router(other)) as (client, server):
        name = "localhost" if given else None
        with pytest.raises(ConnectionLostError) as caught:
            await client.start_tls(certificates.client, server_hostname=name)
        assert isinstance(caught.value.__cause__, ssl.SSLCertVerificationError)
        await assert_lost(server, OSError)
    async with joined(secure_router(other)) as (client, _):
        await client.start_tls(certificates.client, server_hostname="example.org")
        assert await works(client)


async def test_a_certificate_for_another_name_is_refused_by_a_client_that_is_called(
    certificates: Certificates, log: LogCapture
) -> None:
    other = certificates.server_called("example.org")
    async with joined(Router(), secure_router(certificates.client)) as (client, server):
        with pytest.raises(ConnectionLostError):
            await server.start_tls(other)
        await assert_lost(client, ssl.SSLCertVerificationError)
        assert "Hostname" in log.only_line() or "IP address mismatch" in log.only_line()


@pytest.mark.parametrize("caller", ["client", "server"])
async def test_an_authority_that_is_not_trusted(caller: str, certificates: Certificates) -> None:
    stranger = ssl.create_default_context()
    router = secure_router(certificates.server)
    async with joined(router, secure_router(stranger)) as (client, server):
        with pytest.raises(ConnectionLostError):
            if caller == "client":
                await client.start_tls(stranger)
            else:
                await server.start_tls(certificates.server)
        await assert_lost(client, ssl.SSLCertVerificationError)
        await assert_lost(server, OSError)


@pytest.mark.parametrize("caller", ["client", "server"])
async def test_a_client_without_the_certificate_that_is_asked_for(
    caller: str, certificates: Certificates
) -> None:
    router = secure_router(certificates.strict_server)
    async with joined(router, secure_router(certificates.client)) as (client, server):
        # With TLS 1.3 the client is through with the handshake before the server refuses it.
        with pytest.raises(ConnectionLostError):
            if caller == "client":
                await client.start_tls(certificates.client)
                await works(client)
            else:
                await server.start_tls(certificates.strict_server)
        await assert_lost(server, ssl.SSLError)
        await assert_lost(client, None)


async def test_the_peers_alert_is_the_cause(certificates: Certificates) -> None:
    async with raw_client_of(secure_router(certificates.server)) as (peer, connection):
        await peer.ask(START)
        secure = SecurePeer(peer, ssl.create_default_context(), "localhost")
        with pytest.raises(ssl.SSLCertVerificationError):
            await secure.shake_hands()
        await secure._flush()
        await assert_lost(connection, ssl.SSLError)


@pytest.mark.parametrize(
    ("side", "context", "name", "reason"),
    [
        ("server", None, None, "needs a context with a certificate"),
        ("server", ssl.PROTOCOL_TLS_CLIENT, None, "make it with ssl.PROTOCOL_TLS_SERVER"),
        ("client", ssl.PROTOCOL_TLS_SERVER, None, "make it with ssl.PROTOCOL_TLS_CLIENT"),
        ("client", ssl.PROTOCOL_TLS_CLIENT, None, "give server_hostname="),
        ("client", ssl.PROTOCOL_TLS_CLIENT, ".org", "no handshake can begin with this"),
    ],
)
async def test_what_cant_work_is_refused_before_the_peer_is_told(
    side: str, context: Any, name: str | None, reason: str, certificates: Certificates
) -> None:
    router = secure_router(certificates.server)
    async with joined_by("memory", router) as (client, server):
        connection = client if side == "client" else server
        with pytest.raises(StartTLSError, match=reason):
            await connection.start_tls(context and ssl.SSLContext(context), server_hostname=name)
        assert await works(client)
        assert not is_encrypted(server)


async def test_a_client_needs_no_context(certificates: Certificates) -> None:
    # It then trusts the authorities of the system, which is none of ours.
    async with joined(secure_router(certificates.server)) as (client, _):
        with pytest.raises(ConnectionLostError) as caught:
            await client.start_tls()
        assert isinstance(caught.value.__cause__, ssl.SSLCertVerificationError)


@pytest.mark.parametrize("garbage", [b"\0" * 500, b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\xff"])
async def test_garbage_for_a_handshake(
    garbage: bytes, certificates: Certificates, log: LogCapture
) -> None:
    async with raw_client_of(secure_router(certificates.server)) as (peer, connection):
        await peer.ask(START)
        await peer.write(garbage)
        if len(garbage) < 10:
            peer.socket.close()
        await assert_lost(connection, OSError)
        assert "the TLS handshake failed" in log.only_line()


async def test_on_a_connection_that_is_closed(certificates: Certificates) -> None:
    async with joined(secure_router(certificates.server)) as (client, _):
        client.close()
        await client.wait_closed()
        with pytest.raises(ConnectionLostError):
            await client.start_tls(certificates.client)


async def test_notes_that_came_before_are_taken(certificates: Certificates) -> None:
    lines: list[bytes] = []
    router = secure_router(certificates.server)

    @router.responder(Log)
    async def note(command: Log) -> None:
        lines.append(command.line)

    async with joined(router) as (client, _):
        for number in range(3):
            await client.call(Log(line=b"%d" % number))
        await client.start_tls(certificates.client)
        await client.call(Log(line=b"3"))
        assert await works(client)
        assert lines == [b"0", b"1", b"2", b"3"]


async def test_commands_in_each_others_places_are_refused_before_anything_is_sent() -> None:
    router: Router = Router()
    router.responder(Plain)(no_answer)
    async with joined(router) as (client, _):
        misfit: Any = Plain()
        with pytest.raises(EncodeError, match="Plain is no command for this"):
            await client.start_tls(ssl.create_default_context(), command=misfit)
        with pytest.raises(EncodeError, match="Plain is no command for this"):
            await client.switch_protocol(misfit, asyncio.Protocol)
        with pytest.raises(EncodeError, match="call start_tls"):
            await client.call_box("StartTLS")
        await client.call(Plain())


class Plain(Command):
    pass


async def no_answer(_: Plain) -> None:
    pass
