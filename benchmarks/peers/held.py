"""A process that holds connections or calls, for its memory to be measured from outside.

Its argument says what: `typed_amp` and `bare` serve, and print their port; `calls` and `tasks` hold
as many calls in flight as the last line of the input says, or tasks that wait for a future. Each
line is answered by one once it is so, and garbage is collected.
"""

from __future__ import annotations

import asyncio
import json
import sys
from functools import partial
from typing import TYPE_CHECKING

from benchmarks.harness import allow_descriptors
from benchmarks.peers.bare_bytes import BytesServer
from benchmarks.peers.commands import Wait
from benchmarks.peers.loop import run_on_loop
from benchmarks.peers.target import give_back_memory
from benchmarks.peers.turn import HOST
from benchmarks.peers.typed import router as serving
from benchmarks.samples import answer_bytes, ask_bytes
from typed_amp import Limits, Router, serve
from typed_amp.testing import connection_pair

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

MANY = 1_000_000

router = Router()
begun = asyncio.Semaphore(0)
"""Is released by each that waits."""


@router.responder(Wait)
async def wait(_: Wait) -> None:
    begun.release()
    await asyncio.get_running_loop().create_future()


async def questions() -> AsyncGenerator[int, None]:
    """Give the numbers in the lines of the input, and answer each when it is taken care of."""
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(lines), sys.stdin
    )
    while line := await lines.readline():
        yield int(line)
        give_back_memory()
        print("null", flush=True)


async def hold_connections(what: str) -> None:
    if what == "typed_amp":
        async with serve(serving, HOST, 0, max_connections=MANY) as server:
            print(json.dumps(server.addresses[0][1]), flush=True)
            async for _ in questions():
                pass
        return
    new_protocol = partial(BytesServer, ask_bytes("repeat"), answer_bytes("repeat"))
    bare = await asyncio.get_running_loop().create_server(new_protocol, HOST, 0)
    print(json.dumps(bare.sockets[0].getsockname()[1]), flush=True)
    async for _ in questions():
        pass


async def hold_calls() -> None:
    tasks: set[asyncio.Task[None]] = set()
    limits = Limits(max_requests=MANY)
    async with connection_pair(router, limits=limits) as (client, _):
        print("null", flush=True)
        async for number in questions():
            while len(tasks) < number:
                tasks.add(asyncio.create_task(client.call(Wait())))
                await begun.acquire()


async def hold_tasks() -> None:
    tasks: set[asyncio.Task[None]] = set()
    print("null", flush=True)
    async for number in questions():
        while len(tasks) < number:
            tasks.add(asyncio.create_task(wait(Wait())))
            await begun.acquire()


if __name__ == "__main__":
    allow_descriptors()
    held = sys.argv[1]
    if held == "calls":
        run_on_loop(hold_calls())
    elif held == "tasks":
        run_on_loop(hold_tasks())
    else:
        run_on_loop(hold_connections(held))
