"""What peers send by mistake or in malice: each gets what is due, and nobody else notices."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Callable
from functools import partial

import pytest

from tests.example_commands import Buy, Repeat, Text, example_router
from tests.peers import (
    HOST,
    LogCapture,
    RawPeer,
    port_of,
    raw_client,
    raw_client_of,
    raw_server_of,
    until,
)
from typed_amp import (
    Box,
    Connection,
    DecodeError,
    Limits,
    RemoteAmpError,
    Router,
    connect,
    encode_box,
    serve,
)

REPEAT: Box = {b"_ask": b"1", b"_command": b"Repeat", b"text": b"ab"}
REPEATED: Box = {b"_answer": b"1", b"text": b"ab"}

NASTY = "x\r\n2026-01-01 ERROR all is lost \x1b[31mä\u202e\0".encode() + b"\xff\xfe"
"""What would break a line of a log, colour a terminal or isn't UTF-8 at all."""

VIOLATIONS = {
    "HTTP": (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "this is not AMP"),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "this is not AMP"),
    "garbage": (bytes(range(255, 0, -1)) * 100, "this is not AMP"),
    "long key": (b"\1\0" + b"k" * 256 + b"\0\0", "a key of 256 bytes, where AMP allows 255"),
    "long key behind a pair": (
        b"\0\1k\0\1v" + b"\1\0" + b"k" * 256 + b"\0\0",
        "a key of 256 bytes, where AMP allows 255",
    ),
    "empty box": (b"\0\0", "a box without any key"),
    "key twice": (b"\0\1k\0\0\0\1k\0\0\0\0", "the key k twice in one box"),
    "no type": (encode_box({b"key": b"value"}), "a box with none of _command, _answer and _error"),
    "only an ask": (encode_box({b"_ask": b"1"}), "a box with none of _command, _answer and _error"),
    "nasty key twice": (
        encode_box({NASTY: b""})[:-2] * 2,
        r"the key x\r\n2026-01-01 ERROR all is lost \x1b[31m",
    ),
}


@pytest.mark.parametrize(("data", "reason"), VIOLATIONS.values(), ids=VIOLATIONS)
async def test_violation_closes_with_a_reason(data: bytes, reason: str, log: LogCapture) -> None:
    async with raw_client_of(example_router()) as (peer, connection):
        await peer.write(data)
        assert await peer.receive_all() == []
        await connection.wait_closed()
    line = log.only_line()
    assert f"<Connection {HOST}:" in line
    assert "closing, since the peer broke the protocol" in line
    assert reason in line
    assert line.isascii()
    assert line.isprintable()


@pytest.mark.parametrize(("data", "reason"), VIOLATIONS.values(), ids=VIOLATIONS)
async def test_what_was_asked_before_a_violation_is_answered(data: bytes, reason: str) -> None:
    async with raw_client_of(example_router(), drain_timeout=60) as (peer, _):
        await peer.write(encode_box(REPEAT) * 2 + data)
        assert await peer.receive_all() == [REPEATED] * 2


async def test_nothing_is_taken_after_a_violation() -> None:
    asked: list[str] = []
    router = Router()

    @router.responder(Repeat)
    async def repeat(command: Repeat) -> Text:
        asked.append(command.text)
        return Text(text=command.text)

    async with raw_client_of(router, drain_timeout=60) as (peer, _):
        no_type = encode_box({b"key": b"value"})
        await peer.write(encode_box(REPEAT) + no_type + encode_box({**REPEAT, b"text": b"after"}))
        assert await peer.receive_all() == [REPEATED]
        assert asked == ["ab"]


@pytest.mark.parametrize(
    ("limits", "data", "reason"),
    [
        (Limits(max_box_bytes=1000), b"\0\4data\x03\xe9", "more than 1,000 bytes"),
        (
            Limits(max_keys=2),
            b"\0\1a\0\0\0\1b\0\0\0\1c\0\0",
            "more than 2 keys",
        ),
    ],
    ids=["too large", "too many keys"],
)
async def test_limits(limits: Limits, data: bytes, reason: str, log: LogCapture) -> None:
    async with raw_client_of(example_router(), limits=limits) as (peer, _):
        await peer.write(data)
        assert await peer.receive_all() == []
        assert reason in log.only_line()


@pytest.mark.parametrize("length", range(1, len(encode_box(REPEAT))))
async def test_end_within_a_box(length: int, log: LogCapture) -> None:
    async with raw_client_of(example_router()) as (peer, connection):
        await peer.write(encode_box(REPEAT)[:length])
        peer.socket.close()
        await connection.wait_closed()
    assert not log.lines()  # that happens; it is nobody's fault


def has_fed(connection: Connection, count: int) -> bool:
    return connection._link.reader.offset == count


async def test_box_that_comes_a_byte_at_a_time() -> None:
    async with raw_client_of(example_router()) as (peer, connection):
        for number in range(len(data := encode_box(REPEAT))):
            await peer.write(data[number : number + 1])
            await until(partial(has_fed, connection, number + 1))
        assert await peer.receive() == REPEATED


# -- Names, keys and descriptions that are not plain text ----------------------------------------


async def test_name_is_shown_escaped(log: LogCapture) -> None:
    async with raw_client_of(example_router()) as (peer, _):
        answer = await peer.ask({b"_ask": b"1", b"_command": NASTY})
        assert answer[b"_error_code"] == b"UNHANDLED"
        description = answer[b"_error_description"].decode("ascii")
        assert description.isprintable()
        assert description.startswith(r"Unhandled Command: 'x\r\n2026-01-01 ERROR all")
        assert await peer.ask(REPEAT) == REPEATED
    assert log.records
    for line in log.lines(0):
        assert line.isascii()
        assert line.isprintable()


async def test_longest_name_is_cut_where_it_is_shown() -> None:
    async with raw_client_of(example_router()) as (peer, _):
        answer = await peer.ask({b"_ask": b"1", b"_command": b"\n" * 65_535})
        assert answer[b"_error_code"] == b"UNHANDLED"
        shown = answer[b"_error_description"].decode()
        assert shown == "Unhandled Command: '" + r"\n" * 200 + "'"
        assert await peer.ask(REPEAT) == REPEATED


async def test_code_and_description_are_shown_escaped() -> None:
    async with raw_server_of() as (connection, peer):
        call = asyncio.create_task(connection.call(Repeat(text="")))
        tag = (await peer.receive())[b"_ask"]
        await peer.send({b"_error": tag, b"_error_code": NASTY, b"_error_description": NASTY})
        with pytest.raises(RemoteAmpError) as caught:
            await call
        assert str(caught.value).isascii()
        assert str(caught.value).isprintable()


async def test_description_never_breaks_the_log_of_a_responder(log: LogCapture) -> None:
    router = example_router()

    @router.responder(Buy)
    async def ask_back(command: Buy, connection: Connection) -> Text:
        return await connection.call(Repeat(text=""))

    async with raw_client_of(router) as (peer, _):
        await peer.send({b"_ask": b"1", b"_command": b"Buy"})
        tag = (await peer.receive())[b"_ask"]
        await peer.send({b"_error": tag, b"_error_code": b"X", b"_error_description": NASTY})
        assert (await peer.receive())[b"_error_code"] == b"UNKNOWN"
    line = log.only_line()
    assert line.isascii()
    assert "\x1b" not in line
    assert "\n2026" not in line


@pytest.mark.parametrize(
    "box",
    [{}, {b"_error_code": b"X"}, {b"_error_description": b"X"}, {b"_error_code": b"\xff"}],
    ids=["nothing", "no description", "no code", "no text"],
)
async def test_error_without_all_that_belongs_to_one(box: Box) -> None:
    async with raw_server_of() as (connection, peer):
        call = asyncio.create_task(connection.call(Repeat(text="")))
        tag = (await peer.receive())[b"_ask"]
        await peer.send({b"_error": tag, **box})
        with pytest.raises(RemoteAmpError):
            await call
        assert not connection.is_closed


async def test_answer_that_can_not_be_read() -> None:
    async with raw_server_of() as (connection, peer):
        for answer in ({}, {b"text": b"\xff"}):
            call = asyncio.create_task(connection.call(Repeat(text="")))
            tag = (await peer.receive())[b"_ask"]
            await peer.send({b"_answer": tag, **answer})
            with pytest.raises(DecodeError, match=r"the answer to Repeat\.text: "):
                await call
        assert not connection.is_closed


# -- A great deal of it --------------------------------------------------------------------------


def unknown_commands(number: int) -> bytes:
    return encode_box({b"_ask": b"%d" % number, b"_command": b"Unknown%d" % number})


def invalid_arguments(number: int) -> bytes:
    return encode_box({b"_ask": b"%d" % number, b"_command": b"Repeat", b"times": b"x"})


def unasked_commands(number: int) -> bytes:
    return encode_box({b"_command": b"Unknown%d" % number})


def strays(number: int) -> bytes:
    return encode_box({b"_answer": b"%d" % number})


def blocks_of_memory() -> int:
    """Count what Python holds: an object has a block or more."""
    gc.collect()
    return sys.getallocatedblocks()


@pytest.mark.parametrize(
    ("make", "count", "is_answered"),
    [
        (unknown_commands, 200_000, True),
        (invalid_arguments, 100_000, True),
        (unasked_commands, 200_000, False),
        (strays, 200_000, False),
    ],
)
async def test_flood_leaves_memory_and_others_alone(
    make: Callable[[int], bytes], count: int, is_answered: bool
) -> None:
    asyncio.get_running_loop().set_debug(False)
    chunk = 1000

    data = b"".join(map(make, range(chunk)))

    async def take_answers(peer: RawPeer, answers: int) -> None:
        for _ in range(answers):
            box = await peer.receive()
            assert box[b"_error_code"] in {b"UNHANDLED", b"INVALID_ARGUMENTS"}

    async with (
        serve(example_router(), HOST, 0) as server,
        raw_client(server) as peer,
        connect(HOST, port_of(server)) as other,
    ):

        async def send(chunks: int) -> None:
            taking = asyncio.create_task(take_answers(peer, chunks * chunk * is_answered))
            for _ in range(chunks):
                await peer.write(data)
                # The other connection notices nothing.
                assert await other.call(Repeat(text="ab"), timeout=10) == Text(text="ab")
            await taking
            # Whatever was sent is dealt with when this is answered.
            assert await peer.ask(REPEAT) == REPEATED

        await send(10)
        before = blocks_of_memory()
        await send(count // chunk - 10)
        # What ten thousand of them leave is what all of them leave.
        assert blocks_of_memory() - before < 2_000
        connections = server.connections
        assert len(connections) == 2
        for connection in connections:
            assert connection._link.responses.running == 0
            assert connection._link.dialogue.unanswered == 0
            assert connection._link.transport.get_write_buffer_size() == 0


async def test_half_boxes_on_many_connections() -> None:
    async with (
        serve(example_router(), HOST, 0) as server,
        connect(HOST, port_of(server)) as other,
    ):
        for data, _ in VIOLATIONS.values():
            async with raw_client(server) as peer:
                await peer.write(data[: len(data) // 2] or data)
            async with raw_client(server) as peer:
                await peer.write(data)
                peer.reset()
            assert await other.call(Repeat(text="ab")) == Text(text="ab")
        await until(lambda: len(server.connections) == 1)
