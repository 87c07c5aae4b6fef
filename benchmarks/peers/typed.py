"""typed_amp: the server and the client of the benchmark."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Annotated

from pydantic import BaseModel, Field

from benchmarks.peers.clock import Clock
from benchmarks.peers.loop import run_on_loop
from typed_amp import Command, Connection, Router, connect, serve


class RepeatResult(BaseModel):
    text: str


class Repeat(Command[RepeatResult]):
    text: str
    times: Annotated[int, Field(ge=0, le=1000)] = 1


router = Router()


@router.responder(Repeat)
async def repeat(command: Repeat) -> RepeatResult:
    return RepeatResult(text=command.text * command.times)


async def serve_repeat() -> None:
    async with serve(router, "127.0.0.1", 0) as server:
        print(server.addresses[0][1], flush=True)
        await server.serve_forever()


async def call_repeat(port: int, in_flight: int, seconds: float) -> None:
    async with connect("127.0.0.1", port) as connection:
        clock = Clock(seconds)
        await asyncio.gather(*(call_in_turn(connection, clock) for _ in range(in_flight)))
        clock.report()


async def call_in_turn(connection: Connection, clock: Clock) -> None:
    is_time_left = True
    while is_time_left:
        start = time.perf_counter()
        result = await connection.call(Repeat(text="abc", times=3))
        is_time_left = clock.called(start)
        assert result.text == "abcabcabc"


if __name__ == "__main__":
    if sys.argv[1] == "server":
        run_on_loop(serve_repeat())
    else:
        run_on_loop(call_repeat(int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])))
