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
from typing import TYPE_CHECKING, Final, Self

from typed_amp.serve_settings import Assignment

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import Sequence

    from typed_amp.serve_settings import ServeSettings
    from typed_amp.shared_counts import SharedCounts

__all__ = ["NotReadyError", "SupervisedProcess"]


_LAST_WORDS: Final = 5.0
"""How many seconds a worker that is given up has to say where it was."""


class NotReadyError(Exception):
    """A worker can't serve; the text says why."""


class SupervisedProcess:
    """A worker's process. Made by `start`.

    It loads, and says that it is ready; it serves when it is told to. So one that has not been told
    can be killed, and nobody loses anything.

    Attributes:
        number: which worker it is.
        process_id: the system's number for it.
        is_serving: whether it was told to serve.
        ended: done when it has ended and was reaped, with its exit status; the negative number of
            the signal if one ended it.
    """

    def __init__(
        self,
        settings: ServeSettings,
        number: int,
        process: Process,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        loop = asyncio.get_running_loop()
        self.number = number
        self.process_id: int = process.pid
        self.is_serving: bool = False
        self._settings = settings
        self._since = loop.time()
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
        """Start a worker. Cancelling kills it, and waits until it has ended.

        Args:
            settings: what all workers have in common.
            number: which worker it is.
            sockets: what it is to accept on.
            table: where it says how many connections it has.

        Raises:
            OSError: the system has no room for it.
        """
        # As a task of its own, which goes on when this one is cancelled: what is half started
        # can't be ended well.
        starting = asyncio.create_task(cls._start(settings, number, sockets, table))
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            starting.add_done_callback(_abandon)
            await asyncio.wait([starting])
            if not starting.cancelled() and starting.exception() is None:
                started = starting.result()
                started.kill()
                await asyncio.wait([started.ended])
            raise

    @classmethod
    async def _start(
        cls,
        settings: ServeSettings,
        number: int,
        sockets: Sequence[socket.socket],
        table: SharedCounts,
    ) -> Self:
        ours, theirs = socket.socketpair()
        place = table.take()
        with theirs, contextlib.ExitStack() as on_failure:
            on_failure.callback(table.give_back, place)
            on_failure.callback(ours.close)
            reader, writer = await asyncio.open_connection(sock=ours)
            on_failure.callback(writer.close)
            fds = [sock.fileno() for sock in sockets]
            assignment = Assignment(settings, number, theirs.fileno(), fds, table.fd, place)
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "typed_amp.supervised", settings.target, assignment.as_json()),
                stdin=DEVNULL,
                pass_fds=[*fds, theirs.fileno(), table.fd],
                process_group=0,  # Ctrl-C is for the supervisor
            )
            on_failure.pop_all()
        made = cls(settings, number, process, reader, writer)
        made.ended.add_done_callback(lambda _: table.give_back(place))
        return made

    def __str__(self) -> str:
        return f"worker {self.number} ({self.process_id})"

    @property
    def age(self) -> float:
        """How many seconds ago it began to serve."""
        return asyncio.get_running_loop().time() - self._since

    async def wait_ready(self) -> None:
        """Wait until it has loaded what it is to serve. Cancelling only stops the waiting.

        Raises:
            NotReadyError: it can't, or takes longer than it may: then it has been ended.
        """
        seconds = self._settings.start_timeout
        try:
            async with asyncio.timeout(seconds):
                await self._listen()
        except TimeoutError:
            self.tell("give up")
            await self.end_within(_LAST_WORDS)
            raise NotReadyError(
                f"{self} had not loaded {self._settings.target} within {seconds:g} seconds and was"
                " ended; see what holds it up, or give it longer with --start-timeout"
            ) from None

    async def serve(self) -> None:
        """Have it serve, now that it is ready, and wait until it does.

        Cancelling only stops the waiting.

        Raises:
            NotReadyError: it can't, or takes longer than it may: then it is killed.
        """
        self.tell("serve")
        self.is_serving = True
        seconds = self._settings.start_timeout
        try:
            async with asyncio.timeout(seconds):
                await self._listen()
        except TimeoutError:
            self.kill()
            raise NotReadyError(
                f"{self} was ready, but did not serve within {seconds:g} seconds and was killed;"
                f" something in {self._settings.target} holds up its event loop"
            ) from None
        self._since = asyncio.get_running_loop().time()

    async def _listen(self) -> None:
        """Wait until it says that it has done what it was to do."""
        line = b""
        with contextlib.suppress(OSError):
            line = await self._reader.readline()
        if not line:
            before = "it served" if self.is_serving else "it was ready"
            raise NotReadyError(f"{self} {await self.how_it_ended()} before {before}")
        said = json.loads(line)
        if "failed" in said:
            await self.end_within(_LAST_WORDS)
            raise NotReadyError(said["failed"])

    def tell(self, word: str) -> None:
        """Say what to do.

        Args:
            word: `give up` (say where you are, and end, if you have not loaded yet), `serve`,
                `retire` (accept no more), `drain` or `stop`.
        """
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


def _abandon(starting: asyncio.Task[SupervisedProcess]) -> None:
    """Kill what was started for nobody."""
    if not starting.cancelled() and starting.exception() is None:
        starting.result().kill()
