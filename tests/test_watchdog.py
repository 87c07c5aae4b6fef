from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from itertools import chain
from typing import Any

import pytest

from tests.example_commands import Repeat, Text, Wait, example_router
from tests.gate import Gate
from tests.peers import (
    QUESTION,
    LogCapture,
    RawPeer,
    joined,
    raw_client,
    raw_client_of,
    raw_server_of,
    until,
)
from typed_amp import (
    CallTimeoutError,
    Connection,
    ConnectionLostError,
    Limits,
    Router,
    connect,
    encode_box,
    serve,
)
from typed_amp.testing import connection_pair

KEEPALIVE = 0.05
LONG = 8 * KEEPALIVE
"""Much longer than a peer may be silent."""

ANSWERS = 60

PING = b"typed-amp.ping"


@asynccontextmanager
async def unread(
    limits: Limits | None = None,
) -> AsyncIterator[tuple[RawPeer, Connection[None]]]:
    """A peer that has asked for more than fits in between, and reads nothing by itself."""
    async with raw_client_of(
        example_router(), keepalive=KEEPALIVE, extensions=False, limits=limits
    ) as (peer, connection):
        ours: socket.socket = connection._link.transport.get_extra_info("socket")
        # The system says that bytes were taken when a third of its buffer is free.
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16_384)
        await peer.send(
            *[
                {b"_ask": b"%d" % tag, b"_command": b"Make", b"size": b"60000"}
                for tag in range(10, 10 + ANSWERS)
            ]
        )
        await until(lambda: connection._link.writer.is_full)
        yield peer, connection


async def all_is_read(peer: RawPeer, taken: int) -> None:
    """Read the rest of the answers."""
    while taken < ANSWERS * len(encode_box({b"_answer": b"10", b"data": bytes(60_000)})):
        data = await peer.read()
        assert data
        taken += len(data)


class Elapsed:
    """Says whether some time is over."""

    def __init__(self, seconds: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._end = self._loop.time() + seconds

    def __bool__(self) -> bool:
        return self._loop.time() >= self._end


async def answer_pings(peer: RawPeer, error: dict[bytes, bytes], pings: list[bytes]) -> None:
    """Answer with an error until the other end closes, and note each."""
    with suppress(EOFError, ConnectionError):
        while True:
            box = await peer.receive()
            if box[b"_command"] == PING:
                await peer.send({b"_error": box[b"_ask"], **error})
                pings.append(box[b"_ask"])


# -- Silence -------------------------------------------------------------------------------------


async def test_silent_peer_is_given_up(log: LogCapture) -> None:
    async with raw_server_of(keepalive=KEEPALIVE) as (connection, peer):
        loop = asyncio.get_running_loop()
        began = loop.time()
        with pytest.raises(
            ConnectionLostError, match=r"was lost: the peer was silent for 0\.\d+ s"
        ):
            await connection.call(Repeat(text="a"))
        assert loop.time() - began >= 3 * KEEPALIVE
        await connection.wait_closed()
        boxes = []
        with suppress(EOFError, ConnectionError):
            while True:
                boxes.append(await peer.receive())
        # It is not asked again as long as it owes an answer.
        assert [box[b"_command"] for box in boxes] == [b"Repeat", PING]
    assert "given up, since the peer was silent" in log.only_line()


async def test_silent_peer_is_given_up_on_which_nobody_waits() -> None:
    async with raw_client_of(example_router(), keepalive=KEEPALIVE) as (_, connection):
        await connection.wait_closed()
        with pytest.raises(ConnectionLostError, match="was silent"):
            await connection.call(Repeat(text="a"))


@pytest.mark.parametrize("extensions", [False, True])
async def test_peer_that_answers_with_an_error_lives(extensions: bool) -> None:
    error = {b"_error_code": b"UNHANDLED", b"_error_description": b"Unhandled Command"}
    async with raw_server_of(keepalive=KEEPALIVE, extensions=extensions) as (connection, peer):
        pings: list[bytes] = []
        answering = asyncio.create_task(answer_pings(peer, error, pings))
        over = Elapsed(LONG)
        await until(lambda: over and len(pings) > 2)
        assert not connection.is_closed
        connection.close()
        await connection.wait_closed()
        await answering


async def test_peer_that_speaks_is_not_asked() -> None:
    async with raw_server_of(keepalive=4 * KEEPALIVE) as (connection, peer):
        over = Elapsed(LONG)
        while not over:
            await peer.send({b"_command": b"Unknown"})
            await asyncio.sleep(KEEPALIVE)
        assert not connection.is_closed
        connection.close()
        assert await peer.receive_all() == []


async def test_two_of_ours_keep_a_call_alive_that_takes_long() -> None:
    router = Router()

    @router.responder(Wait)
    async def wait(command: Wait) -> Text:
        await asyncio.sleep(LONG)
        return Text(text="done")

    async with (
        serve(router, "127.0.0.1", 0, keepalive=KEEPALIVE) as server,
        connect("127.0.0.1", server.addresses[0][1], keepalive=KEEPALIVE) as connection,
    ):
        assert await connection.call(Wait()) == Text(text="done")


async def test_silence_is_allowed_where_nobody_asked_for_a_watch() -> None:
    async with raw_server_of(keepalive=None) as (connection, peer):
        over = Elapsed(LONG)
        await until(lambda: over)
        assert not connection.is_closed
        connection.close()
        assert await peer.receive_all() == []


async def test_program_that_was_stopped_itself_blames_nobody() -> None:
    async with raw_server_of(keepalive=KEEPALIVE) as (connection, peer):
        call = asyncio.create_task(connection.call(Repeat(text="a")))
        box = await peer.receive()
        over = Elapsed(LONG)
        while not over:  # nothing else runs meanwhile
            pass
        await peer.send({b"_answer": box[b"_ask"], b"text": b"a"})
        assert await call == Text(text="a")


async def test_many_silent_peers_are_given_up_and_one_that_speaks_is_not() -> None:
    async with (
        serve(example_router(), "127.0.0.1", 0, keepalive=4 * KEEPALIVE) as server,
        AsyncExitStack() as stack,
    ):
        connection = await connect("127.0.0.1", server.addresses[0][1])
        await stack.enter_async_context(connection)
        await connection.call(Repeat(text="a"))
        (ours,) = server.connections
        for _ in range(100):
            await stack.enter_async_context(raw_client(server))
        await until(lambda: len(server.connections) == 101)
        # One timer is for all of the server's, and one for the other end of this connection.
        scheduled: list[asyncio.TimerHandle] = vars(asyncio.get_running_loop())["_scheduled"]
        assert sum(not timer.cancelled() for timer in scheduled) <= 4
        await until(lambda: server.connections == (ours,))
        assert await connection.call(Repeat(text="a")) == Text(text="a")


async def test_connections_that_end_while_others_are_looked_at_cost_none(log: LogCapture) -> None:
    # Both ends of each are looked at in the same turn, and each ends the other.
    limits = Limits(idle_timeout=KEEPALIVE)
    async with AsyncExitStack() as stack:
        pairs = [
            await stack.enter_async_context(connection_pair(example_router(), limits=limits))
            for _ in range(50)
        ]
        for connection in chain(*pairs):
            await connection.wait_closed()
    assert log.lines(logging.WARNING) == []


def test_peers_are_watched_in_one_event_loop_after_the_other() -> None:
    async def give_up() -> None:
        async with raw_client_of(example_router(), keepalive=KEEPALIVE) as (_, connection):
            await connection.wait_closed()
            with pytest.raises(ConnectionLostError, match="was silent"):
                await connection.call(Repeat(text="a"))

    for _ in range(2):
        asyncio.run(give_up())


# -- A peer that doesn't read --------------------------------------------------------------------


async def test_peer_that_takes_its_answers_slowly_lives() -> None:
    async with unread() as (peer, connection):
        over = Elapsed(LONG)
        taken = 0
        while not over:
            taken += len(await peer.read())
            await asyncio.sleep(KEEPALIVE / 4)
        assert connection._link.writer.is_full  # there was something to take all the time
        assert not connection.is_closed
        await all_is_read(peer, taken)


async def test_peer_that_takes_nothing_is_given_up(log: LogCapture) -> None:
    async with unread() as (_, connection):
        await connection.wait_closed()
        with pytest.raises(ConnectionLostError, match="was silent"):
            await connection.call(Repeat(text="a"))
    assert "given up" in log.only_line()


async def test_peer_that_waits_since_this_side_does_not_read_lives() -> None:
    limits = Limits(max_requests=1)
    router = example_router()
    released = asyncio.Event()

    @router.responder(Wait)
    async def wait(command: Wait) -> Text:
        await released.wait()
        return Text(text="done")

    async with raw_client_of(router, keepalive=KEEPALIVE, limits=limits) as (peer, connection):
        await peer.send({b"_ask": b"1", b"_command": b"Wait"})
        await until(lambda: not connection._link.is_reading)
        over = Elapsed(LONG)
        await until(lambda: over)
        released.set()
        boxes = [await peer.receive() for _ in range(3)]
        # It was asked whether it is there all the same: to one that is gone that can't be sent.
        assert {box[b"_command"] for box in boxes} == {PING}
        assert {b"_answer": b"1", b"text": b"done"} in await peer.receive_all()


async def test_peer_that_is_gone_while_nothing_is_read_is_noticed() -> None:
    gate = Gate()
    limits = Limits(max_requests=1)
    async with raw_client_of(gate.router, keepalive=KEEPALIVE, limits=limits) as (peer, connection):
        await peer.send({b"_ask": b"1", b"_command": b"Wait"})
        await until(lambda: not connection._link.is_reading)
        peer.socket.close()
        await connection.wait_closed()
        assert gate.cancelled == [0]


async def test_peer_that_reads_slowly_lives_though_the_system_holds_much() -> None:
    size = 50_000_000
    async with raw_client_of(
        example_router(),
        keepalive=KEEPALIVE,
        extensions=False,
        limits=Limits(max_unwritten_bytes=size),
    ) as (peer, connection):
        ours: socket.socket = connection._link.transport.get_extra_info("socket")
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8_000_000)
        asks = [
            {b"_ask": b"%d" % tag, b"_command": b"Make", b"size": b"60000"} for tag in range(800)
        ]
        asking = asyncio.create_task(peer.send(*asks))
        await until(lambda: connection._link.writer.is_full)
        sent = connection._link.writer.sent_bytes
        over = Elapsed(LONG)
        while not over:
            await peer.read()
            await asyncio.sleep(KEEPALIVE / 2)
        # The system took nothing meanwhile, since it still had enough.
        assert connection._link.writer.sent_bytes == sent
        assert not connection.is_closed
        await asking


# -- A box that doesn't end ------------------------------------------------------------------------


async def trickle(peer: RawPeer, data: bytes) -> None:
    with suppress(ConnectionError):
        for i in range(len(data)):
            await peer.write(data[i : i + 1])
            await asyncio.sleep(KEEPALIVE / 5)


async def test_box_that_trickles_in_has_its_time_and_no_more(log: LogCapture) -> None:
    limits = Limits(box_timeout=LONG)
    async with raw_client_of(example_router(), keepalive=KEEPALIVE, limits=limits) as (
        peer,
        connection,
    ):
        loop = asyncio.get_running_loop()
        began = loop.time()
        trickling = asyncio.create_task(trickle(peer, b"\0\1a\1\0" + bytes(256)))
        await connection.wait_closed()
        assert loop.time() - began >= LONG
        await trickling
        with pytest.raises(
            ConnectionLostError, match=r"a box that is not complete after .* \(Limits.box_timeout\)"
        ):
            await connection.call(Repeat(text="a"))
    assert "the peer broke the protocol" in log.only_line()


async def test_box_that_takes_too_long_costs_none_that_was_asked_before(log: LogCapture) -> None:
    limits = Limits(box_timeout=KEEPALIVE)
    router = Router()

    @router.responder(Wait)
    async def wait(command: Wait) -> Text:
        await asyncio.sleep(LONG)
        return Text(text="done")

    async with raw_client_of(
        router, keepalive=KEEPALIVE, limits=limits, drain_timeout=10, extensions=False
    ) as (peer, _):
        await peer.write(encode_box({b"_ask": b"1", b"_command": b"Wait"}) + b"\0\1a")
        assert {b"_answer": b"1", b"text": b"done"} in await peer.receive_all()
    assert "Limits.box_timeout" in log.only_line()  # said once, however long it drains


async def test_boxes_that_follow_one_another_have_each_their_time() -> None:
    limits = Limits(box_timeout=3 * KEEPALIVE)
    data = encode_box({b"_ask": b"1", b"_command": b"Repeat", b"text": b"a"})
    async with raw_client_of(example_router(), limits=limits) as (peer, connection):
        over = Elapsed(LONG)
        await peer.write(data[:9])
        while not over:
            # There is always a box that is not complete, but never the same for long.
            await peer.write(data[9:] + data[:9])
            assert (await peer.receive())[b"_answer"] == b"1"
            await asyncio.sleep(KEEPALIVE / 2)
        assert not connection.is_closed


# -- Nothing goes on -------------------------------------------------------------------------------


async def closing_peer(connection: Connection[Any]) -> float:
    loop = asyncio.get_running_loop()
    began = loop.time()
    await connection.wait_closed()
    return loop.time() - began


@pytest.mark.parametrize("extensions", [False, True])
async def test_unused_connection_is_closed_though_pings_go_on(extensions: bool) -> None:
    limits = Limits(idle_timeout=LONG)
    async with (
        serve(
            example_router(),
            "127.0.0.1",
            0,
            limits=limits,
            keepalive=KEEPALIVE,
            extensions=extensions,
            drain_timeout=0,
        ) as server,
        connect("127.0.0.1", server.addresses[0][1], keepalive=KEEPALIVE) as connection,
    ):
        assert await connection.call(Repeat(text="a")) == Text(text="a")
        assert await closing_peer(connection) >= LONG * 0.9
        with pytest.raises(ConnectionLostError, match="the peer closed it"):
            await connection.call(Repeat(text="a"))


async def test_connection_that_is_used_is_not_closed() -> None:
    limits = Limits(idle_timeout=2 * KEEPALIVE)
    router = example_router()

    @router.responder(Wait)
    async def wait(command: Wait) -> Text:
        await asyncio.sleep(LONG)
        return Text(text="done")

    async with joined(router, limits=limits) as (client, server):
        over = Elapsed(LONG)
        while not over:
            await client.call(Repeat(text="a"))
        # One call that takes long is use as well, at both ends.
        assert await client.call(Wait()) == Text(text="done")
        await server.wait_closed()


async def test_answers_that_are_taken_slowly_are_use() -> None:
    async with unread(Limits(idle_timeout=2 * KEEPALIVE)) as (peer, connection):
        over = Elapsed(LONG)
        taken = 0
        while not over:
            taken += len(await peer.read())
            await asyncio.sleep(KEEPALIVE / 4)
        assert not connection.is_closed
        await all_is_read(peer, taken)


@pytest.mark.parametrize("known", [False, True])
async def test_any_answer_is_a_sign_of_life(known: bool) -> None:
    async with raw_server_of(keepalive=0.01) as (connection, peer):
        for _ in range(10):
            ping = await peer.receive()
            assert ping[b"_command"] == b"typed-amp.ping"
            error = {b"_error": ping[b"_ask"], b"_error_code": b"UNHANDLED"}
            await peer.send(
                {b"_answer": ping[b"_ask"]} if known else {**error, b"_error_description": b""}
            )
        assert not connection.is_closed


async def test_an_idle_connection_is_closed_whatever_pings_say() -> None:
    limits = Limits(idle_timeout=0.1)
    gate = Gate()
    async with raw_client_of(gate.router, limits=limits, keepalive=0.02) as (peer, connection):
        await peer.send({b"_ask": b"1", b"_command": b"Wait", b"key": b"0"})
        await gate.holds(1)

        async def answer_each() -> None:
            with suppress(EOFError, OSError):
                while True:
                    box = await peer.receive()
                    if b"_command" in box:
                        await peer.send({b"_answer": box[b"_ask"]})

        answering = asyncio.create_task(answer_each())
        await asyncio.sleep(0.3)  # the time itself is what is tried: something goes on
        assert not connection.is_closed
        gate.waiting[0].set_result("")
        await connection.wait_closed()
        await answering


async def test_a_call_that_was_given_up_is_no_use_of_a_connection() -> None:
    # A plain peer that never answers it doesn't know that nobody waits for it.
    limits = Limits(idle_timeout=LONG)
    async with raw_server_of(limits=limits, keepalive=None) as (connection, _):
        with pytest.raises(CallTimeoutError):
            await connection.call(Repeat(text="a"), timeout=0.01)
        await connection.wait_closed()


async def test_idle_connection_is_said_to_be_so_once(log: LogCapture) -> None:
    limits = Limits(idle_timeout=KEEPALIVE)
    async with raw_client_of(example_router(), limits=limits, drain_timeout=10) as (peer, _):
        await peer.ask({**QUESTION, b"features": b"\0\7closing"})
        announced = await peer.receive()
        over = Elapsed(LONG)
        await until(lambda: over)
        await peer.send({b"_answer": announced[b"_ask"]})
        assert await peer.is_at_end()
    assert len([line for line in log.lines(logging.INFO) if "idle for" in line]) == 1


def test_times_must_be_positive() -> None:
    with pytest.raises(ValueError, match=r"Limits\.box_timeout must be positive, not 0"):
        Limits(box_timeout=0)
