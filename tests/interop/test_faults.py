"""The faults of networks between Twisted and us: both sides see the end, and go on with others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from tests.fault_proxy import Cut, OneByOne, Reset, Step, fault_proxy, is_at
from tests.interop import commands
from tests.interop.peers import TwistedProcess, router
from tests.peers import HOST, port_of, until
from typed_amp import ConnectionLostError, connect, serve

ENDINGS = pytest.mark.parametrize("ending", [Cut, Reset])
OFFSETS = pytest.mark.parametrize("offset", [0, 1, 20, 40])
"""Before an answer, within it, and behind the first."""


@ENDINGS
@OFFSETS
async def test_our_client_is_cut_off_from_twisted(
    offset: int, ending: Callable[[], Step], twisted_server: TwistedProcess
) -> None:
    async with fault_proxy(twisted_server.places["tcp"]) as proxy:
        proxy.script(to_client=is_at(offset, ending))
        async with connect(HOST, proxy.port, router=router) as connection:
            waiting = asyncio.create_task(connection.call(commands.Wait()))
            for value in range(3):
                try:
                    answer = await connection.call(commands.EchoInteger(value=value))
                except ConnectionLostError:
                    break
                assert answer.value == value
            with pytest.raises(ConnectionLostError):
                await waiting
        proxy.script()
        async with connect(HOST, proxy.port, router=router) as connection:
            answer = await connection.call(commands.EchoInteger(value=7))
            assert answer.value == 7


@ENDINGS
async def test_twisted_client_is_cut_off_from_us(
    ending: Callable[[], Step], twisted_client: TwistedProcess
) -> None:
    async with serve(router, HOST, 0) as server, fault_proxy(port_of(server)) as proxy:
        where = {"transport": "tcp", "port": proxy.port}
        calls = [("EchoInteger", {"value": 1}), ("Wait", {})]
        first = len(b"\0\7_answer\0\0011\0\5value\0\0011\0\0")
        proxy.script(to_client=is_at(first, ending))
        answered, lost = await twisted_client.call(where, *calls)
        if ending is Cut:
            assert answered == {"answer": {"value": "0x1"}}
        assert "error" in lost
        # Nobody works for it any more.
        await until(lambda: not server.connections)
        proxy.script()
        (answered,) = await twisted_client.call(where, calls[0])
        assert answered == {"answer": {"value": "0x1"}}


@pytest.mark.parametrize("side", ["client", "server"])
async def test_every_byte_comes_alone(
    side: str, twisted_server: TwistedProcess, twisted_client: TwistedProcess
) -> None:
    value = "é" * 500
    script = [OneByOne(3_000)]
    if side == "server":
        async with (
            fault_proxy(twisted_server.places["tcp"], script, script) as proxy,
            connect(HOST, proxy.port, router=router) as connection,
        ):
            assert (await connection.call(commands.EchoUnicode(value=value))).value == value
            assert (await connection.call(commands.Bounce(left=5))).value == 6
        return
    async with (
        serve(router, HOST, 0) as server,
        fault_proxy(port_of(server), script, script) as proxy,
    ):
        where = {"transport": "tcp", "port": proxy.port}
        text, bounced = await twisted_client.call(
            where, ("EchoUnicode", {"value": value}), ("Bounce", {"left": 5})
        )
        assert text == {"answer": {"value": value}}
        assert bounced == {"answer": {"value": "0x6"}}
