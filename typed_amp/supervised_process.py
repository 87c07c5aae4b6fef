"""A worker of `typed-amp serve`, as its supervisor sees it.

Rule of this module: a process that was started is waited for, and one that doesn't end is killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from subprocess import DEVNULL
from typing import TYPE_CHECKING, Self

from typed_amp.serve_settings import Assignment

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import Sequence

    from typed_amp.serve_settings import ServeSettings
    from typed_amp.shared_counts import SharedCounts

__all__ = ["NotReadyError", "SupervisedProcess"]


class NotReadyError(Exception):
    """A worker has ended before it served; the text says why."""


class SupervisedProcess:
    """A worker's process. Made by `start`.

    Attributes:
        number: which worker it is.
        process_id: the system's number for it.
        is_ready: whether it has said that it serves.
        began: when it was ready, by the event loop's clock.
        ended: done when it has ended and was reaped, with its exit status; the negative number of
            the signal if one ended it.
    """

    def __init__(
        self,
        number: int,
        process: Process,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        loop = asyncio.get_running_loop()
        self.number = number
        self.process_id: int = process.pid
        self.is_ready: bool = False
        self.began: float = loop.time()
        self._process = process
        self._reader = reader
        self._writer = writer
        self.ended: asyncio.Task[int] = loop.create_task(self._wait())

    @classmethod
    async def start(
        cls,
        settings: ServeSettings,
        number: int,
        sockets: Sequence[socket.socket],
        table: SharedCounts,
    ) -> Self:
        """Start a worker. One whose start is cancelled ends by itself.

        Args:
            settings: what all workers have in common.
            number: which worker it is.
            sockets: what it is to accept on.
            table: where it says how many connections it has.

        Raises:
            OSError: the system has no room for it.
        """
        ours, theirs = socket.socketpair()
        place = table.take()
        try:
            with theirs:
                fds = [sock.fileno() for sock in sockets]
                assignment = Assignment(settings, number, theirs.fileno(), fds, table.fd, place)
                process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    *("-m", "typed_amp.supervised", settings.target, assignment.as_json()),
                    stdin=DEVNULL,
                    pass_fds=[*fds, theirs.fileno(), table.fd],
                    process_group=0,  # Ctrl-C is for the supervisor
                )
            reader, writer = await asyncio.open_connection(sock=ours)
        except BaseException:
            ours.close()
            table.give_back(place)
            raise
        made = cls(number, process, reader, writer)
        made.ended.add_done_callback(lambda _: table.give_back(place))
        return made

    def __str__(self) -> str:
        return f"worker {self.number} ({self.process_id})"

    async def wait_ready(self) -> None:
        """Wait until it serves.

        Raises:
            NotReadyError: it can't.
        """
        line = b""
        with contextlib.suppress(OSError):
            line = await self._reader.readline()
        if not line:
            raise NotReadyError(f"{self} {await self.how_it_ended()} before it was ready")
        said = json.loads(line)
        if "failed" in said:
            await self.how_it_ended()
            raise NotReadyError(said["failed"])
        self.is_ready = True
        self.began = asyncio.get_running_loop().time()

    def tell(self, word: str) -> None:
        """Say what to do: `retire` (accept no more), `drain` or `stop`."""
        self._writer.write(f"{word}\n".encode())

    def kill(self) -> None:
        """End it without its having a say."""
        if not self.ended.done():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process_id, signal.SIGKILL)

    async def end_within(self, seconds: float) -> bool:
        """Wait until it ends, and kill it if it takes too long; says whether it ended by itself."""
        await asyncio.wait([self.ended], timeout=seconds)
        ends_by_itself = self.ended.done()
        self.kill()
        await asyncio.wait([self.ended])
        return ends_by_itself

    async def how_it_ended(self) -> str:
        """Wait until it ends, and say in words how it did."""
        status = await asyncio.shield(self.ended)
        if status >= 0:
            return f"ended with exit status {status}"
        try:
            return f"was killed by {signal.Signals(-status).name}"
        except ValueError:  # those for real-time programs have no names
            return f"was killed by signal {-status}"

    async def _wait(self) -> int:
        try:
            return await self._process.wait()
        finally:
            self._writer.close()
