"""Start a cluster, responders and load; kill a node and a responder; count what is lost.

Exits with 1 if a call is lost that may be sent again. All that it starts has ended when it ends.
"""

import argparse
import asyncio
import contextlib
import json
import signal
import sys
import tempfile
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path

from rich.live import Live

from examples.cluster.node import NatsServer
from examples.cluster.view import Member, View

MODULE = "examples.cluster"
PATIENCE = 20.0
"""Seconds that a program has to come up, or to end."""


@contextlib.asynccontextmanager
async def program(module: str, *arguments: str) -> AsyncGenerator[Process, None]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", f"{MODULE}.{module}", *arguments, stdin=PIPE, stdout=PIPE
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@contextlib.asynccontextmanager
async def cluster(directory: Path, view: View, size: int) -> AsyncIterator[list[NatsServer]]:
    nodes: list[NatsServer] = []
    try:
        for number in range(size):
            place = directory / f"node{number}"
            place.mkdir()
            node = NatsServer(place, routes=[each.route for each in nodes])
            nodes.append(node)
            await asyncio.to_thread(node.start)
            view.nodes.append(Member(f"node {number + 1}", node.url))
        yield nodes
    finally:
        for node in nodes:
            node.kill()


async def line_of(process: Process) -> bytes:
    assert process.stdout is not None
    async with asyncio.timeout(PATIENCE):
        line = await process.stdout.readline()
    if not line:
        raise RuntimeError("a program has ended before its time")
    return line


async def follow(process: Process, name: str, view: View) -> None:
    assert process.stdout is not None
    async for line in process.stdout:
        view.reports[name] = json.loads(line)
        view.refresh()


async def end(process: Process) -> None:
    """Let a program finish what it does."""
    assert process.stdin is not None
    process.stdin.close()
    async with asyncio.timeout(PATIENCE):
        if await process.wait() != 0:
            raise RuntimeError("a program has failed")


async def play(view: View, seconds: float) -> None:
    async with contextlib.AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        nodes = await stack.enter_async_context(cluster(directory, view, 3))
        urls = [node.url for node in nodes]
        responders: list[Process] = []
        for number, name in enumerate(("ann", "bob", "cat")):
            own = [*urls[number:], *urls[:number]]
            process = await stack.enter_async_context(program("responder", name, *own))
            responders.append(process)
            view.responders.append(Member(name, f"node {number + 1}"))
        for process in responders:
            await line_of(process)
        view.happened("three nodes, and a responder at each")
        clients: list[Process] = []
        following: list[asyncio.Task[None]] = []
        for number in range(2):
            name = f"client {number + 1}"
            own = [*urls[number:], *urls[:number]]
            process = await stack.enter_async_context(program("load", *own))
            view.reports[name] = json.loads(await line_of(process))
            clients.append(process)
            view.clients.append(Member(name, f"node {number + 1}"))
            following.append(asyncio.create_task(follow(process, name, view)))
        view.happened("two clients ask, each ten calls at a time")
        await asyncio.sleep(seconds)
        nodes[1].kill()
        view.nodes[1].is_alive = False
        view.happened("node 2 is killed, with bob and client 2 connected to it")
        await asyncio.sleep(seconds)
        responders[2].kill()
        view.responders[2].is_alive = False
        view.happened("cat is killed")
        await asyncio.sleep(seconds)
        await asyncio.to_thread(nodes[1].start)
        view.nodes[1].is_alive = True
        view.happened("node 2 is back")
        await asyncio.sleep(seconds)
        await asyncio.gather(*map(end, clients))
        await asyncio.gather(*following)
        view.happened("the clients have their last answers")
        await asyncio.gather(*map(end, responders[:2]))


async def main(seconds: float) -> int:
    view = View()
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    if view.console.is_terminal:
        with Live(console=view.console, auto_refresh=False, transient=True) as view.live:
            await play(view, seconds)
        view.live = None
    else:
        await play(view, seconds)
    view.summary()
    return 1 if view.total("prices_lost") or not view.total("prices") else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog=MODULE, description=__doc__)
    parser.add_argument("--seconds", type=float, default=4.0, help="between what happens")
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(asyncio.run(main(parser.parse_args().seconds)))
    sys.exit(130)
