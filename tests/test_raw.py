"""Boxes as they are: calling by name, the fallback, and both together as a proxy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import strategies
from tests.example_commands import (
    Buy,
    Data,
    Echo,
    Log,
    OutOfStock,
    Repeat,
    Text,
    example_router,
)
from tests.peers import LogCapture, raw_client_of, settled
from typed_amp import (
    Box,
    BoxReader,
    CallTimeoutError,
    Connection,
    EncodeError,
    InvalidArgumentsError,
    RemoteAmpError,
    Router,
    TooLongError,
    UnhandledCommandError,
    UnknownRemoteError,
)
from typed_amp.box import RESERVED_KEYS
from typed_amp.raw import encode_raw
from typed_amp.testing import connection_pair

NO_BYTES: Any = {"key": "value"}
SET_BY_PROTOCOL = RESERVED_KEYS - {b"_route"}


@asynccontextmanager
async def by_proxy(router: Router) -> AsyncIterator[Connection]:
    """Give a connection to a proxy before a router."""
    proxy = Router()
    async with connection_pair(router) as (upstream, _):

        @proxy.fallback
        async def forward(box: Box) -> Box:
            return await upstream.call_box(box[b"_command"], box, requires_answer=b"_ask" in box)

        async with connection_pair(proxy) as (client, _):
            yield client


@given(strategies.boxes)
def test_what_goes_in_comes_out(box: Box) -> None:
    own = {key: value for key, value in box.items() if key not in SET_BY_PROTOCOL}
    assert BoxReader().feed(encode_raw(box, b"\0\1h\0\0") if b"h" not in own else b"") == (
        [{b"h": b"", **own}] if b"h" not in own else []
    )


# -- Calling by name -----------------------------------------------------------------------------


async def test_a_call_by_name() -> None:
    async with connection_pair(example_router()) as (client, _):
        box = {b"text": b"ab", b"times": b"2", b"_ask": b"of another", b"_command": b"Other"}
        for name in ("Repeat", b"Repeat"):
            assert await client.call_box(name, box) == {b"text": b"abab"}
        assert box[b"_ask"] == b"of another"  # it is the caller's
        with pytest.raises(InvalidArgumentsError):
            await client.call_box("Repeat")
        with pytest.raises(UnhandledCommandError):
            await client.call_box("Nothing")


async def test_errors_carry_their_fields() -> None:
    router = Router()

    @router.responder(Buy)
    async def buy(command: Buy) -> Text:
        raise OutOfStock(sku="A1", left=2)

    async with connection_pair(router) as (client, _):
        with pytest.raises(RemoteAmpError) as caught:
            await client.call_box("Buy")
        assert caught.value.code == "OUT_OF_STOCK"
        assert caught.value.fields == {b"sku": b"A1", b"left": b"2"}


async def test_a_call_without_an_answer() -> None:
    lines: list[bytes] = []
    router = example_router()

    @router.responder(Log)
    async def note(command: Log) -> None:
        lines.append(command.line)

    async with connection_pair(router) as (client, _):
        assert await client.call_box("Log", {b"line": b"a"}, requires_answer=False) == {}
        await client.call(Repeat(text=""))
        assert lines == [b"a"]


@pytest.mark.parametrize(
    ("name", "box", "error"),
    [
        ("Repeat", {"text": b"ab"}, EncodeError),
        ("Repeat", {b"text": "ab"}, EncodeError),
        ("Repeat", {b"text": 1}, EncodeError),
        ("Repeat", [(b"text", b"ab")], EncodeError),
        ("Repeat", None, EncodeError),
        ("Repeat", {b"": b"ab"}, EncodeError),
        ("Repeat", {b"k" * 256: b""}, TooLongError),
        ("Repeat", {b"text": bytes(65_536)}, TooLongError),
        ("R" * 65_536, {}, TooLongError),
        ("\ud800", {}, EncodeError),
        (7, {}, EncodeError),
    ],
)
async def test_what_is_no_box_is_refused_here(name: Any, box: Any, error: type[Exception]) -> None:
    async with connection_pair(example_router()) as (client, _):
        with pytest.raises(error):
            await client.call_box(name, box)
        assert client._link.dialogue.pending == 0
        assert await client.call(Repeat(text="ab")) == Text(text="ab")


async def test_a_call_that_times_out() -> None:
    router = Router()

    @router.fallback
    async def wait(box: Box) -> Box:
        await asyncio.Event().wait()
        return {}

    async with connection_pair(router, drain_timeout=0) as (client, _):
        with pytest.raises(CallTimeoutError, match="any thing: no answer"):
            await client.call_box("any thing", timeout=0.01)


# -- The fallback --------------------------------------------------------------------------------


async def test_a_fallback_gets_what_nobody_else_answers() -> None:
    router = example_router()
    seen: list[tuple[Box, Any]] = []

    @router.fallback
    async def answer(box: Box, connection: Connection) -> Box:
        seen.append((box, connection))
        return {b"any": box[b"_command"], b"_answer": b"not the tag"}

    async with raw_client_of(router) as (peer, connection):
        repeat = {b"_ask": b"1", b"_command": b"Repeat", b"text": b"ab"}
        assert await peer.ask(repeat) == {b"_answer": b"1", b"text": b"ab"}
        other = {b"_ask": b"2", b"_command": b"\xff", b"key": b"value"}
        assert await peer.ask(other) == {b"_answer": b"2", b"any": b"\xff"}
        await peer.send({b"_command": b"Note"})
        assert (await peer.ask({**other, b"_ask": b"3"}))[b"_answer"] == b"3"
        assert seen[:2] == [(other, connection), ({b"_command": b"Note"}, connection)]


@pytest.mark.parametrize("rubbish", [None, {"text": b"a"}, {b"text": "a"}, {b"": b""}, 7])
async def test_a_fallback_that_returns_rubbish(rubbish: Any, log: LogCapture) -> None:
    router = Router()

    @router.fallback
    async def answer(box: Box) -> Any:
        return rubbish

    async with connection_pair(router) as (client, _):
        with pytest.raises(UnknownRemoteError):
            await client.call_box("Any")
        assert "the responder of Any failed" in log.only_line()
        assert "EncodeError" in log.only_line()


async def test_a_fallback_that_fails(log: LogCapture) -> None:
    router = Router()

    @router.fallback
    async def answer(box: Box) -> Box:
        raise ZeroDivisionError

    async with connection_pair(router) as (client, _):
        with pytest.raises(UnknownRemoteError):
            await client.call_box("Any")
        assert "ZeroDivisionError" in log.only_line()


async def test_an_error_travels_as_it_is() -> None:
    router = Router()

    @router.fallback
    async def answer(box: Box) -> Box:
        raise RemoteAmpError("NO_É", "é\n", {b"hint": b"\xff", b"_error": b"not the tag"})

    async with connection_pair(router) as (client, _):
        with pytest.raises(RemoteAmpError) as caught:
            await client.call_box("Any")
        assert (caught.value.code, caught.value.description) == ("NO_É", "é\n")
        assert caught.value.fields == {b"hint": b"\xff"}


@pytest.mark.parametrize(
    "error",
    [
        RemoteAmpError("C" * 65_536, ""),
        RemoteAmpError("CODE", "", {b"k" * 256: b""}),
        RemoteAmpError("CODE", "", {b"key": bytes(65_536)}),
        RemoteAmpError("CODE", "", NO_BYTES),
    ],
    ids=["code", "key", "value", "no bytes"],
)
async def test_an_error_that_cant_travel_is_answered_all_the_same(
    error: RemoteAmpError, log: LogCapture
) -> None:
    router = Router()

    @router.fallback
    async def answer(box: Box) -> Box:
        raise error

    async with connection_pair(router) as (client, _):
        with pytest.raises(UnknownRemoteError):
            await client.call_box("Any", timeout=5)
        assert "EncodeError" in log.only_line() or "TooLongError" in log.only_line()


async def test_a_code_that_is_no_text_travels_as_it_is_shown() -> None:
    router = Router()

    @router.fallback
    async def answer(box: Box) -> Box:
        raise RemoteAmpError("\ud800", "\ud800")

    async with connection_pair(router) as (client, _):
        with pytest.raises(RemoteAmpError) as caught:
            await client.call_box("Any", timeout=5)
        assert (caught.value.code, caught.value.description) == (r"\ud800", r"\ud800")


# -- A proxy -------------------------------------------------------------------------------------


async def test_a_proxy_goes_unnoticed() -> None:
    router = example_router()
    lines: list[bytes] = []

    @router.responder(Buy)
    async def buy(command: Buy) -> Text:
        if command.sku == "A1":
            raise OutOfStock(sku=command.sku, left=2)
        raise KeyError(command.sku)

    @router.responder(Log)
    async def note(command: Log) -> None:
        lines.append(command.line)

    async with by_proxy(router) as client:
        assert await client.call(Repeat(text="ab", times=2)) == Text(text="abab")
        with pytest.raises(OutOfStock) as caught:
            await client.call(Buy(sku="A1"))
        assert (caught.value.sku, caught.value.left) == ("A1", 2)
        with pytest.raises(KeyError):
            await client.call(Buy(sku="B2"))
        with pytest.raises(UnhandledCommandError, match="Unhandled Command: 'Nothing'"):
            await client.call_box("Nothing")
        await client.call(Log(line=b"a"))
        answers = await asyncio.gather(
            *(client.call(Echo(data=b"%d" % number)) for number in range(100))
        )
        assert [answer.data for answer in answers] == [b"%d" % number for number in range(100)]
        await settled()
        assert lines == [b"a"]


@pytest.mark.parametrize("size", [0, 1, 65_535])
async def test_values_at_the_limits_pass_a_proxy(size: int) -> None:
    async with by_proxy(example_router()) as client:
        assert await client.call(Echo(data=bytes(size))) == Data(data=bytes(size))


@given(st.data())
async def test_any_box_passes_a_proxy(data: st.DataObject) -> None:
    box = data.draw(strategies.boxes)
    router = Router()

    @router.fallback
    async def echo(box: Box) -> Box:
        return box

    own = {key: value for key, value in box.items() if key not in SET_BY_PROTOCOL}
    async with by_proxy(router) as client:
        assert await client.call_box("Echo", box) == own
