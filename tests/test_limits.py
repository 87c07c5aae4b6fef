"""What a peer can make this side hold, and that it can't have more."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from tests.example_commands import CountDown, Data, Echo, Log, Make, Repeat, Text, example_router
from tests.gate import Gate
from tests.peers import (
    HOST,
    LogCapture,
    joined,
    port_of,
    raw_client,
    raw_client_of,
    settled,
    until,
)
from typed_amp import Command, Connection, Limits, connect, serve
from typed_amp.box import encode_box
from typed_amp.responses import ASKS_PER_TURN
from typed_amp.writer import HIGH_WATER

MAX_BOX_BYTES = 61_000


def ask(key: int) -> dict[bytes, bytes]:
    return {b"_ask": b"%d" % key, b"_command": b"Wait", b"key": b"%d" % key}


async def test_no_more_responders_run_than_may() -> None:
    gate = Gate()
    async with raw_client_of(gate.router, limits=Limits(max_requests=3)) as (peer, connection):
        await peer.send(*[ask(key) for key in range(10)])
        await gate.holds(3)
        await settled()
        assert len(gate.waiting) == 3
        assert not connection._link.is_reading
        for key in range(10):
            await until(lambda key=key: key in gate.waiting)  # type: ignore[misc]
            assert connection._link.responses.running <= 3
            gate.waiting[key].set_result("")
        answers = [await peer.receive() for _ in range(10)]
        assert [answer[b"_answer"] for answer in answers] == [b"%d" % key for key in range(10)]
        assert connection._link.is_reading


async def test_what_this_side_waits_for_gets_through_and_the_rest_is_busy(log: LogCapture) -> None:
    gate = Gate()
    limits = Limits(max_requests=1, max_held_bytes=2_000)
    async with raw_client_of(gate.router, limits=limits, extensions=False) as (peer, connection):
        call = asyncio.create_task(connection.call(Repeat(text="ab")))
        question = await peer.receive()
        await peer.send(*[ask(key) for key in range(8)])
        refused = [await peer.receive() for _ in range(5)]
        assert {box[b"_error_code"] for box in refused} == {b"BUSY"}
        assert all(b"not carried out" in box[b"_error_description"] for box in refused)
        await peer.send({b"_answer": question[b"_ask"], b"text": b"came through"})
        assert await call == Text(text="came through")
        for key in range(3):
            await until(lambda key=key: key in gate.waiting)  # type: ignore[misc]
            gate.waiting[key].set_result("")
            assert (await peer.receive())[b"_answer"] == b"%d" % key
    assert "max_held_bytes" in log.only_line()


async def test_answers_that_are_not_read_wait_as_what_they_are_made_from() -> None:
    gate = Gate()
    limits = Limits(max_unwritten_bytes=200_000)
    async with raw_client_of(gate.router, limits=limits) as (peer, connection):
        await peer.send(*[ask(key) for key in range(300)])
        await gate.holds(300)
        text = "x" * 60_000
        for future in gate.waiting.values():
            future.set_result(text)
        await until(lambda: connection._link.writer.is_overfull)
        await settled()
        assert connection._link.writer.unwritten_bytes < 2 * 200_000
        for key in range(300):
            assert (await peer.receive())[b"_answer"] == b"%d" % key


async def test_asks_of_a_peer_that_does_not_read_its_answers_wait() -> None:
    limits = Limits(max_unwritten_bytes=200_000)
    async with raw_client_of(example_router(), limits=limits) as (peer, connection):
        asks = [
            {b"_ask": b"%d" % key, b"_command": b"Make", b"size": b"60000"} for key in range(300)
        ]
        sending = asyncio.create_task(peer.send(*asks))
        await until(lambda: connection._link.writer.is_choked)
        await settled()
        assert connection._link.writer.unwritten_bytes < 4 * 200_000
        assert connection.counters.requests_in_flight <= ASKS_PER_TURN
        for key in range(300):
            assert (await peer.receive())[b"_answer"] == b"%d" % key
        await sending


@pytest.mark.parametrize("most", [1, 2, 7])
@pytest.mark.parametrize(
    ("count", "command"),
    [(400, Echo(data=b"x")), (150, Echo(data=bytes(60_000))), (600, Make(size=60_000))],
    ids=["small", "large both ways", "large answers"],
)
async def test_two_sides_that_flood_each_other_come_to_an_end(
    most: int, count: int, command: Command[Data]
) -> None:
    limits = Limits(max_requests=most, max_unwritten_bytes=100_000)
    async with joined(example_router(), example_router(), limits=limits) as (client, server):
        calls = [side.call(command) for _ in range(count) for side in (client, server)]
        async with asyncio.timeout(20):
            answers = await asyncio.gather(*calls)
        assert len({answer.data for answer in answers}) == 1


@pytest.mark.parametrize(
    ("max_requests", "max_unwritten_bytes"), [(1, 1), (1_000, 1), (2, 1_000), (1_000, 70_000)]
)
async def test_what_is_unwritten_is_bounded_while_two_sides_wait_for_each_other(
    max_requests: int, max_unwritten_bytes: int
) -> None:
    """Each floods the other with large asks and with asks for large answers, and both go on."""
    limits = Limits(
        max_requests=max_requests,
        max_unwritten_bytes=max_unwritten_bytes,
        max_box_bytes=MAX_BOX_BYTES,
    )
    unwritten = 0
    async with joined(example_router(), example_router(), limits=limits) as sides:

        async def call(side: Connection, command: Command[Data]) -> None:
            nonlocal unwritten
            answer = await side.call(command)
            assert len(answer.data) == 60_000
            unwritten = max(unwritten, *(each._link.writer.unwritten_bytes for each in sides))

        commands = [Echo(data=bytes(60_000)), Make(size=60_000)]
        async with asyncio.timeout(20):
            await asyncio.gather(
                *(call(side, each) for _ in range(120) for side in sides for each in commands)
            )
    assert unwritten <= max_unwritten_bytes + 2 * (MAX_BOX_BYTES + HIGH_WATER)


async def test_responders_that_call_back_go_on_whatever_the_limits() -> None:
    # Each side runs all the responders that it may, and they wait for the other side's.
    limits = Limits(max_requests=2, max_unwritten_bytes=1)
    router = example_router()

    @router.responder(CountDown)
    async def count_down(command: CountDown, connection: Connection) -> Text:
        answer = await connection.call(Make(size=command.start))
        return Text(text=f"{len(answer.data)}")

    async with joined(router, example_router(), limits=limits) as (client, _):
        async with asyncio.timeout(20):
            answers = await asyncio.gather(
                *(client.call(CountDown(start=60_000)) for _ in range(99))
            )
        assert answers == [Text(text="60000")] * 99


async def test_a_flood_in_one_piece_leaves_others_their_turn() -> None:
    begun = 0
    router = example_router()

    @router.responder(Log)
    async def note(command: Log) -> None:
        nonlocal begun
        begun += 1

    async with (
        serve(router, HOST, 0) as server,
        connect(HOST, port_of(server)) as neighbour,
        raw_client(server) as peer,
    ):
        await neighbour.call(Repeat(text="ab"))
        flood = encode_box({b"_command": b"Log", b"line": b""}) * 5_000
        writing = asyncio.create_task(peer.write(flood))
        await until(lambda: begun)
        answered_at: list[int] = []
        while begun < 4_000:
            await neighbour.call(Repeat(text="ab"))
            answered_at.append(begun)
        await writing
        assert len(answered_at) > 20  # and not once, when all is done


async def test_the_answers_to_what_was_refused_are_bounded_too() -> None:
    async with raw_client_of(example_router(), limits=Limits(max_unwritten_bytes=100_000)) as (
        peer,
        connection,
    ):
        flood = encode_box({b"_ask": b"1", b"_command": b"Unknown"}) * 20_000
        writing = asyncio.create_task(peer.write(flood))
        await until(lambda: not connection._link.is_reading)
        await settled()
        assert connection._link.writer.unwritten_bytes < 200_000
        writing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await writing


async def test_cancelling_what_waits_to_be_written_is_answered_once() -> None:
    limits = Limits(max_unwritten_bytes=70_000)
    async with joined(example_router(), limits=limits) as (client, server):
        server._link.writer.lock()
        calls = [asyncio.create_task(client.call(Make(size=60_000))) for _ in range(5)]
        await until(lambda: server._link.responses.running == 3)
        server.close(drain_timeout=0)
        server._link.writer.unlock()
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert sum(isinstance(outcome, Data) for outcome in outcomes) == 2
        assert server._link.dialogue.unanswered == 0
