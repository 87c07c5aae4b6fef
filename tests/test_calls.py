"""What becomes of a call: the answer, an error, or nothing at all."""

from __future__ import annotations

import asyncio

import pytest

from tests.example_commands import Data, Echo, Repeat
from tests.peers import raw_server_of, settled, until
from tests.test_writer import fill
from typed_amp import CallTimeoutError, ConnectionLostError
from typed_amp.waiting import resolve

LARGE = bytes(60_000)


async def test_a_call_is_woken_once() -> None:
    waiter = asyncio.get_running_loop().create_future()
    resolve(waiter, {b"key": b"first"})
    resolve(waiter, {b"key": b"second"})
    assert await waiter == {b"key": b"first"}


async def test_a_turn_comes_at_once_while_there_is_room() -> None:
    async with raw_server_of() as (connection, _):
        await connection._link.calls.turn("anything")
        assert not connection._link.calls._untold


async def test_a_turn_comes_behind_what_waited_before() -> None:
    async with raw_server_of() as (connection, peer):
        calls = await fill(connection, Echo(data=LARGE))
        turn = asyncio.create_task(connection._link.calls.turn("anything"))
        await settled()
        assert not turn.done()
        for _ in calls:
            box = await peer.receive()
            await peer.send({b"_answer": box[b"_ask"], b"data": b""})
        await turn
        assert await asyncio.gather(*calls) == [Data(data=b"")] * len(calls)


async def test_a_turn_that_is_given_up() -> None:
    async with raw_server_of() as (connection, _):
        calls = await fill(connection, Echo(data=LARGE))
        turn = asyncio.create_task(connection._link.calls.turn("anything"))
        await settled()
        held = len(connection._link.writer.held())
        turn.cancel()
        await asyncio.wait([turn])
        assert len(connection._link.writer.held()) == held - 1
        assert not connection._link.calls._untold
        for call in calls:
            call.cancel()


async def test_no_turn_comes_after_the_end() -> None:
    async with raw_server_of() as (connection, peer):
        calls = await fill(connection, Echo(data=LARGE))
        turn = asyncio.create_task(connection._link.calls.turn("anything"))
        await settled()
        peer.socket.close()
        with pytest.raises(ConnectionLostError, match="anything"):
            await turn
        with pytest.raises(ConnectionLostError, match="anything"):
            await connection._link.calls.turn("anything")
        await asyncio.gather(*calls, return_exceptions=True)


async def test_an_answer_and_the_end_of_the_time_at_once() -> None:
    async with raw_server_of() as (connection, peer):
        call = asyncio.create_task(connection.call(Repeat(text="ab"), timeout=0.05))
        await peer.receive()
        with pytest.raises(CallTimeoutError):
            await call
        await until(lambda: not connection._link.dialogue.pending)
        assert not connection.is_closed
