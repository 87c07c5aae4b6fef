"""Calls that are given up, at any moment, and what the side that was asked learns of it."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.example_commands import Repeat, Text, Wait, example_router
from tests.gate import Gate
from tests.peers import QUESTION, cancel, joined, knows_all, raw_client_of, settled, until
from typed_amp import Limits, Router
from typed_amp.testing import connection_pair

CANCEL = {b"_command": b"typed-amp.cancel"}


async def test_a_responder_is_cancelled_when_its_caller_gives_up() -> None:
    gate = Gate()
    async with joined(gate.router) as (client, server):
        await until(lambda: knows_all(client) and knows_all(server))
        calls = [asyncio.create_task(client.call(Wait(key=key))) for key in range(3)]
        await gate.holds(3)
        await cancel(calls[1])
        await until(lambda: gate.cancelled == [1])
        await until(lambda: client._link.dialogue.late == 1)  # it was answered all the same
        for key in (0, 2):
            gate.waiting[key].set_result(f"{key}")
            assert await calls[key] == Text(text=f"{key}")
        assert server._link.dialogue.unanswered == 0


async def test_every_ask_is_answered_once_though_it_was_given_up() -> None:
    gate = Gate()
    async with raw_client_of(gate.router) as (peer, connection):
        await peer.ask({**QUESTION, b"features": b"\0\6cancel"})
        await peer.send({b"_ask": b"a", b"_command": b"Wait", b"key": b"1"})
        await gate.holds(1)
        await peer.send(*[{**CANCEL, b"ask": tag} for tag in (b"a", b"b", b"a")])
        assert (await peer.receive()).items() >= {
            b"_error": b"a",
            b"_error_code": b"CANCELLED",
        }.items()
        assert (await peer.ask({b"_ask": b"b", b"_command": b"typed-amp.ping"})) == {
            b"_answer": b"b"
        }
        assert connection._link.dialogue.unanswered == 0


@pytest.mark.parametrize("second", ["cancel", "reset"])
async def test_a_second_reason_does_not_cancel_what_cleans_up(second: str) -> None:
    router = Router()
    events: list[str] = []
    may_end = asyncio.Event()

    @router.responder(Wait)
    async def wait(command: Wait) -> Text:
        try:
            await asyncio.Event().wait()
        finally:
            events.append("cleaning")
            await may_end.wait()
            events.append("clean")
        raise AssertionError

    async with raw_client_of(router, drain_timeout=10) as (peer, connection):
        await peer.ask({**QUESTION, b"features": b"\0\x08deadline"})
        await peer.send({b"_ask": b"1", b"_command": b"Wait", b"_deadline": b"20"})
        await until(lambda: events)  # its time is over
        if second == "cancel":
            await peer.send({**CANCEL, b"ask": b"1"})
            await peer.ask({b"_ask": b"2", b"_command": b"typed-amp.ping"})
        else:
            peer.reset()
            await connection.wait_lost()
            await settled()
        may_end.set()
        await until(lambda: not connection._link.responses.running)
        assert events == ["cleaning", "clean"]


async def test_what_waits_for_its_turn_is_never_begun() -> None:
    gate = Gate()
    limits = Limits(max_requests=1)
    async with joined(gate.router, limits=limits) as (client, server):
        await until(lambda: knows_all(client) and knows_all(server))
        first = asyncio.create_task(client.call(Wait(key=1)))
        await gate.holds(1)
        second = asyncio.create_task(client.call(Wait(key=2)))
        third = asyncio.create_task(client.call(Wait(key=3)))
        await settled()
        await cancel(second)
        gate.waiting[1].set_result("")
        await first
        await until(lambda: 3 in gate.waiting)
        assert 2 not in gate.waiting
        gate.waiting[3].set_result("")
        await third
        await until(lambda: client._link.dialogue.late == 1)


moments = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 12), st.integers(0, 12)), min_size=1, max_size=12
)


@given(moments)
@settings(max_examples=200, deadline=None)
def test_both_sides_agree_whenever_calls_are_given_up(
    moments: list[tuple[int, int, int]],
) -> None:
    """Each call begins some turns after the one before, and is cancelled some turns later."""

    async def scenario() -> None:
        running: set[int] = set()
        router = Router()

        @router.responder(Wait)
        async def work(command: Wait) -> Text:
            running.add(command.key)
            try:
                for _ in range(command.key % 7):
                    await asyncio.sleep(0)
                return Text(text="done")
            finally:
                running.discard(command.key)
                await asyncio.sleep(0)  # which may be cancelled too

        async with connection_pair(router) as (client, server):
            calls: list[asyncio.Task[Text]] = []
            for pause, length, patience in moments:
                for _ in range(pause):
                    await asyncio.sleep(0)
                key = len(calls) * 7 + length % 7
                call = asyncio.create_task(client.call(Wait(key=key)))
                calls.append(call)
                asyncio.create_task(give_up(call, patience))  # noqa: RUF006 - it ends below
            outcomes = await asyncio.gather(*calls, return_exceptions=True)
            assert all(
                outcome == Text(text="done") or isinstance(outcome, asyncio.CancelledError)
                for outcome in outcomes
            )
            await until(lambda: not (running or server._link.responses.running))
            await until(lambda: client._link.dialogue.expected == 0)
            for side in (client, server):
                dialogue = side._link.dialogue
                assert (dialogue.pending, dialogue.unanswered, dialogue.strays) == (0, 0, 0)
            assert await client.call(Wait(key=0)) == Text(text="done")

    async def give_up(call: asyncio.Task[Text], patience: int) -> None:
        for _ in range(patience):
            await asyncio.sleep(0)
        call.cancel()

    asyncio.run(scenario())


async def test_nothing_is_kept_of_what_was_given_up() -> None:
    async with joined(example_router()) as (client, server):
        await until(lambda: knows_all(client) and knows_all(server))
        for _ in range(50):
            call = asyncio.create_task(client.call(Repeat(text="never mind")))
            await asyncio.sleep(0)
            await cancel(call)
        await client.call(Repeat(text="ab"))
        await until(lambda: client._link.dialogue.expected == 0)
        assert not server._link.responses._by_tag
