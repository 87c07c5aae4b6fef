"""Calls without answers, very many at once, and from the server to the client."""

from __future__ import annotations

import asyncio

import pytest

from tests.interop import commands
from tests.interop.conftest import OurServer
from tests.interop.peers import Session, TwistedProcess
from typed_amp import Connection

MANY = 1_000


class TestWeCallTwisted:
    async def test_no_answer_asked_for(self, connection: Connection[Session]) -> None:
        for line in ("one", "two", "three"):
            await connection.call(commands.Note(line=line))
        assert (await connection.call(commands.Notes())).value == ["one", "two", "three"]

    async def test_nothing_to_say(self, connection: Connection[Session]) -> None:
        """Neither arguments nor fields in the answer."""
        assert await connection.call(commands.Ping()) == commands.Nothing()

    async def test_keys_that_are_no_names(self, connection: Connection[Session]) -> None:
        letter = await connection.call(commands.EchoLetter(from_="é", message_id=7))
        assert letter == commands.Letter(from_="é", message_id=7)

    async def test_many_answered_last_first(self, connection: Connection[Session]) -> None:
        order = []

        async def gather(number: int) -> None:
            answer = await connection.call(commands.Gather(number=number, total=MANY))
            assert answer.value == number
            order.append(number)

        await asyncio.gather(*map(gather, range(MANY)))
        assert order == list(reversed(range(MANY)))

    async def test_many_long_ones(self, connection: Connection[Session]) -> None:
        value = b"x" * 65_535
        answers = await asyncio.gather(
            *(connection.call(commands.EchoString(value=value)) for _ in range(200))
        )
        assert all(answer.value == value for answer in answers)

    async def test_answer_after_the_caller_has_gone(self, connection: Connection[Session]) -> None:
        first = asyncio.create_task(connection.call(commands.Gather(number=0, total=2)))
        await connection.call(commands.Notes())  # the first is on its way by then
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        second = await connection.call(commands.Gather(number=1, total=2))
        assert second.value == 1
        assert await connection.call(commands.Ping()) == commands.Nothing()

    async def test_twisted_calls_back(self, connection: Connection[Session]) -> None:
        assert (await connection.call(commands.Bounce(left=9))).value == 10

    async def test_twisted_calls_by_itself(self, connection: Connection[Session]) -> None:
        await connection.call(commands.Subscribe(lines=3))
        lines = [await connection.state.noted.get() for _ in range(3)]
        assert lines == ["line 0", "line 1", "line 2"]


class TestTwistedCallsUs:
    async def test_no_answer_asked_for(
        self, our_server: OurServer, twisted_client: TwistedProcess
    ) -> None:
        notes = [("Note", {"line": line}) for line in ("one", "two", "three")]
        *_, answer = await twisted_client.call(our_server.where, *notes, ("Notes", {}))
        assert answer == {"answer": {"value": ["one", "two", "three"]}}

    async def test_nothing_to_say(
        self, our_server: OurServer, twisted_client: TwistedProcess
    ) -> None:
        (answer,) = await twisted_client.call(our_server.where, ("Ping", {}))
        assert answer == {"answer": {}}

    async def test_keys_that_are_no_names(
        self, our_server: OurServer, twisted_client: TwistedProcess
    ) -> None:
        letter = {"From": "é", "message_id": 7}
        (answer,) = await twisted_client.call(our_server.where, ("EchoLetter", letter))
        assert answer == {"answer": {"From": "é", "message_id": "0x7"}}

    async def test_many_answered_last_first(
        self, our_server: OurServer, twisted_client: TwistedProcess
    ) -> None:
        order = await twisted_client.play("gather", our_server.where, total=MANY)
        assert order == list(reversed(range(MANY)))

    async def test_many_long_ones(
        self, our_server: OurServer, twisted_client: TwistedProcess
    ) -> None:
        assert await twisted_client.play("load", our_server.where, total=200)

    async def test_we_call_back(
        self, our_server: OurServer, twisted_client: TwistedProcess
    ) -> None:
        (answer,) = await twisted_client.call(our_server.where, ("Bounce", {"left": 9}))
        assert answer == {"answer": {"value": "0xa"}}

    async def test_we_call_by_ourselves(
        self, our_server: OurServer, twisted_client: TwistedProcess
    ) -> None:
        async with asyncio.TaskGroup() as tasks:
            staying = tasks.create_task(twisted_client.play("stay", our_server.where))
            async with await our_server.connected.get() as connection:
                assert (await connection.call(commands.EchoInteger(value=7))).value == 7
                await connection.call(commands.Note(line="and goodbye"))
        assert staying.result() == ["and goodbye"]
