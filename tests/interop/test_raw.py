"""Commands by their names, boxes as they are, and a proxy that nobody notices."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.interop import commands
from tests.interop.peers import Session, TwistedProcess, router
from typed_amp import (
    Box,
    Connection,
    RemoteAmpError,
    Router,
    UnhandledCommandError,
    connect,
    serve,
)


async def test_we_call_by_name(connection: Connection[Session]) -> None:
    assert await connection.call_box("REVERSE", {b"text": b"abc"}) == {b"text": b"cba"}
    assert await connection.call_box(b"EchoInteger", {b"value": b"7"}) == {b"value": b"7"}
    with pytest.raises(RemoteAmpError, match="NO_TEXT: there is nothing to reverse"):
        await connection.call_box("REVERSE")
    with pytest.raises(UnhandledCommandError):
        await connection.call_box("unheard of")
    assert await connection.call_box("Note", {b"line": b"a"}, requires_answer=False) == {}
    assert (await connection.call(commands.Notes())).value == ["a"]


async def test_twisted_calls_by_name(twisted_client: TwistedProcess) -> None:
    answering: Router[Session] = Router(state=Session)
    answering.include(router)

    @answering.fallback
    async def answer(box: Box) -> Box:
        if box[b"_command"] != b"reverse":
            raise RemoteAmpError("NO_SUCH_COMMAND", "é", {b"hint": b"reverse"})
        return {b"text": box[b"text"][::-1]}

    async with serve(answering, "127.0.0.1", 0) as server:
        where = {"transport": "tcp", "port": server.addresses[0][1]}
        outcomes = await twisted_client.play(
            "call_strings",
            where,
            calls=[("reverse", {"text": "abc"}), ("other", {}), ("EchoUnicode", {"value": "é"})],
        )
        assert outcomes == [
            {"text": "cba"},
            {"code": "NO_SUCH_COMMAND", "text": "é"},
            {"value": "é"},
        ]


@pytest.fixture
async def proxy(twisted_server: TwistedProcess) -> AsyncIterator[dict[str, Any]]:
    """A proxy that opens a connection to the Twisted server for each one that it accepts."""

    class Upstream:
        connection: Connection

    forwarding = Router(state=Upstream)
    backward: dict[Connection, Connection[Upstream]] = {}
    returning = Router()

    @forwarding.on_connect
    async def open_upstream(connection: Connection[Upstream]) -> None:
        port = twisted_server.places["tcp"]
        connection.state.connection = await connect("127.0.0.1", port, router=returning)
        backward[connection.state.connection] = connection

    @forwarding.on_disconnect
    async def close_upstream(connection: Connection[Upstream]) -> None:
        async with connection.state.connection as upstream:
            del backward[upstream]

    @forwarding.fallback
    async def forward(box: Box, connection: Connection[Upstream]) -> Box:
        upstream = connection.state.connection
        return await upstream.call_box(box[b"_command"], box, requires_answer=b"_ask" in box)

    @returning.fallback
    async def give_back(box: Box, connection: Connection) -> Box:
        downstream = backward[connection]
        return await downstream.call_box(box[b"_command"], box, requires_answer=b"_ask" in box)

    async with serve(forwarding, "127.0.0.1", 0) as server:
        yield {"transport": "tcp", "port": server.addresses[0][1]}


CALLS: list[tuple[str, dict[str, Any]]] = [
    ("EchoUnicode", {"value": "é"}),
    ("EchoIntegers", {"value": [1, 2, 3]}),
    ("Fail", {"error": "RefusedError"}),
    ("Fail", {"error": "KeyError"}),
    ("Fail", {"error": "TwistedAloneError"}),
    ("Unheard", {}),
    ("Note", {"line": "one"}),
    ("Note", {"line": "two"}),
    ("Notes", {}),
    ("Bounce", {"left": 9}),
    ("Ping", {}),
]


async def test_twisted_does_not_notice_a_proxy_of_ours(
    proxy: dict[str, Any], twisted_client: TwistedProcess, twisted_server: TwistedProcess
) -> None:
    straight = {"transport": "tcp", "port": twisted_server.places["tcp"]}
    expected = await twisted_client.call(straight, *CALLS)
    assert await twisted_client.call(proxy, *CALLS) == expected
    assert [outcome.get("error") for outcome in expected[2:6]] == [
        "RefusedError",
        "KeyError",
        "TwistedAloneError",
        "UnhandledCommand",
    ]


async def test_many_long_calls_by_way_of_a_proxy(
    proxy: dict[str, Any], twisted_client: TwistedProcess
) -> None:
    assert await twisted_client.play("load", proxy, total=200)
    order = await twisted_client.play("gather", proxy, total=100)
    assert order == list(reversed(range(100)))


async def test_we_do_not_notice_it_either(proxy: dict[str, Any]) -> None:
    async with connect("127.0.0.1", proxy["port"], router=router) as connection:
        with pytest.raises(commands.RefusedError, match="said the peer, é"):
            await connection.call(commands.Fail(error="RefusedError"))
        answers = await asyncio.gather(
            *(connection.call(commands.EchoInteger(value=number)) for number in range(100))
        )
        assert [answer.value for answer in answers] == list(range(100))
