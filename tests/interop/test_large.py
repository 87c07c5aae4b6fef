"""Values over 65,535 bytes: what we write beside what arguments of Twisted's write, byte for byte.

Landscape and Twisted's own `trial -j` cut such values into calls, not into pairs. For these no mark
is needed: ordinary commands, called in turn, are their convention.
"""

# mypy: disable-error-code="no-untyped-call,misc"

from __future__ import annotations

import asyncio
from functools import partial
from typing import Annotated, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel
from twisted.internet.testing import StringTransport
from twisted.protocols import amp
from twisted.trial._dist import stream as disttrial

from tests.interop.kinds import BothCommands, Kind, box_of
from tests.interop.twisted_large import Compressed, FromOne, FromZero
from typed_amp import Box, BoxReader, Command, Connection, Large, Router
from typed_amp.testing import connection_pair

FULL = 65_535

sizes = st.sampled_from([0, 1, 65_000, 65_001, FULL, FULL + 1, 2 * FULL, 200_000])
data_of_sizes = st.builds(lambda size, byte: byte * size, sizes, st.binary(min_size=1, max_size=1))
text_of_sizes = st.builds(lambda start, size: start + "€" * (size // 3), st.text(max_size=2), sizes)


def both(annotation: Any, argument: Any, values: st.SearchStrategy[Any]) -> BothCommands:
    return BothCommands(value=Kind(annotation, argument, values))


FORMS = {
    "mediumbox": both(Annotated[bytes, Large()], partial(FromOne, amp.String()), data_of_sizes),
    "BigUnicode as published": both(
        Annotated[str, Large()], partial(FromOne, amp.Unicode()), text_of_sizes
    ),
    "Flocker, JoinMarket": both(
        Annotated[str, Large(zero_based=True)], partial(FromZero, amp.Unicode()), text_of_sizes
    ),
    "a list": both(
        Annotated[list[bytes], Large()],
        partial(FromOne, amp.ListOf(amp.String())),
        st.lists(data_of_sizes.map(lambda data: data[:FULL]), max_size=4),
    ),
    "Evennia": both(
        Annotated[bytes, Large(compressed=True)], partial(Compressed, amp.String()), data_of_sizes
    ),
}


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=25)
@given(data=st.data())
def test_each_reads_the_other(form: str, data: st.DataObject) -> None:
    commands = FORMS[form]
    values = data.draw(commands.values)
    ours, twisteds = commands.we_write(values), commands.twisted_writes(values)
    assert commands.twisted_reads(ours) == values
    assert dict(commands.we_read(twisteds)) == values
    # Twisted sorts keys, and `value.10` is before `value.2`. What is in them is the same.
    if form == "Flocker, JoinMarket" and not values["value"]:
        assert (box_of(ours), twisteds) == ({b"value.0": b""}, b"\0\0")
    elif form != "Evennia" or len(values["value"]) <= 65_000:
        assert ours == twisteds


def test_slices_as_long_as_evennias_are_written_where_they_are_wanted() -> None:
    # Evennia compresses slices of 65,535 bytes, which fail where zlib makes them no shorter.
    evennia = both(
        Annotated[bytes, Large(compressed=True, slice_bytes=65_500)],
        partial(Compressed, amp.String()),
        data_of_sizes,
    )
    values = {"value": b"evennia " * 25_000}
    assert evennia.twisted_reads(evennia.we_write(values)) == values
    assert len(box_of(evennia.we_write(values))) == len(box_of(evennia.twisted_writes(values)))


# -- Landscape: all slices but the last in calls of their own -----------------------------------


class MethodResult(BaseModel):
    result: bytes


class ChunkResult(BaseModel):
    result: int


class MethodCallError(Exception):
    pass


class MethodCall(Command[MethodResult], errors={MethodCallError: "METHOD_CALL_ERROR"}):
    sequence: int
    method: bytes
    arguments: bytes


class MethodCallChunk(Command[ChunkResult], errors={MethodCallError: "METHOD_CALL_ERROR"}):
    sequence: int
    chunk: bytes


class TwistedMethodCall(amp.Command):
    commandName = b"MethodCall"
    arguments = [
        (b"sequence", amp.Integer()),
        (b"method", amp.String()),
        (b"arguments", amp.String()),
    ]
    response = [(b"result", amp.String())]


class TwistedMethodCallChunk(amp.Command):
    commandName = b"MethodCallChunk"
    arguments = [(b"sequence", amp.Integer()), (b"chunk", amp.String())]
    response = [(b"result", amp.Integer())]


SEQUENCE = 0x9E3779B97F4A7C15F39CC0605CEDC835  # an uuid4 as an int
ARGUMENTS = bytes(range(256)) * 600


def landscape_server() -> Router[dict[int, bytes]]:
    router = Router(state=dict[int, bytes])

    @router.responder(MethodCallChunk)
    async def chunk(
        command: MethodCallChunk, connection: Connection[dict[int, bytes]]
    ) -> ChunkResult:
        pending = connection.state
        pending[command.sequence] = pending.get(command.sequence, b"") + command.chunk
        return ChunkResult(result=command.sequence)

    @router.responder(MethodCall)
    async def call(command: MethodCall, connection: Connection[dict[int, bytes]]) -> MethodResult:
        arguments = connection.state.pop(command.sequence, b"") + command.arguments
        return MethodResult(result=b"%b of %d" % (command.method, len(arguments)))

    return router


async def call_as_landscape(connection: Connection[Any], method: bytes, arguments: bytes) -> bytes:
    chunks = [arguments[i : i + FULL] for i in range(0, len(arguments), FULL)]
    for chunk in chunks[:-1]:
        answer = await connection.call(MethodCallChunk(sequence=SEQUENCE, chunk=chunk))
        assert answer.result == SEQUENCE
    last = MethodCall(sequence=SEQUENCE, method=method, arguments=chunks[-1])
    return (await connection.call(last)).result


async def test_chunks_of_landscape() -> None:
    async with connection_pair(landscape_server()) as (client, server):
        assert await call_as_landscape(client, b"ping", ARGUMENTS) == b"ping of 153600"
        assert await call_as_landscape(client, b"ping", b"()") == b"ping of 2"
        assert server.state == {}


class TwistedEnd(amp.AMP):
    """A connection of Twisted's that writes to memory."""

    def __init__(self) -> None:
        super().__init__()
        self.memory = StringTransport()
        self.makeConnection(self.memory)

    def asks(self, command: Any, **arguments: Any) -> bytes:
        """Call a command, and give what was written for it."""
        self.memory.clear()
        self.callRemote(command, **arguments)
        return bytes(self.memory.value())


def asked(command: Command[Any], tag: int) -> bytes:
    signature = command.__amp_signature__()
    head = b"\0\4_ask\0%c%x" % (len(b"%x" % tag), tag)
    return signature.arguments.encode(command, head + signature.head)


def test_chunks_of_landscape_to_the_byte() -> None:
    twisted = TwistedEnd()
    chunk: dict[str, Any] = {"sequence": SEQUENCE, "chunk": ARGUMENTS[:FULL]}
    last: dict[str, Any] = {
        "sequence": SEQUENCE,
        "method": b"ping",
        "arguments": ARGUMENTS[FULL:][:FULL],
    }
    sent = [
        (asked(MethodCallChunk(**chunk), 1), twisted.asks(TwistedMethodCallChunk, **chunk)),
        (asked(MethodCall(**last), 2), twisted.asks(TwistedMethodCall, **last)),
    ]
    for ours, twisteds in sent:
        assert box_of(ours) == box_of(twisteds)
        assert len(ours) == len(twisteds)


# -- trial -j: a stream is opened, written to, and named in a later call ---------------------------


class StreamOpened(BaseModel):
    streamId: int


class StreamOpen(Command[StreamOpened]):
    pass


class StreamWrite(Command):
    streamId: int
    data: bytes


class TrialEnd(amp.AMP):
    """A manager's or worker's end, with Twisted's own receiver of streams."""

    def __init__(self) -> None:
        super().__init__()
        self.receiver = disttrial.StreamReceiver()

    @disttrial.StreamOpen.responder
    def open(self) -> dict[str, int]:
        return {"streamId": self.receiver.open()}

    @disttrial.StreamWrite.responder
    def write(self, streamId: int, data: bytes) -> dict[str, Any]:
        self.receiver.write(streamId, data)
        return {}


def test_streams_of_trial_to_the_byte() -> None:
    twisted = TwistedEnd()
    write: dict[str, Any] = {"streamId": 7, "data": ARGUMENTS[:FULL]}
    opening = twisted.asks(disttrial.StreamOpen)
    assert asked(StreamOpen(), 1) == opening
    writing = twisted.asks(disttrial.StreamWrite, **write)
    ours = asked(StreamWrite(**write), 2)
    assert (box_of(ours), len(ours)) == (box_of(writing), len(writing))


async def test_trial_takes_a_stream_of_ours() -> None:
    trial = TrialEnd()
    memory = StringTransport()
    trial.makeConnection(memory)

    def answer_to(command: Command[Any], tag: int) -> Box:
        trial.dataReceived(asked(command, tag))
        (box,) = BoxReader().feed(memory.value())
        memory.clear()
        return box

    opened = StreamOpen.__amp_signature__().decode_answer(answer_to(StreamOpen(), 1))
    for tag, start in enumerate(range(0, len(ARGUMENTS), FULL), 2):
        piece = ARGUMENTS[start : start + FULL]
        written = answer_to(StreamWrite(streamId=opened.streamId, data=piece), tag)
        assert StreamWrite.__amp_signature__().decode_answer(written) is None
    assert b"".join(trial.receiver.finish(opened.streamId)) == ARGUMENTS


async def test_we_take_a_stream_of_trials() -> None:
    router = Router()
    streams: dict[int, bytes] = {}

    @router.responder(StreamOpen)
    async def opened(command: StreamOpen) -> StreamOpened:
        streams[7] = b""
        return StreamOpened(streamId=7)

    @router.responder(StreamWrite)
    async def write(command: StreamWrite) -> None:
        streams[command.streamId] += command.data

    # Twisted's own function that sends a stream, over a connection of ours.
    class Caller:
        def __init__(self, connection: Connection[Any]) -> None:
            self.connection = connection

        async def callRemote(self, command: Any, **arguments: Any) -> dict[str, Any]:
            ours: Any = {"StreamOpen": StreamOpen, "StreamWrite": StreamWrite}[command.__name__]
            answer = await self.connection.call(ours(**arguments))
            return dict(answer) if answer is not None else {}

    async with connection_pair(router) as (client, _):
        caller: Any = Caller(client)
        async with asyncio.timeout(10):
            pieces = disttrial.chunk(ARGUMENTS, FULL)
            assert await disttrial.stream(caller, pieces) == 7
    assert streams == {7: ARGUMENTS}
