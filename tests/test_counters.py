from __future__ import annotations

import asyncio
import json
import logging

import pytest

from tests.example_commands import Buy, Repeat, Text, Wait, example_router
from tests.gate import Gate
from tests.peers import HOST, joined, port_of, raw_client, raw_client_of, until
from typed_amp import Command, Counters, UnhandledCommandError, connect, serve
from typed_amp.counters import count_code


class Unknown(Command):
    pass


async def test_both_ends_count_what_happens() -> None:
    gate = Gate()

    @gate.router.responder(Buy)
    async def buy(command: Buy) -> Text:
        raise KeyError

    async with joined(gate.router) as (client, server):
        await client.call(Repeat(text="ab"))
        with pytest.raises(KeyError):
            await client.call(Buy())
        for _ in range(2):
            with pytest.raises(UnhandledCommandError):
                await client.call(Unknown())
        waiting = asyncio.create_task(client.call(Wait()))
        await gate.holds(1)
        ours, theirs = client.counters, server.counters
        assert (ours.calls, ours.calls_in_flight) == (5, 1)
        assert ours.call_errors == {"NO_SUCH_SKU": 1, "UNHANDLED": 2}
        assert (theirs.requests, theirs.requests_in_flight) == (5, 1)
        assert theirs.refusals == {"NO_SUCH_SKU": 1, "UNHANDLED": 2}
        assert (theirs.calls, ours.requests, theirs.connections) == (0, 0, 1)
        assert ours.bytes_sent == theirs.bytes_received > 0
        assert theirs.bytes_sent == ours.bytes_received > 0
        gate.waiting[0].set_result("")
        await waiting


async def test_a_server_counts_for_all_its_connections_those_that_ended_too() -> None:
    async with serve(example_router(), HOST, 0, max_connections=2) as server:
        for _ in range(3):
            async with connect(HOST, port_of(server)) as client:
                await client.call(Repeat(text="ab"))
            await until(lambda: not server._connections)
        async with raw_client(server) as peer:
            await peer.send({b"_answer": b"never asked"})
            await peer.write(b"\0\0")
            assert await peer.is_at_end()
        await until(lambda: not server._connections)
        async with (
            connect(HOST, port_of(server)) as client,
            connect(HOST, port_of(server)),
            connect(HOST, port_of(server)) as too_many,
        ):
            await client.call(Repeat(text="ab"))
            await too_many.wait_closed()
            counters = server.counters
            assert (counters.requests, counters.connections) == (4, 2)
            assert (counters.strays, counters.violations) == (1, 1)
            assert counters.connections_turned_away == 1
            assert counters.bytes_received > client.counters.bytes_sent


def test_two_can_be_added() -> None:
    one = Counters(calls=1, call_errors={"A": 1, "B": 2}, bytes_sent=10)
    two = Counters(calls=2, call_errors={"B": 1}, late=1)
    both = Counters(calls=3, call_errors={"A": 1, "B": 3}, bytes_sent=10, late=1)
    assert one + two == both
    assert sum([two], one) == both


def test_codes_that_a_peer_makes_up_take_no_room() -> None:
    counts: dict[str, int] = {}
    for number in range(1_000):
        count_code(counts, f"CODE {number}")
    assert len(counts) == 101
    assert counts["(others)"] == 900


class JsonLines(logging.Handler):
    """As a program might send its log to a machine that searches it."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        own = {name: value for name, value in vars(record).items() if name.startswith("amp_")}
        self.lines.append(json.dumps({"message": record.getMessage(), **own}))


async def test_records_say_to_programs_what_they_say_to_people() -> None:
    router = example_router()

    @router.responder(Wait)
    async def fail(command: Wait) -> Text:
        raise ZeroDivisionError

    handler = JsonLines()
    logger = logging.getLogger("typed_amp")
    logger.addHandler(handler)
    try:
        async with raw_client_of(router) as (peer, connection):
            await peer.ask({b"_ask": b"1", b"_command": b"Wait"})
            await peer.send({b"_command": b"Unknown"})
            await peer.write(b"\0\0")
            assert await peer.is_at_end()
            name = connection.name
            assert connection._link.peer in name
    finally:
        logger.removeHandler(handler)
    records = [json.loads(line) for line in handler.lines]
    assert [record["amp_event"] for record in records] == [
        "responder_failed",
        "refused",
        "violation",
    ]
    assert {record["amp_connection"] for record in records} == {name}
    assert [record.get("amp_command") for record in records] == ["Wait", "Unknown", None]
    assert records[1]["amp_code"] == "UNHANDLED"


async def test_each_connection_has_a_name_of_its_own() -> None:
    async with joined(example_router()) as (client, server):
        assert client.name != server.name
