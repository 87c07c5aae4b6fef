"""What Twisted sees of the extensions: one question from who connects, pings, and nothing else."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.interop import commands
from tests.interop.conftest import OurServer
from tests.interop.peers import Session, TwistedProcess, router
from tests.peers import HOST, cancel, port_of, until
from typed_amp import CallTimeoutError, Connection, connect, serve

KEEPALIVE = 0.1
"""Within three times that even a busy machine answers."""

QUESTION = ["typed-amp.capabilities", "_ask", "_command"]
PING = ["typed-amp.ping", "_ask", "_command"]
PLAIN_KEYS = {"_answer", "_ask", "_command", "_error", "_error_code", "_error_description"}


async def give_up_calls(connection: Connection[Session]) -> None:
    """Have one call time out, and cancel another that Twisted has; then show that all is well."""
    with pytest.raises(CallTimeoutError):
        await connection.call(commands.Wait(), timeout=0.01)
    call = asyncio.create_task(connection.call(commands.Wait(), timeout=60))
    await until(lambda: connection._link.dialogue.pending)
    assert (await connection.call(commands.EchoInteger(value=1), timeout=60)).value == 1
    await cancel(call)
    assert (await connection.call(commands.EchoInteger(value=2))).value == 2
    assert connection._link.dialogue.pending == 0


GIVEN_UP = [[name, "_ask", "_command"] for name in ("Wait", "Wait", "EchoInteger", "EchoInteger")]
"""What the peer sees of that: calls, and no word of who waits how long, or no more."""


async def seen_by(connection: Connection[Session]) -> list[list[str]]:
    """Ask Twisted which boxes it got: for each the command, and the keys of the protocol."""
    answer = await connection.call_box("SEEN")
    seen: list[list[str]] = json.loads(answer[b"seen"])
    assert seen.pop() == ["SEEN", "_ask", "_command"]
    return seen


async def pinged(connection: Connection[Session], times: int) -> None:
    """Wait until Twisted was asked so often whether it is there, and has answered each time."""
    dialogue = connection._link.dialogue
    made = dialogue._asks_made
    # Each waits for the answer to the one before.
    await until(lambda: connection.is_closed or dialogue._asks_made > made + times)
    assert not connection.is_closed


class TestWeCallTwisted:
    async def test_it_sees_the_one_question(
        self, connection: Connection[Session], transport: str
    ) -> None:
        await give_up_calls(connection)
        expected = list(GIVEN_UP)
        expected.insert(transport == "tls", QUESTION)  # there it goes out with the first call
        assert await seen_by(connection) == expected
        assert connection._link.dialogue.strays == 0

    async def test_it_is_left_without_an_announcement(
        self, connection: Connection[Session]
    ) -> None:
        # Who was asked something announces that he closes, if the peer knows what that is.
        assert (await connection.call(commands.Bounce(left=1))).value == 2
        sent = connection.counters.bytes_sent
        connection.close(drain_timeout=60)
        await connection.wait_closed()
        assert connection.counters.bytes_sent == sent

    async def test_it_answers_pings(self, twisted_server: TwistedProcess) -> None:
        port = twisted_server.places["tcp"]
        async with connect(HOST, port, router=router, keepalive=KEEPALIVE) as connection:
            await pinged(connection, 5)
            seen = await seen_by(connection)
            assert seen[0] == QUESTION
            assert len(seen) > 5
            assert seen[1:] == [PING] * (len(seen) - 1)


class TestTwistedCallsUs:
    async def test_it_gives_up_calls_and_is_given_up_and_left(
        self, our_server: OurServer, twisted_client: TwistedProcess
    ) -> None:
        playing = asyncio.create_task(twisted_client.play("give_up", our_server.where, wrong=11))
        connection = await our_server.connected.get()
        assert await connection.state.noted.get() == "done"
        await give_up_calls(connection)
        # We are told of none of Twisted's calls that were given up.
        assert connection._link.responses.running == 2
        connection.close(drain_timeout=0.05)
        played: Any = await playing
        late, cancelled, refused, after = played["outcomes"]
        assert late["error"] == "TimeoutError"
        assert cancelled["error"] == "CancelledError"
        assert "value: Input should be less than or equal to 10" in refused["text"]
        assert after == {"answer": {"value": "0x1"}}
        # It was asked no question and told of no closing, and of no details of what it got wrong.
        assert [box for box in played["seen"] if box[0]] == GIVEN_UP
        assert {key for _, *keys in played["seen"] for key in keys} <= PLAIN_KEYS
        await connection.wait_closed()

    async def test_it_answers_pings(self, twisted_client: TwistedProcess) -> None:
        async with serve(router, HOST, 0, keepalive=KEEPALIVE) as server:
            where = {"transport": "tcp", "port": port_of(server)}
            playing = asyncio.create_task(twisted_client.play("stay", where))
            await until(lambda: server.connections)
            (connection,) = server.connections
            await pinged(connection, 5)
            seen = await seen_by(connection)
            assert len(seen) > 5
            assert seen == [PING] * len(seen)
            await connection.call(commands.Note(line="still there"))
            connection.close()
            assert await playing == ["still there"]

    async def test_keys_of_ours_mean_nothing(
        self, our_server: OurServer, twisted_client: TwistedProcess
    ) -> None:
        ask = ("EchoUnicode", {"value": "a", "_deadline": "0"})
        (answer,) = await twisted_client.play("call_strings", our_server.where, calls=[ask])
        assert answer == {"value": "a"}
