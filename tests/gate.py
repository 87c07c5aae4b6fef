"""A responder that waits until a test lets it go on."""

from __future__ import annotations

import asyncio

from tests.example_commands import Log, Text, Wait, example_router
from tests.peers import until


class Gate:
    """A router whose Wait is answered when the test says so."""

    def __init__(self) -> None:
        self.router = example_router()
        self.router.responder(Wait)(self.wait)
        self.router.responder(Log)(self.note)
        self.waiting: dict[int, asyncio.Future[str]] = {}
        self.cancelled: list[int] = []
        self.notes: list[bytes] = []
        self.note_gate = asyncio.Event()

    async def wait(self, command: Wait) -> Text:
        future = self.waiting[command.key] = asyncio.get_running_loop().create_future()
        try:
            return Text(text=await future)
        except asyncio.CancelledError:
            self.cancelled.append(command.key)
            raise

    async def note(self, command: Log) -> None:
        await self.note_gate.wait()
        self.notes.append(command.line)

    async def holds(self, count: int) -> None:
        await until(lambda: len(self.waiting) == count)
