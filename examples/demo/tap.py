"""A tap between a client and a server: passes on all bytes, and reads along.

It knows nothing of the commands. What it shows is what any AMP peer sees.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from typed_amp import BoxReader

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from typed_amp import Box


@contextlib.asynccontextmanager
async def tap(
    client: str, server: tuple[str, int], watch: Callable[[str, str, Box], None]
) -> AsyncGenerator[int, None]:
    """Listen for one client.

    Args:
        client: what to call it.
        server: where to pass on what it sends.
        watch: told of each box: who sent it, who gets it, what is in it.

    Returns:
        A context manager that gives the port for the client to connect to.
    """
    passing: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection(*server)
        async with asyncio.TaskGroup() as group:
            there = group.create_task(pass_on(reader, server_writer, client, "server"))
            back = group.create_task(pass_on(server_reader, writer, "server", client))
            passing.update((there, back))

    async def pass_on(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, sender: str, receiver: str
    ) -> None:
        boxes = BoxReader()
        try:
            while data := await reader.read(65_536):
                for box in boxes.feed(data):
                    watch(sender, receiver, box)
                writer.write(data)
                await writer.drain()
        finally:
            writer.close()

    listener = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield listener.sockets[0].getsockname()[1]
    finally:
        listener.close()
        if passing:
            await asyncio.wait(passing)
