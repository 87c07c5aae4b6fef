"""A server that is told to end by SIGTERM while a thousand calls are in flight."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from tests.example_commands import Text, Wait
from tests.peers import HOST, knows_all, until
from tests.programs import program
from typed_amp import Connection, ConnectionLostError, Limits, RemoteAmpError, connect

ROOT = Path(__file__).parent.parent
IN_FLIGHT = 1_200


async def keep_asking(
    connection: Connection, first: int, outcomes: dict[int, Text | Exception]
) -> None:
    """Call again and again, with a hundred callers, until there is no answer any more."""

    async def caller(key: int) -> None:
        while True:
            try:
                answer: Text = await connection.call(Wait(key=key))
                outcomes[key] = answer
            except (RemoteAmpError, ConnectionLostError) as error:
                outcomes[key] = error
                return
            key += IN_FLIGHT

    await asyncio.gather(*(caller(first + number) for number in range(IN_FLIGHT // 4)))


@pytest.mark.parametrize("turn", range(10))
async def test_no_call_that_was_accepted_is_lost(turn: int, tmp_path: Path) -> None:
    log = tmp_path / "begun"
    outcomes: dict[int, Text | Exception] = {}
    async with program("-m", "tests.drained_program", str(log), directory=ROOT) as server:
        port = int((await server.line()).rpartition(":")[2])
        connections = [
            await connect(HOST, port, extensions=number < 3, limits=Limits(max_requests=10))
            for number in range(4)
        ]
        await until(lambda: all(knows_all(connection) for connection in connections[:3]))
        asking = [
            asyncio.create_task(keep_asking(connection, number * IN_FLIGHT // 4, outcomes))
            for number, connection in enumerate(connections)
        ]
        await until(lambda: len(outcomes) > 3 * IN_FLIGHT)
        pending = sum(connection._link.dialogue.pending for connection in connections)
        assert pending >= 1_000
        server._process.send_signal(signal.SIGTERM)
        await asyncio.gather(*asking)
        await server.rest()
        assert server.exit_code == 0
        for connection in connections:
            await connection.wait_closed()
    begun = {int(line) for line in log.read_text().split()}
    answered = {key for key, outcome in outcomes.items() if isinstance(outcome, Text)}
    assert begun == answered  # whatever was begun has its answer, and nothing else was
    refused = [outcome for outcome in outcomes.values() if isinstance(outcome, Exception)]
    assert len(refused) == IN_FLIGHT
    told = [error for error in refused if isinstance(error, RemoteAmpError)]
    assert {error.code for error in told} == {"CLOSING"}
    # To a peer that knows no extensions the end may come before an ask of its does.
    assert len(refused) - len(told) <= IN_FLIGHT // 4
