"""Twisted's children driven by us, and ours driven by Twisted."""

from __future__ import annotations

import asyncio
import json
import sys

import pytest

from tests.interop.commands import Bounce, EchoInteger, EchoString, Fail, RefusedError
from tests.interop.peers import ROOT, router
from tests.programs import output_of
from typed_amp import connect_process

pytestmark = pytest.mark.usefixtures("nothing_left")

both_fds = pytest.mark.parametrize("fds", [(0, 1), (3, 4)], ids=str)


@both_fds
async def test_we_drive_a_twisted_child(fds: tuple[int, int]) -> None:
    program = sys.executable, "-m", "tests.interop.twisted_child", *map(str, fds)
    async with connect_process(*program, fds=fds, router=router, cwd=ROOT) as connection:
        assert (await connection.call(EchoInteger(value=7))).value == 7
        assert (await connection.call(Bounce(left=5))).value == 6
        with pytest.raises(RefusedError, match="said the peer"):
            await connection.call(Fail(error="RefusedError"))
        value = bytes(65_535)
        calls = [connection.call(EchoString(value=value)) for _ in range(100)]
        assert {answer.value for answer in await asyncio.gather(*calls)} == {value}
    assert connection.exit_status == 0


@both_fds
async def test_twisted_drives_our_child(fds: tuple[int, int]) -> None:
    arguments = "-m", "tests.interop.twisted_parent", *map(str, fds)
    result = json.loads(await output_of(*arguments, directory=ROOT))
    assert result == {
        "integer": {"answer": {"value": "0x7"}},
        "bounce": {"answer": {"value": "0x6"}},
        "fail": {"error": "RefusedError", "text": "said the peer, é"},
        "load": True,
        "exit status": 0,
        "printed": "the child prints\n",
    }
