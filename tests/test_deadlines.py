from __future__ import annotations

import asyncio
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.example_commands import Repeat, Text, Wait, example_router
from tests.gate import Gate
from tests.peers import (
    HOST,
    QUESTION,
    joined,
    knows_all,
    port_of,
    raw_client_of,
    raw_server_of,
    until,
)
from typed_amp import (
    CallTimeoutError,
    Connection,
    RemoteAmpError,
    Router,
    connect,
    remaining_time,
    serve,
)
from typed_amp.deadlines import AMBIENT_DEADLINE, decode_deadline, encode_deadline


@given(st.floats(min_value=0, max_value=10**9))
def test_time_that_is_left_travels_rounded_up(seconds: float) -> None:
    decoded = decode_deadline(encode_deadline(seconds))
    assert decoded is not None
    assert 0 <= decoded - seconds <= 0.001 + seconds * 1e-9


@pytest.mark.parametrize("seconds", [1e300, math.inf])
def test_more_time_than_can_be_said_is_a_very_long_time(seconds: float) -> None:
    assert decode_deadline(encode_deadline(seconds)) == 10**9


@given(st.binary(max_size=30))
def test_whatever_a_peer_says_is_a_time_or_nothing(data: bytes) -> None:
    decoded = decode_deadline(data)
    assert decoded is None or 0 <= decoded <= 10**9


async def test_a_responder_is_cancelled_when_its_caller_waits_no_more() -> None:
    ended: list[str] = []
    router = Router()

    @router.responder(Wait)
    async def wait(command: Wait) -> Text:
        left = remaining_time()
        assert left is not None
        assert 0 < left <= 0.05
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cancelled")
        raise AssertionError

    async with joined(router) as (client, server):
        await until(lambda: knows_all(client) and knows_all(server))
        with pytest.raises(CallTimeoutError, match=r"^Wait: no answer from .* within 0\.05 sec"):
            await client.call(Wait(), timeout=0.05)
        await until(lambda: ended and not server._link.responses.running)
        assert server._link.dialogue.unanswered == 0
        assert remaining_time() is None


async def test_the_code_of_a_time_that_is_over() -> None:
    async with raw_client_of(Gate().router) as (peer, _):
        await peer.ask({**QUESTION, b"features": b"\0\x08deadline"})
        ask = {b"_ask": b"1", b"_command": b"Wait", b"key": b"0"}
        assert (await peer.ask({**ask, b"_deadline": b"10"}))[b"_error_code"] == b"TIMEOUT"
        # None was left when it came, so that it is not even begun.
        assert (await peer.ask({**ask, b"_deadline": b"0"}))[b"_error_code"] == b"TIMEOUT"


async def test_what_only_looks_like_a_deadline_is_none() -> None:
    async with raw_client_of(example_router()) as (peer, _):
        ask = {b"_ask": b"1", b"_command": b"Repeat", b"text": b"ab", b"_deadline": b"0"}
        assert (await peer.ask(ask))[b"text"] == b"ab"  # of who never spoke of deadlines
        await peer.ask({**QUESTION, b"features": b"\0\x08deadline"})
        ask[b"_deadline"] = b"soon"
        assert (await peer.ask(ask))[b"text"] == b"ab"


async def test_the_peer_s_clock_may_be_first() -> None:
    async with raw_server_of(extensions=True) as (connection, peer):
        await peer.receive()
        await peer.send({b"_answer": b"0", b"features": b"\0\x08deadline"})
        await until(lambda: connection._link.features.has_deadlines)
        call = asyncio.create_task(connection.call(Repeat(text="ab"), timeout=60))
        ask = await peer.receive()
        assert 59_000 < int(ask[b"_deadline"]) <= 60_000
        error = {b"_error_code": b"TIMEOUT", b"_error_description": b"over"}
        await peer.send({b"_error": ask[b"_ask"], **error})
        with pytest.raises(CallTimeoutError, match="within 60 seconds"):
            await call
        # Nor is it this side's time that is over where it has none.
        call = asyncio.create_task(connection.call(Repeat(text="ab"), timeout=math.inf))
        ask = await peer.receive()
        assert b"_deadline" not in ask
        await peer.send({b"_error": ask[b"_ask"], **error})
        with pytest.raises(RemoteAmpError, match="over"):
            await call
        AMBIENT_DEADLINE.set(asyncio.get_running_loop().time() + 30)
        call = asyncio.create_task(connection.call(Repeat(text="ab")))
        ask = await peer.receive()
        await peer.send({b"_error": ask[b"_ask"], **error})
        with pytest.raises(CallTimeoutError, match="within 30 seconds"):
            await call


async def test_the_time_of_calls_that_are_given_none() -> None:
    gate = Gate()
    async with (
        serve(gate.router, HOST, 0) as server,
        connect(HOST, port_of(server), call_timeout=0.02) as client,
    ):
        with pytest.raises(CallTimeoutError) as caught:
            await client.call(Wait())
        assert caught.value.timeout == 0.02
        with pytest.raises(CallTimeoutError) as caught:
            await client.call(Wait(), timeout=0.01)
        assert caught.value.timeout == 0.01
        with pytest.raises(CallTimeoutError, match="no time was left") as caught:
            await client.call(Wait(), timeout=0)
        assert caught.value.timeout == 0
        for_ever = asyncio.create_task(client.call(Wait(key=2), timeout=math.inf))
        await until(lambda: 2 in gate.waiting)
        with pytest.raises(CallTimeoutError):
            await client.call(Wait(key=3))
        gate.waiting[2].set_result("at last")
        assert await for_ever == Text(text="at last")


async def test_a_responder_s_own_calls_have_no_more_time_than_it_has() -> None:
    # Three programs: the first one's time is up, and the third stops working.
    gate = Gate()
    middle = Router()
    outcomes: list[BaseException] = []
    async with joined(gate.router) as (to_last, last):
        await until(lambda: knows_all(to_last) and knows_all(last))

        @middle.responder(Wait)
        async def ask_on(command: Wait) -> Text:
            try:
                return await to_last.call(command)
            except BaseException as error:
                outcomes.append(error)
                raise

        async with joined(middle) as (first, server):
            await until(lambda: knows_all(first) and knows_all(server))
            with pytest.raises((CallTimeoutError, RemoteAmpError)):
                await first.call(Wait(), timeout=0.05)
            await until(lambda: not last._link.responses.running and len(outcomes) == 1)
        assert isinstance(outcomes[0], (CallTimeoutError, asyncio.CancelledError))


async def test_a_call_without_time_is_not_sent() -> None:
    async with joined(example_router()) as (client, _):
        AMBIENT_DEADLINE.set(asyncio.get_running_loop().time() - 1)
        written = client._link.writer.taken_bytes
        with pytest.raises(CallTimeoutError, match="no time was left"):
            await client.call(Repeat(text="never"))
        assert client._link.writer.taken_bytes == written
        assert await client.call(Repeat(text="ab"), timeout=math.inf) == Text(text="ab")


async def test_hooks_of_a_connection_made_in_a_responder_have_none_of_its_deadline() -> None:
    seen: list[float | None] = []
    router = example_router()

    @router.on_connect
    @router.on_disconnect
    async def note(connection: Connection) -> None:
        seen.append(remaining_time())

    async with serve(example_router(), HOST, 0) as server:
        AMBIENT_DEADLINE.set(asyncio.get_running_loop().time() + 60)
        async with connect(HOST, port_of(server), router=router):
            pass
        AMBIENT_DEADLINE.set(None)
    assert seen == [None, None]


async def test_a_connection_made_in_a_responder_does_not_inherit_its_deadline() -> None:
    seen: list[float | None] = []
    router = example_router()

    @router.responder(Wait)
    async def note(command: Wait) -> Text:
        seen.append(remaining_time())
        return Text(text="")

    async with serve(router, HOST, 0) as server:
        AMBIENT_DEADLINE.set(asyncio.get_running_loop().time() + 60)
        connection = await connect(HOST, port_of(server), router=router)
        AMBIENT_DEADLINE.set(None)
        (other,) = server.connections
        await other.call(Wait())
        assert seen == [None]
        async with connection:
            pass
