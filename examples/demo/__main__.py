"""Start a server and clients on this machine, and show what they say to each other."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import sys
import time
from asyncio.subprocess import PIPE, Process
from typing import TYPE_CHECKING

from examples.demo.page import Page, body_of, source_of
from examples.demo.scenes import SCENES, client
from examples.demo.tap import tap
from typed_amp import connect

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from examples.demo.scenes import Scene
    from typed_amp import Box, Connection


class ServerProcess:
    """The server, in a process of its own. Its log comes by its standard error."""

    def __init__(self, page: Page, process: Process) -> None:
        self.page = page
        self.process = process
        self.address = ("", 0)
        self.logged = 0
        self.news = asyncio.Condition()

    async def read_log(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            text = line.decode().strip()
            async with self.news:
                if listening := re.fullmatch(r"INFO serving at (\S+):([0-9]+)", text):
                    self.address = listening[1], int(listening[2])
                else:
                    self.page.server_log(text)
                    self.logged += 1
                self.news.notify_all()

    async def wait_until_serving(self) -> None:
        async with self.news:
            await self.news.wait_for(lambda: self.address[1])

    async def wait_until_logged(self, lines: int) -> None:
        async with self.news:
            await self.news.wait_for(lambda: self.logged >= lines)


@contextlib.asynccontextmanager
async def server_process(page: Page) -> AsyncGenerator[ServerProcess, None]:
    """Start the server; at the end stop it, whatever happened."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "examples.demo.server", "--host=127.0.0.1", "--port=0", stderr=PIPE
    )
    server = ServerProcess(page, process)
    reading = asyncio.create_task(server.read_log())
    try:
        async with asyncio.timeout(30):
            await server.wait_until_serving()
        yield server
    finally:
        process.terminate()
        try:
            async with asyncio.timeout(5):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
        await reading


async def play(page: Page, server: ServerProcess, scene: Scene, *clients: Connection) -> None:
    title, _, prose = (scene.play.__doc__ or "").partition("\n")
    page.heading(SCENES.index(scene) + 1, title)
    page.prose(prose)
    for file, things in (("commands.py", scene.commands), ("server.py", scene.responders)):
        if things:
            page.code(file, *map(source_of, things))
    page.code("client.py", *map(source_of, scene.own), body_of(scene.play))
    page.line()
    logged = server.logged
    with page.captured():
        await scene.play(*clients[: scene.clients])
    if scene.logs:
        await server.wait_until_logged(logged + scene.logs)


async def main() -> int:
    page = Page()
    started = time.monotonic()
    demo = asyncio.current_task()
    assert demo is not None
    for number in (signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, demo.cancel)

    page.title("typed_amp: calls between programs, and what goes over the wire")

    is_spelled_out = False

    def watch(sender: str, receiver: str, box: Box) -> None:
        nonlocal is_spelled_out
        page.box(sender, receiver, box)
        if not is_spelled_out and box.get(b"_command") == b"Repeat":
            page.byte_by_byte(box)
            is_spelled_out = True

    async with server_process(page) as server:
        host, port = server.address
        async with (
            tap("client", server.address, watch) as first_port,
            tap("client 2", server.address, watch) as second_port,
            connect("127.0.0.1", first_port, router=client) as connection,
            connect("127.0.0.1", second_port, router=client) as second,
        ):
            page.prose(
                f"""
                A server runs as a process of its own ({server.process.pid}), at {host}:{port}.
                This program is its client. Between the two sits a tap, which shows what passes.

                What passes are AMP boxes: keys with their values. Each key and each value stands
                behind its length in two bytes, and a length of zero ends the box. A box with
                _command asks for something, under a number (in hexadecimal) in _ask. The box
                with the same number in _answer, or in _error, answers it.

                The first box of each client asks which extensions the server knows, since both
                are typed_amp programs. Any other AMP peer answers that it knows of none.

                Of each scene you see the code that runs, and then what happens, in the order in
                which it happens: the boxes, and behind a | what the code prints.
                """,
                indent="",
            )
            for scene in SCENES:
                await play(page, server, scene, connection, second)
    page.heading(len(SCENES) + 1, "The end")
    page.prose(
        f"""
        All of it on the connections that were opened at the start: {page.boxes} boxes,
        {page.bytes:,} bytes, {time.monotonic() - started:.1f} seconds, most of them spent waiting
        on purpose. The server was told to stop, and ended with exit code
        {server.process.returncode}.

        Next: README.md has this in three short files. The sources of the demo are in
        examples/demo, and smaller programs beside it.
        """
    )
    return server.process.returncode or 0


if __name__ == "__main__":
    try:
        sys.exit(asyncio.run(main()))
    except (KeyboardInterrupt, asyncio.CancelledError):
        sys.exit("stopped")
