from __future__ import annotations

import asyncio
import contextlib

import pytest

from tests.example_commands import Wait, example_router
from tests.peers import LogCapture, raw_client_of, raw_server_of, until
from tests.test_connection import Gate
from typed_amp import ConnectionLostError, Limits
from typed_amp.box import Box, encode_box


async def test_a_silent_peer_is_asked_and_then_given_up(log: LogCapture) -> None:
    async with raw_server_of(keepalive=0.02) as (connection, peer):
        call = asyncio.create_task(connection.call(Wait()))
        assert (await peer.receive())[b"_command"] == b"Wait"
        assert (await peer.receive())[b"_command"] == b"typed-amp.ping"
        with pytest.raises(ConnectionLostError, match=r"the peer was silent for 0\.\d+ seconds"):
            await call
        await connection.wait_closed()
    assert "given up, since the peer was silent" in log.only_line()


@pytest.mark.parametrize("known", [False, True])
async def test_any_answer_is_a_sign_of_life(known: bool) -> None:
    async with raw_server_of(keepalive=0.01) as (connection, peer):
        for _ in range(10):
            ping = await peer.receive()
            assert ping[b"_command"] == b"typed-amp.ping"
            error: Box = {b"_error": ping[b"_ask"], b"_error_code": b"UNHANDLED"}
            await peer.send(
                {b"_answer": ping[b"_ask"]} if known else {**error, b"_error_description": b""}
            )
        assert not connection.is_closed


async def test_a_peer_that_does_not_take_its_answers_is_given_up() -> None:
    async with raw_client_of(example_router(), keepalive=0.02) as (peer, connection):
        ask = {b"_command": b"Echo", b"data": bytes(60_000)}
        with contextlib.suppress(OSError):
            while not connection.is_closed:
                await peer.send({**ask, b"_ask": b"1"})
        await connection.wait_closed()
        assert "silent" in str(await connection.wait_lost())


async def test_a_box_has_its_time(log: LogCapture) -> None:
    limits = Limits(box_timeout=0.05)
    async with raw_client_of(example_router(), limits=limits) as (peer, connection):
        answer = await peer.ask({b"_ask": b"1", b"_command": b"Repeat", b"text": b"ab"})
        assert answer[b"text"] == b"ab"
        box = encode_box({b"_ask": b"1", b"_command": b"Repeat", b"text": b"x" * 200})
        with contextlib.suppress(OSError):
            for byte in box[:-1]:
                if connection.is_closed:
                    break
                await peer.write(bytes([byte]))
                await asyncio.sleep(0.002)
        await connection.wait_closed()
    assert "a box that is not complete after 0.0" in log.only_line()
    assert "Limits.box_timeout" in log.only_line()


async def test_many_boxes_may_take_longer_than_one() -> None:
    limits = Limits(box_timeout=0.05)
    async with raw_client_of(example_router(), limits=limits) as (peer, connection):
        box = encode_box({b"_ask": b"1", b"_command": b"Repeat", b"text": b"ab"})
        data = box * 12
        for start in range(0, len(data), 20):
            await peer.write(data[start : start + 20])
            await asyncio.sleep(0.005)
        assert not connection.is_closed


async def test_an_idle_connection_is_closed_whatever_pings_say() -> None:
    limits = Limits(idle_timeout=0.1)
    gate = Gate()
    async with raw_client_of(gate.router, limits=limits, keepalive=0.02) as (peer, connection):
        await peer.send({b"_ask": b"1", b"_command": b"Wait", b"key": b"0"})
        await gate.holds(1)

        async def answer_pings() -> None:
            with contextlib.suppress(EOFError, OSError):
                while True:
                    box = await peer.receive()
                    if b"_command" in box:
                        await peer.send({b"_answer": box[b"_ask"]})

        answering = asyncio.create_task(answer_pings())
        await asyncio.sleep(0.3)  # the time itself is what is tried: something goes on
        assert not connection.is_closed
        gate.waiting[0].set_result("")
        await connection.wait_closed()
        await answering


async def test_a_connection_in_use_is_not_idle() -> None:
    limits = Limits(idle_timeout=0.05)
    async with raw_client_of(example_router(), limits=limits) as (peer, connection):
        for _ in range(20):
            await peer.ask({b"_ask": b"1", b"_command": b"Repeat", b"text": b"ab"})
            await asyncio.sleep(0.01)
        assert not connection.is_closed
        await until(lambda: connection.is_closed)


def test_times_must_be_positive() -> None:
    with pytest.raises(ValueError, match=r"Limits\.box_timeout must be positive, not 0"):
        Limits(box_timeout=0)
