from __future__ import annotations

import asyncio

import pytest

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
    settled,
    until,
)
from typed_amp import Connection, ConnectionLostError, RemoteAmpError, Router, connect, serve
from typed_amp.box import Box
from typed_amp.built_in import FEATURES, Capabilities


def features_in(box: Box) -> list[str]:
    question: Capabilities = Capabilities.__amp_signature__().arguments.decode(box)
    return question.features


async def test_two_of_ours_find_out_about_each_other() -> None:
    async with joined(example_router()) as (client, server):
        await until(lambda: knows_all(client) and knows_all(server))
        assert client._link.dialogue.pending == 0
        assert await client.call(Repeat(text="ab")) == Text(text="ab")


async def test_the_side_that_connected_asks_one_question_and_waits_for_nothing() -> None:
    async with raw_server_of(extensions=True) as (connection, peer):
        call = asyncio.create_task(connection.call(Repeat(text="ab"), timeout=60))
        question, ask = await peer.receive(), await peer.receive()
        assert question.items() >= QUESTION.items()
        assert features_in(question) == list(FEATURES)
        assert ask == {b"_ask": b"1", b"_command": b"Repeat", b"text": b"ab", b"times": b"1"}
        await peer.send({b"_answer": b"1", b"text": b"ab"})
        assert await call == Text(text="ab")


@pytest.mark.parametrize(
    "answer",
    [
        {b"_error": b"0", b"_error_code": b"UNHANDLED", b"_error_description": b"what?"},
        {b"_answer": b"0"},
        {b"_answer": b"0", b"features": b"\0\5no list"},
        {b"_answer": b"0", b"features": b"\0\2\xff\xff"},
        {b"_answer": b"0", b"features": b"\0\6things\0\5to be"},
    ],
    ids=["unknown", "no features", "no list", "no text", "others"],
)
async def test_a_peer_that_is_no_typed_amp_program_notices_nothing_else(answer: Box) -> None:
    async with raw_server_of(Gate().router, extensions=True) as (connection, peer):
        await peer.receive()
        await peer.send(answer)
        given_up = asyncio.create_task(connection.call(Repeat(text="given up"), timeout=60))
        assert b"_deadline" not in await peer.receive()
        given_up.cancel()
        await settled()
        refused = await peer.ask({b"_ask": b"1", b"_command": b"Repeat"})
        assert set(refused) == {b"_error", b"_error_code", b"_error_description"}
        connection.close()
        assert await peer.is_at_end()  # nobody was told anything more


async def test_without_extensions_nothing_is_asked_and_nothing_built_in_is_known() -> None:
    async with raw_client_of(example_router(), extensions=False) as (peer, connection):
        for name in (b"capabilities", b"ping", b"closing"):
            box = {b"_ask": b"1", b"_command": b"typed-amp." + name}
            assert (await peer.ask(box))[b"_error_code"] == b"UNHANDLED"
        assert not knows_all(connection)


async def test_built_in_commands_are_answered_before_anything_that_waits() -> None:
    router = example_router()

    @router.on_connect
    async def never_done(connection: Connection) -> None:
        await asyncio.Event().wait()

    async with raw_client_of(router) as (peer, _):
        await peer.send({b"_ask": b"1", b"_command": b"Repeat", b"text": b"held"})
        assert await peer.ask({b"_ask": b"2", b"_command": b"typed-amp.ping"}) == {b"_answer": b"2"}


async def test_malformed_built_in_commands_are_refused_as_others_are() -> None:
    async with raw_client_of(example_router()) as (peer, _):
        box = {b"_ask": b"1", b"_command": b"typed-amp.capabilities", b"features": b"\0"}
        assert (await peer.ask(box))[b"_error_code"] == b"INVALID_ARGUMENTS"
        await peer.send({b"_command": b"typed-amp.cancel"})
        await peer.send({b"_command": b"typed-amp.cancel", b"ask": b"never asked"})
        assert await peer.ask({b"_ask": b"2", b"_command": b"typed-amp.ping"}) == {b"_answer": b"2"}


async def test_a_fallback_gets_none_of_it() -> None:
    seen: list[bytes] = []
    router = Router()

    @router.fallback
    async def forward(box: Box) -> Box:
        seen.append(box[b"_command"])
        return {}

    async with joined(router) as (client, server):
        await until(lambda: knows_all(client) and knows_all(server))
        await client.call_box("Anything")
    assert seen == [b"Anything"]


async def test_nor_where_there_are_no_extensions() -> None:
    router = Router()

    @router.fallback
    async def forward(box: Box) -> Box:
        raise AssertionError

    async with raw_client_of(router, extensions=False) as (peer, _):
        for name in (b"capabilities", b"ping", b"closing", b"cancel"):
            box = {b"_ask": b"1", b"_command": b"typed-amp." + name}
            assert (await peer.ask(box))[b"_error_code"] == b"UNHANDLED"


# -- Closing -------------------------------------------------------------------------------------


async def test_a_server_that_closes_says_so_before_it_refuses() -> None:
    gate = Gate()
    async with joined(gate.router) as (client, server):
        await until(lambda: knows_all(client) and knows_all(server))
        accepted = asyncio.create_task(client.call(Wait()))
        await gate.holds(1)
        server.close(drain_timeout=60)
        await until(lambda: client._link.calls.is_refused)
        written = client._link.writer.taken_bytes
        with pytest.raises(RemoteAmpError, match="CLOSING: the peer has said that it is closing"):
            await client.call(Wait(key=1))
        assert client._link.writer.taken_bytes == written  # it was not even sent
        gate.waiting[0].set_result("done")
        assert await accepted == Text(text="done")
        await client.wait_closed()


@pytest.mark.parametrize("round_number", range(20))
async def test_what_is_on_the_way_to_a_server_that_closes_is_refused_and_not_lost(
    round_number: int,
) -> None:
    async with (
        serve(example_router(), HOST, 0) as server,
        connect(HOST, port_of(server)) as client,
    ):
        await until(lambda: knows_all(client))
        calls = [asyncio.create_task(client.call(Repeat(text=f"{n}"))) for n in range(10)]
        for _ in range(round_number):
            await asyncio.sleep(0)
        server.close()
        more = [asyncio.create_task(client.call(Repeat(text=f"{n}"))) for n in range(10)]
        outcomes = await asyncio.gather(*calls, *more, return_exceptions=True)
        await client.wait_closed()
    for outcome in outcomes:
        assert not isinstance(outcome, ConnectionLostError)
        if not isinstance(outcome, Text):
            assert isinstance(outcome, RemoteAmpError)
            assert outcome.code == "CLOSING"


async def test_a_peer_that_says_nothing_to_it_holds_nobody_up() -> None:
    async with raw_client_of(example_router()) as (peer, connection):
        await peer.ask({**QUESTION, b"features": b"\0\7closing"})
        connection.close(drain_timeout=60)
        assert (await peer.receive())[b"_command"] == b"typed-amp.closing"
        assert await peer.is_at_end()
