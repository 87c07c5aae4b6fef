"""Calls that are given up, at any moment, and what the side that was asked learns of it."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tests.strategies  # noqa: F401 - the profile of all tests with hypothesis
from tests.example_commands import Repeat, Text, Wait, example_router
from tests.gate import Gate
from tests.peers import (
    QUESTION,
    LogCapture,
    cancel,
    joined,
    knows_all,
    raw_client_of,
    raw_server_of,
    settled,
    until,
)
from typed_amp import (
    Box,
    BoxReader,
    CallTimeoutError,
    Connection,
    Limits,
    RemoteAmpError,
    Router,
    remaining_time,
)
from typed_amp.protocol import LinkProtocol
from typed_amp.testing import connection_pair

CANCEL = {b"_command": b"typed-amp.cancel"}
REFUSED = {
    b"_error_code": b"CANCELLED",
    b"_error_description": b"its responder was cancelled, since the caller has given up",
}


def ask(tag: bytes) -> Box:
    return {b"_ask": tag, b"_command": b"Wait"}


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


@pytest.mark.parametrize("first", ["close", "reset"])
async def test_a_deadline_does_not_cancel_what_cleans_up(first: str) -> None:
    router = Router()
    events: list[str] = []

    @router.responder(Wait)
    async def wait(command: Wait) -> Text:
        events.append("begun")
        try:
            await asyncio.Event().wait()
        finally:
            left = remaining_time()
            assert left is not None
            events.append("cleaning")
            await asyncio.sleep(left + 0.05)  # until its time has been over for a while
            events.append("clean")
        raise AssertionError

    async with raw_client_of(router, drain_timeout=10) as (peer, connection):
        await peer.ask({**QUESTION, b"features": b"\0\x08deadline"})
        await peer.send({b"_ask": b"1", b"_command": b"Wait", b"_deadline": b"200"})
        await until(lambda: events)
        if first == "close":
            connection.close(drain_timeout=0)
        else:
            peer.reset()
        await until(lambda: not connection._link.responses.running)
        assert events == ["begun", "cleaning", "clean"]


async def test_what_waits_for_its_turn_is_never_begun() -> None:
    gate, other = Gate(), Gate()
    limits = Limits(max_requests=1)
    async with joined(gate.router, other.router, limits=limits) as (client, server):
        await until(lambda: knows_all(client) and knows_all(server))
        asking = asyncio.create_task(server.call(Wait()))  # for which it reads on
        await other.holds(1)
        first = asyncio.create_task(client.call(Wait(key=1)))
        await gate.holds(1)
        second = asyncio.create_task(client.call(Wait(key=2)))
        third = asyncio.create_task(client.call(Wait(key=3)))
        await settled()
        await cancel(second)
        await settled()
        gate.waiting[1].set_result("")
        await first
        await until(lambda: len(gate.waiting) > 1)
        assert 2 not in gate.waiting
        gate.waiting[3].set_result("")
        await third
        await until(lambda: client._link.dialogue.late == 1)
        other.waiting[0].set_result("")
        await asking


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


# -- What is written -------------------------------------------------------------------------------


async def test_the_peer_is_told_of_calls_that_it_may_know_of_and_has_not_answered() -> None:
    async with raw_server_of(extensions=True) as (connection, peer):
        await peer.receive()
        await peer.send({b"_answer": b"0", b"features": b"\0\6cancel"})
        await until(lambda: connection._link.features.has_cancel)
        answered = asyncio.create_task(connection.call(Repeat(text="")))
        await peer.send({b"_answer": (await peer.receive())[b"_ask"], b"text": b""})
        await until(lambda: connection._link.dialogue.pending == 0)
        answered.cancel()
        await asyncio.wait([answered])
        connection._link.writer.lock()
        held = asyncio.create_task(connection.call(Repeat(text="never sent")))
        await settled()
        await cancel(held)
        connection._link.writer.unlock()
        given_up = asyncio.create_task(connection.call(Repeat(text="given up")))
        sent = await peer.receive()
        assert sent[b"text"] == b"given up"
        await cancel(given_up)
        assert await peer.receive() == {**CANCEL, b"ask": sent[b"_ask"]}


@pytest.mark.parametrize("is_begun", [False, True])
async def test_giving_up_is_answered_and_nothing_to_log(is_begun: bool, log: LogCapture) -> None:
    gate = Gate()
    async with raw_client_of(gate.router) as (peer, connection):
        if is_begun:
            await peer.send(ask(b"1"))
            await gate.holds(1)
            await peer.send({**CANCEL, b"ask": b"1"})
        else:  # it comes with the ask itself
            await peer.send(ask(b"1"), {**CANCEL, b"ask": b"1"})
        assert await peer.receive() == {b"_error": b"1", **REFUSED}
        assert gate.cancelled == list(gate.waiting)  # whether it had its first step or not
        assert connection._link.responses.running == 0
        assert log.lines() == []


async def test_an_ask_that_is_held_is_given_up_unrun() -> None:
    gate = Gate()
    may_begin = asyncio.Event()

    @gate.router.on_connect
    async def hook(connection: Connection) -> None:
        await may_begin.wait()

    async with raw_client_of(gate.router) as (peer, _):
        await peer.send(
            {**CANCEL, b"ask": b"0"},
            ask(b"1"),
            {b"_ask": b"2", b"_command": b"Repeat", b"text": b"a"},
            {**CANCEL, b"ask": b"1"},
        )
        await peer.ask({b"_ask": b"3", b"_command": b"typed-amp.ping"})
        may_begin.set()
        assert await peer.receive() == {b"_error": b"1", **REFUSED}
        assert (await peer.receive())[b"_answer"] == b"2"
        assert not gate.waiting


async def test_what_waits_while_answers_are_awaited_is_given_up_at_once() -> None:
    # While this side waits for an answer it reads on, though no more responders may run.
    here, there = Gate(), Gate()
    limits = Limits(max_requests=1)
    async with joined(here.router, there.router, limits=limits) as (client, server):
        await until(lambda: knows_all(client) and knows_all(server))
        calls = [asyncio.create_task(client.call(Wait(key=0)))]
        await here.holds(1)
        back = asyncio.create_task(server.call(Wait()))
        await there.holds(1)
        calls += [asyncio.create_task(client.call(Wait(key=key))) for key in (1, 2)]
        await until(lambda: len(server._link.responses._held or ()) == 2)
        await cancel(calls[1])
        await cancel(calls[0])
        await until(lambda: 2 in here.waiting)
        here.waiting[2].set_result("2")
        assert await calls[2] == Text(text="2")
        assert list(here.waiting) == [0, 2]
        await cancel(back)


@pytest.mark.parametrize("tag", [b"", b"0", b"2", b"\xff" * 300])
async def test_giving_up_what_is_not_there_harms_nobody(tag: bytes) -> None:
    gate = Gate()
    async with raw_client_of(gate.router) as (peer, _):
        await peer.send(ask(b"1"))
        await gate.holds(1)
        await peer.ask({b"_ask": b"2", b"_command": b"Repeat", b"text": b"a"})
        await peer.send({**CANCEL, b"ask": tag})
        # Whoever wants to hear of it gets an answer.
        assert await peer.ask({**CANCEL, b"ask": tag, b"_ask": b"3"}) == {b"_answer": b"3"}
        gate.waiting[0].set_result("all the same")
        assert await peer.receive() == {b"_answer": b"1", b"text": b"all the same"}


async def test_a_tag_that_is_used_again_is_that_of_its_latest_ask() -> None:
    gate = Gate()
    async with raw_client_of(gate.router) as (peer, _):
        for turn in range(1, 4):
            await peer.send(ask(b"1"))
            await gate.holds(1)
            assert await peer.ask({**CANCEL, b"ask": b"1"}) == {b"_error": b"1", **REFUSED}
            assert gate.cancelled == [0] * turn
            gate.waiting.clear()


async def test_a_responder_may_answer_all_the_same() -> None:
    begun = asyncio.Event()
    router = Router()

    @router.responder(Wait)
    async def wait(command: Wait) -> Text:
        begun.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return Text(text="stubborn")

    async with raw_client_of(router) as (peer, _):
        await peer.send(ask(b"1"))
        await begun.wait()
        answer = await peer.ask({**CANCEL, b"ask": b"1"})
        assert answer == {b"_answer": b"1", b"text": b"stubborn"}


async def test_a_responder_that_fails_while_it_cleans_up_is_no_cancelled_one(
    log: LogCapture,
) -> None:
    begun = asyncio.Event()
    router = Router()

    @router.responder(Wait)
    async def wait(command: Wait) -> Text:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            raise RuntimeError("the broom is gone")

    async with raw_client_of(router) as (peer, _):
        await peer.send(ask(b"1"))
        await begun.wait()
        answer = await peer.ask({**CANCEL, b"ask": b"1"})
        assert answer[b"_error_code"] == b"UNKNOWN"
        assert "the broom is gone" in log.only_line()


# -- At any moment ---------------------------------------------------------------------------------


class Step(NamedTuple):
    """A call that one side makes, and what becomes of it.

    Attributes:
        is_by_client: who calls.
        key: says what the responder does.
        patience: after how many turns of the event loop something is given up.
        given_up: what: the "call"; by "time"; the "responder", by itself; or "nothing".
        pause: how many turns pass before the next step.
    """

    is_by_client: bool
    key: int
    patience: int
    given_up: str
    pause: int


steps = st.builds(
    Step,
    st.booleans(),
    st.integers(0, 40),
    st.integers(0, 12),
    st.sampled_from(["call", "time", "responder", "nothing"]),
    st.integers(0, 4),
)


class Listener(LinkProtocol):
    """Notes each box that one side gets, in whatever pieces, and passes it on."""

    def __init__(self, connection: Connection[Any]) -> None:
        super().__init__(connection)
        self.boxes: list[Box] = []
        self._reader = BoxReader()
        connection._link.transport.set_protocol(self)

    def buffer_updated(self, nbytes: int) -> None:
        self.boxes += self._reader.feed(bytes(self._buffer[:nbytes]))
        super().buffer_updated(nbytes)

    def data_received(self, data: bytes) -> None:
        self.boxes += self._reader.feed(data)
        super().data_received(data)

    def tags(self, *keys: bytes) -> list[bytes]:
        return sorted(box[key] for box in self.boxes for key in keys if key in box)


class Busy:
    """A router whose Wait goes through several await points, and who is in it now.

    Args:
        calls_back: whether it may call the side that called it.
    """

    def __init__(self, *, calls_back: bool) -> None:
        self.inside = 0
        self.router = example_router()
        self.router.responder(Wait)(self.wait)
        self._calls_back = calls_back

    async def wait(self, command: Wait, connection: Connection) -> Text:
        key = command.key
        self.inside += 1
        try:
            await settled(key % 5)
            if self._calls_back and key % 3 == 0:
                await connection.call(Repeat(text="back"))
            elif self._calls_back and key % 3 == 1:
                await connection.call(Wait(key=key // 3))
            return Text(text=str(key))
        finally:
            try:
                await settled(key % 2)  # cleaning up takes time, and may be cancelled too
            finally:
                self.inside -= 1


@given(st.lists(steps, min_size=1, max_size=12), st.booleans(), st.sampled_from([1, 3, 1_000]))
@settings(max_examples=250)
def test_whatever_is_given_up_both_sides_agree(
    script: list[Step], is_met: bool, max_requests: int
) -> None:
    asyncio.run(play(script, is_met, max_requests))


async def play(script: list[Step], is_met: bool, max_requests: int) -> None:
    # Responders that call each other back wait for ever where only a few may run.
    busy = Busy(calls_back=max_requests >= 100)
    limits = Limits(max_requests=max_requests)
    async with (
        asyncio.timeout(5),
        connection_pair(busy.router, client_router=busy.router, limits=limits) as ends,
    ):
        client, server = ends
        listeners = [Listener(end) for end in ends]
        if is_met:
            await until(lambda: all(knows_all(end) for end in ends))
        tasks: list[asyncio.Task[None]] = []
        may_fail = any(step.given_up == "responder" for step in script)
        for step in script:
            caller, other = (client, server) if step.is_by_client else (server, client)
            tasks.append(asyncio.create_task(take(step, caller, other, may_fail=may_fail)))
            await settled(step.pause)
        await asyncio.gather(*tasks)
        await until(lambda: not any(goes_on(end) for end in ends))
        assert busy.inside == 0
        for end in ends:
            assert await end.call(Repeat(text="ab")) == Text(text="ab")
            link = end._link
            assert (link.dialogue.pending, link.dialogue.unanswered) == (0, 0)
            assert link.dialogue.strays == 0
            assert not link.writer.held()
            assert not link.responses._by_tag
        for asked, asking in (listeners, listeners[::-1]):
            tags = asked.tags(b"_ask")
            assert len(set(tags)) == len(tags)
            assert asking.tags(b"_answer", b"_error") == tags


async def take(
    step: Step, caller: Connection[Any], other: Connection[Any], *, may_fail: bool
) -> None:
    """Take a step, and check that what comes of it can."""
    timeout = step.patience / 2_000 if step.given_up == "time" else None
    call = asyncio.create_task(caller.call(Wait(key=step.key), timeout=timeout))
    await settled(step.patience)
    if step.given_up == "call":
        call.cancel()
    elif step.given_up == "responder":
        # As a program may do that finds its task.
        for task in list(other._link.responses._tasks.values())[-1:]:
            if task is not None:
                task.cancel()
    await asyncio.wait([call])
    if call.cancelled():
        assert step.given_up == "call"
    elif (error := call.exception()) is None:
        assert call.result() == Text(text=str(step.key))
    elif step.given_up == "time":
        assert isinstance(error, (CallTimeoutError, RemoteAmpError))
    else:
        assert may_fail
        assert isinstance(error, RemoteAmpError)
        assert error.code == "UNKNOWN"


def goes_on(connection: Connection[Any]) -> bool:
    """Say whether anything is under way of what was asked."""
    link = connection._link
    return bool(link.responses.running or link.responses.is_behind or link.dialogue.expected)
