"""What we write is what Twisted writes, byte for byte, and each reads the other alike."""

# mypy: disable-error-code="no-untyped-call,misc"

from __future__ import annotations

import asyncio
import struct
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, SecretBytes, SecretStr, create_model
from twisted.internet.testing import StringTransport
from twisted.protocols import amp

from tests.interop import commands, twisted_commands
from tests.interop.kinds import (
    KINDS,
    OPTIONAL_KINDS,
    SCALARS,
    BothCommands,
    Kind,
    box_of,
    offsets,
)
from tests.interop.peers import router
from tests.interop.values import described
from tests.twisted_tests import LISTS
from typed_amp import BoxReader, Command, TooLongError, connect, serve
from typed_amp.planning import plan_for

unhurried = settings(deadline=None, max_examples=50)

ONE_ARGUMENT = {
    name: BothCommands(value=kind) for name, kind in {**KINDS, **OPTIONAL_KINDS}.items()
}


@pytest.mark.parametrize("kind", ONE_ARGUMENT)
@unhurried
@given(data=st.data())
def test_value(kind: str, data: st.DataObject) -> None:
    both = ONE_ARGUMENT[kind]
    values = data.draw(both.values)
    written = both.we_write(values)
    assert written == both.twisted_writes(values)
    assert described(both.we_read(written)) == described(values)
    assert described(both.twisted_reads(written)) == described(values)


SECRETS = {
    "text": (BothCommands(value=Kind(SecretStr, amp.Unicode, st.text())), SecretStr),
    "bytes": (BothCommands(value=Kind(SecretBytes, amp.String, st.binary())), SecretBytes),
}


@pytest.mark.parametrize("kind", SECRETS)
@unhurried
@given(data=st.data())
def test_secret(kind: str, data: st.DataObject) -> None:
    both, secret_type = SECRETS[kind]
    values = data.draw(both.values)
    written = both.we_write(values)
    assert written == both.twisted_writes(values)
    assert vars(both.we_read(written)) == {"value": secret_type(values["value"])}
    assert both.twisted_reads(written) == values


@unhurried
@given(moment=st.datetimes(timezones=offsets(timedelta.resolution)))
def test_datetime_whose_offset_has_seconds(moment: datetime) -> None:
    both = ONE_ARGUMENT["datetime"]
    assert both.we_write({"value": moment}) == both.twisted_writes({"value": moment})


ELEMENTS: dict[Any, Any] = {
    amp.String: bytes,
    amp.Integer: int,
    amp.Unicode: str,
    amp.Decimal: Decimal,
    amp.DateTime: datetime,
}


@pytest.mark.parametrize("case", LISTS)
def test_lists_that_twisted_tests_itself_by(case: Any) -> None:
    annotation: Any = list[ELEMENTS[type(case.elementType)]]
    fields: Any = dict.fromkeys(case.objects, (annotation, ...))
    config = ConfigDict(allow_inf_nan=True)
    lists: type[BaseModel] = create_model("Lists", __config__=config, **fields)
    plan = plan_for(lists)
    written = plan.encode(lists(**case.objects), b"")
    assert box_of(written) == case.strings
    assert described(plan.decode(dict(case.strings))) == described(case.objects)


SORTED = BothCommands(**dict(sorted(SCALARS.items())))
UNSORTED = BothCommands(**dict(sorted(SCALARS.items(), reverse=True)))


@unhurried
@given(values=SORTED.values)
def test_command_whose_keys_are_sorted(values: dict[str, Any]) -> None:
    assert SORTED.we_write(values) == SORTED.twisted_writes(values)


@unhurried
@given(values=UNSORTED.values)
def test_command_whose_keys_are_not_sorted(values: dict[str, Any]) -> None:
    """Twisted sorts them; we keep the order of the fields."""
    written = UNSORTED.we_write(values)
    assert box_of(written) == box_of(UNSORTED.twisted_writes(values))
    assert described(UNSORTED.twisted_reads(written)) == described(values)
    assert described(UNSORTED.we_read(UNSORTED.twisted_writes(values))) == described(values)


@pytest.mark.parametrize(
    ("command", "value"),
    [
        pytest.param("EchoString", b"x" * 65_536, id="a value"),
        pytest.param("EchoStrings", [b"x" * 65_534], id="a list"),
        pytest.param("EchoStrings", [b"x" * 65_536], id="an element"),
    ],
)
def test_neither_writes_what_is_too_long(command: str, value: Any) -> None:
    with pytest.raises(TooLongError):
        our_command = getattr(commands, command)
        our_command.__amp_signature__().arguments.encode(our_command(value=value), b"")
    with pytest.raises((amp.TooLong, struct.error)):
        getattr(twisted_commands, command).makeArguments({"value": value}, None).serialize()


# -- Whole boxes, from a socket and from a connection of Twisted's ---------------------------


class TwistedEnd(amp.AMP):
    """A connection of Twisted's that writes to memory."""

    def __init__(self) -> None:
        super().__init__()
        self.memory = StringTransport()
        self.makeConnection(self.memory)

    def written(self) -> bytes:
        return bytes(self.memory.value())

    @twisted_commands.EchoUnicode.responder
    def echo(self, value: str) -> dict[str, Any]:
        return {"value": value}

    @twisted_commands.Ping.responder
    def pong(self) -> dict[str, Any]:
        return {}

    @twisted_commands.Fail.responder
    def fail(self, error: str) -> Any:
        raise getattr(twisted_commands, error)("said the peer, é")


ASKS: dict[str, tuple[Command[Any], Any, dict[str, Any]]] = {
    "argument": (commands.EchoUnicode(value="é"), twisted_commands.EchoUnicode, {"value": "é"}),
    "no argument": (commands.Ping(), twisted_commands.Ping, {}),
    "declared error": (
        commands.Fail(error="RefusedError"),
        twisted_commands.Fail,
        {"error": "RefusedError"},
    ),
    "declared fatal error": (
        commands.Fail(error="BrokenError"),
        twisted_commands.Fail,
        {"error": "BrokenError"},
    ),
    "no answer wanted": (commands.Note(line="é"), twisted_commands.Note, {"line": "é"}),
}


@pytest.mark.parametrize("ask", ASKS)
async def test_asks(ask: str) -> None:
    command, twisted_command, arguments = ASKS[ask]
    twisted = TwistedEnd()
    twisted.callRemote(twisted_command, **arguments)
    assert await asked_by_us(command) == twisted.written()


@pytest.mark.parametrize("ask", [name for name in ASKS if name != "no answer wanted"])
async def test_answers(ask: str) -> None:
    _, twisted_command, arguments = ASKS[ask]
    asking, answering = TwistedEnd(), TwistedEnd()
    asking.callRemote(twisted_command, **arguments)
    answering.dataReceived(asking.written())
    assert await answered_by_us(asking.written()) == answering.written()


async def test_fields_of_an_error_stand_beside_what_twisted_writes() -> None:
    asking, answering = TwistedEnd(), TwistedEnd()
    asking.callRemote(twisted_commands.Fail, error="OutOfStockError")
    answering.dataReceived(asking.written())
    assert box_of(await answered_by_us(asking.written())) == {
        **box_of(answering.written()),
        b"_error_description": b"sku='A1', left=2",
        b"sku": b"A1",
        b"left": b"2",
    }


async def asked_by_us(command: Command[Any]) -> bytes:
    """Give what a connection of ours writes for a call."""
    written: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        written.set_result(await read_box(reader))
        writer.close()

    async with await asyncio.start_server(accept, "127.0.0.1", 0) as server:
        async with connect(*server.sockets[0].getsockname(), extensions=False) as connection:
            calling = asyncio.ensure_future(connection.call(command))
            data = await written
        await asyncio.wait([calling])
        calling.exception()  # that the connection is gone
    return data


async def answered_by_us(ask: bytes) -> bytes:
    """Give what a server of ours writes for an ask."""
    async with serve(router, "127.0.0.1", 0) as server:
        reader, writer = await asyncio.open_connection(*server.addresses[0])
        writer.write(ask)
        data = await read_box(reader)
        writer.close()
        await writer.wait_closed()
    return data


async def read_box(reader: asyncio.StreamReader) -> bytes:
    """Read the bytes of one box."""
    data = b""
    boxes = BoxReader()
    while not boxes.feed(piece := await reader.read(65_536)):
        assert piece, "the stream ended before the box did"
        data += piece
    return data + piece
