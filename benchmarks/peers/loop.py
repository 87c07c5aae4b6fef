"""The event loop that a benchmark asked for, and how peers on asyncio run on it."""

from __future__ import annotations

import asyncio
import signal
import sys
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from benchmarks.peers.clock import Clock, call_in_turn
from benchmarks.peers.turn import announce

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping
    from contextlib import AbstractAsyncContextManager

    from benchmarks.peers.clock import Call
    from benchmarks.peers.turn import Turn


def run_on_loop(coroutine: Coroutine[Any, Any, None], *, loop: str = "") -> None:
    """Run on uvloop if it is asked for, here or by `--uvloop`, on the default loop otherwise."""
    factory = None
    if loop == "uvloop" or "--uvloop" in sys.argv:
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(coroutine)


def run_server(serve: Callable[[Turn], AbstractAsyncContextManager[int]], turn: Turn) -> None:
    """Serve until the runner ends this process.

    Args:
        serve: listens, and gives the port.
        turn: where and how.
    """

    async def main() -> None:
        ended = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
        async with serve(turn) as port:
            announce(port)
            await ended.wait()

    run_on_loop(main(), loop=turn.loop)


def run_client(
    connect: Callable[[Turn], AbstractAsyncContextManager[Mapping[str, Call]]], turn: Turn
) -> None:
    """Call the server, with as many calls in flight as the turn says, and report.

    Args:
        connect: connects, and gives a call for each work.
        turn: where and how.
    """

    async def main() -> None:
        async with AsyncExitStack() as connections:
            calls = [
                (await connections.enter_async_context(connect(turn)))[turn.work]
                for _ in range(turn.connections)
            ]
            for call in calls:
                await call()
            clock = Clock(turn)
            callers = (
                call_in_turn(calls[number % len(calls)], clock) for number in range(turn.in_flight)
            )
            await asyncio.gather(*callers)
            clock.report()

    run_on_loop(main(), loop=turn.loop)
