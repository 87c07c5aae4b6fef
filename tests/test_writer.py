"""Flow control, both ways: who is slow makes the other wait, and memory doesn't grow."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.example_commands import Data, Echo, Log, Make, Repeat, Text, Wait, example_router
from tests.peers import RawPeer, joined, raw_client_of, raw_server_of, settled, until
from typed_amp import (
    Box,
    CallTimeoutError,
    Connection,
    ConnectionLostError,
    Limits,
    Router,
    encode_box,
)
from typed_amp.writer import HIGH_WATER

LARGE = bytes(60_000)


def unsent(connection: Connection[Any]) -> int:
    return connection._link.transport.get_write_buffer_size()


async def fill(connection: Connection[Any], command: Any) -> list[asyncio.Task[Any]]:
    """Call until calls are held back, and a few times more; nobody reads at the other end."""
    tasks: list[asyncio.Task[Any]] = []
    while len(connection._link.writer.held()) < 5:
        tasks.append(asyncio.create_task(connection.call(command)))
        await settled(3)
    return tasks


async def stop(tasks: list[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


# -- A peer that doesn't read: calls wait --------------------------------------------------------


@pytest.mark.parametrize("command", [Echo(data=LARGE), Log(line=LARGE)], ids=["ask", "no answer"])
async def test_calls_wait_while_the_peer_does_not_read(command: Any) -> None:
    async with raw_server_of() as (connection, _):
        tasks = await fill(connection, command)
        tasks += [asyncio.create_task(connection.call(command)) for _ in range(1000)]
        await settled()
        # Nothing more was written: what waits is the callers' own.
        assert unsent(connection) <= 2 * HIGH_WATER + len(LARGE)
        await stop(tasks)
        assert not connection._link.writer.held()


async def test_calls_that_waited_go_on_in_their_order() -> None:
    async with raw_server_of() as (connection, peer):
        tasks = await fill(connection, Echo(data=LARGE))
        numbers = range(100)
        tasks += [asyncio.create_task(connection.call(Echo(data=b"%d" % n))) for n in numbers]
        answered = 0
        received: list[bytes] = []
        while answered < len(tasks):
            box = await peer.receive()
            received.append(box[b"data"])
            await peer.send({b"_answer": box[b"_ask"], b"data": b""})
            answered += 1
        assert received[-100:] == [b"%d" % n for n in numbers]
        assert await asyncio.gather(*tasks) == [Data(data=b"")] * len(tasks)


async def test_no_answer_commands_that_waited_return_when_they_are_on_their_way() -> None:
    async with raw_server_of() as (connection, peer):
        tasks = await fill(connection, Log(line=LARGE))
        held = [task for task in tasks if not task.done()]
        assert len(held) == 5
        while not all(task.done() for task in tasks):
            await peer.receive()
        assert await asyncio.gather(*tasks) == [None] * len(tasks)
        assert not connection._link.calls._untold  # nothing is remembered of them


async def test_no_answer_commands_in_a_tight_loop_wait() -> None:
    async with raw_server_of() as (connection, peer):
        sent = 0

        async def flood() -> None:
            nonlocal sent
            while True:
                await connection.call(Log(line=LARGE))
                sent += 1

        task = asyncio.create_task(flood())
        await until(lambda: connection._link.writer.held())
        stopped_at = sent
        await settled()
        assert sent == stopped_at
        assert unsent(connection) <= 2 * HIGH_WATER + len(LARGE)
        for _ in range(stopped_at + 3):
            await peer.receive()
        assert sent > stopped_at
        await stop([task])


async def test_held_back_call_that_times_out_is_never_sent() -> None:
    async with raw_server_of() as (connection, peer):
        tasks = await fill(connection, Echo(data=LARGE))
        commands: list[Any] = [Repeat(text="never"), Log(line=b"never")]
        for command in commands:
            with pytest.raises(CallTimeoutError):
                await connection.call(command, timeout=0.01)
        last = asyncio.create_task(connection.call(Repeat(text="last")))
        while (box := await peer.receive())[b"_command"] != b"Repeat":
            assert box[b"_command"] == b"Echo"
        assert box[b"text"] == b"last"
        await stop([*tasks, last])


async def test_held_back_calls_fail_when_the_connection_goes() -> None:
    async with raw_server_of() as (connection, peer):
        tasks = await fill(connection, Echo(data=LARGE))
        tasks += await fill_more(connection)
        peer.socket.close()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {ConnectionLostError}


@pytest.mark.parametrize("end", ["reset by the peer", "closed here", "not AMP"])
async def test_calls_that_fail_say_whether_they_were_sent(end: str) -> None:
    async with raw_server_of() as (connection, peer):
        tasks = await fill(connection, Echo(data=LARGE))
        asks = len(tasks)
        tasks += await fill_more(connection)
        match end:
            case "reset by the peer":
                peer.socket.close()
            case "closed here":
                connection.close()
            case _:
                await peer.write(b"HTTP/1.1 400 Bad Request")
        sent: list[bool] = []
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            assert isinstance(outcome, ConnectionLostError)
            sent.append(outcome.was_sent)
        assert sent == [True] * (asks - 5) + [False] * (5 + 3)
        # What was called not sent doesn't go out afterwards.
        if end == "closed here":
            assert len(await peer.receive_all()) == asks - 5


async def fill_more(connection: Connection[Any]) -> list[asyncio.Task[Any]]:
    tasks = [asyncio.create_task(connection.call(Log(line=b""))) for _ in range(3)]
    await settled()
    return tasks


# -- A peer that asks and doesn't read its answers: it is not read from ------------------------


def ask_for(size: int, tag: int) -> Box:
    return {b"_ask": b"%d" % tag, b"_command": b"Make", b"size": b"%d" % size}


async def ask_without_reading(peer: RawPeer, connection: Connection[Any]) -> int:
    """Ask until the other end stops reading and the kernel takes no more; say how often."""
    asked = 0
    while True:
        # The padding fills the kernel's buffers sooner.
        data = encode_box({**ask_for(60_000, asked), b"padding": bytes(10_000)})
        if peer.write_now(data) != len(data):
            return asked
        asked += 1
        await settled(3)


async def test_peer_that_does_not_read_its_answers_is_not_read_from() -> None:
    async with raw_client_of(example_router()) as (peer, connection):
        asked = await ask_without_reading(peer, connection)
        assert not connection._link.is_reading
        assert unsent(connection) <= 2 * HIGH_WATER + 60_000
        # It goes on where it stopped when the peer reads. (The last ask was cut.)
        for number in range(asked):
            answer = await peer.receive()
            assert answer[b"_answer"] == b"%d" % number
            assert len(answer[b"data"]) == 60_000
        assert connection._link.is_reading


async def test_answers_to_a_burst_of_asks_are_all_taken() -> None:
    async with raw_client_of(example_router()) as (peer, connection):
        await peer.send(*[ask_for(60_000, tag) for tag in range(200)])
        await until(lambda: not connection._link.is_reading)
        tags = {(await peer.receive())[b"_answer"] for _ in range(200)}
        assert tags == {b"%d" % tag for tag in range(200)}


async def test_it_is_read_from_while_an_answer_of_its_own_is_awaited() -> None:
    # Or two that call each other would wait for ever.
    async with raw_client_of(example_router()) as (peer, connection):
        await peer.send(*[ask_for(60_000, tag) for tag in range(200)])
        await until(lambda: not connection._link.is_reading)
        call = asyncio.create_task(connection.call(Repeat(text="ab")))
        await until(lambda: connection._link.is_reading)
        await peer.send({b"_answer": b"1", b"text": b"abab"})
        # The call itself waits behind the answers; its answer came before it was asked, as only a
        # peer that guesses can.
        assert await call == Text(text="abab")
        await until(lambda: not connection._link.is_reading)


async def test_even_then_memory_has_a_limit() -> None:
    limits = Limits(
        max_held_bytes=1_000_000, max_unwritten_bytes=HIGH_WATER, max_box_bytes=HIGH_WATER
    )
    router = example_router()
    async with raw_client_of(router, limits=limits) as (peer, connection):
        calls = [asyncio.create_task(connection.call(Repeat(text="ab")))]
        asked = await ask_without_reading(peer, connection)
        assert unsent(connection) <= 6 * HIGH_WATER
        assert asked > 10
        await stop(calls)


# -- Nothing may be written for now ----------------------------------------------------------------


async def test_what_is_taken_while_it_is_locked_goes_out_in_order() -> None:
    async with raw_client_of(example_router()) as (peer, connection):
        writer = connection._link.writer
        writer.write(b"\0\1a\0\0\0\0")
        writer.lock()  # what was taken before goes out
        writer.write_answer(b"\0\1b\0\0\0\0")
        assert not writer.write_ask("key", b"\0\1c\0\0\0\0")
        assert not writer.write_ask("other", b"never")
        assert writer.withdraw("other")
        assert await peer.receive() == {b"a": b""}
        writer.flush()
        await settled()
        with pytest.raises(BlockingIOError):
            peer.socket.recv(1)
        writer.unlock()
        assert [await peer.receive(), await peer.receive()] == [{b"b": b""}, {b"c": b""}]


async def test_answers_that_pile_up_while_it_is_locked_choke() -> None:
    async with raw_client_of(example_router()) as (_, connection):
        writer = connection._link.writer
        writer.lock()
        writer.write_answer(LARGE)
        writer.write_answer(LARGE)
        assert not writer.is_choked
        writer.write_answer(LARGE)
        assert writer.is_choked
        assert not unsent(connection)
        writer.unlock()
        assert unsent(connection) or not writer.is_choked


async def test_whoever_waits_for_room_is_woken_by_room_or_by_the_end() -> None:
    async with raw_client_of(example_router()) as (_, connection):
        writer = connection._link.writer
        for wake in (writer.resume, writer.discard):
            writer.pause()
            rooms = [writer.room() for _ in range(3)]
            await settled()
            assert not any(room.done() for room in rooms)
            wake()
            await asyncio.gather(*rooms)


# -- Both at once --------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 60_000])
async def test_two_that_call_each_other_do_not_deadlock(size: int) -> None:
    async with joined(example_router(), example_router()) as (client, server):
        calls = [side.call(Echo(data=bytes(size))) for _ in range(300) for side in (client, server)]
        answers = await asyncio.gather(*calls)
        assert {len(answer.data) for answer in answers} == {size}


async def test_many_small_asks_for_large_answers_both_ways_do_not_deadlock() -> None:
    limits = Limits(max_held_bytes=1_000_000)
    async with joined(example_router(), example_router(), limits=limits) as (client, server):
        async with asyncio.timeout(10):
            calls = [side.call(Make(size=60_000)) for _ in range(200) for side in (client, server)]
            await asyncio.gather(*calls)


async def test_no_answer_commands_both_ways_do_not_deadlock() -> None:
    received = [0, 0]

    def router(index: int) -> Router:
        router = Router()

        @router.responder(Log)
        async def note(command: Log) -> None:
            received[index] += 1

        return router

    async with joined(router(0), router(1)) as (client, server):
        async with asyncio.timeout(10):
            await asyncio.gather(
                *[side.call(Log(line=LARGE)) for _ in range(300) for side in (client, server)]
            )
            await until(lambda: received == [300, 300])


async def test_calls_given_up_on_both_sides_do_not_block_them() -> None:
    async with joined(example_router(), example_router()) as (client, server):
        calls = [
            asyncio.create_task(side.call(Make(size=60_000)))
            for _ in range(300)
            for side in (client, server)
        ]
        await until(lambda: client._link.writer.is_full and server._link.writer.is_full)
        await stop(calls)
        async with asyncio.timeout(10):
            assert await client.call(Repeat(text="ab")) == Text(text="ab")
            assert await server.call(Repeat(text="ab")) == Text(text="ab")


async def test_calls_given_up_on_both_sides_do_not_block_commands_without_an_answer() -> None:
    received: list[bytes] = []

    def router() -> Router:
        router = example_router()

        @router.responder(Log)
        async def note(command: Log) -> None:
            received.append(command.line)

        return router

    async with joined(router(), router()) as (client, server):
        calls = [
            asyncio.create_task(side.call(Make(size=60_000)))
            for _ in range(300)
            for side in (client, server)
        ]
        await until(lambda: client._link.writer.is_full and server._link.writer.is_full)
        await stop(calls)
        async with asyncio.timeout(10):
            await asyncio.gather(client.call(Log(line=b"1")), server.call(Log(line=b"2")))
            await until(lambda: len(received) == 2)


async def test_asks_that_wait_for_the_hooks_have_a_limit() -> None:
    router = example_router()

    @router.on_connect
    async def never_done(connection: Connection) -> None:
        await connection.call(Wait())

    limits = Limits(max_held_bytes=1_000_000)
    async with raw_client_of(router, limits=limits) as (peer, connection):
        sent = 0
        data = encode_box({**ask_for(1, 1), b"padding": bytes(60_000)})
        while peer.write_now(data) == len(data):
            sent += len(data)
            assert sent < 50_000_000, "it takes whatever comes"
            await settled(3)
        assert not connection.is_closed
