"""ampoule's pool driving children of ours, and its own child driven by us."""

from __future__ import annotations

import asyncio
import json
import sys

import ampoule.main
import pytest

from tests.interop.ampoule_commands import Echo, Ping, Shutdown
from tests.interop.commands import EchoInteger
from tests.interop.peers import ROOT
from tests.programs import output_of
from typed_amp import ConnectionLostError, UnhandledCommandError, connect_process

pytestmark = pytest.mark.usefixtures("nothing_left")

CHILD = (
    *(sys.executable, "-c", ampoule.main.BOOTSTRAP),
    *("select", "ampoule.child.AMPChild"),
)


async def test_ampoules_pool_drives_our_children() -> None:
    output = await output_of("-m", "tests.interop.twisted_parent", "ampoule", directory=ROOT)
    assert json.loads(output) == {
        "echo": [str(number) for number in range(20)],
        "ping": {"answer": {"response": b"pong".hex()}},
        "integer": {"answer": {"value": "0x7"}},
        "fail": {"error": "RefusedError", "text": "said the peer, é"},
        "unknown": {"error": "UnknownRemoteError", "text": "Code<UNKNOWN>: Unknown Error"},
        "processes": 0,
    }


async def test_we_drive_ampoules_child() -> None:
    async with connect_process(*CHILD, fds=(3, 4)) as connection:
        calls = [connection.call(Echo(data=b"%d" % number)) for number in range(20)]
        answers = await asyncio.gather(*calls)
        assert [answer.response for answer in answers] == [b"%d" % number for number in range(20)]
        with pytest.raises(UnhandledCommandError):
            await connection.call(EchoInteger(value=7))
        await connection.call(Shutdown())
        await connection.wait_closed()
    assert connection.exit_status == 0


async def test_ampoules_child_takes_the_end_of_its_pipe_for_an_error() -> None:
    async with connect_process(*CHILD, fds=(3, 4)) as connection:
        await connection.call(Echo(data=b""))
    assert connection.exit_status == 255


async def test_ampoules_ping_costs_its_child() -> None:
    # Its responder answers with a text where its command declares bytes.
    async with connect_process(*CHILD, fds=(3, 4)) as connection:
        with pytest.raises(ConnectionLostError, match="exit status 255"):
            await connection.call(Ping())
